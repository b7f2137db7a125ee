"""Anybody's ratings: read whatever their types, refused with file, column and row, and never from the future."""

import os
import random
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
from pyarrow import csv

from storage import digest, ratings
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
@pytest.mark.faults("B2.6")
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


@pytest.mark.faults("B2.8")
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


@pytest.mark.faults("B2.4")
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


@pytest.mark.faults("B2.4")
def test_a_missing_column_says_which_setting_names_it(tmp_path: Path) -> None:
    pq.write_table(pa.table({"user_id": [1]}), tmp_path / "a.parquet")
    with pytest.raises(InvalidInput, match=r"column 'rating' is missing, expected numbers \(input\.columns\.rating"):
        read(tmp_path / "a.parquet")
    with pytest.raises(InvalidInput, match=r"column 'starz' is missing, .*input\.columns\.rating names it"):
        ratings.read(str(tmp_path / "a.parquet"), {"rating": "starz"}, before=None)


@pytest.mark.parametrize(
    ("columns", "reason", "row"),
    [
        ({"rating": [3.0, None]}, "rating is null", 2),
        ({"rating": [float("nan"), 3.0]}, "rating is not finite", 1),
        ({"rating": [3.0, float("inf")]}, "rating is not finite", 2),
        ({"rating": [3.0, 5.5]}, "rating is above 5", 2),
        ({"rating": [0.0, 3.0]}, "rating is below 1", 1),
        ({"rating": pa.array([1e300, 3.0], pa.float64())}, "rating is not finite", 1),
        ({"rating": [3, 2_000_000]}, "rating is beyond 1,000,000", 2),
        ({"rating": [3.0, -1e30]}, "rating is beyond 1,000,000", 2),
        ({"user_id": pa.array([None, 1], pa.int64())}, "user_id is null", 1),
        ({"rated_at": pa.array([MARCH, None], pa.timestamp("us", "UTC"))}, "rated_at is null", 2),
        ({"rated_at": pa.array([-(2**62), 10**15], pa.timestamp("us"))}, "rated_at is not in the years 1 to 9999", 1),
    ],
)
@pytest.mark.faults("B2.5")
def test_an_unusable_row_is_named_or_counted(tmp_path: Path, columns: dict[str, Any], reason: str, row: int) -> None:
    path = write(tmp_path / "a.parquet", **columns)
    with pytest.raises(InvalidInput, match=f"{reason} in 1 rows, the first is row {row}") as caught:
        ratings.read(str(path), {}, before=None, limits=Limits(1, 5))
    assert caught.value.where == {"path": str(path), "column": reason.split()[0], "row": row}
    tolerant = ratings.read(str(path), {}, before=None, limits=Limits(1, 5, max_rejected=0.5))
    assert (tolerant.table.num_rows, tolerant.rejected[0]["reason"]) == (1, reason)


SECONDS = int(MARCH.timestamp())


def cast(numbers: list[int], kind: pa.DataType) -> pa.Array:
    return pa.array(numbers, pa.int64()).cast(kind)


@pytest.mark.parametrize(
    ("array", "found"),
    [
        (cast([SECONDS] * 2, pa.timestamp("ms")), "before 1980 in 2 of 2 rows, .*were seconds stored as milliseconds"),
        (cast([SECONDS * 1000] * 2, pa.timestamp("us", "UTC")), "before 1980 in 2 of 2 rows"),
        (cast([SECONDS] * 2, pa.timestamp("ns")), "before 1980 in 2 of 2 rows"),
        (pa.array([20_000, 20_001]), "before 1980 in 2 of 2 rows"),  # days
        (pa.array([0, 0]), "before 1980 in 2 of 2 rows"),
        (pa.array(["1970-01-01", "1970-01-01T00:00:00Z"]), "before 1980 in 2 of 2 rows"),
        (
            cast([SECONDS * 1000] * 2, pa.timestamp("s")),
            "after 2099 in 2 of 2 rows, .*were milliseconds stored as seconds",
        ),
        (cast([SECONDS * 1000] * 2, pa.timestamp("ms")).cast(pa.int64()), None),
        (cast([SECONDS * 10**6] * 2, pa.timestamp("s")), "out of bounds|would"),
        (cast([SECONDS * 10**6] * 2, pa.timestamp("ms")), "after 2099 in 2 of 2 rows"),
        (pa.array(["2262-04-12", "2300-01-01"]), "after 2099 in 2 of 2 rows"),
        (pa.array(["9999-12-31"] * 2), "after 2099 in 2 of 2 rows"),
        (pa.array([2**63 - 1] * 2), "after 2099 in 2 of 2 rows"),
    ],
)
@pytest.mark.parametrize("before", [None, MARCH + timedelta(days=1)])
@pytest.mark.faults("B2.18")
def test_times_in_another_unit_than_they_say_are_refused(
    tmp_path: Path, array: pa.Array, found: str | None, before: datetime | None
) -> None:
    path = write(tmp_path / "a.parquet", rated_at=array)
    write(tmp_path / "good.parquet")
    if found is None:
        assert ratings.read(str(path), {}, before=before).table["rated_at"].to_pylist() == [MARCH] * 2
        return
    with pytest.raises(InvalidInput, match=f"a.parquet: column 'rated_at' is .*{found}") as refused:
        ratings.read(str(tmp_path), {}, before=before)
    assert refused.value.where == {"path": str(path), "column": "rated_at"}


