"""A model's lists measured on a real small world, beside the baselines."""

import json
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from small import as_text, ids, planted, random_model, ratings

from jobs import evaluate, lists, show_experiments
from jobs.settings import Settings
from recommender import ranking, split
from recommender.baselines import BASELINES
from recommender.tensorflow import tf

CUT = split.random(planted(), seed=1)


def test_evaluate_has_figures_for_the_model_and_each_baseline(settings: Settings) -> None:
    figures = evaluate.evaluate(settings, "basic", "time-range")  # movies by title
    assert list(figures["lists"]) == ["model", *BASELINES]
    users = {figure["n"] for found in figures["lists"].values() for figure in found.values()}
    assert len(users) == 1
    for found in figures["lists"].values():
        assert tuple(found) == lists.FIGURES
        assert all(0 <= figure["value"] <= 1 for name, figure in found.items() if name != "novelty@10")
        with_ends = [figure for figure in found.values() if "ci_low" in figure]
        assert len(with_ends) == 7
        assert all(figure["ci_low"] <= figure["value"] <= figure["ci_high"] for figure in with_ends)
    assert json.loads(json.dumps(figures["lists"], allow_nan=False)) == figures["lists"]
    told = show_experiments.evaluation(figures).splitlines()
    (head,) = (at for at, line in enumerate(told) if line.startswith("lists "))
    assert [line.split("  ")[0] for line in told[head + 1 : head + 7]] == ["model", *BASELINES]
    assert f"{figures['lists']['model']['ndcg@10']['value']:.4f}" in told[head + 1]


def test_lists_are_left_out_where_they_are_not_wanted(settings: Settings) -> None:
    figures = evaluate.evaluate(settings, "basic", "newest", lists=False)
    assert "lists" not in figures
    assert "NDCG" not in show_experiments.evaluation(figures)


def test_nobody_to_measure_is_told() -> None:
    trained = random_model(CUT.train["user_id"], CUT.train["movie_id"])
    assert lists.measure(trained.ready(CUT.train), CUT.train, CUT.test, 6.0) == {}
    assert lists.measure(trained.ready(CUT.train), CUT.train, CUT.test.slice(0, 0), 4.0) == {}


@pytest.mark.parametrize("change", [lambda table: table, as_text])
def test_scores_are_those_of_the_models_forward_pass(change: Any) -> None:
    train = change(CUT.train)
    task = ranking.task(train, change(CUT.test), 4.0)
    trained = random_model(train["user_id"], train["movie_id"])
    users, movies = trained.users.encode(task.users), trained.movies.encode(task.movies)
    pairs = {"user": np.repeat(users, len(movies)), "movie": np.tile(movies, len(users))}
    forward = trained.model.call({key: tf.constant(rows) for key, rows in pairs.items()}).numpy()
    scores = trained.ready(train).scorer(task.movies)(task.users)
    assert scores.shape == (len(users), len(movies))
    assert np.allclose(scores, forward.reshape(scores.shape), rtol=1e-5, atol=1e-5)


def test_a_movie_the_model_does_not_know_is_not_listed_and_an_unknown_user_gets_the_most_rated() -> None:
    task = ranking.task(CUT.train, CUT.test, 4.0)
    stranger, new = task.users[0], task.movies[3]
    kept = CUT.train.filter(
        pc.and_(pc.not_equal(CUT.train["user_id"], stranger), pc.not_equal(CUT.train["movie_id"], new))
    )
    trained = random_model(kept["user_id"], kept["movie_id"])
    scores = trained.ready(kept).scorer(task.movies)(task.users)
    assert np.flatnonzero(np.isneginf(scores).all(axis=0)).tolist() == [3]
    assert np.isfinite(np.delete(scores, 3, axis=1)).all()
    assert not np.delete(scores[0], 3).any()


def test_movies_are_known_by_the_titles_of_the_ratings() -> None:
    train = ratings([1, 1, 2, 2], [10, 20, 20, 30], [5.0, 3.0, 4.0, 5.0])
    train = train.append_column("title", pa.array(["ten", "twenty", "twenty", "thirty"]))
    task = ranking.task(train, ratings([1], [30], [5.0]), 4.0)
    assert task.movies == ids([20, 10, 30])
    assert lists.keys_of(task, train, "title").to_pylist() == ["twenty", "ten", "thirty"]
    assert lists.keys_of(task, train, "movie_id") == task.movies
