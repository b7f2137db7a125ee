"""Which movies may be recommended, in which order equals are taken, and what is popular."""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from recommender.errors import NothingToRecommend
from recommender.vocabulary import Vocabulary

_DAMPING = 10.0
"""Ratings of average height added to each movie before its mean is taken, so that one rating of 5 is not a 5."""


@dataclass(frozen=True)
class Candidates:
    """The movies that may be recommended to anybody, the most rated first, then by id: this order breaks ties of score."""

    ids: pa.Array
    """Movie ids, shape (M,)."""
    n_ratings: NDArray[np.int64]
    """Ratings before the watermark, shape (M,)."""
    mean_rating: NDArray[np.float32]
    """Damped mean rating in stars, shape (M,): what a user without history is predicted to give."""
    titles: pa.Array | None = None
    """Titles, shape (M,), where the movies table has them."""

    def __len__(self) -> int:
        return len(self.ids)

    def rows(self, vocabulary: Vocabulary, movie_key: str) -> NDArray[np.int32]:
        """Embedding rows of the candidates, shape (M,)."""
        keys = self.ids if movie_key == "movie_id" or self.titles is None else self.titles
        return vocabulary.encode(keys)


def select(ratings: pa.Table, movies: pa.Table | None, *, min_ratings: int) -> Candidates:
    """Movies with at least `min_ratings` ratings that are not marked unavailable.

    Raises `NothingToRecommend` where none is left.
    """
    found = ratings.group_by("movie_id").aggregate([("rating", "count"), ("rating", "sum")])
    found = found.filter(pc.greater_equal(found["rating_count"], min_ratings))
    if movies is not None and "available" in movies.column_names:
        closed = movies.filter(pc.equal(movies["available"], False))["movie_id"]
        found = found.filter(pc.invert(pc.is_in(found["movie_id"], value_set=closed.combine_chunks())))
    if not found.num_rows:
        raise NothingToRecommend(
            f"no available movie has {min_ratings} ratings or more", hint="lower candidates.min_ratings"
        )
    found = found.sort_by([("rating_count", "descending"), ("movie_id", "ascending")])
    counts = found["rating_count"].to_numpy()
    average = pc.mean(ratings["rating"]).as_py()
    means = (found["rating_sum"].to_numpy() + _DAMPING * average) / (counts + _DAMPING)
    ids = found["movie_id"].combine_chunks()
    return Candidates(ids, counts, means.astype(np.float32), _titles(ids, movies))


def _titles(ids: pa.Array, movies: pa.Table | None) -> pa.Array | None:
    if movies is None or "title" not in movies.column_names:
        return None
    at = pc.index_in(ids, value_set=movies["movie_id"].combine_chunks())
    return movies["title"].combine_chunks().take(at)