@pytest.mark.faults("B2.18")
def test_a_single_impossible_time_among_good_ones_is_no_reason_to_refuse_the_file(tmp_path: Path) -> None:
    epoch, far = datetime(1970, 1, 1, tzinfo=UTC), datetime(9000, 1, 1, tzinfo=UTC)
    times = pa.array([at.isoformat() for at in (epoch, MARCH, MARCH, far)])
    path = write(tmp_path / "a.parquet", user_id=[1, 2, 3, 4], movie_id=[5] * 4, rating=[3.0] * 4, rated_at=times)
    assert ratings.read(str(path), {}, before=MARCH + timedelta(days=1)).table.num_rows == 3


@pytest.mark.faults("B2.18", "B2.6")
def test_the_future_does_not_make_times_of_the_past_possible(tmp_path: Path) -> None:
    for rows in (2, 50):
        times = cast([SECONDS] * 2, pa.timestamp("ms")).cast(pa.timestamp("us", "UTC")).to_pylist()
        times += [MARCH + timedelta(days=3)] * (rows - 2)
        one = {"user_id": list(range(rows)), "movie_id": [5] * rows, "rating": [3.0] * rows}
        write(tmp_path / "a.parquet", rated_at=pa.array(times, pa.timestamp("us", "UTC")), **one)
        with pytest.raises(InvalidInput, match="before 1980 in 2 of 2 rows"):
            ratings.read(str(tmp_path), {}, before=MARCH)


def test_a_column_that_stands_twice_in_parquet_is_refused(tmp_path: Path) -> None:
    table = pa.table(
        [["a"], ["b"], [5], [3.0], [MARCH]], names=["user_id", "user_id", "movie_id", "rating", "rated_at"]
    )
    pq.write_table(table, tmp_path / "a.parquet")
    with pytest.raises(InvalidInput, match="more than one column 'user_id'"):
        read(tmp_path)


@pytest.mark.parametrize("content", [b"", b"PAR1", b"<html>404</html>", b"PAR1" + b"\0" * 500])
@pytest.mark.faults("B2.1")
def test_a_file_that_is_no_parquet_is_named(tmp_path: Path, content: bytes) -> None:
    write(tmp_path / "good.parquet")
    (tmp_path / "bad.parquet").write_bytes(content)
    with pytest.raises(InvalidInput, match=r"bad\.parquet"):
        ratings.read(str(tmp_path), {}, before=None)


@pytest.mark.faults("B2.1")
def test_half_a_file_is_named(tmp_path: Path) -> None:
    path = write(tmp_path / "a.parquet", user_id=np.arange(2))
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(InvalidInput, match=r"a\.parquet cannot be read as Parquet"):
        read(path)


@pytest.mark.faults("B2.17")
def test_hidden_and_underscored_files_are_left_alone(tmp_path: Path) -> None:
    write(tmp_path / "a.parquet")
    (tmp_path / "_temporary").mkdir()
    for name in ("_temporary/b.parquet", ".c.parquet", "_SUCCESS"):
        (tmp_path / name).write_text("not finished")
    assert read(tmp_path).num_rows == 2


@pytest.mark.faults("B2.9")
def test_nothing_to_read_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(NoRatings, match="no data files"):
        read(tmp_path)
    write(tmp_path / "a.parquet")
    with pytest.raises(NoRatings, match="before 2026-03-06"):
        ratings.read(str(tmp_path), {}, before=MARCH)


