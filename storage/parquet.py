"""How recjob writes its own Parquet, and how it reads anybody's: checked, memory-mapped, with errors that name the file."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from storage import atomic
from storage.errors import InvalidInput

ROW_GROUP = 122_880
"""Rows; as many as a row group of DuckDB has."""
_UNREADABLE = (OSError, pa.ArrowException, UnicodeDecodeError)
"""What damaged files raise; the last where the name of a column is damaged."""


def write(table: pa.Table, target: Path) -> None:
    """Write a table as `target`, whole or not at all: zstd, a checksum on every page."""
    with atomic.new_file(target) as draft, open_writer(draft, table.schema) as writer:
        writer.write_table(table, row_group_size=ROW_GROUP)


def open_writer(path: Path, schema: pa.Schema) -> pq.ParquetWriter:
    """A writer with recjob's settings."""
    return pq.ParquetWriter(path, schema, compression="zstd", write_page_checksum=True)


def open_file(path: Path) -> pq.ParquetFile:
    """Open a Parquet file for reading, page checksums verified where it has them; raises `InvalidInput`."""
    try:
        return pq.ParquetFile(path, memory_map=True, page_checksum_verification=True)
    except _UNREADABLE as error:
        raise damaged(path, error) from error


def read(path: Path, columns: list[str] | None = None) -> pa.Table:
    """The whole table in a file; raises `InvalidInput` where the file is missing or damaged."""
    source = open_file(path)
    try:
        return source.read(columns=columns)
    except _UNREADABLE as error:
        raise damaged(path, error) from error


def damaged(path: Path, error: Exception) -> InvalidInput:
    """The error for a file that cannot be read as Parquet."""
    reason = str(error).splitlines()[0] if str(error) else type(error).__name__
    return InvalidInput(
        f"{path} cannot be read as Parquet: {reason}",
        hint="write the file again, or move it out of the folder",
        path=str(path),
    )
