"""The verdict on a freshly trained model: may it be used?"""

from collections.abc import Sequence
from dataclasses import dataclass

from recommender.evaluate import Metric


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
