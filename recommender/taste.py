"""Taste: what people of similar likings like, whenever. Two linear models of who rated what well, found without steps.

Factors: Hu, Koren and Volinsky, Collaborative filtering for implicit feedback datasets, 2008; the regularisation grows
with the number of ratings, as in Rendle and others, Revisiting the performance of iALS on item recommendation benchmarks,
2022. Its systems are solved by conjugate gradients from the round before: Takács, Pilászy and Tikk, Applications of the
conjugate gradient method for implicit feedback collaborative filtering, 2011. Ridge: Steck, Embarrassingly shallow
autoencoders for sparse data, 2019, as a product of factors; see `ridge`.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recommender.known import Known, by_row, row_starts, some_users
from recommender.sparse import product
from recommender.tensorflow import tf

_UNOBSERVED = 4.0
"""Weight of all pairs without a good rating together, beside that of all with one."""
_ROUNDS = 10
_ENOUGH = 1 << 22
"""Ratings that all rounds but the last are of, where there are more: of users drawn at random."""
_BLOCK = 512
"""Rows solved together: 8 MiB of 64 x 64 matrices."""
_ADDED = 8192
"""Rows that are squared at once."""
_BITS = 22
"""Of a number whose products are to be added without rounding."""
_RESIDUAL = 1e-3
"""Where conjugate gradients stop: the length of what is left of a right side, beside its own."""
_SPARE = 32
"""Directions that are followed beside those wanted, so that the last of these are found well, too."""
_PASSES = 6
_SEEN = 0.4
"""What a rating below good says of a taste in the ridge regression, beside 1 of a good one: to have chosen is a sign, too."""
_RIDGE = 0.5
"""Share of the ridge regression in a score, the factors having the rest, both in standard deviations."""

Floats = NDArray[np.float32]


def factors(known: Known, dimension: int, l2: float, seed: int) -> Floats:
    """Factors of the movies, shape (movies.rows, dimension); those without a good rating, row 0 among them, have 0."""
    scale = 0.1 / dimension**0.5
    found = np.random.default_rng(seed).normal(0, scale, (known.movies.rows, dimension)).astype(np.float32)
    found[np.bincount(known.movie[known.good], minlength=len(found)) == 0] = 0
    own = np.zeros((known.users.rows, dimension), np.float32)
    some = some_users(known, _ENOUGH, seed)
    for part, rounds in ((some, _ROUNDS - 1), (known, 1)):
        good, unobserved = part.good, weight(part)
        user, movie = part.user[good], part.movie[good]
        users = row_starts(user, part.users.rows), movie
        movies = row_starts(movie, part.movies.rows), user[by_row(movie)]
        people = int(np.count_nonzero(np.diff(part.starts))) + 1
        for _ in range(rounds):
            _solve(found, *users, l2, unobserved, len(found), own)
            _solve(own, *movies, l2, unobserved, people, found)
    return found


def ridge(known: Known, dimension: int, l2: float, seed: int) -> Floats:
    """Components F of the movies, shape (movies.rows, dimension), for which F F' is X'X (X'X + l2 I)^-1, nearly.

    X is 1 where a user (row) rated a movie (column) well, 0.4 where otherwise. The movies' weights in EASE are -P_ij / P_jj
    with P the inverse of X'X + l2 I, which is (I - F F') / l2: off the diagonal, F_i F_j' / (1 - F_j F_j'). So the
    `dimension` largest eigenvectors v of X'X give F = v sqrt(w / (w + l2)), and the rest is next to nothing, for l2 damps
    it. They are found by subspace iteration (Halko, Martinsson and Tropp, Finding structure with randomness, 2011).
    """
    some = some_users(known, _ENOUGH, seed)
    rated = np.diff(some.starts) > 0
    place = (np.cumsum(rated) - 1)[some.user]  # among those who have a rating
    ratings = _matrix(place, some.movie, some.good, (int(rated.sum()), known.movies.rows))
    rows = min(dimension + _SPARE, known.movies.rows)
    q = np.random.default_rng(seed).normal(size=(known.movies.rows, rows)).astype(np.float32)
    for _ in range(_PASSES):
        q = _orthonormal(_times(ratings, _times(ratings, q), transposed=True))
    w, rotation = np.linalg.eigh(sum(_squares(_times(part, q)) for part in _everybody(known)))
    w, rotation = np.maximum(w[::-1][:dimension], 0), rotation[:, ::-1][:, :dimension]
    found = np.zeros((known.movies.rows, dimension), np.float32)
    found[:, : len(w)] = q @ rotation * np.sqrt(w / (w + l2))
    found[np.bincount(known.movie, minlength=len(found)) == 0] = 0
    return found


def of_movies(factors: Floats, ridge: Floats) -> Floats:
    """Vectors of movies, shape (movies.rows, t + r).

    EASE's 1 / P_jj favours rare movies, as it has them predict themselves least; its square root ranks better.
    """
    itself = np.sum(ridge**2, axis=1, keepdims=True)
    return np.hstack([factors, ridge / np.sqrt(np.maximum(1 - itself, 1e-6))]).astype(np.float32)


class Readers:
    """What makes vectors of users from their ratings, of so many users at a time as are asked for.

    Times `of_movies`, either part has a standard deviation over the movies that is its share: a half each.
    """

    def __init__(self, factors: Floats, ridge: Floats, unobserved: float, l2: float) -> None:
        """`unobserved` is the `weight` of the ratings."""
        movies, t = of_movies(factors, ridge), factors.shape[1]
        self._factors, self._ridge, self._l2, self._unobserved = factors, tf.constant(ridge), l2, unobserved
        self._spreads = _spread(movies[:, :t]), _spread(movies[:, t:])

    def vectors(self, count: int, user: NDArray[np.int64], movie: NDArray[np.int32], good: NDArray[np.bool_]) -> Floats:
        """Shape (count, t + r), from ratings sorted by user, 0 to count - 1; 0 without a rating (factors: a good one).

        They are the same to the last bit whoever else is asked for.
        """
        own = np.zeros((count, self._factors.shape[1]), np.float32)
        starts, others = row_starts(user[good], count), len(self._factors)
        _solve(self._factors, starts, movie[good], self._l2, self._unobserved, others, own)
        chosen = product(_matrix(user, movie, good, (count, others)), self._ridge).numpy()
        parts = (1 - _RIDGE) * _scaled(own, self._spreads[0]), _RIDGE * _scaled(chosen, self._spreads[1])
        return np.hstack(parts)


def _spread(movies: Floats) -> NDArray[np.float64]:
    """How vectors of movies vary together, the unknown one in row 0 left out, shape (k, k)."""
    return np.cov(movies[1:], rowvar=False, bias=True).reshape(movies.shape[1], movies.shape[1])


def _scaled(users: Floats, spread: NDArray[np.float64]) -> Floats:
    """`users` times what gives their products with movies of such a `spread` standard deviation 1.

    The numbers are cut to so many bits that their products and sums have no rounding, which would depend on who else is there.
    """
    short, wide = _cut(users.astype(np.float64), axis=1), _cut(spread, axis=None)
    deviation = np.sqrt(np.maximum(np.sum(short @ wide * short, axis=1), 0))
    scale = np.where(deviation > 1e-6, 1 / np.maximum(deviation, 1e-6), 0)  # 0: all movies are alike to them
    return (users * scale[:, None]).astype(np.float32)


def _cut(values: NDArray[np.float64], axis: int | None) -> NDArray[np.float64]:
    """`values` in fixed point, `_BITS` bits for the largest of each row or of all: 512 products of two such add up in 53."""
    _, exponent = np.frexp(np.abs(values).max(axis=axis, keepdims=True, initial=0))
    return np.ldexp(np.rint(np.ldexp(values, _BITS - exponent)), exponent - _BITS)


def weight(known: Known) -> float:
    """Weight of a pair without a good rating beside 1 for one with it; the size of the catalogue has no say in the sum."""
    good = known.good
    users, movies = (int(np.count_nonzero(np.bincount(rows[good]))) for rows in (known.user, known.movie))
    pairs = users * movies
    return min(1.0, _UNOBSERVED * int(good.sum()) / max(pairs, 1))


def _solve(
    others: Floats,
    starts: NDArray[np.int64],
    column: NDArray[np.int32],
    l2: float,
    unobserved: float,
    known_others: int,
    found: Floats,
) -> None:
    """The rows whose products with `others` come nearest to 1 for `column[starts[r]:starts[r + 1]]`, and to 0 for all.

    `known_others` of `others` have ratings; the regularisation grows with the weights of all pairs of a row. They are looked
    for from `found` (rows, k) on, to a thousandth, and put there; a row without ratings is 0.
    """
    dimension, counts = others.shape[1], np.diff(starts)
    gram = unobserved * others.T @ others
    found[counts == 0] = 0
    rows = np.flatnonzero(counts)
    for first in range(0, len(rows), _BLOCK):
        block = rows[first : first + _BLOCK]
        left = np.empty((len(block), dimension, dimension), np.float32)
        right = np.empty((len(block), dimension), np.float32)
        for place, row in enumerate(block):
            own = others[column[starts[row] : starts[row + 1]]]
            np.matmul(own.T, own, out=left[place])
            own.sum(axis=0, out=right[place])
        left += gram
        left[:, range(dimension), range(dimension)] += l2 * (counts[block] + unobserved * known_others)[:, None]
        found[block] = _conjugate(left, right, found[block])


def _conjugate(left: Floats, right: Floats, guess: Floats) -> Floats:
    """x (n, k) with `left` (n, k, k) x = `right` (n, k), by conjugate gradients from `guess`.

    Hestenes and Stiefel, Methods of conjugate gradients for solving linear systems, 1952: here a tenth of the time of
    `np.linalg.solve`. `left` are positive definite. Each goes on until it is found to `_RESIDUAL`, or for 2 k steps.
    """

    def times(x: Floats) -> Floats:
        return np.matmul(left, x[:, :, None])[:, :, 0]  # (n, k)

    found = guess
    rest = right - times(found)  # (n, k)
    towards, now = rest, np.sum(rest**2, axis=1, keepdims=True)  # (n, k), (n, 1)
    enough = _RESIDUAL**2 * np.sum(right**2, axis=1, keepdims=True)
    for _ in range(2 * left.shape[1]):
        if (now <= enough).all():
            break
        along = times(towards)
        far = now / np.maximum(np.sum(towards * along, axis=1, keepdims=True), 1e-30)
        far[now <= enough] = 0  # found: who takes longer changes nothing
        found, rest = found + far * towards, rest - far * along
        before, now = now, np.sum(rest**2, axis=1, keepdims=True)
        towards = rest + now / np.maximum(before, 1e-30) * towards
    return found


def _orthonormal(columns: Floats) -> Floats:
    """A basis of what `columns` (n, k) span; eight times as fast as `np.linalg.qr` where n is 60,000.

    Done twice: squaring loses the directions that are a thousandth as long as the longest, and the second time finds them.
    """
    found = columns
    for _ in range(2):
        w, rotation = np.linalg.eigh(_squares(found))
        found = found @ (rotation / np.sqrt(np.maximum(w, 1e-14 * w[-1]))).astype(np.float32)
    return found


def _squares(columns: Floats) -> NDArray[np.float64]:
    """`columns.T @ columns`, blocks of rows added up in double precision, shape (k, k)."""
    total = np.zeros((columns.shape[1], columns.shape[1]))
    for first in range(0, len(columns), _ADDED):
        total += columns[first : first + _ADDED].T @ columns[first : first + _ADDED]
    return total


def _everybody(known: Known) -> Iterator[Any]:
    """X of the ridge regression, (users, movies.rows), of some users after the other: all at once have a KiB each."""
    for first in range(0, known.users.rows, _ADDED):
        end = min(first + _ADDED, known.users.rows)
        part = slice(known.starts[first], known.starts[end])
        shape = end - first, known.movies.rows
        yield _matrix(known.user[part] - first, known.movie[part], known.stars[part] >= known.good_from, shape)


def _matrix(
    user: NDArray[np.integer], movie: NDArray[np.integer], good: NDArray[np.bool_], shape: tuple[int, int]
) -> Any:
    """X of the ridge regression of some ratings (R,), sparse."""
    at = np.empty((len(user), 2), np.int64)
    at[:, 0], at[:, 1] = user, movie
    return tf.SparseTensor(at, np.where(good, 1, _SEEN).astype(np.float32), shape)


def _times(sparse: Any, dense: Floats, transposed: bool = False) -> Floats:
    found: Floats = product(sparse, tf.constant(dense), transposed).numpy()
    return found
