"""The figures of the article, on its own data and split; and what leaves with a model: its errors, its export, its bytes."""

import hashlib
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from conftest import real_data, small_world

from recommender import evaluate, export, split, train
from recommender.config import Recipe, recipe
from recommender.train import Trained
from storage import grouplens

SMALL = {"embedding_dimension": 4, "hidden_units": (8, 4), "batch_size": 128, "epochs": 4}


def digest(trained: Trained) -> str:
    return hashlib.sha256(b"".join(weight.tobytes() for weight in trained.weights.values())).hexdigest()


def fit(chosen: Recipe, **more: object) -> Trained:
    return train.train(small_world().ratings, chosen, **more)  # type: ignore[arg-type]


def test_the_same_seed_gives_the_same_bytes_in_another_process() -> None:
    script = "import test_article as t; from recommender.config import recipe; print(t.digest(t.fit(recipe('basic', **t.SMALL))))"
    other = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=Path(__file__).parent)
    assert other.stdout.strip() == digest(fit(recipe("basic", **SMALL)))
    assert digest(fit(recipe("basic", **SMALL, seed=7))) != other.stdout.strip()


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
