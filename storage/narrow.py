"""Ratings while they are read: ids in four bytes, of whole numbers as of text. What they become is wide again."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

_BLOCK = 1 << 20
"""Rows of text made at a time."""


def kind_of(column: pa.ChunkedArray) -> pa.DataType:
    """The type that a narrow column has once it is wide."""
    if pa.types.is_dictionary(column.type):
        return column.type.value_type
    return pa.int64() if pa.types.is_integer(column.type) else column.type


def narrowed(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Whole numbers as int32 where all of them fit, text as a dictionary, and anything else as it is."""
    if pa.types.is_string(column.type):
        return column.dictionary_encode()
    if pa.types.is_integer(column.type) and len(column):
        low, high = pc.min_max(column).as_py().values()
        if low is not None and low >= -(2**31) and high < 2**31:
            return column.cast(pa.int32())
    return column


def plain(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """The column with its text written out."""
    return column.cast(column.type.value_type) if pa.types.is_dictionary(column.type) else column


def joined(parts: Sequence[pa.ChunkedArray]) -> pa.ChunkedArray:
    """The columns of one kind, one below the other: all of them as wide as the widest, and with one dictionary."""
    kinds = {part.type for part in parts}
    kind = parts[0].type if len(kinds) == 1 else pa.int64()
    chunks = [chunk for part in parts for chunk in (part if part.type == kind else part.cast(kind)).chunks]
    return pa.chunked_array(chunks, kind).unify_dictionaries()


def numbers(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """What stands for each value: the places in the dictionary, or the numbers themselves."""
    if not pa.types.is_dictionary(column.type):
        return column
    return pa.chunked_array([chunk.indices for chunk in column.chunks], column.type.index_type)


def widened(column: pa.ChunkedArray, moved: NDArray[Any], origin: NDArray[Any]) -> pa.ChunkedArray:
    """The column at its full width, in one array, with the values of the rows `origin` at the places `moved`."""
    kind = kind_of(column)
    if column.type == kind and column.num_chunks == 1 and not len(moved):
        return column
    encoded, text = pa.types.is_dictionary(column.type), pa.types.is_string(kind)
    shape = pa.int32() if encoded else kind if pa.types.is_floating(kind) else pa.int64()
    values, done = np.empty(len(column), shape.to_pandas_dtype()), 0
    for chunk in numbers(column).chunks:
        values[done : done + len(chunk)] = (chunk if chunk.type.bit_width == 32 else chunk.view(shape)).to_numpy()
        done += len(chunk)
    values[moved] = values[origin]
    if text:
        dictionary = column.chunk(0).dictionary
        blocks = [dictionary.take(pa.array(values[first : first + _BLOCK])) for first in range(0, len(values), _BLOCK)]
        return pa.chunked_array(blocks, kind)
    if encoded:
        values, shape = column.chunk(0).dictionary.to_numpy()[values], kind
    return pa.chunked_array([pa.array(values, shape).view(kind)])
