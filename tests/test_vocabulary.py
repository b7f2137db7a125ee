"""Vocabularies: ids to embedding rows, held to a plain dict."""

from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from small import ids

from recommender.vocabulary import UNKNOWN, Vocabulary

LOWEST, HIGHEST = -(2**63), 2**63 - 1
INTEGERS = st.one_of(st.integers(-20, 20), st.integers(LOWEST, HIGHEST), st.sampled_from([LOWEST, HIGHEST, -1, 0]))
TEXTS = st.one_of(st.sampled_from(["", "7", "007", "nan", "é", "e\u0301"]), st.text(st.characters(codec="utf-8")))


def rows_by_dict(known: list[Any], asked: list[Any]) -> list[int]:
    table = {value: row for row, value in enumerate(sorted(set(known)), start=1)}
    return [table.get(value, UNKNOWN) for value in asked]


@given(st.lists(INTEGERS, max_size=40), st.lists(INTEGERS, max_size=40))
def test_integers_encode_as_a_dict_would(known: list[int], others: list[int]) -> None:
    asked = known + others
    found = Vocabulary.of(pa.array(known, pa.int64())).encode(pa.array(asked, pa.int64()))
    assert found.tolist() == rows_by_dict(known, asked)


@given(st.lists(TEXTS, max_size=40), st.lists(TEXTS, max_size=40))
def test_texts_encode_as_a_dict_would(known: list[str], others: list[str]) -> None:
    asked = known + others
    found = Vocabulary.of(pa.array(known, pa.string())).encode(pa.array(asked, pa.string()))
    assert found.tolist() == rows_by_dict(known, asked)


@given(st.integers(LOWEST, HIGHEST - 400), st.sets(st.integers(0, 400), min_size=1), st.lists(INTEGERS))
def test_dense_ids_encode_as_a_dict_would_wherever_they_start(start: int, steps: set[int], others: list[int]) -> None:
    known = [start + step for step in steps]
    near = [value for value in (start - 1, start + 401, *others) if LOWEST <= value <= HIGHEST]
    found = Vocabulary.of(ids(known)).encode(ids(known + near))
    assert found.tolist() == rows_by_dict(known, known + near)


def test_ids_are_sorted_and_distinct_and_row_0_is_left_for_the_unknown() -> None:
    vocabulary = Vocabulary.of(pa.chunked_array([[5, 3], [5, -2], []], pa.int64()))
    assert vocabulary.ids.to_pylist() == [-2, 3, 5]
    assert (len(vocabulary), vocabulary.rows) == (3, 4)
    assert vocabulary.encode(ids([5, 4, -2, 3])).tolist() == [3, 0, 1, 2]


def test_both_ends_of_int64_fit_into_one_vocabulary() -> None:
    vocabulary = Vocabulary.of(ids([HIGHEST, LOWEST, 0]))
    assert vocabulary.encode(ids([LOWEST, 0, HIGHEST, LOWEST + 1, HIGHEST - 1])).tolist() == [1, 2, 3, 0, 0]


@pytest.mark.parametrize("step", [1, 7, 1_000_003])
def test_dense_and_sparse_ids_get_the_same_rows(step: int) -> None:
    values = np.arange(2000) * step - 3
    vocabulary = Vocabulary.of(pa.array(values))
    assert vocabulary.encode(pa.array(values)).tolist() == list(range(1, 2001))
    assert not vocabulary.encode(pa.array([int(values[-1]) + step, int(values[0]) - step])).any()


def test_ids_that_look_alike_stay_apart() -> None:
    alike = ["7", "007", "7 ", " 7", "\uff17", "é", "e\u0301", ""]
    assert sorted(Vocabulary.of(ids(alike)).encode(ids(alike))) == list(range(1, 9))


@pytest.mark.parametrize(
    ("known", "asked"),
    [(ids([1, 2]), ids(["1", "2"])), (ids(["1", "2"]), ids([1, 2])), (ids([1]), pa.array([1], pa.int32()))],
)
def test_ids_of_another_type_are_unknown(known: pa.Array, asked: pa.Array) -> None:
    assert Vocabulary.of(known).encode(asked).tolist() == [UNKNOWN] * len(asked)


@pytest.mark.parametrize("values", [[4, 2, 9], ["d", "b", "i"]])
def test_chunks_and_slices_encode_as_the_whole(values: list[Any]) -> None:
    vocabulary, whole = Vocabulary.of(ids(values)), ids([*values, *values])
    chunked = pa.chunked_array([whole.slice(0, 1), whole.slice(1)])
    assert vocabulary.encode(chunked).tolist() == vocabulary.encode(whole).tolist() == [2, 1, 3, 2, 1, 3]
    assert vocabulary.encode(whole.slice(2, 2)).tolist() == [3, 2]


@pytest.mark.parametrize("kind", [pa.int64(), pa.string()])
def test_an_empty_vocabulary_knows_nobody(kind: pa.DataType) -> None:
    vocabulary = Vocabulary.of(pa.array([], kind))
    assert vocabulary.rows == 1
    assert vocabulary.encode(pa.array([1, 2], pa.int64()).cast(kind)).tolist() == [0, 0]
    assert len(vocabulary.encode(pa.array([], kind))) == 0


def test_rows_are_int32_as_the_embeddings_want_them() -> None:
    for known in (ids([1, 2]), ids([1, HIGHEST]), ids(["a"])):
        assert Vocabulary.of(known).encode(known).dtype == np.int32
