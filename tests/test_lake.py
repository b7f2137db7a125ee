"""The ratings lake: appending twice changes nothing, and what was written can be trusted."""

import random
import tempfile
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import small_world
from hypothesis import given, settings
from hypothesis import strategies as st

from storage import lake, parquet, ratings
from storage.catalogue import Catalogue
from storage.errors import InvalidInput


def content(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*.parquet"))}


def rows(folder: Path) -> pa.Table:
    return ratings.read(str(folder / "ratings"), {}, before=None).table


def test_appending_twice_changes_nothing(tmp_path: Path) -> None:
    assert lake.append(tmp_path, small_world()).added == 600
    before = content(tmp_path)
    assert lake.append(tmp_path, small_world()).added == 0
    assert content(tmp_path) == before


def test_an_increment_is_a_small_append(tmp_path: Path) -> None:
    world = small_world()
    lake.append(tmp_path, Catalogue(world.ratings.slice(0, 590)))
    before = content(tmp_path)
    done = lake.append(tmp_path, world)
    assert (done.added, len(done.files)) == (10, 1)
    assert {name: content(tmp_path)[name] for name in before} == before


@pytest.mark.parametrize("seed", range(5))
def test_neither_order_nor_the_number_of_appends_matters(tmp_path: Path, seed: int) -> None:
    world = small_world()
    lake.append(tmp_path / "whole", world)
    shuffled = list(range(600))
    random.Random(seed).shuffle(shuffled)
    mixed = world.ratings.take(pa.array(shuffled))
    for start in range(0, 600, 200):
        lake.append(tmp_path / "parts", Catalogue(mixed.slice(start, 250)))
    assert rows(tmp_path / "parts").equals(rows(tmp_path / "whole"))


def test_months_are_counted_in_utc(tmp_path: Path) -> None:
    at = pa.array(
        [datetime(2026, 1, 31, 23, 59, 59, tzinfo=UTC), datetime(2026, 2, 1, tzinfo=UTC)], pa.timestamp("us", "UTC")
    )
    columns = {"user_id": [1, 1], "movie_id": [1, 2], "rating": pa.array([1, 2], pa.float32()), "rated_at": at}
    lake.append(tmp_path, Catalogue(pa.table(columns)))
    assert [path.name for path in sorted((tmp_path / "ratings").iterdir())] == ["month=2026-01", "month=2026-02"]


@pytest.mark.faults("B2.3")
def test_files_are_zstd_and_a_flipped_bit_is_found(tmp_path: Path) -> None:
    (file,) = lake.append(tmp_path, small_world()).files
    chunk = pq.ParquetFile(file).metadata.row_group(0).column(2)
    assert chunk.compression == "ZSTD"
    content = bytearray(file.read_bytes())
    content[chunk.data_page_offset + chunk.total_compressed_size // 2 + 10] ^= 1
    file.write_bytes(content)
    with pytest.raises(InvalidInput, match=file.name):
        parquet.read(file)


def test_ids_keep_their_type_and_are_not_mixed(tmp_path: Path) -> None:
    lake.append(tmp_path, small_world(text_ids=True))
    assert rows(tmp_path).schema.field("user_id").type == pa.string()
    with pytest.raises(InvalidInput, match="user_id is int64 in the source and string in the lake"):
        lake.append(tmp_path, small_world())


def test_movies_and_users_are_merged_by_id_and_the_earlier_joining_stays(tmp_path: Path) -> None:
    def users(day: int, ages: dict[int, int]) -> Catalogue:
        at = pa.array([datetime(2026, 3, day, tzinfo=UTC)] * len(ages), pa.timestamp("us", "UTC"))
        table = pa.table({"user_id": list(ages), "age": pa.array(ages.values(), pa.int16()), "joined_at": at})
        return Catalogue(small_world().ratings, None, table)

    lake.append(tmp_path, users(5, {1: 30, 2: 40}))
    assert lake.append(tmp_path, users(7, {2: 41, 3: 50})).users == 3
    kept = parquet.read(tmp_path / "users.parquet").to_pylist()
    assert [(user["user_id"], user["age"], user["joined_at"].day) for user in kept] == [
        (1, 30, 5),
        (2, 41, 5),
        (3, 50, 7),
    ]


ROWS = st.lists(st.tuples(st.integers(1, 4), st.integers(1, 4), st.sampled_from([1.0, 4.5]), st.integers(0, 3)))


def rated(rows: list[tuple[int, int, float, int]]) -> Catalogue:
    """Ratings of a user, a movie and stars, so many months after January 2026."""
    at = [datetime(2026, 1 + months, 7, tzinfo=UTC) for *_, months in rows]
    users, movies, stars = ([row[place] for row in rows] for place in range(3))
    kinds = (pa.int64(), pa.int64(), pa.float32(), pa.timestamp("us", "UTC"))
    arrays = [pa.array(values, kind) for values, kind in zip((users, movies, stars, at), kinds, strict=True)]
    return Catalogue(pa.table(arrays, names=["user_id", "movie_id", "rating", "rated_at"]))


def everything(folder: Path) -> list[tuple[int, int, float, int]]:
    """All rows of all files, as they are kept: also those that a later rating replaces."""
    tables = [parquet.read(path).to_pylist() for path in sorted(folder.glob("ratings/*/*.parquet"))]
    found = [(r["user_id"], r["movie_id"], r["rating"], r["rated_at"].month - 1) for rows in tables for r in rows]
    return sorted(found)


@given(ROWS, st.lists(st.integers(0, 20), max_size=3), st.randoms(use_true_random=False))
@settings(max_examples=20, deadline=None)
def test_the_lake_holds_each_row_once_however_rows_arrive(
    rows: list[tuple[int, int, float, int]], cuts: list[int], mixing: random.Random
) -> None:
    arriving = rows + rows[:3]  # some come twice
    mixing.shuffle(arriving)
    with tempfile.TemporaryDirectory() as name:
        borders = [0, *sorted(cuts), len(arriving)]
        added = [lake.append(Path(name), rated(arriving[a:b])).added for a, b in pairwise(borders)]
        assert everything(Path(name)) == sorted(set(rows))
        assert sum(added) == len(set(rows))


def test_an_append_that_died_between_two_months_is_made_whole_by_the_next(tmp_path: Path) -> None:
    whole = rated([(1, 1, 4.5, 0), (1, 2, 4.5, 1), (2, 1, 1.0, 2)])
    lake.append(tmp_path / "undisturbed", whole)
    (first, *_) = lake.append(tmp_path / "died", whole).files
    for later in sorted((tmp_path / "died" / "ratings").glob("month=*/*.parquet"))[1:]:
        later.unlink()
    assert first.exists()
    assert lake.append(tmp_path / "died", whole).added == 2
    assert content(tmp_path / "died") == content(tmp_path / "undisturbed")


def test_movies_that_the_lake_knows_under_another_title_are_counted(tmp_path: Path) -> None:
    world = small_world()
    assert world.movies is not None
    first = lake.append(tmp_path, world)
    again = lake.append(tmp_path, world)
    titles = pa.array([None, *(f"Another {number}" for number in range(1, world.movies.num_rows))])
    other = lake.append(tmp_path, Catalogue(world.ratings, world.movies.set_column(1, "title", titles)))
    counts = [(done.known_movies, done.retitled) for done in (first, again, other)]
    assert counts == [(0, 0), (30, 0), (30, 29)]


def test_what_is_known_of_when_a_user_joined_is_not_forgotten(tmp_path: Path) -> None:
    def users(**columns: Any) -> Catalogue:
        return Catalogue(small_world().ratings, None, pa.table({"user_id": [1], **columns}))

    def joined(at: datetime | None) -> pa.Array:
        return pa.array([at], pa.timestamp("us", "UTC"))

    lake.append(tmp_path, users(joined_at=joined(datetime(2026, 3, 5, tzinfo=UTC))))
    for later in ({"age": pa.array([30], pa.int16())}, {"joined_at": joined(None)}):
        lake.append(tmp_path, users(**later))
        assert parquet.read(tmp_path / "users.parquet")["joined_at"].to_pylist() == [datetime(2026, 3, 5, tzinfo=UTC)]


@pytest.mark.faults("B2.3")
def test_a_flipped_bit_in_any_column_of_any_file_is_found(tmp_path: Path) -> None:
    lake.append(tmp_path, small_world())
    for path in sorted(tmp_path.rglob("*.parquet")):
        group = pq.ParquetFile(path).metadata.row_group(0)
        for chunk in (group.column(place) for place in range(group.num_columns)):
            start = chunk.dictionary_page_offset or chunk.data_page_offset
            damaged = bytearray(path.read_bytes())
            damaged[start + chunk.total_compressed_size - 1] ^= 1
            (tmp_path / "damaged").write_bytes(damaged)
            with pytest.raises(InvalidInput, match="damaged"):
                parquet.read(tmp_path / "damaged")
