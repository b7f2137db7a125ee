"""The made-up catalogue: exact in number, whole in shape, and with something in it that a model can learn."""

import time
from datetime import UTC, date, datetime, timedelta
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recommender import schema
from storage import synthetic
from storage.catalogue import Catalogue
from storage.errors import InvalidInput

LAST = date(2026, 3, 10)
DAMPING = 10.0


@pytest.fixture(scope="module")
def catalogue() -> Catalogue:
    return synthetic.generate(last=LAST)


def days(ratings: pa.Table) -> np.ndarray:
    return np.asarray(ratings["rated_at"]).astype("datetime64[D]")


def pairs(ratings: pa.Table) -> np.ndarray:
    keys: np.ndarray = np.asarray(ratings["user_id"]) * 1_000_000 + np.asarray(ratings["movie_id"])
    return keys


def test_default_has_the_promised_numbers(catalogue: Catalogue) -> None:
    assert catalogue.movies is not None
    assert catalogue.users is not None
    assert catalogue.ratings.num_rows == 60_000
    assert catalogue.movies["movie_id"].to_pylist() == list(range(1, 401))
    assert catalogue.users["user_id"].to_pylist() == list(range(1, 601))


def test_columns_have_the_canonical_types(catalogue: Catalogue) -> None:
    assert catalogue.movies is not None
    assert catalogue.users is not None
    known = [schema.ratings(pa.int64(), pa.int64()), schema.movies(pa.int64()), schema.users(pa.int64())]
    for table, canonical in zip([catalogue.ratings, catalogue.movies, catalogue.users], known, strict=True):
        assert {name: table.schema.field(name).type for name in table.column_names} == {
            name: canonical.field(name).type for name in table.column_names
        }
    assert set(catalogue.ratings.column_names) == set(known[0].names)


def test_stars_are_halves_from_1_to_5(catalogue: Catalogue) -> None:
    assert np.unique(catalogue.ratings["rating"]).tolist() == [1, 1.5, 2, 2.5, 3, 3.5, 4, 4.5, 5]


def test_no_user_rates_a_movie_twice(catalogue: Catalogue) -> None:
    assert len(np.unique(pairs(catalogue.ratings))) == 60_000


def test_every_night_has_ratings_and_none_lies_outside(catalogue: Catalogue) -> None:
    expected = np.arange(np.datetime64(LAST) - 59, np.datetime64(LAST) + 1)
    np.testing.assert_array_equal(np.unique(days(catalogue.ratings)), expected)


def test_ratings_are_ordered_by_time(catalogue: Catalogue) -> None:
    keys = catalogue.ratings.select(["rated_at", "user_id", "movie_id"])
    assert keys.equals(keys.sort_by([(name, "ascending") for name in keys.column_names]))


def test_users_join_with_their_first_rating_and_through_the_whole_time(catalogue: Catalogue) -> None:
    assert catalogue.users is not None
    first = catalogue.ratings.group_by("user_id").aggregate([("rated_at", "min")]).sort_by("user_id")
    joined = catalogue.users["joined_at"]
    assert joined.to_pylist() == first["rated_at_min"].to_pylist()
    middle = datetime.combine(LAST, datetime.min.time(), UTC) - timedelta(days=29)
    assert 60 < sum(at >= middle for at in joined.to_pylist()) < 300
    assert max(joined.to_pylist()).date() >= LAST - timedelta(days=5)


