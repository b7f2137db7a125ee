"""Every user against every candidate movie, in blocks that fit the device; the best N of each leave as Arrow batches."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
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
from recommender.tensorflow import tf

_BYTES_PER_PAIR = 16
"""Score, masked copy, finite test and top-N's own working space."""
_CACHED = 1 << 24
"""Pairs in a block that a CPU is fastest with: 64 MiB of scores."""
_RATED = 16 * GROUP
"""Users whose lists are rated at once."""
_LARGEST_GRID = 2**31 - 1
"""TensorFlow's kernels index with 32 bits."""


@dataclass(frozen=True)
class Block:
    """Finished users, sorted by id."""

    recommendations: pa.RecordBatch
    """`schema.recommendations`."""
    status: pa.RecordBatch
    """`schema.user_status`, one row per user of the block."""


@dataclass(frozen=True)
class History:
    """Who rated what: candidate positions by user, in compressed rows."""

    users: pa.Array
    """All users known by the watermark, sorted."""
    n_ratings: NDArray[np.int32]
    """Shape (U,)."""
    starts: NDArray[np.int64]
    """Shape (U + 1,): user u rated the candidates `positions[starts[u]:starts[u + 1]]`."""
    positions: NDArray[np.int32]


def history(
    ratings: pa.Table, users: pa.Table | None, candidates: Candidates, *, include_seen: bool = False
) -> History:
    """The users of the ratings and of the users table, and the candidates each has rated (none with `include_seen`)."""
    known = pc.unique(ratings["user_id"])
    if users is not None:
        known = pc.unique(pa.chunked_array([known, *users["user_id"].chunks]))
    known = known.take(pc.sort_indices(known))
    user = pc.index_in(ratings["user_id"], value_set=known).to_numpy().astype(np.int64)
    counts = np.bincount(user, minlength=len(known)).astype(np.int32)
    movie = pc.fill_null(pc.index_in(ratings["movie_id"], value_set=candidates.ids), -1).to_numpy()
    keep = (movie >= 0) & (not include_seen)
    rated = Rows.of(user[keep], movie[keep], len(known))
    return History(known, counts, rated.starts, rated.positions)


