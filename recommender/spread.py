"""Spread: in the later places of a list, movies that stand in few lists come before those that stand in most.

The first places are by score alone, and no movie enters or leaves a list: what is wanted most comes first, what else is
wanted is not the same for everybody. Exposure has a price, as in Singh and Joachims, Fairness of exposure in rankings, KDD
2018, but one that a single look at the lists sets. Arithmetic on lists; who looks: `recommender.ready` and `.score`.
"""

import numpy as np
from numpy.typing import NDArray

KEPT = 6
"""Places that are by score alone."""
_COMMON = 0.05
"""Share of the lists from which on a movie counts as common: the price grows with the logarithm of the share."""
USERS = 1024
"""Most users whose lists are looked at."""


def prices(lists: NDArray[np.int32], movies: int, weight: float) -> NDArray[np.float32]:
    """What each of `movies` candidates loses of its score, shape (M,), given lists (s, n) of positions, -1 for none."""
    share = np.bincount(lists[lists >= 0], minlength=movies) / max(len(lists), 1)
    return (weight * np.log1p(share / _COMMON)).astype(np.float32)


def priced(
    scores: NDArray[np.float32], at: NDArray[np.int32], prices: NDArray[np.float32]
) -> tuple[NDArray[np.float32], NDArray[np.int32]]:
    """Lists (u, n), best first, of scores and positions, with the later places in the order of score less price.

    A score of -inf, where a list has ended, stays where it is; so do equals beside each other.
    """
    worth = scores.copy()
    worth[:, KEPT:] -= prices[at[:, KEPT:]]
    order = np.argsort(-worth, axis=1, kind="stable")
    return np.take_along_axis(worth, order, axis=1), np.take_along_axis(at, order, axis=1)