def test_activity_and_popularity_have_long_tails(catalogue: Catalogue) -> None:
    for column in ("user_id", "movie_id"):
        counts = np.sort(np.unique(catalogue.ratings[column], return_counts=True)[1])[::-1]
        assert counts[: len(counts) // 5].sum() > 0.35 * counts.sum()
        assert counts[0] > 3 * np.median(counts)


def test_titles_are_unique_and_end_in_their_year(catalogue: Catalogue) -> None:
    assert catalogue.movies is not None
    titles, years = catalogue.movies["title"].to_pylist(), catalogue.movies["year"].to_pylist()
    assert len(set(titles)) == 400
    assert all(title.endswith(f" ({year})") for title, year in zip(titles, years, strict=True))


def test_titles_stay_unique_when_the_words_run_out() -> None:
    movies = synthetic.generate(last=LAST, users=5, movies=5_000, ratings=100).movies
    assert movies is not None
    assert len(set(movies["title"].to_pylist())) == 5_000


def test_movies_have_genres_and_came_out_in_their_year_before_the_first_night(catalogue: Catalogue) -> None:
    assert catalogue.movies is not None
    released = catalogue.movies["release_date"]
    assert 0 < released.null_count < 100
    for genres, year, day in zip(
        catalogue.movies["genres"].to_pylist(), catalogue.movies["year"].to_pylist(), released.to_pylist(), strict=True
    ):
        assert 1 <= len(genres) == len(set(genres)) <= 3
        assert set(genres) <= set(synthetic.GENRES)
        assert year < LAST.year
        assert day is None or day.year == year


def test_users_are_described(catalogue: Catalogue) -> None:
    assert catalogue.users is not None
    assert set(catalogue.users["gender"].to_pylist()) == {"F", "M"}
    assert all(14 <= age <= 85 for age in catalogue.users["age"].to_pylist())
    assert len(set(catalogue.users["occupation"].to_pylist())) > 10


def test_the_same_seed_gives_the_same_catalogue_and_another_seed_another(catalogue: Catalogue) -> None:
    again, other = synthetic.generate(last=LAST), synthetic.generate(last=LAST, seed=8)
    assert again == catalogue
    assert not other.ratings.equals(catalogue.ratings)


def test_another_last_night_moves_every_rating_by_whole_days(catalogue: Catalogue) -> None:
    moved = synthetic.generate(last=LAST + timedelta(days=3)).ratings
    shift = np.unique(moved["rated_at"].to_numpy() - catalogue.ratings["rated_at"].to_numpy())
    assert shift.tolist() == [np.timedelta64(3 * 86_400 * 10**6, "us")]
    assert moved.drop(["rated_at"]).equals(catalogue.ratings.drop(["rated_at"]))


@settings(deadline=None, max_examples=60)
@given(st.integers(1, 40), st.integers(1, 40), st.integers(1, 20), st.floats(0, 1), st.integers(0, 2**32))
def test_any_size_is_met_exactly(users: int, movies: int, nights: int, share: float, seed: int) -> None:
    wanted = max(1, int(share * users * movies))
    made = synthetic.generate(last=LAST, users=users, movies=movies, ratings=wanted, nights=nights, seed=seed)
    assert made.users is not None
    assert len(np.unique(pairs(made.ratings))) == made.ratings.num_rows == wanted
    assert len(np.unique(days(made.ratings))) == nights or wanted < nights
    assert made.users["joined_at"].null_count == 0 or wanted < users


@pytest.mark.parametrize("wrong", [{"users": 0}, {"movies": 0}, {"ratings": 0}, {"nights": 0}, {"ratings": 240_001}])
def test_impossible_sizes_are_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(InvalidInput):
        synthetic.generate(last=LAST, **wrong)


def test_damped_biases_clearly_beat_the_mean_and_a_low_rank_clearly_beats_biases(catalogue: Catalogue) -> None:
    mean, biases, low_rank = held_out_errors(catalogue.ratings)
    assert biases < 0.90 * mean
    assert low_rank < 0.90 * biases


def test_a_million_ratings_are_quick() -> None:
    times = []
    for _ in range(2):
        began = time.perf_counter()
        made = synthetic.generate(last=LAST, users=6_000, movies=4_000, ratings=1_000_000)
        times.append(time.perf_counter() - began)
    assert made.ratings.num_rows == 1_000_000
    assert min(times) < 20  # 2 s on a quiet machine with 2 cores


def held_out_errors(ratings: pa.Table) -> tuple[float, float, float]:
    """RMSE in stars, on a random fifth, of the mean, of damped biases, and of biases plus eight alternating factors."""
    random = np.random.default_rng(0)
    user, movie = ratings["user_id"].to_numpy() - 1, ratings["movie_id"].to_numpy() - 1
    stars = ratings["rating"].to_numpy().astype(float)
    test = random.random(len(stars)) < 0.2

    def error(predicted: np.ndarray) -> float:
        return float(np.sqrt(np.mean((stars[test] - predicted[test]) ** 2)))

    def damped(ids: np.ndarray, residual: np.ndarray) -> np.ndarray:
        sums = np.bincount(ids[~test], residual[~test], minlength=ids.max() + 1)
        biases: np.ndarray = sums / (np.bincount(ids[~test], minlength=ids.max() + 1) + DAMPING)
        return biases.take(ids)

    mean = np.full(len(stars), stars[~test].mean())
    biases = mean + damped(movie, stars - mean)
    biases = biases + damped(user, stars - biases)
    residual = stars - biases
    factors = [random.normal(0, 0.1, (ids.max() + 1, 8)) for ids in (user, movie)]
    for _ in range(8):
        for fitted, fixed, ids, others in ((0, 1, user, movie), (1, 0, movie, user)):
            order = np.argsort(np.where(test, -1, ids), kind="stable")[test.sum() :]
            cuts = np.searchsorted(ids[order], np.arange(len(factors[fitted]) + 1))
            for one, (start, end) in enumerate(pairwise(cuts)):
                rows = order[start:end]
                x = factors[fixed][others[rows]]
                factors[fitted][one] = np.linalg.solve(x.T @ x + 5 * np.eye(8), x.T @ residual[rows])
    return error(mean), error(biases), error(biases + np.sum(factors[0][user] * factors[1][movie], axis=1))
