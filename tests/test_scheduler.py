"""The clock of the scheduler: what a cron expression means, DST nights, and real signals to real processes."""

import logging
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
from apscheduler.triggers.interval import IntervalTrigger
from hypothesis import given, settings
from hypothesis import strategies as st

import scheduler
from scheduler import InvalidSchedule

ROOT = Path(scheduler.__file__).parent
WEEK = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")
ZONES = ("America/New_York", "Europe/Paris", "Europe/Berlin", "Australia/Lord_Howe", "UTC")
SUNDAY = datetime(2026, 11, 1, tzinfo=UTC)

pytestmark = pytest.mark.filterwarnings("error::pytest.PytestUnhandledThreadExceptionWarning")


# --- what an expression means -----------------------------------------------------------------------------------


def means(text: str, value: int, low: int, high: int) -> bool:
    """A cron field, read the slow way: does this one value satisfy it?"""
    if "," in text:
        return any(means(part, value, low, high) for part in text.split(","))
    base, _, step = text.partition("/")
    first, dash, last = (f"{low}-{high}" if base == "*" else base).partition("-")
    start, end = int(first), int(last) if dash else int(first)
    return start <= value <= end and (value - start) % int(step or 1) == 0


def reference_day(day: date, dom: str, month: str, weekday: str) -> bool:
    sunday_first = (day.weekday() + 1) % 7
    by_month = means(dom, day.day, 1, 31)
    by_week = means(weekday, sunday_first, 0, 7) or (sunday_first == 0 and means(weekday, 7, 0, 7))
    both = dom[0] != "*" and weekday[0] != "*"
    return means(month, day.month, 1, 12) and ((by_month or by_week) if both else (by_month and by_week))


@st.composite
def fields(draw: st.DrawFn, low: int, high: int) -> str:
    def item() -> str:
        a, b = sorted((draw(st.integers(low, high)), draw(st.integers(low, high))))
        step = draw(st.integers(1, high - low))
        return draw(st.sampled_from([f"{a}", f"{a}-{b}", f"{a}-{b}/{step}", f"*/{step}", "*"]))

    return ",".join(item() for _ in range(draw(st.integers(1, 3))))


@settings(deadline=None)
@given(weekday=fields(0, 7))
@pytest.mark.faults("B4.10")
def test_weekday_numbers_mean_what_cron_means(weekday: str) -> None:
    when = scheduler.trigger(f"0 2 * * {weekday}", "UTC")
    days = [date(2026, 11, 1) + timedelta(days=n) for n in range(14)]
    assert [when.matches(day) for day in days] == [reference_day(day, "*", "*", weekday) for day in days]


@settings(deadline=None)
@given(first=st.integers(0, 6), length=st.integers(0, 6), upper=st.booleans())
def test_weekday_name_ranges_run_from_the_first_name_to_the_last(first: int, length: int, upper: bool) -> None:
    last = min(first + length, 7)
    text = f"{WEEK[first]}-{WEEK[last % 7]}"
    when = scheduler.trigger(f"0 2 * * {text.upper() if upper else text}", "UTC")
    expected = {WEEK[n % 7] for n in range(first, last + 1)} if (first, last) != (0, 7) else {"sun"}
    assert {WEEK[n] for n in when.weekdays} == expected


@settings(deadline=None)
@given(dom=fields(1, 31), month=fields(1, 12), weekday=fields(0, 7), start=st.dates(date(2000, 1, 1), date(2099, 1, 1)))
def test_a_date_matches_as_in_cron_also_when_both_kinds_of_day_are_restricted(
    dom: str, month: str, weekday: str, start: date
) -> None:
    days = [start + timedelta(days=n) for n in range(400)]
    expected = [day for day in days if reference_day(day, dom, month, weekday)]
    try:
        when = scheduler.trigger(f"0 2 {dom} {month} {weekday}", "UTC")
    except InvalidSchedule:
        assert not expected
    else:
        assert [day for day in days if when.matches(day)] == expected


