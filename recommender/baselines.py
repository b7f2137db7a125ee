"""Recommenders without a training loop, to measure a model's lists against: each fits in seconds and scores all candidates.

Each takes a training part and a ranking task, and returns a scorer for the task's movies. A user without training ratings
gets the same scores as every other from `popularity` and `recent_popularity`, a bias of 0 from `biases`, and 0 everywhere
from the two that need a history; equal scores are listed most rated first.
"""

from collections.abc import Callable

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from recommender.evaluate import Biases
from recommender.ranking import Scorer, Task, cooccurrence, good, interactions, positions
from recommender.schema import DAY
from recommender.vocabulary import Vocabulary

_OF_ALL = 1e-3
"""What an old rating is worth beside one of this instant: enough to order movies without recent ones."""


def popularity(train: pa.Table, task: Task) -> Scorer:
    """The number of training ratings."""
    counts = np.bincount(_listed(train, task), minlength=len(task.movies))
    return _same_for_all(counts.astype(np.float32))


def recent_popularity(train: pa.Table, task: Task, days: float = 14.0, relevant_from: float | None = None) -> Scorer:
    """Good ratings, each worth exp(-age / days) at the newest training rating, and 1/1000 of the number of all ratings.

    `relevant_from`: stars of a good rating; `ranking.good` where it is not given.
    """
    liked = _liked(train, relevant_from)
    at = liked["rated_at"].cast(pa.int64()).to_numpy()
    newest = pc.max(train["rated_at"].cast(pa.int64())).as_py()
    worth = np.exp((at - newest) / (days * DAY))
    recent = np.bincount(_listed(liked, task), worth, minlength=len(task.movies))
    counts = np.bincount(_listed(train, task), minlength=len(task.movies))
    return _same_for_all((recent + _OF_ALL * counts).astype(np.float32))


def biases(train: pa.Table, task: Task) -> Scorer:
    """The rating that damped biases predict, in stars; not clipped to the scale, which would make equals of the best."""
    fitted = Biases.of(train)
    of_movie = fitted.mean + fitted.movie(task.movies)
    return lambda users: (fitted.user(users)[:, None] + of_movie).astype(np.float32)


def item_knn(
    train: pa.Table,
    task: Task,
    neighbours: int = 100,
    shrink: float = 10.0,
    relevant_from: float | None = None,
    limit: int = 8000,
) -> Scorer:
    """The sum of a movie's similarities to those the user rated well; similar is who shares such raters.

    The similarity of i and j is n_ij / (sqrt(n_i n_j) + shrink), n being numbers of good ratings, and 0 unless i is among
    the `neighbours` nearest to j, equals of the last included (Deshpande and Karypis, Item-based top-N recommendation
    algorithms, 2004; the shrinkage as in Ferrari Dacrema and others, Are we really making much progress?, 2019).
    The `limit` most rated movies have scores, all others 0: similarities are a dense matrix, 0.25 GB for 8000 movies.
    `relevant_from`: stars of a good rating; `ranking.good` where it is not given.
    """
    liked = _liked(train, relevant_from)
    every = np.arange(min(limit, len(task.movies)))
    similar = cooccurrence(interactions(liked, task.movies), every, every)
    raters = np.diag(similar).copy()
    similar /= np.maximum(np.sqrt(np.outer(raters, raters)) + np.float32(shrink), np.float32(1e-9))
    np.fill_diagonal(similar, 0)
    if neighbours < len(every):
        border = np.partition(similar, len(every) - neighbours, axis=0)[len(every) - neighbours]
        similar[similar < border] = 0
    return _linear(liked, task, similar)


def ease(
    train: pa.Table, task: Task, l2: float = 500.0, relevant_from: float | None = None, limit: int = 8000
) -> Scorer:
    """EASE: a movie's liking is a weighted sum of the user's good ratings, the weights the ridge regression's in closed form.

    With P the inverse of X'X + l2 I, X the users by movies of good ratings, weights are -P_ij / P_jj and 0 on the diagonal
    (Steck, Embarrassingly shallow autoencoders for sparse data, 2019, equation 8). The `limit` most rated movies have
    scores, all others 0: time grows with their third power, memory with their square, about 2 GB for 8000 movies.
    `relevant_from`: stars of a good rating; `ranking.good` where it is not given.
    """
    liked = _liked(train, relevant_from)
    every = np.arange(min(limit, len(task.movies)))
    gram = cooccurrence(interactions(liked, task.movies), every, every).astype(np.float64)
    gram[every, every] += l2
    inverse = np.linalg.inv(gram)
    weights = (inverse / -np.diag(inverse)).astype(np.float32)
    np.fill_diagonal(weights, 0)
    return _linear(liked, task, weights)


BASELINES: dict[str, Callable[[pa.Table, Task], Scorer]] = {
    "popularity": popularity,
    "recent popularity": recent_popularity,
    "biases": biases,
    "item-kNN": item_knn,
    "EASE": ease,
}


def _listed(ratings: pa.Table, task: Task) -> NDArray[np.int64]:
    """Positions of the rated movies in the task; training rates no others."""
    return positions(ratings["movie_id"], task.movies)


def _liked(train: pa.Table, relevant_from: float | None) -> pa.Table:
    least = good(train) if relevant_from is None else relevant_from
    return train.filter(pc.greater_equal(train["rating"], pa.scalar(least, pa.float64())))


def _same_for_all(scores: NDArray[np.float32]) -> Scorer:
    return lambda users: np.broadcast_to(scores, (len(users), len(scores)))


def _linear(history: pa.Table, task: Task, weights: NDArray[np.float32]) -> Scorer:
    """Sums of the rows of `weights` (m, m) of a user's movies in `history`, 0 for the movies from m on."""
    known = Vocabulary.of(history["user_id"])
    rows = interactions(history, task.movies)

    def score(users: pa.Array) -> NDArray[np.float32]:
        found = np.zeros((len(users), len(task.movies)), np.float32)
        found[:, : len(weights)] = rows.dense(known.encode(users).astype(np.int64) - 1, len(weights)) @ weights
        return found

    return score