@pytest.mark.faults("B2.4")
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
    with pytest.raises(InvalidInput, match="movie_id of row 1 stands in 2 rows"):
        ratings.read_movies(tmp_path / "movies.csv", {})


ANY = st.tuples(
    st.sampled_from([None, 1, 2, 3]),
    st.sampled_from([None, 7, 8]),
    st.sampled_from([None, float("nan"), float("-inf"), -1.0, 0.5, 4.0, 99.0]),
)
PAST_ROWS = st.lists(st.tuples(ANY, st.integers(-5, -1)), min_size=1, max_size=12)
FUTURE_ROWS = st.lists(st.tuples(ANY, st.integers(0, 5)), max_size=12)
TypedRow = tuple[tuple[int | None, int | None, float | None], int]


def rows_to(path: Path, rows: list[TypedRow]) -> None:
    columns = [[given[place] for given, _ in rows] for place in range(3)]
    days = [MARCH + timedelta(days=day) for _, day in rows]
    kinds = (pa.int64(), pa.int64(), pa.float32(), pa.timestamp("us", "UTC"))
    arrays = [pa.array(values, kind) for values, kind in zip([*columns, days], kinds, strict=True)]
    pq.write_table(pa.table(arrays, names=["user_id", "movie_id", "rating", "rated_at"]), path)


def outcome(folder: str, share: float) -> tuple[Any, ...]:
    """What a night makes of a folder, bar what it says about the future."""
    try:
        found = ratings.read(folder, {}, before=MARCH, limits=Limits(0.5, 5, share))
    except InvalidInput as error:
        return type(error), error.where.get("column")
    reasons: dict[str, int] = {}
    for entry in found.rejected:
        reasons[entry["reason"]] = reasons.get(entry["reason"], 0) + entry["rows"]
    return digest.of_table(found.table), found.table.to_pylist(), reasons


@given(PAST_ROWS, FUTURE_ROWS, st.lists(st.booleans(), min_size=24, max_size=24), st.sampled_from([0.0, 0.3, 1.0]))
@settings(max_examples=60, deadline=None)
@pytest.mark.faults("B2.6")
def test_not_even_broken_rows_after_the_watermark_change_anything(
    past: list[TypedRow], future: list[TypedRow], second: list[bool], share: float
) -> None:
    with tempfile.TemporaryDirectory() as name:
        rows_to(Path(name) / "a.parquet", past)
        before = outcome(name, share)
        rows_to(Path(name) / "a.parquet", past + [row for row, two in zip(future, second, strict=False) if not two])
        rows_to(Path(name) / "b.parquet", [row for row, two in zip(future, second, strict=False) if two])
        assert outcome(name, share) == before


@given(PAST_ROWS, st.lists(st.booleans(), min_size=12, max_size=12), st.randoms(use_true_random=False))
@settings(max_examples=40, deadline=None)
@pytest.mark.faults("B2.8")
def test_neither_files_nor_their_order_nor_that_of_rows_matter(
    rows: list[TypedRow], second: list[bool], mixing: random.Random
) -> None:
    with tempfile.TemporaryDirectory() as name:
        rows_to(Path(name) / "a.parquet", rows)
        before = outcome(name, 1.0)
        parts = [[row for row, two in zip(rows, second, strict=False) if two is part] for part in (True, False)]
        for file, part in zip(("a", "b"), parts, strict=True):
            mixing.shuffle(part)
            rows_to(Path(name) / f"{file}.parquet", part)
        assert outcome(name, 1.0) == before


def test_rows_are_counted_as_used_future_or_rejected(tmp_path: Path) -> None:
    nan = float("nan")
    past: list[TypedRow] = [((1, 7, 4.0), -2), ((1, 8, nan), -2), ((None, 8, nan), -1), ((2, 7, 3.0), -1)]
    rows_to(tmp_path / "a.parquet", [*past, ((1, 7, nan), 0), ((1, 7, 5.0), 3)])
    found = ratings.read(str(tmp_path), {}, before=MARCH, limits=Limits(max_rejected=0.5))
    (file,) = found.files
    assert {name: file[name] for name in ("rows", "rows_used", "rows_future", "rows_rejected")} == {
        "rows": 6,
        "rows_used": 2,
        "rows_future": 2,
        "rows_rejected": 2,
    }
    assert (file["min_rated_at"], file["max_rated_at"]) == ("2026-03-04T00:00:00", "2026-03-05T00:00:00")
    assert [(entry["reason"], entry["rows"], entry["first_row"]) for entry in found.rejected] == [
        ("user_id is null", 1, 3),
        ("rating is not finite", 1, 2),
    ]


