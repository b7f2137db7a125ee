"""How good lists of movies are, measured over the full catalogue: every candidate a user has not rated is ranked, none sampled.

Relevant to a user are the held-out movies rated `relevant_from` stars or more. A relevant movie without a training rating
cannot be listed: it is a miss. Sampling the candidates would change which model is best (Krichene and Rendle, On sampled
metrics for item recommendation, KDD 2020).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from recommender import candidates, spread
from recommender.errors import NonFiniteScores
from recommender.evaluate import Metric, intervals
from recommender.rows import Rows
from recommender.vocabulary import Vocabulary

Scorer = Callable[[pa.Array], NDArray[np.float32]]
"""User ids (u,) to scores (u, M) in the order of `Task.movies`; the higher, the earlier in the list; -inf is never listed."""

_CELLS = 1 << 24
"""Cells of a dense block of users by movies: 64 MiB of float32."""


@dataclass(frozen=True)
class Task:
    """Whom to list movies for, which movies, and what is a hit."""

    users: pa.Array
    """Ids of the users measured, sorted, shape (U,)."""
    movies: pa.Array
    """Ids of the candidates, the most rated first, then by id, shape (M,): the order of `candidates.select`."""
    seen: Rows
    """What each user rated in training: never listed."""
    relevant: Rows
    """The hits there are for each user among the candidates."""
    n_relevant: NDArray[np.int64]
    """Relevant movies of each user, those that are no candidates included, shape (U,); at least 1 of a user who is measured."""


def good(ratings: pa.Table) -> float:
    """Stars from which a rating counts as good: three quarters up the scale; 3.875 on 0.5 to 5, 4 on 1 to 5."""
    scale = pc.min_max(ratings["rating"]).as_py()
    return float(scale["min"] + 0.75 * (scale["max"] - scale["min"]))


def task(train: pa.Table, held: pa.Table, relevant_from: float) -> Task:
    """The ranking task of a split: its candidates are the movies, its users those with ratings, in `train`.

    A user without a relevant held-out movie that is new to them is not measured. Each pair of user and movie is in a
    table at most once.
    """
    movies = candidates.select(train, None, min_ratings=1).ids
    vocabulary = Vocabulary.of(train["user_id"])
    liked = held.filter(pc.greater_equal(held["rating"], pa.scalar(relevant_from, pa.float64())))
    fan, hit = vocabulary.encode(liked["user_id"]).astype(np.int64) - 1, positions(liked["movie_id"], movies)
    asked = np.zeros(len(vocabulary), bool)
    asked[fan[fan >= 0]] = True
    user = vocabulary.encode(train["user_id"]) - 1
    of_asked = asked[user]  # of large inputs few: the newest ratings are of some
    user, movie = user[of_asked].astype(np.int64), positions(train["movie_id"].filter(pa.array(of_asked)), movies)
    repeated = (hit >= 0) & np.isin(fan * len(movies) + hit, user * len(movies) + movie)
    known = (fan >= 0) & ~repeated
    fan, hit = fan[known], hit[known]
    measured, row = np.unique(fan, return_inverse=True)
    place = np.full(len(vocabulary), -1, np.int64)
    place[measured] = np.arange(len(measured))
    own, listable = place[user] >= 0, hit >= 0
    return Task(
        vocabulary.ids.take(pa.array(measured, pa.int64())),
        movies,
        Rows.of(place[user[own]], movie[own], len(measured)),
        Rows.of(row[listable], hit[listable], len(measured)),
        np.bincount(row, minlength=len(measured)),
    )


def sampled(task: Task, most: int) -> Task:
    """The task for at most `most` of its users, drawn by a fixed seed."""
    return task if len(task.users) <= most else part(task, drawn(len(task.users), most))


def drawn(count: int, most: int) -> NDArray[np.int64]:
    """At most `most` of `count` places, ascending; always the same."""
    if count <= most:
        return np.arange(count)
    return np.sort(np.random.default_rng(0).choice(count, most, replace=False))


def part(task: Task, kept: NDArray[np.int64]) -> Task:
    """The task for some of its users, by their places among them."""

    def rows(of: Rows) -> Rows:
        place, position = of.cells(kept)
        return Rows.of(place, position.astype(np.int64), len(kept))

    users = task.users.take(pa.array(kept))
    return Task(users, task.movies, rows(task.seen), rows(task.relevant), task.n_relevant[kept])


def positions(column: pa.ChunkedArray | pa.Array, movies: pa.Array) -> NDArray[np.int64]:
    """Where the ids of a column stand among `movies`, shape (rows,); -1 for those that are not there."""
    return pc.fill_null(pc.index_in(column, value_set=movies), -1).to_numpy().astype(np.int64)


def lists(
    task: Task,
    scorer: Scorer,
    n: int = 50,
    users_per_block: int = 512,
    prices: NDArray[np.float32] | None = None,
) -> NDArray[np.int32]:
    """The `n` best unseen candidates of each user, best first, shape (U, n): positions in `task.movies`.

    Equal scores are taken in the order of the candidates. -1 fills the list of a user who has fewer than `n`. With `prices`
    (M,) the later places are in another order: `recommender/spread.py`. Raises `NonFiniteScores` where a score is not a
    number or infinitely high.
    """
    users, movies = len(task.users), len(task.movies)
    found = np.full((users, n), -1, np.int32)
    for first in range(0, users, users_per_block):
        block = np.arange(first, min(first + users_per_block, users))
        scores = np.array(scorer(task.users.slice(first, len(block))), np.float32)
        if scores.shape != (len(block), movies):
            raise ValueError(f"scores have shape {scores.shape}, not {(len(block), movies)}")
        broken = ~(scores < np.inf)
        if broken.any():
            raise NonFiniteScores(int(broken.any(axis=1).sum()))
        scores[task.seen.cells(block)] = -np.inf
        best = _best(scores, min(n, movies))
        found[block, : best.shape[1]] = best if prices is None else _priced(scores, best, prices)
    return found


def _priced(scores: NDArray[np.float32], best: NDArray[np.int32], prices: NDArray[np.float32]) -> NDArray[np.int32]:
    height = np.where(best < 0, -np.inf, np.take_along_axis(scores, np.maximum(best, 0), axis=1))
    return spread.priced(height, best, prices)[1]


def _best(scores: NDArray[np.float32], n: int) -> NDArray[np.int32]:
    """Positions of the `n` highest of each row, the lower first among equals, -1 for -inf; shape (u, n)."""
    border = np.partition(scores, scores.shape[1] - n, axis=1)[:, scores.shape[1] - n, None]
    above, equal = scores > border, scores == border
    chosen = above | (equal & (np.cumsum(equal, axis=1) <= n - above.sum(axis=1, keepdims=True)))
    found = np.nonzero(chosen)[1].reshape(len(scores), n)
    height = np.take_along_axis(scores, found, axis=1)
    order = np.argsort(-height, axis=1, kind="stable")
    ranked = np.take_along_axis(found, order, axis=1)
    return np.where(np.take_along_axis(height, order, axis=1) == -np.inf, -1, ranked).astype(np.int32)


def per_user(task: Task, lists: NDArray[np.int32], at: int) -> dict[str, NDArray[np.float64]]:
    """NDCG, recall, hit rate, reciprocal rank and average precision of the first `at` places, each of shape (U,).

    A hit gains 1, discounted by log2(1 + place) (Järvelin and Kekäläinen, Cumulated gain-based evaluation of IR
    techniques, 2002); the ideal list has min(at, n_relevant) hits, first. Average precision is the mean, over as many,
    of the precision at the place of each hit; recall is over all relevant movies.
    """
    hits = _hits(task, _top(lists, at)).astype(np.float64)
    place = np.arange(1, at + 1)
    most = np.minimum(at, task.n_relevant)
    discount = 1 / np.log2(1 + place)
    any_hit = hits.max(axis=1, initial=0)
    return {
        "ndcg": hits @ discount / np.cumsum(discount)[most - 1],
        "recall": hits.sum(axis=1) / task.n_relevant,
        "hit_rate": any_hit,
        "mrr": any_hit / (1 + hits.argmax(axis=1)),
        "map": (hits * np.cumsum(hits, axis=1) / place).sum(axis=1) / most,
    }


def beyond_accuracy(task: Task, lists: NDArray[np.int32], train: pa.Table | None, at: int) -> dict[str, float]:
    """Coverage and Gini coefficient, and with `train` novelty and diversity, of the first `at` places of all lists.

    coverage: share of the candidates that are listed at all. gini: of how often each candidate is listed, 0 where all are
    equally often. novelty: mean over places of -log2 of the share of training users who rated the movie, in bits (Vargas and
    Castells, Rank and relevance in novelty and diversity metrics, 2011). diversity: mean over users of the mean of
    1 - cosine of the listed pairs, a movie being the set of its training raters. Empty where nothing is listed.
    """
    top = _top(lists, at)
    listed = top[top >= 0]
    if not len(listed):
        return {}
    exposure = np.sort(np.bincount(listed, minlength=len(task.movies))).astype(np.float64)
    rank = 2 * np.arange(1, len(exposure) + 1) - len(exposure) - 1
    found = {
        "coverage": float(np.mean(exposure > 0)),
        "gini": float(rank @ exposure / (len(exposure) * exposure.sum())),
    }
    if train is None:
        return found
    rated = interactions(train, task.movies)
    n_raters = np.bincount(rated.positions, minlength=len(task.movies))
    novelty = float(np.mean(-np.log2(n_raters[listed] / len(rated))))
    return found | {"novelty": novelty, "diversity": _diversity(top, rated, n_raters)}


def measure(
    task: Task,
    lists: NDArray[np.int32],
    train: pa.Table | None,
    at: Sequence[int] = (10, 50),
    seed: int = 0,
    resamples: int = 1000,
) -> list[Metric]:
    """All figures of these lists at each cut-off, named like "ndcg@10"; those that are means over users have intervals.

    Novelty and diversity, which take long on large inputs, only with `train`. Empty where there is no user to measure.
    """
    found: list[Metric] = []
    users = len(task.users)
    for cut in at if users else ():
        values = per_user(task, lists, cut)
        sums = np.column_stack(list(values.values()))
        bounds = intervals(sums, np.ones_like(sums), seed, resamples)
        for name, mean, low, high in zip(values, sums.mean(axis=0), *bounds, strict=True):
            found.append(Metric("all", f"{name}@{cut}", float(mean), users, float(low), float(high)))
        for name, value in beyond_accuracy(task, lists, train, cut).items():
            found.append(Metric("all", f"{name}@{cut}", value, users))
    return found


def paired(
    a: NDArray[np.float64], b: NDArray[np.float64], user: NDArray[np.int32], seed: int = 0, resamples: int = 2000
) -> tuple[float, float, float]:
    """Mean of `a - b`, both (rows,), and the ends of its 95 % bootstrap interval over users.

    `user` (rows,) numbers from 0 whose row each is: the rows of one are drawn together, for they are not independent.
    """
    sums, counts = np.bincount(user, a - b).astype(np.float64)[:, None], np.bincount(user)[:, None].astype(np.float64)
    low, high = intervals(sums, counts, seed, resamples)
    return float(np.mean(a - b)), float(low[0]), float(high[0])


def everybody(train: pa.Table, movies: pa.Array) -> Task:
    """The task of listing `movies` for all users of `train`; there is nothing to hit."""
    rated, nothing = interactions(train, movies), np.zeros(0, np.int64)
    none = Rows.of(nothing, nothing, len(rated))
    return Task(Vocabulary.of(train["user_id"]).ids, movies, rated, none, np.zeros(len(rated), np.int64))


def interactions(ratings: pa.Table, movies: pa.Array) -> Rows:
    """Who rated which of `movies`: one row for each user of `ratings` in the order of their ids."""
    users = Vocabulary.of(ratings["user_id"])
    user, movie = users.encode(ratings["user_id"]) - 1, positions(ratings["movie_id"], movies)
    return Rows.of(user[movie >= 0], movie[movie >= 0], len(users))


def cooccurrence(rows: Rows, left: NDArray[np.int64], right: NDArray[np.int64]) -> NDArray[np.float32]:
    """How many users have both movies, for each position in `left` and in `right`: shape (left, right)."""
    width = int(max(left.max(initial=0), right.max(initial=0))) + 1
    step = max(1, _CELLS // width)
    found = np.zeros((len(left), len(right)), np.float32)
    for first in range(0, len(rows), step):
        block = rows.dense(np.arange(first, min(first + step, len(rows))), width)
        found += block[:, left].T @ block[:, right]
    return found


def _top(lists: NDArray[np.int32], at: int) -> NDArray[np.int32]:
    if not 1 <= at <= lists.shape[1]:
        raise ValueError(f"lists of {lists.shape[1]} places cannot be measured at {at}")
    return lists[:, :at]


def _hits(task: Task, top: NDArray[np.int32]) -> NDArray[np.bool_]:
    """Whether each place holds a relevant movie, shape (U, at)."""
    user, movie = task.relevant.cells(np.arange(len(task.relevant)))
    key = np.arange(len(top))[:, None] * len(task.movies) + top
    return np.isin(key, user * len(task.movies) + movie) & (top >= 0)


def _diversity(top: NDArray[np.int32], rated: Rows, n_raters: NDArray[np.int64]) -> float:
    """Mean over users of the mean of 1 - cosine over pairs of listed movies; 0 where no list has two.

    Only the listed movies are compared, by tiles of rows: no matrix of all movies by all movies is made.
    """
    distinct = np.unique(top[top >= 0]).astype(np.int64)
    user, place = np.nonzero(top >= 0)
    row = np.searchsorted(distinct, top[user, place])
    others = np.searchsorted(distinct, top)  # -1 becomes 0, and is masked
    total = np.zeros(len(top))
    tile = max(1, _CELLS // max(1, len(distinct)))
    for first in range(0, len(distinct), tile):
        left = distinct[first : first + tile]
        cosine = cooccurrence(rated, left, distinct) / np.sqrt(np.outer(n_raters[left], n_raters[distinct]))
        inside = (row >= first) & (row < first + tile)
        near = cosine[(row[inside] - first)[:, None], others[user[inside]]] * (top[user[inside]] >= 0)
        total += np.bincount(user[inside], near.sum(axis=1), minlength=len(top))
    n = (top >= 0).sum(axis=1)
    several = n > 1
    if not several.any():
        return 0.0
    near_mean = (total - n)[several] / (n * (n - 1))[several]  # less each movie's cosine of 1 with itself
    return float(np.mean(1 - near_mean))
