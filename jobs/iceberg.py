"""The tables of `publish.iceberg`: they follow what readers of the published file see."""

import importlib.util
import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from jobs import kept, publish
from jobs.configuration import InvalidSettings
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

    A catalogue that fails is an error, which the record of the run `holder` has as well: what was done here stands, and the
    next run tries again. Raises `InvalidSettings` before the body, `CatalogueFailed` after it.
    """
    check(settings)
    yield
    nothing = not settings.publish.iceberg or warehouse.current(settings.database) is None
    if nothing or _noted(settings) == _now(settings):
        return
    try:
        follow(settings)
    except CatalogueFailed as error:
        kept.tell(settings, holder, str(error), error)
        raise
    except CorruptState as error:  # of what readers see, which others tell
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
    shown = _shown(settings)
    tables = _tables(settings)
    files = tables.show(settings.database, shown, lambda path, sha256: _place(settings, path, sha256))
    atomic.write_json(settings.state_dir / _NOTE, _now(settings))
    logger.info("iceberg.shown", extra={"tables": tables.name, "dates": len(shown), "files": sum(files.values())})


def differ(settings: Settings) -> bool:
    """Whether the tables lack files of the lists that readers see, or have others. Raises `CatalogueFailed`."""
    wanted = {
        _place(settings, one.path(name), one.record["files"][one.path(name).name])
        for one in _shown(settings)
        for name in filter(one.has, attached.TABLES)
    }
    return _tables(settings).files() != wanted


def _tables(settings: Settings) -> iceberg.Tables:
    return iceberg.Tables(settings.publish.iceberg, settings.input.part or "all")


def _shown(settings: Settings) -> list[RunPartition]:
    """What readers see, as far as it is still staged."""
    found = []
    for day, run in publish.visible(settings).items():
        try:
            found.append(runs.find(settings.runs, run["run_id"]))
        except NotFound as error:
            logger.warning("iceberg.left_out", extra={"as_of": day, "why": f"{error}: {runs.again(day)}"})
    return found


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
