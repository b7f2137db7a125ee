"""Whether the ratings of a run are what was to be expected after the runs before: as many, as new, and not changed unseen."""

import logging
from collections.abc import Mapping, Sequence
from datetime import UTC, timedelta
from typing import Any

import pyarrow.compute as pc

from jobs.inputs import Night
from jobs.run import Run
from jobs.settings import Settings
from storage.errors import UnlikelyInput

logger = logging.getLogger(__name__)
_SUCCEEDED = ("trained", "staged", "published", "unchanged")
Record = Mapping[str, Any]


def verdicts(
    night: Night, settings: Settings, run: Run, history: Sequence[Record], accept: bool
) -> list[dict[str, Any]]:
    """Rows of the `checks` table; `history` are the records of the journal, `accept` overrides what would be refused."""
    ended = [record for record in history if record["status"] in _SUCCEEDED and "n_ratings" in record]
    found = [_volume(night, settings, run, ended), _age(night, settings, run), _rewritten(night, ended)]
    return [check | {"verdict": "overridden"} if accept and check["verdict"] == "fail" else check for check in found]


def demand(checks: Sequence[Record]) -> None:
    """Raise `UnlikelyInput` for what is refused, and log what was overridden."""
    for check in checks:
        if check["verdict"] == "overridden":
            logger.warning("input.accepted", extra={"check": check["check_name"], "why": check["message"]})
    refused = [check["message"] for check in checks if check["verdict"] == "fail"]
    if refused:
        raise UnlikelyInput("; ".join(refused), hint="mend the input, or take it as it is: --accept-input (recorded)")


def _volume(night: Night, settings: Settings, run: Run, ended: Sequence[Record]) -> dict[str, Any]:
    """As many ratings as in the last run that was for this date or one before: a run for a later date had more by right."""
    before = [record for record in ended if record["as_of_date"] <= str(run.as_of)]
    check = {"check_name": "ratings_vs_last_run", "value": night.ratings.num_rows}
    if not before:
        return _check(**check, verdict="skipped", message="no run to compare with")
    last = max(before, key=lambda record: (record["as_of_date"], record["run_id"]))
    least = settings.input.min_share * last["n_ratings"]
    return _check(
        **check,
        threshold=least,
        baseline=last["n_ratings"],
        verdict="fail" if night.ratings.num_rows < least else "pass",
        message=f"{night.ratings.num_rows:,} ratings; the last run, for {last['as_of_date']}, had {last['n_ratings']:,}, "
        f"and {settings.input.min_share:g} of that is the least (input.min_share)",
    )


def _age(night: Night, settings: Settings, run: Run) -> dict[str, Any]:
    """How long before the end of the date the newest rating was given, in days."""
    newest = pc.max(night.ratings["rated_at"]).as_py().astimezone(UTC)
    days, most = (run.watermark - newest) / timedelta(days=1), settings.input.max_age_days
    limit = "any age is taken" if most is None else f"{most:g} days are the most"
    return _check(
        check_name="newest_rating_age_days",
        value=days,
        threshold=most,
        verdict="fail" if most is not None and days > most else "pass",
        message=f"the newest rating, of {newest:%Y-%m-%d %H:%M} UTC, is {days:,.1f} days older than the end of {run.as_of}; "
        f"{limit} (input.max_age_days)",
    )


def _rewritten(night: Night, ended: Sequence[Record]) -> dict[str, Any]:
    """Files with other bytes than in an earlier run, although size and time of writing are the same: a disk that forgets."""
    known = {_version(file): file["sha256"] for record in ended for file in record.get("inputs", [])}
    changed = [file["path"] for file in night.files if known.get(_version(file), file["sha256"]) != file["sha256"]]
    return _check(
        check_name="files_changed_unwritten",
        value=len(changed),
        verdict="fail" if changed else "pass",
        message=f"{changed[0]} has other bytes than before, although nothing wrote to it: is the disk sound?"
        if changed
        else "no file has changed without being written",
    )


def _version(file: Record) -> tuple[Any, ...]:
    return file["path"], file["bytes"], file.get("modified_at")


def _check(**facts: Any) -> dict[str, Any]:
    return {"stage": "input", "severity": "block", **facts}
