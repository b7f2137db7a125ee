"""The default model: two towers and partners found without steps side by side, all a user's vector times a movie's.

Stars are predicted by one tower, what a user will choose and like next by another and by `taste`; the ranking blends them.
All describe a user by what the user rated, so ratings that came after training count as soon as `remember` has them.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from recommender import left_out, taste
from recommender.config import ModelConfig
from recommender.facts import looked_up
from recommender.known import Known, Names
from recommender.softmax import CLOSED, unlikely
from recommender.sparse import gather, product
from recommender.tensorflow import tf, tfrs

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
_WHOLE = 8192
"""Movies up to which choices are told from the whole catalogue; from the movies chosen in the batch where there are more."""
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
        self.config, self.factored = config, True
        self.blend = config.blend or (1.0, 0.0, 0.0)
        self.task = tfrs.tasks.Ranking(
            loss=tf.keras.losses.MeanSquaredError(reduction="sum"),  # of one mean: the last axis is the only one
            metrics=[tf.keras.metrics.RootMeanSquaredError(name="rmse")],
        )
        k, d = config.stars_dimension, config.choice_dimension
        self.noise = tf.Variable(float(np.log(0.9)), name="noise")
        rows = {
            "user": users, "movie": movies, "rated": movies, "surprise": movies, "raters": users,
            "user_side": max(1, len(names.users)), "movie_side": max(1, len(names.movies)),
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

    @property
    def spread(self) -> float:
        """What is listed to many is so by choice, which knows what is popular now: as much as that counts, so does this."""
        return float(self.config.spread * self.blend[0])

    def solve(self, known: Known, seed: int) -> None:
        """Find the weights that need no steps: the mean rating, and the partners'."""
        config = self.config
        self.mean.assign(float(known.stars.mean(dtype=np.float64)))
        self.taste.assign(taste.factors(known, config.taste_dimension, config.taste_l2, seed))
        self.ridge.assign(taste.ridge(known, config.ridge_dimension, config.ridge_l2 * known.good.sum() ** 0.5, seed))

    def remember(
        self, known: Known, trained_users: NDArray[np.int32], trained_movies: NDArray[np.int32], learns: bool = True
    ) -> None:
        """Look users and movies up in `known` from now on (`facts.looked_up`)."""
        facts = looked_up(known, trained_users, trained_movies, self.config.trend_days, learns)
        self.facts = {name: tf.constant(facts.pop(name)) for name in list(facts)}  # never all of them twice
        shape = (known.movies.rows, self.stars["raters"].shape[0])
        self.raters = tf.SparseTensor(self.facts["raters"], self.facts["rater_weights"], shape)
        unsettled: Any = None
        self.movie_codes = self.strangers = self.tastes = self.movie_tastes = unsettled

    def settle(self) -> None:
        """The weights are final: work out once what every later call needs of what is remembered."""
        factors, ridge = self._of_movies(self.taste).numpy(), self._of_movies(self.ridge).numpy()
        self.tastes = taste.Readers(factors, ridge, float(self.facts["unobserved"]), self.config.taste_l2)
        self.movie_tastes = tf.constant(taste.of_movies(factors, ridge))
        self.movie_codes = self._movie_codes()
        self.strangers = tf.add(*self._strangers(tf.range(tf.size(self.facts["user_scale"]))))

    def compute_loss(self, features: dict[str, Any], training: bool = False) -> Any:
        """Negative log likelihood of the stars and of the choices of a batch of users, each per rating.

        `features`: `users` int32 (U,), and a `seed` int32 (2,) that alone decides what is left out by chance.
        """
        users = features["users"]
        at, row = self._ratings_of(users)
        return self._stars_loss(users, at, row, features["seed"]) + self._choice_loss(users, at, row, features["seed"])

    def _stars_loss(self, users: Any, at: Any, row: Any, seed: Any) -> Any:
        facts, stars, count = self.facts, self.stars, tf.cast(tf.shape(at)[0], tf.float32)
        share = count / tf.cast(tf.shape(facts["movie"])[0], tf.float32)
        error = self.task(labels=tf.gather(facts["stars"], at), predictions=self._without_itself(users, at, row, seed))
        prior = tf.add_n([tf.nn.l2_loss(weights / self._deviation(name)) for name, weights in stars.items()])
        return error / (2 * tf.exp(2 * self.noise)) + self.noise + share * prior / count

    def _without_itself(self, users: Any, at: Any, row: Any, seed: Any) -> Any:
        """Predictions (R,) of the ratings `at`: what a rating adds to its user's p and to its movie's q is left out for it."""
        facts, stars = self.facts, self.stars
        cold = tf.random.stateless_uniform([tf.shape(at)[0]], seed) < _COLD
        movie, surprise, as_rater = (tf.gather(facts[name], at) for name in ("movie", "surprise", "as_rater"))
        (side, own), rater = self._strangers(users), gather(stars["raters"], tf.gather(facts["trained_users"], users))
        return left_out.predicted(
            self.mean,
            left_out.Ratings(row, tf.cast(movie, tf.int64), surprise, as_rater, cold),
            left_out.Users(side + own, side, rater, tf.gather(facts["user_scale"], users)),
            left_out.Movies(self._movie_codes(), self._of_movies(stars["rated"]), self._of_movies(stars["surprise"])),
        )

    def _choice_loss(self, users: Any, at: Any, row: Any, seed: Any) -> Any:
        """The past of each user is cut off at random; what the user liked after the cut is to be told from all the rest."""
        facts, choice = self.facts, self._choice_weights()
        past, fade, now = self._cut(users, at, row, seed)
        movie, target = tf.gather(facts["movie"], at), tf.gather(facts["good"], at) * (1 - past)
        among, own = self._alternatives(tf.boolean_mask(movie, target > 0))
        vectors = self._choice_users(choice, tf.size(users), row, at, past, fade)
        vectors = tf.concat([vectors, tf.ones_like(vectors[:, :1])], 1)  # (U, d + 1)
        movies, trend, place = self._choice_movies(choice), facts["trend"], movie
        if among is not None:
            movies, trend = gather(movies, among), tf.gather(trend, among, axis=1)
            nowhere = tf.fill(tf.shape(facts["open"]), -1)
            place = tf.gather(tf.tensor_scatter_nd_update(nowhere, among[:, None], tf.range(tf.size(among))), movie)
        codes, bias = tf.split(movies, [-1, 1], axis=1)
        movies = tf.concat([codes, bias + own[:, None]], 1)  # (K, d + 1)
        share = choice["trend"] * tf.cast(now >= 0, tf.float32)
        cell = tf.stack([tf.cast(row, tf.int32), place], axis=1)  # (R, 2)
        closed, chosen = tf.boolean_mask(cell, (past > 0) & (place >= 0)), tf.boolean_mask(cell, target > 0)
        recent = tf.gather(trend, tf.maximum(now, 0))  # (U, K)
        loss = unlikely(vectors, movies, share, recent, closed, chosen) / tf.maximum(tf.reduce_sum(target), 1.0)
        penalties = [tf.nn.l2_loss(weight) for name, weight in choice.items() if name != "trend"]
        return loss + self.config.l2 * tf.add_n(penalties)

    def _cut(self, users: Any, at: Any, row: Any, seed: Any) -> tuple[Any, Any, Any]:
        """Which ratings (R,) are past to their user, how new they are there, and the present (U,), -1 for out of order."""
        facts = self.facts
        chance = [
            tf.random.stateless_uniform([tf.size(users)], seed + tf.constant([0, number])) for number in (1, 2, 3)
        ]
        first = tf.gather(facts["starts"], users)
        n = tf.gather(facts["starts"], users + 1) - first
        cut = tf.cast(tf.floor((0.05 + 0.9 * chance[0]) * tf.cast(n, tf.float32)), tf.int64)
        age = tf.gather(first + cut, row) - 1 - at
        now = tf.gather(facts["period"], tf.minimum(first + cut, tf.size(facts["period"], tf.int64) - 1))
        past, fade = age >= 0, tf.where(age >= 0, _fade(age), 0.0)
        if self.config.timely < 1:
            drawn = tf.random.stateless_uniform([tf.size(at)], seed + tf.constant([0, 4]))
            timely = chance[2] < self.config.timely
            ordered = tf.gather(timely, row)
            past = tf.where(ordered, past, drawn < tf.gather(0.3 + 0.5 * chance[1], row))
            fade, now = tf.where(ordered, fade, 0.0), tf.where(timely, now, -1)
        return tf.cast(past, tf.float32), fade, now

    def _alternatives(self, chosen: Any) -> tuple[Any, Any]:
        """The movies (K,) that choices are told from, None for all, and the terms of their logits that are known."""
        facts = self.facts
        if facts["open"].shape[0] <= _WHOLE:
            return None, tf.where(facts["open"], facts["log_share"], CLOSED)
        among, _ = tf.unique(chosen)
        share = tf.gather(facts["log_share"], among)
        met = -tf.math.expm1(tf.cast(tf.size(chosen), tf.float32) * tf.math.log1p(-tf.exp(share)))
        return among, share - tf.math.log(met)

    def call(self, features: dict[str, Any]) -> Any:
        """Predicted ratings (B,) of the pairs (B,)."""
        users, where = tf.unique(features["user"])
        codes = self._movie_codes() if self.movie_codes is None else self.movie_codes
        return self._rate(tf.gather(self._star_users(users), where), tf.gather(codes, features["movie"]))

    def encode_users(self, users: Any) -> Any:
        """Choice, taste and stars times their blend weights, and weights of the movies' own terms, (U, d + t + r + k + 3).

        A user without ratings is listed by choice alone, whatever the blend: what is popular of late. Not for a trace.
        """
        at, row = self._ratings_of(users)
        weights = self._choice_weights()
        ends = tf.gather(self.facts["starts"], users + 1)
        fade = _fade(tf.gather(ends, row) - 1 - at)
        choice = self._choice_users(weights, tf.size(users), row, at, tf.ones_like(fade), fade)
        stars = self._star_users(users)[:, :-1]
        movie, good = (tf.gather(self.facts[name], at).numpy() for name in ("movie", "good"))
        parts = [(choice, True), (self.tastes.vectors(len(users), row.numpy(), movie, good > 0), False), (stars, True)]
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
        codes, recent = self._choice_movies(choice), self.facts["trend"][-1][:, None]
        own = codes[:, -1:] + choice["trend"] * recent
        parts = [codes[:, :-1], own, self.movie_tastes, self.movie_codes, self.facts["log_share"][:, None]]
        return tf.gather(tf.concat(parts, axis=1), movies)

    def score_grid(self, user_codes: Any, movie_codes: Any) -> Any:
        """The blend (U, M) of three scores: logits of being chosen and liked next, taste, and stars."""
        return tf.matmul(user_codes, movie_codes, transpose_b=True)

    def _of_movies(self, weights: Any) -> Any:
        """Trained weights of the movies that are known now; 0 for new ones."""
        return gather(weights, self.facts["trained_movies"])

    def _ratings_of(self, users: Any) -> tuple[Any, Any]:
        """Places of all ratings of the `users`, and which of the users each is of; by user."""
        at = tf.ragged.range(tf.gather(self.facts["starts"], users), tf.gather(self.facts["starts"], users + 1))
        ends = at.row_splits[1:]
        ended = tf.math.unsorted_segment_sum(tf.ones_like(ends), ends, tf.size(at.flat_values) + 1)
        return at.flat_values, tf.cumsum(ended)[:-1]  # a third of the time of `value_rowids`

    def _sums(self, size: Any, at: Any, row: Any, parts: list[tuple[Any, Any]]) -> list[Any]:
        """For each part, weights (R,) and vectors by trained movie, sums over the ratings `at` of each row, (size, k).

        A weight of 0 costs nothing: half of the ratings of a choice have it.
        """
        movie = tf.gather(self.facts["trained_movies"], tf.gather(self.facts["movie"], at))
        cell = tf.stack([row, tf.cast(movie, tf.int64)], axis=1)

        def total(weights: Any, vectors: Any) -> Any:
            shape = tf.stack([tf.cast(size, tf.int64), vectors.shape[0]])
            kept = tf.where(weights != 0)[:, 0]
            return product(tf.SparseTensor(tf.gather(cell, kept), tf.gather(weights, kept), shape), vectors)

        return [total(*part) for part in parts]

    def _choice_weights(self) -> dict[str, Any]:
        return {name: _PACE * weight for name, weight in self._choice.items()}

    def _choice_movies(self, choice: dict[str, Any]) -> Any:
        """Vector and bias of every movie, (movies.rows, d + 1)."""
        return self._of_movies(tf.concat([choice["movie"], choice["bias"][:, None]], 1))

    def _choice_users(self, choice: dict[str, Any], size: Any, row: Any, at: Any, past: Any, fade: Any) -> Any:
        good = tf.gather(self.facts["good"], at)
        parts = [(past * good, choice["good"]), (past * (1 - good), choice["poor"]), (fade, choice["newest"])]
        liked, other, newest = self._sums(size, at, row, parts)
        count = tf.math.unsorted_segment_sum(past, row, size)[:, None]
        return choice["start"] + (liked + other) / tf.sqrt(tf.maximum(count, 1.0)) + newest / _NEWEST**0.5

    def _strangers(self, users: Any) -> tuple[Any, Any]:
        """What attributes and id say of each user, (U, k + 1) each."""
        own = gather(self.stars["user"], tf.gather(self.facts["trained_users"], users))
        return tf.matmul(tf.gather(self.facts["user_side"], users), self.stars["user_side"]), own

    def _star_users(self, users: Any) -> Any:
        """What attributes, id and history say of each user, together (U, k + 1)."""
        at, row = self._ratings_of(users)
        liked = tf.gather(self.facts["surprise"], at)
        parts = [(tf.ones_like(liked), self.stars["rated"]), (liked, self.stars["surprise"])]
        history = tf.add_n(self._sums(tf.size(users), at, row, parts))
        own = tf.add(*self._strangers(users)) if self.strangers is None else tf.gather(self.strangers, users)
        return own + history * tf.gather(self.facts["user_scale"], users)[:, None]

    def _movie_codes(self) -> Any:
        """Id, attributes and raters of every movie, (movies.rows, k + 1)."""
        raters = product(self.raters, self.stars["raters"])
        side = tf.matmul(self.facts["movie_side"], self.stars["movie_side"])
        return self._of_movies(self.stars["movie"]) + side + raters

    def _rate(self, p: Any, q: Any) -> Any:
        k = self.config.stars_dimension
        return self.mean + tf.reduce_sum(p[:, :k] * q[:, :k], axis=1) + p[:, k] + q[:, k]

    def _deviation(self, name: str) -> Any:
        factors, bias = _PRIORS[name]
        return self.config.prior * tf.constant([factors] * self.config.stars_dimension + [bias])


def _normal(name: str, shape: tuple[int, int], deviation: float = 0.05, bias: bool = False) -> Any:
    """Random weights, a bias of 0 behind each row; row 0 is 0 and stays it, for nothing unknown has a gradient."""
    start = np.array(tf.random.normal(shape, stddev=deviation))
    if not name.endswith("_side"):
        start[:1] = 0
    return tf.Variable(np.hstack([start, np.zeros((shape[0], 1), np.float32)]) if bias else start, name=name)


def _fade(age: Any) -> Any:
    """Weight of a rating among a user's newest; of age 0 is the newest of all, and what is lost in rounding is 0."""
    weight = tf.exp(-tf.cast(age, tf.float32) / _NEWEST)
    return tf.where(weight > 1e-8, weight, 0.0)


def build(config: ModelConfig, users: int, movies: int, names: Names) -> Towers:
    """Untrained towers with `users` rows, unless they are shared, and `movies` rows; `remember` comes before any other call."""
    return Towers(config, config.user_rows + 1 if config.user_rows else users, movies, names)
