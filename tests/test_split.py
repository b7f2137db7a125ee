"""Splits: nothing lost, nothing twice, and time runs one way."""

from collections import Counter
from collections.abc import Callable

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
def test_every_rating_is_in_exactly_one_part(name: str, days: list[int]) -> None:
    table = on_days(days)
    users = Counter(user for part in parts(SPLITS[name](table)) for user in part["user_id"].to_pylist())
    assert users == Counter(range(len(days)))
    assert all(part.schema == table.schema for part in parts(SPLITS[name](table)))


@given(days=DAYS, fraction=st.floats(0, 0.9))
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
