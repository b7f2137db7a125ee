"""Anybody's Parquet and CSV as tables in recjob's columns and types. Nothing is guessed that could lose an id.

Ids: integers of any width become int64, text stays text; a CSV column of whole numbers without leading zeros or signs
becomes int64, otherwise text ("007" stays "007"). Times: zoned timestamps become UTC, zoneless ones are taken as UTC,
integers are seconds, milli-, micro- or nanoseconds since 1970 by their size, text is ISO 8601. Rows are counted from 1, a
header not counted.
"""

import glob
import re
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath

import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import csv

from storage import bounds, grouplens, narrow, parquet
from storage.errors import InvalidInput, NoRatings, shape, shapes

UTC_TIME = pa.timestamp("us", tz="UTC")
_CSV = (".csv", ".csv.gz", ".tsv", ".tsv.gz")
_SUFFIXES = (".parquet", *_CSV)
_WHOLE_NUMBER = r"^(0|-?[1-9][0-9]{0,17})$"
_EPOCH_UNITS = ((10**11, "s"), (10**14, "ms"), (10**17, "us"), (2**63, "ns"))
_FIRST_SECOND = 10**8  # smaller times, before March 1973, do not tell their unit
_TEXTS = ("user_id", "movie_id", "title", "genres", "gender", "occupation", "zip_code")
"""Columns of CSV that are text whatever they look like."""
_WRITTEN = {
    "rating": r"^\s*[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?\s*$",
    "time": r"^[0-9]{4}-[0-9]{2}-[0-9]{2}([ T][0-9]{2}(:[0-9]{2}(:[0-9]{2}(\.[0-9]+)?)?)?(Z|[+-][0-9]{2}:?[0-9]{2})?)?$",
}


_WHERE = (
    "input.ratings names a Parquet or CSV file, a folder or a quoted glob; without it, recjob ingest fills the lake"
)


@dataclass(frozen=True)
class Problem:
    """A column that cannot be used."""

    path: Path
    column: str
    found: str
    expected: str

    def __str__(self) -> str:
        return f"{self.path}: column {self.column!r} is {self.found}, expected {self.expected}"


def files_of(source: str) -> list[Path]:
    """The data files a file name, folder or glob stands for, in order of name; raises `NoRatings`.

    In folders and globs, names that begin with `_` or `.` are skipped, as Spark and Hive do.
    """
    path = Path(source)
    if path.is_dir():
        found = [file for file in path.rglob("*") if is_data(file.relative_to(path))]
    elif path.is_file():  # whatever its name: it was named
        found = [path]
    else:
        found = [Path(name) for name in glob.glob(source, recursive=True) if Path(name).name[0] not in "_."]
    files = sorted(file for file in found if file.is_file())
    if not files and not path.exists() and not glob.has_magic(source):
        raise NoRatings(f"{source} does not exist", hint=_WHERE, path=source)
    if not files:
        raise NoRatings(f"{source} has no data files", hint=_WHERE, path=source)
    return files


def is_data(inside: PurePath) -> bool:
    """Whether a file in a folder counts as one of data, by its path within that folder."""
    return inside.name.endswith(_SUFFIXES) and not any(part[0] in "_." for part in inside.parts)


def read(path: Path, wanted: Mapping[str, str]) -> pa.Table:
    """The columns `wanted` (recjob's name -> name in the file) that a file has, under recjob's names; ids of CSV as text."""
    if is_csv(path):
        table = _csv(path, wanted)
    elif path.suffix == ".parquet":
        table = bounds.read_parquet(path, set(wanted.values()))
    else:
        raise InvalidInput(f"{path} is neither .parquet nor {', '.join(_CSV)}", path=str(path))
    for column in wanted.values():
        if table.column_names.count(column) > 1:
            raise InvalidInput(f"{path} has more than one column {column!r}", path=str(path), column=column)
    names = {name: table[column] for name, column in wanted.items() if column in table.column_names}
    return pa.table(names, metadata=dict(wanted))  # so that errors can name columns as the file has them


def columns(path: Path) -> list[str]:
    """The names of the columns of a file; none where it cannot be read, which `read` has a better word for."""
    if path.suffix == ".parquet":
        return list(parquet.open_file(path).schema_arrow.names)
    try:
        with csv.open_csv(path, parse_options=_separated(path)) as opened:
            return list(opened.schema.names)
    except (OSError, EOFError, UnicodeDecodeError, pa.ArrowException):
        return []