@settings(deadline=None, max_examples=40)
@given(minute=fields(0, 59), hour=fields(0, 23), start=st.datetimes(datetime(2026, 1, 1), datetime(2026, 12, 1)))
def test_times_of_day_are_those_of_a_walk_over_every_minute(minute: str, hour: str, start: datetime) -> None:
    start = start.replace(tzinfo=UTC)
    minutes = [n for n in range(60) if means(minute, n, 0, 59)]
    hours = [n for n in range(24) if means(hour, n, 0, 23)]
    walk = (start.replace(second=0, microsecond=0) + timedelta(minutes=n) for n in range(5 * 1440))
    expected = [t for t in walk if t > start and t.minute in minutes and t.hour in hours][:4]
    assert scheduler.next_times(f"{minute} {hour} * * *", "UTC", 4, start) == expected


@pytest.mark.parametrize(
    ("weekday", "names"),
    [
        ("0", "sun"),
        ("7", "sun"),
        ("1", "mon"),
        ("1-5", "mon tue wed thu fri"),
        ("5-7", "sun fri sat"),
        ("0-3", "sun mon tue wed"),
        ("sun-tue", "sun mon tue"),
        ("fri-sun", "sun fri sat"),
        ("*/2", "sun tue thu sat"),
        ("mon,Wed,6", "mon wed sat"),
        ("1-5/2", "mon wed fri"),
    ],
)
def test_weekday_has_its_known_answer(weekday: str, names: str) -> None:
    times = scheduler.next_times(f"0 2 * * {weekday}", "UTC", len(names.split()), SUNDAY)
    assert [f"{t:%a}".lower() for t in times] == names.split()


@pytest.mark.parametrize(
    ("alias", "cron"),
    [("@daily", "0 0 * * *"), ("@midnight", "0 0 * * *"), ("@hourly", "0 * * * *"), ("@Weekly", "0 0 * * sun")],
)
def test_alias_means_its_five_fields(alias: str, cron: str) -> None:
    assert scheduler.next_times(alias, "UTC", 30, SUNDAY) == scheduler.next_times(cron, "UTC", 30, SUNDAY)


def test_leap_day_is_found_across_the_year_2100() -> None:
    assert scheduler.next_times("0 2 29 2 *", "UTC", 1, datetime(2097, 1, 1, tzinfo=UTC))[0].year == 2104


@pytest.mark.parametrize(
    ("cron", "field"),
    [
        ("", "cron"),
        ("0 2 * *", "cron"),
        ("0 0 2 * * *", "cron"),
        ("@yearly", "cron"),
        ("60 2 * * *", "minute"),
        ("-1 2 * * *", "minute"),
        ("*/0 2 * * *", "minute"),
        ("*/90 * * * *", "minute"),
        ("5/15 * * * *", "minute"),
        ("1,,2 2 * * *", "minute"),
        ("0 24 * * *", "hour"),
        ("0 5-2 * * *", "hour"),
        ("0 two * * *", "hour"),
        ("0 2 0 * *", "day of month"),
        ("0 2 L * *", "day of month"),
        ("0 2 30 2 *", "day of month"),
        ("0 2 31 4,6 *", "day of month"),
        ("0 2 * 13 *", "month"),
        ("0 2 * mon *", "month"),
        ("0 2 * * 8", "weekday"),
        ("0 2 * * tue-sun-1", "weekday"),
        ("0 2 * * fri-mon", "weekday"),
        ("0 2 * * fri#2", "weekday"),
        ("0 2 * * ٣", "weekday"),
    ],
)
@pytest.mark.faults("B4.10")
def test_refusal_names_the_field_and_the_accepted_form(cron: str, field: str) -> None:
    with pytest.raises(InvalidSchedule, match=rf"^{field}: .* expected .+") as refused:
        scheduler.trigger(cron, "UTC")
    assert refused.value.field == field


@pytest.mark.parametrize("zone", ["Mars/Base", "Europe", "", "/etc/passwd", "../UTC", "nul\0l"])
def test_unknown_zone_is_refused_by_name(zone: str) -> None:
    with pytest.raises(InvalidSchedule, match=r"^zone: "):
        scheduler.trigger("0 2 * * *", zone)


