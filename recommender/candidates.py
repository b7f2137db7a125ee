"""Which movies may be recommended, in which order equals are taken, and what is popular."""

from collections.abc import Iterable
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
    """The movies that may be recommended, the most rated first, then by id: this order breaks ties of score."""

    ids: pa.Array
    """Movie ids, shape (M,)."""
    n_ratings: NDArray[np.int64]
    """Ratings before the watermark, shape (M,)."""
    mean_rating: NDArray[np.float32]
    """Damped mean rating in stars, shape (M,): what a user without history is predicted to give."""
    titles: pa.Array | None = None
    """Titles, shape (M,), where the movies table has them."""
    n_rare: int = 0
    """How many of them, the last, have too few ratings to be ranked, and are listed only where a rule puts them."""

    @property
    def own(self) -> int:
        """How many of them, the first, are ranked."""
        return len(self) - self.n_rare

    def __len__(self) -> int:
        return len(self.ids)

    def rows(self, vocabulary: Vocabulary, movie_key: str) -> NDArray[np.int32]:
        """Embedding rows of the candidates, shape (M,)."""
        keys = self.ids if movie_key == "movie_id" or self.titles is None else self.titles
        return vocabulary.encode(keys)


def select(
    ratings: pa.Table,
    movies: pa.Table | None,
    *,
    min_ratings: int,
    closed: Iterable[pa.Array] = (),
    also: pa.Array | None = None,
) -> Candidates:
    """Movies with at least `min_ratings` ratings that are not marked unavailable and not among the `closed`.

    `also` are movies that come after them if they have fewer, or none. Raises `NothingToRecommend` where no movie has enough.
    """
    found = ratings.group_by("movie_id").aggregate([("rating", "count"), ("rating", "sum")])
    if also is not None:
        found = _with_unrated(found, also)
    enough = pc.greater_equal(found["rating_count"], min_ratings)
    found = found.filter(enough if also is None else pc.or_(enough, pc.is_in(found["movie_id"], value_set=also)))
    if movies is not None and "available" in movies.column_names:
        found = _without(found, movies.filter(pc.equal(movies["available"], False))["movie_id"].combine_chunks())
    for ids in closed:
        found = _without(found, ids)
    found = found.sort_by([("rating_count", "descending"), ("movie_id", "ascending")])
    counts = found["rating_count"].to_numpy()
    rare = int((counts < min_ratings).sum())
    if rare == found.num_rows:
        raise NothingToRecommend(
            f"no available movie that the rules allow has {min_ratings} ratings or more",
            hint="lower candidates.min_ratings; recjob config show: [rules] says what is kept out",
        )
    average = pc.mean(ratings["rating"]).as_py()
    means = (found["rating_sum"].to_numpy() + _DAMPING * average) / (counts + _DAMPING)
    ids = found["movie_id"].combine_chunks()
    return Candidates(ids, counts, means.astype(np.float32), _titles(ids, movies), rare)


def _with_unrated(found: pa.Table, also: pa.Array) -> pa.Table:
    """Counts and sums of ratings by movie, with a row of none for each movie in `also` that has no rating."""
    unrated = also.filter(pc.invert(pc.is_in(also, value_set=found["movie_id"].combine_chunks())))
    none = pa.array(np.zeros(len(unrated)))
    columns = [none.cast(found[name].type) if name != "movie_id" else unrated for name in found.column_names]
    return pa.concat_tables([found, pa.table(columns, schema=found.schema)])


def _without(found: pa.Table, ids: pa.Array) -> pa.Table:
    return found.filter(pc.invert(pc.is_in(found["movie_id"], value_set=ids)))


def _titles(ids: pa.Array, movies: pa.Table | None) -> pa.Array | None:
    if movies is None or "title" not in movies.column_names:
        return None
    at = pc.index_in(ids, value_set=movies["movie_id"].combine_chunks())
    return movies["title"].combine_chunks().take(at)
