"""WHEN: one cron trigger around one callable.

Not here: what runs, in which process, for which date, and what happens to its exit code.
"""

import logging
import re
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from queue import Empty, SimpleQueue
from typing import Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from apscheduler import events
from apscheduler.executors.base import BaseExecutor, run_job
from apscheduler.schedulers.background import BackgroundScheduler
from apscheduler.triggers.base import BaseTrigger
from apscheduler.triggers.interval import IntervalTrigger

log = logging.getLogger(__name__)

ALIASES = {"@hourly": "0 * * * *", "@daily": "0 0 * * *", "@midnight": "0 0 * * *", "@weekly": "0 0 * * 0"}
FORM = f"five fields 'minute hour day-of-month month weekday', or one of {', '.join(ALIASES)}"
ITEM = re.compile(r"(?:\*|([0-9]{1,2}|[a-z]{3})(?:-([0-9]{1,2}|[a-z]{3}))?)(?:/([0-9]{1,2}))?")
HORIZON_DAYS = 41 * 366  # 29 February on a given weekday can be 40 years away, across a year like 2100
WAKE_SECONDS = 1.0  # a signal that comes just before the wait does not interrupt it; a stepped clock never does

Stop = SimpleQueue[int | None]


class InvalidSchedule(ValueError):
    """A cron expression or zone that cannot be used; `field` names the part, `accepted` the form it should have."""

    def __init__(self, field: str, given: str, accepted: str) -> None:
        super().__init__(f"{field}: {given!r} cannot be used; expected {accepted}")
        self.field, self.given, self.accepted = field, given, accepted


@dataclass(frozen=True)
class Field:
    """One of the five fields of a cron expression and the numbers it may hold, both ends included."""

    name: str
    low: int
    high: int
    words: str = ""
    """Names for `low`, `low + 1`, ..., three letters each."""

    def values(self, text: str) -> frozenset[int]:
        """Return the numbers that a list of items means; raise InvalidSchedule."""
        return frozenset(number for item in text.lower().split(",") for number in self._item(item))

    def _item(self, item: str) -> range:
        found = ITEM.fullmatch(item)
        if found is None:
            raise self._refused(item)
        first, last, step = found.groups()
        low = self._number(first, item) if first else self.low
        high = self._number(last, item) if last else low if first else self.high
        if self.name == "weekday" and last and low > high == 0:
            high = 7  # fri-sun
        every = int(step or 1)
        open_step = step and first and not last  # 5/15: crons disagree on what it means
        if open_step or not self.low <= low <= high <= self.high or not 1 <= every <= self.high - self.low:
            raise self._refused(item)
        return range(low, high + 1, every)

    def _number(self, word: str, item: str) -> int:
        if word.isdigit():
            return int(word)
        if word not in self.words.split():
            raise self._refused(item)
        return self.low + self.words.split().index(word)

    def _refused(self, item: str) -> InvalidSchedule:
        words = f" (or {self.words[:3]}..{self.words[-3:]})" if self.words else ""
        form = f"{self.low}-{self.high}{words} as *, a number, a list a,b, a range a-b, or a step */n or a-b/n"
        return InvalidSchedule(self.name, item, form)


FIELDS = (
    Field("minute", 0, 59),
    Field("hour", 0, 23),
    Field("day of month", 1, 31),
    Field("month", 1, 12, "jan feb mar apr may jun jul aug sep oct nov dec"),
    Field("weekday", 0, 7, "sun mon tue wed thu fri sat"),
)


@dataclass(frozen=True)
class Cron(BaseTrigger):  # type: ignore[misc]  # apscheduler has no types
    """Fire once for each local wall-clock time that a cron expression names.

    A time that the clock shows twice is its first showing; a time that the clock skips comes as much later as the
    clock jumps. APScheduler's own CronTrigger fires twice in the one case, and after the other it leaves out the
    whole next day of a cron at midnight.
    """

    text: str
    zone: ZoneInfo
    minutes: frozenset[int]
    hours: frozenset[int]
    days: frozenset[int]
    months: frozenset[int]
    weekdays: frozenset[int]
    """0 is Sunday, 6 is Saturday."""
    either: bool
    """Both kinds of day are restricted: as in cron, a date matches by day of month or by weekday."""

    def __str__(self) -> str:
        return f"{self.text} in {self.zone.key}"

    def matches(self, day: date) -> bool:
        """Tell whether the expression names this local date."""
        by_month, by_week = day.day in self.days, day.isoweekday() % 7 in self.weekdays
        return day.month in self.months and ((by_month or by_week) if self.either else (by_month and by_week))

    def walls(self, day: date) -> Iterator[datetime]:
        """Yield the wall-clock times named on a date, also those that the clock skips, at fold 0."""
        for hour in sorted(self.hours):
            for minute in sorted(self.minutes):
                yield datetime(day.year, day.month, day.day, hour, minute, tzinfo=self.zone)

    def get_next_fire_time(self, previous_fire_time: datetime | None, now: datetime) -> datetime | None:
        """Return the first time after the previous one or, without one, at or after now; None past the horizon.

        Never looks at `now` once there is a previous time: a clock set back must not fire a date again.
        """
        floor = (previous_fire_time or now - timedelta(microseconds=1)).astimezone(UTC)
        first = floor.astimezone(self.zone).toordinal() - 1  # a skipped 23:30 comes after midnight
        for ordinal in range(first, min(first + HORIZON_DAYS, date.max.toordinal())):
            if self.matches(day := date.fromordinal(ordinal)):
                # In UTC, because Python compares two times of one zone by their wall clocks.
                later = [instant for wall in self.walls(day) if (instant := wall.astimezone(UTC)) > floor]
                if later:
                    return min(later).astimezone(self.zone)
        return None


