"""What the towers look up: trend, surprise, and the raters of a movie."""

import numpy as np
import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from recommender.facts import some_raters, surprise, trend
from recommender.known import Known, known
from recommender.vocabulary import Vocabulary
from tests import small


def of(ratings: pa.Table) -> Known:
    return known(ratings, Vocabulary.of(ratings["user_id"]), Vocabulary.of(ratings["movie_id"]))


def test_the_trend_is_the_log_of_recent_over_overall_share_of_good_ratings() -> None:
    # movie 1: good on days 0 and 1; movie 2: good on day 1; a poor rating of movie 2 on day 0 does not count
    found = of(small.ratings([1, 2, 3, 4], [1, 1, 2, 2], [5, 5, 5, 1], days=[0, 1, 1, 0]))
    now = trend(found, mean_life=2.0, prior=4.0)
    overall = np.array([0.5, 2.5, 1.5]) / 4.5
    fade = np.exp(-1 / 2)
    day_1 = (np.array([0, 1, 0]) + 4 * overall) / (1 + 4)
    present = (np.array([0, fade + 1, 1]) + 4 * overall) / (fade + 2 + 4)
    assert now.shape == (3, 3)
    np.testing.assert_allclose(now[0], 0, atol=1e-6)
    np.testing.assert_allclose(now[1], np.log(day_1 / overall), atol=1e-6)
    np.testing.assert_allclose(now[2], np.log(present / overall), atol=1e-6)


def test_surprise_knows_nothing_of_the_users_other_ratings() -> None:
    found = of(small.ratings([1, 1, 2], [1, 2, 1], [5, 3, 4]))
    mean, of_movie_1, of_movie_2 = 4.0, (1 + 0) / (2 + 5), -1 / (1 + 5)
    expected = [5 - mean - of_movie_1, 3 - mean - of_movie_2, 4 - mean - of_movie_1]
    np.testing.assert_allclose(surprise(found), expected, atol=1e-6)


@given(st.lists(st.integers(1, 12), min_size=1, max_size=8), st.integers(1, 60))
def test_where_raters_are_too_many_those_of_the_most_rated_movies_are_thinned_out(raters: list[int], most: int) -> None:
    pairs = [(user, movie) for movie, count in enumerate(raters, start=1) for user in range(1, count + 1)]
    found = of(small.ratings([u for u, _ in pairs], [m for _, m in pairs], [3] * len(pairs)))
    kept, counts = some_raters(found, most)
    assert len(kept) == counts.sum() == len(np.unique(kept)) <= most
    assert (np.diff(found.movie[kept]) >= 0).all()
    np.testing.assert_array_equal(np.bincount(found.movie[kept], minlength=len(counts)), counts)
    limit = counts.max()
    np.testing.assert_array_equal(counts, np.minimum([0, *raters], limit))
    assert limit == max(raters) or np.minimum(raters, limit + 1).sum() > most


def test_the_raters_that_are_kept_are_spread_evenly() -> None:
    found = of(small.ratings(list(range(1, 13)), [7] * 12, [3] * 12))
    assert found.user[some_raters(found, 4)[0]].tolist() == [1, 4, 7, 10]
