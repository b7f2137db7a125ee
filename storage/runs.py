"""Finished outputs by date: staged whole or not at all, and the record from which the published file is built.

`<root>/as_of=2026-11-23/run=<id>/{recommendations,user_status,movies}.parquet`, `similar_movies.parquet` where they are wanted,
and `run.json`. A table that was rewritten without somebody is `<table>-<hex>.parquet`; which files count, `run.json` says.
"""

import json
import uuid
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import pyarrow as pa

from storage import atomic, parquet
from storage.digest import RowsDigest, of_file, of_table
from storage.errors import CorruptState, NotFound
from storage.forgotten import Forgotten


@dataclass(frozen=True)
class RunPartition:
    """The finished output of one run."""

    as_of: date
    run_id: str
    folder: Path
    record: dict[str, Any]
    """run.json: what the run was made of; `rows`, `output_digest` and `files` (name -> sha256) of what it made."""

    def path(self, table: str) -> Path:
        """The Parquet file of one of its tables."""
        rewritten = (name for name in self.record.get("files", {}) if name.startswith(f"{table}-"))
        return self.folder / next(rewritten, f"{table}.parquet")

    def has(self, table: str) -> bool:
        """Whether it has such a table: similar_movies may be missing."""
        return self.path(table).name in self.record.get("files", {})


def stage(
    root: Path,
    as_of: date,
    run_id: str,
    batches: Iterable[Mapping[str, pa.RecordBatch]],
    schemas: Mapping[str, pa.Schema],
    tables: Mapping[str, pa.Table],
    record: Mapping[str, Any],
    inspect: Callable[[RunPartition], Mapping[str, Any]] = lambda partition: {},
) -> RunPartition:
    """Write a partition: `batches` are streamed to one file per schema, `tables` written as they are.

    The partition appears only when all of it is on disk. `rows`, `output_digest` and `files` are added to the record,
    from what was written, and then what `inspect` says of the partition; where that raises, there is no partition.
    """
    target = root / f"as_of={as_of}" / f"run={run_id}"
    with atomic.new_folder(target) as draft:
        rows = dict.fromkeys(schemas, 0)
        digests = {name: RowsDigest(schema) for name, schema in schemas.items()}

        def counted() -> Iterator[Mapping[str, pa.RecordBatch]]:
            for batch in batches:
                for name, part in batch.items():
                    digests[name].update(part)
                    rows[name] += part.num_rows
                yield batch

        parquet.write_streams(draft, schemas, counted())
        for name, table in tables.items():
            with parquet.open_writer(draft / f"{name}.parquet", table.schema) as writer:
                writer.write_table(table)
        document = {
            **record,
            "as_of_date": str(as_of),
            "run_id": run_id,
            "rows": rows,
            "output_digest": digests["recommendations"].hexdigest(),
            "files": {path.name: of_file(path) for path in sorted(draft.iterdir())},
        }
        document |= inspect(RunPartition(as_of, run_id, draft, document))
        (draft / "run.json").write_text(json.dumps(document, indent=1, sort_keys=True, default=str) + "\n")
    return _partition(target)


def partitions(root: Path, *, without: Iterable[str] = ()) -> list[RunPartition]:
    """The newest partition of each date, oldest date first, leaving out the runs in `without`."""
    left_out = set(without)
    newest = {partition.as_of: partition for partition in every(root) if partition.run_id not in left_out}
    return [newest[day] for day in sorted(newest)]


def every(root: Path) -> list[RunPartition]:
    """All partitions, by date and time of start."""
    return [_partition(folder) for folder in sorted(root.glob("as_of=*/run=*")) if (folder / "run.json").is_file()]


