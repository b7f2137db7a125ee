"""Products of sparse and dense matrices, in the form in which TensorFlow's kernel is fast.

It has a quick loop for fewer than 32 columns and takes five times as long for each of more, so wide ones are cut into strips.
Sums of gathered rows take ten times as long, and so does the gradient of a plain gather.
"""

from typing import Any

from recommender.tensorflow import tf

_STRIP = 31


def product(sparse: Any, dense: Any, transposed: bool = False) -> Any:
    """`sparse` (n, m), a SparseTensor, times `dense` (m, k): shape (n, k). `transposed`: its transpose times `dense` (n, k)."""
    width = dense.shape[1]
    strips = max(1, -(-width // _STRIP))
    sizes = [width // strips + (number < width % strips) for number in range(strips)]
    parts = [
        tf.sparse.sparse_dense_matmul(sparse, strip, adjoint_a=transposed) for strip in tf.split(dense, sizes, axis=1)
    ]
    return tf.concat(parts, axis=1)


@tf.custom_gradient
def _gather(table: Any, at: Any) -> Any:
    size, rows = tf.size(at, tf.int64), tf.shape(table, tf.int64)[0]

    def gradient(upstream: Any) -> Any:
        cell = tf.stack([tf.range(size), tf.cast(at, tf.int64)], axis=1)
        chosen = tf.SparseTensor(cell, tf.ones(tf.shape(at)), tf.stack([size, rows]))
        return product(chosen, upstream, transposed=True), None

    return tf.gather(table, at), gradient


def gather(table: Any, at: Any) -> Any:
    """`tf.gather(table, at)` of a matrix: rows `at` (n,), shape (n, k); the gradient is dense."""
    return _gather(tf.convert_to_tensor(table), at)


def sums(values: Any, row: Any, size: Any) -> Any:
    """Sums of `values` (n, k) by ascending `row` (n,), shape (size, k); a third of the time of `unsorted_segment_sum`."""
    found = tf.math.segment_sum(values, row)  # up to the last row that has any
    return tf.pad(found, [[0, size - tf.shape(found)[0]], [0, 0]])


@tf.custom_gradient
def _spread(table: Any, row: Any) -> Any:
    return tf.gather(table, row), lambda upstream: (sums(upstream, row, tf.shape(table)[0]), None)


def spread(table: Any, row: Any) -> Any:
    """`tf.gather(table, row)` of a matrix by ascending `row` (n,), shape (n, k); the gradient is sums of neighbours."""
    return _spread(tf.convert_to_tensor(table), row)
