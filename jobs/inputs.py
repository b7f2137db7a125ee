"""What a night may know: ratings before its watermark, and the movies and users beside them."""

import dataclasses
import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from jobs.allowed import InvalidSettings
from jobs.progress import QUIET, Progress
from jobs.settings import Settings
from recommender import schema
from recommender.known import Attributes
from recommender.rules import NO_RULES, Rules
from storage import digest, forgotten, remote, steady, tabular, urls
from storage import ratings as stored
from storage.errors import InvalidInput, NoRatings
from storage.part import Part
from storage.ratings import Limits

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Night:
    """The checked input of one run."""

    ratings: pa.Table
    """`schema.ratings`, the latest of each user and movie, in canonical order."""
    movies: pa.Table | None
    users: pa.Table | None
    files: list[dict[str, Any]]
    """Lineage of the ratings, file by file."""
    rejected: list[dict[str, Any]] = field(default_factory=list)
    checks: list[dict[str, Any]] = field(default_factory=list)
    """Verdicts on the input, rows of the `checks` table."""
    rules: Rules = NO_RULES
    """What `jobs/rules.py` has read."""

    @cached_property
    def training_digest(self) -> str:
        """Hash of the ratings and the attributes: all that a model can learn from."""
        kept = (
            (self.movies, ("movie_id", "title", "genres", "year")),
            (self.users, ("user_id", "age", "gender", "occupation")),
        )
        parts = [
            table and table.select([name for name in names if name in table.column_names]) for table, names in kept
        ]
        return digest.of_values(digest.of_table(self.ratings), [part and digest.of_table(part) for part in parts])

    @cached_property
    def digest(self) -> str:
        """Hash of everything here that can change a list."""
        others = [table and digest.of_table(table) for table in (self.movies, self.users)]
        ruled = [] if self.rules is NO_RULES else [_digest(vars(self.rules))]
        return digest.of_values(digest.of_table(self.ratings), others, *ruled)

    @cached_property
    def catalogue(self) -> pa.Table:
        """The movies with the number of their ratings: those of the movies table, and any other that was rated."""
        counts = self.ratings.group_by("movie_id").aggregate([("rating", "count")])
        ids = pc.unique(
            pa.chunked_array(
                [*(self.movies["movie_id"].chunks if self.movies is not None else []), *counts["movie_id"].chunks]
            )
        )
        ids = ids.take(pc.sort_indices(ids))
        columns: dict[str, pa.Array] = {}
        known = self.movies if self.movies is not None else schema.movies(ids.type).empty_table()
        at = pc.index_in(ids, value_set=known["movie_id"].combine_chunks())
        for own in schema.movies(ids.type):
            held = own.name in known.column_names
            columns[own.name] = known[own.name].take(at) if held else pa.nulls(len(ids), own.type)
        columns["movie_id"] = ids
        columns["available"] = pc.fill_null(columns["available"], True)
        rated = counts["rating_count"].take(pc.index_in(ids, value_set=counts["movie_id"].combine_chunks()))
        columns["n_ratings"] = pc.fill_null(rated, 0)
        return pa.table(columns, schema=schema.movies(ids.type).append(pa.field("n_ratings", pa.int64())))

    @property
    def attributes(self) -> Attributes:
        """What is known beside the ratings."""
        return Attributes(self.users, self.movies)

    @property
    def has_titles(self) -> bool:
        """Whether the movies are known by name."""
        return self.movies is not None and "title" in self.movies.column_names

    def keyed(self, movie_key: str) -> pa.Table:
        """The ratings with the column that a model knows movies by; raises `InvalidInput` where a title is missing."""
        if movie_key != "title":
            return self.ratings
        if self.movies is None or not self.has_titles:
            raise InvalidInput(
                "the model knows movies by title, but there are none", hint='model.movie_key = "movie_id"'
            )
        at = pc.index_in(self.ratings["movie_id"], value_set=self.movies["movie_id"].combine_chunks())
        titles = self.movies["title"].combine_chunks().take(at.combine_chunks())
        if titles.null_count:
            movie = self.ratings["movie_id"].filter(titles.is_null())[0].as_py()
            raise InvalidInput(
                f"movie {movie!r} has ratings but no title", hint="add it to the movies table", column="title"
            )
        return self.ratings.append_column("title", titles)


def _digest(value: Any) -> Any:
    """Tables and arrays as their digests, within whatever holds them."""
    if isinstance(value, Mapping):
        return {name: _digest(part) for name, part in value.items()}
    if isinstance(value, pa.Array):
        return digest.of_table(pa.table([value], names=["id"]))
    return digest.of_table(value) if isinstance(value, pa.Table) else value


def read(
    settings: Settings, before: datetime | None, known_at: datetime | None = None, progress: Progress = QUIET
) -> Night:
    """Read and check everything before the watermark `before` (None: all there is); raises `InvalidInput`, `NoRatings`.

    `known_at`: without ratings that arrived from that instant on, which takes a column that says so.
    """
    with at_hand(settings) as local:
        night = _read(local, before, known_at, progress)
    for entry in (*night.files, *night.rejected):
        entry["path"] = remote.url_in(entry["path"], settings.cache)
    return night


