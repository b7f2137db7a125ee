"""Products of sparse and dense matrices, in the form in which TensorFlow's kernel is fast.

It has a quick loop for fewer than 32 columns and takes five times as long for each of more, so wide ones are cut into strips.
The loop does several columns at once and the odd ones singly: 24 take less time than 21, so strips are whole fours.
Sums of gathered rows take ten times as long, and so does the gradient of a plain gather. Its matrices in compressed rows
(CSRSparseMatrix) take two to three times as long.
"""

from typing import Any, NamedTuple

from recommender.tensorflow import tf

_WIDEST = 28


class Cells(NamedTuple):
    """Where sparse matrices of one shape have their numbers; made once for all that have theirs in the same places."""

    row: Any
    column: Any
    both: Any
    shape: Any

    @classmethod
    def of(cls, row: Any, column: Any, rows: Any, columns: Any) -> "Cells":
        """The cells of int64 (n,) and (n,), of a matrix (rows, columns)."""
        shape = tf.stack([tf.cast(rows, tf.int64), tf.cast(columns, tf.int64)])
        return cls(row, column, tf.stack([row, column], axis=1), shape)

    def weighing(self, weights: Any) -> Any:
        """The matrix with `weights` (n,)."""
        return tf.SparseTensor(self.both, weights, self.shape)


def product(sparse: Any, dense: Any, transposed: bool = False) -> Any:
    """`sparse` (n, m), a SparseTensor, times `dense` (m, k): shape (n, k). `transposed`: its transpose times `dense` (n, k)."""
    parts = [
        tf.sparse.sparse_dense_matmul(sparse, strip, adjoint_a=transposed)
        for strip in tf.split(dense, strips(dense.shape[1]), axis=1)
    ]
    return tf.concat(parts, axis=1)


def strips(width: int) -> list[int]:
    """The widths of the strips that so many columns are cut into."""
    count = max(1, -(-width // _WIDEST))
    size = -(-width // (4 * count)) * 4
    return [size] * (count - 1) + [width - size * (count - 1)]


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


def dots(left: Any, right: Any, at: Cells) -> Any:
    """Products of row i of `left` (n, k) and row j of `right` (m, k) for each cell (i, j), shape (len(at),).

    Nothing as large as the rows of all cells is kept for the gradient, which is two products with a sparse matrix.
    """

    @tf.custom_gradient
    def found(left: Any, right: Any) -> Any:
        def gradient(upstream: Any) -> Any:
            weights = at.weighing(upstream)
            return product(weights, right), product(weights, left, transposed=True)

        return tf.reduce_sum(tf.gather(left, at.row) * tf.gather(right, at.column), axis=1), gradient

    return found(left, right)
