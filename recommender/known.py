"""What is known at a moment, in rows and numbers: where a model looks up who rated what, when, and what a movie is."""

import dataclasses
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from recommender.ranking import good
from recommender.schema import DAY
from recommender.vocabulary import Vocabulary

_SECOND = 1_000_000
"""Microseconds."""
_PERIODS = 512
"""Most periods that time is cut into: what is recent is kept for each."""
_YEARS = np.array([0, 1930, 1940, 1950, 1960, 1965, 1970, 1975, 1980, 1985, *range(1988, 2036)])
_AGES = np.array([0, 18, 25, 35, 45, 50, 56])


@dataclass(frozen=True)
class Attributes:
    """What is known beside the ratings, where it is."""

    users: pa.Table | None = None
    """`schema.users`."""
    movies: pa.Table | None = None
    """`schema.movies`."""


NO_ATTRIBUTES = Attributes()


class Names(NamedTuple):
    """The features that a model knows, by name."""

    users: tuple[str, ...]
    movies: tuple[str, ...]


NO_NAMES = Names((), ())


@dataclass(frozen=True)
class Features:
    """Which features the rows of a vocabulary have, in compressed rows: row r has `columns[starts[r]:starts[r + 1]]`."""

    names: tuple[str, ...]
    starts: NDArray[np.int64]
    columns: NDArray[np.int32]
    weights: NDArray[np.float32]

    def dense(self) -> NDArray[np.float32]:
        """Shape (rows, len(names)); where there are no features, one that nobody has: hosts cannot exchange what is empty."""
        rows = len(self.starts) - 1
        found = np.zeros((rows, max(1, len(self.names))), np.float32)
        found[np.repeat(np.arange(rows), np.diff(self.starts)), self.columns] = self.weights
        return found


@dataclass(frozen=True)
class Known:
    """Ratings sorted by user, then time, then movie; row 0 of users and movies is the unknown one and has none."""

    users: Vocabulary
    movies: Vocabulary
    user: NDArray[np.int32]
    """Rows of `users`, shape (R,)."""
    movie: NDArray[np.int32]
    """Rows of `movies`, shape (R,)."""
    stars: NDArray[np.float32]
    period: NDArray[np.int32]
    """When, in periods of `period_days` since the first rating, shape (R,)."""
    period_days: int
    """One day, or more where the ratings span more than `_PERIODS` days."""
    good_from: float
    """Stars from which a rating counts as good."""
    starts: NDArray[np.int64]
    """Shape (users.rows + 1,): the ratings of user row u are `starts[u]:starts[u + 1]`."""
    user_features: Features
    movie_features: Features

    @property
    def good(self) -> NDArray[np.bool_]:
        """Which ratings count as good, shape (R,)."""
        return self.stars >= self.good_from

    @property
    def periods(self) -> int:
        """Number of periods, first rating to last."""
        return int(self.period.max()) + 1 if len(self.period) else 1


