"""Stars of ratings that users and movies are themselves known by: each is predicted without what it adds to both.

A rating adds `own` to its user's vector p and `rater` to its movie's q. (p - own) . (q - rater), one rating after the other,
takes vectors of their own for all of them; here it is four products of vectors of a user and of a movie, each times what is
known of the rating. What is the same for all ratings of a user or of a movie is one more number in a vector.
"""

from typing import Any, NamedTuple

from recommender.sparse import Cells, dots, product
from recommender.tensorflow import tf


class Ratings(NamedTuple):
    """Of each rating (R,): its user and movie (int64), what both learn from it, and whether its user is to be a stranger."""

    user: Any
    movie: Any
    surprise: Any
    """What `Movies.liked` of the movie is multiplied by in the user's history."""
    as_rater: Any
    """What `Users.rater` of the user is multiplied by among the movie's raters."""
    cold: Any


class Users(NamedTuple):
    """Vectors (U, k + 1), a bias behind each."""

    own: Any
    stranger: Any
    """What is known of one without history."""
    rater: Any
    scale: Any
    """What history is multiplied by, (U,)."""


class Movies(NamedTuple):
    """Vectors (M, k + 1), a bias behind each: the movie's, and what having `rated` and `liked` it adds to a user's."""

    codes: Any
    rated: Any
    liked: Any


def predicted(mean: Any, ratings: Ratings, users: Users, movies: Movies) -> Any:
    """Predictions (R,): `mean`, the biases, and the product of the vectors of the user and of the movie."""
    people, k, surprise = tf.shape(users.own, tf.int64)[0], movies.codes.shape[1] - 1, ratings.surprise
    # Each user is there twice, (2 U, ..): by history, and as a stranger, of whom nothing is left out.
    row = ratings.user + tf.cast(ratings.cold, tf.int64) * people
    cells = Cells.of(row, ratings.movie, 2 * people, tf.shape(movies.codes)[0])
    history = product(cells.weighing(tf.ones_like(surprise)), movies.rated)
    history += product(cells.weighing(surprise), movies.liked)
    scale = users.scale[:, None]
    p = tf.concat([users.own + tf.add(*tf.split(history, 2)) * scale, users.stranger], 0)
    warm, rater = tf.concat([scale, tf.zeros_like(scale)], 0), tf.concat([users.rater, users.rater], 0)

    parts = (p, rater, movies.codes, movies.rated, movies.liked)
    (p_k, _), (rater_k, _), (q_k, q_bias), (rated_k, _), (liked_k, _) = (tf.split(part, [k, 1], 1) for part in parts)
    user_1, movie_1 = tf.ones_like(warm), tf.ones_like(q_bias)
    p_rater = _dot(tf.concat([p_k, user_1], 1), rater)
    q_rated, q_liked = (_dot(tf.concat([q_k, movie_1], 1), part) for part in (movies.rated, movies.liked))

    def times(of_users: list[Any], of_movies: list[Any]) -> Any:
        return dots(tf.concat(of_users, 1), tf.concat(of_movies, 1), cells)

    whole = times([p, user_1, -warm, mean * user_1], [q_k, movie_1, q_bias, q_rated, movie_1])
    rater_rated = times([warm * rater_k, -p_rater], [rated_k, movie_1])
    rater_liked, liked_out = times([warm * rater_k], [liked_k]), times([-warm], [q_liked])
    return whole + ratings.as_rater * rater_rated + surprise * (liked_out + ratings.as_rater * rater_liked)


def _dot(left: Any, right: Any) -> Any:
    """Products of the rows of two matrices, (n, 1)."""
    return tf.reduce_sum(left * right, axis=1, keepdims=True)
