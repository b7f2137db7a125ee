"""The ratings of a night: from the lake or from anybody's files, checked, up to a watermark.

Nothing at or after the watermark leaves this module, so nothing after it can change a result.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from storage import digest, narrow, order, steady, tabular
from storage.errors import InvalidInput, NoRatings
from storage.part import Part
from storage.tabular import Problem

_KINDS = {"user_id": "id", "movie_id": "id", "rating": "rating", "rated_at": "time"}
_MOVIES = {
    "movie_id": "id",
    "title": "text",
    "genres": "list",
    "year": "year",
    "release_date": "date",
    "available": "flag",
}
_USERS = {
    "user_id": "id",
    "gender": "text",
    "age": "year",
    "occupation": "text",
    "zip_code": "text",
    "joined_at": "time",
}
_FIRST_YEAR, _LAST_YEAR = datetime(1980, 1, 1, tzinfo=UTC), datetime(2100, 1, 1, tzinfo=UTC)
"""Nobody rated anything on a computer before the one, and nobody has from the other on."""
_LARGEST = 1_000_000
"""A rating beyond, on whatever scale, is a mark for something else or damage, and one would be enough to spoil a training."""
_SHOWN = 20
"""Most problems spelled out in one error."""


@dataclass(frozen=True)
class Limits:
    """What makes a rating unusable, how much of it is too much, and whose are wanted."""

    lowest: float | None = None
    highest: float | None = None
    max_rejected: float = 0.0
    """Largest share of the rows before the watermark that may be rejected."""
    part: Part | None = None
    """The users whose ratings are wanted; None: all. Rows of others are looked at all the same, and then not kept."""


@dataclass(frozen=True)
class Ratings:
    """Checked ratings, in an order that does not depend on files or their order."""

    table: pa.Table
    """user_id, movie_id, rating, rated_at: the latest rating of each user and movie, by time, user and movie."""
    files: list[dict[str, Any]]
    """Lineage: path, sha256, bytes, modified_at, rows, rows_used, rows_future, rows_rejected, min_rated_at, max_rated_at."""
    rejected: list[dict[str, Any]] = field(default_factory=list)
    """path, reason, rows, first_row (1-based)."""


def read(
    source: str,
    columns: Mapping[str, str],
    *,
    before: datetime | None,
    limits: Limits = Limits(),
    known_at: datetime | None = None,
    on_rows: Callable[[int], None] = lambda rows: None,
) -> Ratings:
    """Read and check the ratings given before the instant `before` (None: all) from a file, folder or glob.

    With `known_at`, rows whose column `ingested_at` is at or after it are left out, too: the ratings as they were known then.
    `on_rows` is told how many rows each file has, as it is read. All problems of all files are reported at once.
    Raises `InvalidInput`, `NoRatings`.
    """
    used, files, rejected = _usable(source, columns, before, limits, known_at, on_rows)
    return Ratings(order.latest(used), files, rejected)


def instants(source: str, columns: Mapping[str, str], *, before: datetime, limits: Limits) -> NDArray[np.int64]:
    """When the usable ratings before the instant were given, repeated ones too: microseconds since 1970, ascending, (rows,)."""
    used, _, _ = _usable(source, columns, before, limits, None, lambda rows: None)
    return np.sort(used["rated_at"].cast(pa.int64()).to_numpy())


def read_movies(path: Path, columns: Mapping[str, str]) -> pa.Table:
    """The movies table in a Parquet or CSV file: movie_id and what else it has of recjob's columns, one row an id."""
    return _read_beside(path, columns, _MOVIES, "movie_id")


def read_users(
    path: Path, columns: Mapping[str, str], *, before: datetime | None, part: Part | None = None
) -> pa.Table:
    """The users table in a Parquet or CSV file, without users who join at or after `before`; only those of `part`, if given."""
    users = _read_beside(path, columns, _USERS, "user_id")
    if before is not None and "joined_at" in users.column_names:
        here = pc.less(users["joined_at"], pa.scalar(before, tabular.UTC_TIME))
        users = users.filter(pc.fill_null(here, True))
    return part.within(users) if part else users


