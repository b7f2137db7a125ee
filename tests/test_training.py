"""Models and training: the contract of every model file, the article's figures, and the same bytes whatever happens."""

import hashlib
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from conftest import real_data, small_world

from recommender import evaluate, export, models, split, train
from recommender.config import RECIPES, Recipe, recipe
from recommender.errors import InvalidModel, TrainingDiverged
from recommender.tensorflow import tf
from recommender.train import Arrays, Trained
from storage import grouplens

SMALL = {"embedding_dimension": 4, "hidden_units": (8, 4), "batch_size": 128, "epochs": 4}


class Kept:
    """Checkpoints in memory; `cut_after` epochs the process 'dies'."""

    def __init__(self, cut_after: int = 0) -> None:
        self.state: Arrays | None = None
        self.cut_after = cut_after

    def load(self) -> Arrays | None:
        return self.state

    def save(self, state: Arrays) -> None:
        self.state = state
        if len(state["history"]) == self.cut_after:
            raise KeyboardInterrupt


def digest(trained: Trained) -> str:
    return hashlib.sha256(b"".join(weight.tobytes() for weight in trained.weights.values())).hexdigest()


def fit(chosen: Recipe, **more: object) -> Trained:
    return train.train(small_world().ratings, chosen, **more)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", RECIPES)
def test_every_model_keeps_the_contract(name: str) -> None:
    model = models.build(recipe(name, embedding_dimension=4, hidden_units=(8, 4)).model, users=6, movies=9)
    user, movie = (grid.ravel().astype(np.int32) for grid in np.meshgrid(np.arange(6), np.arange(9), indexing="ij"))
    pairs = {"user": tf.constant(user), "movie": tf.constant(movie)}
    called = model.call(pairs)
    users, movies = model.encode_users(tf.range(6)), model.encode_movies(tf.range(9))
    assert called.shape == (54,)
    assert (users.shape[0], movies.shape[0]) == (6, 9)
    np.testing.assert_allclose(model.score_grid(users, movies).numpy().ravel(), called.numpy(), atol=1e-5)
    with tf.GradientTape() as tape:
        loss = model.compute_loss({**pairs, "rating": tf.ones(54)}, training=True)
    assert loss.shape == ()
    assert all(gradient is not None for gradient in tape.gradient(loss, model.trainable_variables))


def test_parameters_are_counted_as_by_hand() -> None:
    trained = fit(recipe("basic", **SMALL))
    assert trained.parameters == 41 * 4 + 31 * 4 + (8 * 8 + 8) + (8 * 4 + 4) + (4 + 1)


def test_the_same_seed_gives_the_same_bytes_in_another_process() -> None:
    script = "import test_training as t; from recommender.config import recipe; print(t.digest(t.fit(recipe('basic', **t.SMALL))))"
    other = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=Path(__file__).parent)
    assert other.stdout.strip() == digest(fit(recipe("basic", **SMALL)))
    assert digest(fit(recipe("basic", **SMALL, seed=7))) != other.stdout.strip()


@pytest.mark.parametrize("patience", [0, 2])
@pytest.mark.parametrize("cut_after", [1, 3])
def test_training_that_was_cut_off_ends_in_the_same_bytes(cut_after: int, patience: int) -> None:
    chosen = recipe("basic", **SMALL, patience=patience)
    held = split.newest(small_world().ratings, 0.2)
    kept = Kept(cut_after)
    with pytest.raises(KeyboardInterrupt):
        train.train(held.train, chosen, holdout=held.validation, checkpoints=kept)
    kept.cut_after = 0
    resumed = train.train(held.train, chosen, holdout=held.validation, checkpoints=kept)
    whole = train.train(held.train, chosen, holdout=held.validation)
    assert digest(resumed) == digest(whole)
    assert resumed.history == whole.history


def test_patience_keeps_the_best_epoch() -> None:
    held = split.newest(small_world().ratings, 0.2)
    trained = train.train(held.train, recipe("basic", **SMALL | {"epochs": 200}, patience=2), holdout=held.validation)
    errors = [epoch.holdout_rmse or 0 for epoch in trained.history]
    assert len(errors) < 200
    assert len(errors) - 1 - int(np.argmin(errors)) == 2
    error = trained.model.call(train.encode(held.validation, trained.users, trained.movies, "movie_id")).numpy()
    measured = float(np.sqrt(np.mean((error - held.validation["rating"].to_numpy()) ** 2)))
    assert measured == pytest.approx(min(errors), abs=1e-5)


