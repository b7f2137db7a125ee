"""Bring ratings into the lake, from wherever they are."""

import logging
import time
from collections.abc import Mapping
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from jobs import state
from jobs.progress import QUIET, Progress
from jobs.settings import Settings
from recommender import schema
from storage import atomic, forgotten, lake, sources
from storage.catalogue import Catalogue
from storage.errors import NoRatings

logger = logging.getLogger(__name__)


def ingest(
    settings: Settings,
    source: str,
    columns: Mapping[str, str],
    movies: str | None = None,
    users: str | None = None,
    wait: float = 0.0,
    progress: Progress = QUIET,
) -> dict[str, Any]:
    """Append what `source` has and the lake has not; returns counts.

    `columns` maps recjob's column names to those of a Parquet or CSV source. Raises `InvalidInput`: nothing is written.
    """
    began = time.perf_counter()
    catalogue = sources.read(source, columns, settings.state_dir / "downloads", movies, users)
    return append(settings, source, catalogue, began, wait, progress)


def append(
    settings: Settings,
    source: str,
    catalogue: Catalogue,
    began: float,
    wait: float = 0.0,
    progress: Progress = QUIET,
) -> dict[str, Any]:
    """Append a catalogue that was read or made."""
    conformed = conform(catalogue)
    if not conformed.ratings.num_rows:
        raise NoRatings(f"{source} has no ratings", hint="is it the right file?")
    with state.held(settings, wait, f"ingest of {source}"):
        atomic.sweep(settings.lake)
        kept = _without_forgotten(settings, conformed)
        with progress.bar("adding ratings", kept.ratings.num_rows) as advance:
            done = lake.append(settings.lake, kept, lambda rows: advance(rows, ""))
    if 2 * done.retitled > done.known_movies:
        found = f"{done.retitled:,} of {done.known_movies:,} movies that the lake knew have another title now"
        why = f"{found}: ids of two data sets in one lake?"
        logger.warning("ingest.other_movies", extra={"source": source, "why": why})
    rated = conformed.ratings["rated_at"]
    result = {
        "source": source,
        "lake": str(settings.lake),
        "offered": done.offered,
        "added": done.added,
        "files": len(done.files),
        "movies": done.movies,
        "users": done.users,
        "first_rated_at": pc.min(rated).as_py().isoformat(),
        "last_rated_at": pc.max(rated).as_py().isoformat(),
        "seconds": round(time.perf_counter() - began, 2),
    }
    logger.info("ingested", extra={"offered": done.offered, "added": done.added, "seconds": result["seconds"]})
    return result


def conform(catalogue: Catalogue) -> Catalogue:
    """The catalogue in the schemas of the recommender: column order and types; unknown columns dropped."""
    kinds = [catalogue.ratings.schema.field(name).type for name in ("user_id", "movie_id")]
    return Catalogue(
        _as(catalogue.ratings, schema.ratings(*kinds)),
        _as(catalogue.movies, schema.movies(kinds[1])) if catalogue.movies is not None else None,
        _as(catalogue.users, schema.users(kinds[0])) if catalogue.users is not None else None,
    )


def _without_forgotten(settings: Settings, catalogue: Catalogue) -> Catalogue:
    listed = forgotten.load(settings.state_dir)
    ratings = listed.without(catalogue.ratings)
    if kept_out := catalogue.ratings.num_rows - ratings.num_rows:
        logger.warning("forgotten.kept_out", extra={"ratings": kept_out})
    return Catalogue(ratings, catalogue.movies, catalogue.users and listed.without(catalogue.users))


def _as(table: pa.Table, wanted: pa.Schema) -> pa.Table:
    columns = [
        table[field.name].cast(field.type) if field.name in table.column_names else pa.nulls(table.num_rows, field.type)
        for field in wanted
    ]
    return pa.table(columns, schema=wanted)
