"""Remove what the settings no longer keep: dates, published files, models, reports. Readers keep what they hold."""

import logging
from collections.abc import Collection, Sequence
from typing import Any

from jobs import iceberg, publish, state
from jobs.settings import Settings
from storage import atomic, models, runs, shards, warehouse
from storage.errors import CorruptState
from storage.runs import RunPartition

logger = logging.getLogger(__name__)


def prune(settings: Settings) -> list[str]:
    """Remove it; returns names. Call it only while holding the lock."""
    kept = settings.publish
    unwanted = publish.taken_back(settings)
    old = warehouse.prune(settings.published, settings.database, kept.keep_files, unwanted)
    removed = [path.name for path in old]
    staged = publish.staged(settings)[-kept.retention_dates :]
    removed += _shards(settings, staged)
    shown = _shown(settings, {str(one.as_of) for one in staged}) | iceberg.noted_runs(settings)
    removed += runs.prune(settings.runs, keep={one.run_id for one in staged} | shown)
    for path in sorted(settings.runs.glob("*.aside-*"))[:-1]:
        atomic.remove(path)
        removed.append(path.name)
    removed += models.prune(settings.models, kept.keep_models)
    for path in sorted(settings.pages.glob("2*.html"))[: -kept.keep_reports or None]:
        atomic.remove(path)
        removed.append(path.name)
    if removed:
        logger.info("pruned", extra={"removed": len(removed)})
    return removed


def _shards(settings: Settings, staged: Sequence[RunPartition]) -> list[str]:
    """Remove shards of dates that were staged since, or are older than all that are kept; others wait for the rest."""
    since = {one.as_of: shards.finished_at(one.folder) for one in staged}
    full, removed = len(staged) >= settings.publish.retention_dates, []
    for folder, day in shards.every(settings.runs).items():
        if (day in since and shards.finished_at(folder) < since[day]) or (full and day < min(since)):
            atomic.remove(folder)
            removed.append(folder.name)
    return removed


def _shown(settings: Settings, days: Collection[str]) -> set[str]:
    """The runs that files which are kept show of these days, though it was scored anew since: after a rollback `explain` asks.

    Of any day, where they are views over what is staged: then readers need it, whatever became of its `run.json`. So do Iceberg
    tables, which go back with a rollback.
    """
    found: set[str] = set()
    for path in warehouse.versions(settings.published):
        try:
            if files := warehouse.shows(path):
                found |= {file.run_id for file in files}
            else:
                every = bool(settings.publish.iceberg)
                found |= {run["run_id"] for day, run in publish.shown_by(path).items() if every or day in days}
        except CorruptState as error:
            logger.warning("published.damaged", extra={"why": f"what it shows may be pruned: {error}"})
    return found


def by_hand(settings: Settings, wait: float = 0.0) -> dict[str, Any]:
    """Do so without a night, as after a setting was lowered; returns what was removed."""
    with state.held(settings, wait, "prune"):
        before = atomic.size(settings.state_dir)
        removed = prune(settings)
    return {"removed": removed, "freed_bytes": max(0, before - atomic.size(settings.state_dir))}
