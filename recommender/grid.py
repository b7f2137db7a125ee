"""The scores of a model for all of some movies: one matrix product, or tiles that stay in cache, compiled once."""

import os
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recommender.tensorflow import tf, traced
from recommender.vocabulary import UNKNOWN

GROUP = 16
"""Users are scored in multiples of this: networks in groups of it, whatever the size of a block, so that the same users always
meet the same arithmetic."""
TILE = 64
"""Movies in one tile of the grid: with GROUP it keeps the hidden layer of the article's network to 1 MiB, about a processor's
second cache. 512 are a sixth slower, 32 no quicker."""
RUN = 64
"""Neighbouring movies of which `best` looks at the highest score only, at first."""
_CAST = 4096
"""Movies whose vectors are taken into double precision at once."""

_THREADS = ThreadPoolExecutor(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count())
"""They run what is compiled for a group of users: one group is too little work for more than one of them."""


class Grid:
    """A model and the movies that it is to score."""

    def __init__(self, model: Any, movie_rows: NDArray[np.int32], bias: NDArray[np.float32] | None = None) -> None:
        """`movie_rows` (M,) are rows of the model; `bias` (M,) is added to the score that everybody has for a movie."""
        self.model, self.score, step = model, model.score_grid, RUN if model.factored else TILE
        self.width = -(-len(movie_rows) // step) * step
        padded = np.full(self.width, UNKNOWN, np.int32)
        padded[: len(movie_rows)] = movie_rows
        listed = tf.constant(padded != UNKNOWN)
        codes = model.encode_movies(tf.constant(padded))  # (M', g)
        own = np.zeros((self.width, 1), np.float32)
        if bias is not None:
            own[: len(bias), 0] = bias
        if model.factored:
            codes = tf.where(listed[:, None], codes, 0.0)
            self.longest = tf.reduce_max(tf.norm(codes, axis=1))
            self.codes = tf.concat([codes, tf.where(listed[:, None], own, -np.inf)], axis=1)
        else:
            if bias is not None:
                codes = tf.concat([codes, own], axis=1)
                self.score = lambda users, movies: model.score_grid(users, movies[:, :-1]) + movies[:, -1]
            self.codes, self.listed = codes, listed
            self.tiles = tf.reshape(codes, [-1, TILE, codes.shape[-1]])
            self.compiled = traced(self._group, jit_compile=True)

    def scores(self, user_codes: Any) -> tuple[Any, Any]:
        """Scores (U, M') of a multiple of GROUP users, and which of them (U,) have one that is not finite.

        M' is M filled up; -inf stands for what fills it, and for movies that the model does not know.
        """
        if self.model.factored:
            one = tf.ones_like(user_codes[:, :1])
            return self.model.score_grid(tf.concat([user_codes, one], axis=1), self.codes), self._too_long(user_codes)
        scores = by_group(self.compiled, user_codes)
        broken = tf.reduce_any(~tf.math.is_finite(scores) & self.listed, axis=1)
        return tf.where(self.listed, scores, -np.inf), broken

    def precise(self, user_codes: Any) -> tuple[Any, Any]:
        """`scores` of a factored model from products in double precision: several times as slow, and hardly ever another last
        bit because of what else is scored at once."""
        users, parts = tf.cast(user_codes, tf.float64), []
        for first in range(0, self.width, _CAST):
            codes = self.codes[first : first + _CAST]
            product = tf.matmul(users, tf.cast(codes[:, :-1], tf.float64), transpose_b=True)
            parts.append(tf.cast(product + tf.cast(codes[:, -1], tf.float64), tf.float32))
        return tf.concat(parts, axis=1), self._too_long(user_codes)

    def _too_long(self, user_codes: Any) -> Any:
        """Which users (U,) may have a product that is not finite: none is larger than that of the lengths."""
        longest = tf.norm(user_codes, axis=1) * self.longest
        # Two tests: of `~(longest < 1e38)` a graph makes `longest >= 1e38`, which is false where it is not a number.
        return (longest >= 1e38) | ~tf.math.is_finite(longest)

    def _group(self, user_codes: Any) -> Any:
        """Scores (G, M') of one group: a loop over tiles of movies, each small enough to stay in cache."""
        tile = tf.TensorSpec([GROUP, TILE], tf.float32)
        scores = tf.map_fn(
            lambda movie_codes: self.score(user_codes, movie_codes), self.tiles, fn_output_signature=tile
        )  # (T, G, tile)
        return tf.reshape(tf.transpose(scores, [1, 0, 2]), [GROUP, -1])


def by_group(compiled: Any, *users: Any) -> Any:
    """What a compiled function gives for each GROUP of the users' tensors (U, ...), one under the other: a thread a core."""
    parts = [[part[at : at + GROUP] for part in users] for at in range(0, users[0].shape[0], GROUP)]
    return tf.concat(list(_THREADS.map(lambda part: compiled(*part), parts)), axis=0)


def best(scores: Any, n: int) -> tuple[Any, Any]:
    """The `n` highest of each row of scores (U, M'), and where they are, both (U, n); the lower place first among equals.

    Only the `n` runs with the highest maxima can hold them: a score in any other has `n` before it.
    """
    runs = scores.shape[1] // RUN
    if n >= runs:
        return tf.math.top_k(scores, n)
    by_run = tf.reshape(scores, [-1, runs, RUN])
    chosen = tf.sort(tf.math.top_k(tf.reduce_max(by_run, axis=2), n).indices, axis=1)
    near = tf.reshape(tf.gather(by_run, chosen, batch_dims=1), [-1, n * RUN])
    highest, at = tf.math.top_k(near, n)
    return highest, tf.gather(chosen, at // RUN, batch_dims=1) * RUN + at % RUN


def best_within(bounds: Any, n: int, candidates: int, scores_of: Any) -> tuple[Any, Any, Any]:
    """The `n` highest scores of movies that bounds (U, M') speak for, where they are, both (U, n), and who is sure (U,).

    `scores_of` are the scores (U, C) of the `candidates` with the highest bounds, by their places (U, C). Sure is who has
    all of them above the bounds that were left out. A bound of -inf keeps a movie out.
    """
    highest, at = best(bounds, candidates)
    least, at = highest[:, -1], tf.sort(at, axis=1)  # (U, C): the lower place first among equals
    scores = tf.where(tf.gather(bounds, at, batch_dims=1) > -np.inf, scores_of(at), -np.inf)
    found, place = tf.math.top_k(scores, n)
    sure = ((found[:, -1] > least) | (least == -np.inf)) & tf.reduce_all(scores < np.inf, axis=1)
    return found, tf.gather(at, place, batch_dims=1), sure


def slices(users: int, count: int) -> list[range]:
    """`count` parts of all users, in order, as equal as whole groups can be; where there are fewer groups, some are empty."""
    borders = [min(users, round(users * part / count / GROUP) * GROUP) for part in range(count)]
    return [range(*ends) for ends in pairwise([*borders, users])]


def whole_groups(rows: NDArray[np.int32]) -> NDArray[np.int32]:
    """User rows (U,), filled up with row 0 to a multiple of GROUP."""
    padded = np.zeros(-(-len(rows) // GROUP) * GROUP, np.int32)
    padded[: len(rows)] = rows
    return padded