def typed(
    table: pa.Table, kinds: Mapping[str, str], required: Sequence[str], path: Path
) -> tuple[pa.Table, list[Problem]]:
    """The table with each column in recjob's type, and the columns that cannot be: all of them, not the first.

    `kinds` says what a column is: id, rating, time, text, list, date, year or flag.
    """
    columns: dict[str, pa.ChunkedArray] = {}
    problems: list[Problem] = []
    called = {key.decode(): column.decode() for key, column in (table.schema.metadata or {}).items()}
    for name, kind in kinds.items():
        theirs = called.get(name, name)
        if name not in table.column_names:
            if name in required:
                problems.append(Problem(path, theirs, "missing", f"{EXPECTED[kind]} (input.columns.{name} names it)"))
            continue
        try:
            columns[name] = _KINDS[kind](table[name])
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError, TypeError, OverflowError) as error:
            reason = str(error).splitlines()[0] if isinstance(error, pa.ArrowInvalid) else _found(table[name], kind)
            problems.append(Problem(path, theirs, reason, EXPECTED[kind]))
    return pa.table(columns), problems


def whole_numbers(column: pa.ChunkedArray) -> bool:
    """Whether a column of text is whole numbers only, each written in the one way that a number is printed."""
    return bool(pc.all(pc.match_substring_regex(column, _WHOLE_NUMBER), min_count=0).as_py())


def is_csv(path: Path) -> bool:
    """Whether a file's name says that it is CSV, where whole numbers and text look alike."""
    return path.name.endswith(_CSV)


def one_type(tables: list[tuple[Path, pa.Table]], name: str) -> list[pa.Table]:
    """The tables with one type of id in column `name`, narrow or wide; raises `InvalidInput` where files disagree.

    Ids of CSV files become int64 only if those of all files can.
    """
    texts = [narrow.plain(table[name]) for path, table in tables if is_csv(path)]
    numeric = bool(texts) and all(whole_numbers(column) for column in texts)
    done = []
    for path, table in tables:
        if numeric and is_csv(path):
            at = table.column_names.index(name)
            table = table.set_column(at, name, narrow.plain(table[name]).cast(pa.int64()))
        done.append(table)
    kinds = [str(narrow.kind_of(table[name])) for table in done]
    if len(set(kinds)) > 1:
        examples = {kind: str(path) for kind, (path, _) in zip(kinds, tables, strict=True)}
        shown = ", ".join(f"{kind} in {path}" for kind, path in examples.items())
        raise InvalidInput(f"files disagree about {name}: {shown}", hint="one input holds one kind of ids", column=name)
    return done


def _csv(path: Path, wanted: Mapping[str, str]) -> pa.Table:
    try:
        try:
            return _parsed(path, wanted, threads=True)
        except pa.ArrowInvalid:
            return _parsed(path, wanted, threads=False)  # only then does Arrow say which line is at fault
    except (OSError, EOFError, zlib.error, UnicodeDecodeError, pa.ArrowException) as error:
        reason = str(error).splitlines()[0]
        line = re.search(r"Row #(\d+)", reason)
        row = int(line[1]) - 1 if line else None  # Arrow counts the header
        shown = shapes(re.sub(r"Row #(\d+)", r"line \1", reason))
        raise InvalidInput(
            f"{path} cannot be read as CSV: {shown}", path=str(path), row=row
        ) from None  # it names people


def _parsed(path: Path, wanted: Mapping[str, str], threads: bool) -> pa.Table:
    text = {wanted[name]: pa.string() for name in _TEXTS if name in wanted}
    convert = csv.ConvertOptions(column_types=text, strings_can_be_null=True, null_values=[""])
    return bounds.read_csv(path, threads, _separated(path), convert)


def _separated(path: Path) -> csv.ParseOptions:
    return csv.ParseOptions(delimiter="\t" if ".tsv" in path.name else ",")


def _found(column: pa.ChunkedArray, kind: str) -> str:
    """What a column is that is not what it should be; for text, what the first value in the way looks like."""
    if kind not in _WRITTEN or not pa.types.is_string(column.type):
        return str(column.type)
    unlike = pc.index(pc.match_substring_regex(column, _WRITTEN[kind]), False).as_py()
    return f"text like {shape(column[unlike].as_py()[:40])!r} in row {unlike + 1}" if unlike >= 0 else "text"


