"""Taste: matrix factorisation of who rated what well, solved in closed form, by implicit alternating least squares.

Hu, Koren and Volinsky, Collaborative filtering for implicit feedback datasets, 2008; the regularisation grows with the
number of ratings, as in Rendle and others, Revisiting the performance of iALS on item recommendation benchmarks, 2022.
"""

import numpy as np
from numpy.typing import NDArray

from recommender.known import Known, row_starts

_UNOBSERVED = 0.1
"""Weight of a pair without a good rating beside 1 for one with it."""
_ROUNDS = 10
_BLOCK = 512
"""Rows solved together: 8 MiB of 64 x 64 matrices."""

Floats = NDArray[np.float32]


def fit(known: Known, dimension: int, l2: float, seed: int) -> Floats:
    """Factors of the movies, shape (movies.rows, dimension); those without a good rating, row 0 among them, have 0."""
    good = known.stars >= known.good_from
    user, movie = known.user[good], known.movie[good]
    order = np.argsort(movie, kind="stable")
    users = row_starts(user, known.users.rows), movie
    movies = row_starts(movie, known.movies.rows), user[order]
    scale = 0.1 / dimension**0.5
    factors = np.random.default_rng(seed).normal(0, scale, (known.movies.rows, dimension)).astype(np.float32)
    factors[np.diff(movies[0]) == 0] = 0
    for _ in range(_ROUNDS):
        factors = _solve(_solve(factors, *users, l2), *movies, l2)
    return factors


def of_users(factors: Floats, known: Known, l2: float) -> Floats:
    """Vectors of users, shape (users.rows, dimension), of standard deviation 1 over the movies; 0 without a good rating."""
    good = known.stars >= known.good_from
    found = _solve(factors, row_starts(known.user[good], known.users.rows), known.movie[good], l2)
    spread = np.cov(factors[1:], rowvar=False, bias=True)
    deviation = np.sqrt(np.einsum("ui,ij,uj->u", found, spread, found, optimize=True))
    scale = np.where(deviation > 1e-6, 1 / np.maximum(deviation, 1e-6), 0)  # 0: all movies are alike to them
    return (found * scale[:, None]).astype(np.float32)


def _solve(others: Floats, starts: NDArray[np.int64], column: NDArray[np.int32], l2: float) -> Floats:
    """The rows whose products with `others` come nearest to 1 for `column[starts[r]:starts[r + 1]]`, and to 0 for all."""
    dimension, counts = others.shape[1], np.diff(starts)
    unobserved = _UNOBSERVED * others.T @ others
    found = np.zeros((len(counts), dimension), np.float32)
    rows = np.flatnonzero(counts)
    for first in range(0, len(rows), _BLOCK):
        block = rows[first : first + _BLOCK]
        own = [others[column[starts[row] : starts[row + 1]]] for row in block]
        damping = l2 * (counts[block] + _UNOBSERVED * len(others))
        left = np.stack([part.T @ part for part in own]) + unobserved
        left[:, range(dimension), range(dimension)] += damping[:, None]
        right = np.stack([part.sum(axis=0) for part in own])
        found[block] = np.linalg.solve(left, right[:, :, None])[:, :, 0]
    return found
