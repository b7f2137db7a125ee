"""What people decide about lists beside the model: movies kept out, of all lists or of one user's, and what stands where.

Arithmetic on positions among candidates, for a block of users at a time; settings and files are read in `jobs/rules.py`.
"""

import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from recommender.candidates import Candidates
from recommender.rows import Rows

BY_SCORE, PINNED, NEW, FILLER = range(4)
"""Why a movie stands in a list."""
SOURCES = ("model", "pinned", "new_movie", "filler")
"""What that is called in the tables; the lists that are nobody's in particular have `cold_user` in place of `model`."""
_POOL = 20
"""Movies that are looked at beyond a list for each place that a cap is on: with most of them of one genre there are others."""


@dataclass(frozen=True)
class Rules:
    """What was decided; ids have the types of the ratings. By default nothing was, and lists are as the model has them."""

    closed: Mapping[str, pa.Array] = field(default_factory=dict)
    """By the name of its setting, the movies that a rule keeps out of all lists."""
    excluded: pa.Table | None = None
    """user_id, movie_id: movies that a user is not to get."""
    opted_out: pa.Array | None = None
    """Users who are to get no list."""
    pinned: pa.Array | None = None
    """Movies that stand first in every list, in this order."""
    new: pa.Array | None = None
    """Movies that the places for new ones are given to in turn."""
    new_every: int = 0
    """Each so-manieth place is for a new movie; 0: none."""
    genre_cap: int = 0
    """Most movies of one genre in the first `genre_places`; 0: any number."""
    genre_places: int = 10
    genres: pa.Table | None = None
    """movie_id, genres: what the cap counts."""
    damping: float = 0.0
    """How much of its score a movie loses for each natural logarithm of its ratings."""
    fill: bool = False
    """Whether a list that would be short is filled with the most rated of the movies with too few ratings."""
    day: int = 0
    """The date, as a number of days: where the turn of new movies begins."""

    @property
    def rearrange(self) -> bool:
        """Whether a list is another than the best by score of the movies that are left."""
        return bool(self.fill or self.genre_cap or self.opted_out or self.pinned or (self.new and self.new_every))

    def also(self, ratings: pa.Table) -> pa.Array | None:
        """Movies that may be listed however few their ratings are; None for none."""
        named = [ids for ids in (self.pinned, self.new if self.new_every else None) if ids is not None]
        rated = pc.unique(ratings["movie_id"]) if self.fill else None
        parts = [*named, rated] if rated is not None else named
        return pc.unique(pa.chunked_array(parts)) if parts else None

    def bias(self, candidates: Candidates) -> NDArray[np.float32] | None:
        """What damping adds to the score of each candidate, shape (M,); None for nothing."""
        if not self.damping:
            return None
        return (-self.damping * np.log(np.maximum(candidates.n_ratings, 1))).astype(np.float32)


NO_RULES = Rules()


@dataclass(frozen=True)
class Places:
    """Lists of `n` places of u users; all shapes are (u, n)."""

    at: NDArray[np.int32]
    """Positions among the candidates; any where the score is -inf."""
    score: NDArray[np.float32]
    """-inf where a list has ended; of those that a rule has placed, 0 until it is worked out."""
    by: NDArray[np.int8]
    """BY_SCORE, PINNED, NEW or FILLER."""
    back: NDArray[np.bool_]
    """Moved back by the cap."""

    @classmethod
    def best(cls, highest: NDArray[np.float32], at: NDArray[np.int32]) -> "Places":
        """The lists as scores have them."""
        return cls(at, highest, np.zeros(at.shape, np.int8), np.zeros(at.shape, bool))