def remote_sources(settings: Settings) -> dict[str, str]:
    """The URLs among the sources, by the name of their setting."""
    named = {name: getattr(settings.input, name) for name in ("ratings", "movies", "users")}
    return {name: source for name, source in named.items() if urls.is_url(source)}


@contextmanager
def at_hand(settings: Settings) -> Iterator[Settings]:
    """The settings with the paths of files in place of URLs, once these are fetched; errors still name the URLs."""
    wanted = remote_sources(settings)
    if not wanted:
        yield settings
        return
    remote.fetch(wanted.values(), settings.cache, settings.input.settle_seconds)
    paths: dict[str, Any] = {name: str(remote.path_of(url, settings.cache)) for name, url in wanted.items()}
    with remote.named(settings.cache):
        yield dataclasses.replace(settings, input=dataclasses.replace(settings.input, **paths))


def _read(settings: Settings, before: datetime | None, known_at: datetime | None, progress: Progress) -> Night:
    source, columns, limits = ratings_of(settings)
    if known_at is not None and not columns.get("ingested_at"):
        raise InvalidSettings("--known-at needs input.columns.ingested_at", hint="it names the column with the arrival")
    with progress.bar("reading ratings", None) as advance:
        found = stored.read(
            source, columns, before=before, limits=limits, known_at=known_at, on_rows=lambda rows: advance(rows, "")
        )
    for file in found.files:
        told = ("path", "bytes", "rows", "rows_used", "rows_future", "rows_rejected")
        named = {"path": remote.url_in(file["path"], settings.cache)}
        logger.debug("input.file", extra={name: file[name] for name in told} | named)
    movies_path, users_path = _beside(settings, "movies"), _beside(settings, "users")
    called = vars(settings.input.columns)
    names = {name: called if getattr(settings.input, name) else {} for name in ("movies", "users")}  # the lake has ours
    movies = stored.read_movies(movies_path, names["movies"]) if movies_path else None
    users = stored.read_users(users_path, names["users"], before=before, part=limits.part) if users_path else None
    for name, table in (("movie_id", movies), ("user_id", users)):
        if table is not None and table[name].type != found.table[name].type:
            kinds = f"{table[name].type} there and {found.table[name].type} in the ratings"
            raise InvalidInput(f"{name} of {movies_path if name == 'movie_id' else users_path} is {kinds}", column=name)
    ratings, users = _without_forgotten(settings, found.table, users)
    return Night(ratings, movies, users, found.files, found.rejected, _verdicts(found))


def _without_forgotten(
    settings: Settings, ratings: pa.Table, users: pa.Table | None
) -> tuple[pa.Table, pa.Table | None]:
    """The tables without the people whom `recjob forget` erased: their source may still have them, the cache must not."""
    listed = forgotten.load(settings.state_dir)
    kept, known = listed.without(ratings), users and listed.without(users)
    if kept.num_rows < ratings.num_rows or known != users:
        remote.clear(settings.cache)
    if kept.num_rows < ratings.num_rows:
        logger.warning("forgotten.kept_out", extra={"ratings": ratings.num_rows - kept.num_rows})
        kept = kept.combine_chunks()
    if not kept.num_rows:
        raise NoRatings("nobody is left whom recjob was not told to forget", hint="recjob forget --let-in undoes it")
    return kept, known


def key_of(night: Night, settings: Settings, model: str) -> str:
    """The digest of everything that the lists of a night depend on; `model` says which one scores."""
    parts = [
        settings.recipe.as_json(),
        settings.gate.of_model,
        settings.candidates,
        settings.score.top_n,
        settings.score.include_seen,
        settings.publish.similar_movies,
    ]
    return digest.of_values(night.digest, [str(part) for part in parts], model)


def ratings_of(settings: Settings) -> tuple[str, dict[str, str], Limits]:
    """Where the ratings are, what their columns are called and which are usable; files of others are left to settle."""
    own = settings.input
    part = Part.parsed(own.part) if own.part else None
    limits = Limits(own.lowest_rating, own.highest_rating, own.max_rejected, part)
    others = [Path(path) for path in (own.movies, own.users) if path]
    steady.settle([*(tabular.files_of(own.ratings) if own.ratings else []), *others], own.settle_seconds)
    return own.ratings or str(settings.lake / "ratings"), vars(own.columns) if own.ratings else {}, limits


def _beside(settings: Settings, name: str) -> Path | None:
    """The configured file, or the lake's where the ratings are the lake's too."""
    configured, in_lake = getattr(settings.input, name), settings.lake / f"{name}.parquet"
    if configured:
        return Path(configured)
    return in_lake if not settings.input.ratings and in_lake.exists() else None


def _verdicts(found: stored.Ratings) -> list[dict[str, Any]]:
    rows = sum(file["rows"] - file["rows_future"] for file in found.files)
    rejected = sum(file["rows_rejected"] for file in found.files)
    return [
        {
            "stage": "input",
            "check_name": "rejected_share",
            "value": rejected / rows,
            "severity": "block",
            "verdict": "warn" if rejected else "pass",
            "message": f"{rejected:,} of {rows:,} rows were not usable",
        }
    ]