def test_a_loss_that_explodes_is_an_error_with_the_place() -> None:
    with pytest.raises(TrainingDiverged, match="epoch 1"):
        fit(recipe("basic", **SMALL, learning_rate=1e30))


def test_weights_of_another_shape_are_refused() -> None:
    trained = fit(recipe("basic", **SMALL))
    weights = trained.weights | {"weight/000": trained.weights["weight/000"][:-1]}
    broken = Trained(trained.recipe, trained.users, trained.movies, trained.rating_scale, weights)
    with pytest.raises(InvalidModel, match="expected"):
        _ = broken.model


def test_a_model_learns_what_there_is_to_learn() -> None:
    held = split.newest(small_world(users=60, movies=40, ratings=2000).ratings, 0.2)
    chosen = recipe("basic", **SMALL | {"epochs": 30}, optimizer="adam", learning_rate=0.01)
    trained = train.train(held.train, chosen)
    figures = evaluate.rating_error(trained.predict(held.validation), held.validation, held.train)
    mean = evaluate.rating_error(evaluate.baselines(held.validation, held.train)["mean"], held.validation, held.train)
    assert figures[0].value < 0.8 * mean[0].value


def test_errors_are_measured_as_by_hand() -> None:
    at = pa.array(np.arange(4), pa.timestamp("us", "UTC"))
    held = pa.table({"user_id": [1, 1, 2, 9], "movie_id": [1, 8, 2, 1], "rating": [5.0, 3.0, 1.0, 2.0], "rated_at": at})
    known = pa.table({"user_id": [1, 2], "movie_id": [1, 2], "rating": [4.0, 2.0], "rated_at": at[:2]})
    found = {
        (m.segment, m.metric): (m.value, m.n) for m in evaluate.rating_error(np.full(4, 3.0, np.float32), held, known)
    }
    assert found["all", "rmse"] == (pytest.approx((9 / 4) ** 0.5), 4)
    assert found["warm", "mae"] == (2.0, 2)
    assert found["cold_user", "rmse"] == (1.0, 1)
    assert found["cold_movie", "rmse"] == (0.0, 1)


@pytest.mark.slow
def test_the_exported_model_answers_as_the_scorer_does(tmp_path: Path) -> None:
    trained = fit(recipe("basic", **SMALL))
    assert export.saved_model(trained, tmp_path / "saved") == ["user_id", "movie_id"]
    script = (
        f"import sys, tensorflow as tf\nserved = tf.saved_model.load({str(tmp_path / 'saved')!r}).signatures['serving_default']\n"
        "answer = served(user_id=tf.constant(['1', '2', 'nobody']), movie_id=tf.constant(['3', '4', '5']))\n"
        "print(answer['predicted_rating'].numpy().tolist(), 'tensorflow_recommenders' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    at = pa.array([0, 0, 0], pa.timestamp("us", "UTC"))
    asked = pa.table({"user_id": [1, 2, -1], "movie_id": [3, 4, 5], "rating": [0.0, 0.0, 0.0], "rated_at": at})
    numbers, loaded = done.stdout.rsplit(" ", 1)
    np.testing.assert_allclose(np.array(eval(numbers)), trained.predict(asked), atol=1e-5)
    assert loaded.strip() == "False"


def article(name: str) -> dict[str, float]:
    """RMSE of an article's model on its own split: movies by title, vocabularies over the whole file."""
    world = grouplens.read_zip(real_data("ml-100k.zip"))
    assert world.movies is not None
    titles = dict(zip(world.movies["movie_id"].to_pylist(), world.movies["title"].to_pylist(), strict=True))
    rated = world.ratings.append_column(
        "title", pa.array([titles[movie] for movie in world.ratings["movie_id"].to_pylist()])
    )
    cut = split.time_range(rated)
    assert [part.num_rows for part in (cut.train, cut.validation, cut.test)] == [65_336, 15_778, 18_886]
    trained = train.train(
        cut.train, recipe(name, movie_key="title"), vocabularies=train.vocabularies_of(rated, "title")
    )
    assert trained.parameters == 116_641
    parts = {"validation": cut.validation, "test": cut.test}
    measured = {
        key: evaluate.rating_error(trained.predict(part), part, cut.train)[0].value for key, part in parts.items()
    }
    return {"train": trained.history[-1].train_rmse, **measured}


def test_basic_reproduces_the_article() -> None:
    assert article("basic") == pytest.approx({"train": 1.11, "validation": 1.13, "test": 1.12}, abs=0.02)


@pytest.mark.slow
def test_tuned_reproduces_the_article() -> None:
    assert article("tuned") == pytest.approx({"train": 0.92, "validation": 1.05, "test": 1.04}, abs=0.03)
