"""The pictures of the documents and the outputs of the notebook, made from real nights on MovieLens-100k.

    pip install "recjob[notebook]"; apt-get install chromium
    python docs/pictures/make.py ml-100k.zip

Ten nights, eight with `basic` and two with `default`, in a folder that is removed afterwards; it takes some ten minutes on two
cores. Titles of movies are in the pictures, ratings are not.
"""

import html
import io
import os
import pty
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import nbclient
import nbformat
from PIL import Image
from rich.console import Console
from rich.text import Text

HERE = Path(__file__).parent
NOTEBOOK = HERE.parent / "notebook" / "lists.ipynb"
COLUMNS, ROWS = 100, 40
COLORS = 96
"""Of a picture: enough for text and lines."""
_ERASE, _UP = "\x1b[2K", "\x1b[1A"
FRAME = """<div style="display:inline-block; overflow:hidden; width:{width}px; height:{height}px">
<iframe srcdoc="{page}" style="{style}"></iframe></div>"""


def main(source: Path) -> None:
    """Run the nights, and make everything anew."""
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        recjob(work, "ingest", str(source))
        for day in range(13, 21):
            recjob(work, "nightly", "--date", f"1998-04-{day}", RECJOB_MODEL_NAME="basic")
        recjob(work, "nightly", "--date", "1998-04-21")
        _night(work)
        _lookups(work)
        _report(work)
        run_notebook(NOTEBOOK, work / "state" / "recommendations.duckdb")
    for path in sorted(HERE.glob("*.[ps][nv]g")):
        print(f"{path.name}  {path.stat().st_size / 1000:.0f} kB")


def run_notebook(notebook: Path, database: Path) -> None:
    """Run a notebook on a published file and store its outputs in it, without what changes from run to run."""
    document = nbformat.read(notebook, as_version=4)
    os.environ["RECJOB_DATABASE"] = str(database)
    nbclient.NotebookClient(document, kernel_name="python3", timeout=300).execute()
    for cell in document.cells:
        cell.metadata = {}
    document.metadata = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    nbformat.write(document, notebook)


def recjob(work: Path, *arguments: str, **environ: str) -> None:
    """Run recjob where its state is `state`, quietly."""
    command = [sys.executable, "-m", "jobs.cli", *arguments, "--quiet"]
    subprocess.run(command, cwd=work, env=_environment() | environ, check=True, stdout=subprocess.DEVNULL)


def _environment() -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("RECJOB_", "NO_COLOR"))}
    return kept | {"TERM": "xterm-256color", "COLUMNS": str(COLUMNS), "LINES": str(ROWS)}


def _night(work: Path) -> None:
    """The terminal in the middle of a night and at its end."""
    shown, half = "", None
    for shown in _on_terminal(work, "nightly --date 1998-04-22"):
        if half is None and re.search(r"all ratings.* 1[2-9] of 20 ", _lines(shown)[-1]):
            half = shown
    _draw(half or shown, "recjob nightly --date 1998-04-22", HERE / "terminal-training.svg")
    _draw(shown, "recjob nightly --date 1998-04-22", HERE / "terminal-night.svg")


def _lookups(work: Path) -> None:
    """What people ask next."""
    parts = []
    for command in ("recommend --user 42 -n 5", "explain --user 42 -n 3", "status"):
        *_, shown = _on_terminal(work, command)
        parts.append(f"\x1b[1m$ recjob {command}\x1b[0m\n{shown.replace(str(work) + '/', '')}")
    _draw("\n".join(parts), "recjob", HERE / "terminal-lookups.svg")


def _on_terminal(work: Path, command: str) -> Iterator[str]:
    """All that recjob has written to a terminal, each time that it has written more."""
    process, terminal = pty.fork()
    if process == 0:
        os.chdir(work)
        os.execve(sys.executable, [sys.executable, "-m", "jobs.cli", *command.split()], _environment())
    shown = b""
    while True:
        try:
            shown += os.read(terminal, 65536)
        except OSError:  # as Linux says that the child has closed it
            break
        yield shown.decode(errors="replace").replace("\r\n", "\n").rstrip()
    os.close(terminal)
    if os.waitpid(process, 0)[1]:
        sys.exit(f"recjob {command} failed:\n{shown.decode()}")


def _lines(written: str) -> list[str]:
    """The lines that are to be seen once the cursor has gone where it was sent."""
    lines = [""]
    for part in re.split(rf"(\n|{re.escape(_UP)})", written):
        if part == "\n":
            lines.append("")
        elif part == _UP:
            lines.pop()
        else:
            lines[-1] = part.rpartition(_ERASE)[2] if _ERASE in part else lines[-1] + part
    return lines


def _draw(written: str, title: str, target: Path) -> None:
    """A terminal as SVG; the font is the reader's, so that nothing is fetched."""
    console = Console(width=COLUMNS, record=True, file=io.StringIO(), force_terminal=True, color_system="truecolor")
    plain = re.sub(r"\x1b\[\?[0-9]+[hl]", "", "\n".join(_lines(written)))
    console.print(Text.from_ansi(plain.rstrip()))
    drawn = console.export_svg(title=title, unique_id=target.stem)
    drawn = re.sub(r"@font-face \{.*?\}\s*", "", drawn, flags=re.DOTALL).replace("Fira Code", "ui-monospace")
    target.write_text(drawn)


def _report(work: Path) -> None:
    """The top of the newest report on a desktop, and three screens of it on a phone in the dark."""
    page = html.escape((work / "state" / "reports" / "nightly" / "latest.html").read_text())
    _shoot(_frame(page, 1280, 1030, 0), HERE / "report.png", 1280, 1030, dark=False)
    phones = "".join(_frame(page, 390, 1290, top) for top in (0, 1290, 3500))
    _shoot(phones, HERE / "report-phone.png", 3 * 390, 1290, dark=True)


def _frame(page: str, width: int, height: int, top: int) -> str:
    style = f"border:0; width:{width}px; height:{top + height}px; margin-top:-{top}px"
    return FRAME.format(width=width, height=height, page=page, style=style)


def _shoot(frames: str, target: Path, width: int, height: int, *, dark: bool) -> None:
    with tempfile.TemporaryDirectory() as folder:
        page, shot = Path(folder) / "page.html", Path(folder) / "shot.png"
        page.write_text(f'<meta charset="utf-8"><body style="margin:0; white-space:nowrap; font-size:0">{frames}')
        options = [
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--hide-scrollbars",
            f"--user-data-dir={folder}/profile",
        ]
        options += [f"--window-size={width},{height}", f"--screenshot={shot}"]
        options += ["--blink-settings=preferredColorScheme=0"] if dark else []
        browser = shutil.which("chromium") or shutil.which("google-chrome") or sys.exit("Chromium is needed")
        subprocess.run([browser, *options, page.as_uri()], check=True, capture_output=True)
        Image.open(shot).convert("RGB").quantize(COLORS).save(target, optimize=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve())
