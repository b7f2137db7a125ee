"""The latest rating of each user and movie, in the one order that ratings have: by time, then user, then movie.

The rows are those of a plain sort of all four columns, found with less: ids become ranks, a user and a movie one number, and
what is in its place already, as most of a lake is, is not sorted again. New memory costs more than the arithmetic: work is
done block by block, and in two arrays of one number a row.
"""

from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

_DENSE = 16
"""Whole-number ids are ranked in a table while it is at most this many times longer than the column."""
_BLOCK = 65_536
"""Rows; few enough for the cache."""
_SECOND = 1_000_000
"""Microseconds."""


class _Ranks(NamedTuple):
    """The place of each id among the sorted distinct ones: `places[numbers - low]`."""

    numbers: pa.ChunkedArray
    low: int
    places: NDArray[np.int32]

    def of(self, numbers: pa.Array) -> NDArray[np.int32]:
        """The ranks of some of the numbers."""
        place: NDArray[np.int64] = numbers.to_numpy() - self.low
        return self.places[place]


def latest(ratings: pa.Table) -> pa.Table:
    """Only the last rating of each user and movie, by time, user and movie; of those at one instant, that with most stars.

    `ratings` has user_id, movie_id, rating and rated_at, none of them null, in any order.
    """
    if not ratings.num_rows:
        return ratings
    pair, pairs = _pairs(ratings)
    work = np.sort(pair)
    again = work[1:] == work[:-1]
    if again.any():  # seldom: where they are is looked for only after that
        kept = _last_of_each(np.unique(work[1:][again]), pair, ratings)
        ratings, pair = ratings.filter(pa.array(kept)), pair[kept]
    moved, origin = _moves(ratings["rated_at"].cast(pa.int64()), pair, pairs, work[: len(pair)])
    del pair, work
    columns = [_moved(column, moved, origin) if len(moved) else column for column in ratings.columns]
    return pa.table(columns, schema=ratings.schema).combine_chunks()


def _pairs(ratings: pa.Table) -> tuple[NDArray[np.int64], int]:
    """A number for the user and movie of each row that sorts as they do, shape (rows,), and how many numbers there could be."""
    users, movies = (_ranks(ratings[name]) for name in ("user_id", "movie_id"))
    pair, done, most = np.empty(ratings.num_rows, np.int64), 0, int(movies.places.max()) + 1
    for batch in pa.table([users.numbers, movies.numbers], names=["user", "movie"]).to_batches(_BLOCK):
        rows = pair[done : done + len(batch)]
        np.multiply(users.of(batch["user"]), most, out=rows, dtype=np.int64)
        rows += movies.of(batch["movie"])
        done += len(batch)
    return pair, (int(users.places.max()) + 1) * most


def _ranks(column: pa.ChunkedArray) -> _Ranks:
    if pa.types.is_integer(column.type):
        low, high = pc.min_max(column).as_py().values()
        if high - low < _DENSE * len(column):
            there = np.zeros(high - low + 1, bool)
            for chunk in column.chunks:
                there[chunk.to_numpy() - low] = True
            return _Ranks(column, low, np.cumsum(there, dtype=np.int32) - 1)
    encoded = column.dictionary_encode().combine_chunks()
    places = np.empty(len(encoded.dictionary), np.int32)
    places[pc.sort_indices(encoded.dictionary).to_numpy()] = np.arange(len(places))
    return _Ranks(pa.chunked_array([encoded.indices]), 0, places)


def _last_of_each(repeated: NDArray[np.int64], pair: NDArray[np.int64], ratings: pa.Table) -> NDArray[np.bool_]:
    """Which rows are the last of their pair, shape (rows,), where the pairs `repeated`, sorted, have more than one."""
    place = np.minimum(np.searchsorted(repeated, pair), len(repeated) - 1)
    rows = np.flatnonzero(repeated[place] == pair)
    some = ratings.select(["rated_at", "rating"]).take(pa.array(rows))
    rows = rows[np.lexsort((some["rating"].to_numpy(), some["rated_at"].cast(pa.int64()).to_numpy(), pair[rows]))]
    kept = np.ones(len(pair), bool)
    kept[rows[:-1][pair[rows[:-1]] == pair[rows[1:]]]] = False
    return kept


def _moves(
    at: pa.ChunkedArray, pair: NDArray[np.int64], pairs: int, work: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The places of rows that are out of order, and which row belongs there; overwrites `work`. No pair is repeated."""
    key = work.view(np.uint64)
    packed = _pack(at, pair, pairs, key)
    moved = np.flatnonzero(~(_beyond(key, np.maximum, np.greater) & _beyond(key[::-1], np.minimum, np.less)[::-1]))
    order = np.argsort(key[moved]) if packed else np.lexsort((pair[moved], key[moved]))
    return moved, moved[order]


def _moved(column: pa.ChunkedArray, moved: NDArray[np.int64], origin: NDArray[np.int64]) -> pa.Array:
    """A column with the values of the rows `origin` at the places `moved`."""
    if pa.types.is_string(column.type):
        rows = np.arange(len(column))
        rows[moved] = origin
        return column.combine_chunks().take(pa.array(rows))
    values = np.array(column.to_numpy(), copy=column.num_chunks < 2)
    values[moved] = values[origin]
    return pa.array(values, column.type)


def _pack(
    at: pa.ChunkedArray, pair: NDArray[np.int64], pairs: int, key: NDArray[np.uint64], unit: int = _SECOND
) -> bool:
    """Fill `key` with numbers that sort as time and pair do, or only as time where both do not fit; whether they did."""
    first, last = pc.min_max(at).as_py().values()
    packed: bool = ((last - first) // unit + 1) * pairs <= 2**64
    done = 0
    for (block,) in pa.table([at], names=["at"]).to_batches(_BLOCK):
        since = (block.to_numpy() - first).view(np.uint64)
        rows = key[done : done + len(block)]
        np.floor_divide(since, np.uint64(unit), out=rows)
        if (rows * np.uint64(unit) != since).any():
            return _pack(at, pair, pairs, key, unit=1)
        if packed:
            rows *= np.uint64(pairs)
            rows += pair[done : done + len(block)].view(np.uint64)
        done += len(block)
    return packed


def _beyond(values: NDArray[np.uint64], extreme: np.ufunc, beyond: np.ufunc) -> NDArray[np.bool_]:
    """Which values are beyond all before them, shape (len(values),)."""
    found, end = np.ones(len(values), bool), values[:1]
    for first in range(1, len(values), _BLOCK):
        block = values[first : first + _BLOCK]
        before = extreme.accumulate(np.concatenate([end, block]))
        found[first : first + _BLOCK] = beyond(block, before[:-1])
        end = before[-1:]
    return found
