"""The report of a run: one HTML file that needs nothing else, for ten seconds in the morning or an hour of looking.

It is made from the journal and from what is published, so it can be made again for any run; only what the people in the
sample lists liked comes from the ratings themselves. People stand in it by how much they have rated, never by their ids.
"""

import logging
import os
from collections.abc import Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import Any

import pyarrow as pa

from jobs import card, configuration, inputs, publish, report_glance, report_lists
from jobs import run as journals
from jobs.settings import Settings
from storage import atomic, models, warehouse
from storage.errors import CorruptState, NotFound, StorageError

logger = logging.getLogger(__name__)
LATEST = "latest.html"


def write(settings: Settings, run_id: str | None = None, ratings: pa.Table | None = None) -> Path:
    """Write the report of a run, by default the newest that did something, and point `latest.html` to the newest.

    `ratings` are those of the night, where they are at hand; they are read otherwise. Raises `NotFound`.
    """
    document = gather(settings, run_id, ratings)
    target = settings.pages / f"{document['run']['run_id']}.html"
    with atomic.new_file(target) as draft:
        draft.write_text(page(document), encoding="utf-8")
    newest = max(path for path in settings.pages.glob("2*.html"))
    atomic.flip(settings.pages / LATEST, newest)
    logger.info("report", extra={"path": str(target)})
    return target


def gather(settings: Settings, run_id: str | None = None, ratings: pa.Table | None = None) -> dict[str, Any]:
    """All that a report tells, as plain values."""
    records = journals.records(settings.journal, settings.lock)
    record, told = _record(settings, records, run_id), settings.origin.keys() - set(configuration.PRIVATE)
    shown, day = _shown(settings), record["as_of_date"]
    manifest = _manifest(settings, record)
    model = manifest and card.card(manifest)
    found: dict[str, Any] = {
        "run": {key: value for key, value in record.items() if key not in ("steps", "inputs", "checks", "metrics")},
        "headline": report_glance.headline(record, shown),
        "verdicts": report_glance.verdicts(record),
        "steps": record.get("steps", []),
        "checks": sorted(record.get("checks", []), key=lambda check: report_glance.ORDER.index(check["verdict"])),
        "inputs": _inputs(record.get("inputs", [])),
        "rejected": record.get("rejected", []),
        "settings": {key: str(value) for key, value in configuration.flat(settings).items() if key in told},
        "nights": report_glance.nights(records, record["run_id"]),
        "model": model,
        "beside": report_glance.beside(model["metrics"]) if model else [],
        "segments": {m["segment"]: m for m in model["metrics"] if (m["of"], m["metric"]) == ("model", "rmse")}
        if model
        else {},
        "history": manifest["history"] if manifest else [],
        "published": None,
    }
    if record["status"] in report_glance.LISTED and day in shown:
        scale = manifest["rating_scale"] if manifest else (0.5, 5.0)
        known = _ratings(settings, record) if ratings is None else ratings
        with warehouse.reader(settings.database) as connection:
            found["published"] = report_lists.of(connection, date.fromisoformat(day), scale, known)
    return found | {"tiles": report_glance.tiles(record, found["published"], found["nights"])}


def page(document: Mapping[str, Any]) -> str:
    """The report as HTML."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    from jobs import report_plots

    environment = Environment(
        loader=PackageLoader("jobs", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"number": _number, "words": lambda name: str(name).replace("_", " "), "bytes": _bytes}
    environment.filters |= {"share": report_glance.share, "instant": report_glance.instant}
    told = {"plots": report_plots.pictures(document), "nightly": report_plots.NIGHTLY, "states": report_glance.STATES}
    return environment.get_template("report.html").render(**document, **told)


def _record(settings: Settings, records: Sequence[dict[str, Any]], run_id: str | None) -> dict[str, Any]:
    if run_id is not None:
        return journals.find(settings.journal, settings.lock, run_id)
    worked = [record for record in records if record["status"] not in ("unchanged", "checked")]
    if not worked:
        raise NotFound("there has been no run yet", hint="recjob nightly --date D")
    return worked[-1]


def _shown(settings: Settings) -> dict[str, dict[str, Any]]:
    """The runs whose lists readers see, by date; none where the published file is damaged, which the run has said."""
    try:
        return publish.visible(settings)
    except CorruptState as error:
        logger.warning("report.without_lists", extra={"why": str(error)})
        return {}


def _manifest(settings: Settings, record: Mapping[str, Any]) -> dict[str, Any] | None:
    versions = models.versions(settings.models)
    return next((model.manifest for model in versions if model.version == record.get("model_version")), None)


def _inputs(files: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The files of a run, by their paths below the folder that they have in common."""
    folders = {os.path.dirname(file["path"]) for file in files}
    common = os.path.commonpath(folders) if folders and len({os.path.isabs(one) for one in folders}) == 1 else ""
    shown = [{**file, "path": os.path.relpath(file["path"], common) if common else file["path"]} for file in files]
    return {"folder": common, "files": shown}


def _ratings(settings: Settings, record: Mapping[str, Any]) -> pa.Table | None:
    """The ratings that the run knew, or None where they cannot be read any more."""
    try:
        return inputs.read(
            settings, journals.watermark(date.fromisoformat(record["as_of_date"]), settings.timezone)
        ).ratings
    except StorageError as error:
        logger.warning("report.without_ratings", extra={"why": str(error)})
        return None


def _number(value: Any, digits: int = 3) -> str:
    """A figure as people read it: thousands with commas, fractions to so many significant places."""
    if value is None:
        return "-"
    if isinstance(value, bool) or not isinstance(value, int | float):
        return str(value)
    if isinstance(value, int) or abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.{digits}g}"


def _bytes(size: float) -> str:
    for unit in ("bytes", "KiB", "MiB", "GiB"):
        if size < 1024 or unit == "GiB":
            return f"{size:.3g} {unit}"
        size /= 1024
    raise AssertionError("unreachable")
