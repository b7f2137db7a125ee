"""The best of a product of factors. Its last bits depend on its shape, on threads and on the processor; lists do not.

What the product of a user's vector u and a movie's m is off by is bounded. Where both are rounded first, to the few bits of
u' and m' that the tensor cores of a GPU are fast at, what that is wrong by can be measured: by Cauchy and Schwarz

    u.m  <=  u'.m' + |u - u'| |m| + |u'| |m - m'|

so one product, of vectors with some more places, bounds every score from above. The movies with the highest bounds are scored
anew, each by itself and in double precision. A list whose last score is above all bounds that were left out is proven; any
other is found in double precision altogether. Unlike the screen's, these bounds are no estimate.
"""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

from recommender.grid import Grid, best_within
from recommender.tensorflow import tf

FLOAT32, TF32, BF16 = 24, 11, 8
"""Significant bits: of vectors as they are, and of the two types that tensor cores multiply."""
_SPARE, _SPARE_ROUNDED = 16, 64
"""Movies scored anew beside those of a list, of vectors as they are and of rounded ones."""
_USERS = 64
"""Users whose candidates are scored anew at once."""
_LAST = 2.0**-23
"""Each addition in float32 is off by at most so much of the sum of what is added, though its last bit be cut off."""


class Rounded:
    """A grid of a factored model, rounded."""

    def __init__(self, grid: Grid, n: int, bits: int = TF32) -> None:
        """Lists have `n` places; factors are rounded to `bits` significant bits, to FLOAT32 not at all."""
        self.codes, self.own = grid.codes[:, :-1], grid.codes[:, -1]  # (M', d), (M',)
        self.n, self.bits = n, bits
        self.candidates = min(n + (_SPARE if bits == FLOAT32 else _SPARE_ROUNDED), grid.width)
        near, length = round_to(self.codes, bits), _length(self.codes)
        added = 2 * (self.codes.shape[1] + 3) * _LAST * length
        wrong = _length(self.codes - near) + added
        own = tf.where(tf.math.is_finite(self.own), self.own + 2.0 ** (1 - bits) * tf.abs(self.own), self.own)
        own = round_to(own, bits)[:, None]  # not below what it was, for the addition's sake neither
        # Across, as a product takes them a seventh sooner, and up to a third where d is odd.
        self.movies = tf.transpose(tf.concat([near, self._up(length), self._up(wrong), own], axis=1))  # (d + 3, M')

    def bounds(self, user_codes: Any) -> Any:
        """What no score exceeds, shape (U, M'); -inf as the grid has it."""
        near = round_to(user_codes, self.bits)
        left = [near, self._up(_length(user_codes - near)), self._up(_length(near)), tf.ones_like(near[:, :1])]
        with nullcontext() if self.bits == FLOAT32 else _tensor_cores():
            return tf.matmul(tf.concat(left, axis=1), self.movies)

    def best(self, bounds: Any, user_codes: Any) -> tuple[Any, Any, Any]:
        """The `n` highest scores (U, n) of movies whose bounds (U, M') are above -inf, where they are, and who is sure (U,)."""
        return best_within(bounds, self.n, self.candidates, lambda at: self._exact(user_codes, at))

    def _exact(self, user_codes: Any, at: Any) -> Any:
        """Scores (U, C) of everybody's own candidates."""
        parts = []
        for first in range(0, user_codes.shape[0], _USERS):
            users = tf.cast(user_codes[first : first + _USERS], tf.float64)
            few = at[first : first + _USERS]
            movies = tf.cast(tf.gather(self.codes, few), tf.float64)  # (u, C, d)
            scores = tf.linalg.matvec(movies, users) + tf.cast(tf.gather(self.own, few), tf.float64)
            parts.append(tf.cast(scores, tf.float32))
        return tf.concat(parts, axis=0)

    def _up(self, lengths: Any) -> Any:
        """Numbers of `bits` bits that are not below lengths, whatever was lost when those were worked out."""
        return round_to(lengths * (1 + 2.0 ** (1 - self.bits) + 1e-4), self.bits)


def round_to(values: Any, bits: int) -> Any:
    """float32 values rounded to the nearest that have `bits` significant bits, of two the even one."""
    if bits == FLOAT32:
        return values
    cut = FLOAT32 - bits
    whole = tf.bitcast(values, tf.int32)
    half = (1 << (cut - 1)) - 1 + tf.bitwise.bitwise_and(tf.bitwise.right_shift(whole, cut), 1)
    return tf.bitcast(tf.bitwise.bitwise_and(whole + half, -(1 << cut)), tf.float32)


def _length(vectors: Any) -> Any:
    return tf.norm(vectors, axis=1, keepdims=True)


@contextmanager
def _tensor_cores() -> Iterator[None]:
    """Products in TF32: what was rounded to as few bits before loses nothing by it, so that it is the same on any device."""
    before = tf.config.experimental.tensor_float_32_execution_enabled()
    tf.config.experimental.enable_tensor_float_32_execution(True)
    try:
        yield
    finally:
        tf.config.experimental.enable_tensor_float_32_execution(before)
