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
    assert {segment for segment, _ in found([3.0], HELD.slice(0, 1))} == {"all", "warm", "light_user"}
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
        ("light_user", 3),
    ]


def test_known_users_are_light_medium_or_heavy_by_their_training_ratings() -> None:
    """Users 1 to 4 have 19, 20, 99 and 100 training ratings, user 5 none; each is held out once, off by its own number."""
    activity = {1: 19, 2: 20, 3: 99, 4: 100}
    pairs = [(user, movie) for user, count in activity.items() for movie in range(count)]
    train = ratings(*zip(*pairs, strict=True), [3.0] * len(pairs))
    held = ratings([1, 2, 3, 4, 5], [500] * 5, [3.0] * 5)
    metrics = evaluate.rating_error(np.array([4, 5, 6, 7, 8], np.float32), held, train)
    by_activity = {m.segment: (m.value, m.n) for m in metrics if m.metric == "mae" and m.segment.endswith("_user")}
    assert by_activity == {"cold_user": (5, 1), "light_user": (1, 1), "medium_user": (2.5, 2), "heavy_user": (4, 1)}


def test_the_first_figure_is_the_rmse_of_all() -> None:
    metrics = evaluate.rating_error(PREDICTED, HELD, TRAIN)
    assert [(m.segment, m.metric) for m in metrics[:2]] == [("all", "rmse"), ("all", "mae")]


def test_intervals_draw_users_with_all_their_ratings() -> None:
    """200 users with 50 ratings each, off by 1 for half of the users and by 0 for the others.

    The mean is 1/2 and its deviation over users sqrt(1/4 / 200) = 0.035; over 10,000 ratings it would be 0.005.
    """
    users = np.repeat(np.arange(200), 50)
    held = ratings(users.tolist(), np.tile(np.arange(50), 200).tolist(), [3.0] * 10_000)
    metrics = evaluate.rating_error((3 + users % 2).astype(np.float32), held, held)
    rmse, mae = metrics[:2]
    assert (rmse.value, mae.value) == pytest.approx((0.5**0.5, 0.5))
    assert mae.ci_low == pytest.approx(0.5 - 1.96 * 0.0354, abs=0.01)
    assert mae.ci_high == pytest.approx(0.5 + 1.96 * 0.0354, abs=0.01)
    assert mae.ci_low is not None
    assert rmse.ci_low == pytest.approx(mae.ci_low**0.5)


def test_intervals_are_those_of_a_plain_bootstrap(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(1)
    sums, counts = rng.random((30, 2)), rng.integers(1, 5, (30, 2)).astype(float)
    draws = np.random.default_rng(7).integers(0, 30, (500, 30))
    figures = [sums[drawn].sum(axis=0) / counts[drawn].sum(axis=0) for drawn in draws]
    expected = np.quantile(figures, [0.025, 0.975], axis=0)
    assert np.allclose(evaluate.intervals(sums, counts, seed=7, resamples=500), expected)
    monkeypatch.setattr(evaluate, "_CELLS", 100)
    assert np.allclose(evaluate.intervals(sums, counts, seed=7, resamples=500), expected)


def test_a_draw_without_the_segment_says_nothing() -> None:
    """One of three users has the segment: where it is drawn the figure is 2, else there is none."""
    low, high = evaluate.intervals(np.array([[4.0], [0], [0]]), np.array([[2.0], [0], [0]]))
    assert (low[0], high[0]) == (2, 2)


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
