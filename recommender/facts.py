"""What the towers look up of what is known: arrays by user, movie, rating and period."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from recommender import taste
from recommender.evaluate import damped
from recommender.known import Known, by_row

_RATERS = 1 << 20
"""Raters of all movies that a step of training looks up. Where there are more, movies with many have some left out."""


def looked_up(
    known: Known, trained_users: NDArray[np.int32], trained_movies: NDArray[np.int32], trend_days: float, learns: bool
) -> dict[str, NDArray[Any]]:
    """By user (users.rows,), movie (movies.rows,) or rating (R,), unless it says otherwise; some only if the model `learns`.

    `trained_users` (users.rows,) and `trained_movies` (movies.rows,) are the rows they had in training, 0 for new ones.
    """
    good, n = known.good, np.diff(known.starts)
    chosen = np.bincount(known.movie[good], minlength=known.movies.rows) + 0.5
    trained = np.where(n > 0, trained_users, 0).astype(np.int64)
    raters, counts = some_raters(known, _RATERS)
    weights = ((np.maximum(counts, 1) ** -0.5).astype(np.float32))[known.movie[raters]]
    recent = trend(known, trend_days)
    found = {
        "starts": known.starts,
        "movie": known.movie,
        "surprise": surprise(known),
        "good": good.astype(np.float32),
        "unobserved": np.float32(taste.weight(known)),  # ()
        "trained_users": trained,
        "trained_movies": trained_movies,
        "raters": np.stack([known.movie[raters], trained[known.user[raters]]], axis=1),  # movie, user: (raters, 2)
        "rater_weights": weights,  # (raters,)
        "user_side": known.user_features.dense(),  # (users.rows, features)
        "movie_side": known.movie_features.dense(),
        "user_scale": (np.maximum(n, 1) ** -0.5).astype(np.float32),
        "log_share": np.log(chosen / chosen.sum()).astype(np.float32),
        "trend": recent
        if learns
        else recent[-1:].copy(),  # (periods + 1, movies.rows), or of the present (1, movies.rows)
        "open": np.bincount(known.movie, minlength=known.movies.rows) > 0,
    }
    if learns:
        as_rater = np.zeros(len(known.user), np.float32)
        as_rater[raters] = weights
        found |= {"stars": known.stars, "period": known.period, "as_rater": as_rater}
    return found


def trend(known: Known, mean_life: float, prior: float = 5.0) -> NDArray[np.float32]:
    """Log ratio of a movie's recent to its overall share of good ratings, shape (periods + 1, movie rows).

    Recent, in row p, are the ratings before period p; the last row is the present. Their counts decay with `mean_life`, in
    days, and `prior` ratings, spread as overall, are added to them.
    """
    liked = known.good
    movies, periods = known.movies.rows, known.periods
    overall = np.bincount(known.movie[liked], minlength=movies) + 0.5
    overall /= overall.sum()
    order = by_row(known.period[liked])
    period, movie = known.period[liked][order], known.movie[liked][order]
    bounds = np.searchsorted(period, np.arange(periods + 1))
    recent, fade = np.zeros(movies), np.exp(-known.period_days / mean_life)
    found = np.zeros((periods + 1, movies), np.float32)
    for now in range(periods + 1):
        found[now] = np.log((recent + prior * overall) / (recent.sum() + prior) / overall)
        if now < periods:
            recent = recent * fade + np.bincount(movie[bounds[now] : bounds[now + 1]], minlength=movies)
    return found


def some_raters(known: Known, most: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """At most `most` ratings, by movie, and how many there are of each, shape (movies.rows,).

    Movies with more than their share have theirs thinned out evenly to one number, the largest that fits.
    """
    order = by_row(known.movie)
    counts = np.bincount(known.movie, minlength=known.movies.rows)
    fewest, largest = 0, int(counts.max(initial=0))
    while fewest < largest:
        middle = (fewest + largest + 1) // 2
        fits = int(np.minimum(counts, middle).sum()) <= most
        fewest, largest = (middle, largest) if fits else (fewest, middle - 1)
    kept = np.minimum(counts, fewest)
    first = np.cumsum(counts) - counts
    movie = np.repeat(np.arange(len(kept)), kept)
    number = np.arange(len(movie)) - (np.cumsum(kept) - kept)[movie]
    rank = -(-number * counts[movie] // kept[movie])  # of number 0, 1, ... of those kept among all
    return order[first[movie] + rank], kept


def surprise(known: Known) -> NDArray[np.float32]:
    """Stars above the damped mean of the movie, shape (R,): nothing of the user's other ratings is in it."""
    above = known.stars - known.stars.mean(dtype=np.float64)
    above -= damped(known.movie, above, known.movies.rows)[known.movie]
    return above.astype(np.float32)
