"""The gate: a model is used if it beats the mean rating by enough."""

import math

import pytest

from recommender import gate
from recommender.evaluate import Metric


def measured(rmse: float, mean: float = 1.1) -> list[Metric]:
    """The figures of a holdout, with others around that must not be read."""
    return [
        Metric("warm", "rmse", 9.0, 5),
        Metric("all", "rmse", rmse, 10),
        Metric("all", "mae", 9.0, 10),
        Metric("all", "mean_rmse", mean, 10),
        Metric("cold_user", "mean_rmse", 0.1, 5),
        Metric("all", "biases_rmse", 0.1, 10),
    ]


@pytest.mark.parametrize(
    ("rmse", "mean", "ratio", "accepted"),
    [(0.9, 1.0, 1.0, True), (1.0, 1.0, 1.0, True), (1.001, 1.0, 1.0, False), (0.99, 1.0, 0.98, False)],
)
def test_a_model_is_accepted_up_to_its_share_of_the_means_error(
    rmse: float, mean: float, ratio: float, accepted: bool
) -> None:
    assert gate.judge(measured(rmse, mean), ratio).accepted is accepted


@pytest.mark.parametrize("rmse", [math.nan, math.inf])
def test_an_error_that_is_no_number_is_never_accepted(rmse: float) -> None:
    assert not gate.judge(measured(rmse), 1000.0).accepted


def test_the_verdict_has_its_grounds() -> None:
    verdict = gate.judge(measured(0.9, 1.2), 0.5)
    assert (verdict.rmse, verdict.limit, verdict.baseline) == (0.9, 0.6, 1.2)
    assert verdict.message == "holdout RMSE 0.900 is over the limit 0.600 (0.5 x 1.200, the mean's)"
    assert "is within the limit" in gate.judge(measured(0.9, 1.2), 1.0).message
