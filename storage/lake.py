"""The ratings lake, writing side: Parquet by month, appended to, with movies and users beside it.

`<lake>/ratings/month=2026-11/part-<hash of the rows it was written with>.parquet`, `<lake>/movies.parquet`,
`<lake>/users.parquet`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from storage import atomic, digest, parquet
from storage.catalogue import Catalogue
from storage.errors import CorruptState, InvalidInput
from storage.forgotten import Forgotten

_ORDER = [("rated_at", "ascending"), ("user_id", "ascending"), ("movie_id", "ascending"), ("rating", "ascending")]


@dataclass(frozen=True)
class Appended:
    """What an append did."""

    offered: int
    """Ratings in the source."""
    added: int
    """Ratings the lake did not have yet."""
    files: tuple[Path, ...]
    """New files."""
    movies: int
    """Movies the lake knows now; 0 without a movies table."""
    users: int
    known_movies: int
    """Movies of the source that the lake knew before."""
    retitled: int
    """Of these, with another title than now."""


def append(lake: Path, catalogue: Catalogue, on_rows: Callable[[int], None] = lambda rows: None) -> Appended:
    """Add what is not there yet. Appending the same ratings twice changes nothing, also after a crash in between.

    Movies and users are merged by id: the new row replaces the old one, except that the earlier `joined_at` stays.
    `on_rows` is told how many ratings of the source are done, month by month.
    """
    ratings = catalogue.ratings
    _same_ids(lake, ratings)
    month = pc.strftime(ratings["rated_at"], format="%Y-%m")
    files: list[Path] = []
    added = 0
    for name in sorted(pc.unique(month).to_pylist()):
        of_month = ratings.filter(pc.equal(month, name))
        fresh = _not_in(lake / "ratings" / f"month={name}", of_month)
        if fresh.num_rows:
            target = lake / "ratings" / f"month={name}" / f"part-{digest.of_table(fresh)[:16]}.parquet"
            parquet.write(fresh, target)
            files.append(target)
            added += fresh.num_rows
        on_rows(of_month.num_rows)
    again = _again(lake / "movies.parquet", catalogue.movies)
    movies = _merge(lake / "movies.parquet", catalogue.movies, "movie_id")
    users = _merge(lake / "users.parquet", catalogue.users, "user_id")
    return Appended(ratings.num_rows, added, tuple(files), movies, users, *again)


def remove(lake: Path, listed: Forgotten) -> tuple[int, int]:
    """Rewrite each file that has rows of somebody on the list, without them; returns the files and rows concerned."""
    files = rows = 0
    for path in sorted([*lake.glob("ratings/month=*/part-*.parquet"), *lake.glob("users.parquet")]):
        table = _own(path)
        kept = listed.without(table)
        if kept.num_rows == table.num_rows:
            continue
        files, rows = files + 1, rows + table.num_rows - kept.num_rows
        if kept.num_rows:
            parquet.write(kept, path)
        else:
            atomic.remove(path)
    return files, rows


def _own(path: Path) -> pa.Table:
    try:
        return parquet.read(path)
    except InvalidInput as error:
        hint = f"restore {path} from a backup, or remove it and take its ratings in again with recjob ingest"
        raise CorruptState(str(error), hint=hint, path=str(path)) from error


def _not_in(folder: Path, ratings: pa.Table) -> pa.Table:
    """The distinct rows of `ratings` that no file of `folder` has, in canonical order."""
    rows = ratings.group_by(ratings.column_names, use_threads=False).aggregate([])
    for path in sorted(folder.glob("part-*.parquet")):
        rows = rows.join(parquet.read(path, ratings.column_names), ratings.column_names, join_type="left anti")
    return rows.select(ratings.column_names).sort_by(_ORDER).cast(ratings.schema)


def _same_ids(lake: Path, ratings: pa.Table) -> None:
    first = next((lake / "ratings").glob("month=*/part-*.parquet"), None)
    if first is None:
        return
    kept = parquet.open_file(first).schema_arrow
    for name in ("user_id", "movie_id"):
        if kept.field(name).type != ratings.schema.field(name).type:
            raise InvalidInput(
                f"{name} is {ratings.schema.field(name).type} in the source and {kept.field(name).type} in the lake {lake}",
                hint="one lake holds one kind of ids: use another state folder, or convert the source",
                column=name,
            )


def _again(path: Path, movies: pa.Table | None) -> tuple[int, int]:
    """How many of the movies the lake knows already, and how many of these under another title."""
    if movies is None or not path.exists():
        return 0, 0
    known = parquet.read(path, ["movie_id", "title"])
    both = known.join(movies.select(["movie_id", "title"]), "movie_id", join_type="inner", right_suffix="_now")
    return both.num_rows, pc.sum(pc.not_equal(both["title"], both["title_now"])).as_py() or 0


def _merge(path: Path, rows: pa.Table | None, key: str) -> int:
    """Replace the rows of `path` that have a newer version; returns how many rows it has now."""
    old = parquet.read(path) if path.exists() else None
    if rows is None:
        return int(old.num_rows) if old is not None else 0
    merged = rows
    if old is not None:
        if "joined_at" in old.column_names:
            rows = _earlier(old, rows, key)
        kept = old.filter(pc.invert(pc.is_in(old[key], value_set=rows[key].combine_chunks())))
        merged = pa.concat_tables([kept, rows], promote_options="permissive")
    merged = merged.sort_by(key)
    if old is None or not merged.equals(old):
        parquet.write(merged, path)
    return int(merged.num_rows)


def _earlier(old: pa.Table, rows: pa.Table, key: str) -> pa.Table:
    """The new rows, with the old `joined_at` where it is earlier."""
    before = old["joined_at"].take(pc.index_in(rows[key], value_set=old[key].combine_chunks()))
    if "joined_at" not in rows.column_names:
        return rows.append_column("joined_at", before)
    instants = [column.cast(pa.int64()) for column in (before, rows["joined_at"])]  # Arrow compares no timestamps
    first = pc.min_element_wise(*instants)
    return rows.set_column(rows.column_names.index("joined_at"), "joined_at", first.cast(rows["joined_at"].type))
