"""One attempt: what it is for, what it may know, and the journal in which it leaves its trace even if it is killed."""

import json
import logging
import os
import resource
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any, Literal
from zoneinfo import ZoneInfo

from jobs import log
from storage import atomic
from storage.errors import CorruptState, NotFound

logger = logging.getLogger(__name__)
_STAMP = "%Y%m%dT%H%M%S"
Trigger = Literal["manual", "schedule", "backfill"]


@dataclass(frozen=True)
class Run:
    """Identity of one attempt."""

    as_of: date
    """Ratings count that were given before the end of this date."""
    id: str
    """Sorts in the order of starts, also where the clock was set back in between."""
    watermark: datetime
    """First instant too late, UTC: the end of `as_of` in the configured zone."""
    trigger: Trigger = "manual"


def new_run(as_of: date, zone: str, trigger: Trigger = "manual", after: str = "") -> Run:
    """A run for `as_of`, starting now; `after` is the id of the newest there is, which its own has to come after."""
    start = datetime.now(UTC)
    if after and (newest := _started(after)) is not None:
        start = max(start, newest + timedelta(milliseconds=1))
    return Run(
        as_of,
        f"{start:{_STAMP}}{start.microsecond // 1000:03d}Z-{secrets.token_hex(3)}",
        watermark(as_of, zone),
        trigger,
    )


def _started(run_id: str) -> datetime | None:
    """The instant in the id of a run."""
    with suppress(ValueError):
        return datetime.strptime(run_id[:18] + "000Z", f"{_STAMP}%f%z")
    return None


def watermark(as_of: date, zone: str) -> datetime:
    """The instant at which `as_of` ends in `zone`, in UTC."""
    midnight = datetime.combine(as_of + timedelta(days=1), datetime.min.time(), ZoneInfo(zone))
    return midnight.astimezone(UTC)


@dataclass
class Step:
    """What a step reports of itself while it runs."""

    rows: int | None = None


@dataclass
class Journal:
    """The record of one run, rewritten whole at every change, so that a killed run leaves the last one."""

    path: Path | None
    """None: it leaves no trace, as what it is of leaves its own."""
    record: dict[str, Any]
    _steps: list[dict[str, Any]] = field(default_factory=list)

    @classmethod
    def start(cls, folder: Path | None, run: Run, **facts: Any) -> "Journal":
        """Begin the record of `run`."""
        record = {
            "run_id": run.id,
            "as_of_date": str(run.as_of),
            "trigger": run.trigger,
            "status": "running",
            "started_at": now(),
            "pid": os.getpid(),
            "steps": [],
            **facts,
        }
        journal = cls(folder and folder / f"{run.id}.json", record, record["steps"])
        journal._write()
        log.belongs_to(run.id)
        return journal

    @contextmanager
    def step(self, name: str) -> Iterator[Step]:
        """Record the beginning, end, time and memory of a step."""
        entry: dict[str, Any] = {"step": name, "attempt": 1, "status": "running", "started_at": now()}
        self._steps.append(entry)
        self._write()
        step, began, worked = Step(), time.perf_counter(), time.process_time()
        try:
            yield step
            entry["status"] = "done"
        except BaseException:
            entry["status"] = "failed"  # written with the end of the run: to fail here as well would hide why
            raise
        finally:
            entry |= {
                "finished_at": now(),
                "seconds": round(time.perf_counter() - began, 3),
                "cpu_seconds": round(time.process_time() - worked, 3),
                "rows": step.rows,
                "peak_rss_mb": peak_rss_mb(),
            }
        self._write()
        logger.info(
            f"{name}.done", extra={"seconds": entry["seconds"]} | ({"rows": step.rows} if step.rows is not None else {})
        )

    def note(self, **facts: Any) -> None:
        """Add facts to the record."""
        self.record |= facts
        self._write()

    def finish(self, status: str, **facts: Any) -> None:
        """Close the record."""
        self.record |= {"status": status, "finished_at": now(), "peak_rss_mb": peak_rss_mb(), "exit_code": 0, **facts}
        self._write()
        log.belongs_to(None)

    def _write(self) -> None:
        if self.path:
            atomic.write_json(self.path, self.record)


def records(folder: Path, lock: Path) -> list[dict[str, Any]]:
    """The records of all runs, oldest first; one that says `running` without a living process is what `_ended` says."""
    found = []
    alive = atomic.is_locked(lock)
    for path in sorted(folder.glob("*.json")):
        record = read(path)
        if record["status"] == "running" and not (alive and _living(record["pid"])):
            record["status"] = _ended(record)
        found.append(record)
    return found


def mark_crashed(folder: Path, shown: str = "") -> list[str]:
    """Write into the records of runs that died what `_ended` says, but for the one that published the file which is `shown`.

    Call it only while holding the lock; returns all that died.
    """
    died = []
    for path in sorted(folder.glob("*.json")):
        record = read(path)
        if record["status"] == "running":
            status = "published" if record["run_id"] == shown else _ended(record)
            atomic.write_json(path, record | {"status": status})
            died.append(record["run_id"])
    return died


def _ended(record: dict[str, Any]) -> str:
    """What became of a run that died: `published`, if readers had its lists by then, or `crashed`."""
    done = {step["step"] for step in record.get("steps") or [] if step["status"] == "done"}
    return "published" if "publish" in done else "crashed"


def amend(folder: Path, run_id: str, **facts: Any) -> None:
    """Change the record of a finished run (it was rolled back, say)."""
    path = folder / f"{run_id}.json"
    if path.is_file():
        atomic.write_json(path, read(path) | facts)


def read(path: Path) -> dict[str, Any]:
    """One record; raises `CorruptState`."""
    try:
        record: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        record["status"], record["run_id"], record["as_of_date"]
        return record
    except (OSError, ValueError, KeyError, TypeError) as error:
        hint = f"remove {path}: lists are unharmed, but it is forgotten if these were rolled back"
        raise CorruptState(f"{path} cannot be read: {error}", hint=hint) from error


def find(folder: Path, lock: Path, run_id: str) -> dict[str, Any]:
    """The record of one run, by its id or the beginning of it; raises `NotFound`."""
    matching = [record for record in records(folder, lock) if record["run_id"].startswith(run_id)]
    if len(matching) != 1:
        what = f"{len(matching)} runs begin with" if matching else "there is no run"
        raise NotFound(f"{what} {run_id!r}", hint="recjob runs list shows the runs")
    return matching[0]


def peak_rss_mb() -> int:
    """Most memory this process has held, MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024


def _living(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def now() -> str:
    """This instant as it is recorded everywhere: UTC, ISO 8601, without an offset."""
    return datetime.now(UTC).isoformat(timespec="milliseconds").removesuffix("+00:00")
