"""The latest rating of each user and movie, in the one order that ratings have: by time, then user, then movie.

The rows are those of a plain sort of all four columns, found with less: ids become ranks, a user and a movie one number, and
what is in its place already, as most of a lake is, is not sorted again. New memory costs more than the arithmetic: work is
done block by block, and in one array of one number a row.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from storage import narrow

_DENSE = 16
"""Whole-number ids are ranked in a table while it is at most this many times longer than the column."""
_BLOCK = 65_536
"""Rows; few enough for the cache."""
_SECOND = 1_000_000
"""Microseconds."""


Columns = dict[str, pa.ChunkedArray]


class _Ranks(NamedTuple):
    """The place of each id among the sorted distinct ones: `places[numbers - low]`."""

    low: int
    places: NDArray[np.int32]

    def of(self, numbers: NDArray[Any]) -> NDArray[np.int32]:
        """The ranks of some of the numbers."""
        return self.places.take(numbers - self.low)


class _Pairs:
    """A number for each user and movie that sorts as they do."""

    def __init__(self, columns: Columns) -> None:
        """Ids that are no numbers close to each other become places in a dictionary."""
        self.columns = columns
        self.users, self.movies = (self._ranks(name) for name in ("user_id", "movie_id"))
        self.movie_ranks = int(self.movies.places.max()) + 1
        self.limit = (int(self.users.places.max()) + 1) * self.movie_ranks
        """No pair is as high."""

    def _ranks(self, name: str) -> _Ranks:
        column = self.columns[name]
        if pa.types.is_integer(column.type):
            low, high = pc.min_max(column).as_py().values()
            if high - low < min(_DENSE * len(column), 2**31):
                there = np.zeros(high - low + 1, bool)
                for chunk in column.chunks:
                    there[chunk.to_numpy() - low] = True
                return _Ranks(low, np.cumsum(there, dtype=np.int32) - 1)
        if not pa.types.is_dictionary(column.type):
            column = self.columns[name] = column.dictionary_encode()
        dictionary = column.chunk(0).dictionary
        places = np.empty(len(dictionary), np.int32)
        places[pc.sort_indices(dictionary).to_numpy()] = np.arange(len(places))
        return _Ranks(0, places)

    def blocks(self) -> Iterator[tuple[slice, NDArray[np.int64], NDArray[np.int64]]]:
        """Rows, their pairs and their times, microseconds since 1970, block by block."""
        ids, done = [narrow.numbers(self.columns[name]) for name in ("user_id", "movie_id")], 0
        at = self.columns["rated_at"]
        for batch in pa.table([*ids, at], names=["user", "movie", "at"]).to_batches(_BLOCK):
            user, movie = (batch[name].to_numpy() for name in ("user", "movie"))
            rows = slice(done, done + len(batch))
            yield rows, self.numbers(user, movie), batch["at"].view(pa.int64()).to_numpy()
            done = rows.stop

    def at(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """The pairs of some rows."""
        picked = pa.array(rows)
        ids = [narrow.numbers(self.columns[name]).take(picked).to_numpy() for name in ("user_id", "movie_id")]
        return self.numbers(*ids)

    def numbers(self, user: NDArray[Any], movie: NDArray[Any]) -> NDArray[np.int64]:
        """The pairs of users and movies, by what stands for them in their columns."""
        pair = np.multiply(self.users.of(user), self.movie_ranks, dtype=np.int64)
        pair += self.movies.of(movie)
        return pair


def latest(columns: Columns) -> pa.Table:
    """Only the last rating of each user and movie, by time, user and movie; of those at one instant, that with most stars.

    `columns` are user_id, movie_id, rating and rated_at, none of them null, in any order, and narrow where they can be
    (`narrow`). They are taken out of the dictionary: nothing is there twice, but for the column that is being moved.
    """
    count = len(columns["rated_at"])
    moved = origin = np.zeros(0, np.int32)
    if count:
        pairs, key = _Pairs(columns), np.empty(count, np.uint64)
        for rows, pair, _ in pairs.blocks():
            key[rows] = pair
        key.sort()
        again = key[1:] == key[:-1]
        if again.any():  # seldom: where they are is looked for only after that
            kept = pa.array(_last_of_each(np.unique(key[1:][again]).view(np.int64), pairs, count))
            for name in columns:
                columns[name] = columns[name].filter(kept)
        del again
        key = key[: len(columns["rated_at"])]
        _pack(pairs, key)
        moved = _out_of_place(key)
        key = key[moved]
        origin = moved[_order(pairs, key, moved)]
        del pairs, key
    names, wide = list(columns), {}
    for name in sorted(names, key="rated_at".__ne__):  # what is no narrower than it will be comes first
        wide[name] = narrow.widened(columns.pop(name), moved, origin)
        pa.default_memory_pool().release_unused()  # it keeps what is freed: half as much again as the ratings take
    return pa.table({name: wide[name] for name in names}).combine_chunks()


def _last_of_each(repeated: NDArray[np.int64], pairs: _Pairs, count: int) -> NDArray[np.bool_]:
    """Which rows are the last of their pair, shape (rows,), where the pairs `repeated`, sorted, have more than one."""
    found, rows = [], []
    for block, pair, _ in pairs.blocks():
        place = np.minimum(np.searchsorted(repeated, pair), len(repeated) - 1)
        here = np.flatnonzero(repeated[place] == pair)
        rows.append(here + block.start)
        found.append(pair[here])
    row, of_row = np.concatenate(rows), np.concatenate(found)
    stars, at = (pairs.columns[name].take(pa.array(row)) for name in ("rating", "rated_at"))
    order = np.lexsort((stars.to_numpy(), at.cast(pa.int64()).to_numpy(), of_row))
    row, of_row = row[order], of_row[order]
    kept = np.ones(count, bool)
    kept[row[:-1][of_row[:-1] == of_row[1:]]] = False
    return kept


def _pack(pairs: _Pairs, key: NDArray[np.uint64], unit: int = _SECOND) -> None:
    """Fill `key` with numbers that sort as time and pair do; where both do not fit, as time and the first bits of the pair."""
    first, last = pc.min_max(pairs.columns["rated_at"].cast(pa.int64())).as_py().values()
    span, shift = (last - first) // unit + 1, 0
    while span * (((pairs.limit - 1) >> shift) + 1) > 2**64:
        shift += 1
    times = np.uint64(((pairs.limit - 1) >> shift) + 1)
    for rows, pair, at in pairs.blocks():
        since = (at - first).view(np.uint64)
        np.floor_divide(since, np.uint64(unit), out=key[rows])
        if (key[rows] * np.uint64(unit) != since).any():
            return _pack(pairs, key, unit=1)
        key[rows] *= times
        key[rows] += (pair >> shift).view(np.uint64)


def _out_of_place(key: NDArray[np.uint64]) -> NDArray[Any]:
    """The rows that do not come after all before them and before all after them, ascending."""
    moved = np.flatnonzero(~(_beyond(key, np.maximum, np.greater) & _beyond(key[::-1], np.minimum, np.less)[::-1]))
    return moved.astype(np.int32) if len(key) < 2**31 else moved


def _order(pairs: _Pairs, key: NDArray[np.uint64], rows: NDArray[Any]) -> NDArray[np.int64]:
    """The order of some rows by their keys and, where these are equal, by their pairs; no pair is repeated."""
    order = np.argsort(key)
    same = np.zeros(len(key) + 1, bool)  # as the one before
    np.equal(key[order[1:]], key[order[:-1]], out=same[1 : len(key)])
    ties = np.flatnonzero(same[:-1] | same[1:])
    if len(ties):
        tied = order[ties]
        order[ties] = tied[np.lexsort((pairs.at(rows[tied]), key[tied]))]
    return order


def _beyond(values: NDArray[np.uint64], extreme: np.ufunc, beyond: np.ufunc) -> NDArray[np.bool_]:
    """Which values are beyond all before them, shape (len(values),)."""
    found, end = np.ones(len(values), bool), values[:1]
    for first in range(1, len(values), _BLOCK):
        block = values[first : first + _BLOCK]
        before = extreme.accumulate(np.concatenate([end, block]))
        found[first : first + _BLOCK] = beyond(block, before[:-1])
        end = before[-1:]
    return found