@settings(deadline=None)
@given(st.text(alphabet="0123456789*/-, @abcdefghijklmnopqrstuvwxyz?#L", max_size=24))
def test_any_text_is_either_a_schedule_that_fires_or_refused(text: str) -> None:
    try:
        times = scheduler.next_times(text, "UTC", 1, SUNDAY)
    except InvalidSchedule:
        return
    assert times[0] > SUNDAY


# --- DST nights -------------------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=60)
@given(
    zone=st.sampled_from(ZONES),
    clock=st.sampled_from([(0, 0), (0, 30), (1, 30), (2, 30), (3, 0)]),
    start=st.dates(date(2020, 1, 1), date(2035, 1, 1)),
)
@pytest.mark.faults("B4.2")
def test_a_daily_cron_fires_exactly_once_on_each_local_day(zone: str, clock: tuple[int, int], start: date) -> None:
    hour, minute = clock
    midnight = datetime(start.year, start.month, start.day, tzinfo=ZoneInfo(zone)) - timedelta(seconds=1)
    times = scheduler.next_times(f"{minute} {hour} * * *", zone, 370, midnight)
    assert [t.date() for t in times] == [start + timedelta(days=n) for n in range(370)]
    shifted = [t for t in times if (t.hour, t.minute) != clock]
    assert len(shifted) <= 2
    assert all(t.replace(tzinfo=None, hour=hour, minute=minute) not in walls_shown(t) for t in shifted)


def walls_shown(day: datetime) -> set[datetime]:
    """Every minute that the local clock shows around one day, by counting in UTC."""
    start = day.astimezone(UTC).replace(hour=0, minute=0) - timedelta(days=1)
    every = (start + timedelta(minutes=n) for n in range(3 * 1440))
    return {instant.astimezone(day.tzinfo).replace(tzinfo=None, fold=0) for instant in every}


@pytest.mark.parametrize(
    ("zone", "cron", "start", "expected"),
    [
        ("Europe/Berlin", "30 2 * * *", "2026-10-24T12:00+02:00", "2026-10-25T02:30+02:00 2026-10-26T02:30+01:00"),
        ("Europe/Berlin", "30 2 * * *", "2026-03-28T12:00+01:00", "2026-03-29T03:30+02:00 2026-03-30T02:30+02:00"),
        ("Europe/Berlin", "0 0 * * *", "2026-03-28T12:00+01:00", "2026-03-29T00:00+01:00 2026-03-30T00:00+02:00"),
        ("America/New_York", "30 1 * * *", "2026-10-31T12:00-04:00", "2026-11-01T01:30-04:00 2026-11-02T01:30-05:00"),
        ("America/New_York", "30 2 * * *", "2026-03-07T12:00-05:00", "2026-03-08T03:30-04:00 2026-03-09T02:30-04:00"),
        (
            "Australia/Lord_Howe",
            "15 2 * * *",
            "2026-10-03T12+10:30",
            "2026-10-04T02:45+11:00 2026-10-05T02:15+11:00",
        ),
        ("Europe/Berlin", "30 * * * *", "2026-03-29T01:00+01:00", "2026-03-29T01:30+01:00 2026-03-29T03:30+02:00"),
        ("Europe/Berlin", "30 * * * *", "2026-10-25T02:00+02:00", "2026-10-25T02:30+02:00 2026-10-25T03:30+01:00"),
        ("America/Nuuk", "30 23 * * *", "2026-03-29T00:10-01:00", "2026-03-29T00:30-01:00 2026-03-29T23:30-01:00"),
        ("Pacific/Apia", "0 2 * * *", "2011-12-29T12:00-10:00", "2011-12-31T02:00+14:00 2012-01-01T02:00+14:00"),
    ],
)
@pytest.mark.faults("B4.2")
def test_dst_night_has_its_known_answer(zone: str, cron: str, start: str, expected: str) -> None:
    times = scheduler.next_times(cron, zone, 2, datetime.fromisoformat(start))
    assert [t.isoformat(timespec="minutes") for t in times] == expected.split()


def test_a_start_in_the_repeated_hour_does_not_fire_its_times_again() -> None:
    second_showing = datetime(2026, 10, 25, 2, 10, tzinfo=ZoneInfo("Europe/Berlin"), fold=1)
    assert scheduler.next_times("30 2 * * *", "Europe/Berlin", 1, second_showing)[0].day == 26