class Arrangement:
    """Rules as positions among candidates."""

    def __init__(self, rules: Rules, candidates: Candidates, users: pa.Array, rated: Rows, n: int) -> None:
        """`users` are all users, sorted; `rated` are the candidates that each is not to get; lists have `n` places."""
        self.rules, self.rated, self.n, self.own = rules, rated, n, candidates.own
        self.opted_out = np.zeros(len(users), bool)
        if rules.opted_out is not None:
            self.opted_out = pc.is_in(users, value_set=rules.opted_out).to_numpy(zero_copy_only=False)
        self.pinned = _positions(rules.pinned, candidates)
        new = _positions(rules.new if rules.new_every else None, candidates)
        turns = np.random.default_rng(rules.day)
        self.new = turns.permutation(np.setdiff1d(new, self.pinned))
        self.slots = np.arange(rules.new_every - 1, n, rules.new_every) if len(self.new) else np.zeros(0, np.int64)
        self.first = _starts(users, rules.day, len(self.new)) if len(self.slots) else np.zeros(0, np.int64)
        self.places = min(rules.genre_places, n) if rules.genre_cap else 0
        self.genres = _genres(rules.genres, candidates) if self.places else np.zeros((0, 0), bool)
        self.pool = min(n + _POOL * self.places, candidates.own)
        """So many of the best of each user are to be given."""
        fillers = np.arange(candidates.own if rules.fill else len(candidates), len(candidates))
        self.by_rule = np.unique(np.concatenate([self.pinned, self.new, fillers])).astype(np.int32)
        """Positions of all movies that are placed by a rule."""

    def of(self, users: NDArray[np.int64], highest: NDArray[np.float32], at: NDArray[np.int32]) -> Places:
        """The lists of some users, from the scores (u, pool) of their best, -inf for none, and their positions."""
        stays = ~self.opted_out[users]
        placed, by = self._placed(users)
        placed[~stays] = -1
        left = (highest > -np.inf) & stays[:, None]  # (u, pool)
        for column in np.flatnonzero((placed >= 0).any(axis=0)):
            left &= at != placed[:, column : column + 1]
        first, back = self._capped(at, left, placed)
        order = np.argsort(np.where(left, ~first, 2), axis=1, kind="stable")  # (u, pool): by score, the capped later
        turn = np.cumsum(placed < 0, axis=1) - 1  # (u, n): which of them takes a place that is free
        taken = np.take_along_axis(order, np.clip(turn, 0, order.shape[1] - 1), axis=1)
        free = (placed < 0) & (turn < left.sum(axis=1)[:, None])
        score = np.full(placed.shape, -np.inf, np.float32)
        score[placed >= 0] = 0
        found = Places(
            np.where(free, np.take_along_axis(at, taken, axis=1), placed),
            np.where(free, np.take_along_axis(highest, taken, axis=1), score),
            np.where(placed >= 0, by, BY_SCORE).astype(np.int8),
            free & np.take_along_axis(back, taken, axis=1),
        )
        return self._filled(users, _closed_up(found), stays)

    def _placed(self, users: NDArray[np.int64]) -> tuple[NDArray[np.int32], NDArray[np.int8]]:
        """Which movie a rule puts where, -1 for none, and by which rule, both (u, n)."""
        placed = np.full((len(users), self.n), -1, np.int32)
        by = np.zeros(placed.shape, np.int8)
        if len(self.slots):
            kept = self._first_kept(users, self.new, self.first[users], len(self.slots))
            placed[:, self.slots], by[:, self.slots] = kept, NEW
        if len(self.pinned):
            kept = self._first_kept(users, self.pinned, np.zeros(len(users), np.int64), min(len(self.pinned), self.n))
            here = placed[:, : kept.shape[1]]
            here[kept >= 0] = kept[kept >= 0]
            by[:, : kept.shape[1]][kept >= 0] = PINNED
        return placed, by

    def _first_kept(
        self, users: NDArray[np.int64], movies: NDArray[np.integer], start: NDArray[np.int64], n: int
    ) -> NDArray[np.int32]:
        """The first `n` of `movies`, counted round from `start` (u,), that each user may get; -1 for none, shape (u, n)."""
        user, position = self.rated.cells(users)
        hit = np.isin(position, movies)
        most = int(np.bincount(user[hit], minlength=1).max())
        turns = (start[:, None] + np.arange(min(n + most, len(movies)))) % len(movies)
        chosen = movies[turns].astype(np.int32)  # (u, t)
        width = int(max(movies.max(), position.max(initial=0))) + 1
        cells = np.arange(len(users))[:, None] * width + chosen
        chosen[np.isin(cells, user[hit] * width + position[hit])] = -1
        kept = np.argsort(chosen < 0, axis=1, kind="stable")[:, :n]
        found = np.full((len(users), n), -1, np.int32)
        found[:, : kept.shape[1]] = np.take_along_axis(chosen, kept, axis=1)
        return found

    def _capped(
        self, at: NDArray[np.int32], left: NDArray[np.bool_], placed: NDArray[np.int32]
    ) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        """Which of the best, (u, pool), come first as no genre has too many yet, and which would have but for their genres.

        What a rule has placed counts, too. Where too few of the pool fit, those that do not follow, the best first.
        """
        first, back = np.zeros_like(left), np.zeros_like(left)
        if not self.places:
            return first, back
        window = placed[:, : self.places]
        room = np.minimum((window < 0).sum(axis=1), left.sum(axis=1))  # (u,)
        counts = (self.genres[window] & (window >= 0)[:, :, None]).sum(axis=1, dtype=np.int16)  # (u, g)
        for column in range(left.shape[1]):
            open_ = left[:, column] & (room > 0)
            genres = self.genres[at[:, column]]
            fits = ~(genres & (counts >= self.rules.genre_cap)).any(axis=1)
            first[:, column], back[:, column] = open_ & fits, open_ & ~fits
            counts += genres & first[:, column : column + 1]
            room -= first[:, column]
            if not room.any():
                break
        return first, back

    def _filled(self, users: NDArray[np.int64], found: Places, stays: NDArray[np.bool_]) -> Places:
        """The lists, those that are short filled up by the most rated movies with too few ratings."""
        short = np.flatnonzero((found.score[:, -1] == -np.inf) & stays)
        extras = self.by_rule[self.by_rule >= self.own]
        if not self.rules.fill or not len(short) or not len(extras):
            return found
        there = found.score[short] > -np.inf
        more = self._first_kept(users[short], extras, np.zeros(len(short), np.int64), 2 * self.n)
        for column in range(self.n):  # what a rule has placed is not listed twice
            more[(more == found.at[short, column][:, None]) & there[:, column : column + 1]] = -1
        more = np.take_along_axis(more, np.argsort(more < 0, axis=1, kind="stable"), axis=1)
        turn = np.clip(np.cumsum(~there, axis=1) - 1, 0, more.shape[1] - 1)
        added = np.where(there, -1, np.take_along_axis(more, turn, axis=1))  # (s, n)
        found.at[short] = np.where(added >= 0, added, found.at[short])
        found.score[short] = np.where(added >= 0, 0, found.score[short])
        found.by[short] = np.where(added >= 0, FILLER, found.by[short])
        return found


