"""Each baseline against the textbook, in loops or dense algebra, and on MovieLens-100k against known figures."""

import io
import math
import zipfile
from collections import Counter

import numpy as np
import pyarrow as pa
import pytest
from conftest import real_data
from numpy.typing import NDArray
from small import as_text, planted, ratings

from recommender import baselines, evaluate, ranking
from recommender.ranking import Task

TRAIN = planted(users=25, movies=18, count=220, seed=4, noise=0.9)
HELD = ratings(range(1, 26), [movie % 18 + 1 for movie in range(25)], [5.0] * 25)
TASK = ranking.task(TRAIN, HELD, 4.0)
USERS = pa.array([3, 1, 17])
GOOD = ranking.good(TRAIN)


def matrix(least: float, users: pa.Array = USERS, task: Task = TASK) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Which movies every user, and which `users`, rated `least` or better: shapes (all users, M) and (u, M)."""
    everybody = sorted(set(TRAIN["user_id"].to_pylist()))
    movies = task.movies.to_pylist()
    full = np.zeros((len(everybody), len(movies)))
    for row in TRAIN.to_pylist():
        if row["rating"] >= least:
            full[everybody.index(row["user_id"]), movies.index(row["movie_id"])] = 1
    return full, full[[everybody.index(user) for user in users.to_pylist()]]


def test_popularity_is_the_number_of_ratings() -> None:
    counts = Counter(TRAIN["movie_id"].to_pylist())
    scores = baselines.popularity(TRAIN, TASK)(USERS)
    assert scores.tolist() == [[counts[movie] for movie in TASK.movies.to_pylist()]] * 3


def test_recent_popularity_halves_in_ten_days_where_days_say_so() -> None:
    """The newest rating is of day 20. Movie 1: 1 good now; 2: 2 good ones 10 days old; 3: a bad one now, a good one of 20."""
    train = ratings(range(5), [1, 2, 2, 3, 3], [5.0, 4.0, 5.0, 1.0, 5.0], [20, 10, 10, 20, 0])
    task = ranking.task(train, train.slice(0, 0), 4.0)
    scores = baselines.recent_popularity(train, task, days=10 / math.log(2))(pa.array([1]))[0]
    found = dict(zip(task.movies.to_pylist(), scores.tolist(), strict=True))
    assert found == pytest.approx({1: 1.001, 2: 2 * 0.5 + 0.002, 3: 0.25 + 0.002})


def test_recent_popularity_takes_the_stars_it_is_told() -> None:
    train = ratings([1, 2], [1, 2], [2.0, 5.0], [0, 0])
    task = ranking.task(train, train.slice(0, 0), 4.0)
    assert baselines.recent_popularity(train, task)(USERS)[0].tolist() == pytest.approx([0.001, 1.001])
    assert baselines.recent_popularity(train, task, relevant_from=1.0)(USERS)[0].tolist() == pytest.approx(
        [1.001, 1.001]
    )


def test_biases_are_the_rating_that_biases_predict() -> None:
    scores = baselines.biases(TRAIN, TASK)(USERS)
    pairs = [(user, movie) for user in USERS.to_pylist() for movie in TASK.movies.to_pylist()]
    predicted = evaluate.biases(ratings(*zip(*pairs, strict=True), [0.0] * len(pairs)), TRAIN)
    assert np.clip(scores, 1, 5).ravel() == pytest.approx(predicted)


def test_biases_keep_the_order_of_the_best_beyond_the_scale() -> None:
    fans = [(user, movie, 5.0 if movie < 3 else 1.0) for user in range(1, 21) for movie in range(1, 22)]
    rows = [*fans, (21, 2, 5.0), *[(0, movie, 5.0) for movie in range(3, 22)]]
    train = ratings(*([row[place] for row in rows] for place in range(3)))
    task = ranking.task(train, train.slice(0, 0), 4.0)
    one, two = (int(ranking.positions(pa.array([movie]), task.movies)[0]) for movie in (1, 2))
    scores = baselines.biases(train, task)(pa.array([0]))[0]
    assert scores[two] > scores[one] > 5


def test_item_knn_is_that_of_loops() -> None:
    full, own = matrix(GOOD)
    size, kept = full.shape[1], 4
    similar = np.zeros((size, size))
    for i in range(size):
        for j in range(size):
            both = full[:, i] @ full[:, j]
            similar[i, j] = 0 if i == j else both / (math.sqrt(full[:, i].sum() * full[:, j].sum()) + 2)
    for j in range(size):
        similar[similar[:, j] < np.sort(similar[:, j])[-kept] - 1e-9, j] = 0
    scores = baselines.item_knn(TRAIN, TASK, neighbours=kept, shrink=2)(USERS)
    assert scores == pytest.approx(own @ similar, abs=1e-5)


def test_item_knn_on_all_ratings_ignores_the_stars() -> None:
    same = TRAIN.set_column(2, "rating", pa.array([3.0] * TRAIN.num_rows, pa.float32()))
    scores = baselines.item_knn(TRAIN, TASK, relevant_from=0.0)(USERS)
    assert np.array_equal(scores, baselines.item_knn(same, TASK)(USERS))


def test_movies_without_good_ratings_are_similar_to_none() -> None:
    train = ratings([1, 1, 2, 2, 2], [1, 2, 1, 2, 3], [5.0, 5.0, 5.0, 5.0, 1.0])
    task = ranking.task(train, train.slice(0, 0), 4.0)
    assert baselines.item_knn(train, task, shrink=0)(pa.array([2])).tolist() == [[1, 1, 0]]


@pytest.mark.parametrize("least", [GOOD, 2.0])
def test_ease_is_a_ridge_regression_of_each_movie_on_the_others(least: float) -> None:
    """The definition, solved column by column without the movie itself; EASE's closed form is one inverse for all."""
    full, own = matrix(least)
    size = full.shape[1]
    weights = np.zeros((size, size))
    for j in range(size):
        others = [i for i in range(size) if i != j]
        x = full[:, others]
        weights[others, j] = np.linalg.solve(x.T @ x + 3 * np.eye(size - 1), x.T @ full[:, j])
    scores = baselines.ease(TRAIN, TASK, l2=3, relevant_from=least)(USERS)
    assert scores == pytest.approx(own @ weights, abs=1e-5)


