"""Anybody's ratings: read whatever their types, refused with file, column and row, and never from the future."""

import tempfile
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import small_world
from hypothesis import given, settings
from hypothesis import strategies as st

from storage import ratings
from storage.errors import InvalidInput, NoRatings
from storage.ratings import Limits

MARCH = datetime(2026, 3, 6, tzinfo=UTC)


def write(path: Path, **columns: Any) -> Path:
    usual = {"user_id": [1, 2], "movie_id": [5, 6], "rating": [3.0, 4.0], "rated_at": [MARCH, MARCH]}
    pq.write_table(pa.table(usual | columns), path)
    return path


def read(source: Path, **columns: str) -> pa.Table:
    return ratings.read(str(source), columns, before=None).table


FUTURE = st.lists(
    st.tuples(st.integers(1, 60), st.integers(1, 40), st.sampled_from([1.0, 5.0]), st.integers(0, 10**6)),
    min_size=1,
    max_size=20,
)


@given(FUTURE, st.randoms(use_true_random=False), st.booleans())
@settings(max_examples=25, deadline=None)
def test_no_row_after_the_watermark_changes_anything(
    rows: list[tuple[int, int, float, int]], random: Any, apart: bool
) -> None:
    world = small_world().ratings
    users, movies, stars, seconds = zip(*rows, strict=True)
    at = pa.array([MARCH + timedelta(seconds=second) for second in seconds], pa.timestamp("us", "UTC"))
    future = pa.table({"user_id": users, "movie_id": movies, "rating": pa.array(stars, pa.float32()), "rated_at": at})
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        pq.write_table(world, folder / "a.parquet")
        before = ratings.read(name, {}, before=MARCH)
        mixed = pa.concat_tables([world, future])
        order = list(range(mixed.num_rows))
        random.shuffle(order)
        pq.write_table(
            future if apart else mixed.take(pa.array(order)), folder / ("b.parquet" if apart else "a.parquet")
        )
        after = ratings.read(name, {}, before=MARCH)
    assert after.table.equals(before.table)
    assert sum(file["rows_future"] for file in after.files) == sum(file["rows_future"] for file in before.files) + len(
        rows
    )


def test_the_latest_rating_of_a_pair_counts_whatever_the_order(tmp_path: Path) -> None:
    days = [MARCH + timedelta(days=day) for day in (2, 0, 1)]
    write(tmp_path / "a.parquet", user_id=[1, 1, 1], movie_id=[5, 5, 6], rating=[2.0, 5.0, 1.0], rated_at=days)
    assert [(row["movie_id"], row["rating"]) for row in read(tmp_path / "a.parquet").to_pylist()] == [
        (6, 1.0),
        (5, 2.0),
    ]


@pytest.mark.parametrize("kind", [pa.int8(), pa.uint16(), pa.int32(), pa.int64(), pa.uint64()])
def test_whole_number_ids_of_any_width_become_int64(tmp_path: Path, kind: pa.DataType) -> None:
    table = read(write(tmp_path / "a.parquet", user_id=pa.array([1, 2], kind)))
    assert table["user_id"].type == pa.int64()
    assert table["user_id"].to_pylist() == [1, 2]


@pytest.mark.parametrize(
    "array",
    [pa.array(["007", "é"]), pa.array(["007", "é"], pa.large_string()), pa.array(["007", "é"]).dictionary_encode()],
)
def test_text_ids_of_any_kind_become_text(tmp_path: Path, array: pa.Array) -> None:
    table = read(write(tmp_path / "a.parquet", user_id=array))
    assert table["user_id"].type == pa.string()
    assert sorted(table["user_id"].to_pylist()) == ["007", "é"]


@pytest.mark.parametrize("unit", [1, 10**3, 10**6, 10**9])
def test_times_as_numbers_are_understood_by_their_size(tmp_path: Path, unit: int) -> None:
    numbers = pa.array([int(MARCH.timestamp()) * unit] * 2, pa.int64())
    assert read(write(tmp_path / "a.parquet", rated_at=numbers))["rated_at"].to_pylist() == [MARCH, MARCH]


def test_times_with_another_zone_or_none_become_utc(tmp_path: Path) -> None:
    paris = pa.array([MARCH, MARCH], pa.timestamp("ms", "Europe/Paris"))
    assert read(write(tmp_path / "a.parquet", rated_at=paris))["rated_at"].to_pylist() == [MARCH, MARCH]
    bare = pa.array([MARCH.replace(tzinfo=None)] * 2, pa.timestamp("ns"))
    assert read(write(tmp_path / "a.parquet", rated_at=bare))["rated_at"].to_pylist() == [MARCH, MARCH]


def test_columns_are_mapped_and_others_ignored(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"userId": [1], "item": [2], "stars": [3], "ts": [10**9], "more": ["x"]}), path)
    table = read(path, user_id="userId", movie_id="item", rating="stars", rated_at="ts")
    assert table.column_names == ["user_id", "movie_id", "rating", "rated_at"]


