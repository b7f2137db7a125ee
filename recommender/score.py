"""Every user against every candidate movie, in blocks that fit the device; the best N of each leave as Arrow batches."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from recommender import schema
from recommender.candidates import Candidates
from recommender.errors import NonFiniteScores, OutOfMemory
from recommender.grid import GROUP, Grid, best, whole_groups
from recommender.ranking import Rows
from recommender.ready import Ready
from recommender.screen import LANDMARKS, Screen
from recommender.tensorflow import tf, traced
from recommender.vocabulary import Vocabulary

_RATED = 16 * GROUP
"""Users whose lists are rated at once."""
_REUSED = 7 << 20
"""Scores that are no matrix product, worked on at once: 28 MiB. From 32 MiB on the C library takes memory anew from the system
each time, and touching it for the first time takes longer than a screen."""
_SAMPLE = 256
"""Users that a screen is made from, and as many that it is tried on."""
_SCREENED = 8
"""There must be so many times the users and movies that a screen scores in full."""
_WORTH = 2
"""A screen has to score fewer movies than all by this factor."""
_RECALL = 0.999
"""Share of the movies of exact lists that a screen must find."""

_EXHAUSTED = (tf.errors.ResourceExhaustedError, MemoryError)
"""What TensorFlow raises, and NumPy and Arrow, where memory is refused."""


@dataclass(frozen=True)
class Block:
    """Finished users, sorted by id."""

    recommendations: pa.RecordBatch
    """`schema.recommendations`."""
    status: pa.RecordBatch
    """`schema.user_status`, one row per user of the block."""


@dataclass(frozen=True)
class History:
    """Who rated what."""

    users: pa.Array
    """All users known by the watermark, sorted."""
    n_ratings: NDArray[np.int32]
    """Shape (U,)."""
    rated: Rows
    """The candidates that each user has rated."""


@dataclass(frozen=True)
class Screening:
    """How the screen did on users that it was not made from."""

    users: int
    """0: there was no memory to make the screen in."""
    candidates: int
    """Movies scored for each user, beside the landmarks."""
    sure: float
    """Share of the users who need not be scored in full."""
    recall: float
    """Share of the movies of the exact lists that are listed, where the lists that are not sure are found in full."""
    used: bool
    """Whether that is good enough; otherwise everybody is scored in full."""


def history(
    ratings: pa.Table, users: pa.Table | None, candidates: Candidates, *, include_seen: bool = False
) -> History:
    """The users of the ratings and of the users table, and the candidates each has rated (none with `include_seen`)."""
    known = Vocabulary.of(ratings["user_id"])
    if users is not None:
        known = Vocabulary.of(pa.chunked_array([known.ids, *users["user_id"].chunks]))
    user = known.encode(ratings["user_id"]) - 1
    counts = np.bincount(user, minlength=len(known)).astype(np.int32)
    movie = pc.fill_null(pc.index_in(ratings["movie_id"], value_set=candidates.ids), -1).to_numpy()
    keep = (movie >= 0) & (not include_seen)
    return History(known.ids, counts, Rows.of(user[keep], movie[keep], len(known)))


def top_n(
    ready: Ready,
    candidates: Candidates,
    seen: History,
    n: int,
    *,
    users_per_block: int,
    exact: bool = True,
    on_screen: Callable[[Screening], None] = lambda screening: None,
) -> Iterator[Block]:
    """Yield the best `n` unseen candidates of every user, users in order, ranks 1..k without gaps.

    Equal scores are ranked in candidate order (most rated first, then id). The lists of users without anything to go by
    are marked `cold_user`: a model by history gives them what is popular of late, others cannot score them, and they get
    the most rated candidates. A movie unknown to the model is listed to nobody else. A user with fewer than `n` unseen
    candidates gets them all and a reason. Where a block does not fit in memory it is halved. Unless `exact`, a model that is
    no product of factors is screened, where there are movies and users enough and the screen proves good. Scores and stars
    are rounded once all is ranked. Raises `NonFiniteScores`, `OutOfMemory`.
    """
    scorer = _Scorer(ready, candidates, seen, n)
    size = max(GROUP, -(-users_per_block // GROUP) * GROUP)
    if not exact and not ready.model.factored:
        try:
            scorer.try_screen(on_screen)
        except _EXHAUSTED:  # the screen is made from more users than may fit: do without
            on_screen(Screening(0, 0, 0.0, 0.0, used=False))
    start = 0
    while start < len(seen.users):
        stop = min(start + size, len(seen.users))
        try:
            block = scorer.block(start, stop)
        except _EXHAUSTED as error:
            if size == GROUP:
                raise OutOfMemory(size, len(candidates)) from error
            size = max(GROUP, size // 2 // GROUP * GROUP)
            continue
        yield block
        start = stop


class _Scorer:
    """One model against one set of candidates."""

    def __init__(self, ready: Ready, candidates: Candidates, seen: History, n: int) -> None:
        self.ready, self.candidates, self.seen = ready, candidates, seen
        self.wanted, self.n = n, min(n, len(candidates))
        self.movie_rows = candidates.rows(ready.movies, ready.movie_key)
        self.grid = Grid(ready.model, self.movie_rows)
        self.at_once = (
            len(seen.users) if ready.model.factored else max(GROUP, _REUSED // self.grid.width // GROUP * GROUP)
        )
        self.screen: Screen | None = None
        popular = np.full(self.grid.width, -np.inf, np.float32)
        popular[: len(candidates)] = np.log1p(candidates.n_ratings)
        self.popularity = tf.constant(popular)  # (M',)
        self.exact = traced(self._exact, reduce_retracing=True) if ready.model.factored else self._exact
        self.rate = traced(ready.model.call, reduce_retracing=True)

    def block(self, start: int, stop: int) -> Block:
        """Score users `start:stop`."""
        users = np.arange(start, stop)
        rows = self.ready.users.encode(self.seen.users[start:stop])
        known = self.ready.scores(rows)
        highest, at = np.zeros((len(users), self.n), np.float32), np.zeros((len(users), self.n), np.int32)

        def fill(which: NDArray[np.bool_], choose: Any) -> NDArray[np.bool_]:
            """Fill in the lists of some; returns what `choose` says of each."""
            places, flags = np.flatnonzero(which), [np.zeros(0, bool)]
            for first in range(0, len(places), self.at_once):
                some = places[first : first + self.at_once]
                highest[some], at[some], flag = self._run(choose, users[some], rows[some])
                flags.append(flag)
            return np.concatenate(flags)

        fill(~known, self._popular)
        left = known.copy()
        if self.screen is not None:
            left[known] = ~fill(known, partial(self._screened, self.screen))
        if (broken := fill(left, self.exact)).any():
            raise NonFiniteScores(int(broken.sum()))
        at = np.minimum(at, len(self.candidates) - 1)  # where a list is short, what follows is no movie
        stars = self._predicted(whole_groups(rows), at, ~known)
        return self._as_block(start, stop, highest, at, stars, self.ready.cold(rows))

    def try_screen(self, report: Callable[[Screening], None]) -> None:
        """Make a screen from some users, try it on some others, and use it from now on if it does well."""
        rows = self.ready.users.encode(self.seen.users)
        drawn = np.random.default_rng(0).permutation(np.flatnonzero(self.ready.scores(rows)))
        if len(drawn) < _SCREENED * _SAMPLE or self.grid.width < _SCREENED * 2 * LANDMARKS:
            return
        sample, held = drawn[:_SAMPLE], drawn[_SAMPLE : 2 * _SAMPLE]
        scores, broken = self.grid.scores(self.ready.model.encode_users(tf.constant(rows[sample])))
        highest, at, also = self._run(self.exact, held, rows[held])
        if (broken := np.concatenate([broken.numpy(), also])).any():
            raise NonFiniteScores(int(broken.sum()))
        screen = Screen(self.grid, scores.numpy(), self.n)
        codes = self.ready.model.encode_users(tf.constant(rows[held]))
        scored = screen.widen(_without(screen.bounds(codes), self._rated(held)), highest[:, -1])
        _, found, sure = self._run(partial(self._screened, screen), held, rows[held])
        missed = [np.setdiff1d(*lists).size for lists in zip(at[sure], found[sure], strict=True)]
        recall = 1 - sum(missed) / at.size
        used = recall >= _RECALL and scored * _WORTH <= self.grid.width
        report(Screening(len(held), screen.candidates, float(sure.mean()), recall, used))
        self.screen = screen if used else None

    def _run(self, choose: Any, users: NDArray[np.int64], rows: NDArray[np.int32]) -> tuple[NDArray[Any], ...]:
        """What `choose` gives for users, by their places in the history and their rows in the model."""
        return tuple(part.numpy()[: len(users)] for part in choose(tf.constant(whole_groups(rows)), self._rated(users)))

    def _rated(self, users: NDArray[np.int64]) -> NDArray[np.int32]:
        """Cells (place among `users`, candidate) of what they have rated."""
        return np.stack(self.seen.rated.cells(users), axis=1).astype(np.int32)

    def _exact(self, rows: Any, rated: Any) -> tuple[Any, Any, Any]:
        """Best scores (U, n), their candidate positions (U, n), and which users (U,) have a score that is not finite."""
        scores, broken = self.grid.scores(self.ready.model.encode_users(rows))
        return *best(_without(scores, rated), self.n), broken

    def _screened(self, screen: Screen, rows: Any, rated: Any) -> tuple[Any, Any, Any]:
        """The same by a screen, and which users (U,) are sure."""
        codes = self.ready.model.encode_users(rows)
        return screen.best(_without(screen.bounds(codes), rated), codes)

    def _popular(self, rows: Any, rated: Any) -> tuple[Any, Any, Any]:
        """The most rated candidates, for users whom the model cannot score."""
        scores = tf.repeat(self.popularity[None], len(rows), axis=0)
        return *best(_without(scores, rated), self.n), tf.fill([len(rows)], False)

    def _predicted(
        self, rows: NDArray[np.int32], at: NDArray[np.int32], strange: NDArray[np.bool_]
    ) -> NDArray[np.float32]:
        """Predicted stars (U, n) of the chosen movies; movie means for users whom the model cannot score."""
        chosen = np.zeros((len(rows), self.n), np.int32)
        chosen[: len(at)] = self.movie_rows[at]
        parts = [
            self.rate({"user": np.repeat(rows[first : first + _RATED], self.n), "movie": part.ravel()})
            for first, part in ((first, chosen[first : first + _RATED]) for first in range(0, len(rows), _RATED))
        ]
        stars = tf.concat(parts, axis=0).numpy().reshape(len(chosen), self.n)[: len(at)]
        stars = np.where(strange[:, None], self.candidates.mean_rating[at], stars)
        return np.clip(stars, *self.ready.rating_scale)

    def _as_block(
        self,
        start: int,
        stop: int,
        highest: NDArray[np.float32],
        at: NDArray[np.int32],
        stars: NDArray[np.float32],
        cold: NDArray[np.bool_],
    ) -> Block:
        users = self.seen.users[start:stop]
        keep = highest > -np.inf  # (U, n): seen movies sort last and are dropped
        length = keep.sum(axis=1).astype(np.int16)
        user, rank = np.nonzero(keep)
        recommendations = pa.record_batch(
            [
                users.take(pa.array(user)),
                pa.array((rank + 1).astype(np.int16)),
                self.candidates.ids.take(pa.array(at[keep])),
                pa.array(np.round(highest[keep], schema.SCORE_DECIMALS)),
                pa.array(np.round(stars[keep].astype(np.float32), schema.STARS_DECIMALS)),
                pa.array(["model", "cold_user"]).take(pa.array(cold[user].astype(np.int8))),
            ],
            schema=schema.recommendations(users.type, self.candidates.ids.type),
        )
        status = pa.record_batch(
            [
                users,
                pa.array(["warm", "cold"]).take(pa.array(cold.astype(np.int8))),
                pa.array(self.seen.n_ratings[start:stop]),
                pa.array(length),
                pa.array(["catalogue_exhausted"]).take(
                    pa.array(np.zeros(len(length), np.int8), mask=length >= self.wanted)
                ),
            ],
            schema=schema.user_status(users.type),
        )
        return Block(recommendations, status)


def _without(scores: Any, rated: Any) -> Any:
    """Scores (U, M') with -inf in the cells (user, movie)."""
    return tf.tensor_scatter_nd_update(scores, rated, tf.fill(tf.shape(rated)[:1], -np.inf))
