"""The verdict on a freshly trained model: may it be used?"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from recommender.evaluate import Metric
from recommender.ranking import paired
from recommender.vocabulary import Vocabulary


@dataclass(frozen=True)
class Verdict:
    """What was decided, and on what grounds; errors in stars."""

    accepted: bool
    rmse: float
    limit: float
    baseline: float
    """RMSE of predicting the mean rating for everything."""
    message: str


def judge(metrics: Sequence[Metric], max_rmse_ratio: float) -> Verdict:
    """Accept a model whose holdout RMSE is at most `max_rmse_ratio` times that of the mean rating."""
    by_name = {metric.metric: metric.value for metric in metrics if metric.segment == "all"}
    rmse, baseline = by_name["rmse"], by_name["mean_rmse"]
    limit = max_rmse_ratio * baseline
    accepted = rmse <= limit
    relation = "within" if accepted else "over"
    message = (
        f"holdout RMSE {rmse:.3f} is {relation} the limit {limit:.3f} ({max_rmse_ratio:g} x {baseline:.3f}, the mean's)"
    )
    return Verdict(accepted, rmse, limit, baseline, message)


@dataclass(frozen=True)
class Comparison:
    """A figure of a model beside that of another on the same users."""

    value: float
    other: float
    difference: float
    low: float
    """Lower end of the 95 % bootstrap interval of the difference, over users."""
    high: float
    worse: bool
    """Whether the model is worse by more than chance explains: the whole interval is on the wrong side of 0."""


def compare_lists(model: NDArray[np.float64], other: NDArray[np.float64]) -> Comparison:
    """Figures per user (U,) of which more is better, e.g. NDCG, beside those of another model."""
    difference, low, high = paired(model, other, np.arange(len(model), dtype=np.int32))
    return Comparison(float(model.mean()), float(other.mean()), difference, low, high, high < 0)


def compare_stars(model: NDArray[np.float32], other: NDArray[np.float32], held: pa.Table) -> Comparison:
    """RMSE of predictions (rows of `held`,) beside those of another model; the interval is of squared errors, by user."""
    stars = held["rating"].to_numpy().astype(np.float64)
    mine, theirs = np.square(model - stars), np.square(other - stars)
    _, low, high = paired(mine, theirs, Vocabulary.of(held["user_id"]).encode(held["user_id"]) - 1)
    value, compared = float(np.sqrt(mine.mean())), float(np.sqrt(theirs.mean()))
    return Comparison(value, compared, value - compared, low, high, low > 0)
