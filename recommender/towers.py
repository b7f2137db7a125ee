"""Two towers side by side: one predicts stars, one predicts what a user will choose and like next.

Both describe a user by what the user rated, so ratings that came after training count as soon as `remember` has them. Both
are factor forms: a user's vector times a movie's.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recommender.known import Known, surprise, trend
from recommender.tensorflow import tf, tfrs

_CLOSED = -1e9
"""The logit of a movie that cannot be chosen."""
_COLD = 0.1
"""Share of ratings predicted from the user's attributes alone, so that strangers are predicted well."""
_PRIORS = {
    "user": (0.05, 0.3),
    "movie": (0.1, 0.3),
    "rated": (0.15, 0.15),
    "surprise": (0.15, 0.15),
    "raters": (0.15, 0.15),
    "user_side": (0.05, 0.05),
    "movie_side": (0.1, 0.15),
}
"""Standard deviation of the factors, and of the bias, in each group of weights of the stars tower, before any rating."""


@dataclass(frozen=True)
class Shape:
    """The hyper-parameters of both towers."""

    stars_dimension: int = 20
    choice_dimension: int = 64
    trend_days: float = 14.0
    """Mean life, in days, of a rating in what counts as recently popular."""
    timely: float = 1.0
    """Share of users whose choices are learned in order of time; the rest out of order."""
    l2: float = 1e-4
    """Weight of half the squared weights of the choice tower in the loss."""


