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
from recommender.grid import GROUP, Grid, groups_of
from recommender.ranking import Rows
from recommender.ready import Ready
from recommender.tensorflow import tf
from recommender.vocabulary import UNKNOWN

_BYTES_PER_PAIR = 16
"""Score, masked copy, finite test and top-N's own working space."""
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
    users = min(budget // (_BYTES_PER_PAIR * candidates), _LARGEST_GRID // candidates, 16384)
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
        self.known = self.movie_rows != UNKNOWN  # (M,)
        self.popularity = tf.constant(np.log1p(candidates.n_ratings), tf.float32)  # (M,)
        self.grid = Grid(ready.model, self.movie_rows)
        self.select = tf.function(self._select, reduce_retracing=True)
        self.rate = tf.function(ready.model.call, reduce_retracing=True)

    def block(self, seen: History, start: int, stop: int) -> Block:
        """Score users `start:stop`; the block is padded to whole groups by repeating row 0."""
        count = stop - start
        rows = np.zeros(-(-count // GROUP) * GROUP, np.int32)
        rows[:count] = self.ready.users.encode(seen.users[start:stop])
        groups = groups_of(rows)
        scores = self.grid.scores(groups)  # (U', M)
        user = np.repeat(np.arange(count), np.diff(seen.starts[start : stop + 1]))
        rated = np.stack([user, seen.positions[seen.starts[start] : seen.starts[stop]]], axis=1).astype(np.int32)
        strange = ~self.ready.scores(rows[:count])
        best, at, broken = self.select(scores[:count], tf.constant(strange), tf.constant(rated))
        if int(broken):
            raise NonFiniteScores(int(broken))
        at = at.numpy()
        stars = self._predicted(groups, at, strange)
        return self._as_block(seen, start, stop, best.numpy(), at, stars, self.ready.cold(rows[:count]))

    def _select(self, scores: Any, strange: Any, rated: Any) -> tuple[Any, Any, Any]:
        """Best scores (U, n), their candidate positions (U, n), and how many users have a score that is not finite."""
        scores = tf.where(strange[:, None], self.popularity[None, :], scores)
        broken = tf.reduce_sum(tf.cast(tf.reduce_any(~tf.math.is_finite(scores), axis=1), tf.int32))
        if not self.known.all():  # a model older than the movie: row 0 is not an opinion of it
            scores = tf.where(strange[:, None] | self.known[None, :], scores, -np.inf)
        masked = tf.tensor_scatter_nd_update(scores, rated, tf.fill(tf.shape(rated)[:1], -np.inf))
        best, at = tf.math.top_k(masked, self.n)  # equal scores: the lower position first
        return best, at, broken

    def _predicted(self, groups: list[Any], at: NDArray[np.int32], strange: NDArray[np.bool_]) -> NDArray[np.float32]:
        """Predicted stars (U, n) of the chosen movies; movie means for users whom the model cannot score."""
        chosen = np.zeros((len(groups) * GROUP, self.n), np.int32)
        chosen[: len(at)] = self.movie_rows[at]
        parts = [
            self.rate(
                {"user": tf.repeat(group, self.n), "movie": tf.constant(chosen[i * GROUP : (i + 1) * GROUP].ravel())}
            )
            for i, group in enumerate(groups)
        ]
        stars = tf.concat(parts, axis=0).numpy().reshape(len(chosen), self.n)[: len(at)]
        stars = np.where(strange[:, None], self.candidates.mean_rating[at], stars)
        return np.clip(stars, *self.ready.rating_scale)

    def _as_block(
        self,
        seen: History,
        start: int,
        stop: int,
        best: NDArray[np.float32],
        at: NDArray[np.int32],
        stars: NDArray[np.float32],
        cold: NDArray[np.bool_],
    ) -> Block:
        users = seen.users[start:stop]
        keep = best > -np.inf  # (U, n): seen movies sort last and are dropped
        length = keep.sum(axis=1).astype(np.int16)
        user, rank = np.nonzero(keep)
        recommendations = pa.record_batch(
            [
                users.take(pa.array(user)),
                pa.array((rank + 1).astype(np.int16)),
                self.candidates.ids.take(pa.array(at[keep])),
                pa.array(best[keep]),
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
