"""The best of a model that is no product of factors, without scoring everything: a cheap bound says which few are worth it.

The scores of trained networks are nearly of low rank. So those of a sample of users give a basis; a user's scores of some
landmark movies give the user's place in it; and the product of the two, plus what it has been wrong by, bounds the rest from
above. Only the movies with the highest bounds are scored. A list is *sure* if its last score is above all bounds that
were left out. The bound is an estimate, not a proof: it is tried on other users before it is used, and a list that is not
sure is looked for among more movies, then by scoring everything.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recommender.grid import GROUP, Grid, best_within, by_group
from recommender.tensorflow import tf, traced

RANK, LANDMARKS = 32, 256
"""Dimensions of the basis; movies by which a user is placed in it."""
_MORE = 16
"""Times as many movies are scored for a user who is not sure; only then all of them, which takes a whole group of users."""
_MARGIN = 1.5
"""Times the largest error met among the best of the sample is allowed for."""


@dataclass(frozen=True)
class Screening:
    """How the screen did on users that it was not made from."""

    users: int
    """0: there was no memory to make the screen in."""
    candidates: int
    """Movies scored for each user, beside the landmarks."""
    sure: float
    """Share of the users who need not be scored in full."""
    recall: float
    """Share of the movies of the exact lists that are listed, where the lists that are not sure are found in full."""
    used: bool
    """Whether that is good enough; otherwise everybody is scored in full."""


class Screen:
    """A basis, landmarks and errors, found on the scores of a sample."""

    def __init__(self, grid: Grid, sample: NDArray[np.float32], n: int) -> None:
        """`sample`: scores (S, M') of some users, by the grid; lists have `n` places."""
        self.grid, self.n, self.candidates = grid, n, n
        listed = np.isfinite(sample[0])
        scores = np.where(listed, sample, 0).astype(np.float32)  # (S, M')
        basis = _basis(scores)  # (r, M')
        self.landmarks = _landmarks(scores, listed)
        of_landmarks = basis[:, self.landmarks].astype(np.float64)
        self.place = np.linalg.pinv(of_landmarks, rcond=1e-5).astype(np.float32)  # (L, r)
        wrong = scores - scores[:, self.landmarks] @ self.place @ basis  # (S, M')
        error = np.sqrt((wrong**2).mean(axis=0)) + 1e-6  # (M',)
        self.landmark_basis = basis[:, self.landmarks] / error[self.landmarks]  # (r, L)
        self.landmark_error = error[self.landmarks]
        own = np.sqrt(((wrong / error)[:, self.landmarks] ** 2).mean(axis=1))  # (S,)
        last = -np.partition(np.where(listed, -scores, np.inf), n - 1, axis=1)[:, n - 1]
        met = np.max((wrong / error / own[:, None])[(scores >= last[:, None]) & listed])
        never = np.where(listed, 0, -np.inf)
        self.movies = tf.constant(np.vstack([basis, _MARGIN * met * error, never]).T.astype(np.float32))  # (M', r + 2)
        self.some = traced(self._some, jit_compile=True)
        codes = tf.gather(grid.codes, self.landmarks)
        self.of_landmarks = traced(lambda users: grid.score(users, codes), jit_compile=True)

    def bounds(self, user_codes: Any) -> Any:
        """What no score is expected to exceed, shape (U, M'), of a multiple of GROUP users; -inf as the grid has it."""
        scores = by_group(self.of_landmarks, user_codes)  # (U, L)
        place = tf.matmul(scores, self.place)  # (U, r)
        wrong = scores / self.landmark_error - tf.matmul(place, self.landmark_basis)  # (U, L)
        own = tf.sqrt(tf.reduce_mean(wrong**2, axis=1, keepdims=True))
        return tf.matmul(tf.concat([place, own, tf.ones_like(own)], axis=1), self.movies, transpose_b=True)

    def best(self, bounds: Any, user_codes: Any) -> tuple[Any, Any, Any]:
        """The `n` highest scores (U, n) of movies whose bounds (U, M') are above -inf, where they are, and who is sure (U,)."""
        highest, at, sure = self._best(bounds, user_codes, self.candidates)
        unsure = np.flatnonzero(~sure.numpy())
        if not len(unsure):
            return highest, at, sure
        few = np.resize(unsure, -(-len(unsure) // GROUP) * GROUP)
        again = self._best(tf.gather(bounds, few), tf.gather(user_codes, few), _MORE * self.candidates)
        found = (part[: len(unsure)] for part in again)
        return tuple(
            tf.tensor_scatter_nd_update(before, unsure[:, None], after)
            for before, after in zip((highest, at, sure), found, strict=True)
        )

    def _best(self, bounds: Any, user_codes: Any, candidates: int) -> Any:
        candidates = min(candidates, self.grid.width)
        return best_within(bounds, self.n, candidates, lambda at: by_group(self.some, user_codes, at))

    def widen(self, bounds: Any, last: NDArray[np.float32]) -> float:
        """Take as many candidates as pay off on some users, by their bounds (U, M') and the last scores (U,) of their lists.

        A user who needs more is scored in full. Returns the movies scored for a user, on average.
        """
        needed = np.sort(tf.reduce_sum(tf.cast(bounds >= last[:, None], tf.int32), axis=1).numpy())
        wide = np.maximum(-(-(needed + 1) // GROUP) * GROUP, self.n)  # (U,): room for the first, the first two, ...
        in_full = self.grid.width * (1 - np.arange(1, len(needed) + 1) / len(needed))
        cheapest = int(np.argmin(wide + in_full))
        self.candidates = min(int(wide[cheapest]), self.grid.width)
        return float(LANDMARKS + wide[cheapest] + in_full[cheapest])

    def _some(self, user_codes: Any, at: Any) -> Any:
        """Scores (G, C) of a group's own candidates, one user after the other so that the hidden layer stays in cache."""
        return tf.map_fn(
            lambda of_user: self.grid.score(of_user[0][None], tf.gather(self.grid.codes, of_user[1]))[0],
            (user_codes, at),
            fn_output_signature=tf.TensorSpec([at.shape[1]], tf.float32),
        )


def _basis(scores: NDArray[np.float32]) -> NDArray[np.float32]:
    """The first right singular vectors (r, M') of scores (S, M'), by the eigenvectors of the small square."""
    values, vectors = np.linalg.eigh((scores @ scores.T).astype(np.float64))
    kept = values[::-1][:RANK] > 1e-9 * values[-1]
    vectors = vectors[:, ::-1][:, :RANK][:, kept] / np.sqrt(values[::-1][:RANK][kept])
    return vectors.T.astype(np.float32) @ scores


def _landmarks(scores: NDArray[np.float32], listed: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Half of them the movies with the highest mean, half drawn from the others; sorted."""
    places = np.flatnonzero(listed)
    order = places[np.argsort(-scores[:, places].mean(axis=0), kind="stable")]
    drawn = np.random.default_rng(0).permutation(order[LANDMARKS // 2 :])[: LANDMARKS // 2]
    return np.sort(np.concatenate([order[: LANDMARKS // 2], drawn]))
