"""The partners found without steps: each against its own definition, and both tell two camps apart."""

import numpy as np
import pyarrow as pa
import pytest
import small

from recommender import taste
from recommender.known import Known, known
from recommender.vocabulary import Vocabulary

L2 = 0.03


def facts_of(ratings: pa.Table) -> Known:
    return known(ratings, Vocabulary.of(ratings["user_id"]), Vocabulary.of(ratings["movie_id"]))


def camps() -> pa.Table:
    """Even users love even movies and odd ones odd movies; the other kind they rarely rate, and low. Movie 21: nobody's."""
    every = [(user, movie) for user in range(1, 31) for movie in range(1, 21)]
    pairs = [(u, m) for u, m in every if ((u * 7 + m * 3) % 5 if u % 2 == m % 2 else (u * 7 + m * 3) % 5 == 1)]
    stars = [5 if user % 2 == movie % 2 else 2 for user, movie in pairs]
    return small.ratings([*(u for u, _ in pairs), 1], [*(m for _, m in pairs), 21], [*stars, 1])


def vectors(ratings: pa.Table, seed: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """Of users and movies."""
    facts = facts_of(ratings)
    parts = taste.factors(facts, 4, L2, seed), taste.ridge(facts, 6, 10.0, seed)
    return of_users(
        taste.Readers(*parts, taste.weight(facts), L2), facts, np.arange(facts.users.rows)
    ), taste.of_movies(*parts)


def of_users(readers: taste.Readers, facts: Known, users: np.ndarray) -> np.ndarray:
    """The vectors of some users, by their rows."""
    counts = np.diff(facts.starts)[users]
    at = np.concatenate([np.arange(*facts.starts[[user, user + 1]]) for user in users])
    return readers.vectors(len(users), np.repeat(np.arange(len(users)), counts), facts.movie[at], facts.good[at])


def test_the_vectors_of_users_are_the_least_of_the_objective() -> None:
    facts, unobserved = facts_of(camps()), 0.1
    factors = taste.factors(facts, 4, L2, seed=1)
    own = np.zeros((facts.users.rows, 4), np.float32)
    taste._solve(factors, facts.starts, facts.movie, L2, unobserved, len(factors), own)  # as if all were good

    def objective(user: int, vector: np.ndarray) -> float:
        rated = facts.movie[facts.starts[user] : facts.starts[user + 1]]
        fit = np.sum((factors[rated] @ vector - 1) ** 2) + unobserved * np.sum((factors @ vector) ** 2)
        return float(fit + L2 * (len(rated) + unobserved * len(factors)) * vector @ vector)

    rng = np.random.default_rng(0)
    for user in (1, 2, 30):
        least = objective(user, own[user].astype(np.float64))
        assert all(objective(user, own[user] + rng.normal(0, 0.01, 4)) > least for _ in range(20))


def test_conjugate_gradients_find_what_a_solver_finds_whatever_the_guess() -> None:
    rng = np.random.default_rng(6)
    some = rng.normal(size=(50, 40, 16)).astype(np.float32)
    left = np.matmul(some.transpose(0, 2, 1), some) + np.eye(16, dtype=np.float32)
    right = rng.normal(size=(50, 16)).astype(np.float32)
    exact = np.linalg.solve(left, right[:, :, None])[:, :, 0]
    for guess in (np.zeros_like(right), exact, rng.normal(size=right.shape).astype(np.float32)):
        found = taste._conjugate(left, right, guess)
        left_over = np.linalg.norm(np.matmul(left, found[:, :, None])[:, :, 0] - right, axis=1)
        assert (left_over <= 2 * taste._RESIDUAL * np.linalg.norm(right, axis=1)).all()
        np.testing.assert_allclose(found, exact, atol=0.01 * np.abs(exact).max())
    assert not taste._conjugate(left, np.zeros_like(right), np.zeros_like(right)).any()


def test_with_all_components_the_ridge_regression_is_that_of_ease() -> None:
    """Against the inverse itself; the last step, which departs from EASE on purpose, is undone."""
    rng = np.random.default_rng(3)
    pairs = np.argwhere(rng.random((60, 25)) < 0.3)
    ratings = small.ratings(list(pairs[:, 0] + 1), list(pairs[:, 1] + 1), [5] * len(pairs))
    facts, l2 = facts_of(ratings), 10.0
    found = taste.ridge(facts, 25, l2, seed=1)[1:].astype(np.float64)
    x = np.zeros((60, 25))
    x[tuple(pairs.T)] = 1
    inverse = np.linalg.inv(x.T @ x + l2 * np.eye(25))
    weights = inverse / -np.diag(inverse)
    mine = found @ found.T / (1 - np.sum(found**2, axis=1))
    for matrix in (weights, mine):
        np.fill_diagonal(matrix, 0)
    np.testing.assert_allclose(mine, weights, atol=1e-5)


def test_the_ridge_regression_is_right_where_users_are_fewer_than_components() -> None:
    rng = np.random.default_rng(5)
    pairs = np.argwhere(rng.random((40, 200)) < 0.2)
    facts, l2 = facts_of(small.ratings(list(pairs[:, 0] + 1), list(pairs[:, 1] + 1), [5] * len(pairs))), 20.0
    found = taste.ridge(facts, 256, l2, seed=1)[1:]
    x = np.zeros((40, 200))
    x[tuple(pairs.T)] = 1
    w, v = np.linalg.eigh(x.T @ x)
    np.testing.assert_allclose(found @ found.T, v * (w / (w + l2)) @ v.T, atol=1e-4)


def test_what_is_learned_of_some_users_is_near_what_is_learned_of_all(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = vectors(camps())
    monkeypatch.setattr(taste, "_ENOUGH", 200)  # of 400 ratings
    some = vectors(camps())
    for users, movies in (whole, some):
        scores = users @ movies.T
        assert all(scores[user, user:21:2].min() > scores[user, 3 - user : 21 : 2].max() for user in (1, 2))
    assert not np.allclose(whole[1], some[1])


def test_a_few_components_are_the_nearest_there_are_of_that_many() -> None:
    rng = np.random.default_rng(4)
    pairs = np.argwhere(rng.random((300, 200)) < np.linspace(0.02, 0.3, 200))
    facts, l2 = facts_of(small.ratings(list(pairs[:, 0] + 1), list(pairs[:, 1] + 1), [5] * len(pairs))), 50.0
    x = np.zeros((300, 200))
    x[tuple(pairs.T)] = 1
    w, v = np.linalg.eigh(x.T @ x)
    whole = v * (w / (w + l2)) @ v.T

    def miss(size: int, shown: np.ndarray) -> float:
        least = v[:, :-size] * (w[:-size] / (w[:-size] + l2)) @ v[:, :-size].T
        return float(np.linalg.norm(shown - whole) / np.linalg.norm(least))

    found = taste.ridge(facts, 40, l2, seed=1)[1:]
    assert miss(40, found @ found.T) < 1.01


def test_camps_are_told_apart() -> None:
    users, movies = vectors(camps())
    for part in (slice(0, 4), slice(4, None), slice(None)):
        scores = users[:, part] @ movies[:, part].T
        for user in (1, 2):
            same, other = scores[user, user:21:2], scores[user, 3 - user : 21 : 2]
            assert same.min() > other.max()
    assert not movies[0].any()
    assert not movies[21, :4].any()  # nobody rated it well


def test_the_scores_of_a_user_have_their_shares_as_standard_deviations() -> None:
    users, movies = vectors(camps())
    for part in (slice(0, 4), slice(4, None)):
        scores = users[:, part] @ movies[1:, part].T
        np.testing.assert_allclose(scores[1:].std(axis=1), 1 / 2, rtol=1e-3)
        assert not scores[0].any()


def test_a_user_is_the_same_to_the_last_bit_whoever_else_is_asked_for() -> None:
    rng = np.random.default_rng(7)
    pairs = np.argwhere(rng.random((900, 120)) < np.linspace(0.02, 0.4, 120))
    stars = list(rng.integers(1, 6, len(pairs)))
    facts = facts_of(small.ratings(list(pairs[:, 0] + 1), list(pairs[:, 1] + 1), stars))
    parts = taste.factors(facts, 16, L2, 1), taste.ridge(facts, 48, 10.0, 1)
    readers = taste.Readers(*parts, taste.weight(facts), L2)
    everybody = of_users(readers, facts, np.arange(facts.users.rows))
    for size in (1, 2, 7, 33, 600):
        some = rng.permutation(facts.users.rows)[:size]
        assert np.array_equal(of_users(readers, facts, some), everybody[some])


def test_the_seed_decides() -> None:
    first, again, other = (np.hstack([*map(np.ravel, vectors(camps(), seed))]) for seed in (1, 1, 2))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_one_rating_is_enough_to_go_on_with() -> None:
    for part in vectors(small.ratings([1], [1], [5])):
        assert np.isfinite(part).all()


def test_poor_ratings_count_as_choices_in_the_ridge_regression_alone() -> None:
    users, _ = vectors(small.ratings([1, 2, 2], [1, 2, 3], [1, 5, 4]))
    assert not users[1, :4].any()
    assert users[1, 4:].any()
    assert users[2, :4].any()
    assert not users[0].any()
