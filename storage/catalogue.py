"""What a source of ratings yields: three Arrow tables. The sources themselves are the files beside this one."""

from dataclasses import dataclass

import pyarrow as pa


@dataclass(frozen=True)
class Catalogue:
    """Ratings, and what is known of the movies and users in them.

    Ids are int64 or string, the same type in all three tables.
    """

    ratings: pa.Table
    """user_id, movie_id, rating float32, rated_at timestamp[us, UTC]."""
    movies: pa.Table | None = None
    """movie_id, title string, genres list<string>, year int16, release_date date32; later columns may be missing."""
    users: pa.Table | None = None
    """user_id, gender, age int16, occupation, zip_code, joined_at timestamp[us, UTC]; all but the id may be missing."""
