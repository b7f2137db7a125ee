"""How unlikely choices were, with a gradient that goes over the scores of all users and movies as seldom as it can.

Most of what such a loss takes is not its products but reading and writing that one large matrix; left to itself, TensorFlow
does so thirty times, and takes longest to write to single cells of it.
"""

from typing import Any

from recommender.tensorflow import tf

CLOSED = -1e9
"""The logit of a movie that cannot be chosen."""
_LEAST = 1e-37
"""Probability of a choice, at least, as the loss has it: its logarithm stays finite. The gradient has no need of it."""


@tf.custom_gradient
def unlikely(users: Any, movies: Any, share: Any, recent: Any, closed: Any, chosen: Any) -> Any:
    """Minus the log likelihoods of all that was chosen, summed.

    Logits are `users` (U, d) times `movies` (K, d), plus `share` (U,) of `recent` (U, K). The cells (user, movie) `closed`
    (n, 2) could not be chosen, `chosen` (m, 2) were; no cell is there twice. `recent` is taken as constant.
    """
    parts = [tf.matmul(users, movies, transpose_b=True), share[:, None] * recent, _only(closed, CLOSED, recent)]
    likely = tf.nn.softmax(tf.add_n(parts))  # (U, K)
    told = tf.gather_nd(likely, chosen)  # (m,)

    def gradient(upstream: Any) -> Any:
        count = tf.math.unsorted_segment_sum(tf.fill(tf.shape(told), upstream), chosen[:, 0], tf.shape(users)[0])
        wrong = likely * count[:, None] - _only(chosen, upstream, recent)  # (U, K)
        of_share = tf.reduce_sum(wrong * recent, axis=1)
        return tf.matmul(wrong, movies), tf.matmul(wrong, users, transpose_a=True), of_share, None, None, None

    return -tf.reduce_sum(tf.math.log(tf.maximum(told, _LEAST))), gradient


def _only(cells: Any, value: Any, like: Any) -> Any:
    """A matrix of the shape of `like`, 0 but for the `cells` (n, 2): a tenth of the time of a scatter into one."""
    return tf.raw_ops.SparseToDense(
        sparse_indices=cells,
        output_shape=tf.shape(like),
        sparse_values=value,
        default_value=0.0,
        validate_indices=False,
    )