def _closed_up(found: Places) -> Places:
    """The lists without gaps: what stands after one moves up."""
    gap = found.score == -np.inf
    if not (gap[:, :-1] & ~gap[:, 1:]).any():
        return found
    order = np.argsort(gap, axis=1, kind="stable")
    at, score, by, back = (np.take_along_axis(part, order, axis=1) for part in vars(found).values())
    return Places(at, score, by, back)


def _positions(ids: pa.Array | None, candidates: Candidates) -> NDArray[np.int64]:
    """Where those of the movies that are candidates stand among them, in their order."""
    if ids is None:
        return np.zeros(0, np.int64)
    return pc.index_in(ids, value_set=candidates.ids).drop_null().to_numpy().astype(np.int64)


def _genres(genres: pa.Table | None, candidates: Candidates) -> NDArray[np.bool_]:
    """Which genres each candidate has, shape (M, g)."""
    if genres is None:
        return np.zeros((len(candidates), 0), bool)
    at = pc.index_in(candidates.ids, value_set=genres["movie_id"].combine_chunks())
    lists = genres["genres"].combine_chunks().take(at)
    names = lists.flatten().dictionary_encode()
    found = np.zeros((len(candidates), len(names.dictionary)), bool)
    kept = names.is_valid().to_numpy(zero_copy_only=False)
    found[pc.list_parent_indices(lists).to_numpy()[kept], names.indices.drop_null().to_numpy()] = True
    return found


def _starts(users: pa.Array, day: int, new: int) -> NDArray[np.int64]:
    """Where the turn of `new` movies begins for each user on a day, shape (U,): by chance that is the same every time."""
    seed = np.array([zlib.crc32(str(user).encode()) for user in users.to_pylist()], np.uint64)
    mixed = (seed << np.uint64(32)) ^ np.uint64(day % 2**32)
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):  # SplitMix64 (Steele et al., 2014)
        mixed = (mixed ^ (mixed >> np.uint64(shift))) * np.uint64(factor)
    return ((mixed ^ (mixed >> np.uint64(31))) % np.uint64(new)).astype(np.int64)