@pytest.mark.faults("B4.7")
def test_a_clock_set_back_does_not_fire_a_date_again() -> None:
    fired = datetime(2026, 11, 24, 2, 0, tzinfo=UTC)
    following = scheduler.trigger("0 2 * * *", "UTC").get_next_fire_time(fired, fired - timedelta(hours=5))
    assert following == fired + timedelta(days=1)


def test_risky_hours_names_both_nights() -> None:
    text = scheduler.risky_hours("30 2 * * *", "Europe/Berlin", SUNDAY) or ""
    assert "does not exist on 2027-03-28 (runs at 03:30)" in text
    assert "occurs twice on 2027-10-31" in text


@pytest.mark.parametrize(
    ("cron", "zone"),
    [
        ("30 2 * * *", "UTC"),
        ("0 3 * * *", "Europe/Berlin"),
        ("30 2 * * mon", "Europe/Berlin"),
        ("30 2 * 6 *", "Europe/Paris"),
        ("0 2 * * *", "Asia/Kolkata"),
    ],
)
def test_no_warning_where_no_night_is_risky(cron: str, zone: str) -> None:
    assert scheduler.risky_hours(cron, zone, SUNDAY) is None


# --- a real scheduler in this process ---------------------------------------------------------------------------


@pytest.fixture
def in_background() -> Iterator[Callable[..., scheduler.Stop]]:
    """Call scheduler.run in a thread; give back the queue that stops it; end it after the test."""
    running: list[tuple[scheduler.Stop, threading.Thread]] = []

    def begin(job: Callable[[datetime], None], *, cron: str = "0 2 * * *", zone: str = "UTC", **options: object):
        stop: scheduler.Stop = scheduler.Stop()
        thread = threading.Thread(target=scheduler.run, args=(cron, zone, job, stop), kwargs=options, daemon=True)
        running.append((stop, thread))
        thread.start()
        return stop

    yield begin
    for stop, thread in running:
        stop.put(None)
        thread.join(5)
        assert not thread.is_alive()


def eventually(condition: Callable[[], object], seconds: float = 30.0) -> bool:
    deadline = time.monotonic() + seconds
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.01)
    return bool(condition())


def use_trigger(monkeypatch: pytest.MonkeyPatch, trigger: object) -> None:
    monkeypatch.setattr(scheduler, "trigger", lambda cron, zone: trigger)


def named(caplog: pytest.LogCaptureFixture, message: str) -> list[logging.LogRecord]:
    return [record for record in caplog.records if record.getMessage() == message]


@pytest.mark.parametrize(
    ("zone", "cron", "start", "expected"),
    [
        ("Europe/Berlin", "30 2 * * *", "2026-10-25T00:00+02:00", "2026-10-25T02:30:00+02:00"),
        ("Europe/Berlin", "30 2 * * *", "2026-03-29T00:00+01:00", "2026-03-29T03:30:00+02:00"),
        ("America/New_York", "30 1 * * *", "2026-11-01T00:00-04:00", "2026-11-01T01:30:00-04:00"),
        ("America/New_York", "30 2 * * *", "2026-03-08T00:00-05:00", "2026-03-08T03:30:00-04:00"),
        ("UTC", "30 2 * * *", "2026-10-25T00:00+00:00", "2026-10-25T02:30:00+00:00"),
    ],
)
@pytest.mark.faults("B4.2")
def test_the_running_scheduler_fires_once_in_a_dst_night_and_as_next_times_says(
    monkeypatch: pytest.MonkeyPatch,
    in_background: Callable[..., scheduler.Stop],
    zone: str,
    cron: str,
    start: str,
    expected: str,
) -> None:
    clock = fast_clock(monkeypatch, datetime.fromisoformat(start), speed=3600 * 10)
    fired: list[datetime] = []
    in_background(fired.append, cron=cron, zone=zone, grace=timedelta(days=2))
    end = datetime.fromisoformat(start) + timedelta(hours=6)
    assert eventually(lambda: fired and clock.now(UTC) > end)
    assert [t.isoformat() for t in fired] == [expected]
    assert fired == scheduler.next_times(cron, zone, 1, datetime.fromisoformat(start))


