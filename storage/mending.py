"""Published files that readers cannot use: found, put aside, and an earlier whole one shown instead."""

from contextlib import suppress
from pathlib import Path

from storage import atomic, warehouse
from storage.errors import CorruptState


def put_aside_damaged(root: Path, link: Path) -> Path | None:
    """Put damaged files aside and show the newest whole one before the current, which is returned; None: there is none."""
    now, whole = link.resolve(), []
    for path in warehouse.versions(root):
        with suppress(CorruptState):
            warehouse.check(path)
            whole.append(path)
    if earlier := [path for path in whole if path.name < now.name]:
        atomic.flip(link, earlier[-1])
    else:
        atomic.remove(link)
    for path in warehouse.versions(root):
        if path not in whole:
            atomic.put_aside(path, root)
    return warehouse.current(link)


def put_aside_logs(root: Path, link: Path) -> list[Path]:
    """Put aside write-ahead logs beside published files and the link: DuckDB would play them into any file of that name."""
    logs = [*link.parent.glob(f"{link.name}.wal"), *root.glob("recommendations-*.wal")]
    return [atomic.put_aside(log, root) for log in logs]


def edited(link: Path) -> bool:
    """Whether the current file was written to after the link was flipped to it."""
    return link.exists() and link.stat().st_mtime > link.lstat().st_mtime
