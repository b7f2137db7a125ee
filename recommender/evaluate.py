"""How far predicted ratings are from real ones, for a model and for the plain baselines any model must beat."""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from recommender.vocabulary import Vocabulary

_DAMPING = 5.0
"""Ratings of average height added to each user's and movie's own before its bias is taken."""


@dataclass(frozen=True)
class Metric:
    """One figure; ratings in stars."""

    segment: str
    """all | warm | cold_user | cold_movie: whether the pair's user and movie have ratings in the training part."""
    metric: str
    value: float
    n: int
    """Ratings it was measured on."""


def rating_error(predicted: NDArray[np.float32], held: pa.Table, train: pa.Table, prefix: str = "") -> list[Metric]:
    """RMSE and MAE of `predicted` (rows,) against the ratings of `held`, overall and by segment; empty segments left out."""
    error = predicted.astype(np.float64) - held["rating"].to_numpy()
    knows_user = _within(held["user_id"], train["user_id"])
    knows_movie = _within(held["movie_id"], train["movie_id"])
    segments = {
        "all": np.ones(len(error), bool),
        "warm": knows_user & knows_movie,
        "cold_user": ~knows_user,
        "cold_movie": ~knows_movie,
    }
    found = []
    for segment, rows in segments.items():
        if rows.any():
            count = int(rows.sum())
            found.append(Metric(segment, f"{prefix}rmse", float(np.sqrt(np.mean(error[rows] ** 2))), count))
            found.append(Metric(segment, f"{prefix}mae", float(np.mean(np.abs(error[rows]))), count))
    return found


def baselines(held: pa.Table, train: pa.Table) -> dict[str, NDArray[np.float32]]:
    """Predictions (rows of `held`,) of the mean rating, and of damped user and movie biases."""
    mean = float(pc.mean(train["rating"]).as_py())
    return {"mean": np.full(held.num_rows, mean, np.float32), "biases": biases(held, train)}


def biases(held: pa.Table, train: pa.Table) -> NDArray[np.float32]:
    """Mean + movie bias + user bias; an id without ratings has bias 0.

    Koren, Factor in the neighbors, 2010, section 2.1: the movie's bias first, the user's from what is left.
    """
    stars = train["rating"].to_numpy().astype(np.float64)
    mean = stars.mean()
    users, movies = Vocabulary.of(train["user_id"]), Vocabulary.of(train["movie_id"])
    user, movie = users.encode(train["user_id"]), movies.encode(train["movie_id"])
    of_movie = _damped(movie, stars - mean, movies.rows)
    of_user = _damped(user, stars - mean - of_movie[movie], users.rows)
    predicted = mean + of_movie[movies.encode(held["movie_id"])] + of_user[users.encode(held["user_id"])]
    return np.clip(predicted, stars.min(), stars.max()).astype(np.float32)


def _damped(rows: NDArray[np.int32], residual: NDArray[np.float64], size: int) -> NDArray[np.float64]:
    """Damped mean residual by row, shape (size,); 0 for a row without ratings, row 0 among them."""
    total = np.bincount(rows, residual, minlength=size)
    return total / (np.bincount(rows, minlength=size) + _DAMPING)


def _within(column: pa.ChunkedArray, known: pa.ChunkedArray) -> NDArray[np.bool_]:
    return pc.is_in(column, value_set=pc.unique(known)).to_numpy()
