"""Ratings, movies and users from a GroupLens zip (ml-100k, ml-1m, ml-latest-small, ml-20m, ml-25m and later).

Members are read in place, in blocks; nothing is extracted to disk and nothing is downloaded.
In messages a row is the line of the member, from 1, a header line included.
"""

import errno
import io
import re
import struct
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import csv

from storage.catalogue import Catalogue
from storage.errors import DiskFailed, InvalidInput, NoRatings, shapes

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

_HINT = "the zips at https://grouplens.org/datasets/movielens/ are read as they are; download it again if in doubt"
_LAST_SECOND = 253_402_300_799  # the end of the year 9999
_LONGEST = 600  # letters of a message: names of members are quoted in it, and headers
_SMALL = 1 << 16  # bytes read of a member, or a line, that is known to be short
_SEPARATOR = "\x01"  # what "::" is read as
_INT, _TEXT, _SHORT = pa.int64(), pa.string(), pa.int16()
_RATINGS = {"user_id": _INT, "movie_id": _INT, "rating": pa.float32(), "rated_at": _INT}


def read_zip(path: Path) -> Catalogue:
    """Read a GroupLens zip; the layout is recognised from its member names, whatever the top folder is called.

    Raises `InvalidInput` (naming zip, member, column and row) for anything that is not such a zip, `NoRatings` when
    it holds none, `DiskFailed` when the file cannot be read.
    """
    readers = {"u.data": _read_100k, "ratings.dat": _read_1m, "ratings.csv": _read_csv}
    with _opened(path, list(readers)) as archive:
        catalogue = readers[archive.layout](archive)
    if not catalogue.ratings.num_rows:
        raise NoRatings(f"{path} holds no ratings", hint=_HINT, path=str(path))
    return catalogue


def title_year(titles: pa.ChunkedArray) -> pa.ChunkedArray:
    """The year as int16 of titles that end in "(1995)", null for the others."""
    found = pc.extract_regex(titles, r"\((?P<year>[0-9]{4})\)\s*$")
    return pc.struct_field(found, "year").cast(_SHORT)


def split_genres(text: pa.ChunkedArray) -> pa.Array:
    """Split "Comedy|Drama" into list<string>; null stays null, "" and "(no genres listed)" become the empty list."""
    parts = pc.split_pattern(text, "|").combine_chunks()
    names, owner = parts.flatten(), pc.list_parent_indices(parts)
    kept = pc.invert(pc.is_in(names, value_set=pa.array(["", NO_GENRES])))
    return _lists(names.filter(kept), owner.filter(kept).to_numpy(), parts.is_null())


def with_joined_at(users: pa.Table, ratings: pa.Table) -> pa.Table:
    """Append `joined_at`, the time of each user's first rating; null for a user without one."""
    first = ratings.group_by("user_id").aggregate([("rated_at", "min")])
    place = pc.index_in(users["user_id"], value_set=first["user_id"])
    return users.append_column("joined_at", first["rated_at_min"].take(place))


def _read_100k(archive: "_Archive") -> Catalogue:
    names = _genre_names(archive)
    plain = {"movie_id": _INT, "title": _TEXT, "release_date": _TEXT, "video_release_date": _TEXT, "url": _TEXT}
    movies = archive.plain("u.item", plain | dict.fromkeys(names, pa.uint8()), "|")
    flags = np.column_stack([np.asarray(movies[name]) for name in names])  # (M, genres)
    archive.check("u.item", "genres", flags.max(axis=1) <= 1, "a genre flag is 0 or 1")
    owner, genre = np.nonzero(flags)
    genres = _lists(pa.array(names).take(pa.array(genre)), owner, pa.array(np.zeros(len(flags), dtype=bool)))
    users = {"user_id": _INT, "age": _SHORT, "gender": _TEXT, "occupation": _TEXT, "zip_code": _TEXT}
    return _catalogue(
        archive.plain("u.data", _RATINGS, "\t"),
        _movies(movies, genres).append_column("release_date", _release_dates(archive, movies["release_date"])),
        archive.plain("u.user", users, "|"),
    )


def _read_1m(archive: "_Archive") -> Catalogue:
    columns = {"user_id": _INT, "gender": _TEXT, "age": _SHORT, "code": _INT, "zip_code": _TEXT}
    users = archive.plain("users.dat", columns, "::")
    codes = np.asarray(users["code"])
    known = (codes >= 0) & (codes < len(OCCUPATIONS))
    archive.check("users.dat", "code", known, f"an occupation code is 0 to {len(OCCUPATIONS) - 1}")
    users = users.set_column(3, "occupation", pa.array(OCCUPATIONS).take(users["code"]))
    movies = archive.plain("movies.dat", {"movie_id": _INT, "title": _TEXT, "genres": _TEXT}, "::")
    ratings = archive.plain("ratings.dat", _RATINGS, "::")
    return _catalogue(ratings, _movies(movies, split_genres(movies["genres"])), users)