def block_users(candidates: int, memory: int | None = None) -> int:
    """How many users to score at once within `memory` bytes (default: what the device has to spare)."""
    budget = _spare_memory() if memory is None else memory
    most = _LARGEST_GRID if tf.config.list_physical_devices("GPU") else _CACHED
    users = min(budget // (_BYTES_PER_PAIR * candidates), most // candidates, 16384)
    return max(GROUP, users // GROUP * GROUP)


def device() -> str:
    """What scores: `cpu`, or the name of the GPU."""
    found = tf.config.list_physical_devices("GPU")
    return str(tf.config.experimental.get_device_details(found[0]).get("device_name", "gpu")) if found else "cpu"


def top_n(ready: Ready, candidates: Candidates, seen: History, n: int, *, users_per_block: int) -> Iterator[Block]:
    """Yield the best `n` unseen candidates of every user, users in order, ranks 1..k without gaps.

    Equal scores are ranked in candidate order (most rated first, then id). The lists of users without anything to go by
    are marked `cold_user`: a model by history gives them what is popular of late, others cannot score them, and they get
    the most rated candidates. A movie unknown to the model is listed to nobody else. A user with fewer than `n` unseen
    candidates gets them all and a reason. Where a block does not fit in memory it is halved. Raises `NonFiniteScores`,
    `OutOfMemory`.
    """
    scorer = _Scorer(ready, candidates, n)
    size = max(GROUP, -(-users_per_block // GROUP) * GROUP)
    start = 0
    while start < len(seen.users):
        stop = min(start + size, len(seen.users))
        try:
            block = scorer.block(seen, start, stop)
        except tf.errors.ResourceExhaustedError as error:
            if size == GROUP:
                raise OutOfMemory(size, len(candidates)) from error
            size = max(GROUP, size // 2 // GROUP * GROUP)
            continue
        yield block
        start = stop


class _Scorer:
    """One model against one set of candidates."""

    def __init__(self, ready: Ready, candidates: Candidates, n: int) -> None:
        self.ready, self.candidates = ready, candidates
        self.wanted, self.n = n, min(n, len(candidates))
        self.movie_rows = candidates.rows(ready.movies, ready.movie_key)
        self.grid = Grid(ready.model, self.movie_rows)
        popular = np.full(self.grid.width, -np.inf, np.float32)
        popular[: len(candidates)] = np.log1p(candidates.n_ratings)
        self.popularity = tf.constant(popular)  # (M',)
        self.choose = tf.function(self._choose, reduce_retracing=True) if ready.model.factored else self._choose
        self.rate = tf.function(ready.model.call, reduce_retracing=True)

    def block(self, seen: History, start: int, stop: int) -> Block:
        """Score users `start:stop`."""
        rows = whole_groups(self.ready.users.encode(seen.users[start:stop]))
        count = stop - start
        user = np.repeat(np.arange(count), np.diff(seen.starts[start : stop + 1]))
        rated = np.stack([user, seen.positions[seen.starts[start] : seen.starts[stop]]], axis=1).astype(np.int32)
        strange = ~self.ready.scores(rows)
        asked = tf.constant(strange) if strange[:count].any() else None
        highest, at, broken = (
            part.numpy()[:count] for part in self.choose(tf.constant(rows), asked, tf.constant(rated))
        )
        if broken.any():
            raise NonFiniteScores(int(broken.sum()))
        at = np.minimum(at, len(self.candidates) - 1)  # where a list is short, what follows is no movie
        stars = self._predicted(rows, at, strange[:count])
        return self._as_block(seen, start, stop, highest, at, stars, self.ready.cold(rows[:count]))

    def _choose(self, users: Any, strange: Any, rated: Any) -> tuple[Any, Any, Any]:
        """Best scores (U, n), their candidate positions (U, n), and which users (U,) have a score that is not finite.

        `strange` (U,): whom the model cannot score; None where there is nobody. `rated` are cells (user, position).
        """
        scores, broken = self.grid.scores(self.ready.model.encode_users(users))
        if strange is not None:
            scores = tf.where(strange[:, None], self.popularity, scores)
            broken &= ~strange
        masked = tf.tensor_scatter_nd_update(scores, rated, tf.fill(tf.shape(rated)[:1], -np.inf))
        return *best(masked, self.n), broken

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
        seen: History,
        start: int,
        stop: int,
        highest: NDArray[np.float32],
        at: NDArray[np.int32],
        stars: NDArray[np.float32],
        cold: NDArray[np.bool_],
    ) -> Block:
        users = seen.users[start:stop]
        keep = highest > -np.inf  # (U, n): seen movies sort last and are dropped
        length = keep.sum(axis=1).astype(np.int16)
        user, rank = np.nonzero(keep)
        recommendations = pa.record_batch(
            [
                users.take(pa.array(user)),
                pa.array((rank + 1).astype(np.int16)),
                self.candidates.ids.take(pa.array(at[keep])),
                pa.array(highest[keep]),
                pa.array(stars[keep].astype(np.float32)),
                pa.array(["model", "cold_user"]).take(pa.array(cold[user].astype(np.int8))),
            ],
            schema=schema.recommendations(users.type, self.candidates.ids.type),
        )
        status = pa.record_batch(
            [
                users,
                pa.array(["warm", "cold"]).take(pa.array(cold.astype(np.int8))),
                pa.array(seen.n_ratings[start:stop]),
                pa.array(length),
                pa.array(["catalogue_exhausted"]).take(
                    pa.array(np.zeros(len(length), np.int8), mask=length >= self.wanted)
                ),
            ],
            schema=schema.user_status(users.type),
        )
        return Block(recommendations, status)


def _spare_memory() -> int:
    """Bytes to use for the grid: half of a GPU's free memory (at most 8 GiB), or a quarter of free RAM (at most 1 GiB)."""
    if tf.config.list_physical_devices("GPU"):
        import pynvml  # in the `gpu` extra

        pynvml.nvmlInit()
        free = pynvml.nvmlDeviceGetMemoryInfo(pynvml.nvmlDeviceGetHandleByIndex(0)).free
        return min(int(free) // 2, 8 * 2**30)
    return min(os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 4, 2**30)
