"""The loss of choices and its gradient are what a plain log-softmax gives."""

import numpy as np

from recommender.softmax import CLOSED, unlikely
from recommender.tensorflow import tf


def test_choices_are_as_unlikely_as_a_log_softmax_says_and_so_are_the_gradients() -> None:
    rng = np.random.default_rng(0)
    users, movies = (tf.Variable(rng.normal(size=(rows, 3)).astype(np.float32)) for rows in (4, 6))
    recent = tf.constant(rng.normal(size=(4, 6)).astype(np.float32))
    share = tf.Variable(np.float32([0, 1, -1, 2]))
    closed, chosen = tf.constant([[0, 1], [2, 0], [2, 5]]), tf.constant([[0, 0], [0, 5], [2, 1], [3, 3]])
    with tf.GradientTape(persistent=True) as tape:
        found = unlikely(users, movies, share, recent, closed, chosen)
        logits = tf.matmul(users, movies, transpose_b=True) + share[:, None] * recent
        logits = tf.tensor_scatter_nd_add(logits, closed, tf.fill([3], CLOSED))
        expected = -tf.reduce_sum(tf.gather_nd(tf.nn.log_softmax(logits), chosen))
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    for variable in (users, movies, share):
        np.testing.assert_allclose(tape.gradient(found, variable), tape.gradient(expected, variable), atol=1e-6)


def test_a_choice_beyond_what_floats_can_tell_is_a_finite_loss_with_a_gradient() -> None:
    users, movies = tf.Variable([[200.0]]), tf.Variable([[1.0], [-1.0]])
    none = tf.zeros([0, 2], tf.int32)
    with tf.GradientTape() as tape:
        found = unlikely(users, movies, tf.zeros([1]), tf.zeros([1, 2]), none, tf.constant([[0, 1]]))
    assert np.isfinite(found.numpy())
    np.testing.assert_allclose(tape.gradient(found, movies), [[200.0], [-200.0]])
