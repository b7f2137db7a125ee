"""Which ratings a model learns from and which it is measured on."""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from recommender.errors import UnknownName


@dataclass(frozen=True)
class Split:
    """Three disjoint parts of one ratings table; a part may be empty."""

    train: pa.Table
    validation: pa.Table
    test: pa.Table


def newest(ratings: pa.Table, fraction: float) -> Split:
    """Hold out the newest `fraction` of the ratings as validation: what a nightly job can measure itself on.

    Ratings of one instant stay together, on the side of training.
    """
    at = _instants(ratings)
    last = max(0, len(at) - 1 - round(len(at) * fraction))
    border = np.partition(at, last)[last] if len(at) else 0
    return _cut(ratings, at <= border, at > border, np.zeros(len(at), bool))


def time_range(ratings: pa.Table, train: float = 0.6, validation: float = 0.8) -> Split:
    """Cut the *range of time*, not the number of ratings, at two fractions: the article's split.

    On MovieLens-100k: 65,336 / 15,778 / 18,886 ratings.
    """
    at = _instants(ratings)
    first, last = at.min(), at.max()
    low, high = first + train * (last - first), first + validation * (last - first)
    return _cut(ratings, at <= low, (at > low) & (at <= high), at > high)


def random(ratings: pa.Table, seed: int, train: float = 0.8) -> Split:
    """Hold out a random part as test. It lets a model see the future: use it to compare with the literature only."""
    order = np.random.default_rng(seed).permutation(ratings.num_rows)
    chosen = np.zeros(ratings.num_rows, bool)
    chosen[order[: int(ratings.num_rows * train)]] = True
    return _cut(ratings, chosen, np.zeros_like(chosen), ~chosen)


def by_name(name: str, ratings: pa.Table, seed: int) -> Split:
    """The split called `name`: time-range, newest or random; the last tenth or fifth is test where there is no validation."""
    if name == "time-range":
        return time_range(ratings)
    if name == "newest":
        cut = newest(ratings, 0.1)
        return Split(cut.train, cut.test, cut.validation)
    if name == "random":
        return random(ratings, seed)
    raise UnknownName(f"no split is called {name!r}", hint=f"one of: {', '.join(NAMES)}")


NAMES = ("time-range", "newest", "random")


def _instants(ratings: pa.Table) -> NDArray[np.int64]:
    """`rated_at` as microseconds since 1970, shape (rows,)."""
    return ratings["rated_at"].cast(pa.int64()).to_numpy()


def _cut(ratings: pa.Table, train: NDArray[np.bool_], validation: NDArray[np.bool_], test: NDArray[np.bool_]) -> Split:
    return Split(*(ratings.filter(pa.array(rows)) for rows in (train, validation, test)))