def trigger(cron: str, zone: str) -> Cron:
    """Read a five-field cron expression or alias with standard meaning; raise InvalidSchedule.

    Weekday 0 and 7 are Sunday, 1 is Monday. Raises also for a date that never comes, such as 30 February.
    """
    texts = ALIASES.get(cron.strip().lower(), cron).split()
    if len(texts) != 5:
        raise InvalidSchedule("cron", cron, FORM)
    try:
        where = ZoneInfo(zone)
    except (ZoneInfoNotFoundError, ValueError, OSError) as e:
        raise InvalidSchedule("zone", zone, "an IANA zone name such as UTC or Europe/Berlin") from e
    minutes, hours, days, months, weekdays = (f.values(text) for f, text in zip(FIELDS, texts, strict=True))
    either = not (texts[2].startswith("*") or texts[4].startswith("*"))
    weekdays = frozenset(number % 7 for number in weekdays)
    when = Cron(cron.strip(), where, minutes, hours, days, months, weekdays, either)
    if when.get_next_fire_time(None, datetime(2000, 1, 1, tzinfo=UTC)) is None:
        raise InvalidSchedule("day of month", f"{texts[2]} in month {texts[3]}", "a date that comes")
    return when


def next_times(cron: str, zone: str, n: int, after: datetime | None = None) -> list[datetime]:
    """Return the next n fire times strictly after an aware time (default now), in the zone; raise InvalidSchedule."""
    when = trigger(cron, zone)
    times: list[datetime] = []
    previous = after or datetime.now(UTC)
    while len(times) < n and (found := when.get_next_fire_time(previous, previous)) is not None:
        times.append(previous := found)
    return times


def risky_hours(cron: str, zone: str, after: datetime | None = None) -> str | None:
    """Return a warning if a fire time is skipped or shown twice by the local clock within a year, else None."""
    when = trigger(cron, zone)
    today = (after or datetime.now(UTC)).astimezone(when.zone).date()
    found: dict[str, str] = {}
    for day in (today + timedelta(days=n) for n in range(367)):
        edges = [datetime(d.year, d.month, d.day, tzinfo=when.zone) for d in (day, day + timedelta(days=1))]
        if edges[0].utcoffset() == edges[1].utcoffset() or not when.matches(day):
            continue
        for wall in when.walls(day):
            jump = (wall.replace(fold=1).utcoffset() or timedelta()) - (wall.utcoffset() or timedelta())
            if jump > timedelta():
                shown = wall.astimezone(UTC).astimezone(when.zone)
                found.setdefault("gap", f"{wall:%H:%M} does not exist on {day} (runs at {shown:%H:%M})")
            elif jump:
                found.setdefault("overlap", f"{wall:%H:%M} occurs twice on {day} (runs the first time only)")
    return f"{when}: {' and '.join(found.values())}; UTC has no such nights" if found else None


class _OneThread(BaseExecutor):  # type: ignore[misc]  # apscheduler has no types
    """Run a job in a daemon thread and hand it its fire time.

    A thread of APScheduler's pools is waited for at interpreter exit: a job that will not stop would hold the process.
    """

    thread: threading.Thread | None = None

    def _do_submit_job(self, job: Any, run_times: list[datetime]) -> None:
        job.args = (run_times[-1],)  # APScheduler does not tell; safe, as a job never runs beside itself

        def work() -> None:
            self._run_job_success(job.id, run_job(job, job._jobstore_alias, run_times, self._logger.name))

        self.thread = threading.Thread(target=work, name=f"schedule-{job.id}", daemon=True)
        self.thread.start()

    def busy(self) -> bool:
        return self.thread is not None and self.thread.is_alive()


