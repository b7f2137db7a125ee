"""Ratings, movies and users from a GroupLens zip (ml-100k, ml-1m, ml-latest-small, ml-20m, ml-25m and later).

Members are read in place, in blocks; nothing is extracted to disk and nothing is downloaded.
In messages a row is the line of the member, from 1, a header line included.
"""

import io
import re
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import csv

from storage.catalogue import Catalogue
from storage.errors import DiskFailed, InvalidInput, NoRatings

MAX_BYTES = 8 << 30
"""A zip that unpacks to more bytes is refused."""
MAX_RATIO = 200
"""A member that unpacks to more than this many times its packed size is refused; the originals stay under 15."""
NO_GENRES = "(no genres listed)"
OCCUPATIONS = (
    *("other/not specified", "academic/educator", "artist", "clerical/admin", "college/grad student"),
    *("customer service", "doctor/health care", "executive/managerial", "farmer", "homemaker", "K-12 student"),
    *("lawyer", "programmer", "retired", "sales/marketing", "scientist", "self-employed", "technician/engineer"),
    *("tradesman/craftsman", "unemployed", "writer"),
)
"""ml-1m's occupation codes 0..20, by the table in its README."""
UTC_TIME = pa.timestamp("us", tz="UTC")

_INT, _TEXT = pa.int64(), pa.string()
_RATINGS = {"user_id": _INT, "movie_id": _INT, "rating": pa.float32(), "rated_at": _INT}
_HINT = "the zips at https://grouplens.org/datasets/movielens/ are read as they are; download it again if in doubt"


def read_zip(path: Path) -> Catalogue:
    """Read a GroupLens zip; the layout is recognised from its member names, whatever the top folder is called.

    Raises `InvalidInput` (naming zip, member, column, row) for anything that is not such a zip, `NoRatings` when it
    holds none, `DiskFailed` when the file cannot be read.
    """
    with _opened(path) as zipped:
        _check_size(path, zipped)
        archive, read = _recognised(path, zipped)
        catalogue = read(archive)
    if not catalogue.ratings.num_rows:
        raise NoRatings(f"{path} holds no ratings", hint=_HINT, path=str(path))
    return catalogue


def title_year(titles: pa.ChunkedArray) -> pa.ChunkedArray:
    """The year as int16 of titles that end in "(1995)", null for the others."""
    found = pc.extract_regex(titles, r"\((?P<year>[0-9]{4})\)\s*$")
    return pc.struct_field(found, "year").cast(pa.int16())


def split_genres(text: pa.ChunkedArray) -> pa.Array:
    """Split "Comedy|Drama" into list<string>; null stays null, "" and "(no genres listed)" become the empty list."""
    parts = pc.split_pattern(text, "|")
    parts = parts.combine_chunks() if isinstance(parts, pa.ChunkedArray) else parts
    names, owner = parts.flatten(), pc.list_parent_indices(parts)
    kept = pc.invert(pc.is_in(names, value_set=pa.array(["", NO_GENRES])))
    counts = np.bincount(owner.filter(kept).to_numpy(), minlength=len(parts))
    offsets = np.concatenate([[0], np.cumsum(counts)]).astype(np.int32)
    return pa.ListArray.from_arrays(offsets, names.filter(kept), mask=parts.is_null())


def with_joined_at(users: pa.Table, ratings: pa.Table) -> pa.Table:
    """Append `joined_at`, the time of each user's first rating; null for a user without one."""
    first = ratings.group_by("user_id").aggregate([("rated_at", "min")])
    place = pc.index_in(users["user_id"], value_set=first["user_id"].combine_chunks())
    return users.append_column("joined_at", first["rated_at_min"].take(place))


@dataclass(frozen=True)
class _Archive:
    path: Path
    zipped: zipfile.ZipFile
    folder: str
    """What stands before the member names, "" or ending in a slash."""

    def text(self, member: str) -> str:
        """A small member as latin-1 text."""
        with self.open(member) as raw:
            return str(raw.read().decode("latin-1"))

    def table(self, member: str, columns: Mapping[str, pa.DataType], delimiter: str, encoding: str) -> pa.Table:
        """Read a member without a header, all its columns in the order of `columns`, quotes and all."""
        options = {
            "read_options": csv.ReadOptions(column_names=list(columns), encoding=encoding),
            "parse_options": csv.ParseOptions(delimiter=delimiter[-1], quote_char=False),
        }
        return self._read(member, list(columns), columns, delimiter, options)

    def headed(self, member: str, columns: Mapping[str, pa.DataType], names: list[str]) -> pa.Table:
        """Read the columns `columns` of a CSV member with a header, and call them `names`."""
        with self.open(member) as raw:
            header = raw.readline().decode("utf-8-sig", "replace").strip().replace('"', "").split(",")
        if missing := sorted(set(columns) - set(header)):
            raise self.error(member, f"has no column {', '.join(missing)}; its header is {', '.join(header)}", row=1)
        options = {"read_options": csv.ReadOptions(), "parse_options": csv.ParseOptions()}
        return self._read(member, header, columns, ",", options).rename_columns(names)

    def open(self, member: str) -> io.BufferedIOBase:
        try:
            return self.zipped.open(self.folder + member)  # type: ignore[return-value]
        except KeyError as error:
            raise InvalidInput(f"{self.path} has no {self.folder + member}", hint=_HINT, path=str(self.path)) from error

    def error(self, member: str, what: str, **where: object) -> InvalidInput:
        place = "".join(f", {key} {value}" for key, value in where.items())
        return InvalidInput(
            f"{self.path}: {self.folder + member}{place}: {what}",
            hint=_HINT,
            path=str(self.path),
            member=member,
            **where,
        )

    def _read(
        self,
        member: str,
        header: list[str],
        columns: Mapping[str, pa.DataType],
        delimiter: str,
        options: dict[str, object],
    ) -> pa.Table:
        options["convert_options"] = csv.ConvertOptions(
            column_types=dict(columns), include_columns=list(columns), null_values=[], strings_can_be_null=False
        )
        try:
            with self.open(member) as raw:
                return csv.read_csv(_OneByte(raw) if delimiter == _OneByte.SEPARATOR else raw, **options)
        except pa.ArrowInvalid as error:
            raise self._located(member, header, delimiter, options, error) from error

    def _located(
        self, member: str, header: list[str], delimiter: str, options: dict[str, object], error: Exception
    ) -> InvalidInput:
        """Read again in one thread, because only then does Arrow say which row is at fault."""
        options["read_options"].use_threads = False  # type: ignore[attr-defined]
        text = str(error)
        try:
            with self.open(member) as raw:
                csv.read_csv(_OneByte(raw) if delimiter == _OneByte.SEPARATOR else raw, **options)
        except pa.ArrowInvalid as again:
            text = str(again)
        where: dict[str, object] = {}
        if column := re.search(r"CSV column #(\d+)", text):
            where["column"] = header[int(column[1])]
        if row := re.search(r"Row #(\d+)", text):
            where["row"] = int(row[1])
        what = re.sub(r"^(In CSV column #\d+: )?(CSV parse error: )?(Row #\d+: )?(CSV conversion error )?", "", text)
        return self.error(member, what.replace(_OneByte.SEPARATOR[-1], "::"), **where)