def _id(column: pa.ChunkedArray) -> pa.ChunkedArray:
    if pa.types.is_integer(column.type):
        try:
            return column.cast(pa.int64())
        except pa.ArrowInvalid:
            raise pa.ArrowInvalid("a whole number beyond 63 bits") from None  # it names the id
    if pa.types.is_string(column.type) or pa.types.is_large_string(column.type) or pa.types.is_string_view(column.type):
        text = _utf8(column)
        longest = pc.max(pc.binary_length(text)).as_py() or 0
        if longest > bounds.ID_BYTES:
            row = pc.index(pc.binary_length(text), longest).as_py() + 1
            raise pa.ArrowInvalid(f"an id of {longest:,} bytes in row {row}")
        return text
    raise TypeError


def _rating(column: pa.ChunkedArray) -> pa.ChunkedArray:
    if pa.types.is_null(column.type):
        return column.cast(pa.float32())
    if pa.types.is_integer(column.type) or pa.types.is_floating(column.type) or pa.types.is_decimal(column.type):
        return column.cast(pa.float32(), safe=False)
    raise TypeError


def _time(column: pa.ChunkedArray) -> pa.ChunkedArray:
    if pa.types.is_timestamp(column.type):
        zoned = column if column.type.tz else pc.assume_timezone(column, "UTC")
        return zoned.cast(
            options=pc.CastOptions(UTC_TIME, allow_time_truncate=True)
        )  # what overflows would wrap around
    if pa.types.is_integer(column.type):
        return _since_1970(column.cast(pa.int64()))
    if pa.types.is_null(column.type):
        return column.cast(UTC_TIME)
    if pa.types.is_string(column.type):
        return _written(column)
    if pa.types.is_date(column.type):
        return column.cast(pa.timestamp("us")).cast(UTC_TIME)
    raise TypeError


def _written(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Times as ISO 8601 writes them; without a zone they are UTC. Arrow's CSV reader leaves a mixture of both as text."""
    if not pc.all(pc.match_substring_regex(column, _WRITTEN["time"]), min_count=0).as_py():
        raise TypeError
    for pattern, instead in (
        (r"^(.{10})$", r"\1T00:00:00"),
        (r"(\.[0-9]{6})[0-9]+", r"\1"),
        (r"^(.{11}[0-9:.]+)$", r"\1Z"),
    ):
        column = pc.replace_substring_regex(column, pattern, instead)
    return column.cast(UTC_TIME)


def _since_1970(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Whole numbers as times, in the unit that their size tells; raises `ArrowInvalid` when they tell different ones."""
    size = pc.abs(column)
    span = pc.min_max(size.filter(pc.greater_equal(size, _FIRST_SECOND))).as_py()
    told = [next(unit for limit, unit in _EPOCH_UNITS if (end or 0) < limit) for end in (span["min"], span["max"])]
    if told[0] != told[1]:
        raise pa.ArrowInvalid(f"times in {told[0]} and in {told[1]}, such as {span['min']} and {span['max']}")
    return column.cast(pa.timestamp(told[0], tz="UTC")).cast(UTC_TIME, safe=False)


def _list(column: pa.ChunkedArray) -> pa.ChunkedArray:
    if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
        return pa.chunked_array([grouplens.split_genres(column.cast(pa.string()))])
    return column.cast(pa.list_(pa.string()))


def _utf8(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Text as `string`, its bytes looked at: Parquet files may hold others than UTF-8. Raises `ArrowInvalid`."""
    return column.cast(pa.string()).cast(pa.binary()).cast(pa.string())


def _as(kind: pa.DataType) -> Callable[[pa.ChunkedArray], pa.ChunkedArray]:
    return lambda column: column.cast(kind)


_KINDS: dict[str, Callable[[pa.ChunkedArray], pa.ChunkedArray]] = {
    "id": _id,
    "rating": _rating,
    "time": _time,
    "text": _utf8,
    "list": _list,
    "date": _as(pa.date32()),
    "year": _as(pa.int16()),
    "flag": _as(pa.bool_()),
}
EXPECTED = {
    "id": f"whole numbers, or text of at most {bounds.ID_BYTES:,} bytes",
    "rating": "numbers",
    "time": "timestamps, or whole numbers since 1970",
    "text": "text",
    "list": "lists of text, or text split by |",
    "date": "dates",
    "year": "whole numbers",
    "flag": "true or false",
}