def _report(event: Any) -> None:
    if event.code == events.EVENT_JOB_MAX_INSTANCES:
        times = event.scheduled_run_times
        log.warning("schedule.overlap", extra={"step": event.job_id, "scheduled_at": times[-1].isoformat()})
        return
    fields = {"step": event.job_id, "scheduled_at": event.scheduled_run_time.isoformat()}
    if event.code == events.EVENT_JOB_MISSED:
        log.warning("schedule.missed", extra=fields)
    else:
        log.error("schedule.failed", extra=fields, exc_info=event.exception)


@contextmanager
def _signals(into: Stop) -> Iterator[None]:
    """Put SIGINT and SIGTERM into a queue: unlike Event.set, its put is safe inside a signal handler."""
    allowed = threading.current_thread() is threading.main_thread()
    numbers = (signal.SIGINT, signal.SIGTERM) if allowed else ()
    before = {number: signal.signal(number, lambda got, _: into.put(got)) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler or signal.SIG_DFL)


def run(
    cron: str,
    zone: str,
    job: Callable[[datetime], None],
    stop: Stop | None = None,
    *,
    on_stop: Callable[[], None] = lambda: None,
    catch_up: Callable[[], None] | None = None,
    grace: timedelta = timedelta(hours=6),
    patience: timedelta = timedelta(seconds=8),
) -> int | None:
    """Call job(fire time) by the clock until SIGTERM, SIGINT or an entry in `stop`; return the signal or entry.

    `catch_up` runs once before the first job, which waits for it. A job that raises is logged, and the next one runs.
    A fire time that comes while the job still runs is left out; one that could not start is made up for within
    `grace` (whole seconds), of several only the last.
    `on_stop` is called once for each signal, also when nothing runs, and has to end the job, a child just being
    started included; `patience` is how long the job is waited for, and a second signal ends the wait within a second.
    Job and catch_up run in a thread, which a job that outlasts `patience` keeps until the interpreter exits.
    Signals are caught only when called in the main thread. Raises InvalidSchedule.
    """
    when = trigger(cron, zone)
    stop = Stop() if stop is None else stop
    executor = _OneThread()
    defaults = {"coalesce": True, "max_instances": 1, "misfire_grace_time": int(grace.total_seconds())}
    scheduler = BackgroundScheduler(timezone=UTC, executors={"default": executor}, job_defaults=defaults)
    scheduler.add_listener(_report, events.EVENT_JOB_MISSED | events.EVENT_JOB_ERROR | events.EVENT_JOB_MAX_INSTANCES)
    with _signals(stop):
        scheduler.start()
        _plan(scheduler, when, job, catch_up)
        number = _wait(scheduler, stop)
        scheduler.shutdown(wait=False)  # first, so that on_stop meets the last job there will be
        _end(executor, stop, on_stop, patience.total_seconds())
    log.info("schedule.stopped", extra={"signal": number})
    return number


def _plan(
    scheduler: BackgroundScheduler, when: Cron, job: Callable[[datetime], None], catch_up: Callable[[], None] | None
) -> None:
    """Add the job, after catch_up if there is one; its first time is counted from now in either case."""
    first = when.get_next_fire_time(None, datetime.now(UTC))

    def add(event: Any = None) -> None:
        if event is None or (event.job_id == "catch_up" and scheduler.running):
            scheduler.add_job(job, when, (first,), id="job", next_run_time=first)
            log.info("schedule.started", extra={"schedule": str(when), "next_at": first and first.isoformat()})

    if catch_up is None:
        add()
    else:
        scheduler.add_listener(add, events.EVENT_JOB_EXECUTED | events.EVENT_JOB_ERROR)
        # Not a one-off job: APScheduler removes that as it starts, and its thread dies if it is stopped just then.
        once = IntervalTrigger(weeks=52 * 100, timezone=UTC)
        now = datetime.now(UTC)
        scheduler.add_job(lambda _: catch_up(), once, (now,), id="catch_up", next_run_time=now, misfire_grace_time=None)


def _wait(scheduler: BackgroundScheduler, stop: Stop) -> int | None:
    while True:
        try:
            return stop.get(timeout=WAKE_SECONDS)
        except Empty:
            scheduler.wakeup()


def _end(executor: _OneThread, stop: Stop, on_stop: Callable[[], None], patience: float) -> None:
    on_stop()
    deadline = time.monotonic() + patience
    while executor.busy() and time.monotonic() < deadline:
        with suppress(Empty):
            stop.get(timeout=0.05)
            on_stop()
            deadline = min(deadline, time.monotonic() + 1)
    if executor.busy():
        log.error("schedule.abandoned", extra={"waited_seconds": patience})
