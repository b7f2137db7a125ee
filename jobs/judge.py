"""Measure a candidate on the newest ratings, beside baselines and the champion's recipe, and decide whether to use it."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from jobs.inputs import Night
from jobs.lists import keys_of
from jobs.settings import Settings
from recommender import evaluate, gate, ranking
from recommender.baselines import BASELINES
from recommender.evaluate import Metric
from recommender.gate import Comparison
from recommender.ranking import Task
from recommender.ready import Ready
from recommender.split import Split
from recommender.train import Trained

_USERS = 2048
"""Most users whose lists are measured in a night."""
_BARS = ("popularity", "recent popularity")
"""The baselines that a night's lists are measured beside; `recjob evaluate` has more, which take longer."""
_FIGURES = ("ndcg@10", "recall@50", "hit_rate@10", "coverage@10")


@dataclass(frozen=True)
class Rival:
    """The champion, when its recipe is another: trained on the same part as the candidate."""

    version: str
    trained: Trained


@dataclass
class Judged:
    """What was found; rows of the tables `metrics` and `checks`."""

    metrics: list[Metric] = field(default_factory=list)
    checks: list[dict[str, Any]] = field(default_factory=list)

    @property
    def accepted(self) -> bool:
        """Whether nothing speaks against the candidate."""
        return not any(check["verdict"] == "fail" for check in self.checks)

    def add(self, name: str, found: Comparison, what: str, other: str, blocks: bool) -> None:
        """Record a comparison; a candidate that is worse fails where the check `blocks`, else it is a warning."""
        verdict = ("fail" if blocks else "warn") if found.worse else "pass"
        relation = "worse than" if found.worse else "not clearly worse than"
        message = (
            f"{what} {found.value:.4f} is {relation} {other}'s {found.other:.4f} "
            f"(95 % interval of the difference{' of squares' if what == 'RMSE' else ''}: {found.low:+.4f} to {found.high:+.4f})"
        )
        check = {"stage": "model", "check_name": name, "severity": "block" if blocks else "warn", "verdict": verdict}
        self.checks.append(check | {"value": found.value, "baseline": found.other, "message": message})


def judge(ready: Ready, rival: Rival | None, night: Night, cut: Split, settings: Settings) -> Judged:
    """Measure a model, which knows the training part of `cut`, on its validation part.

    It fails if its RMSE is over `gate.max_rmse_ratio` times that of the mean rating, or if stars or lists are worse than
    those of the champion's recipe by more than chance explains. Lists worse than the most rated movies for everybody
    are a warning, or a failure with `gate.lists = "block"`.
    """
    judged = Judged()
    if not cut.validation.num_rows:
        why = "no holdout: gate.holdout is 0, or all ratings are of one instant"
        judged.checks.append(
            {"stage": "model", "check_name": "holdout_rmse", "severity": "block", "verdict": "skipped", "message": why}
        )
        return judged
    stars = ready.predict(cut.validation)
    judged.metrics += evaluate.rating_error(stars, cut.validation, cut.train)
    for name, predicted in evaluate.baselines(cut.validation, cut.train).items():
        judged.metrics += evaluate.rating_error(predicted, cut.validation, cut.train, prefix=f"{name}_")
    _judge_stars(judged, settings)
    task = ranking.sampled(ranking.task(cut.train, cut.validation, ranking.good(cut.train)), _USERS)
    _judge_lists(judged, task, ready, cut, settings)
    if rival is not None:
        other = rival.trained.ready(cut.train, night.attributes)
        judged.add(
            "champion_rmse",
            gate.compare_stars(stars, other.predict(cut.validation), cut.validation),
            "RMSE",
            rival.version,
            True,
        )
        if len(task.users):
            mine, theirs = (_ndcg(task, _lists(task, one, cut)) for one in (ready, other))
            judged.add("champion_ndcg@10", gate.compare_lists(mine, theirs), "NDCG@10", rival.version, True)
    return judged


def _judge_stars(judged: Judged, settings: Settings) -> None:
    verdict = gate.judge(judged.metrics, settings.gate.max_rmse_ratio)
    judged.checks.append(
        {
            "stage": "model",
            "check_name": "holdout_rmse",
            "severity": "block",
            "value": verdict.rmse,
            "threshold": verdict.limit,
            "baseline": verdict.baseline,
            "verdict": "pass" if verdict.accepted else "fail",
            "message": verdict.message,
        }
    )


def _judge_lists(judged: Judged, task: Task, ready: Ready, cut: Split, settings: Settings) -> None:
    if not len(task.users):
        return
    lists = _lists(task, ready, cut)
    found = {"": lists} | {f"{name}_": ranking.lists(task, BASELINES[name](cut.train, task)) for name in _BARS}
    for prefix, listed in found.items():
        for metric in ranking.measure(task, listed, None):
            if metric.metric in _FIGURES:
                own = (metric.value, metric.n, metric.ci_low, metric.ci_high)
                judged.metrics.append(Metric(metric.segment, f"{prefix}{metric.metric}", *own))
    against = gate.compare_lists(_ndcg(task, lists), _ndcg(task, found["popularity_"]))
    judged.add("popularity_ndcg@10", against, "NDCG@10", "popularity", settings.gate.lists == "block")


def _lists(task: Task, ready: Ready, cut: Split) -> NDArray[np.int32]:
    return ready.lists(task, keys_of(task, cut.train, ready.movie_key), cut.train)


def _ndcg(task: Task, lists: NDArray[np.int32]) -> NDArray[np.float64]:
    return ranking.per_user(task, lists, 10)["ndcg"]
