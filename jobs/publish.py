"""Make staged lists visible, or flip back: the file is rebuilt from the newest dates, audited and flipped in."""

import logging
import uuid
from collections.abc import Iterable, Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import Any

import pyarrow as pa

from jobs import run as journals
from jobs import tables
from jobs.run import Journal
from jobs.settings import Settings
from recommender.errors import RolledBack
from storage import atomic, mending, models, runs, warehouse
from storage.errors import AuditFailed, CorruptState, InvalidInput, NoRatings, NotFound
from storage.runs import RunPartition
from storage.warehouse import Published

logger = logging.getLogger(__name__)


def publish(settings: Settings, journal: Journal) -> Published:
    """Publish the newest `publish.retention_dates` staged dates; the run of `journal` becomes `published`.

    Raises `AuditFailed`, and then readers still see what they saw.
    """
    with journal.step("publish") as step:
        now = journals.now()
        journal.note(published_at=now)
        history = journals.records(settings.journal, settings.lock)
        partitions = _publishable(settings)
        own = journal.record["run_id"]  # what readers see of it must not be that it is still at work
        history = [record | ({"status": "published"} if record["run_id"] == own else {}) for record in history]
        rows = tables.rows(settings, partitions, history, now)
        published = _built(settings, own, partitions, rows)
        step.rows = published.rows
        waiting = {str(record["run_id"]) for record in history if record["status"] == "staged"}
        for run_id in waiting & {partition.run_id for partition in partitions}:  # plans, which readers now see as well
            journals.amend(settings.journal, run_id, status="published", published_at=now)
    logger.info("published", extra={"rows": published.rows, "dates": len(partitions), "file": published.path.name})
    return published


def demand_place(settings: Settings, as_of: date, ratings: pa.Schema) -> None:
    """Raise `InvalidInput` where readers would not see the lists of a date: it is older than all those kept, or has other ids.

    One file holds one kind of ids: that of its newest date.
    """
    ids = {name: str(ratings.field(name).type) for name in ("user_id", "movie_id")}
    later = [partition for partition in staged(settings) if partition.as_of > as_of]
    if len(later) >= settings.publish.retention_dates:
        kept = f"{len(later)} later dates are there, and no more are kept"
        raise InvalidInput(f"{as_of} would not be published: {kept}", hint="publish.retention_dates says how many are")
    if later and (newest := warehouse.id_types(later[-1])) != ids:
        kinds = [", ".join(f"{name} {kind}" for name, kind in types.items()) for types in (ids, newest)]
        found = f"its ids are {kinds[0]}; those of {later[-1].as_of} are {kinds[1]}"
        hint = "one state folder holds one kind of ids: name another, or run the newest date again with these ratings first"
        raise InvalidInput(f"{as_of} would not be published: {found}", hint=hint)


def demand_wanted(settings: Settings, as_of: date) -> None:
    """Raise `RolledBack` for a date whose newest lists were taken back: it gets others where somebody says so."""
    if str(as_of) in days_taken_back(settings):
        raise RolledBack(str(as_of))


def rollback(settings: Settings, to: str | None = None) -> dict[str, Any]:
    """Flip the link back to an earlier file; what is taken back is not published again by later nights.

    A champion that only the lists taken back were made with gives way to the model of the newest lists shown now.
    """
    now, target = mending.earlier(settings.published, settings.database, to, taken_back(settings))
    before = seen(settings)  # a damaged file is a reason to go back
    after = shown_by(target)
    left = warehouse.run_id_of(now)
    taken = {left, *(shown["run_id"] for shown in before.values())} - {shown["run_id"] for shown in after.values()}
    for run_id in taken:  # before the flip: killed in between, the next rollback goes no further back than this one
        journals.amend(settings.journal, run_id, status="rolled_back")
    for run_id in taken_back(settings) & {shown["run_id"] for shown in after.values()}:  # it went too far back before
        journals.amend(settings.journal, run_id, status="published")
    champion = _champion_of(settings, after)
    atomic.flip(settings.database, target)
    return {"from": left, "to": warehouse.run_id_of(target), "champion": champion}