def known(
    ratings: pa.Table,
    users: Vocabulary,
    movies: Vocabulary,
    attributes: Attributes = NO_ATTRIBUTES,
    names: Names | None = None,
) -> Known:
    """Encode `ratings`; those of users or movies outside the vocabularies are left out.

    The features are those called `names`, in that order, or all there are.
    """
    user, movie = users.encode(ratings["user_id"]), movies.encode(ratings["movie_id"])
    at = ratings["rated_at"].cast(pa.int64()).to_numpy()
    stars = ratings["rating"].to_numpy().astype(np.float32, copy=False)
    order = _order(user, at, movie)
    first, last = (int(at.min()), int(at.max())) if len(at) else (0, 0)
    length = -(-((last - first) // DAY + 1) // _PERIODS)
    return Known(
        users,
        movies,
        user[order],
        movie[order],
        stars[order],
        ((at[order] - first) // (length * DAY)).astype(np.int32),
        length,
        good(ratings),
        row_starts(user[order], users.rows),
        _features(users, _of_users(users, attributes.users), names and names.users),
        _features(movies, _of_movies(movies, attributes.movies), names and names.movies),
    )


def some_users(known: Known, most: int, seed: int) -> Known:
    """What is known of users drawn at random who have at most `most` ratings together; all, where these are no more."""
    if len(known.user) <= most:
        return known
    drawn = np.random.default_rng(seed).permutation(known.users.rows)
    chosen = np.zeros(known.users.rows, bool)
    chosen[drawn[np.cumsum(np.diff(known.starts)[drawn]) <= most]] = True
    if not chosen[known.user].any():
        return known
    kept = chosen[known.user]
    columns = {name: getattr(known, name)[kept] for name in ("user", "movie", "stars", "period")}
    return dataclasses.replace(known, **columns, starts=row_starts(columns["user"], known.users.rows))


def by_row(rows: NDArray[np.int32]) -> NDArray[np.int64]:
    """The order that sorts `rows`, those of one row as they are: sorting values is quicker than `argsort` by a stable way."""
    count = len(rows)
    cells = np.multiply(rows, count, dtype=np.int64)  # in place from here on: there may be many
    cells += np.arange(count)
    cells.sort()
    cells %= max(count, 1)
    return cells


def _order(user: NDArray[np.int32], at: NDArray[np.int64], movie: NDArray[np.int32]) -> NDArray[np.int64]:
    """`np.lexsort((movie, at, user))` without row 0 of either: as one sort of one number where they fit into it, which takes
    a fifth of the time."""
    known = (user > 0) & (movie > 0)
    if not known.all():
        kept = np.flatnonzero(known)
        return kept[_order(user[kept], at[kept], movie[kept])]
    if not len(user):
        return np.zeros(0, np.int64)
    key = at - at.min()
    if not (key % _SECOND).any():
        key //= _SECOND
    span, movies = int(key.max()) + 1, int(movie.max()) + 1
    if (int(user.max()) + 1) * span * movies >= 2**63:
        return np.lexsort((movie, at, user))
    key += np.multiply(user, span, dtype=np.int64)
    key *= movies
    key += movie
    return np.argsort(key)


def row_starts(rows: NDArray[np.integer], size: int) -> NDArray[np.int64]:
    """Where each of `size` rows starts among the sorted `rows`, and where the last ends, shape (size + 1,)."""
    return np.concatenate([[0], np.cumsum(np.bincount(rows, minlength=size))]).astype(np.int64)


_Parts = list[tuple[NDArray[np.int32], NDArray[np.str_]]]
"""Rows and the words that describe them, one pair of arrays for each kind of words."""


def _of_users(users: Vocabulary, table: pa.Table | None) -> _Parts:
    """Age band, gender and occupation, each a feature of its own."""
    if table is None:
        return []
    row = users.encode(table["user_id"])
    found = []
    if "age" in table.column_names:
        age = pc.fill_null(table["age"].cast(pa.int64()), -1).to_numpy()
        found.append((row, _bands("age", age, _AGES)))
    for column in ("gender", "occupation"):
        if column in table.column_names:
            words = np.array(pc.fill_null(table[column].cast(pa.string()), "").to_pylist(), dtype=object)
            found.append((row, np.where(words == "", "", column + " " + words.astype(str))))
    return found


def _of_movies(movies: Vocabulary, table: pa.Table | None) -> _Parts:
    """Genres, and a band of years."""
    if table is None:
        return []
    row = movies.encode(table["movie_id"])
    found = []
    if "genres" in table.column_names:
        genres = table["genres"].combine_chunks()
        parent = pc.list_parent_indices(genres).to_numpy()
        words = pc.fill_null(pc.list_flatten(genres), "").to_pylist()
        found.append((row[parent], np.array([word and f"genre {word}" for word in words], dtype=np.str_)))
    if "year" in table.column_names:
        year = pc.fill_null(table["year"].cast(pa.int64()), -1).to_numpy()
        found.append((row, _bands("year", year, _YEARS)))
    return found


def _bands(kind: str, values: NDArray[np.int64], edges: NDArray[np.int64]) -> NDArray[np.str_]:
    """The band of each value, named by where it begins; "" for a negative value, which stands for none."""
    begins = edges[np.maximum(np.searchsorted(edges, values, side="right") - 1, 0)]
    return np.where(values < 0, "", [f"{kind} {begin}" for begin in begins])


def _features(vocabulary: Vocabulary, parts: _Parts, names: tuple[str, ...] | None) -> Features:
    """Rows and words as compressed rows. Words of one kind share a weight of 1 in squares: three genres, 1/sqrt(3) each."""
    nothing = np.zeros(0, np.int32)
    rows, words, weights = [nothing], [np.zeros(0, np.str_)], [np.zeros(0)]
    for row, word in parts:
        kept = (row > 0) & (word != "")
        counts = np.bincount(row[kept], minlength=vocabulary.rows)
        rows.append(row[kept])
        words.append(word[kept].astype(str))
        weights.append(counts[row[kept]] ** -0.5)
    row, word, weight = np.concatenate(rows), np.concatenate(words), np.concatenate(weights)
    if names is None:
        names = tuple(map(str, np.unique(word)))
    place = {name: column for column, name in enumerate(names)}
    column = np.array([place.get(str(one), -1) for one in word], np.int32)
    order = np.lexsort((column, row))
    order = order[column[order] >= 0]
    starts = row_starts(row[order], vocabulary.rows)
    return Features(names, starts, column[order], weight[order].astype(np.float32))
