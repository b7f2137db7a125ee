"""Ratings predicted without themselves by four products are what one vector after another gives, gradients, too."""

from typing import Any

import numpy as np
import pytest

from recommender.left_out import Movies, Ratings, Users, predicted
from recommender.tensorflow import tf

MEAN = 3.5


def one_by_one(ratings: Ratings, users: Users, movies: Movies) -> Any:
    """mean + (p - own) . (q - rater), biases behind the vectors added up, with no history for a stranger."""
    adds = tf.gather(movies.rated, ratings.movie) + ratings.surprise[:, None] * tf.gather(movies.liked, ratings.movie)
    history = tf.math.unsorted_segment_sum(adds, ratings.user, users.own.shape[0])
    left = tf.gather(history, ratings.user) - adds
    warm = tf.gather(users.own, ratings.user) + left * tf.gather(users.scale, ratings.user)[:, None]
    p = tf.where(ratings.cold[:, None], tf.gather(users.stranger, ratings.user), warm)
    q = tf.gather(movies.codes, ratings.movie) - ratings.as_rater[:, None] * tf.gather(users.rater, ratings.user)
    return MEAN + tf.reduce_sum(p[:, :-1] * q[:, :-1], 1) + p[:, -1] + q[:, -1]


@pytest.mark.parametrize("cold", [0.0, 0.3, 1.0])
def test_a_rating_is_left_out_of_its_user_and_of_its_movie(cold: float) -> None:
    rng = np.random.default_rng(0)

    def normal(*shape: int) -> Any:
        return tf.constant(rng.normal(size=shape).astype(np.float32))

    user, movie = np.divmod(np.sort(rng.choice(5 * 7, 20, replace=False)), 7)
    as_rater = normal(20) * tf.cast(rng.random(20) < 0.7, tf.float32)  # of some there is nothing to leave out
    ratings = Ratings(tf.constant(user), tf.constant(movie), normal(20), as_rater, tf.constant(rng.random(20) < cold))
    users = Users(normal(5, 4), normal(5, 4), normal(5, 4), normal(5) ** 2)
    movies, upstream = Movies(normal(7, 4), normal(7, 4), normal(7, 4)), normal(20)
    with tf.GradientTape(persistent=True) as tape:
        tape.watch([*users, *movies])
        found, expected = predicted(MEAN, ratings, users, movies), one_by_one(ratings, users, movies)
    np.testing.assert_allclose(found, expected, atol=1e-5)
    for vectors in (users.own, users.stranger, users.rater, *movies):
        gradients = (tape.gradient(each, vectors, upstream) for each in (found, expected))
        own, plain = (tf.convert_to_tensor(gradient).numpy() for gradient in gradients)
        np.testing.assert_allclose(own, plain, atol=1e-5 * max(np.abs(plain).max(), 1))
