"""Candidates: which movies, in which order, and what a stranger is expected to think of them."""

from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from small import as_text, ids, random_model, ratings

from recommender import candidates
from recommender.errors import NothingToRecommend


def rated(counts: dict[Any, int], stars: float = 3.0) -> pa.Table:
    """Each movie rated so many times, by users 0, 1, 2 ..."""
    pairs = [(user, movie) for movie, count in counts.items() for user in range(count)]
    return ratings([user for user, _ in pairs], [movie for _, movie in pairs], [stars] * len(pairs))


def movies_table(available: dict[Any, bool | None], titles: list[str] | None = None) -> pa.Table:
    table = pa.table({"movie_id": ids(available), "available": pa.array(list(available.values()), pa.bool_())})
    return table if titles is None else table.append_column("title", [titles])


def test_the_most_rated_movie_comes_first_and_equals_come_by_id() -> None:
    found = candidates.select(rated({7: 2, 3: 5, 12: 2, 5: 2, 4: 1}), None, min_ratings=1)
    assert found.ids.to_pylist() == [3, 5, 7, 12, 4]
    assert found.n_ratings.tolist() == [5, 2, 2, 2, 1]


@given(st.dictionaries(st.integers(-(2**63), 2**63 - 1), st.integers(1, 4), min_size=1, max_size=12), st.randoms())
def test_the_order_does_not_depend_on_the_order_of_rows(counts: dict[int, int], random: Any) -> None:
    table = rated(counts)
    order = list(range(table.num_rows))
    random.shuffle(order)
    found = candidates.select(table.take(pa.array(order)), None, min_ratings=1)
    assert found.ids.to_pylist() == sorted(counts, key=lambda movie: (-counts[movie], movie))


@pytest.mark.parametrize(("least", "left"), [(0, [1, 2, 3]), (2, [1, 2]), (3, [1])])
def test_movies_with_too_few_ratings_are_left_out(least: int, left: list[int]) -> None:
    assert candidates.select(rated({1: 3, 2: 2, 3: 1}), None, min_ratings=least).ids.to_pylist() == left


def test_movies_marked_unavailable_are_left_out_and_those_not_marked_stay() -> None:
    movies = movies_table({1: True, 2: False, 3: None, 9: False})
    assert candidates.select(rated({1: 1, 2: 5, 3: 2, 4: 1}), movies, min_ratings=1).ids.to_pylist() == [3, 1, 4]


def test_a_movie_without_ratings_is_no_candidate() -> None:
    assert candidates.select(rated({1: 1}), movies_table({1: True, 2: True}), min_ratings=0).ids.to_pylist() == [1]


def test_nothing_left_says_what_to_lower() -> None:
    with pytest.raises(NothingToRecommend, match="4 ratings or more") as caught:
        candidates.select(rated({1: 3}), None, min_ratings=4)
    assert "candidates.min_ratings" in caught.value.hint
    with pytest.raises(NothingToRecommend):
        candidates.select(rated({1: 3}), movies_table({1: False}), min_ratings=1)


def test_ids_as_text_stay_text_and_are_ordered_as_text() -> None:
    found = candidates.select(as_text(rated({2: 1, 10: 1, 7: 3})), None, min_ratings=1)
    assert found.ids.type == pa.string()
    assert found.ids.to_pylist() == ["m7", "m10", "m2"]


def test_the_mean_is_damped_by_ten_ratings_of_average_height() -> None:
    table = pa.concat_tables([rated({1: 10}, stars=5.0), rated({2: 30}, stars=1.0)])
    found = candidates.select(table, None, min_ratings=1)
    np.testing.assert_allclose(found.mean_rating, [(30 * 1 + 10 * 2) / 40, (10 * 5 + 10 * 2) / 20])


def test_rows_are_looked_up_by_id_or_by_title() -> None:
    movies = movies_table({1: None, 2: None, 3: None}, ["B", "A", "B"])
    found = candidates.select(rated({1: 1, 2: 2, 3: 3, 4: 4}), movies, min_ratings=1)
    assert found.ids.to_pylist() == [4, 3, 2, 1]
    by_id = random_model(ids([1]), ids([1, 3, 4]))
    assert found.rows(by_id.movies, "movie_id").tolist() == [3, 2, 0, 1]
    by_title = random_model(ids([1]), ids(["A", "B"]))
    assert found.rows(by_title.movies, "title").tolist() == [0, 2, 1, 2]
