"""The rules of `[rules]` as a night has them: their files read and looked at; what they say is done in the recommender."""

import logging
from dataclasses import replace
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from jobs import settings as defaults
from jobs.inputs import Night
from jobs.settings import Settings
from recommender import candidates
from recommender.candidates import Candidates
from recommender.rules import Rules
from storage import listed, lists, steady
from storage.runs import RunPartition

logger = logging.getLogger(__name__)
_KEYS = {"exclude": ("user_id", "movie_id"), "opt_out": ("user_id",)}
"""Columns of a rule's file; of the others movie_id."""
_EPOCH = date(1970, 1, 1)


def applied(night: Night, settings: Settings, as_of: date) -> Night:
    """The night with its rules, the lineage of their files, and a row of `checks` for each but the numbers.

    Ids that no movie has are a warning. Raises `InvalidInput` for a file, `QueryRefused` for what is in `candidates_sql`.
    """
    own = settings.rules
    if own == defaults.Rules():
        return night
    paths = {name: Path(path) for name, path in own.files.items()}
    steady.settle(paths.values(), settings.input.settle_seconds)
    types = {name: night.ratings[name].type for name in ("user_id", "movie_id")}
    tables, files = dict[str, pa.Table](), list[dict[str, Any]]()
    for name, path in paths.items():
        if name == "candidates_sql":
            ids, lineage = listed.chosen(path, night.catalogue, as_of)
            tables[name] = pa.table({"movie_id": ids})
        else:
            keys = _KEYS.get(name, ("movie_id",))
            tables[name], lineage = listed.read(path, vars(settings.input.columns), {key: types[key] for key in keys})
        files.append(lineage)
    found = Rules(
        closed=_closed(night, own, tables, as_of),
        excluded=tables.get("exclude"),
        opted_out=_ids(tables, "opt_out", "user_id"),
        pinned=_known(_ids(tables, "pinned", "movie_id"), night),
        new=_new(night, own.new_days, as_of) if own.new_every else None,
        new_every=own.new_every,
        genre_cap=own.genre_cap,
        genre_places=own.genre_places,
        genres=night.catalogue.select(["movie_id", "genres"]) if own.genre_cap else None,
        damping=own.damping,
        fill=own.fill,
        day=(as_of - _EPOCH).days,
    )
    checks = _checks(night, settings, found, tables)
    return replace(night, rules=found, files=[*night.files, *files], checks=[*night.checks, *checks])


def candidates_of(night: Night, settings: Settings) -> Candidates:
    """The movies that may be listed on a night, by its rules; raises `NothingToRecommend`."""
    return candidates.select(
        night.ratings,
        night.movies,
        min_ratings=settings.candidates.min_ratings,
        closed=night.rules.closed.values(),
        also=night.rules.also(night.ratings),
    )


def verdicts(partition: RunPartition, night: Night) -> list[dict[str, Any]]:
    """Whether finished lists are as a rule wants them where it may find too few movies: rows of the table `checks`."""
    cap, places = night.rules.genre_cap, night.rules.genre_places
    if not cap:
        return []
    over, users = lists.over_cap(partition, cap, places), max(1, int(partition.record["rows"]["user_status"]))
    message = f"{over} of {users} lists have more than {cap} movies of one genre in the first {places} places"
    return [_check("rules.genre_cap", over / users, "warn" if over else "pass", message, "recommendations")]


def _closed(night: Night, own: defaults.Rules, tables: dict[str, pa.Table], as_of: date) -> dict[str, pa.Array]:
    """The movies that each rule keeps out of all lists, sorted."""
    movies = night.catalogue["movie_id"]
    found = dict[str, pa.ChunkedArray]()
    for name in ("candidates_sql", "allow"):
        if name in tables:
            found[name] = movies.filter(pc.invert(pc.is_in(movies, value_set=_ids(tables, name, "movie_id"))))
    if "block" in tables:
        found["block"] = movies.filter(pc.is_in(movies, value_set=_ids(tables, "block", "movie_id")))
    if own.released:
        found["released"] = movies.filter(pc.greater(night.catalogue["release_date"], pa.scalar(as_of)))
    return {name: ids.combine_chunks() for name, ids in found.items()}


def _ids(tables: dict[str, pa.Table], name: str, column: str) -> pa.Array | None:
    """The different ids of a rule's file, in its order."""
    return pc.unique(tables[name][column]) if name in tables else None


def _known(ids: pa.Array | None, night: Night) -> pa.Array | None:
    """Those of some movies that there are."""
    return None if ids is None else ids.filter(pc.is_in(ids, value_set=night.catalogue["movie_id"].combine_chunks()))


def _new(night: Night, days: float, as_of: date) -> pa.Array:
    """The movies that are new on a date: released, or else first rated, less than `days` before its end."""
    first = night.ratings.group_by("movie_id").aggregate([("rated_at", "min")])
    at = pc.index_in(night.catalogue["movie_id"], value_set=first["movie_id"].combine_chunks())
    rated = first["rated_at_min"].take(at.combine_chunks()).cast(pa.timestamp("us")).cast(pa.date32(), safe=False)
    since = pc.coalesce(night.catalogue["release_date"], rated)
    new = pc.and_(pc.greater(since, pa.scalar(as_of - timedelta(days=days))), pc.less_equal(since, pa.scalar(as_of)))
    return night.catalogue["movie_id"].filter(new).combine_chunks()


def _checks(night: Night, settings: Settings, found: Rules, tables: dict[str, pa.Table]) -> list[dict[str, Any]]:
    """What the rules come to, and a warning for each that names movies which are not there."""
    movies, rows = night.catalogue["movie_id"], []
    said = {name: f"keeps {len(ids):,} of {len(movies):,} movies out" for name, ids in found.closed.items()}
    said |= {"new_every": f"{len(found.new):,} movies are new"} if found.new is not None else {}
    said |= {
        name: f"names {tables[name].num_rows:,} rows" for name in ("exclude", "opt_out", "pinned") if name in tables
    }
    for name, message in said.items():
        verdict = "pass"
        if name in ("allow", "block", "exclude", "pinned"):
            ids = pc.unique(tables[name]["movie_id"])
            unknown = pc.sum(pc.invert(pc.is_in(ids, value_set=movies.combine_chunks())), min_count=0).as_py()
            if unknown:
                verdict, message = "warn", f"{message}; {unknown:,} of its {len(ids):,} movies are not known"
        if name == "pinned" and (kept := _kept_out(found, night)):
            verdict, message = "warn", f"{message}; {kept:,} are kept out by other rules or not available"
        if verdict == "warn":
            logger.warning("rules.warn", extra={"rule": name, "why": message})
        value = len(found.closed[name]) if name in found.closed else None
        rows.append(_check(f"rules.{name}", value, verdict, f"rules.{name} {message}", "input"))
    return rows


def _kept_out(found: Rules, night: Night) -> int:
    """How many pinned movies another rule keeps out, or are not available."""
    pinned = set(found.pinned.to_pylist()) if found.pinned is not None else set()
    gone = night.catalogue["movie_id"].filter(pc.invert(night.catalogue["available"]))
    return len({movie for ids in (*found.closed.values(), gone) for movie in ids.to_pylist()} & pinned)


def _check(name: str, value: float | None, verdict: str, message: str, stage: str) -> dict[str, Any]:
    row = {"stage": stage, "check_name": name, "severity": "warn", "verdict": verdict, "message": message}
    return row | {"value": value}
