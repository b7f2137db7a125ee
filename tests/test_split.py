"""Splits: nothing lost, nothing twice, and time runs one way."""

import io
import zipfile
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone

import numpy as np
import pyarrow as pa
import pytest
from conftest import real_data
from hypothesis import given
from hypothesis import strategies as st
from small import DAY, ratings

from recommender import split
from recommender.errors import UnknownName
from recommender.split import Split
from storage import grouplens

DAYS = st.lists(st.integers(0, 40), min_size=1, max_size=60)
SPLITS: dict[str, Callable[[pa.Table], Split]] = {
    "newest": lambda table: split.newest(table, 0.3),
    "time_range": split.time_range,
    "random": lambda table: split.random(table, seed=5),
    "last": lambda table: split.last(table, 0.3),
    "global_time": lambda table: split.global_time(table, datetime(1970, 1, 21, tzinfo=UTC)),
    "official": lambda table: split.official(table, table.slice(0, table.num_rows // 3)),
}


def on_days(days: list[int]) -> pa.Table:
    """One rating for each day in the list, each by a user of its own."""
    return ratings(range(len(days)), [1] * len(days), [3.0] * len(days), days)


def parts(cut: Split) -> list[pa.Table]:
    return [cut.train, cut.validation, cut.test]


def days_of(part: pa.Table) -> list[int]:
    return [int(at // DAY) for at in part["rated_at"].cast(pa.int64()).to_pylist()]


@pytest.mark.parametrize("name", SPLITS)
@given(days=DAYS)
@pytest.mark.faults("B3.17")
def test_every_rating_is_in_exactly_one_part(name: str, days: list[int]) -> None:
    table = on_days(days)
    users = Counter(user for part in parts(SPLITS[name](table)) for user in part["user_id"].to_pylist())
    assert users == Counter(range(len(days)))
    assert all(part.schema == table.schema for part in parts(SPLITS[name](table)))


@given(days=DAYS, fraction=st.floats(0, 0.9))
@pytest.mark.faults("B3.17")
def test_newest_is_later_than_all_of_train_and_parts_no_instant(days: list[int], fraction: float) -> None:
    cut = split.newest(on_days(days), fraction)
    train, held = days_of(cut.train), days_of(cut.validation)
    assert train
    assert not held or max(train) < min(held)
    assert len(held) <= np.ceil(fraction * len(days))


@pytest.mark.parametrize(("fraction", "held"), [(0, []), (0.1, [9]), (0.2, [8, 9]), (0.5, [5, 6, 7, 8, 9])])
def test_newest_takes_the_fraction_it_was_asked_for(fraction: float, held: list[int]) -> None:
    cut = split.newest(on_days([3, 9, 0, 1, 2, 8, 4, 7, 5, 6]), fraction)
    assert sorted(days_of(cut.validation)) == held
    assert cut.test.num_rows == 0


def test_newest_leaves_an_instant_across_the_border_in_train() -> None:
    cut = split.newest(on_days([0, 1, 2, 2, 2, 2, 3]), 0.5)
    assert days_of(cut.validation) == [3]


def test_ratings_of_one_instant_are_all_trained_on() -> None:
    assert split.newest(on_days([4, 4, 4]), 0.5).train.num_rows == 3
    assert split.time_range(on_days([4, 4, 4])).train.num_rows == 3


def test_time_range_cuts_the_range_of_time_with_its_borders_on_the_older_side() -> None:
    cut = split.time_range(on_days([0, 0, 0, 0, 5, 6, 7, 8, 9, 10]))
    assert days_of(cut.train) == [0, 0, 0, 0, 5, 6]
    assert days_of(cut.validation) == [7, 8]
    assert days_of(cut.test) == [9, 10]


def test_time_range_counts_from_the_first_rating() -> None:
    cut = split.time_range(on_days([1000, 1004, 1009, 1010]), train=0.4, validation=0.9)
    assert [days_of(part) for part in parts(cut)] == [[1000, 1004], [1009], [1010]]


def test_time_range_takes_each_day_to_one_part_in_order() -> None:
    cut = split.time_range(on_days(list(range(100))))
    assert [days_of(part)[-1] for part in parts(cut)] == [59, 79, 99]


def test_random_depends_on_its_seed_alone() -> None:
    table = on_days(list(range(200)))
    one, same, other = split.random(table, 1), split.random(table, 1), split.random(table, 2)
    assert one.test.equals(same.test)
    assert not one.test.equals(other.test)
    assert (one.train.num_rows, one.validation.num_rows, one.test.num_rows) == (160, 0, 40)


def test_random_is_the_permutation_that_the_literature_is_compared_by() -> None:
    order = np.random.default_rng(0).permutation(50)
    cut = split.random(on_days(list(range(50))), seed=0)
    assert cut.train["user_id"].to_pylist() == sorted(order[:40].tolist())


@given(days=DAYS, fraction=st.floats(0, 1))
def test_last_takes_exactly_the_fraction_and_no_older_than_the_rest(days: list[int], fraction: float) -> None:
    cut = split.last(on_days(days), fraction)
    assert cut.test.num_rows == round(fraction * len(days))
    assert not cut.test.num_rows or not cut.train.num_rows or max(days_of(cut.train)) <= min(days_of(cut.test))


def test_last_parts_an_instant_in_the_order_of_the_table() -> None:
    assert split.last(on_days([5, 5, 1, 5, 5]), 0.4).test["user_id"].to_pylist() == [3, 4]


def test_global_time_tests_from_the_instant_on_whatever_its_zone() -> None:
    table = on_days([0, 1, 2, 3])
    for at in (datetime(1970, 1, 3, tzinfo=UTC), datetime(1970, 1, 3, 2, tzinfo=timezone(timedelta(hours=2)))):
        cut = split.global_time(table, at)
        assert (days_of(cut.train), days_of(cut.test)) == ([0, 1], [2, 3])


def test_rolling_windows_are_those_by_hand() -> None:
    """The newest rating is of day 20: windows of 3 days hold 15 to 17 and 18 to 20."""
    cuts = list(split.rolling(on_days([0, 14, 15, 17, 18, 20]), days=3, periods=2))
    assert [(days_of(cut.train), days_of(cut.test)) for cut in cuts] == [
        ([0, 14], [15, 17]),
        ([0, 14, 15, 17], [18, 20]),
    ]
    assert all(cut.validation.num_rows == 0 for cut in cuts)


def test_a_horizon_may_differ_from_the_days_between_trainings() -> None:
    table = on_days([0, 14, 15, 17, 18, 20])
    short = [days_of(cut.test) for cut in split.rolling(table, days=3, periods=2, horizon=1)]
    assert short == [[15], [18]]
    assert [days_of(cut.test) for cut in split.rolling(table, days=3, periods=2, horizon=6)] == [
        [15, 17, 18, 20],
        [18, 20],
    ]


def test_windows_with_nothing_to_train_or_test_on_are_left_out() -> None:
    assert [days_of(cut.test) for cut in split.rolling(on_days([0, 20]), days=3, periods=100)] == [[20]]
    assert list(split.rolling(on_days([4, 4]), days=3)) == []
    assert list(split.rolling(on_days([]), days=3)) == []


@given(days=DAYS, window=st.integers(1, 9), periods=st.integers(1, 9))
def test_rolling_windows_do_not_overlap_and_train_on_the_past_alone(days: list[int], window: int, periods: int) -> None:
    cuts = list(split.rolling(on_days(days), window, periods))
    tested = [user for cut in cuts for user in cut.test["user_id"].to_pylist()]
    assert len(tested) == len(set(tested))
    for cut in cuts:
        assert max(days_of(cut.train)) < min(days_of(cut.test))
        assert max(days_of(cut.test)) - min(days_of(cut.test)) < window
    newest = max(days)
    covered = [day for day in days if day > newest - window * periods]
    assert len(tested) == len(covered) or min(days) > newest - window * periods


def test_an_official_split_tests_on_the_given_pairs() -> None:
    table = ratings([1, 1, 2, 2, 3], [10, 20, 10, 20, 10], [3.0] * 5)
    pairs = pa.table({"user_id": [2, 1, 2], "movie_id": [10, 20, 10]})
    cut = split.official(table, pairs)
    assert cut.test.equals(table.take(pa.array([1, 2])))
    assert cut.train.equals(table.take(pa.array([0, 3, 4])))


def test_an_official_split_of_other_data_is_refused() -> None:
    table = ratings([1, 1], [10, 20], [3.0] * 2)
    with pytest.raises(ValueError, match="1 of 2"):
        split.official(table, pa.table({"user_id": [1, 2], "movie_id": [10, 20]}))


@pytest.mark.parametrize("fold", range(1, 6))
def test_the_folds_of_movielens_100k_are_its_own(fold: int) -> None:
    path = real_data("ml-100k.zip")
    with zipfile.ZipFile(path) as zipped:
        base, test = (np.loadtxt(io.BytesIO(zipped.read(f"ml-100k/u{fold}.{part}")), int) for part in ("base", "test"))
    pairs = pa.table({"user_id": test[:, 0], "movie_id": test[:, 1]})
    cut = split.official(grouplens.read_zip(path).ratings, pairs)
    assert (cut.train.num_rows, cut.test.num_rows) == (80_000, 20_000)
    assert sorted(zip(*(cut.train[name].to_pylist() for name in ("user_id", "movie_id")), strict=True)) == sorted(
        map(tuple, base[:, :2].tolist())
    )


@pytest.mark.parametrize("name", split.NAMES)
def test_every_named_split_has_a_train_and_a_test_part(name: str) -> None:
    cut = split.by_name(name, on_days(list(range(100))), seed=1)
    assert cut.train.num_rows + cut.validation.num_rows + cut.test.num_rows == 100
    assert cut.train.num_rows >= 60
    assert cut.test.num_rows >= 10


def test_an_unknown_split_names_the_known_ones() -> None:
    with pytest.raises(UnknownName, match="tomorrow") as caught:
        split.by_name("tomorrow", on_days([1]), seed=1)
    assert all(name in caught.value.hint for name in split.NAMES)


def test_movielens_100k_is_cut_as_in_the_article() -> None:
    table = grouplens.read_zip(real_data("ml-100k.zip")).ratings
    cut = split.time_range(table)
    assert [part.num_rows for part in parts(cut)] == [65_336, 15_778, 18_886]
    known = set(cut.train["user_id"].to_pylist())
    assert len(set(cut.test["user_id"].to_pylist()) - known) == 194
