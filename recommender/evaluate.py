"""How far predicted ratings are from real ones, for a model and for the plain baselines any model must beat."""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from recommender.vocabulary import Vocabulary

_DAMPING = 5.0
"""Ratings of average height added to each user's and movie's own before its bias is taken."""
_MEDIUM, _HEAVY = 20, 100
"""Training ratings from which a user is a medium, and a heavy one."""
_CELLS = 1 << 22
"""Cells of a block of resamples by users: 32 MiB."""


@dataclass(frozen=True)
class Metric:
    """One figure; rating errors in stars, ranking figures as `ranking.measure` says."""

    segment: str
    """all | warm | cold_user | cold_movie: whether the pair's user and movie have ratings in the training part;
    light_user | medium_user | heavy_user: known users with 1-19, 20-99, 100 or more training ratings."""
    metric: str
    value: float
    n: int
    """Ratings it was measured on; users, for a ranking."""
    ci_low: float | None = None
    """Lower end of the 95 % bootstrap interval over users, where there is one."""
    ci_high: float | None = None
    """Its upper end."""


def rating_error(predicted: NDArray[np.float32], held: pa.Table, train: pa.Table, prefix: str = "") -> list[Metric]:
    """RMSE and MAE of `predicted` (rows,) against the ratings of `held`, overall and by segment; empty segments left out.

    The intervals are for other users of the same kind: users are drawn again, with all their ratings.
    """
    error = predicted.astype(np.float64) - held["rating"].to_numpy()
    segments = {name: rows for name, rows in _segments(held, train).items() if rows.any()}
    if not segments:
        return []
    inside = np.column_stack(list(segments.values()))
    size = np.column_stack([inside * np.square(error)[:, None], inside * np.abs(error)[:, None]])
    users = Vocabulary.of(held["user_id"])
    user = users.encode(held["user_id"]) - 1
    sums = _by_user(user, size, len(users))
    counts = _by_user(user, np.hstack([inside, inside]), len(users))
    values = np.vstack([sums.sum(axis=0) / counts.sum(axis=0), *intervals(sums, counts)])
    found = []
    for place, (segment, rows) in enumerate(segments.items()):
        rmse, mae = np.sqrt(values[:, place]).tolist(), values[:, len(segments) + place].tolist()
        found.append(Metric(segment, f"{prefix}rmse", rmse[0], int(rows.sum()), *rmse[1:]))
        found.append(Metric(segment, f"{prefix}mae", mae[0], int(rows.sum()), *mae[1:]))
    return found


def intervals(
    sums: NDArray[np.float64], counts: NDArray[np.float64], seed: int = 0, resamples: int = 1000
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Ends (k,) of the 95 % bootstrap intervals of `sums.sum(axis=0) / counts.sum(axis=0)`, both (U, k), over users.

    Percentiles of the figure over `resamples` draws of U users with replacement, the same draws for all k figures
    (Efron and Tibshirani, An introduction to the bootstrap, 1993, section 13.3); draws with a count of 0 are passed over.
    """
    users = len(sums)
    rng = np.random.default_rng(seed)
    figures = np.empty((resamples, sums.shape[1]))
    step = max(1, _CELLS // users)
    for first in range(0, resamples, step):
        draws = min(step, resamples - first)
        drawn = rng.integers(0, users, (draws, users)) + np.arange(draws)[:, None] * users
        times = np.bincount(drawn.ravel(), minlength=draws * users).reshape(draws, users).astype(np.float64)
        total = times @ counts
        figures[first : first + draws] = np.where(total > 0, times @ sums / np.maximum(total, 1), np.nan)
    low, high = np.nanquantile(figures, [0.025, 0.975], axis=0)
    return low, high


def baselines(held: pa.Table, train: pa.Table) -> dict[str, NDArray[np.float32]]:
    """Predictions (rows of `held`,) of the mean rating, and of damped user and movie biases."""
    mean = float(pc.mean(train["rating"]).as_py())
    return {"mean": np.full(held.num_rows, mean, np.float32), "biases": biases(held, train)}


def biases(held: pa.Table, train: pa.Table) -> NDArray[np.float32]:
    """Mean + movie bias + user bias on the scale of `train`, shape (rows of `held`,); an id without ratings has bias 0."""
    fitted = Biases.of(train)
    predicted = fitted.mean + fitted.user(held["user_id"]) + fitted.movie(held["movie_id"])
    scale = pc.min_max(train["rating"]).as_py()
    return np.clip(predicted, scale["min"], scale["max"]).astype(np.float32)


@dataclass(frozen=True)
class Biases:
    """How far above the mean rating each user and movie is, in stars, damped towards 0.

    Koren, Factor in the neighbors, 2010, section 2.1: the movie's bias first, the user's from what is left.
    """

    mean: float
    users: Vocabulary
    movies: Vocabulary
    of_user: NDArray[np.float64]
    """Bias by row of `users`; 0 for row 0, the unknown user."""
    of_movie: NDArray[np.float64]
    """Bias by row of `movies`; 0 for row 0, the unknown movie."""

    @classmethod
    def of(cls, train: pa.Table) -> "Biases":
        """The biases in a table of ratings."""
        stars = train["rating"].to_numpy().astype(np.float64)
        mean = float(stars.mean())
        users, movies = Vocabulary.of(train["user_id"]), Vocabulary.of(train["movie_id"])
        user, movie = users.encode(train["user_id"]), movies.encode(train["movie_id"])
        of_movie = damped(movie, stars - mean, movies.rows)
        of_user = damped(user, stars - mean - of_movie[movie], users.rows)
        return cls(mean, users, movies, of_user, of_movie)

    def user(self, ids: pa.ChunkedArray | pa.Array) -> NDArray[np.float64]:
        """Biases of users, shape (len(ids),)."""
        return self.of_user[self.users.encode(ids)]

    def movie(self, ids: pa.ChunkedArray | pa.Array) -> NDArray[np.float64]:
        """Biases of movies, shape (len(ids),)."""
        return self.of_movie[self.movies.encode(ids)]


def damped(rows: NDArray[np.int32], residual: NDArray[np.float64], size: int) -> NDArray[np.float64]:
    """Damped mean residual by row, shape (size,); 0 for a row without ratings, row 0 among them."""
    total = np.bincount(rows, residual, minlength=size)
    return total / (np.bincount(rows, minlength=size) + _DAMPING)


def _segments(held: pa.Table, train: pa.Table) -> dict[str, NDArray[np.bool_]]:
    """Which rows of `held` belong to each segment, `all` first."""
    users = Vocabulary.of(train["user_id"])
    activity = np.bincount(users.encode(train["user_id"]), minlength=users.rows)[users.encode(held["user_id"])]
    knows_movie = pc.is_in(held["movie_id"], value_set=pc.unique(train["movie_id"])).to_numpy()
    return {
        "all": np.ones(held.num_rows, bool),
        "warm": (activity > 0) & knows_movie,
        "cold_user": activity == 0,
        "cold_movie": ~knows_movie,
        "light_user": (activity > 0) & (activity < _MEDIUM),
        "medium_user": (activity >= _MEDIUM) & (activity < _HEAVY),
        "heavy_user": activity >= _HEAVY,
    }


def _by_user(user: NDArray[np.int32], columns: NDArray[np.float64], size: int) -> NDArray[np.float64]:
    """Sums of each column (rows, k) over the rows of each user, shape (size, k)."""
    return np.column_stack([np.bincount(user, column, minlength=size) for column in columns.T])
