"""The SavedModel answers as the model does, to text, in a process that has only TensorFlow."""

import dataclasses
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from small import as_text, ids, planted, random_model, ratings

from recommender import export
from recommender.tensorflow import tf
from recommender.train import Trained

ASK = """
import json, sys
import tensorflow as tf
served = tf.saved_model.load(sys.argv[1]).signatures["serving_default"]
answer = served(**{name: tf.constant(values) for name, values in json.loads(sys.argv[2]).items()})
found = {name: values.numpy().tolist() for name, values in answer.items()}
print(json.dumps([found, "tensorflow_recommenders" in sys.modules, "recommender" in sys.modules]))
"""


def ask_elsewhere(folder: Path, question: dict[str, list[str]]) -> Any:
    """Load and ask the model in a fresh process, far from this project."""
    command = [sys.executable, "-I", "-c", ASK, str(folder), json.dumps(question)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=folder.parent, timeout=120)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def served(folder: Path, **question: list[str]) -> Any:
    """Load and ask the model here: stars."""
    answer = tf.saved_model.load(str(folder)).signatures["serving_default"]
    return answer(**{name: tf.constant(values) for name, values in question.items()})["predicted_rating"].numpy()


def text_of(column: Any) -> list[str]:
    return [str(value) for value in column.to_pylist()]


def unclipped(model: Trained) -> Trained:
    """The same model on a scale so wide that clipping hides no difference."""
    return dataclasses.replace(model, rating_scale=(-99.0, 99.0))


@pytest.fixture
def trained() -> Trained:
    return unclipped(random_model(planted()["user_id"], planted()["movie_id"], seed=4))


def test_the_served_model_predicts_as_the_trained_one_where_nothing_else_is_installed(
    trained: Trained, tmp_path: Path
) -> None:
    asked = planted().slice(0, 200)
    assert export.saved_model(trained.ready(planted()), tmp_path / "served") == ["user_id", "movie_id"]
    question = {"user_id": text_of(asked["user_id"]), "movie_id": text_of(asked["movie_id"])}
    found, *loaded = ask_elsewhere(tmp_path / "served", question)
    assert list(found) == ["predicted_rating"]
    np.testing.assert_allclose(found["predicted_rating"], trained.ready(asked).predict(asked), atol=1e-5)
    assert loaded == [False, False]


def test_ids_it_does_not_know_are_answered_by_row_0(trained: Trained, tmp_path: Path) -> None:
    export.saved_model(trained.ready(planted()), tmp_path / "served")
    stars = served(tmp_path / "served", user_id=["1", "?", "", "01"], movie_id=["-7", "1", "é", "1"])
    expected = trained.ready(planted()).predict(ratings([1, -1, -1, -1], [-7, 1, -7, 1], [0.0] * 4))
    np.testing.assert_allclose(stars, expected, atol=1e-5)


def test_ids_as_text_and_beyond_ascii_are_looked_up(tmp_path: Path) -> None:
    table = as_text(planted())
    users, movies = ids(["ü1", "用户", "u"]), table["movie_id"]
    trained = unclipped(random_model(users, movies, seed=5))
    export.saved_model(trained.ready(planted()), tmp_path / "served")
    asked = ratings(["用户", "ü1", "u"], ["m1", "m2", "m3"], [0.0] * 3)
    stars = served(tmp_path / "served", user_id=["用户", "ü1", "u"], movie_id=["m1", "m2", "m3"])
    np.testing.assert_allclose(stars, trained.ready(asked).predict(asked), atol=1e-5)
    assert len(set(stars.tolist())) == 3


def test_a_model_that_knows_titles_asks_for_titles(tmp_path: Path) -> None:
    trained = unclipped(random_model(ids([1, 2]), ids(["Heat (1995)", "Léon (1994)"]), seed=6, movie_key="title"))
    assert export.saved_model(trained.ready(planted()), tmp_path / "served") == ["user_id", "movie_title"]
    asked = ratings([1, 2], [1, 2], [0.0, 0.0]).append_column("title", [["Léon (1994)", "Heat (1995)"]])
    stars = served(tmp_path / "served", user_id=["1", "2"], movie_title=["Léon (1994)", "Heat (1995)"])
    np.testing.assert_allclose(stars, trained.ready(asked).predict(asked), atol=1e-5)


def test_stars_stay_on_the_scale_and_an_empty_question_has_an_empty_answer(trained: Trained, tmp_path: Path) -> None:
    export.saved_model(dataclasses.replace(trained, rating_scale=(1.0, 5.0)).ready(planted()), tmp_path / "served")
    asked = planted()
    stars = served(tmp_path / "served", user_id=text_of(asked["user_id"]), movie_id=text_of(asked["movie_id"]))
    assert (stars.min(), stars.max()) == (1, 5)
    empty = tf.saved_model.load(str(tmp_path / "served")).signatures["serving_default"]
    answer = empty(user_id=tf.zeros([0], tf.string), movie_id=tf.zeros([0], tf.string))
    assert answer["predicted_rating"].shape == (0,)
