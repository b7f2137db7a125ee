"""Remove what the settings no longer keep: dates, published files, models, reports. Readers keep what they hold."""

import logging
from typing import Any

from jobs import publish, state
from jobs.settings import Settings
from storage import atomic, models, runs, warehouse

logger = logging.getLogger(__name__)


def prune(settings: Settings) -> list[str]:
    """Remove it; returns names. Call it only while holding the lock."""
    kept = settings.publish
    removed = runs.prune(settings.runs, keep=publish.staged(settings)[-kept.retention_dates :])
    removed += [path.name for path in warehouse.prune(settings.published, settings.database, kept.keep_files)]
    removed += models.prune(settings.models, kept.keep_models)
    for path in sorted(settings.pages.glob("2*.html"))[: -kept.keep_reports or None]:
        atomic.remove(path)
        removed.append(path.name)
    if removed:
        logger.info("pruned", extra={"removed": len(removed)})
    return removed


def by_hand(settings: Settings, wait: float = 0.0) -> dict[str, Any]:
    """Do so without a night, as after a setting was lowered; returns what was removed."""
    with state.held(settings, wait, "prune"):
        before = atomic.size(settings.state_dir)
        removed = prune(settings)
    return {"removed": removed, "freed_bytes": max(0, before - atomic.size(settings.state_dir))}