def _champion_of(settings: Settings, shown: Mapping[str, Mapping[str, Any]]) -> str | None:
    """Promote the model of the newest lists shown, unless some of them are the champion's already; returns the champion."""
    try:
        crowned = models.champion(settings.models)
    except CorruptState as error:  # which the next night tells, too: readers go back all the same
        logger.warning("model.damaged", extra={"version": None, "why": f"{error}; {error.hint}"})
        return None
    called = models.called_now(settings.models)
    made_by = {day: called.get(at["model_version"], at["model_version"]) for day, at in shown.items()}
    newest = made_by[max(made_by)] if made_by else None
    kept = {model.version for model in models.versions(settings.models)}
    if crowned is None or newest not in kept or crowned.version in made_by.values():
        return crowned.version if crowned else None
    models.promote(settings.models, newest)
    return str(newest)


def rest(settings: Settings, run_id: str) -> Path:
    """Show all that is staged, in place of damaged files, of which `run_id` built the newest: a night may take hours."""
    now, history = journals.now(), journals.records(settings.journal, settings.lock)
    partitions = _publishable(settings)
    name, rows = f"{run_id}.{uuid.uuid4().hex[:8]}", tables.rows(settings, partitions, history, now)
    return _built(settings, name, partitions, rows).path


def _built(
    settings: Settings, name: str, partitions: Sequence[RunPartition], rows: dict[str, list[dict[str, Any]]]
) -> Published:
    """The file that readers are shown from now on. Lists that no audit has let through are put aside where it fails: they
    would fail those of every other date, too. Raises what `warehouse.publish` does."""
    attach = settings.publish.mode == "attach"
    try:
        return warehouse.publish(settings.published, settings.database, name, partitions, rows, attach=attach)
    except AuditFailed as error:
        history = journals.records(settings.journal, settings.lock)
        passed = {run["run_id"] for run in seen(settings).values()}
        passed |= {record["run_id"] for record in history if record["status"] == "published"}
        for partition in partitions:
            if partition.run_id not in passed:
                why = f"{atomic.put_aside(partition.folder, settings.runs)} has its lists: {error}"
                logger.error("lists.refused", extra={"as_of": str(partition.as_of), "why": why})
                put_aside = f"the lists of {partition.as_of} were put aside, so other dates go on"
                error.hint = f"{put_aside}: please report this bug"
        raise


def staged(settings: Settings) -> list[RunPartition]:
    """The newest partition of each date, oldest date first, without what was rolled back."""
    return runs.partitions(settings.runs, without=list(taken_back(settings)))


def taken_back(settings: Settings) -> set[str]:
    """The runs that were rolled back."""
    history = journals.records(settings.journal, settings.lock)
    return {str(record["run_id"]) for record in history if record["status"] == "rolled_back"}


def days_taken_back(settings: Settings) -> set[str]:
    """The dates whose newest lists were rolled back, though others that came after them may be lost."""
    made = {str(record["run_id"]): record for record in _made_lists(settings)}
    runs_of = {(one["as_of_date"], run_id) for run_id, one in made.items()}
    newest = dict(sorted(runs_of | {(str(one.as_of), one.run_id) for one in staged(settings)}))
    return {day for day, run_id in newest.items() if run_id in made and made[run_id]["status"] == "rolled_back"}


def models_taken_back(settings: Settings) -> set[str]:
    """The models that no published lists were made with but such as were rolled back."""
    called = models.called_now(settings.models)
    bad, good = (
        {
            called.get(one["model_version"], one["model_version"])
            for one in _made_lists(settings)
            if one["status"] == status
        }
        for status in ("rolled_back", "published")
    )
    return bad - good


def _made_lists(settings: Settings) -> list[dict[str, Any]]:
    """The runs that have scored: others have published what these left."""
    history = journals.records(settings.journal, settings.lock)
    return [
        one for one in history if any((of["step"], of["status"]) == ("score", "done") for of in one.get("steps") or [])
    ]


def releasable(settings: Settings, run_id: str = "") -> RunPartition:
    """The staged partition of a run, by its id or the beginning of it, by default the newest; raises `NotFound`."""
    counting = staged(settings)
    found = [one for one in runs.every(settings.runs) if one.run_id.startswith(run_id)] if run_id else counting
    if not found or (run_id and len(found) > 1):
        what = f"{len(found)} staged runs begin with {run_id!r}" if found else f"nothing is staged {run_id}".rstrip()
        raise NotFound(what, hint="recjob plan --date D stages; recjob runs list shows the runs")
    chosen = max(found, key=lambda one: one.run_id)
    days = sorted({one.as_of for one in (*counting, chosen)})[-settings.publish.retention_dates :]
    if chosen.as_of not in days:
        keep = settings.publish.retention_dates
        raise NotFound(f"{chosen.as_of} is older than the newest {keep} dates", hint="raise publish.retention_dates")
    return chosen


