"""The Arrow schemas at the borders: names, types and units of every column. No data, no files.

Ids are int64 or string and keep the type of their source, from the ratings file to the published table.
"""

import pyarrow as pa

UTC_TIME = pa.timestamp("us", tz="UTC")
DAY = 86_400_000_000
"""A day in the unit of `UTC_TIME`."""
SCORE_DECIMALS, STARS_DECIMALS = 4, 3
"""What `score` and `predicted_rating` are rounded to once lists are ranked: more would be noise, and a quarter of the file."""


def ratings(user_id: pa.DataType, movie_id: pa.DataType) -> pa.Schema:
    """One row per rating; a later rating of the same movie by the same user replaces the earlier one."""
    return pa.schema(
        [
            pa.field("user_id", user_id, nullable=False),
            pa.field("movie_id", movie_id, nullable=False),
            pa.field("rating", pa.float32(), nullable=False),  # stars, on the scale of the source
            pa.field("rated_at", UTC_TIME, nullable=False),
        ]
    )


def movies(movie_id: pa.DataType) -> pa.Schema:
    """One row per movie. Only `movie_id` must be known."""
    return pa.schema(
        [
            pa.field("movie_id", movie_id, nullable=False),
            pa.field("title", pa.string()),
            pa.field("genres", pa.list_(pa.string())),
            pa.field("year", pa.int16()),
            pa.field("release_date", pa.date32()),
            pa.field("available", pa.bool_()),  # false: never recommended; null counts as true
        ]
    )


def users(user_id: pa.DataType) -> pa.Schema:
    """One row per user.

    Only `user_id` must be known; a user with `joined_at` at or after the watermark is not yet there.
    """
    return pa.schema(
        [
            pa.field("user_id", user_id, nullable=False),
            pa.field("gender", pa.string()),
            pa.field("age", pa.int16()),
            pa.field("occupation", pa.string()),
            pa.field("zip_code", pa.string()),
            pa.field("joined_at", UTC_TIME),
        ]
    )


def recommendations(user_id: pa.DataType, movie_id: pa.DataType) -> pa.Schema:
    """One row per user and rank, sorted by user and rank, ranks 1..k without gaps.

    Ranks tell apart what is equal once it is rounded.
    """
    return pa.schema(
        [
            pa.field("user_id", user_id, nullable=False),
            pa.field("rank", pa.int16(), nullable=False),  # 1 is best
            pa.field("movie_id", movie_id, nullable=False),
            pa.field("score", pa.float32(), nullable=False),  # what the ranking is by, rounded; finite
            pa.field("predicted_rating", pa.float32(), nullable=False),  # stars, clipped to the rating scale, rounded
            pa.field("source", pa.string(), nullable=False),  # model | cold_user | pinned | new_movie | filler
            pa.field("reason", pa.string()),  # null | genre_cap: why a row stands lower than its score
        ]
    )


def user_status(user_id: pa.DataType) -> pa.Schema:
    """One row per user: how the list came about and, if it is short, why."""
    return pa.schema(
        [
            pa.field("user_id", user_id, nullable=False),
            pa.field("segment", pa.string(), nullable=False),  # warm | cold
            pa.field("n_ratings", pa.int32(), nullable=False),  # before the watermark
            pa.field("n_recommendations", pa.int16(), nullable=False),
            pa.field("short_reason", pa.string()),  # null | catalogue_exhausted | opted_out
        ]
    )


def similar_movies(movie_id: pa.DataType) -> pa.Schema:
    """One row per candidate and rank, sorted by movie and rank, ranks 1..k without gaps."""
    return pa.schema(
        [
            pa.field("movie_id", movie_id, nullable=False),
            pa.field("rank", pa.int16(), nullable=False),  # 1 is most alike
            pa.field("similar_movie_id", movie_id, nullable=False),
            pa.field("similarity", pa.float32(), nullable=False),  # cosine of the model's vectors, rounded
        ]
    )
