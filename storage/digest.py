"""Hashes of content: of Arrow rows, whatever batches they come in, and of plain values."""

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

_INTEGERS = {8: pa.int8(), 16: pa.int16(), 32: pa.int32(), 64: pa.int64()}
_BLOCK = 1 << 20
"""Rows that are copied to be hashed at a time."""


class RowsDigest:
    """sha256 of the rows of a table, fed batch by batch; the borders between batches do not count.

    Columns are hashed one by one, strings as lengths and bytes, lists as lengths and items, so that equal rows give
    equal digests.
    """

    def __init__(self, schema: pa.Schema) -> None:
        self._columns = [_ColumnDigest(f"{field.name} {field.type}", field.type) for field in schema]

    def update(self, batch: pa.RecordBatch) -> None:
        """Add the rows of a batch."""
        for array, column in zip(batch.columns, self._columns, strict=True):
            column.update(array)

    def hexdigest(self) -> str:
        """The digest of all rows so far."""
        return hashlib.sha256("".join(column.hexdigest() for column in self._columns).encode()).hexdigest()


class _ColumnDigest:
    """One hash for each kind of bytes of a column: fed into one, they would mix by the borders of batches."""

    def __init__(self, name: str, kind: pa.DataType) -> None:
        self._fixed, self._text, self._nulls = hashlib.sha256(name.encode()), hashlib.sha256(), hashlib.sha256()
        self._items = _ColumnDigest("items", kind.value_type) if pa.types.is_list(kind) else None
        self._rows = 0

    def update(self, array: pa.Array) -> None:
        """Add values; nulls count by their places."""
        if array.null_count:
            self._nulls.update((np.flatnonzero(array.is_null()) + self._rows).astype(np.int64).tobytes())
        self._rows += len(array)
        if self._items:
            self._fixed.update(_bytes(pc.list_value_length(array)))
            self._items.update(array.flatten())
        elif pa.types.is_string(array.type):
            self._fixed.update(_bytes(pc.binary_length(array)))
            self._text.update(letters(pc.fill_null(array, "")))
        elif pa.types.is_floating(array.type):
            self._fixed.update(_bytes(array))
        elif pa.types.is_boolean(array.type):
            self._fixed.update(_bytes(array.cast(pa.int8())))
        else:
            self._fixed.update(_bytes(array.view(_INTEGERS[array.type.bit_width])))

    def hexdigest(self) -> str:
        """The digest of all values so far."""
        parts = [self._fixed.hexdigest(), self._text.hexdigest(), self._nulls.hexdigest()]
        return "".join([*parts, self._items.hexdigest()] if self._items else parts)


def of_table(table: pa.Table) -> str:
    """The digest of a table's rows."""
    digest = RowsDigest(table.schema)
    for batch in table.to_batches(_BLOCK):
        digest.update(batch)
    return digest.hexdigest()


def of_file(path: Path) -> str:
    """sha256 of the bytes of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def of_values(*values: Any) -> str:
    """The digest of plain values (anything JSON can say)."""
    return hashlib.sha256(json.dumps(values, sort_keys=True, default=str).encode()).hexdigest()


def _bytes(numbers: pa.Array) -> bytes:
    """The bytes of numbers, 0 for null."""
    filled: NDArray[Any] = pc.fill_null(numbers, 0).to_numpy(zero_copy_only=False)
    return filled.tobytes()


def letters(array: pa.Array) -> bytes:
    """The bytes of all strings, one after the other, without making Python strings of them."""
    if not len(array):
        return b""
    _, offsets, text = array.buffers()
    borders = np.frombuffer(offsets, np.int32)[array.offset : array.offset + len(array) + 1]
    return b"" if text is None else memoryview(text)[borders[0] : borders[-1]].tobytes()
