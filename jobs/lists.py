"""Measure the lists of a trained model, beside those of the baselines."""

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from recommender import ranking
from recommender.baselines import BASELINES
from recommender.ranking import Task
from recommender.ready import Ready

FIGURES = (
    *(f"{name}@10" for name in ("ndcg", "recall", "hit_rate", "mrr", "map")),
    *("ndcg@50", "recall@50"),
    *(f"{name}@10" for name in ("coverage", "novelty", "gini", "diversity")),
)
"""What is told of each: figures of `ranking.measure`."""


def measure(ready: Ready, train: pa.Table, held: pa.Table, relevant_from: float) -> dict[str, dict[str, Any]]:
    """Figures of the model and of each baseline: value, users n, and the interval where there is one.

    `train` is what the model and the baselines learn from. Relevant are ratings in `held` of `relevant_from` stars or more.
    Empty where nobody can be measured.
    """
    task = ranking.task(train, held, relevant_from)
    if not len(task.users):
        return {}
    found = {"model": _figures(task, ready.lists(task, keys_of(task, train, ready.movie_key), train), train)}
    for name, baseline in BASELINES.items():
        found[name] = _figures(task, ranking.lists(task, baseline(train, task)), train)
    return found


def keys_of(task: Task, train: pa.Table, movie_key: str) -> pa.Array:
    """What a model knows the task's movies by, shape (M,): ids, or their titles in `train`."""
    if movie_key == "movie_id":
        return task.movies
    first = train.group_by("movie_id").aggregate([(movie_key, "min")])
    at = pc.index_in(task.movies, value_set=first["movie_id"].combine_chunks())
    return first[f"{movie_key}_min"].combine_chunks().take(at)


def _figures(task: Task, listed: NDArray[np.int32], train: pa.Table) -> dict[str, Any]:
    told = {metric.metric: metric for metric in ranking.measure(task, listed, train)}
    found: dict[str, Any] = {}
    for name in FIGURES:
        if name in told:
            metric = told[name]
            found[name] = {"value": metric.value, "n": metric.n}
            if metric.ci_low is not None:
                found[name] |= {"ci_low": metric.ci_low, "ci_high": metric.ci_high}
    return found
