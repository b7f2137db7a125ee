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
            logger.error("backfill.failed", extra={"as_of": str(day), "why": str(error)})
            outcome = {"as_of_date": str(day), "status": "failed", "error": str(error), "exit_code": exits.code(error)}
        outcomes.append(outcome)
    failed = sum(outcome["status"] == "failed" for outcome in outcomes)
    return {"from": str(first), "to": str(last), "only": only, "dates": outcomes, "failed": failed}


def wanted(settings: Settings, first: date, last: date, only: Only) -> list[date]:
    """The dates to run: those that were never published, those whose newest run failed, or all.

    One whose lists were rolled back is not missing: it is made anew with a reason.
    """
    days = [first + timedelta(days=n) for n in range((last - first).days + 1)]
    if only == "all":
        return days
    records, back = journals.records(settings.journal, settings.lock), publish.days_taken_back(settings)
    if only == "failed":
        newest = {record["as_of_date"]: record["status"] for record in records}
        bad = {day for day, status in newest.items() if status in ("failed", "crashed", "refused", "cancelled")}
        return [day for day in days if str(day) in bad - back]
    done = back | {record["as_of_date"] for record in records if record["status"] == "published"}
    return [day for day in days if str(day) not in done]
