"""Finished parts of the lists of a date, each complete or absent, kept until all are staged together as one partition.

`<root>/as_of=2026-11-23/shard=3-of-8-<key>/{recommendations,user_status}.parquet` and `shard.json`. The key stands for all that
the lists depend on, so that a shard of other ratings, settings or another model is never taken for one that fits.
"""

import json
import logging
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import pyarrow as pa

from storage import atomic, parquet
from storage.digest import of_file
from storage.errors import DiskFailed

logger = logging.getLogger(__name__)
_RECORD = "shard.json"


@dataclass(frozen=True)
class Shard:
    """Which part of the lists of a date."""

    as_of: date
    number: int
    """1 to `of`."""
    of: int
    key: str
    """Digest of what the lists depend on."""

    def folder(self, root: Path) -> Path:
        """Where it is once it is finished."""
        return root / f"as_of={self.as_of}" / f"shard={self.number}-of-{self.of}-{self.key[:16]}"


def write(
    root: Path,
    shard: Shard,
    batches: Iterable[Mapping[str, pa.RecordBatch]],
    schemas: Mapping[str, pa.Schema],
) -> None:
    """Write a shard; where another process has finished the same one meanwhile, that is as good."""
    target = shard.folder(root)
    try:
        with atomic.new_folder(target) as draft:
            parquet.write_streams(draft, schemas, batches)
            record = {
                "as_of_date": str(shard.as_of),
                "shard": {"number": shard.number, "of": shard.of},
                "key": shard.key,
                "files": {path.name: of_file(path) for path in sorted(draft.iterdir())},
            }
            (draft / _RECORD).write_text(json.dumps(record, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    except DiskFailed:
        if not is_finished(root, shard):
            raise


def is_finished(root: Path, shard: Shard) -> bool:
    """Whether a shard is there; one that was damaged since is removed."""
    folder = shard.folder(root)
    if not folder.is_dir():
        return False
    if not _whole(folder, shard):
        logger.warning("shard.damaged", extra={"shard": folder.name, "instead": "it is scored again"})
        atomic.remove(folder)
        return False
    return True


def read(root: Path, shard: Shard, tables: Iterable[str]) -> Iterator[dict[str, pa.RecordBatch]]:
    """The rows of a finished shard, one table after the other."""
    for name in tables:
        path = shard.folder(root) / f"{name}.parquet"
        with parquet.readable(path):
            for batch in parquet.open_file(path).iter_batches(parquet.ROW_GROUP):
                yield {name: batch}


def every(root: Path, as_of: str = "*") -> dict[Path, date]:
    """The folders of all finished shards, or of those of a date, and what date they are of."""
    return {
        folder: date.fromisoformat(folder.parent.name.removeprefix("as_of="))
        for folder in sorted(root.glob(f"as_of={as_of}/shard=*"))
    }


def remove(root: Path, as_of: date) -> None:
    """Remove all shards of a date."""
    for folder in every(root, str(as_of)):
        atomic.remove(folder)


def finished_at(folder: Path) -> int:
    """When a shard, or a partition, was finished: nanoseconds since 1970."""
    return max(path.stat().st_mtime_ns for path in folder.glob("*.json"))


def _whole(folder: Path, shard: Shard) -> bool:
    try:
        record: dict[str, Any] = json.loads((folder / _RECORD).read_text(encoding="utf-8"))
        files = record["files"]
        return record["key"] == shard.key and all(of_file(folder / name) == found for name, found in files.items())
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return False
