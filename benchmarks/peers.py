"""The libraries recjob is compared with, behind one interface: numpy arrays in, predicted stars or scores out.

RATING_PEERS map a name to `fit_predict(train, user, movie, at, seed)`: the stars of the given pairs, clipped to the scale.
RANKING_PEERS map a name to `fit_scores(train, seed)`: scores of all users by all movies, candidates or not. Libraries are
imported by the first model that needs them; a missing one is an ImportError of one line. Threads: OMP_NUM_THREADS, or one.
"""

import contextlib
import io
import itertools
import os
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from importlib import import_module
from typing import Any

import numpy as np
import scipy.sparse as sp
from scipy.special import ndtr

DAY = 86_400
THREADS = int(os.environ.get("OMP_NUM_THREADS") or 1)
SVD_TUNED: dict[str, Any] = {"n_factors": 100, "n_epochs": 80, "lr_all": 0.005, "reg_all": 0.12}
SVDPP_TUNED: dict[str, Any] = {"n_factors": 20, "n_epochs": 40, "lr_all": 0.005, "reg_all": 0.05, "cache_ratings": True}
BPR_TUNED: dict[str, Any] = {"factors": 64, "learning_rate": 0.005, "regularization": 0.01, "iterations": 100}
"""Settings for ML-100k: SVD's and BPR's out of small grids on a held tenth of a training part, SVD++'s by hand."""
ALS_GRID: dict[str, Any] = {"factors": (16, 32, 64), "regularization": (1.0, 10.0, 30.0), "alpha": (1.0, 3.0, 10.0)}


@dataclass(frozen=True, eq=False)
class Ratings:
    """Ratings as columns. Users and movies are numbers below `users` and `movies`; a pair occurs once."""

    user: np.ndarray
    movie: np.ndarray
    stars: np.ndarray
    at: np.ndarray
    users: int
    movies: int
    user_features: sp.csr_matrix | None = None
    movie_features: sp.csr_matrix | None = None

    @property
    def scale(self) -> tuple[float, float]:
        """The lowest and the highest rating."""
        return float(self.stars.min()), float(self.stars.max())

    def good(self) -> "Ratings":
        """The good ratings: three quarters up the scale, 4 of 1 to 5."""
        lowest, highest = self.scale
        return self.take(self.stars >= lowest + 0.75 * (highest - lowest))

    def take(self, rows: np.ndarray) -> "Ratings":
        """Some of the rows (numbers or a mask), with the same sizes and features."""
        return replace(self, **{name: getattr(self, name)[rows] for name in ("user", "movie", "stars", "at")})

    def matrix(self) -> sp.csr_matrix:
        """Users by movies, 1 where there is a rating."""
        places = np.ones(len(self.user), np.float32), (self.user, self.movie)
        return sp.csr_matrix(places, shape=(self.users, self.movies))


def library(name: str) -> Any:
    """A peer's module, or an ImportError that says what to install."""
    try:
        return import_module(name)
    except ImportError as error:
        raise ImportError(f"cannot import {name} ({error}): pip install -e '.[bench]'") from None


def unit_rows(matrix: sp.csr_matrix) -> sp.csr_matrix:
    """A matrix of ones with its rows scaled to length 1."""
    counts = np.asarray(matrix.sum(axis=1), np.float64).ravel()
    return (sp.diags(np.maximum(counts, 1) ** -0.5) @ matrix).tocsr()


def surprise_factors(train: Ratings, seed: int, model: str, **options: Any) -> tuple[np.ndarray, np.ndarray]:
    """Fit Surprise's SVD or SVDpp: vectors of users and movies, biases included, whose products are its unclipped stars."""
    surprise = library("surprise")
    rows = list(zip(train.user.tolist(), train.movie.tolist(), train.stars.tolist(), train.at.tolist(), strict=True))
    known = surprise.Dataset(surprise.Reader(rating_scale=train.scale)).construct_trainset(rows)
    fitted = getattr(surprise, model)(random_state=seed, **options).fit(known)
    of_user = np.array([known.to_raw_uid(inner) for inner in known.all_users()])
    of_movie = np.array([known.to_raw_iid(inner) for inner in known.all_items()])
    width = fitted.pu.shape[1]
    users, movies = np.zeros((train.users, width + 2)), np.zeros((train.movies, width + 2))
    users[of_user, 2:], movies[of_movie, 2:] = fitted.pu, fitted.qi
    if model == "SVDpp":
        rated = np.zeros((train.movies, width))
        rated[of_movie] = fitted.yj
        users[:, 2:] += unit_rows(train.matrix()) @ rated
    users[of_user, 0], movies[of_movie, 1] = fitted.bu, fitted.bi
    users[:, 0] += known.global_mean
    users[:, 1] = movies[:, 0] = 1
    return users, movies


