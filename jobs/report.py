"""The report of a night: one HTML file that needs nothing else, for ten seconds in the morning or an hour of looking.

It is made from what is published and from the journal, so it can be made again for any run; only what the people in the
sample lists liked comes from the ratings themselves. People stand in it by how much they have rated, never by their ids.
"""

import logging
from collections.abc import Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from jobs import card, configuration, inputs, publish
from jobs import run as journals
from jobs.settings import Settings
from recommender import schema
from storage import atomic, models, warehouse
from storage.errors import NotFound, StorageError

logger = logging.getLogger(__name__)
_TOP = 15
"""Movies in the table of the most listed."""
_LIKED = 5
"""Rated movies shown beside a sample list."""
_CHANGES = 20_000
"""Users, about, that changes of lists are counted for."""
_POINTS = 100
"""Points of a Lorenz curve."""
_BAD, _GOOD = ("failed", "crashed", "cancelled", "refused", "rolled_back"), ("published", "unchanged")
_RECENT = 30
"""Days whose ratings are set beside all."""
_STALE = 2
"""Days without a rating before the date from which they are worth a warning."""
CLASSES = 20
"""Of histograms of stars."""
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
    record, told = _record(settings, run_id), settings.origin.keys() - set(configuration.PRIVATE)
    found: dict[str, Any] = {
        "run": {key: value for key, value in record.items() if key not in ("steps", "inputs", "checks", "metrics")},
        "verdicts": _verdicts(record),
        "steps": record.get("steps", []),
        "checks": record.get("checks", []),
        "inputs": record.get("inputs", []),
        "rejected": record.get("rejected", []),
        "settings": {key: str(value) for key, value in configuration.flat(settings).items() if key in told},
    }
    version = record.get("model_version")
    manifest = next((m.manifest for m in models.versions(settings.models) if m.version == version), None)
    found["model"] = manifest and card.card(manifest)
    found["history"] = manifest["history"] if manifest else []
    found |= {"published": None, "nights": []}
    if warehouse.current(settings.database) is not None:
        day = date.fromisoformat(record["as_of_date"])
        with warehouse.reader(settings.database) as connection:
            ask = _Asker(connection)
            found["nights"] = ask("nights", run=record["run_id"])
            if str(day) in publish.visible(settings):
                scale = manifest["rating_scale"] if manifest else (0.5, 5.0)
                found["published"] = _published(
                    ask, day, scale, _ratings(settings, record) if ratings is None else ratings
                )
    return found


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
    return environment.get_template("report.html").render(**document, plots=report_plots.pictures(document))


class _Asker:
    """Answers of the queries in sql/report, as plain rows."""

    def __init__(self, connection: Any) -> None:
        self.connection = connection

    def __call__(self, query: str, **values: Any) -> list[dict[str, Any]]:
        cursor = self.connection.execute(warehouse.sql(f"report/{query}.sql"), values)
        names = [column[0] for column in cursor.description]
        return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]


def _record(settings: Settings, run_id: str | None) -> dict[str, Any]:
    if run_id is not None:
        return journals.find(settings.journal, settings.lock, run_id)
    worked = [
        r for r in journals.records(settings.journal, settings.lock) if r["status"] not in ("unchanged", "checked")
    ]
    if not worked:
        raise NotFound("there has been no run yet", hint="recjob nightly --date D")
    return worked[-1]


def _verdicts(record: Mapping[str, Any]) -> list[dict[str, str]]:
    """What an owner looks at first: each with a state, good, warn or bad."""
    status, error = record["status"], record.get("error_message")
    kind = "bad" if status in _BAD else "good" if status in _GOOD else "warn"
    found = [{"what": status.replace("_", " "), "state": kind, "why": error or f"lists of {record['as_of_date']}"}]
    newest = max((file["max_rated_at"] for file in record.get("inputs", []) if file["max_rated_at"]), default=None)
    if newest is not None:
        days = max(0, (date.fromisoformat(record["as_of_date"]) - date.fromisoformat(newest[:10])).days)
        what, state = ("fresh ratings", "good") if days <= _STALE else (f"no rating for {days} days", "warn")
        found.append({"what": what, "state": state, "why": f"the newest is of {newest[:16].replace('T', ' ')} UTC"})
    for stage in dict.fromkeys(check["stage"] for check in record.get("checks", [])):
        of_stage = [check for check in record["checks"] if check["stage"] == stage]
        worst = next((v for v in ("fail", "overridden", "warn") if any(c["verdict"] == v for c in of_stage)), "pass")
        told = [check for check in of_stage if check["verdict"] == worst]
        state = {"fail": "bad", "overridden": "warn", "warn": "warn", "pass": "good"}[worst]
        why = "; ".join(check.get("message") or check["check_name"] for check in told)
        found.append({"what": f"{stage}: {worst}", "state": state, "why": why})
    return found


