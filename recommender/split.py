"""Which ratings a model learns from and which it is measured on."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from recommender.errors import UnknownName
from recommender.schema import DAY


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


def official(ratings: pa.Table, test_pairs: pa.Table) -> Split:
    """Hold out the ratings whose (user_id, movie_id) is in `test_pairs`: a split that was published with the data.

    Raises `ValueError` where a pair has no rating: the split is of other data.
    """
    movies = pc.unique(test_pairs["movie_id"])
    users = pc.unique(test_pairs["user_id"])

    def keys(table: pa.Table) -> NDArray[np.int64]:
        user, movie = (
            pc.index_in(table[name], value_set=known) for name, known in (("user_id", users), ("movie_id", movies))
        )
        key = pc.add(pc.multiply(user.cast(pa.int64()), len(movies)), movie.cast(pa.int64()))
        return pc.fill_null(key, -1).to_numpy()

    own, wanted = keys(ratings), np.unique(keys(test_pairs))
    test = np.isin(own, wanted)
    if missing := len(wanted) - len(np.unique(own[test])):
        raise ValueError(f"{missing} of {len(wanted)} test pairs have no rating")
    return _cut(ratings, ~test, np.zeros_like(test), test)


def rolling(ratings: pa.Table, days: float = 7, periods: int = 8, horizon: float | None = None) -> Iterator[Split]:
    """What a job that retrains every `days` days does: train on all before a start, test on the `horizon` days from it.

    The last `periods` starts, oldest first; the last window ends with the newest rating. `horizon` is `days` where it is
    not given: then each rating is tested on once at most. A start with no rating before it or none in its window is left
    out.
    """
    at = _instants(ratings)
    end = int(at.max()) + 1 if len(at) else 0
    for back in range(periods, 0, -1):
        start = end - round(back * days * DAY)
        stop = start + round((days if horizon is None else horizon) * DAY)
        train, test = at < start, (at >= start) & (at < stop)
        if train.any() and test.any():
            yield _cut(ratings, train, np.zeros_like(test), test)


def global_time(ratings: pa.Table, at: datetime) -> Split:
    """Train on all before the instant `at`, test from it on. `at` has a time zone."""
    instant = pa.scalar(at, pa.timestamp("us", "UTC")).cast(pa.int64()).as_py()
    train = _instants(ratings) < instant
    return _cut(ratings, train, np.zeros_like(train), ~train)


def last(ratings: pa.Table, fraction: float = 0.1) -> Split:
    """Hold out exactly the last `fraction` of the ratings by time as test, those of one instant in the order of the table."""
    order = np.argsort(_instants(ratings), kind="stable")
    test = np.zeros(ratings.num_rows, bool)
    test[order[ratings.num_rows - round(ratings.num_rows * fraction) :]] = True
    return _cut(ratings, ~test, np.zeros_like(test), test)


def by_name(name: str, ratings: pa.Table, seed: int) -> Split:
    """The split called `name`: time-range, newest, random or last; a tenth or fifth is test where there is no validation."""
    if name == "time-range":
        return time_range(ratings)
    if name == "newest":
        cut = newest(ratings, 0.1)
        return Split(cut.train, cut.test, cut.validation)
    if name == "random":
        return random(ratings, seed)
    if name == "last":
        return last(ratings)
    raise UnknownName(f"no split is called {name!r}", hint=f"one of: {', '.join(NAMES)}")


def within(train: pa.Table, name: str, seed: int) -> Split:
    """A tenth of a training part to validate on, drawn as the split called `name` draws its test part."""
    cut = random(train, seed, 0.9) if name == "random" else newest(train, 0.1)
    return Split(cut.train, cut.test if name == "random" else cut.validation, train.slice(0, 0))


NAMES = ("time-range", "newest", "random", "last")
"""The splits that need no more than ratings and a seed."""


def _instants(ratings: pa.Table) -> NDArray[np.int64]:
    """`rated_at` as microseconds since 1970, shape (rows,)."""
    return ratings["rated_at"].cast(pa.int64()).to_numpy()


def _cut(ratings: pa.Table, train: NDArray[np.bool_], validation: NDArray[np.bool_], test: NDArray[np.bool_]) -> Split:
    return Split(*(_rows(ratings, chosen) for chosen in (train, validation, test)))


def _rows(ratings: pa.Table, chosen: NDArray[np.bool_]) -> pa.Table:
    """The chosen rows; where they are neighbours, as in parts of a table in order of time, they take no memory of their own."""
    count = int(np.count_nonzero(chosen))
    first = int(chosen.argmax()) if count else 0
    neighbours = bool(chosen[first : first + count].all())
    return ratings.slice(first, count) if neighbours else ratings.filter(pa.array(chosen))
