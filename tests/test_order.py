"""The order of ratings and the latest of each pair, held to a plain sort of all columns by Arrow."""

import itertools
import random
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small import ids, ratings

from storage import digest, narrow, order
from storage import ratings as stored
from storage.ratings import Limits

BY = [(name, "ascending") for name in ("rated_at", "user_id", "movie_id", "rating")]
LOWEST, HIGHEST = -(2**63), 2**63 - 1
SECOND, LONG_AGO, LATE = 10**6, -62_135_596_800_000_000, 253_402_300_799_999_999


def plain(table: pa.Table) -> pa.Table:
    """Sort everything, then keep the last row of each user and movie."""
    table = table.sort_by(BY)
    pairs = zip(table["user_id"].to_pylist(), table["movie_id"].to_pylist(), strict=True)
    last = {pair: row for row, pair in enumerate(pairs)}
    return table.take(pa.array(sorted(last.values()), pa.int64()))


def in_chunks(table: pa.Table, borders: list[int]) -> pa.Table:
    cuts = sorted({min(border, table.num_rows) for border in borders} | {0, table.num_rows})
    parts = [table.slice(first, last - first) for first, last in itertools.pairwise(cuts)]
    return pa.concat_tables(parts or [table])


def latest(table: pa.Table) -> pa.Table:
    """In order, as read: each chunk as narrow as it can be."""
    parts = table.to_batches() or [table]
    columns = {name: [narrow.narrowed(pa.chunked_array([part[name]])) for part in parts] for name in table.column_names}
    return order.latest({name: narrow.joined(column) for name, column in columns.items()})


def assert_as_plain(table: pa.Table) -> None:
    found, expected = latest(table), plain(table)
    wide = order.latest(dict(zip(table.column_names, table.columns, strict=True)))
    assert wide.equals(found) or digest.of_table(wide) == digest.of_table(found)
    assert found.schema == table.schema
    assert digest.of_table(found) == digest.of_table(expected)
    assert all(column.num_chunks == 1 for column in found.columns)


WHOLE = st.one_of(st.integers(-3, 3), st.sampled_from([LOWEST, HIGHEST, 10**12]))
TEXT = st.sampled_from(["", "7", "007", "10", "é", "e\u0301", "a\0b", "🎬"])
STARS = st.sampled_from([-0.0, 0.0, 0.5, 4.0, 5.0])
TIMES = st.one_of(st.integers(-2, 2).map(lambda s: s * SECOND), st.integers(0, 3), st.sampled_from([LONG_AGO, LATE]))


@given(st.data(), st.sampled_from([WHOLE, TEXT, st.integers(-5, 5)]), st.sampled_from([WHOLE, TEXT]))
@settings(max_examples=150, deadline=None)
def test_ties_repeats_and_ids_of_any_kind_come_as_from_a_plain_sort(data: Any, users: Any, movies: Any) -> None:
    rows = data.draw(st.lists(st.tuples(users, movies, STARS, TIMES), min_size=1, max_size=30))
    user, movie, stars, at = zip(*rows, strict=True)
    table = pa.table(
        {
            "user_id": ids(user),
            "movie_id": ids(movie),
            "rating": pa.array(stars, pa.float32()),
            "rated_at": pa.array(at, pa.timestamp("us", "UTC")),
        }
    )
    assert_as_plain(in_chunks(table, data.draw(st.lists(st.integers(0, 30), max_size=3))))


def many(rows: int = 70_000, users: int = 700, movies: int = 900, seconds: int = 40_000, **ids_by: Any) -> pa.Table:
    """More rows than a block, in order of time, with ties and repeats."""
    rng = np.random.default_rng(0)
    user, movie = rng.integers(1, users + 1, rows), rng.integers(1, movies + 1, rows)
    at = np.sort(rng.integers(0, seconds, rows)) * SECOND
    return pa.table(
        {
            "user_id": ids_by.get("user", pa.array)(user),
            "movie_id": ids_by.get("movie", pa.array)(movie),
            "rating": pa.array(rng.integers(1, 11, rows) / 2, pa.float32()),
            "rated_at": pa.array(at, pa.timestamp("us", "UTC")),
        }
    )


def shifted(factor: int) -> Any:
    return lambda values: pa.array(values * factor - 10**6)


@pytest.mark.parametrize("mixed", [0, 1, 1000, 70_000])
@pytest.mark.parametrize("kind", [pa.array, shifted(-(10**10)), lambda values: pa.array(values).cast(pa.string())])
def test_many_rows_with_some_out_of_place_come_as_from_a_plain_sort(mixed: int, kind: Any) -> None:
    table = many(user=kind, movie=kind)
    rows = np.arange(table.num_rows)
    some = np.random.default_rng(1).permutation(table.num_rows)[:mixed]
    rows[np.sort(some)] = some
    assert_as_plain(in_chunks(table.take(pa.array(rows)), [30_000, 30_001, 66_000]))


@pytest.mark.parametrize("seconds", [40_000, 12])
def test_times_and_pairs_that_do_not_fit_into_one_number_come_as_from_a_plain_sort(seconds: int) -> None:
    table = many(rows=70_000, users=60_000, movies=60_000, seconds=seconds)
    fine = pa.array(table["rated_at"].cast(pa.int64()).to_numpy() * 10**6 + 1, pa.timestamp("us", "UTC"))
    mixed = np.random.default_rng(2).permutation(table.num_rows)
    assert_as_plain(table.set_column(3, "rated_at", fine).take(pa.array(mixed)))


def test_what_is_in_order_stays_and_nothing_is_nothing() -> None:
    table = ratings([1, 1, 2], [5, 6, 5], [3.0, 4.0, 5.0])
    assert latest(table).equals(table)
    assert latest(table.slice(0, 0)).num_rows == 0


def test_files_with_unusable_rows_are_read_as_from_a_plain_sort(tmp_path: Path) -> None:
    table = many(rows=5000)
    at = pa.array(table["rated_at"].cast(pa.int64()).to_numpy() + 10**15, pa.timestamp("us", "UTC"))  # 2001
    table = table.set_column(3, "rated_at", at)
    damage = random.Random(3)
    user = [None if damage.random() < 0.02 else value for value in table["user_id"].to_pylist()]
    stars = [float("nan") if damage.random() < 0.02 else value for value in table["rating"].to_pylist()]
    table = table.set_column(0, "user_id", pa.array(user, pa.int64()))
    table = table.set_column(2, "rating", pa.array(stars, pa.float32()))
    for number, first in enumerate(range(0, 5000, 1250)):
        pq.write_table(table.slice(first, 1250), tmp_path / f"{9 - number}.parquet")
    found = stored.read(str(tmp_path), {}, before=None, limits=Limits(max_rejected=0.1)).table
    usable = [row for row in table.to_pylist() if row["user_id"] is not None and row["rating"] == row["rating"]]
    assert len(usable) < 5000
    assert found.equals(plain(pa.Table.from_pylist(usable, table.schema)))