def _read_beside(path: Path, columns: Mapping[str, str], kinds: Mapping[str, str], key: str) -> pa.Table:
    wanted = {name: columns.get(name, name) for name in kinds}
    named = tabular.columns(path)  # one mapping serves ratings, movies and users, which may not call things alike
    wanted = {name: name if theirs not in named and name in named else theirs for name, theirs in wanted.items()}
    with steady.unchanged(path):
        table, problems = tabular.typed(tabular.read(path, wanted), kinds, [key], path)
    _raise(problems)
    (table,) = tabular.one_type([(path, table)], key)
    if table[key].null_count:
        row = int(np.flatnonzero(table[key].is_null().to_numpy())[0]) + 1
        raise InvalidInput(f"{path}: {key} is null in row {row}", path=str(path), column=key, row=row)
    counts = pc.value_counts(table[key])
    repeated = counts.filter(pc.greater(counts.field("counts"), 1))
    if len(repeated):
        one, count = repeated[0].as_py().values()
        row = pc.index(table[key], one).as_py() + 1
        raise InvalidInput(
            f"{path}: {key} of row {row} stands in {count} rows",
            hint="one row an id",
            path=str(path),
            column=key,
        )
    return table.sort_by(key)


def _usable(
    source: str,
    columns: Mapping[str, str],
    before: datetime | None,
    limits: Limits,
    known_at: datetime | None,
    on_rows: Callable[[int], None],
) -> tuple[order.Columns, list[dict[str, Any]], list[dict[str, Any]]]:
    """The usable rows of all files before the instant, their lineage, and what was rejected; raises `NoRatings`.

    Of each file only that is kept, narrow, before the next is read. Rows of users that are not wanted are counted and let go,
    those of CSV once it is known whether ids are numbers, which takes all files.
    """
    paths = tabular.files_of(source)
    kinds = _KINDS | ({"ingested_at": "time"} if columns.get("ingested_at") else {})
    tables: list[tuple[Path, pa.Table]] = []
    files: list[dict[str, Any]] = []
    rejected: list[dict[str, Any]] = []
    problems: list[Problem] = []
    for path in paths:
        with steady.unchanged(path) as found:
            table, unusable = _narrow(path, {name: columns.get(name, name) for name in kinds}, kinds)
            file = steady.lineage(path, found) | {"sha256": digest.of_file(path)}
        on_rows(table.num_rows)
        clocks = [name for name, kind in kinds.items() if kind == "time"]
        problems += unusable or [wrong for name in clocks for wrong in _misread(path, name, table[name], before)]
        if not problems:  # otherwise only what else is wrong is wanted
            past, refused = _checked(table, path, before, known_at, limits)
            rejected += refused
            files.append(file | _counted(table.num_rows, past.num_rows, refused))
            tables.append((path, past if tabular.is_csv(path) else _wanted(past, limits)))
    _raise(problems)
    for name in ("user_id", "movie_id"):
        tables = list(zip(paths, tabular.one_type(tables, name), strict=True))
    tables = [(path, _wanted(table, limits) if tabular.is_csv(path) else table) for path, table in tables]
    files = [file | _used(table) for file, (_, table) in zip(files, tables, strict=True)]
    _refuse_too_many(rejected, sum(file["rows"] - file["rows_future"] for file in files), limits)
    if not any(file["rows_used"] for file in files):
        when = f" before {before.isoformat()}" if before else ""
        whose = f" of part {limits.part} of the users" if limits.part else ""
        raise NoRatings(f"{source} has no ratings{whose}{when}", hint="is the date right? Ratings count up to its end")
    return {name: narrow.joined([table[name] for _, table in tables]) for name in _KINDS}, files, rejected


def _narrow(path: Path, wanted: Mapping[str, str], kinds: Mapping[str, str]) -> tuple[pa.Table, list[Problem]]:
    """The columns of a file in recjob's types, narrow, and those that cannot be: one by one, and what was read is let go."""
    table, columns, problems = tabular.read(path, wanted), {}, []
    for name, kind in kinds.items():
        typed, unusable = tabular.typed(table, {name: kind}, [name], path)
        table = table.drop_columns([name] if name in table.column_names else [])
        problems += unusable
        if not unusable:
            columns[name] = narrow.narrowed(typed[name])
    return pa.table(columns), problems


def _misread(path: Path, name: str, at: pa.ChunkedArray, before: datetime | None) -> list[Problem]:
    """Times most of which cannot be: those of a column in another unit than it says. Single ones are for `_checked`."""
    ends = pc.min_max(at.cast(pa.int64())).as_py()
    first, last = (int(end.timestamp()) * 1_000_000 for end in (_FIRST_YEAR, _LAST_YEAR))
    if ends["min"] is None or (first <= ends["min"] and ends["max"] < last):
        return []
    rows, expected = len(at), "times of ratings (were {} stored as {}?)"
    past = (
        rows if before is None else pc.sum(pc.less(at, pa.scalar(before, at.type))).as_py()
    )  # the rest does not count
    early = pc.sum(pc.less(at, pa.scalar(_FIRST_YEAR, at.type))).as_py()
    late = pc.sum(pc.greater_equal(at, pa.scalar(_LAST_YEAR, at.type))).as_py()
    if 2 * early > past:
        found = f"before 1980 in {early:,} of {past:,} rows"
        return [Problem(path, name, found, expected.format("seconds", "milliseconds"))]
    if 2 * late > rows:
        found = f"after 2099 in {late:,} of {rows:,} rows"
        return [Problem(path, name, found, expected.format("milliseconds", "seconds"))]
    return []