def test_rows_of_the_future_do_not_dilute_the_share_of_rejected_ones(tmp_path: Path) -> None:
    later: list[TypedRow] = [((1, 7, 4.0), day) for day in range(50)]
    rows_to(tmp_path / "a.parquet", [((1, 7, 4.0), -1), ((1, 8, None), -1), *later])
    with pytest.raises(InvalidInput, match="rating is null in 1 rows, the first is row 2"):
        ratings.read(str(tmp_path), {}, before=MARCH, limits=Limits(max_rejected=0.1))


def test_a_rating_at_the_very_end_of_its_scale_is_on_it(tmp_path: Path) -> None:
    path = write(tmp_path / "a.parquet", rating=[0.7, 10.1])
    assert ratings.read(str(path), {}, before=None, limits=Limits(0.7, 10.1)).table.num_rows == 2


def test_ratings_at_one_instant_have_one_order(tmp_path: Path) -> None:
    write(tmp_path / "a.parquet", user_id=[1, 1], movie_id=[5, 5], rating=[2.0, 5.0])
    one = read(tmp_path / "a.parquet")
    write(tmp_path / "a.parquet", user_id=[1, 1], movie_id=[5, 5], rating=[5.0, 2.0])
    assert read(tmp_path / "a.parquet").equals(one)


@pytest.mark.parametrize("kind", [pa.uint8(), pa.float64(), pa.decimal128(22, 1), pa.float16()])
def test_stars_of_any_number_become_float32(tmp_path: Path, kind: pa.DataType) -> None:
    table = read(write(tmp_path / "a.parquet", rating=pa.array([3, 4]).cast(kind)))
    assert table["rating"].type == pa.float32()
    assert table["rating"].to_pylist() == [3.0, 4.0]


@pytest.mark.parametrize(
    ("column", "array", "found"),
    [
        ("user_id", pa.array([1, 2**64 - 1], pa.uint64()), "is a whole number beyond 63 bits"),
        ("user_id", pa.array([1.5, 2.0]), "is double, expected whole numbers, or text"),
        ("user_id", pa.array([b"\xff", b"a"]).cast(pa.string(), safe=False), "UTF8"),
        ("movie_id", pa.array([True, False]), "is bool"),
        ("rating", pa.array(["good", "bad"]), "expected numbers"),
        ("rated_at", pa.array([1.5e9, 1.6e9]), "is double, expected timestamps"),
        ("rated_at", pa.array([2**60, 0], pa.timestamp("ms")), "out of bounds"),
    ],
)
@pytest.mark.faults("B2.4")
def test_a_column_that_would_lose_something_is_refused(
    tmp_path: Path, column: str, array: pa.Array, found: str
) -> None:
    path = write(tmp_path / "a.parquet", **{column: array})
    with pytest.raises(InvalidInput, match=f"column '{column}' .*{found}") as refused:
        read(path)
    assert refused.value.where == {"path": str(path), "column": column}


@pytest.mark.parametrize(
    "ids",
    [[-(2**63), 2**63 - 1], [-1, 0], ["", "nan"], ["007", "7"], ["a\0b", "a"], ["é", "e\u0301"], ["'; DROP", "🎬"]],
)
@pytest.mark.faults("B2.12")
def test_ids_come_through_unchanged_and_unmerged(tmp_path: Path, ids: list[Any]) -> None:
    assert sorted(read(write(tmp_path / "a.parquet", user_id=ids))["user_id"].to_pylist()) == sorted(ids)


@pytest.mark.parametrize(
    ("ids", "read_as"),
    [
        (["7", "-5"], [7, -5]),
        (["007", "7"], ["007", "7"]),
        (["NA", "null"], ["NA", "null"]),
        (["9223372036854775808", "1"], ["9223372036854775808", "1"]),
        (["999999999999999999", "1"], [999999999999999999, 1]),
    ],
)
def test_ids_of_csv_are_numbers_only_where_nothing_is_lost(tmp_path: Path, ids: list[str], read_as: list[Any]) -> None:
    lines = [f"{user},{movie},4,2026-03-01" for movie, user in enumerate(ids)]
    (tmp_path / "a.csv").write_text("\n".join(["user_id,movie_id,rating,rated_at", *lines]))
    assert read(tmp_path / "a.csv").sort_by("movie_id")["user_id"].to_pylist() == read_as