def fast_clock(monkeypatch: pytest.MonkeyPatch, start: datetime, *, speed: float) -> type[datetime]:
    """Let APScheduler and the scheduler read a clock that begins at `start` and runs `speed` times too fast."""
    began = time.monotonic()

    class Clock(datetime):
        @classmethod
        def now(cls, tz=None):
            return (start.astimezone(UTC) + timedelta(seconds=(time.monotonic() - began) * speed)).astimezone(tz)

    for module in ("scheduler", "apscheduler.schedulers.base", "apscheduler.executors.base"):
        monkeypatch.setattr(f"{module}.datetime", Clock)
    monkeypatch.setattr(scheduler, "WAKE_SECONDS", 0.02)
    return Clock


@pytest.mark.faults("B4.3")
def test_three_days_missed_become_one_late_run(
    monkeypatch: pytest.MonkeyPatch, in_background: Callable[..., scheduler.Stop]
) -> None:
    start = datetime(2026, 11, 21, 1, 0, tzinfo=UTC)
    clock = fast_clock(monkeypatch, start, speed=3600 * 100)
    fired: list[datetime] = []
    done = threading.Event()
    in_background(fired.append, catch_up=done.wait, grace=timedelta(hours=47))
    assert eventually(lambda: clock.now(UTC) > start + timedelta(days=3))
    done.set()
    assert eventually(lambda: fired)
    assert fired[0].date() >= date(2026, 11, 23)
    assert len({t.date() for t in fired}) == len(fired)


def test_job_gets_its_fire_time_in_the_zone_of_the_schedule(
    monkeypatch: pytest.MonkeyPatch, in_background: Callable[..., scheduler.Stop]
) -> None:
    due = datetime.now(ZoneInfo("Asia/Tokyo")) + timedelta(seconds=0.2)
    use_trigger(monkeypatch, IntervalTrigger(hours=1, start_date=due))
    fired: list[datetime] = []
    in_background(fired.append)
    assert eventually(lambda: fired)
    assert fired == [due]
    assert fired[0].utcoffset() == timedelta(hours=9)


def test_run_past_its_grace_is_reported_missed_and_not_made_up(
    monkeypatch: pytest.MonkeyPatch, in_background: Callable[..., scheduler.Stop], caplog: pytest.LogCaptureFixture
) -> None:
    due = datetime.now(UTC) + timedelta(seconds=0.1)
    use_trigger(monkeypatch, IntervalTrigger(hours=1, start_date=due))
    fired: list[datetime] = []
    in_background(fired.append, catch_up=lambda: time.sleep(1.4), grace=timedelta(seconds=1))
    assert eventually(lambda: named(caplog, "schedule.missed"))
    assert named(caplog, "schedule.missed")[0].scheduled_at == due.isoformat()
    assert fired == []


def test_run_within_its_grace_is_made_up_once(
    monkeypatch: pytest.MonkeyPatch, in_background: Callable[..., scheduler.Stop], caplog: pytest.LogCaptureFixture
) -> None:
    due = datetime.now(UTC) + timedelta(seconds=0.1)
    use_trigger(monkeypatch, IntervalTrigger(hours=1, start_date=due))
    fired: list[datetime] = []
    in_background(fired.append, catch_up=lambda: time.sleep(1.4))
    assert eventually(lambda: fired)
    assert fired == [due]
    assert named(caplog, "schedule.missed") == []


@pytest.mark.faults("B4.4")
def test_fire_time_during_a_long_job_is_left_out_and_reported(
    monkeypatch: pytest.MonkeyPatch, in_background: Callable[..., scheduler.Stop], caplog: pytest.LogCaptureFixture
) -> None:
    use_trigger(monkeypatch, IntervalTrigger(seconds=0.2, timezone=UTC))
    running, most, fired = [], [], []

    def job(at: datetime) -> None:
        running.append(at)
        most.append(len(running))
        time.sleep(0.5)
        running.remove(at)
        fired.append(at)

    in_background(job)
    assert eventually(lambda: len(fired) >= 2)
    left_out = {record.scheduled_at for record in named(caplog, "schedule.overlap")}
    assert left_out
    assert max(most) == 1
    assert not left_out & {at.isoformat() for at in fired}


