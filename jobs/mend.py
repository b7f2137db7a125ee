"""What is damaged of what readers see, or are to see: told, put aside, and what is left of it shown."""

import logging
from pathlib import Path

from jobs import publish
from jobs import run as journals
from jobs.settings import Settings
from storage import atomic, mending, models, runs, warehouse
from storage.errors import CorruptState

logger = logging.getLogger(__name__)


def lost_record(settings: Settings) -> CorruptState | None:
    """The error for lists that readers are shown and whose `run.json` is lost: they have them, and nights do not."""
    shown = {file.run_id for file in warehouse.shows(settings.database)} if settings.database.exists() else set()
    for folder in runs.unrecorded(settings.runs):
        if runs.run_of(folder) in shown:
            what = f"readers are shown {folder}, whose run.json is missing or cannot be read"
            hint = f"{runs.again(runs.day_of(folder))} writes it anew, as the next night does; remove nothing"
            return CorruptState(what, hint=hint)
    return None


def mend(settings: Settings) -> bool:
    """Put aside what readers cannot use; whether the current file is to be built anew although its inputs are the same."""
    _restore_records(settings)
    for log in mending.put_aside_logs(settings.published, settings.database):
        logger.warning("published.stray_log", extra={"put_aside": str(log)})
    now = warehouse.current(settings.database)
    if now is None:
        publish.tell_lost(settings, publish.lost(settings))
        return False
    try:
        warehouse.check(now)
    except CorruptState as error:
        _put_aside_lists(settings)
        shown = mending.put_aside_damaged(settings.published, settings.database)
        if shown is None and publish.staged(settings):
            shown = publish.rest(settings, warehouse.run_id_of(now))
        logger.warning("published.damaged", extra={"why": str(error), "shown_instead": shown and shown.name})
        publish.tell_lost(settings, publish.lost(settings))
        return True
    if any(file.made != file.path for file in warehouse.shows(now)):
        logger.info("published.moved", extra={"file": now.name, "why": "the state folder was: it is built anew"})
        return True
    if mending.edited(settings.database):
        logger.warning(
            "published.edited", extra={"file": now.name, "why": "changed since: it is built anew without that"}
        )
        return True
    return False


def put_aside_all(settings: Settings) -> list[Path]:
    """Mend, and put aside what is damaged without being shown now; returns where that was, and what was shown.

    Readers are shown all that is left.
    """
    before, now = _places(settings), warehouse.current(settings.database)
    mend(settings)
    _put_aside_lists(settings)
    for path in warehouse.versions(settings.published):
        try:
            warehouse.check(path)
        except CorruptState as error:
            logger.warning("published.damaged", extra={"why": f"put aside: {error}"})
            atomic.put_aside(path, settings.published)
    shown = warehouse.current(settings.database)
    if now and publish.staged(settings) and not (shown and warehouse.run_id_of(shown) == warehouse.run_id_of(now)):
        publish.rest(settings, warehouse.run_id_of(now))  # no night that builds the newest dates anew comes after this
    return sorted(before - _places(settings))


def _places(settings: Settings) -> set[Path]:
    return {*settings.runs.glob("as_of=*/run=*"), *warehouse.versions(settings.published)}


def _put_aside_lists(settings: Settings) -> None:
    """Put aside staged lists that are damaged; their dates have failed, so that `recjob backfill` makes them again."""
    taken_back = publish.taken_back(settings)
    for folder in runs.put_aside_damaged(settings.runs):
        run_id, day = runs.run_of(folder), runs.day_of(folder)
        if run_id not in taken_back:
            why = {"error_kind": CorruptState.kind, "error_message": "its lists were damaged, and put aside"}
            journals.amend(settings.journal, run_id, status="failed", **why)
        logger.warning("lists.damaged", extra={"as_of": day, "why": f"{folder} was put aside: {runs.again(day)}"})


def _restore_records(settings: Settings) -> None:
    if not runs.unrecorded(settings.runs):
        return
    manifests = {model.version: model.manifest for model in models.versions(settings.models)}
    manifests |= {before: manifests[now] for before, now in models.called_now(settings.models).items()}
    for folder in mending.restore_records(settings.runs, settings.published, manifests):
        why = f"{folder}/run.json was missing or damaged: it was written anew from what is published"
        logger.warning("lists.restored", extra={"as_of": runs.day_of(folder), "why": why})
