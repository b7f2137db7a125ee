"""Whatever `recjob ingest` is given, as a catalogue."""

from collections.abc import Mapping
from pathlib import Path

from storage import grouplens, ratings
from storage.catalogue import Catalogue
from storage.errors import InvalidInput


def read(
    source: str, columns: Mapping[str, str], downloads: Path, movies: str | None = None, users: str | None = None
) -> Catalogue:
    """Read `movielens/NAME` (through TensorFlow Datasets), a GroupLens zip, or Parquet or CSV files.

    For files, `columns` maps recjob's column names to theirs, and `movies` and `users` are the tables beside them.
    Raises `InvalidInput`, `NoRatings`.
    """
    if source.startswith("movielens/") and not Path(source).exists():
        from storage import tfds  # TensorFlow Datasets comes with it

        return tfds.read_movielens(source, downloads)
    if source.endswith(".zip"):
        if not Path(source).is_file():
            raise InvalidInput(
                f"{source} does not exist", hint="GroupLens offers the zips: https://grouplens.org/datasets/movielens/"
            )
        return grouplens.read_zip(Path(source))
    return Catalogue(
        ratings.read(source, columns, before=None).table,
        ratings.read_movies(Path(movies), columns) if movies else None,
        ratings.read_users(Path(users), columns, before=None) if users else None,
    )
