"""The default model: two towers and partners found without steps side by side, all a user's vector times a movie's.

Stars are predicted by one tower, what a user will choose and like next by another and by `taste`; the ranking blends them.
All describe a user by what the user rated, so ratings that came after training count as soon as `remember` has them.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from recommender import taste
from recommender.config import ModelConfig
from recommender.known import Known, Names, surprise, trend
from recommender.tensorflow import tf, tfrs

_CLOSED = -1e9
"""The logit of a movie that cannot be chosen."""
_COLD = 0.1
"""Share of ratings predicted from the user's attributes alone, so that strangers are predicted well."""
_PACE = 0.5
"""What the weights of the choice tower are multiplied by. Adam moves all weights about as far in a step, and choices are
learned best at half the pace of stars."""
_NEWEST = 5.0
"""Ratings: how fast the weight of a user's newest ones fades, e-fold; from 2 to 12 the lists are as good."""
_POPULAR, _SOON = 0.6, 10.0
"""How much a movie's popularity counts for those who have rated many: taste leans to what is popular, too, and the two
together would list it twice over. For strangers it counts in full, and half way at `_SOON` ratings."""
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


class Towers(tfrs.models.Model):
    """Stars: mean + biases + p . q, with p from id, history and attributes. Choice: a softmax over the whole catalogue."""

    def __init__(self, config: ModelConfig, users: int, movies: int, names: Names) -> None:
        super().__init__()
        self.config = config
        self.blend = config.blend or (1.0, 0.0, 0.0)
        self.task = tfrs.tasks.Ranking(
            loss=tf.keras.losses.MeanSquaredError(),
            metrics=[tf.keras.metrics.RootMeanSquaredError(name="rmse")],
        )
        k, d = config.stars_dimension, config.choice_dimension
        self.noise = tf.Variable(float(np.log(0.9)), name="noise")
        rows = {
            "user": users, "movie": movies, "rated": movies, "surprise": movies, "raters": users,
            "user_side": len(names.users), "movie_side": len(names.movies),
        }  # fmt: skip
        self.stars = {name: _normal(f"stars_{name}", (count, k), bias=True) for name, count in rows.items()}
        self._choice = {
            name: _normal(f"choice_{name}", (movies, d), 0.05 / _PACE) for name in ("movie", "good", "poor", "newest")
        }
        self._choice["start"] = tf.Variable(tf.zeros([1, d]), name="choice_start")
        self._choice["bias"] = tf.Variable(tf.zeros([movies]), name="choice_bias")
        self._choice["trend"] = tf.Variable(1.0 / _PACE, name="trend_weight")
        self.mean = tf.Variable(0.0, name="mean", trainable=False)
        self.taste = tf.Variable(tf.zeros([movies, config.taste_dimension]), name="taste", trainable=False)
        self.ridge = tf.Variable(tf.zeros([movies, config.ridge_dimension]), name="ridge", trainable=False)
        self.solved = [self.mean, self.taste, self.ridge]

    def solve(self, known: Known, seed: int) -> None:
        """Find the weights that need no steps: the mean rating, and the partners'."""
        config = self.config
        self.mean.assign(float(known.stars.mean(dtype=np.float64)))
        self.taste.assign(taste.factors(known, config.taste_dimension, config.taste_l2, seed))
        self.ridge.assign(taste.ridge(known, config.ridge_dimension, config.ridge_l2, seed))

    def remember(self, known: Known, trained_users: NDArray[np.int32], trained_movies: NDArray[np.int32]) -> None:
        """Look users and movies up in `known` from now on.

        `trained_users` (users.rows,) and `trained_movies` (movies.rows,) are the rows they had in training, 0 for new ones.
        """
        good = known.good
        chosen = np.bincount(known.movie[good], minlength=known.movies.rows) + 0.5
        rated = np.bincount(known.movie, minlength=known.movies.rows)
        n = np.diff(known.starts)
        arrays = {
            "starts": known.starts.astype(np.int64),
            "user": known.user,
            "movie": known.movie,
            "value": known.stars,
            "surprise": surprise(known)[:, None],
            "good": good.astype(np.float32),
            "period": known.period,
            "trained_users": np.where(n > 0, trained_users, 0).astype(np.int32),
            "trained_movies": trained_movies.astype(np.int32),
            "user_scale": (np.maximum(n, 1) ** -0.5).astype(np.float32)[:, None],
            "movie_scale": (np.maximum(rated, 1) ** -0.5).astype(np.float32)[:, None],
            "user_side": known.user_features.dense(),
            "movie_side": known.movie_features.dense(),
            "log_share": np.log(chosen / chosen.sum()).astype(np.float32),
            "trend": trend(known, self.config.trend_days),
            "open": rated > 0,
        }
        self.facts = {name: tf.constant(array) for name, array in arrays.items()}
        self.movie_codes: Any = None
        self.user_tastes: Any = None
        self.movie_tastes: Any = None

    def settle(self, known: Known) -> None:
        """The weights are final: work out once what every later call needs, of the `known` that is remembered."""
        factors, ridge = self._of_movies(self.taste).numpy(), self._of_movies(self.ridge).numpy()
        self.user_tastes = tf.constant(taste.of_users(factors, ridge, known, self.config.taste_l2))
        self.movie_tastes = tf.constant(taste.of_movies(factors, ridge))
        self.movie_codes = self._movie_codes()

    def compute_loss(self, features: dict[str, Any], training: bool = False) -> Any:
        """Negative log likelihood of the stars and of the choices of a batch of users, each per rating.

        `features`: `users` int32 (U,), and a `seed` int32 (2,) that alone decides what is left out by chance.
        """
        users = features["users"]
        at, row = self._ratings_of(users)
        return self._stars_loss(users, at, row, features["seed"]) + self._choice_loss(users, at, row, features["seed"])

    def _stars_loss(self, users: Any, at: Any, row: Any, seed: Any) -> Any:
        facts, stars = self.facts, self.stars
        movie, user = tf.gather(facts["movie"], at), tf.gather(facts["user"], at)
        side, own, history = self._user_parts(users, at, row)
        part = self._history_part(at, movie)  # leave the rating to be predicted out of what predicts it
        p = tf.gather(side + own + history, row) - part * tf.gather(facts["user_scale"], user)
        rater = tf.gather(stars["raters"], tf.gather(facts["trained_users"], user))
        q = tf.gather(self._movie_codes(), movie) - rater * tf.gather(facts["movie_scale"], movie)
        cold = tf.cast(tf.random.stateless_uniform([tf.shape(at)[0], 1], seed) < _COLD, tf.float32)
        p = (1 - cold) * p + cold * tf.gather(side, row)
        predicted, value = self._rate(p, q), tf.gather(facts["value"], at)
        count = tf.cast(tf.shape(at)[0], tf.float32)
        share = count / tf.cast(tf.shape(facts["movie"])[0], tf.float32)
        error = self.task(labels=value, predictions=predicted)
        prior = tf.add_n([tf.reduce_sum((weights / self._deviation(name)) ** 2) for name, weights in stars.items()])
        return error / (2 * tf.exp(2 * self.noise)) + self.noise + share * prior / (2 * count)

    def _choice_loss(self, users: Any, at: Any, row: Any, seed: Any) -> Any:
        """The past of each user is cut off at random; what the user liked after the cut is to be told from all the rest."""
        facts, size = self.facts, tf.shape(users)[0]
        chance = [tf.random.stateless_uniform([size], seed + tf.constant([0, number])) for number in (1, 2, 3)]
        movie, good = tf.gather(facts["movie"], at), tf.gather(facts["good"], at)
        first = tf.gather(facts["starts"], users)
        n = tf.cast(tf.gather(facts["starts"], users + 1) - first, tf.float32)
        cut = tf.cast(tf.floor((0.05 + 0.9 * chance[0]) * n), tf.int64)
        before = at - tf.gather(first, row) < tf.gather(cut, row)
        kept = tf.random.stateless_uniform([tf.shape(at)[0]], seed + tf.constant([0, 4])) < tf.gather(
            0.3 + 0.5 * chance[1], row
        )
        timely = chance[2] < self.config.timely
        past = tf.cast(tf.where(tf.gather(timely, row), before, kept), tf.float32)
        age = tf.cast(tf.gather(cut, row) - 1 - (at - tf.gather(first, row)), tf.float32)
        fade = tf.where(tf.gather(timely, row) & before, tf.exp(-age / _NEWEST), 0.0)
        now = tf.gather(facts["period"], tf.minimum(first + cut, tf.shape(facts["period"], tf.int64)[0] - 1))
        recent = tf.gather(facts["trend"], now) * tf.cast(timely, tf.float32)[:, None]
        choice = self._choice_weights()
        vectors = self._of_movies(choice["movie"])
        logits = tf.matmul(self._choice_users(choice, size, row, movie, good, past, fade), vectors, transpose_b=True)
        logits += self._of_movies(choice["bias"]) + facts["log_share"] + choice["trend"] * recent
        cell = tf.stack([tf.cast(row, tf.int32), movie], axis=1)
        logits = tf.tensor_scatter_nd_add(tf.where(facts["open"], logits, _CLOSED), cell, past * _CLOSED)
        target = good * (1 - past)
        likely = tf.gather_nd(tf.nn.log_softmax(logits), cell)
        loss = -tf.reduce_sum(tf.where(target > 0, likely, 0.0)) / tf.maximum(tf.reduce_sum(target), 1.0)
        penalties = [tf.reduce_sum(weight**2) for name, weight in choice.items() if name != "trend"]
        return loss + self.config.l2 / 2 * tf.add_n(penalties)

    def call(self, features: dict[str, Any]) -> Any:
        """Predicted ratings (B,) of the pairs (B,)."""
        users, where = tf.unique(features["user"])
        codes = self._movie_codes() if self.movie_codes is None else self.movie_codes
        return self._rate(tf.gather(self._star_users(users), where), tf.gather(codes, features["movie"]))

    def encode_users(self, users: Any) -> Any:
        """Choice, taste and stars times their blend weights, and weights of the movies' own terms, (U, d + t + r + k + 3).

        A user without ratings is listed by choice alone, whatever the blend: what is popular of late.
        """
        at, row = self._ratings_of(users)
        movie, good = tf.gather(self.facts["movie"], at), tf.gather(self.facts["good"], at)
        weights = self._choice_weights()
        ends = tf.gather(self.facts["starts"], users + 1)
        fade = tf.exp(-tf.cast(tf.gather(ends, row) - 1 - at, tf.float32) / _NEWEST)
        choice = self._choice_users(weights, tf.shape(users)[0], row, movie, good, tf.ones_like(good), fade)
        stars = self._star_users(users)[:, :-1]
        parts = [(choice, True), (tf.gather(self.user_tastes, users), False), (stars, True)]
        blend = tf.constant([self.blend], tf.float32)
        n = tf.cast(ends - tf.gather(self.facts["starts"], users), tf.float32)[:, None]
        blend = tf.where(n == 0, tf.constant([[1.0, 0.0, 0.0]]), blend)
        one = tf.ones_like(choice[:, :1])
        whole = [
            blend[:, number, None] * (tf.concat([part, one], axis=1) if term else part)
            for number, (part, term) in enumerate(parts)
        ]
        popularity = blend[:, :1] * (1 - (1 - _POPULAR) * n / (n + _SOON))
        return tf.concat([*whole, popularity], axis=1)

    def encode_movies(self, movies: Any) -> Any:
        """The movies' vectors, with their own terms as of the present, shape (M, d + t + r + k + 3)."""
        choice = self._choice_weights()
        own = self._of_movies(choice["bias"]) + choice["trend"] * self.facts["trend"][-1]
        popularity = self.facts["log_share"][:, None]
        parts = [self._of_movies(choice["movie"]), own[:, None], self.movie_tastes, self.movie_codes, popularity]
        return tf.gather(tf.concat(parts, axis=1), movies)

    def score_grid(self, user_codes: Any, movie_codes: Any) -> Any:
        """The blend (U, M) of three scores: logits of being chosen and liked next, taste, and stars."""
        return tf.matmul(user_codes, movie_codes, transpose_b=True)

    def _of_movies(self, weights: Any) -> Any:
        """Trained weights of the movies that are known now; 0 for new ones."""
        return tf.gather(weights, self.facts["trained_movies"])

    def _ratings_of(self, users: Any) -> tuple[Any, Any]:
        at = tf.ragged.range(tf.gather(self.facts["starts"], users), tf.gather(self.facts["starts"], users + 1))
        return at.flat_values, at.value_rowids()

    def _choice_weights(self) -> dict[str, Any]:
        return {name: _PACE * weight for name, weight in self._choice.items()}

    def _choice_users(
        self, choice: dict[str, Any], size: Any, row: Any, movie: Any, good: Any, past: Any, fade: Any
    ) -> Any:
        trained = tf.gather(self.facts["trained_movies"], movie)
        liked, other = (past * good)[:, None], (past * (1 - good))[:, None]
        parts = liked * tf.gather(choice["good"], trained) + other * tf.gather(choice["poor"], trained)
        count = tf.math.unsorted_segment_sum(past, row, size)[:, None]
        whole = tf.math.unsorted_segment_sum(parts, row, size) / tf.sqrt(tf.maximum(count, 1.0))
        newest = tf.math.unsorted_segment_sum(fade[:, None] * tf.gather(choice["newest"], trained), row, size)
        return choice["start"] + whole + newest / _NEWEST**0.5

    def _history_part(self, at: Any, movie: Any) -> Any:
        trained = tf.gather(self.facts["trained_movies"], movie)
        liked = tf.gather(self.facts["surprise"], at) * tf.gather(self.stars["surprise"], trained)
        return tf.gather(self.stars["rated"], trained) + liked

    def _user_parts(self, users: Any, at: Any, row: Any) -> tuple[Any, Any, Any]:
        """What attributes, id and history say of each user, (U, k + 1) each."""
        own = tf.gather(self.stars["user"], tf.gather(self.facts["trained_users"], users))
        side = tf.matmul(tf.gather(self.facts["user_side"], users), self.stars["user_side"])
        part = self._history_part(at, tf.gather(self.facts["movie"], at))
        history = tf.math.unsorted_segment_sum(part, row, tf.shape(users)[0])
        return side, own, history * tf.gather(self.facts["user_scale"], users)

    def _star_users(self, users: Any) -> Any:
        return tf.add_n(self._user_parts(users, *self._ratings_of(users)))

    def _movie_codes(self) -> Any:
        """Id, attributes and raters of every movie, (movies.rows, k + 1)."""
        rater = tf.gather(self.stars["raters"], tf.gather(self.facts["trained_users"], self.facts["user"]))
        movies = tf.shape(self.facts["trained_movies"])[0]
        raters = tf.math.unsorted_segment_sum(rater, self.facts["movie"], movies)
        side = tf.matmul(self.facts["movie_side"], self.stars["movie_side"])
        return self._of_movies(self.stars["movie"]) + side + raters * self.facts["movie_scale"]

    def _rate(self, p: Any, q: Any) -> Any:
        return self.mean + tf.reduce_sum(p[:, :-1] * q[:, :-1], axis=1) + p[:, -1] + q[:, -1]

    def _deviation(self, name: str) -> Any:
        factors, bias = _PRIORS[name]
        return self.config.prior * tf.constant([factors] * self.config.stars_dimension + [bias])


def _normal(name: str, shape: tuple[int, int], deviation: float = 0.05, bias: bool = False) -> Any:
    """Random weights, a bias of 0 behind each row; row 0 is 0 and stays it, for nothing unknown has a gradient."""
    start = np.array(tf.random.normal(shape, stddev=deviation))
    if not name.endswith("_side"):
        start[:1] = 0
    return tf.Variable(np.hstack([start, np.zeros((shape[0], 1), np.float32)]) if bias else start, name=name)


def build(config: ModelConfig, users: int, movies: int, names: Names) -> Towers:
    """Untrained towers with `users` and `movies` rows; `remember` must come before any other call."""
    return Towers(config, users, movies, names)