def _read_csv(archive: "_Archive") -> Catalogue:
    columns = {"userId": _INT, "movieId": _INT, "rating": pa.float32(), "timestamp": _INT}
    ratings = archive.headed("ratings.csv", columns).rename_columns(list(_RATINGS))
    movies = archive.headed("movies.csv", {"movieId": _INT, "title": _TEXT, "genres": _TEXT})
    movies = movies.rename_columns(["movie_id", "title", "genres"])
    return _catalogue(ratings, _movies(movies, split_genres(movies["genres"])), None)


def _catalogue(ratings: pa.Table, movies: pa.Table, users: pa.Table | None) -> Catalogue:
    seconds = ratings["rated_at"].cast(pa.timestamp("s", tz="UTC"))
    ratings = ratings.set_column(3, "rated_at", seconds.cast(UTC_TIME))
    if users is not None:
        users = with_joined_at(users.select(["user_id", "gender", "age", "occupation", "zip_code"]), ratings)
    return Catalogue(ratings, movies, users)


def _movies(movies: pa.Table, genres: pa.Array) -> pa.Table:
    columns = [movies["movie_id"], movies["title"], genres, title_year(movies["title"])]
    return pa.table(columns, names=["movie_id", "title", "genres", "year"])


def _lists(values: pa.Array, owner: np.ndarray, null: pa.Array) -> pa.Array:
    """Make lists, one for each of `null`; `owner` says, ascending, which list each value belongs to."""
    counts = np.bincount(owner, minlength=len(null))
    offsets = np.concatenate([[0], np.cumsum(counts)]).astype(np.int32)
    return pa.ListArray.from_arrays(pa.array(offsets), values, mask=null)


def _genre_names(archive: "_Archive") -> list[str]:
    """The genres in the order of u.item's flags, from lines like "Comedy|5"."""
    with archive.open("u.genre") as raw:
        text = raw.read(_SMALL).decode("latin-1")
    named = re.findall(r"^([^|]+)\|([0-9]+)\s*$", text, flags=re.MULTILINE)
    names = [name.strip() for name, _ in sorted(named, key=lambda line: int(line[1]))]
    if not names or len(set(names)) != sum(bool(line.strip()) for line in text.splitlines()):
        raise archive.error("u.genre", "its lines must be different genres, each as NAME|NUMBER")
    return names


def _release_dates(archive: "_Archive", text: pa.ChunkedArray) -> pa.ChunkedArray:
    """Dates of texts like "01-Jan-1995"; an empty text is null."""
    dates = pc.strptime(text, format="%d-%b-%Y", unit="s", error_is_null=True)
    exact = pc.equal(pc.strftime(dates, "%d-%b-%Y"), pc.utf8_lpad(text, 11, "0"))  # strptime takes 31-Feb as 3 March
    valid = pc.or_(pc.equal(text, ""), pc.fill_null(exact, False))
    archive.check("u.item", "release_date", np.asarray(valid), "a release date is like 01-Jan-1995, or empty")
    return dates.cast(pa.date32())


@contextmanager
def _opened(path: Path, layouts: list[str]) -> Iterator["_Archive"]:
    try:
        with zipfile.ZipFile(path) as zipped:
            _check_members(path, zipped)
            yield _recognised(path, zipped, layouts)
    except (FileNotFoundError, IsADirectoryError) as error:
        raise _refusal(path, "there is no such file") from error
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, UnicodeDecodeError, struct.error) as error:
        raise _refusal(path, f"not a whole zip file: {error}") from error
    except OSError as error:
        if error.errno == errno.EINVAL:  # a member that begins before the file does
            raise _refusal(path, f"not a whole zip file: {error}") from error
        raise DiskFailed(f"cannot read {path}: {error.strerror or error}", hint="permissions and the disk") from error


def _check_members(path: Path, zipped: zipfile.ZipFile) -> None:
    members = zipped.infolist()
    if (size := sum(member.file_size for member in members)) > MAX_BYTES:
        raise _refusal(path, f"it unpacks to {size:,} bytes, the limit is {MAX_BYTES:,}")
    for member in members:
        if member.file_size > MAX_RATIO * max(member.compress_size, 1):
            raise _refusal(path, f"it unpacks to over {MAX_RATIO} times its packed size", member=member.filename)
        if member.flag_bits & 1:
            raise _refusal(path, "it is encrypted", member=member.filename)
        if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise _refusal(path, "it is packed in a way GroupLens does not use", member=member.filename)


def _recognised(path: Path, zipped: zipfile.ZipFile, layouts: list[str]) -> "_Archive":
    places = [name.rpartition("/") for name in zipped.namelist()]
    found = [(f"{folder}{slash}", name) for folder, slash, name in places if name in layouts]
    if len(found) > 1:
        raise _refusal(path, f"more than one data set: {', '.join(folder + name for folder, name in found)}")
    if not found:
        raise _refusal(path, f"not a MovieLens zip, it holds none of {', '.join(layouts)}")
    return _Archive(path, zipped, *found[0])


def _refusal(path: Path, what: str, **where: object) -> InvalidInput:
    place = "".join(f", {key} {value}" for key, value in where.items())
    message = f"{path}{place}: {what}"
    shown = "".join(letter if letter.isprintable() else "?" for letter in message[:_LONGEST])
    return InvalidInput(shown, hint=_HINT, path=str(path), **where)


