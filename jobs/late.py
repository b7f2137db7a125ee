"""Which published dates would now come out differently, because ratings from before their watermark arrived after their run."""

from collections.abc import Iterable, Mapping
from datetime import date
from typing import Any

import numpy as np

from jobs import inputs, publish
from jobs import run as journals
from jobs.settings import Settings
from storage import ratings
from storage.errors import nothing_published


def late(settings: Settings) -> dict[str, Any]:
    """The published dates, oldest first: usable ratings before the watermark, `then` and `now`; `late` is what was added.

    Where rows left the source, `late` is less by these, and may be negative. Raises `NotFound` where nothing is published.
    """
    shown = publish.visible(settings)
    if not shown:
        raise nothing_published()
    ends = {day: journals.watermark(date.fromisoformat(day), settings.timezone) for day in sorted(shown)}
    with inputs.at_hand(settings) as local:
        source, columns, limits = inputs.ratings_of(local)
        at = ratings.instants(source, columns, before=max(ends.values()), limits=limits)
    records = {record["run_id"]: record for record in journals.records(settings.journal, settings.lock)}
    dates = []
    for day, end in ends.items():
        run_id = shown[day]["run_id"]
        files = records.get(run_id, {}).get("inputs")  # None: its record is gone
        then = None if files is None else _ratings_in(files)
        now = int(np.searchsorted(at, round(end.timestamp() * 1_000_000)))
        came = None if then is None else now - then
        dates.append({"as_of_date": day, "run_id": run_id, "then": then, "now": now, "late": came})
    return {"dates": dates}


def _ratings_in(files: Iterable[Mapping[str, Any]]) -> int:
    """How many ratings a run used: those of files that have times of ratings, which those of `[rules]` beside them have not."""
    return sum(file["rows_used"] for file in files if file["min_rated_at"] is not None)