def test_all_problems_of_all_files_are_told_at_once(tmp_path: Path) -> None:
    write(tmp_path / "a.parquet", rating=["good", "bad"])
    write(tmp_path / "b.parquet", user_id=[1.5, 2.0], rated_at=["x", "y"])
    with pytest.raises(InvalidInput) as caught:
        ratings.read(str(tmp_path), {}, before=None)
    text = str(caught.value)
    assert [
        word in text
        for word in ("a.parquet: column 'rating'", "b.parquet: column 'user_id'", "b.parquet: column 'rated_at'")
    ] == [True] * 3


def test_a_missing_column_says_which_setting_names_it(tmp_path: Path) -> None:
    pq.write_table(pa.table({"user_id": [1]}), tmp_path / "a.parquet")
    with pytest.raises(InvalidInput, match=r"column 'rating' is missing, expected numbers \(input\.columns\.rating"):
        read(tmp_path / "a.parquet")


@pytest.mark.parametrize(
    ("columns", "reason", "row"),
    [
        ({"rating": [3.0, None]}, "rating is null", 2),
        ({"rating": [float("nan"), 3.0]}, "rating is not finite", 1),
        ({"rating": [3.0, float("inf")]}, "rating is not finite", 2),
        ({"rating": [3.0, 5.5]}, "rating is above 5", 2),
        ({"rating": [0.0, 3.0]}, "rating is below 1", 1),
        ({"user_id": pa.array([None, 1], pa.int64())}, "user_id is null", 1),
        ({"rated_at": pa.array([MARCH, None], pa.timestamp("us", "UTC"))}, "rated_at is null", 2),
    ],
)
def test_an_unusable_row_is_named_or_counted(tmp_path: Path, columns: dict[str, Any], reason: str, row: int) -> None:
    path = write(tmp_path / "a.parquet", **columns)
    with pytest.raises(InvalidInput, match=f"{reason} in 1 rows, the first is row {row}") as caught:
        ratings.read(str(path), {}, before=None, limits=Limits(1, 5))
    assert caught.value.where == {"path": str(path), "column": reason.split()[0], "row": row}
    tolerant = ratings.read(str(path), {}, before=None, limits=Limits(1, 5, max_rejected=0.5))
    assert (tolerant.table.num_rows, tolerant.rejected[0]["reason"]) == (1, reason)


@pytest.mark.parametrize("content", [b"", b"PAR1", b"<html>404</html>", b"PAR1" + b"\0" * 500])
def test_a_file_that_is_no_parquet_is_named(tmp_path: Path, content: bytes) -> None:
    write(tmp_path / "good.parquet")
    (tmp_path / "bad.parquet").write_bytes(content)
    with pytest.raises(InvalidInput, match=r"bad\.parquet"):
        ratings.read(str(tmp_path), {}, before=None)


def test_half_a_file_is_named(tmp_path: Path) -> None:
    path = write(tmp_path / "a.parquet", user_id=np.arange(2))
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(InvalidInput, match=r"a\.parquet cannot be read as Parquet"):
        read(path)


def test_hidden_and_underscored_files_are_left_alone(tmp_path: Path) -> None:
    write(tmp_path / "a.parquet")
    (tmp_path / "_temporary").mkdir()
    for name in ("_temporary/b.parquet", ".c.parquet", "_SUCCESS"):
        (tmp_path / name).write_text("not finished")
    assert read(tmp_path).num_rows == 2


def test_nothing_to_read_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(NoRatings, match="no data files"):
        read(tmp_path)
    write(tmp_path / "a.parquet")
    with pytest.raises(NoRatings, match="before 2026-03-06"):
        ratings.read(str(tmp_path), {}, before=MARCH)


def test_files_that_disagree_about_ids_are_refused(tmp_path: Path) -> None:
    write(tmp_path / "a.parquet")
    write(tmp_path / "b.parquet", user_id=["1", "2"])
    with pytest.raises(InvalidInput, match="files disagree about user_id"):
        read(tmp_path)


@given(st.lists(st.text("0123456789-+ ab", min_size=1, max_size=12), min_size=1, max_size=8))
@settings(max_examples=60, deadline=None)
def test_csv_ids_survive_byte_for_byte(ids: list[str]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.csv"
        lines = [f'"{user}",{movie},3,2026-03-01 10:00:00' for movie, user in enumerate(ids)]
        path.write_text("\n".join(["user_id,movie_id,rating,rated_at", *lines]) + "\n")
        table = read(path).sort_by("movie_id")
    assert [str(user) for user in table["user_id"].to_pylist()] == ids


def test_users_who_join_later_are_not_there_yet(tmp_path: Path) -> None:
    at = pa.array([MARCH - timedelta(days=1), MARCH, None], pa.timestamp("us", "UTC"))
    pq.write_table(pa.table({"user_id": [1, 2, 3], "joined_at": at}), tmp_path / "users.parquet")
    assert ratings.read_users(tmp_path / "users.parquet", {}, before=MARCH)["user_id"].to_pylist() == [1, 3]


def test_a_repeated_movie_is_named(tmp_path: Path) -> None:
    (tmp_path / "movies.csv").write_text("movie_id,title,genres\n1,A,Drama|War\n1,B,\n")
    with pytest.raises(InvalidInput, match="movie_id 1 stands in 2 rows"):
        ratings.read_movies(tmp_path / "movies.csv", {})
