"""Erase people from everything in recjob's care, and keep them out from then on."""

import json
import logging
import re
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from jobs import inputs, mend, state
from jobs import run as journals
from jobs.settings import Settings
from storage import atomic, forgotten, lake, models, rebuild, remote, runs, shards, tabular
from storage.errors import CorruptState, StorageError
from storage.forgotten import Forgotten
from storage.models import Model

logger = logging.getLogger(__name__)
_REPLACED = "[forgotten]"
Counts = dict[str, dict[str, int]]
"""By place: the files that were rewritten or removed, and the rows of people in them where they are counted."""


def forget(settings: Settings, ids: Sequence[str], wait: float = 0.0) -> dict[str, Any]:
    """Erase the users `ids`, as their source writes them, from the state folder, and keep them out of later nights.

    The journal is cleared first, as that takes the ids themselves, then the list of who is kept out is written: what is cut off
    after that, this call or the next night finishes. Returns a receipt with counts, which names no id. Raises `Busy`;
    `CorruptState` where something cannot be read, and so not cleared.
    """
    began = time.perf_counter()
    with state.held(settings, wait, "forget"):
        listed = forgotten.load(settings.state_dir).adding(ids)
        try:
            journal = _journal(settings, ids)
        except CorruptState as error:
            forgotten.save(settings.state_dir, listed)  # nobody comes back meanwhile
            hint = f"{error.hint}; then recjob forget again, with the same ids"
            raise CorruptState(str(error), hint=hint, **error.where) from error
        forgotten.save(settings.state_dir, listed)
        erased, damaged = finish(settings, listed)
        counts = {"journal": {"files": journal}, **erased}
        logger.info("forget.erased", extra={"asked": len(set(ids)), "erased": counts})  # a store may fail now
    sources = _sources(settings, ids)
    receipt = {
        "asked": len(set(ids)),
        "held": any(place["files"] for name, place in counts.items() if name != "caches"),
        "erased": counts,
        "damaged": [{"path": str(path), "hint": _way_on(settings, path)} for path in damaged],
        "still_contain": sources,
        "kept_out": len(listed.hashes),
        "seconds": round(time.perf_counter() - began, 2),
    }
    logger.info("forget.done", extra={name: receipt[name] for name in ("asked", "held", "seconds")})
    return receipt


def _way_on(settings: Settings, removed: Path) -> str:
    """What brings back what was damaged."""
    if removed.is_relative_to(settings.runs):
        return runs.again(runs.day_of(removed))
    return "" if removed.is_relative_to(settings.published) else "the next night makes its model the champion"


def let_in(settings: Settings, ids: Sequence[str], wait: float = 0.0) -> dict[str, Any]:
    """Take users off the list of who is kept out; what was erased stays erased."""
    with state.held(settings, wait, "forget"):
        listed = forgotten.load(settings.state_dir)
        fewer = listed.letting_in(ids) if listed.hashes else listed
        forgotten.save(settings.state_dir, fewer)
    return {"asked": len(set(ids)), "let_in": len(listed.hashes - fewer.hashes), "kept_out": len(fewer.hashes)}


def finish(settings: Settings, listed: Forgotten) -> tuple[Counts, list[Path]]:
    """Erase everybody on the list from all that recjob keeps; call it only while holding the lock.

    Each file is replaced whole, so a reader sees all of somebody or nothing, and each step can be done again. What is damaged
    cannot be rewritten and may have them: it is removed. Returns counts, and what was removed for that.
    """
    for folder in settings.guarded:
        atomic.sweep(folder)
    kept = (settings.state_dir / "downloads", settings.models / "unfinished", settings.cache)
    damaged = [*models.remove_damaged(settings.models), *mend.put_aside_all(settings)]
    made_again = [
        *kept,
        *shards.every(settings.runs),
        *settings.pages.glob("*.html"),
        *settings.published.glob("*.aside-*"),
        *settings.runs.glob("*.aside-*"),
    ]
    caches = [path for path in made_again if path.exists() or path.is_symlink()]
    for path in caches:
        atomic.remove(path)
    try:
        staged = [removed for partition in runs.every(settings.runs) if (removed := runs.remove(partition, listed))]
        published = rebuild.remove(settings.published, settings.database, listed, state.run_facts(settings))
        runs.tidy(settings.runs)  # readers of the files before this have an error, and those of the new ones never do
        known = [model for model in models.versions(settings.models) if _rewritten(settings, model, listed)]
        collected = lake.remove(settings.lake, listed)
    except CorruptState as error:
        hint = f"{error.hint}; then recjob forget again, or any night, goes on: what cannot be read cannot be cleared"
        raise type(error)(str(error), hint=hint, **error.where) from error
    forgotten.save(settings.state_dir, Forgotten(listed.key, listed.hashes, pending=False))
    return {
        "published": dict(zip(("files", "rows"), published, strict=True)),
        "runs": {"files": len(staged), "rows": sum(staged)},
        "models": {"files": len(known)},
        "lake": dict(zip(("files", "rows"), collected, strict=True)),
        "caches": {"files": len(caches)},
    }, damaged