def remove(partition: RunPartition, listed: Forgotten) -> int:
    """Rewrite the tables of a partition without the users on the list; returns the rows removed.

    The new files are there before `run.json` names them: the partition is whole at every moment. The old ones stay until
    `tidy`, for published files may show them. Raises `CorruptState`.
    """
    verify(partition)
    files, rows, output_digest = (partition.record[key] for key in ("files", "rows", "output_digest"))
    files, rows, removed = dict(files), dict(rows), 0
    for table in rows:
        old = parquet.read(partition.path(table))
        kept = listed.without(old)
        if kept.num_rows == old.num_rows:
            continue
        target = partition.folder / f"{table}-{uuid.uuid4().hex[:8]}.parquet"
        parquet.write(kept, target)
        del files[partition.path(table).name]
        files[target.name], rows[table] = of_file(target), kept.num_rows
        removed += old.num_rows - kept.num_rows
        output_digest = of_table(kept) if table == "recommendations" else output_digest
    if removed:
        document = partition.record | {"files": files, "rows": rows, "output_digest": output_digest}
        atomic.write_json(partition.folder / "run.json", document)
    return removed


def tidy(root: Path) -> None:
    """Remove the files that the `run.json` of their partition does not name any more."""
    for partition in every(root):
        for path in partition.folder.iterdir():
            if path.name not in {*partition.record["files"], "run.json"}:
                atomic.remove(path)


def find(root: Path, run_id: str) -> RunPartition:
    """The partition of one run; raises `NotFound`."""
    for folder in root.glob("as_of=*/run=*"):
        if folder.name == f"run={run_id}" and (folder / "run.json").is_file():
            return _partition(folder)
    raise NotFound(f"no run {run_id!r} has been staged", hint="recjob runs list shows the runs")


def day_of(folder: Path) -> str:
    """The date of a partition, by the name of the folder that it is in."""
    return folder.parent.name.removeprefix("as_of=")


def run_of(folder: Path) -> str:
    """The run of a partition, by the name of its folder."""
    return folder.name.removeprefix("run=")


def again(day: str) -> str:
    """The command that makes the lists of a date again, whatever the journal says of it."""
    return f"recjob backfill --from {day} --to {day} --only all"


def damaged(folder: Path, what: str) -> CorruptState:
    """The error for a partition that cannot be used, with what to do: nights of other dates do not make it again."""
    return CorruptState(what, hint=f"remove {folder}, then {again(day_of(folder))}")


def verify(partition: RunPartition) -> None:
    """Raise `CorruptState` where a file of the partition is missing or not what was staged."""
    for name, expected in partition.record.get("files", {}).items():
        path = partition.folder / name
        if not path.is_file() or of_file(path) != expected:
            raise damaged(partition.folder, f"{path} is missing or was changed since it was staged")


def unrecorded(root: Path) -> list[Path]:
    """The folders of partitions whose `run.json` is missing or cannot be read."""
    found = []
    for folder in sorted(root.glob("as_of=*/run=*")):
        try:
            _partition(folder)
        except CorruptState:
            found.append(folder)
    return found


def put_aside_damaged(root: Path) -> list[Path]:
    """Put aside the partitions that were damaged, so that their dates are scored again; returns where they were."""
    found = unrecorded(root)
    for folder in found:
        atomic.put_aside(folder, root)
    for partition in every(root):
        try:
            verify(partition)
        except CorruptState:
            atomic.put_aside(partition.folder, root)
            found.append(partition.folder)
    return found


def prune(root: Path, keep: Collection[str]) -> list[str]:
    """Remove what is staged of all runs but those in `keep`, be it whole or not; returns the runs removed."""
    removed = []
    for folder in sorted(root.glob("as_of=*/run=*")):
        if run_of(folder) not in keep:
            atomic.remove(folder)
            removed.append(run_of(folder))
    for day in root.glob("as_of=*"):
        if not any(day.iterdir()):
            day.rmdir()
    return removed


def _partition(folder: Path) -> RunPartition:
    try:
        record = json.loads((folder / "run.json").read_text(encoding="utf-8"))
        return RunPartition(date.fromisoformat(record["as_of_date"]), record["run_id"], folder, record)
    except (OSError, ValueError, KeyError, TypeError) as error:
        hint = (
            f"a night writes it anew where readers are shown these lists (publish.mode = attach); else remove {folder}"
        )
        what = f"{folder}/run.json cannot be read: {error}"
        raise CorruptState(what, hint=f"{hint}, then {again(day_of(folder))}") from error
