"""The copy of the state folder on `store.url`: taken up before anything is done in the folder, and completed after."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from jobs import exits
from jobs import run as journals
from jobs.allowed import InvalidSettings
from jobs.settings import Settings
from storage import atomic, held, state
from storage.errors import StorageError, StoreFailed
from storage.store import Store

logger = logging.getLogger(__name__)


@contextmanager
def kept(settings: Settings, holder: str) -> Iterator[None]:
    """Take up what the store has that is newer, then do the body, then copy what is new; only while holding the lock.

    A store that fails at the start is a warning where this folder has something to work on. One that fails at the end is an
    error, which the record of the run `holder` has as well: what was done here stands, and the next run copies it. What ended
    the body goes first. Raises `StoreConflict`, `StoreFailed`.
    """
    store = of(settings)
    if store is None:
        yield
        return
    try:
        store.follow()
    except StoreFailed as error:
        if is_to_be_taken_up(settings):
            raise
        logger.warning("store.not_followed", extra={"why": str(error)})
    try:
        yield
    except Exception:
        try:
            store.push(holder)
        except StorageError as error:
            logger.warning("store.not_pushed", extra={"why": str(error)})
        raise
    try:
        store.push(holder)
    except StorageError as error:
        tell(settings, holder, f"{settings.store.url} does not have it: {error}", error)
        raise


def tell(settings: Settings, holder: str, but: str, error: StorageError) -> None:
    """Let an error, and the record of the run `holder`, say that what was done here stands."""
    error.args = (f"what was done here stands, but {but}",)
    code = exits.code(error)
    journals.amend(settings.journal, holder, exit_code=code, error_kind=error.kind, error_message=str(error))


def sync(settings: Settings, wait: float = 0.0, discard: bool = False) -> dict[str, Any]:
    """Take up what is newer in the store, copy there what is new here or was lost there; returns what was moved.

    `discard`: be what the store has, and drop what only is here. Raises what `kept` does.
    """
    store = of(settings)
    if store is None:
        raise InvalidSettings("there is no store", hint="store.url names one: docs/howto/s3.md")
    state.check(settings.state_dir)
    with atomic.lock(settings.lock, wait, "sync"):
        taken = store.follow(discard)
        pushed = store.push("sync", repair=taken is None)
        note = store.note()
    moved = {
        name: {"files": done.files if done else 0, "bytes": done.size if done else 0}
        for name, done in (("taken", taken), ("pushed", pushed))
    }
    return {"url": settings.store.url, "commit": note.commit or None, "files": len(note.held.files), **moved}


def is_to_be_taken_up(settings: Settings) -> bool:
    """Whether this folder has nothing to work on that the store may have, or half of it."""
    store = of(settings)
    if store is None:
        return False
    note = store.note()
    return note.taking or (not note.commit and held.is_empty(settings.state_dir))


def of(settings: Settings) -> Store | None:
    """The store that is configured, if one is."""
    return Store(settings.store.url, settings.state_dir) if settings.store.url else None