@pytest.mark.parametrize("fit", [baselines.item_knn, baselines.ease])
def test_movies_beyond_the_limit_score_nothing(fit: object) -> None:
    scores = fit(TRAIN, TASK, limit=7)(USERS)  # type: ignore[operator]
    assert (scores[:, 7:] == 0).all()
    assert (scores[:, :7] != 0).any()


def test_the_five_are_named_in_order_of_effort() -> None:
    assert list(baselines.BASELINES) == ["popularity", "recent popularity", "biases", "item-kNN", "EASE"]


@pytest.mark.parametrize("name", baselines.BASELINES)
def test_every_baseline_knows_what_to_do_with_a_user_it_does_not_know(name: str) -> None:
    scores = baselines.BASELINES[name](TRAIN, TASK)(pa.array([999, 1]))
    assert scores.shape == (2, len(TASK.movies))
    assert np.isfinite(scores).all()
    if name in ("item-kNN", "EASE"):
        assert (scores[0] == 0).all()


@pytest.mark.parametrize("name", baselines.BASELINES)
def test_ids_may_be_text(name: str) -> None:
    text = ranking.task(as_text(TRAIN), as_text(HELD), 4.0)
    by_text = baselines.BASELINES[name](as_text(TRAIN), text)(pa.array(["u3"]))[0]
    by_number = baselines.BASELINES[name](TRAIN, TASK)(pa.array([3]))[0]
    found = {f"m{movie}": score for movie, score in zip(TASK.movies.to_pylist(), by_number.tolist(), strict=True)}
    assert dict(zip(text.movies.to_pylist(), by_text.tolist(), strict=True)) == pytest.approx(found, abs=1e-6)


def test_those_with_a_history_tell_two_tastes_apart_and_popularity_does_not() -> None:
    """Even users like even movies, odd users odd ones; each holds one of ten back."""
    liked = [(user, 2 * movie + user % 2, (user + movie) % 10 == 0) for user in range(40) for movie in range(10)]
    train, held = (
        ratings([row[0] for row in liked if row[2] is part], [row[1] for row in liked if row[2] is part], [5.0] * size)
        for part, size in ((False, 360), (True, 40))
    )
    task = ranking.task(train, held, 4.0)
    hit_rate = {
        name: ranking.per_user(task, ranking.lists(task, fit(train, task), n=1), 1)["hit_rate"].mean()
        for name, fit in baselines.BASELINES.items()
    }
    assert hit_rate["item-kNN"] == hit_rate["EASE"] == 1
    assert hit_rate["popularity"] < 0.6


def test_movielens_100k_has_the_known_figures() -> None:
    """NDCG@10 and recall@50 on a random fifth of u.data, drawn in the file's order; relevant from 4 stars."""
    with zipfile.ZipFile(real_data("ml-100k.zip")) as zipped:
        rows = np.loadtxt(io.BytesIO(zipped.read("ml-100k/u.data")), dtype=np.int64)
    order = np.random.default_rng(0).permutation(len(rows))
    train, held = (ratings(*rows[part, :3].T.tolist()) for part in (order[:80_000], order[80_000:]))
    task = ranking.task(train, held, 4.0)
    expected = {"popularity": (0.179, 0.346), "item-kNN": (0.331, 0.554), "EASE": (0.379, 0.587)}
    scorers = {name: baselines.BASELINES[name](train, task) for name in ("popularity", "item-kNN")}
    scorers["EASE"] = baselines.ease(train, task, l2=400)
    for name, scorer in scorers.items():
        lists = ranking.lists(task, scorer)
        found = ranking.per_user(task, lists, 10)["ndcg"].mean(), ranking.per_user(task, lists, 50)["recall"].mean()
        assert found == pytest.approx(expected[name], abs=0.001)
    assert ranking.beyond_accuracy(task, lists, train, 10)["coverage"] == pytest.approx(0.16, abs=0.001)
