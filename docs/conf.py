"""How the site is built: `sphinx-build -W docs site`. What can be read off the code is put in by `generated.py`."""

import re
import sys
from importlib import metadata
from pathlib import Path

from sphinx.application import Sphinx

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
sys.path[:0] = [str(HERE), str(ROOT)]

import generated  # noqa: E402  (found by the line above)

project = "recjob"
release = version = metadata.version("recjob")
extensions = ["myst_parser"]
myst_heading_anchors = 3
exclude_patterns = ["_*", "*.py"]
html_theme = "furo"
html_title = f"recjob {release}"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_copy_source = False
html_show_sphinx = False
html_show_copyright = False
highlight_language = "none"

_GENERATED = re.compile(r"<!-- generated: (\w+) -->")
_FILE = re.compile(r'<!-- file: (\S+)(?: before "(.+)")? -->')
_LINK = re.compile(r"\[([^\]]*)\]\(([^)#:]+)(#[^)]*)?\)")
_PAGES = {"README.md": "/index.md", "CHANGELOG.md": "/changelog.md", "benchmarks/README.md": "/benchmarks.md"}
"""Files beside docs/ that have a page here."""


def fill(app: Sphinx, name: str, source: list[str]) -> None:
    """Put in what `generated` knows and files beside docs/, whose links are made to fit."""
    text = _linked(source[0], (HERE / name).parent)
    text = _FILE.sub(lambda place: _file(ROOT / place[1], place[2]), text)
    source[0] = _GENERATED.sub(lambda place: getattr(generated, place[1])(), text)


def _file(path: Path, before: str | None) -> str:
    text = path.read_text(encoding="utf-8")
    return _linked(text[: text.index(before)] if before else text, path.parent)


def _linked(text: str, folder: Path) -> str:
    """Links as they are from the root of docs/; to a file that has no page here, its label alone. Code has no such links."""

    def changed(link: re.Match[str]) -> str:
        target = (folder / link[2]).resolve()
        if target.is_relative_to(HERE):
            return f"[{link[1]}](/{target.relative_to(HERE)}{link[3] or ''})"
        page = _PAGES.get(str(target.relative_to(ROOT))) if target.is_relative_to(ROOT) else None
        return f"[{link[1]}]({page}{link[3] or ''})" if page else link[1]

    return _LINK.sub(changed, text)


def setup(app: Sphinx) -> None:
    """Called by Sphinx."""
    app.connect("source-read", fill)
