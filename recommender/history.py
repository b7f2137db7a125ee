"""All users there are, and the movies that each is not to get: what was rated, and what a rule keeps from them."""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from recommender.candidates import Candidates
from recommender.rows import Rows
from recommender.vocabulary import Vocabulary


@dataclass(frozen=True)
class History:
    """Who rated what."""

    users: pa.Array
    """All users known by the watermark, sorted."""
    n_ratings: NDArray[np.int32]
    """Shape (U,)."""
    rated: Rows
    """The candidates that each user is not to get: those that were rated, and those that a rule keeps from the user."""


def of(
    ratings: pa.Table,
    users: pa.Table | None,
    candidates: Candidates,
    *,
    include_seen: bool = False,
    excluded: pa.Table | None = None,
) -> History:
    """The users of the ratings and of the users table, and the candidates each is not to get.

    These are the rated ones (none with `include_seen`) and the pairs user_id, movie_id of `excluded`.
    """
    known = Vocabulary.of(ratings["user_id"])
    if users is not None:
        known = Vocabulary.of(pa.chunked_array([known.ids, *users["user_id"].chunks]))
    user = known.encode(ratings["user_id"]) - 1
    counts = np.bincount(user, minlength=len(known)).astype(np.int32)
    movie = pc.fill_null(pc.index_in(ratings["movie_id"], value_set=candidates.ids), -1).to_numpy()
    keep = (movie >= 0) & (not include_seen)
    user, movie = user[keep], movie[keep]
    if excluded is not None:
        person = known.encode(excluded["user_id"]) - 1
        place = pc.fill_null(pc.index_in(excluded["movie_id"], value_set=candidates.ids), -1).to_numpy()
        keep = (person >= 0) & (place >= 0)
        user, movie = np.concatenate([user, person[keep]]), np.concatenate([movie, place[keep]])
    return History(known.ids, counts, Rows.of(user, movie, len(known)))
