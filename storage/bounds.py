"""Files of others, read within bounds: what a small file says it unpacks to is looked at before memory is taken for it.

Ratings in Parquet take two bytes and more a row, and unpack to some ten times that. What claims more than `RATIO` times its
size, and more than `FLOOR`, is no file of ratings.
"""

import gzip
from collections.abc import Collection
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import csv

from storage import parquet
from storage.errors import InputLimit

FLOOR, RATIO = 256 * 2**20, 64
"""A file may unpack to so many bytes, or so many times its own size."""
COLUMNS = 4096
ID_BYTES = 4096
"""Longest id."""
_VALUE, _PARSED = 8, 4
"""Bytes that a number takes; how many bytes CSV takes for each of its own once it is a table."""


def allowed(path: Path) -> int:
    """Bytes that a file may unpack to."""
    return max(FLOOR, RATIO * path.stat().st_size)


def read_parquet(path: Path, wanted: Collection[str]) -> pa.Table:
    """The columns `wanted` that a Parquet file has, dictionaries decoded; raises `InputLimit`, `InvalidInput`."""
    source = parquet.open_file(path, dictionaries=wanted)
    names = source.schema_arrow.names
    _few_columns(path, len(names))
    rows, most = source.metadata.num_rows, allowed(path)
    with parquet.readable(path):
        groups = [source.metadata.row_group(number) for number in range(source.num_row_groups)]
        chunks = [group.column(number) for group in groups for number in range(group.num_columns)]
        ours = [chunk for chunk in chunks if any(f"{chunk.path_in_schema}.".startswith(f"{name}.") for name in wanted)]
    claimed = rows * _VALUE + sum(max(chunk.total_uncompressed_size, chunk.num_values * _VALUE) for chunk in ours)
    _within(path, f"its {rows:,} rows", claimed, most)
    table = parquet.read_columns(path, source, [name for name in dict.fromkeys(names) if name in wanted])
    with parquet.readable(path):
        columns = [_decoded(path, name, table.column(place), most) for place, name in enumerate(table.column_names)]
    return pa.table(columns, names=table.column_names)


def read_csv(path: Path, threads: bool, parse: csv.ParseOptions, convert: csv.ConvertOptions) -> pa.Table:
    """The table in a CSV file, packed with gzip where its name says so; raises `InputLimit` and what Arrow raises."""
    options = {"read_options": csv.ReadOptions(use_threads=threads), "parse_options": parse, "convert_options": convert}
    if path.suffix == ".gz":
        _unpacks_within(path)
    table = csv.read_csv(path, **options)
    _few_columns(path, table.num_columns)
    return table


def _unpacks_within(path: Path) -> None:
    """Unpack a file only to see how long it becomes: Arrow reads ahead, and takes the memory before it can be told to stop."""
    size, most = 0, allowed(path)
    with gzip.open(path) as packed:
        while found := packed.read(2**20):
            size += len(found)
            _within(path, "it", size * _PARSED, most)


def _few_columns(path: Path, columns: int) -> None:
    if columns > COLUMNS:
        raise InputLimit(f"{path} has {columns:,} columns, more than {COLUMNS:,}", hint=_HINT, path=str(path))


def _decoded(path: Path, name: str, column: pa.ChunkedArray, most: int) -> pa.ChunkedArray:
    """The values of a dictionary, of which each is kept once, if they fit."""
    if not pa.types.is_dictionary(column.type):
        return column
    if not pa.types.is_primitive(column.type.value_type):
        lengths = [
            pc.fill_null(pc.binary_length(chunk.dictionary.cast(pa.large_binary())), 0) for chunk in column.chunks
        ]
        size = sum((pc.max(n).as_py() or 0) * len(chunk) for n, chunk in zip(lengths, column.chunks, strict=True))
        if size > most:  # at most; only then is it worth to count
            size = sum(pc.sum(n.take(c.indices)).as_py() or 0 for n, c in zip(lengths, column.chunks, strict=True))
        _within(path, f"column {name!r}", size, most)
    return column.cast(column.type.value_type)


def _within(path: Path, what: str, size: int, most: int) -> None:
    if size > most:
        raise InputLimit(
            f"{path}: {what} would unpack to {size / 2**20:,.0f} MiB or more, from a file of {path.stat().st_size:,} bytes",
            hint=_HINT,
            path=str(path),
        )


_HINT = "that is no file of ratings; one that is real can be split"
