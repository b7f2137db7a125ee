"""How much of choice, taste and stars the ranking is by: decided on ratings held out, as the lists are measured."""

from collections.abc import Callable

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from recommender import ranking
from recommender import train as training
from recommender.config import Recipe
from recommender.known import NO_ATTRIBUTES, Attributes
from recommender.ranking import Task
from recommender.ready import Ready

Blend = tuple[float, float, float]
USUAL: Blend = (1.0, 0.5, 0.8)
"""What is used unless another is clearly better."""
BLENDS: tuple[Blend, ...] = (
    *((1.0, taste, stars) for taste in (0.0, 0.25, 0.5, 1.0, 2.0) for stars in (0.0, 0.8, 1.6)),
    *((0.0, 2.0, stars) for stars in (0.0, 0.8, 1.6)),
)
"""The weights of choice (logits), taste (standard deviations) and stars that are compared."""
_PARTS: tuple[Blend, ...] = ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0))
_USERS, _BLOCK = 2048, 256
"""Most users that blends are compared on, and how many at a time."""


def is_open(recipe: Recipe) -> bool:
    """Whether the recipe leaves it to `choose`."""
    return recipe.model.by_history and not recipe.model.blend


def choose(ready: Ready, train: pa.Table, held: pa.Table) -> Blend:
    """The blend with the best NDCG@10 on `held`, if it beats the usual one by more than two standard errors; else that.

    `ready` knows `train`, and ranks by what was chosen from then on. Differences are paired by user, so that noise on a few
    users changes nothing.
    """
    task = ranking.sampled(ranking.task(train, held, ranking.good(train)), _USERS)
    if len(task.users) < 2:
        ready.model.blend = USUAL
        return USUAL
    scorer = ready.scorer(task.movies)

    def parts_of(users: pa.Array) -> NDArray[np.float32]:
        """The scores of each part alone, shape (3, u, M)."""
        found = []
        for blend in _PARTS:
            ready.model.blend = blend
            found.append(scorer(users))
        return np.stack(found)

    figures = {blend: ranking.per_user(task, lists, 10)["ndcg"] for blend, lists in _lists(task, parts_of).items()}
    best = max(BLENDS, key=lambda blend: float(figures[blend].mean()))
    gain = figures[best] - figures[USUAL]
    ready.model.blend = best if gain.mean() > 2 * gain.std() / len(gain) ** 0.5 else USUAL
    return ready.model.blend


def _lists(task: Task, parts_of: Callable[[pa.Array], NDArray[np.float32]]) -> dict[Blend, NDArray[np.int32]]:
    """Ten places by each of the blends, shape (U, 10), block by block: the parts of all users at once are too many."""
    blocks: dict[Blend, list[NDArray[np.int32]]] = {blend: [] for blend in BLENDS}
    for first in range(0, len(task.users), _BLOCK):
        block = ranking.part(task, np.arange(first, min(first + _BLOCK, len(task.users))))
        parts = parts_of(block.users)
        for blend, found in blocks.items():
            scores = np.tensordot(np.array(blend, np.float32), parts, axes=1)
            found.append(ranking.lists(block, lambda users, scores=scores: scores, 10, len(block.users)))  # type: ignore[misc]
    return {blend: np.concatenate(found) for blend, found in blocks.items()}


def settled(recipe: Recipe, train: pa.Table, held: pa.Table, attributes: Attributes = NO_ATTRIBUTES) -> Recipe:
    """The recipe with a blend: its own, or the one that suits `held` when trained on `train`."""
    if not is_open(recipe):
        return recipe
    probe = training.train(train, recipe, attributes=attributes)
    return recipe.changed(blend=choose(probe.ready(train, attributes), train, held))