@pytest.mark.parametrize("error", [RuntimeError("no disk"), SystemExit(3)])
@pytest.mark.faults("B4.6")
def test_job_that_raises_is_reported_and_the_next_one_runs(
    monkeypatch: pytest.MonkeyPatch,
    in_background: Callable[..., scheduler.Stop],
    caplog: pytest.LogCaptureFixture,
    error: BaseException,
) -> None:
    use_trigger(monkeypatch, IntervalTrigger(seconds=0.1, timezone=UTC))
    fired: list[datetime] = []

    def job(at: datetime) -> None:
        fired.append(at)
        if len(fired) == 1:
            raise error

    in_background(job)
    assert eventually(lambda: len(fired) >= 3)
    (failed,) = named(caplog, "schedule.failed")
    assert (failed.scheduled_at, failed.exc_info[1]) == (fired[0].isoformat(), error)


@pytest.mark.parametrize("fails", [False, True])
def test_catch_up_runs_once_before_the_first_job_even_if_it_fails(
    monkeypatch: pytest.MonkeyPatch,
    in_background: Callable[..., scheduler.Stop],
    caplog: pytest.LogCaptureFixture,
    fails: bool,
) -> None:
    use_trigger(monkeypatch, IntervalTrigger(seconds=0.1, timezone=UTC))
    calls: list[str] = []

    def catch_up() -> None:
        time.sleep(0.3)
        calls.append("catch_up")
        if fails:
            raise OSError("journal")

    in_background(lambda at: calls.append("job"), catch_up=catch_up)
    assert eventually(lambda: len(calls) >= 3)
    assert calls[:3] == ["catch_up", "job", "job"]
    assert "catch_up" not in calls[1:]
    assert [record.step for record in named(caplog, "schedule.failed")] == ["catch_up"] * fails


@pytest.mark.faults("B4.12")
def test_twenty_runs_leave_no_thread_and_no_file_open(
    monkeypatch: pytest.MonkeyPatch, in_background: Callable[..., scheduler.Stop]
) -> None:
    use_trigger(monkeypatch, IntervalTrigger(seconds=0.05, timezone=UTC))
    fired: list[tuple[int, int]] = []
    stop = in_background(lambda at: fired.append((threading.active_count(), len(os.listdir("/proc/self/fd")))))
    assert eventually(lambda: len(fired) >= 20)
    stop.put(None)
    (threads, files), (threads_after, files_after) = fired[0], fired[-1]
    assert threads_after <= threads
    assert files_after <= files


def test_invalid_schedule_is_refused_before_anything_starts() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(InvalidSchedule):
        scheduler.run("0 2 30 2 *", "UTC", lambda at: None)
    assert signal.getsignal(signal.SIGTERM) is before


def test_run_returns_what_stopped_it_and_puts_the_signal_handlers_back() -> None:
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGTERM)).start()
    assert scheduler.run("0 2 * * *", "UTC", lambda at: None) == signal.SIGTERM
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before


def test_signal_that_does_not_interrupt_the_wait_is_acted_on_within_seconds() -> None:
    def signal_this_thread() -> None:
        signal.pthread_kill(threading.get_ident(), signal.SIGTERM)

    began = time.monotonic()
    threading.Timer(0.2, signal_this_thread).start()
    assert scheduler.run("0 2 * * *", "UTC", lambda at: None) == signal.SIGTERM
    assert time.monotonic() - began < 5