def _published(ask: _Asker, day: date, scale: Sequence[float], ratings: pa.Table | None) -> dict[str, Any]:
    """What the published file tells of a date, beside the ratings that its lists were made from."""
    low, high = float(scale[0]), max(float(scale[1]), float(scale[0]) + 1)
    exposure = ask("exposure", day=day)
    people = ask("people", day=day)
    users = sum(row["users"] for row in people)
    every = max(1, users // _CHANGES)
    samples = ask("samples", day=day)
    for sample in samples:
        sample["movies"] = ask("one_list", day=day, user=sample["user_id"])
    _add_liked(samples, ratings, {row["movie_id"]: row["title"] for row in exposure})
    listed = [row["n_users"] for row in exposure]
    return {
        "scale": (low, high),
        "classes": CLASSES,
        "given": None if ratings is None else _given(ratings, low, high),
        "predicted": ask("predicted", day=day, low=low, high=high, classes=CLASSES),
        "users": users,
        "rows": sum(row["rows"] for row in people),
        "people": people,
        "movies": len(exposure),
        "listed": sum(1 for n in listed if n),
        "lorenz": lorenz(listed),
        "top": exposure[:_TOP],
        "changes": ask("changes", day=day, every=every),
        "samples": samples,
    }


def lorenz(counts: Sequence[int]) -> list[tuple[float, float]]:
    """Points of the Lorenz curve: share of the movies, the least listed first, and their share of all places in lists."""
    ordered = np.sort(np.asarray(counts, float))
    if not ordered.sum():
        return []
    total = np.concatenate([[0.0], np.cumsum(ordered) / ordered.sum()])
    at = np.unique(np.linspace(0, len(ordered), _POINTS + 1).round().astype(int))
    return [(float(x / len(ordered)), float(total[x])) for x in at]


def _ratings(settings: Settings, record: Mapping[str, Any]) -> pa.Table | None:
    """The ratings that the run knew, or None where they cannot be read any more."""
    try:
        return inputs.read(
            settings, journals.watermark(date.fromisoformat(record["as_of_date"]), settings.timezone)
        ).ratings
    except StorageError as error:
        logger.warning("report.without_ratings", extra={"why": str(error)})
        return None


def _given(ratings: pa.Table, low: float, high: float) -> dict[str, list[float]]:
    """Shares of the stars given in classes from `low` to `high`: over all time, and in the newest `_RECENT` days."""
    at, stars = ratings["rated_at"].cast(pa.int64()).to_numpy(), ratings["rating"].to_numpy()
    recent = stars[at > at.max() - _RECENT * schema.DAY]
    counts = {name: np.histogram(part, CLASSES, (low, high))[0] for name, part in (("all", stars), ("recent", recent))}
    return {name: (found / found.sum()).tolist() for name, found in counts.items()}


def _add_liked(samples: list[dict[str, Any]], ratings: pa.Table | None, titles: Mapping[Any, str | None]) -> None:
    """Put what each of the users rated best beside their list, and take their ids out."""
    wanted = [sample.pop("user_id") for sample in samples]
    for sample in samples:
        sample["liked"] = []
    if ratings is None:
        return
    kind = ratings["user_id"].type
    theirs = ratings.filter(pc.is_in(ratings["user_id"], value_set=pa.array(wanted, kind)))
    theirs = theirs.sort_by([("rating", "descending"), ("rated_at", "descending")])
    for sample, user in zip(samples, wanted, strict=True):
        best = theirs.filter(pc.equal(theirs["user_id"], pa.scalar(user, kind))).slice(0, _LIKED).to_pylist()
        sample["liked"] = [
            {"title": titles.get(row["movie_id"]) or row["movie_id"], "rating": row["rating"]} for row in best
        ]


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