class Towers(tfrs.models.Model):
    """Stars: mean + biases + p . q, with p from id, history and attributes. Choice: a softmax over the whole catalogue."""

    def __init__(self, shape: Shape, known: Known) -> None:
        super().__init__()
        self.shape = shape
        self.task = tfrs.tasks.Ranking(
            loss=tf.keras.losses.MeanSquaredError(),
            metrics=[tf.keras.metrics.RootMeanSquaredError(name="rmse")],
        )
        users, movies = known.users.rows, known.movies.rows
        k, d = shape.stars_dimension, shape.choice_dimension
        self.mean = tf.Variable(float(known.stars.mean()), name="mean")
        self.noise = tf.Variable(float(np.log(0.9)), name="noise")
        rows = {
            "user": users, "movie": movies, "rated": movies, "surprise": movies, "raters": users,
            "user_side": len(known.user_features.names), "movie_side": len(known.movie_features.names),
        }  # fmt: skip
        self.stars = {name: _normal(f"stars_{name}", (count, k), 0.05, bias=True) for name, count in rows.items()}
        self.choice = {name: _normal(f"choice_{name}", (movies, d), 0.05) for name in ("movie", "good", "poor")}
        self.choice_start = tf.Variable(tf.zeros([1, d]), name="choice_start")
        self.choice_bias = tf.Variable(tf.zeros([movies]), name="choice_bias")
        self.trend_weight = tf.Variable(1.0, name="trend_weight")
        self.remember(known)

    def remember(self, known: Known, trained_users: NDArray[np.int32] | None = None) -> None:
        """Look users up in `known` from now on; `trained_users` are the rows they had in training, 0 for strangers."""
        n = np.maximum(np.diff(known.starts), 1)
        good = known.stars >= known.good_from
        chosen = np.bincount(known.movie[good], minlength=known.movies.rows) + 0.5
        rows = np.arange(known.users.rows, dtype=np.int32) if trained_users is None else trained_users
        rated = np.bincount(known.movie, minlength=known.movies.rows)
        arrays = {
            "starts": known.starts.astype(np.int64),
            "user": known.user,
            "movie": known.movie,
            "value": known.stars,
            "surprise": surprise(known)[:, None],
            "good": good.astype(np.float32),
            "period": known.period,
            "trained": rows,
            "user_scale": (n**-0.5).astype(np.float32)[:, None],
            "movie_scale": (np.maximum(rated, 1) ** -0.5).astype(np.float32)[:, None],
            "user_side": known.user_features.dense(),
            "movie_side": known.movie_features.dense(),
            "log_share": np.log(chosen / chosen.sum()).astype(np.float32),
            "trend": trend(known, self.shape.trend_days),
            "open": rated > 0,
        }
        self.facts = {name: tf.constant(array) for name, array in arrays.items()}

    def compute_loss(self, features: dict[str, Any], training: bool = False) -> Any:
        """Negative log likelihood of the stars and of the choices of a batch of users, each per rating."""
        users = features["users"]
        at, row = self._ratings_of(users)
        return self._stars_loss(users, at, row) + self._choice_loss(users, at, row)

    def _stars_loss(self, users: Any, at: Any, row: Any) -> Any:
        facts, stars = self.facts, self.stars
        movie, user = tf.gather(facts["movie"], at), tf.gather(facts["user"], at)
        side, own, history = self._user_parts(users, at, row)
        part = self._history_part(at, movie)  # leave the rating to be predicted out of what predicts it
        p = tf.gather(side + own + history, row) - part * tf.gather(facts["user_scale"], user)
        q = tf.gather(self._movie_codes(), movie) - tf.gather(stars["raters"], user) * tf.gather(
            facts["movie_scale"], movie
        )
        cold = tf.cast(tf.random.uniform([tf.shape(at)[0], 1]) < _COLD, tf.float32)
        p = (1 - cold) * p + cold * tf.gather(side, row)
        predicted, value = self._rate(p, q), tf.gather(facts["value"], at)
        count = tf.cast(tf.shape(at)[0], tf.float32)
        share = count / tf.cast(tf.shape(facts["movie"])[0], tf.float32)
        error = self.task(labels=value, predictions=predicted)
        prior = tf.add_n([tf.reduce_sum((weights / self._deviation(name)) ** 2) for name, weights in stars.items()])
        return error / (2 * tf.exp(2 * self.noise)) + self.noise + share * prior / (2 * count)

    def _choice_loss(self, users: Any, at: Any, row: Any) -> Any:
        """The past of each user is cut off at random; what the user liked after the cut is to be told from all the rest."""
        facts, size = self.facts, tf.shape(users)[0]
        movie, good = tf.gather(facts["movie"], at), tf.gather(facts["good"], at)
        first = tf.gather(facts["starts"], users)
        n = tf.cast(tf.gather(facts["starts"], users + 1) - first, tf.float32)
        cut = tf.cast(tf.floor(tf.random.uniform([size], 0.05, 0.95) * n), tf.int64)
        before = at - tf.gather(first, row) < tf.gather(cut, row)
        kept = tf.random.uniform([tf.shape(at)[0]]) < tf.gather(tf.random.uniform([size], 0.3, 0.8), row)
        timely = tf.random.uniform([size]) < self.shape.timely
        past = tf.cast(tf.where(tf.gather(timely, row), before, kept), tf.float32)
        now = tf.gather(facts["period"], tf.minimum(first + cut, tf.shape(facts["period"], tf.int64)[0] - 1))
        recent = tf.gather(facts["trend"], now) * tf.cast(timely, tf.float32)[:, None]
        logits = tf.matmul(self._choice_users(size, row, movie, good, past), self.choice["movie"], transpose_b=True)
        logits += self.choice_bias + facts["log_share"] + self.trend_weight * recent
        cell = tf.stack([tf.cast(row, tf.int32), movie], axis=1)
        logits = tf.tensor_scatter_nd_add(tf.where(facts["open"], logits, _CLOSED), cell, past * _CLOSED)
        target = good * (1 - past)
        likely = tf.gather_nd(tf.nn.log_softmax(logits), cell)
        loss = -tf.reduce_sum(tf.where(target > 0, likely, 0.0)) / tf.maximum(tf.reduce_sum(target), 1.0)
        weights = [*self.choice.values(), self.choice_start, self.choice_bias]
        return loss + self.shape.l2 / 2 * tf.add_n([tf.reduce_sum(weight**2) for weight in weights])

    def call(self, features: dict[str, Any]) -> Any:
        """Predicted ratings (B,) of the pairs (B,)."""
        users, where = tf.unique(features["user"])
        return self._rate(tf.gather(self._star_users(users), where), tf.gather(self._movie_codes(), features["movie"]))

    def encode_users(self, users: Any) -> Any:
        """The choice vector and a 1 for the movie's own term, shape (U, d + 1)."""
        at, row = self._ratings_of(users)
        movie, good = tf.gather(self.facts["movie"], at), tf.gather(self.facts["good"], at)
        codes = self._choice_users(tf.shape(users)[0], row, movie, good, tf.ones_like(good))
        return tf.concat([codes, tf.ones_like(codes[:, :1])], axis=1)

    def encode_movies(self, movies: Any) -> Any:
        """The choice vector and the movie's own term as of the present, shape (M, d + 1)."""
        own = self.choice_bias + self.facts["log_share"] + self.trend_weight * self.facts["trend"][-1]
        return tf.gather(tf.concat([self.choice["movie"], own[:, None]], axis=1), movies)

    def score_grid(self, user_codes: Any, movie_codes: Any) -> Any:
        """Logits of being chosen and liked next (U, M)."""
        return tf.matmul(user_codes, movie_codes, transpose_b=True)

    def _ratings_of(self, users: Any) -> tuple[Any, Any]:
        at = tf.ragged.range(tf.gather(self.facts["starts"], users), tf.gather(self.facts["starts"], users + 1))
        return at.flat_values, at.value_rowids()

    def _choice_users(self, size: Any, row: Any, movie: Any, good: Any, past: Any) -> Any:
        liked, other = (past * good)[:, None], (past * (1 - good))[:, None]
        parts = liked * tf.gather(self.choice["good"], movie) + other * tf.gather(self.choice["poor"], movie)
        count = tf.math.unsorted_segment_sum(past, row, size)[:, None]
        return self.choice_start + tf.math.unsorted_segment_sum(parts, row, size) / tf.sqrt(tf.maximum(count, 1.0))

    def _history_part(self, at: Any, movie: Any) -> Any:
        liked = tf.gather(self.facts["surprise"], at) * tf.gather(self.stars["surprise"], movie)
        return tf.gather(self.stars["rated"], movie) + liked

    def _user_parts(self, users: Any, at: Any, row: Any) -> tuple[Any, Any, Any]:
        """What attributes, id and history say of each user, (U, k + 1) each."""
        trained = tf.gather(self.facts["trained"], users)
        own = tf.gather(self.stars["user"], trained) * tf.cast(trained > 0, tf.float32)[:, None]
        side = tf.matmul(tf.gather(self.facts["user_side"], users), self.stars["user_side"])
        part = self._history_part(at, tf.gather(self.facts["movie"], at))
        history = tf.math.unsorted_segment_sum(part, row, tf.shape(users)[0])
        return side, own, history * tf.gather(self.facts["user_scale"], users)

    def _star_users(self, users: Any) -> Any:
        return tf.add_n(self._user_parts(users, *self._ratings_of(users)))

    def _movie_codes(self) -> Any:
        """Id, attributes and raters of every movie, (M, k + 1)."""
        rater = tf.gather(self.facts["trained"], self.facts["user"])
        weights = self.stars["raters"] * tf.cast(tf.range(tf.shape(self.stars["raters"])[0]) > 0, tf.float32)[:, None]
        movies = tf.shape(self.stars["movie"])[0]
        raters = tf.math.unsorted_segment_sum(tf.gather(weights, rater), self.facts["movie"], movies)
        side = tf.matmul(self.facts["movie_side"], self.stars["movie_side"])
        return self.stars["movie"] + side + raters * self.facts["movie_scale"]

    def _rate(self, p: Any, q: Any) -> Any:
        return self.mean + tf.reduce_sum(p[:, :-1] * q[:, :-1], axis=1) + p[:, -1] + q[:, -1]

    def _deviation(self, name: str) -> Any:
        factors, bias = _PRIORS[name]
        return tf.constant([factors] * self.shape.stars_dimension + [bias])


def _normal(name: str, shape: tuple[int, int], deviation: float, bias: bool = False) -> Any:
    start = tf.random.normal(shape, stddev=deviation)
    return tf.Variable(tf.concat([start, tf.zeros([shape[0], 1])], axis=1) if bias else start, name=name)
