"""Read the published file: one user's list, any SELECT, and whether it is fresh."""

import math
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

from jobs import mend, publish, state
from jobs import run as journals
from jobs.settings import Settings
from storage import answers, atomic, models, parquet, warehouse
from storage.errors import CorruptState, NotFound
from storage.part import Part

NOBODY = (
    "ids are written as the source writes them, and people who came after that date or were forgotten (recjob forget)"
)
"""Why somebody is not known."""


def query(settings: Settings, statement: str, max_rows: int = 100_000, timeout: float = 60.0) -> dict[str, Any]:
    """Run exactly one SELECT on a read-only connection that can reach nothing but the published tables.

    Raises `QueryRefused` for anything else, and past `max_rows` or `timeout` seconds.
    """
    with warehouse.reader(settings.database, answers.MEMORY) as connection:
        columns, rows = answers.select(connection, statement, max_rows, timeout)
    return {"columns": columns, "rows": [[_plain(value) for value in row] for row in rows]}


def save(
    settings: Settings, statement: str, target: Path, max_rows: int = 100_000, timeout: float = 60.0
) -> dict[str, Any]:
    """The same into a Parquet file, whole or not at all, with the types that the columns have in DuckDB."""
    place = state.place_for(target, settings)
    with warehouse.reader(settings.database, answers.MEMORY) as connection:
        found = answers.table(connection, statement, max_rows, timeout)
    parquet.write(found, place)
    return {"path": str(target), "columns": found.column_names, "rows": found.num_rows}


def recommend(settings: Settings, user: str, limit: int = 10) -> dict[str, Any]:
    """One user's newest list with titles, and how it came about; raises `NotFound` for a user nobody knows."""
    with warehouse.reader(settings.database, asked=("recommendations", "user_status")) as connection:
        found = answers.of_user(connection, "one_status", user)
        rows = answers.of_user(connection, "one_list", user)[:limit]
    if not found:
        hint = f"{NOBODY} have no list; recjob query 'SELECT user_id FROM user_status LIMIT 5'"
        if settings.input.part:
            own = Part.parsed(settings.input.part)
            hint = f"such an id is in part {own.of_user(user)}, and this is {own}; {hint}"
        raise NotFound("there is no such user in the newest lists", hint=hint)
    return {
        **{key: _plain(value) for key, value in found[0].items()},
        "recommendations": [{key: _plain(value) for key, value in row.items()} for row in rows],
    }


def status(settings: Settings, max_age_hours: float | None = None) -> dict[str, Any]:
    """What is published, how old it is, what runs now, and how the newest runs ended."""
    records = journals.records(settings.journal, settings.lock)
    shown, damage = _looked_at(settings)
    newest = max(shown) if shown else None
    published_at = max((at["published_at"] for at in shown.values() if at["published_at"]), default=None)
    since = (datetime.now(UTC).replace(tzinfo=None) - published_at).total_seconds() / 3600 if published_at else None
    age = None if since is None else max(0.0, since)  # a clock may have been set back
    champion = models.champion(settings.models)
    running = next((record for record in reversed(records) if record["status"] == "running"), None)
    return {
        "database": str(settings.database),
        "as_of_date": newest,
        "published_at": published_at.isoformat() if published_at else None,
        "hours_old": None if age is None else round(age, 2),
        "dates": len(shown),
        "damaged": damage and {"why": str(damage), "hint": damage.hint},
        "stale": max_age_hours is not None and (age is None or age > max_age_hours),
        "champion": champion.version if champion else None,
        "busy": atomic.is_locked(settings.lock),
        "running": running and {key: running[key] for key in ("run_id", "as_of_date", "started_at", "pid")},
        "last_runs": [
            {key: record.get(key) for key in ("run_id", "as_of_date", "status", "started_at", "error_kind")}
            for record in records[-5:]
        ],
    }


def _looked_at(settings: Settings) -> tuple[dict[str, dict[str, Any]], CorruptState | None]:
    """What is published, or why it cannot be read: the file is read whole."""
    try:
        shown = publish.visible(settings)
        if shown:
            warehouse.check(settings.database)
    except CorruptState as error:
        return {}, error
    return shown, mend.lost_record(settings)


def _plain(value: Any) -> Any:
    """Values that strict JSON and a terminal can show: no NaN, no infinity, bytes as hex."""
    if isinstance(value, float | Decimal):
        return float(value) if math.isfinite(value) else None
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, list):
        return [_plain(part) for part in value]
    if isinstance(value, dict):
        return {str(key): _plain(part) for key, part in value.items()}
    return value if isinstance(value, int | str | bool | None) else str(value)
