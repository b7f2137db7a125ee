"""How recjob writes its own Parquet, and how it reads anybody's: checked, with errors that name the file.

Nothing is memory-mapped: a file that somebody cuts while it is read would kill the process, and copying takes no longer.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
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


def write_streams(
    folder: Path, schemas: Mapping[str, pa.Schema], batches: Iterable[Mapping[str, pa.RecordBatch]]
) -> None:
    """Write batches to a file for each schema, `<folder>/<name>.parquet`.

    The same rows are the same bytes, whatever batches they come in: row groups end where ROW_GROUP says.
    """
    with ExitStack() as stack:
        groups = {
            name: _Groups(stack.enter_context(open_writer(folder / f"{name}.parquet", schema)))
            for name, schema in schemas.items()
        }
        for batch in batches:
            for name, part in batch.items():
                groups[name].add(part)
        for rest in groups.values():
            rest.write()


class _Groups:
    """Rows on their way into a file, held back until they are a row group."""

    def __init__(self, writer: pq.ParquetWriter) -> None:
        self._writer, self._held, self._rows = writer, list[pa.RecordBatch](), 0

    def add(self, batch: pa.RecordBatch) -> None:
        self._held.append(batch)
        self._rows += batch.num_rows
        while self._rows >= ROW_GROUP:
            self.write()

    def write(self) -> None:
        """Write a row group, or what there is of one."""
        table = pa.Table.from_batches(self._held, self._writer.schema)
        if table.num_rows:
            whole = table.slice(0, ROW_GROUP).combine_chunks()  # pages would end where chunks do
            self._writer.write_table(whole, row_group_size=ROW_GROUP)
        rest = table.slice(ROW_GROUP)
        self._held, self._rows = rest.to_batches(), rest.num_rows


def open_file(path: Path, dictionaries: Collection[str] = ()) -> pq.ParquetFile:
    """Open a Parquet file for reading, page checksums verified where it has them; raises `InvalidInput`.

    Text in the columns `dictionaries` is read as dictionaries: each value is in memory once.
    """
    with readable(path):
        metadata = pq.read_metadata(path)
        columns = [metadata.schema.column(number) for number in range(metadata.num_columns)]
        wanted = [column for column in columns if column.path in dictionaries and column.physical_type == "BYTE_ARRAY"]
        texts = [column.path for column in wanted if column.logical_type.type != "DECIMAL"]
        return pq.ParquetFile(path, metadata=metadata, read_dictionary=texts, page_checksum_verification=True)


def read(path: Path, columns: list[str] | None = None) -> pa.Table:
    """The whole table in a file; raises `InvalidInput` where the file is missing or damaged."""
    return read_columns(path, open_file(path), columns)


def read_columns(path: Path, source: pq.ParquetFile, columns: list[str] | None) -> pa.Table:
    """Columns of an open file, all of them where none are named; raises `InvalidInput` where it is damaged."""
    with readable(path):
        table = source.read(columns=columns)
    if table.num_rows != source.metadata.num_rows:
        counts = f"{table.num_rows:,} rows, and its footer says {source.metadata.num_rows:,}"
        raise damaged(path, ValueError(f"it has {counts}"))
    return table


@contextmanager
def readable(path: Path) -> Iterator[None]:
    """Raise `InvalidInput` for whatever a damaged file makes of reading it."""
    try:
        yield
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