def test_stop_during_catch_up_plans_no_job(
    in_background: Callable[..., scheduler.Stop], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    started, told = threading.Event(), threading.Event()

    def catch_up() -> None:
        started.set()
        told.wait(60)

    stop = in_background(lambda at: None, catch_up=catch_up, on_stop=told.set)
    assert started.wait(5)
    stop.put(None)
    assert eventually(lambda: named(caplog, "schedule.stopped"))
    assert named(caplog, "schedule.started") == []


# --- real processes, real signals -------------------------------------------------------------------------------

HEAD = """
import subprocess, sys, time
from datetime import UTC, timedelta
from apscheduler.triggers.interval import IntervalTrigger
import scheduler

scheduler.trigger = lambda cron, zone: IntervalTrigger(seconds=EVERY, timezone=UTC)

def say(*words):
    print(*words, flush=True)

def end(number):
    say("returned", number)
    sys.exit(128 + number if number else 0)
"""


@pytest.fixture
def spawn() -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Start python with HEAD and a script, and wait until it has printed "ready"."""
    processes: list[subprocess.Popen[str]] = []

    def start(script: str, every: float = 0.1) -> subprocess.Popen[str]:
        source = HEAD.replace("EVERY", str(every)) + textwrap.dedent(script)
        process = subprocess.Popen(
            [sys.executable, "-c", source], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        processes.append(process)
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line.startswith("ready"), process.communicate()[1]
        return process

    yield start
    for process in processes:
        process.kill()
        process.communicate()


CHILD = """
child = None

def job(at):
    global child
    child = subprocess.Popen(["sleep", "60"])
    say("ready", child.pid)
    say("child ended", child.wait())

end(scheduler.run("0 2 * * *", "UTC", job, on_stop=lambda: child.terminate()))
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signal_during_a_job_ends_its_child_and_the_process_at_once(
    spawn: Callable[..., subprocess.Popen[str]], number: signal.Signals
) -> None:
    process = spawn(CHILD, every=0.2)
    process.send_signal(number)
    out, err = process.communicate(timeout=10)
    assert out.split("\n")[:2] == [f"child ended {-signal.SIGTERM}", f"returned {int(number)}"], err
    assert process.returncode == 128 + number


def test_signal_while_waiting_ends_the_process_at_once(spawn: Callable[..., subprocess.Popen[str]]) -> None:
    process = spawn(
        """
        idle = lambda: say("told to stop")
        end(scheduler.run("0 2 * * *", "UTC", print, on_stop=idle, catch_up=lambda: say("ready")))
        """,
        every=3600,
    )
    time.sleep(0.2)
    process.send_signal(signal.SIGTERM)
    out, _ = process.communicate(timeout=5)
    assert (out, process.returncode) == (f"told to stop\nreturned {int(signal.SIGTERM)}\n", 143)


def test_signal_ends_a_catch_up_and_no_job_follows(spawn: Callable[..., subprocess.Popen[str]]) -> None:
    process = spawn(
        """
        import threading
        told = threading.Event()
        wait = lambda: (say("ready"), told.wait(30), say("caught up"))
        end(scheduler.run("0 2 * * *", "UTC", lambda at: say("job"), on_stop=told.set, catch_up=wait))
        """
    )
    process.send_signal(signal.SIGTERM)
    out, _ = process.communicate(timeout=5)
    assert (out, process.returncode) == (f"caught up\nreturned {int(signal.SIGTERM)}\n", 143)


def test_job_that_will_not_stop_holds_the_process_no_longer_than_patience(
    spawn: Callable[..., subprocess.Popen[str]],
) -> None:
    process = spawn(
        """
        job = lambda at: (say("ready"), time.sleep(60))
        end(scheduler.run("0 2 * * *", "UTC", job, patience=timedelta(seconds=1)))
        """
    )
    began = time.monotonic()
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=10)
    assert 0.9 < time.monotonic() - began < 5
    assert (out, process.returncode) == (f"returned {int(signal.SIGTERM)}\n", 143)
    assert "schedule.abandoned" in err


@pytest.mark.faults("B4.5")
def test_second_signal_is_passed_on_and_ends_the_wait(spawn: Callable[..., subprocess.Popen[str]]) -> None:
    process = spawn(
        """
        job = lambda at: (say("ready"), time.sleep(60))
        told = lambda: say("told to stop")
        end(scheduler.run("0 2 * * *", "UTC", job, on_stop=told, patience=timedelta(seconds=60)))
        """
    )
    process.send_signal(signal.SIGINT)
    assert process.stdout is not None
    first = process.stdout.readline()
    process.send_signal(signal.SIGINT)
    rest, _ = process.communicate(timeout=10)
    assert first + rest == f"told to stop\ntold to stop\nreturned {int(signal.SIGINT)}\n"
    assert process.returncode == 130
