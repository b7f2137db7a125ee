"""Whether a file is left alone while it is read: somebody may still be writing it, or put another in its place."""

import os
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from storage.errors import InputChanging, InvalidInput


@contextmanager
def unchanged(path: Path) -> Iterator[os.stat_result]:
    """What the file is before the body reads it; raises `InputChanging` if it is another afterwards, or gone."""
    before = _stat(path)
    try:
        yield before
    except InvalidInput as error:
        _compare(path, before, error)
        raise
    _compare(path, before)


def lineage(path: Path, found: os.stat_result) -> dict[str, Any]:
    """What `run_inputs` says of a file as a file: path, bytes, modified_at (UTC)."""
    written = datetime.fromtimestamp(found.st_mtime_ns // 1000 / 1e6, UTC).replace(tzinfo=None)
    return {"path": str(path), "bytes": found.st_size, "modified_at": written.isoformat()}


def settle(paths: Iterable[Path], seconds: float) -> None:
    """Wait until all files have been left alone for `seconds`; raises `InputChanging` for one that is written meanwhile."""
    before = {path: _stat(path) for path in paths}
    youngest = max((found.st_mtime for found in before.values()), default=0.0)
    pause = min(seconds, seconds - (time.time() - youngest))  # a clock ahead of ours makes nobody wait longer
    if pause > 0:
        time.sleep(pause)
        for path, found in before.items():
            _compare(path, found)


def _stat(path: Path) -> os.stat_result:
    try:
        return path.stat()
    except OSError as error:
        raise InvalidInput(
            f"{path} cannot be read: {error.strerror}", hint="is the path right?", path=str(path)
        ) from error


def _compare(path: Path, before: os.stat_result, error: InvalidInput | None = None) -> None:
    try:
        now = _stat(path)
    except InvalidInput:
        now = None
    if now is None or _version(now) != _version(before):
        raise InputChanging(
            f"{path} changed while it was read",
            hint="write it under another name (beginning with . or _) and rename it, or run later",
            path=str(path),
        ) from error


def _version(found: os.stat_result) -> tuple[int, ...]:
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns
