"""Which id has which embedding row. Row 0 stands for every id that is not in the vocabulary."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

UNKNOWN = 0
_TABLE_LIMIT = 16
"""Integer ids are looked up in a dense table while it is at most this many times longer than the vocabulary, and found by one
while it is at most this many times longer than the column."""
_BLOCK = 65_536
"""Ids looked up at a time: few enough for the cache."""


@dataclass(frozen=True)
class Vocabulary:
    """Sorted, distinct ids; the id at position i has embedding row i + 1."""

    ids: pa.Array

    @classmethod
    def of(cls, column: pa.ChunkedArray | pa.Array) -> "Vocabulary":
        """The vocabulary of all values in a column (int64 or string, no nulls)."""
        if pa.types.is_integer(column.type) and len(column):
            low, high = pc.min_max(column).as_py().values()
            if high - low < _TABLE_LIMIT * len(column):
                there = np.zeros(high - low + 1, bool)
                values = column.to_numpy()
                for start in range(0, len(values), _BLOCK):
                    there[values[start : start + _BLOCK] - low] = True
                return cls(pa.array(np.flatnonzero(there) + low))
        distinct = pc.unique(column)
        return cls(distinct.take(pc.sort_indices(distinct)))

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def rows(self) -> int:
        """Rows of an embedding table: one per id, and row 0."""
        return len(self.ids) + 1

    def encode(self, column: pa.ChunkedArray | pa.Array) -> NDArray[np.int32]:
        """Embedding rows of the ids in `column`, shape (len(column),); `UNKNOWN` where an id is not known."""
        if column.type != self.ids.type:
            return np.zeros(len(column), np.int32)
        if self._table is None:
            found = pc.fill_null(pc.index_in(column, value_set=self.ids), -1)
            return found.to_numpy().astype(np.int32) + 1
        values, rows = column.to_numpy(), np.empty(len(column), np.int32)
        for start in range(0, len(values), _BLOCK):
            # What is less than the first id wraps around to a large number: one comparison finds all that are outside.
            place = (values[start : start + _BLOCK] - self._first).view(np.uint64)
            place = np.minimum(place, np.uint64(len(self._table) - 1)).view(np.int64)
            rows[start : start + _BLOCK] = self._table.take(place)
        return rows

    @cached_property
    def _first(self) -> int:
        return int(self.ids[0].as_py())

    @cached_property
    def _table(self) -> NDArray[np.int32] | None:
        """Row by `id - first id`, and `UNKNOWN` at the end for ids beyond; None where a hash lookup is the better way."""
        if not pa.types.is_integer(self.ids.type) or not len(self.ids):
            return None
        values = self.ids.to_numpy()
        span = int(values[-1]) - int(values[0]) + 1
        if span > _TABLE_LIMIT * len(values) + 1024:
            return None
        table = np.zeros(span + 1, np.int32)
        table[values - values[0]] = np.arange(1, len(values) + 1, dtype=np.int32)
        return table


def all_ids(name: str, ratings: pa.Table, table: pa.Table | None) -> Vocabulary:
    """The ids in a column of the ratings and of the table, if there is one with ids of their kind."""
    columns = [part[name] for part in (ratings, table) if part is not None]
    same = [chunk for column in columns if column.type == columns[0].type for chunk in column.chunks]
    return Vocabulary.of(pa.chunked_array(same, columns[0].type))
