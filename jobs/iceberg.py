"""The tables of `publish.iceberg`: they follow what readers of the published file see."""

import importlib.util
import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from jobs import kept, publish
from jobs.allowed import InvalidSettings
from jobs.settings import Settings
from storage import atomic, attached, iceberg, runs, warehouse
from storage.errors import CatalogueFailed, CorruptState, NotFound
from storage.held import Copied
from storage.runs import RunPartition

logger = logging.getLogger(__name__)
_NOTE = "iceberg.json"


@contextmanager
def followed(settings: Settings, holder: str) -> Iterator[None]:
    """Do the body, then let the tables show what readers see by now; only while holding the lock.

    A catalogue that fails is an error where it has to change, which the record of the run `holder` has as well: what was done
    here stands, and the next run tries again. What ended the body goes first. Raises `InvalidSettings` before the body,
    `CatalogueFailed` after it.
    """
    check(settings)
    try:
        yield
    except Exception:
        _keep_up(settings)
        raise
    changed = bool(settings.publish.iceberg) and _noted(settings).get("of") != _now(settings)
    try:
        _keep_up(settings, must=changed)
    except CatalogueFailed as error:
        kept.tell(settings, holder, str(error), error)
        raise


def _keep_up(settings: Settings, must: bool = False) -> None:
    """Let the tables follow where they differ; unless they `must`, a catalogue that fails is a warning."""
    if not settings.publish.iceberg or warehouse.current(settings.database) is None:
        return
    try:
        if must or differ(settings):
            follow(settings)
    except (CatalogueFailed, CorruptState) as error:  # damage of what readers see is told by others
        if must and isinstance(error, CatalogueFailed):
            raise
        logger.warning("iceberg.not_followed", extra={"why": str(error)})


def check(settings: Settings) -> None:
    """Raise `InvalidSettings` where there can be no tables, before anything else has taken its time."""
    name = settings.publish.iceberg
    if not name:
        return
    if importlib.util.find_spec("pyiceberg") is None:
        raise InvalidSettings(
            "publish.iceberg is set, and PyIceberg is not installed", hint='pip install "recjob[iceberg]"'
        )
    if not all(name.partition(".")):
        raise InvalidSettings(f"publish.iceberg is {name!r}, expected CATALOGUE.NAMESPACE", hint="lake.recjob, say")
    catalogue = name.partition(".")[0]
    if not iceberg.is_configured(catalogue):
        hint = f"PyIceberg's configuration names it: ~/.pyiceberg.yaml, or PYICEBERG_CATALOG__{catalogue.upper()}__URI"
        raise InvalidSettings(f"publish.iceberg is {name!r}, and there is no catalogue {catalogue!r}", hint=hint)
    if settings.store.url.startswith("az:"):
        hint = "store.url = abfss://container@account.dfs.core.windows.net/folder"
        raise InvalidSettings("readers of Iceberg tables cannot tell whose store az:// means", hint=hint)


def follow(settings: Settings) -> None:
    """Let the tables have the lists that readers see. Raises `CatalogueFailed`."""
    shown, lost = _shown(settings)
    for day in lost:
        why = f"its lists are not in {settings.runs}: {runs.again(day)}"
        logger.warning("iceberg.left_out", extra={"as_of": day, "why": why})
    tables = _tables(settings)
    files = tables.show(settings.database, shown, lambda path, sha256: _place(settings, path, sha256))
    note = {"of": _now(settings), "runs": [one.run_id for one in shown]}
    atomic.write_json(settings.state_dir / _NOTE, note)
    logger.info("iceberg.shown", extra={"tables": tables.name, "dates": len(shown), "files": sum(files.values())})


def differ(settings: Settings) -> bool:
    """Whether the tables lack something that readers see, or have something else. Raises `CatalogueFailed`."""
    wanted = {
        iceberg.File(_place(settings, one.path(name), one.record["files"][one.path(name).name]), one.run_id)
        for one in _shown(settings)[0]
        for name in filter(one.has, attached.TABLES)
    }
    return _tables(settings).files() != wanted


def lost(settings: Settings) -> list[str]:
    """The dates that readers see, and the tables cannot have: their staged lists are gone."""
    return _shown(settings)[1]


def noted_runs(settings: Settings) -> set[str]:
    """The runs whose lists the tables have: they are needed until the tables have others."""
    return set(_noted(settings).get("runs", [])) if settings.publish.iceberg else set()


def _tables(settings: Settings) -> iceberg.Tables:
    return iceberg.Tables(settings.publish.iceberg, settings.input.part or "all")


def _shown(settings: Settings) -> tuple[list[RunPartition], list[str]]:
    """What readers see, as far as it is still staged, and the dates of which it is not."""
    found, gone = [], []
    for day, run in publish.visible(settings).items():
        try:
            found.append(runs.find(settings.runs, run["run_id"]))
        except NotFound:
            gone.append(day)
    return found, gone


def _place(settings: Settings, path: Path, sha256: str) -> str:
    """Where readers of the tables find a staged file: in the copy, where there is one."""
    if settings.store.url:
        return f"{settings.store.url.rstrip('/')}/{Copied(sha256, 0).key}"
    return f"file://{path.resolve()}"


def _now(settings: Settings) -> dict[str, Any]:
    """What the tables depend on."""
    published = str(warehouse.current(settings.database))
    return {"tables": settings.publish.iceberg, "store": settings.store.url, "published": published}


def _noted(settings: Settings) -> dict[str, Any]:
    """What they showed last."""
    try:
        noted: dict[str, Any] = json.loads((settings.state_dir / _NOTE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return noted
