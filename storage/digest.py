"""Hashes of content: of Arrow rows, whatever batches they come in, and of plain values."""

import hashlib
import json
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

_INTEGERS = {8: pa.int8(), 16: pa.int16(), 32: pa.int32(), 64: pa.int64()}


class RowsDigest:
    """sha256 of the rows of a table, fed batch by batch; the borders between batches do not count.

    Columns are hashed one by one, strings as lengths and bytes, so that equal rows give equal digests.
    """

    def __init__(self, schema: pa.Schema) -> None:
        self._columns = [(hashlib.sha256(f"{f.name} {f.type}".encode()), hashlib.sha256()) for f in schema]

    def update(self, batch: pa.RecordBatch) -> None:
        """Add the rows of a batch."""
        for array, (fixed, text) in zip(batch.columns, self._columns, strict=True):
            _feed(array, fixed, text)

    def hexdigest(self) -> str:
        """The digest of all rows so far."""
        parts = [part.hexdigest() for pair in self._columns for part in pair]
        return hashlib.sha256("".join(parts).encode()).hexdigest()


def of_table(table: pa.Table) -> str:
    """The digest of a table's rows."""
    digest = RowsDigest(table.schema)
    for batch in table.to_batches():
        digest.update(batch)
    return digest.hexdigest()


def of_values(*values: Any) -> str:
    """The digest of plain values (anything JSON can say)."""
    return hashlib.sha256(json.dumps(values, sort_keys=True, default=str).encode()).hexdigest()


def _feed(array: pa.Array, fixed: Any, text: Any) -> None:
    if pa.types.is_list(array.type):
        fixed.update(pc.fill_null(pc.list_value_length(array), -1).to_numpy(zero_copy_only=False).tobytes())
        _feed(array.flatten(), fixed, text)
    elif pa.types.is_string(array.type):
        fixed.update(pc.fill_null(pc.binary_length(array), -1).to_numpy(zero_copy_only=False).tobytes())
        text.update(_text(pc.fill_null(array, "")))
    elif pa.types.is_floating(array.type):
        fixed.update(pc.fill_null(array, float("nan")).to_numpy(zero_copy_only=False).tobytes())
    else:
        numbers = (
            array.cast(pa.int8()) if pa.types.is_boolean(array.type) else array.view(_INTEGERS[array.type.bit_width])
        )
        fixed.update(numbers.is_null().to_numpy(zero_copy_only=False).tobytes() if numbers.null_count else b"")
        fixed.update(pc.fill_null(numbers, 0).to_numpy(zero_copy_only=False).tobytes())


def _text(array: pa.Array) -> bytes:
    """The bytes of all strings, one after the other, without making Python strings of them."""
    if not len(array):
        return b""
    _, offsets, text = array.buffers()
    borders = np.frombuffer(offsets, np.int32)[array.offset : array.offset + len(array) + 1]
    return b"" if text is None else memoryview(text)[borders[0] : borders[-1]].tobytes()