def _raise(problems: list[Problem]) -> None:
    if problems:
        lines = [str(problem) for problem in problems[:_SHOWN]]
        more = f"\n... and {len(problems) - _SHOWN} more" if len(problems) > _SHOWN else ""
        first = problems[0]
        hint = "map the columns in [input.columns], or convert them"
        raise InvalidInput("\n".join(lines) + more, hint=hint, path=str(first.path), column=first.column)


def _checked(
    table: pa.Table, path: Path, before: datetime | None, known_at: datetime | None, limits: Limits
) -> tuple[pa.Table, list[dict[str, Any]]]:
    """The usable rows before the instants, and the unusable ones by reason. Rows from there on are not even looked at."""
    rating = table["rating"]
    tests = {f"{name} is null": table[name].is_null() for name in table.column_names}
    first, last = (pa.scalar(end.replace(tzinfo=UTC), tabular.UTC_TIME) for end in (datetime.min, datetime.max))
    at = table["rated_at"]
    tests["rated_at is not in the years 1 to 9999"] = pc.or_(pc.less(at, first), pc.greater(at, last))
    tests["rating is not finite"] = pc.invert(pc.is_finite(rating))
    tests[f"rating is beyond {_LARGEST:,}"] = pc.greater(pc.abs(rating), pa.scalar(_LARGEST, rating.type))
    if limits.lowest is not None:
        tests[f"rating is below {limits.lowest:g}"] = pc.less(rating, pa.scalar(limits.lowest, rating.type))
    if limits.highest is not None:
        tests[f"rating is above {limits.highest:g}"] = pc.greater(rating, pa.scalar(limits.highest, rating.type))
    good = np.ones(table.num_rows, bool)
    for name, end in (("rated_at", before), ("ingested_at", known_at)):
        if end is not None:
            good &= pc.fill_null(pc.less(table[name], pa.scalar(end, tabular.UTC_TIME)), True).to_numpy()
    rejected = []
    for reason, test in tests.items():
        if not pc.any(test).as_py():  # as nearly always: which rows is looked at only after that
            continue
        failed = pc.fill_null(test, False).to_numpy() & good
        if failed.any():
            row = int(failed.argmax()) + 1
            rejected.append({"path": str(path), "reason": reason, "rows": int(failed.sum()), "first_row": row})
            good &= ~failed
    table = table.select(list(_KINDS))
    return (table if good.all() else table.filter(pa.array(good))), rejected


def _refuse_too_many(rejected: list[dict[str, Any]], rows: int, limits: Limits) -> None:
    count = sum(entry["rows"] for entry in rejected)
    if count <= limits.max_rejected * rows:
        return
    lines = [
        f"{entry['path']}: {entry['reason']} in {entry['rows']:,} rows, the first is row {entry['first_row']}"
        for entry in rejected
    ]
    raise InvalidInput(
        "\n".join(lines[:_SHOWN]),
        hint=f"mend them, or allow more than {limits.max_rejected:g} of the rows: input.max_rejected",
        path=rejected[0]["path"],
        column=rejected[0]["reason"].split()[0],
        row=rejected[0]["first_row"],
    )


def _wanted(past: pa.Table, limits: Limits) -> pa.Table:
    return limits.part.within(past) if limits.part else past


def _counted(rows: int, usable: int, refused: list[dict[str, Any]]) -> dict[str, Any]:
    """How many rows a file has, and how many of them do not count."""
    rejected = sum(entry["rows"] for entry in refused)
    return {"rows": rows, "rows_future": rows - rejected - usable, "rows_rejected": rejected}


def _used(past: pa.Table) -> dict[str, Any]:
    """What is used of a file."""
    span = pc.min_max(past["rated_at"]).as_py()
    ends = {name: _naive(span[name[:3]]) for name in ("min_rated_at", "max_rated_at")}
    return {"rows_used": past.num_rows, **ends}


def _naive(instant: datetime | None) -> str | None:
    return None if instant is None else instant.replace(tzinfo=None).isoformat()
