"""Digests: the same for the same rows however they are cut, and another for any other rows."""

from itertools import pairwise
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from storage import digest

SCHEMA = pa.schema(
    [("whole", pa.int16()), ("real", pa.float32()), ("flag", pa.bool_()), ("text", pa.string()), ("day", pa.date32()),
     ("texts", pa.list_(pa.string())), ("wholes", pa.list_(pa.int64())), ("at", pa.timestamp("us", "UTC"))]
)  # fmt: skip
TEXTS = st.none() | st.text(max_size=3)
ROWS = st.lists(
    st.fixed_dictionaries(
        {
            "whole": st.none() | st.integers(-3, 3),
            "real": st.none() | st.sampled_from([0.0, 1.5, float("nan")]),
            "flag": st.none() | st.booleans(),
            "text": TEXTS,
            "day": st.none() | st.dates(),
            "texts": st.none() | st.lists(TEXTS, max_size=3),
            "wholes": st.none() | st.lists(st.none() | st.integers(-3, 3), max_size=3),
            "at": st.none() | st.integers(0, 10),
        }
    ),
    max_size=8,
)


def of(rows: list[dict[str, Any]], *cuts: int) -> str:
    """The digest of rows that are fed in batches which end at `cuts`."""
    whole = pa.RecordBatch.from_pylist(rows, SCHEMA)
    made = digest.RowsDigest(SCHEMA)
    borders = [0, *sorted(cut for cut in cuts if cut <= len(rows)), len(rows)]
    for start, end in pairwise(borders):
        made.update(whole.slice(start, end - start))
    return made.hexdigest()


@given(ROWS, st.lists(st.integers(0, 8), max_size=4))
@settings(max_examples=60, deadline=None)
def test_borders_between_batches_do_not_count(rows: list[dict[str, Any]], cuts: list[int]) -> None:
    assert of(rows, *cuts) == of(rows)


@given(ROWS, ROWS)
@settings(max_examples=60, deadline=None)
def test_other_rows_have_another_digest(one: list[dict[str, Any]], other: list[dict[str, Any]]) -> None:
    assert (of(one) == of(other)) == (repr(one) == repr(other))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (pa.array(["ab", "c"]), pa.array(["a", "bc"])),
        (pa.array(["", None]), pa.array([None, ""])),
        (pa.array([0, None], pa.int64()), pa.array([None, 0], pa.int64())),
        (pa.array([float("nan")]), pa.array([None], pa.float64())),
        (pa.array([False]), pa.array([None], pa.bool_())),
        (pa.array([["a"], ["b"]]), pa.array([["a", "b"], []])),
        (pa.array([[]], pa.list_(pa.string())), pa.array([None], pa.list_(pa.string()))),
        (pa.array([1], pa.int32()), pa.array([1], pa.int64())),
        (pa.array([1, 2]), pa.array([2, 1])),
    ],
)
def test_what_looks_alike_in_bytes_is_told_apart(one: pa.Array, other: pa.Array) -> None:
    assert digest.of_table(pa.table({"a": one})) != digest.of_table(pa.table({"a": other}))


def test_the_name_of_a_column_counts() -> None:
    assert digest.of_table(pa.table({"a": [1]})) != digest.of_table(pa.table({"b": [1]}))


def test_a_slice_of_text_has_the_digest_of_its_rows() -> None:
    table = pa.table({"text": ["one", "two", None, "three", "four"]})
    assert digest.of_table(table.slice(1, 3)) == digest.of_table(pa.table({"text": ["two", None, "three"]}))


def test_plain_values_have_a_digest_that_order_of_keys_does_not_change() -> None:
    assert digest.of_values({"a": 1, "b": 2}) == digest.of_values({"b": 2, "a": 1})
    assert digest.of_values("1") != digest.of_values(1)
