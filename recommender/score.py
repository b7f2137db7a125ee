"""Every user against every candidate movie, in blocks that fit the device; the best N of each leave as Arrow batches."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from recommender import ranking, schema, spread
from recommender.candidates import Candidates
from recommender.errors import NonFiniteScores, OutOfMemory
from recommender.grid import GROUP, Grid, best, whole_groups
from recommender.history import History
from recommender.ready import Ready
from recommender.rounded import FLOAT32, TF32, Rounded
from recommender.rules import BY_SCORE, NO_RULES, SOURCES, Arrangement, Places, Rules
from recommender.screen import LANDMARKS, Screen, Screening
from recommender.tensorflow import tf, traced
from recommender.vocabulary import UNKNOWN

_RATED = 16 * GROUP
"""Users whose lists are rated at once."""
_REUSED = 7 << 20
"""Scores that are no matrix product, worked on at once: 28 MiB, of what the heap keeps (`recommender/tensorflow.py`). Where the
C library takes them anew from the system, touching them for the first time takes longer than a screen."""
_LOOKED_AT = 4 * GROUP
"""Users whose lists are looked at, at once, for what is in many of them."""
_SAMPLE = 256
"""Users that a screen is made from, and as many that it is tried on."""
_SCREENED = 8
"""There must be so many times the users and movies that a screen scores in full."""
_WORTH = 2
"""A screen has to score fewer movies than all by this factor."""
_RECALL = 0.999
"""Share of the movies of exact lists that a screen must find."""

_UNSURE = 0.5
"""Where a larger share of a block than this has to be scored in full all the same, products are not rounded any more."""

_EXHAUSTED = (tf.errors.ResourceExhaustedError, MemoryError)
"""What TensorFlow raises, and NumPy and Arrow, where memory is refused."""


@dataclass(frozen=True)
class Block:
    """Finished users, sorted by id."""

    recommendations: pa.RecordBatch
    """`schema.recommendations`."""
    status: pa.RecordBatch
    """`schema.user_status`, one row per user of the block."""


def top_n(
    ready: Ready,
    candidates: Candidates,
    seen: History,
    n: int,
    *,
    users_per_block: int,
    exact: bool = True,
    rounded: bool = False,
    on_screen: Callable[[Screening], None] = lambda screening: None,
    rules: Rules = NO_RULES,
    parts: Iterable[range] | None = None,
) -> Iterator[Block]:
    """Yield the best `n` unseen candidates of every user, users in order, ranks 1..k without gaps.

    Equal scores are ranked in candidate order (most rated first, then id). The lists of users without anything to go by
    are marked `cold_user`: a model by history gives them what is popular of late, others cannot score them, and they get
    the most rated candidates. A movie unknown to the model is listed to nobody else. A user with fewer than `n` unseen
    candidates gets them all and a reason. Where a block does not fit in memory it is halved. Unless `exact`, a model that is
    no product of factors is screened, where there are movies and users enough and the screen proves good. `rounded`: one
    that is, is multiplied in few bits first; the lists are the same. Movies in many lists move back as the model's spread
    has it, and what `rules` put elsewhere is marked. Scores and stars are rounded once all is ranked. `parts` are the users
    that are wanted, by their places, if not all: one part after the other, no block over two of them; the lists are the same
    as among all. Raises `NonFiniteScores`, `OutOfMemory`.
    """
    scorer = _Scorer(ready, candidates, seen, n, rules, rounded)
    scorer.prices = scorer.found_prices() if ready.model.spread else None
    size = max(GROUP, -(-users_per_block // GROUP) * GROUP)
    if not exact and not ready.model.factored:
        try:
            scorer.try_screen(on_screen)
        except _EXHAUSTED:  # the screen is made from more users than may fit: do without
            on_screen(Screening(0, 0, 0.0, 0.0, used=False))
    for part in [range(len(seen.users))] if parts is None else parts:
        start = part.start
        while start < part.stop:
            stop = min(start + size, part.stop)
            try:
                block = scorer.block(start, stop)
            except _EXHAUSTED as error:
                if size == GROUP:
                    raise OutOfMemory(size, len(candidates)) from error
                size = max(GROUP, size // 2 // GROUP * GROUP)
                continue
            yield block
            start = stop


def prices(ready: Ready, candidates: Candidates, seen: History, n: int, rules: Rules = NO_RULES) -> NDArray[np.float32]:
    """What movies lose in the later places of the lists of `top_n` by standing in many of them, shape (candidates.own,)."""
    return _Scorer(ready, candidates, seen, n, rules).found_prices()


class _Scorer:
    """One model against one set of candidates."""

    def __init__(
        self, ready: Ready, candidates: Candidates, seen: History, n: int, rules: Rules, rounded: bool = False
    ) -> None:
        self.ready, self.candidates, self.seen = ready, candidates, seen
        self.wanted, self.n = n, min(n, len(candidates))
        self.movie_rows, self.bias = candidates.rows(ready.movies, ready.movie_key), rules.bias(candidates)
        self.grid = self._grid(np.arange(candidates.own))
        self.arrangement = Arrangement(rules, candidates, seen.users, seen.rated, self.n) if rules.rearrange else None
        self.best = self.arrangement.pool if self.arrangement else self.n  # so many are looked for
        if self.arrangement and len(self.arrangement.by_rule):
            self.others = self._grid(self.arrangement.by_rule)
        self.at_once = (
            len(seen.users) if ready.model.factored else max(GROUP, _REUSED // self.grid.width // GROUP * GROUP)
        )
        self.screen: Screen | Rounded | None = None
        if ready.model.factored:
            self.screen = Rounded(self.grid, self.best, TF32 if rounded else FLOAT32)
        self.prices: NDArray[np.float32] | None = None
        popular = np.full(self.grid.width, -np.inf, np.float32)
        popular[: candidates.own] = np.log1p(candidates.n_ratings[: candidates.own])
        self.popularity = tf.constant(popular)  # (M',)
        self.exact = traced(self._exact, reduce_retracing=True) if ready.model.factored else self._exact
        self.rate = traced(ready.model.call, reduce_retracing=True)

    def _grid(self, places: NDArray[np.integer]) -> Grid:
        """The scores of some candidates."""
        return Grid(self.ready.model, self.movie_rows[places], None if self.bias is None else self.bias[places])

    def ranked(self, users: NDArray[np.int64]) -> tuple[NDArray[np.float32], NDArray[np.int32], Any, Any]:
        """The best scores (u, best) of users, by their places in the history, -inf where there is no more, and the positions.

        Beside them the rows (u,) that the users have in the model, and which of them it can score.
        """
        rows = self.ready.users.encode(self.seen.users.take(pa.array(users)))
        known = self.ready.scores(rows)
        highest, at = np.zeros((len(users), self.best), np.float32), np.zeros((len(users), self.best), np.int32)

        def fill(which: NDArray[np.bool_], choose: Any) -> NDArray[np.bool_]:
            """Fill in the best of some; returns what `choose` says of each."""
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
            if isinstance(self.screen, Rounded) and left.sum() > _UNSURE * known.sum():
                self.screen = None  # scores too close to each other: twice the work
        if (broken := fill(left, self.exact)).any():
            raise NonFiniteScores(int(broken.sum()))
        return highest, np.minimum(at, self.candidates.own - 1), rows, known  # what follows a short list is no movie

    def found_prices(self) -> NDArray[np.float32]:
        """What movies lose by standing in many lists (`recommender/spread.py`), of which some are looked at."""
        users, lists = ranking.drawn(len(self.seen.users), spread.USERS), []
        for first in range(0, len(users), _LOOKED_AT):  # as many each time, whatever the size of a block
            try:
                highest, at, *_ = self.ranked(users[first : first + _LOOKED_AT])
            except _EXHAUSTED as error:
                raise OutOfMemory(_LOOKED_AT, len(self.candidates)) from error
            lists.append(np.where(highest > -np.inf, at, -1)[:, : self.n])
        return spread.prices(np.concatenate(lists), self.candidates.own, self.ready.model.spread)

    def block(self, start: int, stop: int) -> Block:
        """Score users `start:stop`."""
        users = np.arange(start, stop)
        highest, at, rows, known = self.ranked(users)
        if self.prices is not None:
            highest[:, : self.n], at[:, : self.n] = spread.priced(highest[:, : self.n], at[:, : self.n], self.prices)
            # What a rule may take beside them follows: no price lets a movie into a list.
            highest[:, self.n :] = np.minimum(highest[:, self.n :], highest[:, self.n - 1 : self.n])
        found = Places.best(highest, at)
        if self.arrangement:
            found = self.arrangement.of(users, highest, at)
            self._score_others(found, self.arrangement.by_rule, rows, known)
        stars = self._predicted(rows, found.at, ~known)
        return self._as_block(start, stop, found, stars, self.ready.cold(rows))

    def _score_others(
        self, found: Places, others: NDArray[np.int32], rows: NDArray[np.int32], known: NDArray[np.bool_]
    ) -> None:
        """Work out the scores of the movies that a rule has placed, which are some of `others`.

        One that the model does not know has its mean in stars, and for users whom it cannot score its popularity counts.
        """
        placed = found.by != BY_SCORE
        some = np.flatnonzero(placed.any(axis=1))
        for first in range(0, len(some), _RATED):  # as many each time: the same user always meets the same arithmetic
            few = some[first : first + _RATED]
            padded = np.resize(rows[few], _RATED)
            scores, _ = self.others.scores(self.ready.model.encode_users(tf.constant(padded)))
            user, place = np.nonzero(placed[few])
            at = found.at[few][user, place]
            score = scores.numpy()[user, np.searchsorted(others, at)]
            score = np.where(np.isfinite(score), score, self.candidates.mean_rating[at])
            popular = np.log1p(self.candidates.n_ratings[at])
            found.score[few[user], place] = np.where(known[few][user], score, popular)

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
        screen = Screen(self.grid, scores.numpy(), self.best)
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
        codes = self.ready.model.encode_users(tf.constant(whole_groups(rows)))
        return tuple(part.numpy()[: len(users)] for part in choose(codes, self._rated(users)))

    def _rated(self, users: NDArray[np.int64]) -> NDArray[np.int32]:
        """Cells (place among `users`, candidate) of what they are not to get of all that is ranked."""
        cells = np.stack(self.seen.rated.cells(users), axis=1).astype(np.int32)
        return cells[cells[:, 1] < self.candidates.own] if self.candidates.n_rare else cells

    def _exact(self, codes: Any, rated: Any) -> tuple[Any, Any, Any]:
        """Best scores (U, best) of encoded users, their positions, and which users (U,) have a score that is not finite."""
        scores, broken = (self.grid.precise if self.ready.model.factored else self.grid.scores)(codes)
        return *best(_without(scores, rated), self.best), broken

    def _screened(self, screen: Screen | Rounded, codes: Any, rated: Any) -> tuple[Any, Any, Any]:
        """The same by bounds, and which users (U,) are sure."""
        return screen.best(_without(screen.bounds(codes), rated), codes)

    def _popular(self, codes: Any, rated: Any) -> tuple[Any, Any, Any]:
        """The most rated candidates, for users whom the model cannot score."""
        scores = tf.repeat(self.popularity[None], len(codes), axis=0)
        return *best(_without(scores, rated), self.best), tf.fill([len(codes)], False)

    def _predicted(
        self, rows: NDArray[np.int32], at: NDArray[np.int32], strange: NDArray[np.bool_]
    ) -> NDArray[np.float32]:
        """Predicted stars (U, n) of the chosen movies; movie means where the model does not know the user or the movie."""
        parts = []
        for first in range(0, len(rows), _RATED):  # as many each time: the same user always meets the same arithmetic
            some = np.minimum(np.arange(first, first + _RATED), len(rows) - 1)
            pairs = {"user": np.repeat(rows[some], self.n), "movie": self.movie_rows[at[some]].ravel()}
            parts.append(self.rate(pairs))
        stars = tf.concat(parts, axis=0).numpy().reshape(-1, self.n)[: len(at)]
        strange = strange[:, None] | (self.movie_rows[at] == UNKNOWN)
        stars = np.where(strange, self.candidates.mean_rating[at], stars)
        return np.clip(stars, *self.ready.rating_scale)

    def _as_block(
        self, start: int, stop: int, found: Places, stars: NDArray[np.float32], cold: NDArray[np.bool_]
    ) -> Block:
        users = self.seen.users[start:stop]
        keep = found.score > -np.inf  # (U, n): seen movies sort last and are dropped
        length = keep.sum(axis=1).astype(np.int16)
        user, rank = np.nonzero(keep)
        by, back = found.by[keep], found.back[keep]
        recommendations = pa.record_batch(
            [
                users.take(pa.array(user)),
                pa.array((rank + 1).astype(np.int16)),
                self.candidates.ids.take(pa.array(found.at[keep])),
                pa.array(np.round(found.score[keep], schema.SCORE_DECIMALS)),
                pa.array(np.round(stars[keep].astype(np.float32), schema.STARS_DECIMALS)),
                pa.array([*SOURCES, "cold_user"]).take(
                    pa.array(np.where((by == BY_SCORE) & cold[user], len(SOURCES), by))
                ),
                pa.array(["genre_cap"]).take(pa.array(np.zeros(len(back), np.int8), mask=~back)),
            ],
            schema=schema.recommendations(users.type, self.candidates.ids.type),
        )
        return Block(recommendations, self._status(start, stop, length, cold))

    def _status(self, start: int, stop: int, length: NDArray[np.int16], cold: NDArray[np.bool_]) -> pa.RecordBatch:
        users = self.seen.users[start:stop]
        why = np.zeros(len(users), np.int8)
        if self.arrangement:
            why[self.arrangement.opted_out[start:stop]] = 1
        return pa.record_batch(
            [
                users,
                pa.array(["warm", "cold"]).take(pa.array(cold.astype(np.int8))),
                pa.array(self.seen.n_ratings[start:stop]),
                pa.array(length),
                pa.array(["catalogue_exhausted", "opted_out"]).take(pa.array(why, mask=length >= self.wanted)),
            ],
            schema=schema.user_status(users.type),
        )


def _without(scores: Any, rated: Any) -> Any:
    """Scores (U, M') with -inf in the cells (user, movie)."""
    return tf.tensor_scatter_nd_update(scores, rated, tf.fill(tf.shape(rated)[:1], -np.inf))