def surprise_stars(
    train: Ratings, user: np.ndarray, movie: np.ndarray, at: np.ndarray, seed: int, model: str = "SVD", **options: Any
) -> np.ndarray:
    """Stars by Surprise, by default with its own defaults."""
    users, movies = surprise_factors(train, seed, model, **options)
    return np.clip(np.einsum("ij,ij->i", users[user], movies[movie]), *train.scale)


def surprise_ranked(train: Ratings, seed: int) -> np.ndarray:
    """The tuned SVD's stars as scores: what ranking by predicted rating gives."""
    users, movies = surprise_factors(train, seed, "SVD", **SVD_TUNED)
    return (users @ movies.T).astype(np.float32)


class FactorizationMachine:
    """myFM's ordered probit on ids, on who rated what, on the side features and, where given, on calendar days."""

    def __init__(self, train: Ratings, seed: int, days: np.ndarray, n_iter: int, rank: int = 10) -> None:
        myfm, seen = library("myfm"), train.matrix()
        user_parts = [sp.eye(train.users), unit_rows(seen), train.user_features]
        movie_parts = [sp.eye(train.movies), unit_rows(seen.T), train.movie_features]
        parts = [[part for part in half if part is not None] for half in (user_parts, movie_parts)]
        self.user, self.movie = (sp.csr_matrix(sp.hstack(half), dtype=np.float64) for half in parts)
        self.days = days
        self.levels, level = np.unique(train.stars.astype(np.float64), return_inverse=True)
        groups = [part.shape[1] for part in parts[0] + parts[1]] + [len(days)] * (len(days) > 0)
        rows, kept = self.blocks(train.user, train.movie, train.at), n_iter - min(50, n_iter // 2)
        self.fitted = myfm.MyFMOrderedProbit(rank=rank, random_seed=seed)
        with contextlib.redirect_stderr(io.StringIO()):  # its progress bar
            self.fitted.fit(None, level, X_rel=rows, n_iter=n_iter, n_kept_samples=kept, group_shapes=groups)

    def blocks(self, user: np.ndarray, movie: np.ndarray, at: np.ndarray) -> list[Any]:
        """Rows as relation blocks: each points at the features of its user, its movie and its day, if that is known."""
        block = library("myfm").RelationBlock
        blocks = [block(user, self.user), block(movie, self.movie)]
        if len(self.days):
            place = np.minimum(np.searchsorted(self.days, at // DAY), len(self.days) - 1)
            place[self.days[place] != at // DAY] = len(self.days)
            blocks.append(block(place, sp.eye(len(self.days) + 1, len(self.days), format="csr")))
        return blocks

    def stars(self, user: np.ndarray, movie: np.ndarray, at: np.ndarray) -> np.ndarray:
        """The expected stars of some pairs."""
        return self.fitted.predict_proba(None, self.blocks(user, movie, at), n_workers=THREADS) @ self.levels

    def chance_of(self, least: float) -> np.ndarray:
        """For all pairs, without a day, how likely at least so many stars are: the mean over myFM's draws."""
        cut, split = np.searchsorted(self.levels, least) - 1, self.user.shape[1]
        draws = self.fitted.predictor_.samples
        total = np.zeros((self.user.shape[0], self.movie.shape[0]), np.float32)
        for draw, cuts in zip(draws, self.fitted.cutpoint_samples, strict=True):
            own, p = half_score(self.user, draw.w[:split], draw.V[:split])
            its, q = half_score(self.movie, draw.w[split:], draw.V[split:])
            own += np.float32(draw.w0 - cuts[cut])
            total += ndtr(p @ q.T + own[:, None] + its)
        return total / len(draws)


def half_score(features: sp.csr_matrix, w: np.ndarray, v: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """What one block adds to a score by itself, and the vectors whose products with another block's are the rest."""
    vectors = features @ v
    inside = (vectors**2).sum(axis=1) - (features.multiply(features) @ v**2).sum(axis=1)
    return (features @ w + inside / 2).astype(np.float32), vectors.astype(np.float32)


def myfm_stars(
    train: Ratings, user: np.ndarray, movie: np.ndarray, at: np.ndarray, seed: int, n_iter: int = 300, day: bool = True
) -> np.ndarray:
    """myFM with all it can use. The calendar day counts only where most of the days asked for occur in train."""
    days = np.unique(train.at // DAY)
    if not day or np.isin(at // DAY, days).mean() < 0.5:
        days = days[:0]
    return np.clip(FactorizationMachine(train, seed, days, n_iter).stars(user, movie, at), *train.scale)


def myfm_ranked(train: Ratings, seed: int, n_iter: int = 300) -> np.ndarray:
    """How likely myFM thinks a good rating, for all pairs."""
    return FactorizationMachine(train, seed, np.zeros(0, np.int64), n_iter).chance_of(train.good().scale[0])


def implicit_scores(train: Ratings, seed: int, model: str, **options: Any) -> np.ndarray:
    """Scores of one of implicit's factor models on the CPU."""
    module, name = model.split(".")
    with library("threadpoolctl").threadpool_limits(1, "blas"):
        fitted = getattr(library(f"implicit.{module}"), name)(use_gpu=False, random_state=seed, **options)
        fitted.fit(train.matrix(), show_progress=False)
    return fitted.user_factors @ fitted.item_factors.T


def als(train: Ratings, seed: int, **options: Any) -> np.ndarray:
    """implicit's ALS; by default with its own defaults, every rating a positive."""
    return implicit_scores(train, seed, "als.AlternatingLeastSquares", num_threads=THREADS, **options)


def als_tuned(train: Ratings, seed: int, newest: bool = False) -> np.ndarray:
    """ALS on all or only good ratings, with the options that rank a held tenth of train best; then fitted on all of it.

    That tenth is drawn at random, or it is the newest one, which suits a test set that comes later.
    """
    order = np.argsort(train.at, kind="stable") if newest else np.random.default_rng(seed).permutation(len(train.at))
    rest, held = (train.take(np.sort(rows)) for rows in np.split(order, [int(0.9 * len(order))]))
    options = [dict(zip(ALS_GRID, values, strict=True)) for values in itertools.product(*ALS_GRID.values())]
    choices = itertools.product((rest, rest.good()), options)
    part, best = max(choices, key=lambda choice: ndcg(als(choice[0], seed, **choice[1]), rest, held))
    return als(train if part is rest else train.good(), seed, **best)


def bpr(train: Ratings, seed: int) -> np.ndarray:
    """implicit's BPR on good ratings; one thread, since more of them race."""
    return implicit_scores(train.good(), seed, "bpr.BayesianPersonalizedRanking", num_threads=1, **BPR_TUNED)


def item_knn(train: Ratings, seed: int) -> np.ndarray:
    """implicit's cosine similarity of movies, summed over the good ratings of a user."""
    liked = train.good().matrix()
    fitted = library("implicit.nearest_neighbours").CosineRecommender(K=200, num_threads=THREADS)
    with warnings.catch_warnings(action="ignore"):  # of a matrix it makes itself
        fitted.fit(liked, show_progress=False)
    return (liked @ fitted.similarity).toarray().astype(np.float32)


def ndcg(scores: np.ndarray, train: Ratings, held: Ratings, top: int = 10) -> float:
    """Mean NDCG of good held ratings among the movies in train that the user did not rate there."""
    scores, wanted = scores.copy(), held.good().matrix().toarray() > 0
    scores[:, np.bincount(train.movie, minlength=train.movies) == 0] = -np.inf
    scores[train.user, train.movie] = -np.inf
    asked = wanted.any(axis=1) & (np.bincount(train.user, minlength=train.users) > 0)
    scores, wanted = scores[asked], wanted[asked]
    best = np.argpartition(-scores, top, axis=1)[:, :top]
    best = np.take_along_axis(best, np.argsort(-np.take_along_axis(scores, best, 1), axis=1), 1)
    discount = 1 / np.log2(np.arange(2, top + 2))
    gained = (np.take_along_axis(wanted, best, 1) * discount).sum(axis=1)
    return float((gained / discount.cumsum()[np.minimum(wanted.sum(axis=1), top) - 1]).mean())


RATING_PEERS: dict[str, Callable[..., np.ndarray]] = {
    "Surprise SVD": surprise_stars,
    "Surprise SVD tuned": partial(surprise_stars, **SVD_TUNED),
    "Surprise SVD++": partial(surprise_stars, model="SVDpp", **SVDPP_TUNED),
    "myFM": myfm_stars,
    "myFM without the day": partial(myfm_stars, day=False),
}
RANKING_PEERS: dict[str, Callable[..., np.ndarray]] = {
    "implicit ALS": als,
    "implicit ALS tuned": als_tuned,
    "implicit BPR": bpr,
    "implicit item-kNN (cosine)": item_knn,
    "Surprise SVD ranked by rating": surprise_ranked,
    "myFM P(good)": myfm_ranked,
}
