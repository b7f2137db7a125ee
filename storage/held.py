"""What a state folder holds that is copied to a store: files by path and digest, and links."""

import json
import os
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from storage import digest, parquet
from storage.errors import InvalidInput

_FORGOTTEN = "forgotten.json"
_FILES = (
    *("lake/**/*", "models/[0-9]*/*", "models/champion.json", "runs/as_of=*/run=*/*", "journal/*.json"),
    *("published/*.duckdb", "reports/nightly/*.html", _FORGOTTEN, "version.json"),
)
"""What of a state folder is copied; all else can be made again, or is of this machine."""
_LINKS = ("recommendations.duckdb", "reports/nightly/latest.html")


@dataclass(frozen=True)
class Copied:
    """A file as a commit names it."""

    sha256: str
    size: int

    @property
    def key(self) -> str:
        """Its object, below the URL of the store."""
        return f"objects/{self.sha256}"


@dataclass(frozen=True)
class Held:
    """What a folder, or a commit of one, holds."""

    files: dict[str, Copied] = field(default_factory=dict)
    """By path in the state folder."""
    links: dict[str, str] = field(default_factory=dict)
    stamps: dict[str, int] = field(default_factory=dict, compare=False)
    """When each file was written, nanoseconds: one that was not since need not be read again."""

    @property
    def essence(self) -> tuple[dict[str, Copied], str | None]:
        """What must not be lost: all but reports, which can be made again."""
        files = {path: file for path, file in self.files.items() if not path.startswith("reports/")}
        return files, self.links.get("recommendations.duckdb")


def is_empty(root: Path) -> bool:
    """Whether no run has left anything in the folder."""
    return all(path.name == "version.json" for path in _paths(root))


def of(root: Path, known: Held) -> Held:
    """What the folder holds now; a file that was not written since it was `known` is not read."""
    files, stamps = dict[str, Copied](), dict[str, int]()
    for path in _paths(root):
        name, found = str(path.relative_to(root)), path.stat()
        before, stamps[name] = known.files.get(name), found.st_mtime_ns
        same = before and (found.st_mtime_ns, found.st_size) == (known.stamps.get(name), before.size)
        files[name] = before if before and same else Copied(digest.of_file(path), found.st_size)
    links = {name: os.readlink(root / name) for name in _LINKS if (root / name).is_symlink()}
    return Held(files, links, stamps)


def damaged(root: Path, here: Held, known: Held) -> list[str]:
    """The files that are gone, or others, since they were `known`, and that recjob did not remove or replace.

    Staged lists, what is in a model and published files never change under their names; what does is replaced as a
    whole, so one that cannot be read was damaged. A folder goes as a whole, of lists what `run.json` no longer names
    goes, and a published file goes once readers are shown another. The list of who was forgotten never goes.
    """
    changed = [path for path, file in known.files.items() if here.files.get(path) != file]
    return [
        path
        for path in changed
        if (_spoiled(root, path, here, known) if path in here.files else _lost(path, here, known))
    ]


def has_forgotten_more(here: Held, known: Held, damaged: Collection[str]) -> bool:
    """Whether the list of who was forgotten was written since it was `known`."""
    return _FORGOTTEN not in damaged and here.files.get(_FORGOTTEN) != known.files.get(_FORGOTTEN)


def _spoiled(root: Path, path: str, here: Held, known: Held) -> bool:
    """Whether a file that is another now is none that recjob has written."""
    folder, _, name = path.rpartition("/")
    if path.startswith(("runs/", "models/", "published/")) and not name.endswith(".json"):
        return True
    try:
        if name.endswith(".parquet"):
            parquet.read(root / path)
        elif name.endswith(".json"):
            document = json.loads((root / path).read_text(encoding="utf-8"))
            named = document["files"] if name in ("run.json", "manifest.json") else {}
            meant = {one: (here.files | known.files).get(f"{folder}/{one}") for one in named}
            return any(file is not None and file.sha256 != named[one] for one, file in meant.items())
    except (InvalidInput, OSError, ValueError, KeyError, TypeError):
        return True
    return False


def _lost(path: str, here: Held, known: Held) -> bool:
    """Whether a file that is gone was not removed by recjob."""
    top, folder = path.partition("/")[0], path.rpartition("/")[0]
    if top == "runs" and not path.endswith("/run.json"):
        record = f"{folder}/run.json"
        return record in known.files and here.files.get(record) == known.files[record]
    if top in ("runs", "models") and folder != "models":
        return any(other.startswith(f"{folder}/") for other in here.files)
    return path in (here.links.get(_LINKS[0]), _FORGOTTEN)


def parsed(document: Mapping[str, Any]) -> Held:
    """What a document says; raises `KeyError`, `ValueError`, `TypeError`."""
    files = {path: Copied(str(sha256), int(size)) for path, (sha256, size) in document["files"].items()}
    return Held(files, dict(document["links"]))


def plain(held: Held) -> dict[str, Any]:
    """The same as JSON has it."""
    return {"files": {path: [file.sha256, file.size] for path, file in held.files.items()}, "links": held.links}


def _paths(root: Path) -> Iterator[Path]:
    """The files of a folder that are copied; a link to somewhere else is not."""
    for pattern in _FILES:
        for path in root.glob(pattern):
            inside = path.relative_to(root)
            linked = any((root / part).is_symlink() for part in (inside, *inside.parents[:-1]))
            if path.is_file() and not linked and not any(part.startswith(".") for part in inside.parts):
                yield path


def is_ours(path: str) -> bool:
    """Whether it is a path that a commit may name: what somebody else has written must not lead out of the folder."""
    parts = path.split("/")
    tops = {pattern.partition("/")[0] for pattern in (*_FILES, *_LINKS)}
    return parts[0] in tops and not any(part.startswith(".") or not part for part in parts)


def drop_empty(root: Path) -> None:
    """Remove folders of which nothing is left: a version of a model without files would be a damaged one."""
    for top in ("models", "runs", "lake"):
        for folder in sorted((root / top).rglob("*"), reverse=True):
            if folder.is_dir() and not folder.is_symlink() and not any(folder.iterdir()):
                folder.rmdir()