def test_files_of_csv_and_parquet_with_numbers_go_together(tmp_path: Path) -> None:
    write(tmp_path / "a.parquet")
    (tmp_path / "b.csv").write_text("user_id,movie_id,rating,rated_at\n3,7,4.5,2026-03-01T10:00:00Z\n")
    assert sorted(read(tmp_path)["user_id"].to_pylist()) == [1, 2, 3]


@pytest.mark.parametrize("name", ["fifo.parquet", "folder.parquet", "dangling.parquet", "looping.parquet"])
@pytest.mark.faults("B2.14")
def test_what_is_no_file_is_not_read_and_does_not_hang(tmp_path: Path, name: str) -> None:
    os.mkfifo(tmp_path / "fifo.parquet")
    (tmp_path / "folder.parquet").mkdir()
    (tmp_path / "dangling.parquet").symlink_to("nowhere")
    (tmp_path / "looping.parquet").symlink_to("looping.parquet")
    with pytest.raises(NoRatings):
        read(tmp_path / name)
    with pytest.raises(NoRatings):
        read(tmp_path)


@pytest.mark.faults("B2.15")
def test_no_damage_to_a_file_ends_in_anything_but_a_refusal_or_its_rows(tmp_path: Path) -> None:
    good = write(tmp_path / "a.parquet", user_id=["ann", "bob"]).read_bytes()
    damage = random.Random(7)
    refused = others = 0
    for _ in range(300):
        content = bytearray(good)
        for _ in range(damage.randint(1, 3)):
            content[damage.randrange(len(content))] = damage.randrange(256)
        if damage.random() < 0.2:
            del content[damage.randrange(len(content)) :]
        (tmp_path / "a.parquet").write_bytes(content)
        try:
            assert read(tmp_path / "a.parquet").num_rows <= 2
        except InvalidInput as error:
            refused += "a.parquet" in str(error)
            others += "a.parquet" not in str(error)
    assert others == 0
    assert refused > 30


def test_one_error_spells_out_twenty_problems_and_counts_the_rest(tmp_path: Path) -> None:
    for number in range(30):
        write(tmp_path / f"{number:02}.parquet", rating=["good", "bad"])
    with pytest.raises(InvalidInput) as caught:
        read(tmp_path)
    assert str(caught.value).count("column 'rating'") == 20
    assert str(caught.value).endswith("... and 10 more")


def test_a_movies_table_keeps_what_it_has_and_maps_its_names(tmp_path: Path) -> None:
    table = pa.table(
        {"id": pa.array([2, 1], pa.int32()), "name": ["B", "A"], "genres": ["Drama|War", None], "year": [1999, 2000]}
    )
    pq.write_table(table, tmp_path / "movies.parquet")
    movies = ratings.read_movies(tmp_path / "movies.parquet", {"movie_id": "id", "title": "name"})
    assert movies.to_pylist() == [
        {"movie_id": 1, "title": "A", "genres": None, "year": 2000},
        {"movie_id": 2, "title": "B", "genres": ["Drama", "War"], "year": 1999},
    ]


@pytest.mark.parametrize("name", ["movies.parquet", "movies.csv"])
def test_a_mapping_for_the_ratings_does_not_hide_the_standard_names_of_the_movies(tmp_path: Path, name: str) -> None:
    table = pa.table({"movie_id": ["007", "12"], "title": ["B", "A"]})
    pq.write_table(table, tmp_path / name) if name.endswith("parquet") else csv.write_csv(table, tmp_path / name)
    movies = ratings.read_movies(tmp_path / name, {"movie_id": "itemId", "title": "name"})
    assert movies["movie_id"].to_pylist() == ["007", "12"]
    assert movies["title"].to_pylist() == ["B", "A"]


def test_a_movie_without_an_id_is_named_by_its_row(tmp_path: Path) -> None:
    pq.write_table(pa.table({"movie_id": pa.array([1, None], pa.int64())}), tmp_path / "movies.parquet")
    with pytest.raises(InvalidInput, match=r"movies\.parquet: movie_id is null in row 2"):
        ratings.read_movies(tmp_path / "movies.parquet", {})
