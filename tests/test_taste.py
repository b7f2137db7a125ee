"""The closed-form partner: what it finds is the least of its own objective, and it tells two camps apart."""

import numpy as np
import pyarrow as pa
import small

from recommender import taste
from recommender.known import Known, known
from recommender.vocabulary import Vocabulary


def facts_of(ratings: pa.Table) -> Known:
    return known(ratings, Vocabulary.of(ratings["user_id"]), Vocabulary.of(ratings["movie_id"]))


def camps() -> pa.Table:
    """Even users love even movies and odd ones odd movies; the movies of the other kind they rate low. Movie 21: nobody's."""
    pairs = [(user, movie) for user in range(1, 31) for movie in range(1, 21) if (user * 7 + movie * 3) % 5]
    stars = [5 if user % 2 == movie % 2 else 2 for user, movie in pairs]
    return small.ratings([*(u for u, _ in pairs), 1], [*(m for _, m in pairs), 21], [*stars, 1])


def test_the_vectors_of_users_are_the_least_of_the_objective() -> None:
    facts, l2 = facts_of(camps()), 0.03
    factors = taste.fit(facts, 4, l2, seed=1)
    own = taste._solve(factors, facts.starts, facts.movie, l2)  # as if every rating were good

    def objective(user: int, vector: np.ndarray) -> float:
        rated = facts.movie[facts.starts[user] : facts.starts[user + 1]]
        fit = np.sum((factors[rated] @ vector - 1) ** 2) + 0.1 * np.sum((factors @ vector) ** 2)
        return float(fit + l2 * (len(rated) + 0.1 * len(factors)) * vector @ vector)

    rng = np.random.default_rng(0)
    for user in (1, 2, 30):
        least = objective(user, own[user].astype(np.float64))
        assert all(objective(user, own[user] + rng.normal(0, 0.01, 4)) > least for _ in range(20))


def test_camps_are_told_apart_and_what_nobody_likes_has_no_factors() -> None:
    facts = facts_of(camps())
    factors = taste.fit(facts, 4, 0.03, seed=1)
    scores = taste.of_users(factors, facts, 0.03) @ factors.T
    for user in (1, 2):
        same, other = scores[user, user:21:2], scores[user, 3 - user : 21 : 2]
        assert same.min() > other.max()
    assert not factors[[0, 21]].any()


def test_the_scores_of_a_user_have_standard_deviation_one() -> None:
    facts = facts_of(camps())
    factors = taste.fit(facts, 4, 0.03, seed=1)
    scores = taste.of_users(factors, facts, 0.03) @ factors[1:].T
    np.testing.assert_allclose(scores[1:].std(axis=1), 1, rtol=1e-3)
    assert not scores[0].any()


def test_the_seed_decides() -> None:
    facts = facts_of(camps())
    first = taste.fit(facts, 4, 0.03, seed=1)
    assert np.array_equal(first, taste.fit(facts, 4, 0.03, seed=1))
    assert not np.array_equal(first, taste.fit(facts, 4, 0.03, seed=2))


def test_one_rating_is_enough_to_go_on_with() -> None:
    facts = facts_of(small.ratings([1], [1], [5]))
    factors = taste.fit(facts, 4, 0.03, seed=1)
    assert np.isfinite(factors).all()
    assert np.isfinite(taste.of_users(factors, facts, 0.03)).all()
