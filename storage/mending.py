"""Published files that readers cannot use: found, put aside, and an earlier whole one shown instead.

And records of staged lists that were lost, written anew from a published file that shows them.
"""

from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from storage import atomic, attached, runs, warehouse
from storage.errors import CorruptState, InvalidInput, NotFound, nothing_published


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


def restore_records(staged: Path, root: Path, manifests: Mapping[str, Mapping[str, Any]]) -> list[Path]:
    """Write `run.json` anew where it was lost, of lists in `staged` that a file which is kept shows and that are whole.

    What it said is in that file as well, but for the whole manifest of the model: that is one of `manifests`, by version, if it
    is kept. Returns the folders.
    """
    lost = runs.unrecorded(staged)
    for path in reversed(warehouse.versions(root)) if lost else ():
        with suppress(CorruptState), warehouse.reader(path, asked=()) as connection:
            shown = attached.files(connection)
            for folder in runs.unrecorded(staged):
                own = [file for file in shown if file.path.parts[-3:-1] == folder.parts[-2:]]
                if own and not any(attached.broken(own, thorough=True)):
                    with suppress(InvalidInput):  # its movies, which are not shown, are damaged: it stays lost
                        record = attached.record_of(connection, folder, own, manifests)
                        atomic.write_json(folder / "run.json", record)
    return sorted(set(lost) - set(runs.unrecorded(staged)))


def edited(link: Path) -> bool:
    """Whether the current file was written to after the link was flipped to it."""
    return link.exists() and link.stat().st_mtime > link.lstat().st_mtime


def earlier(root: Path, link: Path, to: str | None = None, without: Collection[str] = ()) -> tuple[Path, Path]:
    """The current file and the one before it that is not of the runs `without`, or that of run `to`, or what begins so.

    Raises `NotFound`, or `CorruptState` if it is damaged.
    """
    now = warehouse.current(link)
    if now is None:
        raise nothing_published()
    kept = {path: warehouse.run_id_of(path) for path in warehouse.versions(root)}
    if to:
        found = [path for path, run_id in kept.items() if run_id.startswith(to)]
        if len(several := {kept[path] for path in found}) > 1:
            raise NotFound(
                f"published files of {len(several)} runs begin with {to!r}", hint=_elsewhere(sorted(several))
            )
    else:
        found = [path for path, run_id in kept.items() if path.name < now.name and run_id not in without]
    others = [run_id for path, run_id in kept.items() if path.name != now.name and path not in found[-1:]]
    if not found:
        wanted = f"of run {to}" if to else "before the current one"
        raise NotFound(f"no published file {wanted} is kept", hint=_elsewhere(others))
    try:
        warehouse.check(found[-1])
    except CorruptState as error:
        first = "" if error.hint == warehouse.OTHER else f"{error.hint}; "  # which would send them back here
        raise CorruptState(str(error), hint=first + _elsewhere(others)) from error
    return now, found[-1]


def _elsewhere(others: Sequence[str]) -> str:
    """What can be shown where there is nothing to go back to."""
    kept = (
        f"recjob rollback --to RUN goes to another that is kept: {', '.join(others)}" if others else "no other is kept"
    )
    return f"{kept}; recjob publish RUN shows other staged lists (recjob runs list), recjob nightly makes new ones"
