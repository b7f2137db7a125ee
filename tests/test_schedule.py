"""Nights by the clock: which date, which were missed, what happens to a child."""

import dataclasses
import signal
import subprocess
import sys
import threading
import time
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pytest
from conftest import environment

from jobs import exits, run, schedule
from jobs.configuration import InvalidSettings
from jobs.schedule import Nights
from jobs.settings import Settings


def planned(settings: Settings, **changes: Any) -> Settings:
    return dataclasses.replace(settings, schedule=dataclasses.replace(settings.schedule, **changes))


def journal(settings: Settings, day: date, status: str) -> None:
    run.Journal.start(settings.journal, run.new_run(day, "UTC")).finish(status)


def pretend(nights: Nights, script: str) -> None:
    """Let the child be `script`, which finds recjob's arguments behind it."""
    nights.command = [sys.executable, "-c", script]


def test_a_fire_time_is_for_the_day_before_in_the_settings_zone(settings: Settings) -> None:
    assert schedule.as_of(settings, datetime(2026, 3, 2, 3, 30, tzinfo=UTC)) == date(2026, 3, 1)
    assert schedule.as_of(planned(settings, as_of="today"), datetime(2026, 3, 2, 3, 30, tzinfo=UTC)) == date(2026, 3, 2)
    tokyo = dataclasses.replace(settings, timezone="Asia/Tokyo")
    assert schedule.as_of(tokyo, datetime(2026, 3, 2, 16, 0, tzinfo=UTC)) == date(2026, 3, 2)


@pytest.mark.parametrize(("policy", "days"), [("all", [6, 7, 8]), ("latest", [8]), ("none", [])])
@pytest.mark.faults("B4.3")
def test_missed_nights_are_made_up_by_policy(settings: Settings, policy: str, days: list[int]) -> None:
    journal(settings, date(2026, 3, 5), "published")
    journal(settings, date(2026, 3, 6), "failed")
    found = schedule.missed(planned(settings, catch_up=policy), datetime(2026, 3, 9, 12, tzinfo=UTC))
    assert found == [date(2026, 3, day) for day in days]


def test_nothing_is_missed_before_the_first_night_or_the_hour(settings: Settings) -> None:
    assert schedule.missed(settings, datetime(2026, 3, 9, 12, tzinfo=UTC)) == []
    journal(settings, date(2026, 3, 7), "published")
    assert schedule.missed(settings, datetime(2026, 3, 9, 3, 0, tzinfo=UTC)) == []


@pytest.mark.faults("B4.11")
def test_busy_and_out_of_resources_are_tried_again_and_nothing_else_is(settings: Settings, tmp_path: Path) -> None:
    count = tmp_path / "count"
    for code, tries in ((exits.BUSY, 3), (exits.RESOURCES, 3), (exits.INPUT, 1), (exits.INTEGRITY, 1), (exits.DONE, 1)):
        count.write_text("")
        nights = Nights(planned(settings, retries=2), [], first_pause=0.01)
        pretend(nights, f"import sys; open({str(count)!r}, 'a').write('x'); sys.exit({code})")
        assert nights.night(date(2026, 3, 1)) == code
        assert len(count.read_text()) == tries


@pytest.mark.faults("B4.6")
def test_a_night_that_hangs_is_ended(settings: Settings) -> None:
    nights = Nights(planned(settings, timeout_hours=0.001 / 3.6 / 2, retries=0), [])
    pretend(nights, "import time; time.sleep(60)")
    began = time.monotonic()
    assert nights.night(date(2026, 3, 1)) == exits.TIMEOUT
    assert time.monotonic() - began < 10
    assert nights.child is not None
    assert nights.child.poll() is not None


def test_stop_ends_the_child_and_the_retries(settings: Settings) -> None:
    nights = Nights(settings, [])
    pretend(nights, "import time; time.sleep(60)")
    threading.Timer(0.5, nights.stop).start()
    began = time.monotonic()
    assert nights.night(date(2026, 3, 1)) == -signal.SIGTERM
    assert time.monotonic() - began < 10
    assert nights.night(date(2026, 3, 2)) == exits.SIGTERM


@pytest.mark.faults("B4.10")
def test_an_impossible_schedule_is_a_setting_to_mend(settings: Settings) -> None:
    for cron in ("0 2 30 2 *", "61 * * * *", "every night"):
        with pytest.raises(InvalidSettings, match="schedule"):
            schedule.upcoming(planned(settings, cron=cron), 1)


def test_upcoming_nights_name_the_offset_and_the_date(settings: Settings) -> None:
    (first,) = schedule.upcoming(planned(settings, cron="30 3 * * *", timezone="America/New_York"), 1)["next"]
    at = datetime.fromisoformat(first["at"])
    assert at.utcoffset() is not None
    assert (at.hour, at.minute) == (3, 30)
    assert first["as_of_date"] == str(schedule.as_of(settings, at))


@pytest.mark.slow
def test_the_scheduler_runs_a_real_night_and_ends_on_sigterm(settings: Settings, tmp_path: Path) -> None:
    journal(settings, date(2026, 3, 8), "published")  # long ago: the newest missed night is made up for at once
    command = [sys.executable, "-m", "jobs.cli", "schedule", "run", "--log-format", "json"]
    with subprocess.Popen(command, env=environment(settings), stderr=subprocess.PIPE, text=True, cwd=tmp_path) as child:
        assert child.stderr is not None
        for line in child.stderr:
            if '"schedule.ran"' in line:
                break
        child.terminate()
        rest = child.stderr.read()
        assert child.wait(15) == 143, rest
    assert '"exit_code": 0' in line
    records = run.records(settings.journal, settings.lock)
    assert (records[-1]["status"], records[-1]["trigger"]) == ("published", "schedule")
