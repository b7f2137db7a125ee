"""What would change, or did: the lists of two runs side by side."""

from datetime import date
from typing import Any

from jobs import publish
from jobs.nightly import Options, nightly
from jobs.settings import Settings
from storage import lists, runs
from storage.errors import NotFound
from storage.runs import RunPartition


def diff(settings: Settings, one: str, other: str) -> dict[str, Any]:
    """How the lists of run `other` differ from those of run `one`: ids of runs, their beginnings, or dates that readers see.

    Raises `NotFound`.
    """
    shown = {day: run["run_id"] for day, run in publish.visible(settings).items()}
    return _compared(*(_partition(settings, shown.get(run, run)) for run in (one, other)))


def plan(settings: Settings, as_of: date, options: Options) -> dict[str, Any]:
    """Stage the lists of a date without showing them, and say how they differ from those that readers see."""
    before = publish.newest_before(settings, as_of)
    record = nightly(settings, as_of, options)
    staged = runs.find(settings.runs, record["run_id"])
    nothing = {"one": None, "other": staged.run_id, "users_only_in_other": staged.record["n_users"]}
    return {"run": record, "difference": _compared(before, staged) if before is not None else nothing}


def _compared(one: RunPartition, other: RunPartition) -> dict[str, Any]:
    return {"one": one.run_id, "other": other.run_id, **lists.difference(one, other)}


def _partition(settings: Settings, run_id: str) -> RunPartition:
    found = [partition for partition in runs.every(settings.runs) if partition.run_id.startswith(run_id)]
    if len(found) != 1:
        what = f"{len(found)} staged runs begin with" if found else "there are no lists of a run"
        raise NotFound(f"{what} {run_id!r}", hint="recjob runs list; lists of pruned dates are gone")
    return found[0]
