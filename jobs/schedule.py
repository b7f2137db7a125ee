"""Nights by the clock: each in a process of its own, missed ones made up for, failures tried again where that can help."""

import contextlib
import logging
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from threading import Event
from typing import Any
from zoneinfo import ZoneInfo

import scheduler
from jobs import exits
from jobs import run as journals
from jobs.allowed import InvalidSettings
from jobs.settings import Settings

logger = logging.getLogger(__name__)
_FIRST_PAUSE = 60.0
"""Seconds before the first further try; doubled for each one after."""
_PATIENCE = 7.0
"""Seconds a run has to end after SIGTERM before it is killed."""
_LOOK = 0.2
"""Seconds between two looks at a run."""


class Nights:
    """Starts the runs; the scheduler says when, `stop` ends the one that is running."""

    def __init__(self, settings: Settings, arguments: Sequence[str], first_pause: float = _FIRST_PAUSE) -> None:
        self.settings = settings
        self.command = [sys.executable, "-m", "jobs", *arguments]
        self.first_pause = first_pause
        self.stopping = Event()
        self.child: subprocess.Popen[bytes] | None = None

    def at(self, fired: datetime) -> None:
        """Run the night that belongs to a fire time."""
        self.night(as_of(self.settings, fired))

    def catch_up(self, now: datetime | None = None) -> None:
        """Run the missed nights that `schedule.catch_up` asks for, oldest first."""
        for day in missed(self.settings, now or datetime.now(UTC)):
            if self.stopping.is_set():
                return
            logger.info("schedule.catch_up", extra={"as_of": str(day)})
            self.night(day)

    def night(self, day: date) -> int:
        """Run one date in a child process; returns its exit code. Busy and out of resources are tried again."""
        pause = self.first_pause
        for attempt in range(1, self.settings.schedule.retries + 2):
            code = self._once(day)
            last = attempt > self.settings.schedule.retries
            if code not in (exits.BUSY, exits.RESOURCES) or last or self.stopping.is_set():
                break
            logger.warning(
                "schedule.retry", extra={"as_of": str(day), "exit_code": code, "attempt": attempt, "pause": pause}
            )
            self.stopping.wait(pause)
            pause *= 2
        level = logging.INFO if code == exits.DONE else logging.ERROR
        logger.log(level, "schedule.ran", extra={"as_of": str(day), "exit_code": code})
        return code

    def stop(self) -> None:
        """End the running night and wait for nothing: SIGTERM, and SIGKILL when called again or it does not listen."""
        again = self.stopping.is_set()
        self.stopping.set()
        child = self.child
        if child is not None and child.poll() is None and again:
            child.kill()

    def _once(self, day: date) -> int:
        if self.stopping.is_set():
            return exits.SIGTERM
        self.child = subprocess.Popen(
            [*self.command, "nightly", "--date", str(day), "--trigger", "schedule"], stdout=subprocess.DEVNULL
        )
        began, hours = time.monotonic(), self.settings.schedule.timeout_hours
        while (code := self.child.poll()) is None:
            if self.stopping.wait(_LOOK):
                return _end(self.child)
            if time.monotonic() - began > hours * 3600:
                logger.error("schedule.timeout", extra={"as_of": str(day), "hours": hours})
                _end(self.child)
                return exits.TIMEOUT
        return code


def run(settings: Settings, config: Path | None) -> int | None:
    """Run nights until a signal comes; returns its number."""
    plan = settings.schedule
    with _as_setting():
        warning = scheduler.risky_hours(plan.cron, plan.timezone)
    if warning:
        logger.warning("schedule.risky", extra={"why": warning})
    if settings.store.url:
        from jobs import state  # what was missed, the journal says

        state.take_up(settings, _PATIENCE)
    nights = Nights(settings, arguments(settings, config))
    following = scheduler.next_times(plan.cron, plan.timezone, 1)
    logger.info(
        "schedule.start", extra={"cron": plan.cron, "timezone": plan.timezone, "next": following[0].isoformat()}
    )
    patience = timedelta(seconds=_PATIENCE + 2)  # the thread of the night is what kills a child
    return scheduler.run(
        plan.cron, plan.timezone, nights.at, catch_up=nights.catch_up, on_stop=nights.stop, patience=patience
    )


def upcoming(settings: Settings, n: int) -> dict[str, Any]:
    """The next `n` fire times and the dates they are for."""
    plan = settings.schedule
    with _as_setting():
        times = scheduler.next_times(plan.cron, plan.timezone, n)
    return {
        "cron": plan.cron,
        "timezone": plan.timezone,
        "warning": scheduler.risky_hours(plan.cron, plan.timezone),
        "next": [
            {"at": at.isoformat(), "utc": at.astimezone(UTC).isoformat(), "as_of_date": str(as_of(settings, at))}
            for at in times
        ],
    }


def as_of(settings: Settings, fired: datetime) -> date:
    """The date a fire time is for, in the settings' zone."""
    today = fired.astimezone(ZoneInfo(settings.timezone)).date()
    return today - timedelta(days=1) if settings.schedule.as_of == "yesterday" else today


def missed(settings: Settings, now: datetime) -> list[date]:
    """Dates whose fire time has passed since the newest handled date, oldest first, by the catch-up policy.

    A date is handled when a run for it was published, found unchanged, refused or rolled back. Without any such run
    nothing is missed: the first night is the next one.
    """
    handled = {
        date.fromisoformat(record["as_of_date"])
        for record in journals.records(settings.journal, settings.lock)
        if record["status"] in ("published", "unchanged", "refused", "rolled_back")
    }
    if not handled:
        return []
    zone = ZoneInfo(settings.timezone)
    cursor = datetime.combine(max(handled), datetime.min.time(), zone)  # decades ago where only old ratings are at hand
    cron = scheduler.trigger(settings.schedule.cron, settings.schedule.timezone)
    due: set[date] = set()
    while (fired := cron.get_next_fire_time(None, cursor)) is not None and fired <= now:
        due.add(as_of(settings, fired))
        following = fired.astimezone(zone).date() + timedelta(days=1)  # all fire times of a day are for one date
        cursor = datetime.combine(following, datetime.min.time(), zone)
    dates = sorted(day for day in due if day > max(handled))
    made_up = {"all": dates, "latest": dates[-1:], "none": []}[settings.schedule.catch_up]
    if left := dates[: len(dates) - len(made_up)]:
        first, last, policy = str(left[0]), str(left[-1]), settings.schedule.catch_up
        logger.warning(
            "schedule.left_out", extra={"dates": len(left), "first": first, "last": last, "catch_up": policy}
        )
    return made_up


def arguments(settings: Settings, config: Path | None) -> list[str]:
    """What a child needs on its command line to see the same settings; flags of this process are passed on."""
    passed = ["--config", str(config.resolve())] if config else []
    return [*passed, "--state-dir", str(settings.state_dir.resolve())]


@contextlib.contextmanager
def _as_setting() -> Iterator[None]:
    try:
        yield
    except scheduler.InvalidSchedule as error:
        raise InvalidSettings(f"schedule: {error}") from error


def _end(child: subprocess.Popen[bytes]) -> int:
    """End a run, by force where it does not listen; returns its exit code."""
    child.terminate()
    try:
        return child.wait(_PATIENCE)
    except subprocess.TimeoutExpired:
        child.kill()
        return child.wait()
