"""Products in strips and gathers with a dense gradient are what TensorFlow's own are."""

import numpy as np
import pytest

from recommender.sparse import gather, product, spread, sums
from recommender.tensorflow import tf


@pytest.mark.parametrize("width", [1, 31, 32, 100])
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


def test_ascending_rows_are_spread_and_summed_and_the_one_is_the_gradient_of_the_other() -> None:
    row = tf.constant([0, 0, 2, 2, 2], tf.int64)
    table = tf.Variable(np.arange(12, dtype=np.float32).reshape(4, 3))
    weights = tf.constant(np.random.default_rng(0).normal(size=(5, 3)).astype(np.float32))
    with tf.GradientTape() as tape:
        found = spread(table, row)
        total = tf.reduce_sum(found * weights)
    expected = np.zeros((4, 3), np.float32)
    np.add.at(expected, row.numpy(), weights.numpy())
    np.testing.assert_array_equal(found, table.numpy()[row.numpy()])
    np.testing.assert_allclose(tape.gradient(total, table), expected, atol=1e-6)
    np.testing.assert_allclose(sums(weights, row, 4), expected, atol=1e-6)
    assert sums(weights[:0], row[:0], 4).numpy().tolist() == [[0, 0, 0]] * 4