def take_up(settings: Settings, partition: RunPartition) -> None:
    """Let a partition count for its date: newer ones of it are taken for rolled back, and it no longer is."""
    status = {record["run_id"]: record["status"] for record in journals.records(settings.journal, settings.lock)}
    for one in runs.every(settings.runs):
        if one.as_of == partition.as_of and one.run_id > partition.run_id:
            journals.amend(settings.journal, one.run_id, status="rolled_back")
    if status.get(partition.run_id) == "rolled_back":
        journals.amend(settings.journal, partition.run_id, status="staged")


def visible(settings: Settings) -> dict[str, dict[str, Any]]:
    """The runs whose lists readers see now, by as-of date."""
    return {} if warehouse.current(settings.database) is None else shown_by(settings.database)


def seen(settings: Settings) -> dict[str, dict[str, Any]]:
    """What `visible` says, or nothing where the published file is damaged, which others tell."""
    try:
        return visible(settings)
    except CorruptState:
        return {}


def shown_by(path: Path) -> dict[str, dict[str, Any]]:
    """The runs whose lists a published file holds, by as-of date; raises `CorruptState`."""
    with warehouse.reader(path, asked=("recommendations",)) as connection:
        found = connection.execute(warehouse.sql("queries/visible_runs.sql")).fetchall()
    names = ("run_id", "input_digest", "published_at", "model_version")
    return {str(day): dict(zip(names, facts, strict=True)) for day, *facts in found}


def newest_before(settings: Settings, as_of: date) -> RunPartition | None:
    """The partition of the newest date up to `as_of` that readers see; None where there is none, or it is damaged."""
    try:
        shown = {day: run["run_id"] for day, run in visible(settings).items() if day <= str(as_of)}
        return runs.find(settings.runs, shown[max(shown)]) if shown else None
    except CorruptState as error:
        why = str(error)
    except NotFound:
        why = f"{settings.runs}/as_of={max(shown)}/run={shown[max(shown)]}, which readers were shown, is not there"
    logger.warning(
        "lists.not_compared", extra={"as_of": str(as_of), "why": f"{why}: the new lists are compared with none"}
    )
    return None


def lost(settings: Settings) -> list[str]:
    """The dates among the newest that are kept which were published, and are neither staged nor shown any more."""
    there = {str(one.as_of) for one in staged(settings)}
    history = journals.records(settings.journal, settings.lock)
    published = {record["as_of_date"] for record in history if record["status"] == "published"}
    newest = sorted(there | published)[-settings.publish.retention_dates :]
    return [day for day in newest if day not in there | seen(settings).keys() | days_taken_back(settings)]


def tell_lost(settings: Settings, days: Iterable[str]) -> None:
    """Warn of dates whose lists are gone, and say what makes them again."""
    for day in days:
        why = f"its lists are not in {settings.runs} any more: recjob backfill --from {day} --to {day} makes them again"
        logger.warning("publish.lost", extra={"as_of": day, "why": why})


def _publishable(settings: Settings) -> list[RunPartition]:
    """The newest staged dates, those with the kind of ids that the newest one has."""
    every, keep = staged(settings), settings.publish.retention_dates
    there, shown = {str(partition.as_of) for partition in every}, visible(settings).keys()
    tell_lost(settings, (day for day in sorted(there | shown)[-keep:] if day not in there))  # others are dropped anyway
    newest = every[-keep:]
    if not newest:
        raise NoRatings("nothing is staged", hint="recjob score --date D")
    kind = warehouse.id_types(newest[-1])
    fitting = [partition for partition in newest if warehouse.id_types(partition) == kind]
    for partition in newest:
        if partition not in fitting:
            logger.warning(
                "publish.left_out", extra={"as_of": str(partition.as_of), "why": "its ids are of another type"}
            )
    return fitting