@dataclass(frozen=True)
class _Archive:
    """An open zip with exactly one data set in it."""

    path: Path
    zipped: zipfile.ZipFile
    folder: str
    """What stands before the member names: "" or something ending in a slash."""
    layout: str
    """The name of the member with the ratings."""

    def plain(self, member: str, columns: Mapping[str, pa.DataType], delimiter: str) -> pa.Table:
        """Read a latin-1 member without header or quotes that has exactly these columns."""
        numbers = not any(pa.types.is_string(kind) for kind in columns.values())
        read = csv.ReadOptions(column_names=list(columns), encoding="utf8" if numbers else "latin-1")
        parse = csv.ParseOptions(delimiter=_SEPARATOR if delimiter == "::" else delimiter, quote_char=False)
        return self._read(member, list(columns), columns, read_options=read, parse_options=parse)

    def headed(self, member: str, columns: Mapping[str, pa.DataType]) -> pa.Table:
        """Read these columns of a UTF-8 CSV member with a header."""
        with self.open(member) as raw:
            header = raw.readline(_SMALL).decode("utf-8-sig", "replace").strip().replace('"', "").split(",")
        if missing := [name for name in columns if name not in header]:
            raise self.error(member, f"no column {', '.join(missing)} in the header {','.join(header)[:200]}", row=1)
        return self._read(member, header, columns, read_options=csv.ReadOptions(), parse_options=csv.ParseOptions())

    def check(self, member: str, column: str, valid: np.ndarray, rule: str, first_row: int = 1) -> None:
        """Refuse the member at the first row that is not valid."""
        if not valid.all():
            raise self.error(member, rule, column=column, row=first_row + int(np.argmin(valid)))

    def error(self, member: str, what: str, **where: object) -> InvalidInput:
        return _refusal(self.path, what, member=self.folder + member, **where)

    def open(self, member: str) -> IO[bytes]:
        try:
            return self.zipped.open(self.folder + member)
        except KeyError as error:
            raise self.error(member, "the zip has no such member") from error

    def _read(self, member: str, header: list[str], columns: Mapping[str, pa.DataType], **options: Any) -> pa.Table:
        names = list(columns)
        convert = csv.ConvertOptions(column_types=dict(columns), include_columns=names, null_values=[])
        options["convert_options"] = convert
        try:
            try:
                table = self._parsed(member, options)
            except pa.ArrowInvalid:
                options["read_options"].use_threads = False  # only then does Arrow say which row is at fault
                table = self._parsed(member, options)
        except pa.ArrowInvalid as error:
            raise self._located(member, header, shapes(str(error))) from None  # it names people
        except pa.ArrowKeyError as error:  # a stray quote or line end in the header
            raise self.error(member, f"the header does not read as {','.join(header)[:200]}", row=1) from error
        self._check_rows(member, table, names, first_row=1 if options["read_options"].column_names else 2)
        return table

    def _parsed(self, member: str, options: Mapping[str, Any]) -> pa.Table:
        with self.open(member) as raw:
            single = options["parse_options"].delimiter != _SEPARATOR
            return csv.read_csv(raw if single else _OneByteSeparators(raw), **options)

    def _located(self, member: str, header: list[str], text: str) -> InvalidInput:
        """Arrow's message about a CSV, with the column by its name."""
        where: dict[str, object] = {}
        if column := re.search(r"CSV column #(\d+)", text):
            where["column"] = header[int(column[1])]
        if row := re.search(r"Row #(\d+)", text):
            where["row"] = int(row[1])
        what = re.sub(r"^(In CSV column #\d+: )?(CSV parse error: )?(Row #\d+: )?(CSV conversion error )?", "", text)
        return self.error(member, what.replace(_SEPARATOR, "::"), **where)

    def _check_rows(self, member: str, table: pa.Table, names: list[str], first_row: int) -> None:
        first = np.asarray(table[names[0]])
        if member == self.layout:
            rating, seconds = np.asarray(table[names[2]]), np.asarray(table[names[3]])
            self.check(member, names[2], np.isfinite(rating), "a rating is a finite number", first_row)
            in_time = (seconds >= 0) & (seconds <= _LAST_SECOND)
            self.check(member, names[3], in_time, "a time is in seconds since 1970", first_row)
        else:
            once = np.zeros(len(first), dtype=bool)
            once[np.unique(first, return_index=True)[1]] = True
            self.check(member, names[0], once, "an id has one row", first_row)


class _OneByteSeparators(io.RawIOBase):
    """A binary file in which `::` reads as one byte, because Arrow's CSV reader knows no longer separators."""

    def __init__(self, raw: IO[bytes]) -> None:
        self._raw = raw
        self._held = b""  # colons at the end of a block: the next block may continue them

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        while True:
            block = self._raw.read(size - len(self._held) if size > 0 else size)
            whole = self._held + block
            self._held = whole[len(whole.rstrip(b":")) :] if block else b""
            ready = whole[: len(whole) - len(self._held)]
            if ready or not block:
                return ready.replace(b"::", _SEPARATOR.encode())
