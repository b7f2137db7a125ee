"""A part of the users, so that no process holds the ratings of all: each user is in one of the parts, whoever asks.

What part that is follows from the id as it is written, and from nothing else: not from files, machines or versions.
"""

import re
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from storage import digest

_STEP = np.uint64(0x100000001B3)
"""The prime of the hash FNV-1 (64 bits), used here as the base of a polynomial of the bytes."""
_MIXED = ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB))
"""Shifts and factors by which splitmix64 ends: without them the parts would follow the last digits."""
_BLOCK = 65_536
"""Ids whose letters are worked on at once."""


class Part(NamedTuple):
    """The users of part `number`, from 1, of `of`."""

    number: int
    of: int

    @classmethod
    def parsed(cls, text: str) -> "Part":
        """The part that "3/16" means; raises `ValueError`."""
        found = re.fullmatch(r"([1-9]\d{0,8})/([1-9]\d{0,8})", text)
        if found is None or int(found[1]) > int(found[2]):
            raise ValueError(text)
        return cls(int(found[1]), int(found[2]))

    def __str__(self) -> str:
        return f"{self.number}/{self.of}"

    def of_user(self, user: str) -> "Part":
        """The part that a user is in, by the id as it is written."""
        return Part(int(number_of(pa.array([user]), self.of)[0]), self.of)

    def within(self, table: pa.Table) -> pa.Table:
        """The rows of the users of this part; `user_id` are whole numbers or text, as a dictionary or not, and never null.

        A dictionary is left with the ids of this part.
        """
        if self.of == 1 or not len(table):
            return table
        column = table["user_id"].combine_chunks()
        coded = column if pa.types.is_dictionary(column.type) else column.dictionary_encode()
        ours, codes = number_of(coded.dictionary, self.of) == self.number, coded.indices.to_numpy()
        found = table.filter(pa.array(ours[codes]))
        if coded is column:
            place = np.cumsum(ours, dtype=np.int32) - np.int32(1)
            own = pa.DictionaryArray.from_arrays(place[codes[ours[codes]]], coded.dictionary.filter(pa.array(ours)))
            found = found.set_column(found.column_names.index("user_id"), "user_id", own)
        return found


def number_of(ids: pa.Array, of: int) -> NDArray[np.int64]:
    """The part, 1 to `of`, that each id is in, shape (len(ids),): 7 and "7" are in the same."""
    found = np.empty(len(ids), np.int64)
    for first in range(0, len(ids), _BLOCK):
        hashed = _polynomial(ids[first : first + _BLOCK].cast(pa.string()))
        for shift, factor in _MIXED:
            hashed = (hashed ^ (hashed >> np.uint64(shift))) * np.uint64(factor)
        found[first : first + _BLOCK] = (hashed ^ (hashed >> np.uint64(31))) % np.uint64(of) + np.uint64(1)
    return found


def _polynomial(texts: pa.Array) -> NDArray[np.uint64]:
    """The bytes of each text, the first the coefficient of the highest power of `_STEP`, modulo 2 ** 64."""
    lengths = pc.binary_length(texts).to_numpy()
    letters = np.frombuffer(digest.letters(texts), np.uint8)
    ends = np.cumsum(lengths, dtype=np.int64)
    power = np.cumprod(np.full(int(lengths.max(initial=0)), _STEP), dtype=np.uint64)
    left = np.repeat(ends, lengths) - np.arange(len(letters)) - 1
    sums = np.concatenate([[np.uint64(0)], np.cumsum((letters + np.uint64(1)) * power[left], dtype=np.uint64)])
    found: NDArray[np.uint64] = sums[ends] - sums[ends - lengths] + lengths.astype(np.uint64)
    return found
