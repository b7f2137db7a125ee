"""Products in strips and gathers with a dense gradient are what TensorFlow's own are."""

import numpy as np
import pytest

from recommender.sparse import Cells, dots, gather, product
from recommender.tensorflow import tf


@pytest.mark.parametrize("width", [1, 28, 29, 100])
@pytest.mark.parametrize("transposed", [False, True])
def test_a_product_in_strips_is_the_product(width: int, transposed: bool) -> None:
    rng = np.random.default_rng(width)
    dense = np.where(rng.random((7, 5)) < 0.4, rng.normal(size=(7, 5)), 0).astype(np.float32)
    other = rng.normal(size=(7 if transposed else 5, width)).astype(np.float32)
    found = product(tf.sparse.from_dense(dense), tf.constant(other), transposed).numpy()
    np.testing.assert_allclose(found, (dense.T if transposed else dense) @ other, atol=1e-5)


def test_rows_are_gathered_and_each_gets_the_gradients_of_all_its_places() -> None:
    table = tf.Variable(np.arange(12, dtype=np.float32).reshape(4, 3))
    weights = tf.constant([[1.0, 2, 3], [10, 20, 30], [5, 5, 5]])
    with tf.GradientTape() as tape:
        found = gather(table, tf.constant([2, 0, 2]))
        total = tf.reduce_sum(found * weights)
    np.testing.assert_array_equal(found, table.numpy()[[2, 0, 2]])
    np.testing.assert_array_equal(tape.gradient(total, table), [[10, 20, 30], [0, 0, 0], [6, 7, 8], [0, 0, 0]])


def test_rows_are_multiplied_in_some_cells_and_each_gets_the_gradients_of_all_of_its_own() -> None:
    rng = np.random.default_rng(0)
    left, right = (tf.Variable(rng.normal(size=(rows, 3)).astype(np.float32)) for rows in (4, 5))
    row, column, weights = (
        tf.constant([0, 0, 2, 3], tf.int64),
        tf.constant([1, 4, 1, 0], tf.int64),
        tf.constant([1.0, 2, 3, 4]),
    )
    cells = Cells.of(row, column, 4, 5)
    with tf.GradientTape(persistent=True) as tape:
        found = tf.reduce_sum(weights * dots(left, right, cells))
        expected = tf.reduce_sum(tf.sparse.to_dense(cells.weighing(weights)) * tf.matmul(left, right, transpose_b=True))
    np.testing.assert_allclose(found, expected, atol=1e-6)
    for table in (left, right):
        np.testing.assert_allclose(tape.gradient(found, table), tape.gradient(expected, table), atol=1e-6)
