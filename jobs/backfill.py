"""Make the dates that are missing, oldest first; one bad date does not stop the others."""

import dataclasses
import logging
from datetime import date, timedelta
from typing import Any, Literal

from jobs import exits, publish, state
from jobs import run as journals
from jobs.nightly import Options, nightly
from jobs.settings import Settings
from recommender.errors import RecommenderError
from storage.errors import Busy, DiskFailed, StorageError

logger = logging.getLogger(__name__)
Only = Literal["missing", "failed", "all"]


def backfill(
    settings: Settings,
    first: date,
    last: date,
    only: Only = "missing",
    options: Options = Options(),  # noqa: B008 (frozen)
) -> dict[str, Any]:
    """Run the wanted dates of `first`..`last`; returns each with its status, and how many failed.

    A full disk or a lock held by another run ends the backfill at once: the remaining dates would fare no better.
    """
    state.take_up(settings, options.wait)
    dates = wanted(settings, first, last, only)
    outcomes = []
    for day in dates:
        try:
            record = nightly(settings, day, dataclasses.replace(options, trigger="backfill"))
            outcome = {"as_of_date": str(day), "status": record["status"], "run_id": record["run_id"]}
        except (Busy, DiskFailed):
            raise
        except (StorageError, RecommenderError) as error:
            why = f"{error} ({error.hint})" if error.hint else str(error)
            logger.error("backfill.failed", extra={"as_of": str(day), "why": why})
            outcome = {"as_of_date": str(day), "status": "failed", "error": why, "exit_code": exits.code(error)}
        outcomes.append(outcome)
    failed = sum(outcome["status"] == "failed" for outcome in outcomes)
    return {"from": str(first), "to": str(last), "only": only, "dates": outcomes, "failed": failed}


def wanted(settings: Settings, first: date, last: date, only: Only) -> list[date]:
    """The dates to run: those that were never published or are lost, those whose newest run failed, or all.

    One whose lists were rolled back is not missing: it is made anew with a reason. What readers are shown was published,
    whatever became of its run.
    """
    days = [first + timedelta(days=n) for n in range((last - first).days + 1)]
    if only == "all":
        return days
    records, back = journals.records(settings.journal, settings.lock), publish.days_taken_back(settings)
    shown = {run["run_id"]: day for day, run in publish.seen(settings).items()}
    ended = {one["run_id"]: one["status"] for one in records}
    ended |= {run_id: "published" for run_id in shown if ended.get(run_id) == "crashed"}
    if only == "failed":
        newest = {record["as_of_date"]: ended[record["run_id"]] for record in records}
        bad = {day for day, status in newest.items() if status in ("failed", "crashed", "refused", "cancelled")}
        return [day for day in days if str(day) in bad - back]
    published = {record["as_of_date"] for record in records if ended[record["run_id"]] == "published"}
    done = back | {day for run_id, day in shown.items() if ended.get(run_id) != "failed"}  # that is: was put aside
    return [day for day in days if str(day) not in done | published - set(publish.lost(settings))]
