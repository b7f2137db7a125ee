"""What a model looks users and movies up in: rows, order, trend, features."""

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recommender import known as facts
from recommender.known import Attributes, Known, known
from recommender.vocabulary import Vocabulary
from tests import small


def of(ratings: pa.Table, **tables: pa.Table) -> Known:
    users, movies = Vocabulary.of(ratings["user_id"]), Vocabulary.of(ratings["movie_id"])
    return known(ratings, users, movies, Attributes(**tables))


def test_ratings_are_sorted_by_user_then_time_then_movie() -> None:
    found = of(small.ratings([2, 1, 2, 1, 2], [7, 7, 5, 6, 6], [1, 2, 3, 4, 5], days=[3, 9, 1, 2, 3]))
    assert found.user.tolist() == [1, 1, 2, 2, 2]
    assert found.stars.tolist() == [4, 2, 3, 5, 1]  # movies 6 and 7 of user 2 at one instant: 6 first
    assert found.starts.tolist() == [0, 0, 2, 5]
    assert found.period.tolist() == [1, 8, 0, 2, 2]


def test_ratings_outside_the_vocabularies_are_left_out() -> None:
    ratings = small.ratings([1, 1, 3], [5, 6, 5], [1, 2, 3])
    found = known(ratings, Vocabulary(small.ids([1, 2])), Vocabulary(small.ids([5])))
    assert (found.user.tolist(), found.movie.tolist(), found.stars.tolist()) == ([1], [1], [1])
    assert found.starts.tolist() == [0, 0, 1, 1]


def test_long_spans_are_cut_into_at_most_512_periods() -> None:
    found = of(small.ratings([1, 1, 1], [1, 2, 3], [3, 3, 3], days=[0, 1000, 5119]))
    assert found.period_days == 10
    assert found.period.tolist() == [0, 100, 511]


def test_good_is_three_quarters_up_the_scale() -> None:
    assert of(small.ratings([1, 1], [1, 2], [1, 5])).good_from == 4
    assert of(small.ratings([1, 1], [1, 2], [0.5, 5])).good_from == 3.875
    assert of(small.ratings([1, 1], [1, 2], [3, 3])).good_from == 3


def test_features_are_words_whose_squares_add_up_to_one_for_each_kind() -> None:
    ratings = small.ratings([1, 2], [5, 6], [1, 2])
    movies = pa.table(
        {
            "movie_id": small.ids([6, 5, 9]),
            "genres": pa.array([["Drama", "War"], None, ["Crime"]], pa.list_(pa.string())),
            "year": pa.array([1995, None, 1990], pa.int16()),
        }
    )
    users = pa.table(
        {
            "user_id": small.ids([1, 2]),
            "age": pa.array([17, None], pa.int16()),
            "gender": pa.array([None, "F"]),
            "occupation": pa.array(["artist", "artist"]),
        }
    )
    found = of(ratings, movies=movies, users=users)
    assert found.movie_features.names == ("genre Drama", "genre War", "year 1995")
    np.testing.assert_allclose(found.movie_features.dense(), [[0, 0, 0], [0, 0, 0], [0.5**0.5, 0.5**0.5, 1]])
    assert found.user_features.names == ("age 0", "gender F", "occupation artist")
    np.testing.assert_allclose(found.user_features.dense(), [[0, 0, 0], [1, 0, 1], [0, 1, 1]])


def test_without_tables_there_is_one_feature_that_nobody_has() -> None:
    found = of(small.ratings([1], [5], [3]))
    assert found.user_features.names == ()
    assert found.user_features.dense().tolist() == [[0], [0]]
    assert found.movie_features.dense().shape == (2, 1)


@pytest.mark.parametrize("column", ["age", "genres"])
def test_tables_without_a_column_have_no_such_feature(column: str) -> None:
    ratings = small.ratings([1], [5], [3])
    found = of(ratings, movies=pa.table({"movie_id": small.ids([5])}), users=pa.table({"user_id": [1]}))
    assert found.user_features.names == found.movie_features.names == (), column


@given(st.integers(0, 2**32 - 1), st.sampled_from([1, 1_000_000]), st.sampled_from([10**7, 10**13, 2**60]))
def test_ratings_are_ordered_as_lexsort_does(seed: int, unit: int, span: int) -> None:
    rng = np.random.default_rng(seed)
    count = int(rng.integers(0, 60))
    user, movie = (rng.integers(1, 6, count).astype(np.int32) for _ in range(2))
    at = (
        (rng.integers(-span, span, count) // unit * unit)[rng.integers(0, max(count, 1), count)]
        if count
        else np.zeros(0, int)
    )
    found = facts._order(user, at, movie)
    expected = np.lexsort((movie, at, user))
    for column in (user, at, movie):
        np.testing.assert_array_equal(column[found], column[expected])
    np.testing.assert_array_equal(facts.by_row(user), np.argsort(user, kind="stable"))
