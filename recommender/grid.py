"""The scores of a model for all of some movies, in tiles that stay in cache: compiled once, the same arithmetic for all."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from recommender.tensorflow import tf

GROUP = 16
"""Users in one call of the compiled grid. Blocks are whole groups, so the same users always meet the same arithmetic
and the result does not depend on the size of a block, not even in the last bit."""
TILE = 512
"""Movies in one tile of the grid: with GROUP it keeps the hidden layer of a model in the processor's cache."""


class Grid:
    """The scores of a model for all of some movies; the same users and movies always meet the same arithmetic."""

    def __init__(self, model: Any, movie_rows: NDArray[np.int32]) -> None:
        self.model, self.movies = model, len(movie_rows)
        tiles = -(-self.movies // TILE)
        padded = np.zeros(tiles * TILE, np.int32)
        padded[: self.movies] = movie_rows
        codes = model.encode_movies(tf.constant(padded))  # (M', g)
        self.tiles = tf.reshape(codes, [tiles, TILE, codes.shape[-1]])
        self.compiled = tf.function(self._group, jit_compile=True)

    def scores(self, groups: list[Any]) -> Any:
        """Scores (U', M) of groups of GROUP user rows each."""
        parts = [self.compiled(self.model.encode_users(group)) for group in groups]
        return tf.concat(parts, axis=0)[:, : self.movies]

    def _group(self, user_codes: Any) -> Any:
        """Scores (G, M') of one group: a loop over tiles of movies, each small enough to stay in cache."""
        tile = tf.TensorSpec([GROUP, TILE], tf.float32)
        scores = tf.map_fn(
            lambda movie_codes: self.model.score_grid(user_codes, movie_codes), self.tiles, fn_output_signature=tile
        )  # (T, G, tile)
        return tf.reshape(tf.transpose(scores, [1, 0, 2]), [GROUP, -1])


def groups_of(rows: NDArray[np.int32]) -> list[Any]:
    """User rows (U,) in groups of GROUP, the last filled up with row 0."""
    padded = np.zeros(-(-len(rows) // GROUP) * GROUP, np.int32)
    padded[: len(rows)] = rows
    return [tf.constant(padded[at : at + GROUP]) for at in range(0, len(padded), GROUP)]