def _rewritten(settings: Settings, model: Model, listed: Forgotten) -> bool:
    """Store a version that knows somebody on the list without them, under a name of its own, and remove the old one."""
    _, ids = models.contents(model)
    gone = listed.among(ids["users"])
    if not len(gone):
        return False
    from jobs import train  # TensorFlow comes with it
    from recommender.removal import without_users

    fewer = without_users(train.load(model), gone)
    ids = ids | {"users": fewer.users.ids}
    version = f"{model.version.partition('-')[0]}-{models.digest(model.manifest['recipe'], fewer.weights, ids)[:8]}"
    before = [*models.called_before(model), model.version]
    lineage = model.manifest["lineage"] | {"users": len(fewer.users), "rewritten_from": before}
    lineage["training"] = None  # nobody who is let in again shall find it in place of a training
    facts = {"lineage": lineage, "parameters": fewer.parameters}
    made = models.save(settings.models, version, model.manifest | facts, fewer.weights, ids)
    champion = models.champion(settings.models)
    if champion is not None and champion.version == model.version:
        models.promote(settings.models, made.version, pinned=models.pinned(settings.models) is not None)
    atomic.remove(model.folder)
    return True


def _journal(settings: Settings, ids: Sequence[str]) -> int:
    """Take the ids out of error messages: a bug's, or an older recjob's, may name them; returns how many records did."""
    forms = {form for one in ids for form in (one, repr(one)[1:-1], json.dumps(one)[1:-1]) if form}
    named = re.compile("|".join(rf"(?<!\w){re.escape(form)}(?!\w)" for form in sorted(forms, key=len, reverse=True)))
    count = 0
    for path in sorted(settings.journal.glob("*.json")):
        record = journals.read(path)
        message = record.get("error_message") or ""
        if named.search(message):
            atomic.write_json(path, record | {"error_message": named.sub(_REPLACED, message)})
            count += 1
    return count


def _sources(settings: Settings, ids: Sequence[str]) -> list[dict[str, Any]]:
    """The user's own files, which are not recjob's to change, that still have somebody of `ids`; rows None: not readable."""
    try:
        with inputs.at_hand(settings) as local:
            found = list(_still_in(local, ids))
        return [{"path": remote.url_in(path, settings.cache), "rows": rows} for path, rows in found if rows != 0]
    except StorageError as error:
        logger.warning("forget.not_fetched", extra={"why": str(error)})
        return [{"path": url, "rows": None} for url in inputs.remote_sources(settings).values()]
    finally:
        remote.clear(settings.cache)


def _still_in(settings: Settings, ids: Sequence[str]) -> Iterator[tuple[str, int | None]]:
    """Each file that may have users, and how many rows it has of `ids`."""
    source, wanted = settings.input, {"user_id": settings.input.columns.user_id}
    for path in [
        *(tabular.files_of(source.ratings) if source.ratings else []),
        *([Path(source.users)] if source.users else []),
        *(Path(path) for path in (settings.rules.exclude, settings.rules.opt_out) if path),
    ]:
        try:
            users = tabular.read(path, wanted).column("user_id").cast(pa.string())
            rows = pc.sum(pc.is_in(users, value_set=pa.array(ids, pa.string()))).as_py()
        except (StorageError, KeyError, pa.ArrowInvalid):
            rows = None
        yield str(path), rows
