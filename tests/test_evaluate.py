"""Errors and baselines against figures worked out by hand."""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pytest
from small import as_text, planted, ratings, rmse

from recommender import evaluate, split
from recommender.evaluate import Metric

TRAIN = ratings([1, 1, 2], [10, 20, 10], [5.0, 3.0, 1.0])
HELD = ratings([1, 2, 9, 1, 9], [10, 20, 10, 99, 99], [4.0, 2.0, 5.0, 1.0, 3.0])
PREDICTED = np.array([3.0, 4.0, 5.0, 4.0, 1.0], np.float32)  # off by -1, 2, 0, 3, -2


def found(predicted: Sequence[float], held: pa.Table, prefix: str = "") -> dict[tuple[str, str], Metric]:
    metrics = evaluate.rating_error(np.asarray(predicted, np.float32), held, TRAIN, prefix)
    return {(metric.segment, metric.metric): metric for metric in metrics}


@pytest.mark.parametrize(
    ("segment", "off"),
    [("all", [1, 2, 0, 3, 2]), ("warm", [1, 2]), ("cold_user", [0, 2]), ("cold_movie", [3, 2])],
)
def test_errors_of_each_segment_are_those_by_hand(segment: str, off: list[int]) -> None:
    metrics = found(PREDICTED, HELD)
    assert metrics[segment, "rmse"].value == pytest.approx((sum(x * x for x in off) / len(off)) ** 0.5)
    assert metrics[segment, "mae"].value == pytest.approx(sum(off) / len(off))
    assert metrics[segment, "rmse"].n == metrics[segment, "mae"].n == len(off)


def test_a_segment_without_ratings_has_no_figure() -> None:
    assert {segment for segment, _ in found([3.0], HELD.slice(0, 1))} == {"all", "warm"}
    assert found([], HELD.slice(0, 0)) == {}


def test_a_prefix_tells_baselines_from_the_model() -> None:
    assert {metric for _, metric in found(PREDICTED, HELD, "mean_")} == {"mean_rmse", "mean_mae"}


def test_segments_are_found_for_ids_as_text() -> None:
    metrics = evaluate.rating_error(PREDICTED, as_text(HELD), as_text(TRAIN))
    assert [(m.segment, m.n) for m in metrics if m.metric == "rmse"] == [
        ("all", 5),
        ("warm", 2),
        ("cold_user", 2),
        ("cold_movie", 2),
    ]


def test_biases_are_those_by_hand() -> None:
    """Mean 3. Movie 10: (2 - 2) / (2 + 5) = 0; movie 20: 0. User 1: (2 + 0) / 7; user 2: -2 / 6."""
    expected = [3 + 2 / 7, 3 - 2 / 6, 3, 3 + 2 / 7, 3]
    assert evaluate.biases(HELD, TRAIN).tolist() == pytest.approx(expected)


def test_a_users_bias_is_taken_from_what_the_movies_leave() -> None:
    """Mean 4. Movie 1: (0 + 1) / 7, movie 2: -1 / 6. Users: (0 - 1/7) / 6, (1 - 1/7) / 6, (-1 + 1/6) / 6."""
    train = ratings([1, 2, 3], [1, 1, 2], [4.0, 5.0, 3.0])
    expected = [4 + 1 / 7 - 1 / 42, 4 + 1 / 7 + 1 / 7, 4 - 1 / 6 - 5 / 36]
    assert evaluate.biases(train, train).tolist() == pytest.approx(expected)


def test_biases_stay_on_the_scale_of_training() -> None:
    """Twenty users love movie 1 and no other; user 0 loves all others: by the sum, 7.3 stars."""
    fans = [(user, movie, 5.0 if movie == 1 else 1.0) for user in range(1, 21) for movie in range(1, 22)]
    rows = [*fans, *[(0, movie, 5.0) for movie in range(2, 22)]]
    train = ratings(*([row[place] for row in rows] for place in range(3)))
    assert evaluate.biases(ratings([0], [1], [5.0]), train).tolist() == [5.0]


def test_the_mean_baseline_is_the_mean_of_training_for_everything() -> None:
    assert evaluate.baselines(HELD, TRAIN)["mean"].tolist() == [3.0] * 5


def test_biases_beat_the_mean_where_users_and_movies_have_them() -> None:
    cut = split.random(planted(), seed=1)
    guesses = evaluate.baselines(cut.test, cut.train)
    assert rmse(guesses["biases"], cut.test) < 0.6 * rmse(guesses["mean"], cut.test)
