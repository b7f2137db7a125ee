"""Nights by the clock: which date, which were missed, what happens to a child."""

import dataclasses
import signal
import subprocess
import sys
import threading
import time
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from conftest import Recjob, document, environment

from jobs import exits, run, schedule
from jobs.allowed import InvalidSettings
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
def test_missed_nights_are_made_up_by_policy(
    settings: Settings, caplog: pytest.LogCaptureFixture, policy: str, days: list[int]
) -> None:
    journal(settings, date(2026, 3, 5), "published")
    journal(settings, date(2026, 3, 6), "failed")
    found = schedule.missed(planned(settings, catch_up=policy), datetime(2026, 3, 9, 12, tzinfo=UTC))
    assert found == [date(2026, 3, day) for day in days]
    told = [record for record in caplog.records if record.getMessage() == "schedule.left_out"]
    left = [day for day in (6, 7, 8) if day not in days]
    assert (
        [(record.dates, record.first, record.last) for record in told]
        == [  # type: ignore[attr-defined]
            (len(left), str(date(2026, 3, left[0])), str(date(2026, 3, left[-1]))) for _ in left[:1]
        ]
    )


def test_of_decades_without_lists_the_newest_night_is_made_up_for_and_one_line_tells_of_the_others(
    settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    journal(settings, date(1998, 4, 21), "published")  # those of MovieLens-100k
    began = time.perf_counter()
    found = schedule.missed(planned(settings, catch_up="latest"), datetime(2026, 3, 9, 12, tzinfo=UTC))
    assert time.perf_counter() - began < 10
    assert found == [date(2026, 3, 8)]
    (told,) = (record for record in caplog.records if record.getMessage() == "schedule.left_out")
    assert (told.dates, told.first, told.last) == (10182, "1998-04-22", "2026-03-07")  # type: ignore[attr-defined]


@pytest.mark.faults("B4.3")
def test_a_scheduler_that_was_down_for_three_days_runs_their_nights_in_order(
    settings: Settings, tmp_path: Path
) -> None:
    journal(settings, date(2026, 3, 5), "published")
    ran = tmp_path / "ran"
    nights = Nights(planned(settings, catch_up="all"), [])
    pretend(nights, f"import sys; open({str(ran)!r}, 'a').write(sys.argv[3] + ' ')")
    nights.catch_up(datetime(2026, 3, 9, 12, tzinfo=UTC))
    assert ran.read_text().split() == ["2026-03-06", "2026-03-07", "2026-03-08"]


@pytest.mark.parametrize("cron", ["* * * * *", "0 0,12 * * *"])
def test_of_a_day_with_many_fire_times_one_is_made_up_for(settings: Settings, cron: str) -> None:
    journal(settings, date(2026, 2, 27), "published")  # by the minute there are 13,000 of them
    found = schedule.missed(planned(settings, cron=cron, catch_up="all"), datetime(2026, 3, 9, tzinfo=UTC))
    assert found == [date(2026, 2, 28) + timedelta(days=n) for n in range(9)]


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


@pytest.mark.faults("B4.11")
def test_a_failure_that_passes_is_tried_until_it_has_passed(settings: Settings, tmp_path: Path) -> None:
    count = tmp_path / "count"
    nights = Nights(planned(settings, retries=5), [], first_pause=0.01)
    script = f"import os, sys; f = open({str(count)!r}, 'a'); f.write('x'); f.close(); "
    pretend(nights, f"{script}sys.exit({exits.RESOURCES} if os.path.getsize({str(count)!r}) < 3 else 0)")
    assert nights.night(date(2026, 3, 1)) == exits.DONE
    assert count.read_text() == "xxx"


@pytest.mark.faults("B4.6")
@pytest.mark.parametrize(
    ("script", "code"),
    [("import sys; sys.exit(1)", 1), ("import os; os.kill(os.getpid(), 9)", -9), ("import time; time.sleep(60)", 124)],
)
def test_after_a_night_that_failed_was_killed_or_hung_comes_the_next(
    settings: Settings, caplog: pytest.LogCaptureFixture, script: str, code: int
) -> None:
    nights = Nights(planned(settings, timeout_hours=1 / 3600), [])
    pretend(nights, script)
    nights.at(datetime(2026, 3, 2, 3, 30, tzinfo=UTC))
    (told,) = (record for record in caplog.records if record.getMessage() == "schedule.ran")
    assert (told.levelname, told.exit_code, told.as_of) == ("ERROR", code, "2026-03-01")  # type: ignore[attr-defined]
    pretend(nights, "")
    assert nights.night(date(2026, 3, 2)) == exits.DONE


@pytest.mark.faults("B4.12")
def test_twenty_nights_leave_no_memory_no_zombie_and_no_file(settings: Settings) -> None:
    nights = Nights(settings, [])
    pretend(nights, "")

    def held() -> tuple[float, int, int]:
        """Resident MiB, open files, and children that are not waited for."""
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        children = Path(f"/proc/self/task/{threading.get_native_id()}/children").read_text().split()
        return pages * 4096 / 2**20, len(list(Path("/proc/self/fd").iterdir())), len(children)

    assert nights.night(date(2026, 3, 1)) == exits.DONE
    memory, files, children = held()
    for day in range(1, 21):
        assert nights.night(date(2026, 3, day)) == exits.DONE
    after = held()
    assert after[0] - memory < 5
    assert after[1] <= files  # garbage of another test may have held one
    assert after[2] == children


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


@pytest.mark.faults("B4.5")
def test_a_night_that_ignores_sigterm_is_killed_in_time_and_by_a_second_signal_at_once(
    settings: Settings, tmp_path: Path
) -> None:
    """The whole scheduler as a process; its night ignores SIGTERM."""
    journal(settings, date(2026, 3, 8), "published")  # the newest missed night is run at once
    deaf = tmp_path / "deaf.py"
    deaf.write_text(
        "import os, signal, sys, time\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "print(os.getpid(), file=sys.stderr, flush=True)\ntime.sleep(60)\n"
    )
    script = (
        "import sys\nfrom jobs import configuration, schedule\n"
        f"settings = configuration.load(None, {{}}, {{'state_dir': {str(settings.state_dir)!r}}})\n"
        f"class Deaf(schedule.Nights):\n    command = property(lambda self: [sys.executable, {str(deaf)!r}], lambda *given: None)\n"
        "schedule.Nights = Deaf\nsys.exit(128 + schedule.run(settings, None))\n"
    )
    for signals, least, most in ((1, 6.5, 10.0), (2, 0.0, 4.0)):
        with subprocess.Popen([sys.executable, "-c", script], stderr=subprocess.PIPE, text=True) as child:
            assert child.stderr is not None
            night = int(next(line for line in child.stderr if line.strip().isdigit()))
            began = time.monotonic()
            for _ in range(signals):
                child.terminate()
                time.sleep(0.5)
            child.stderr.read()
            assert child.wait(15) == 143
        assert least < time.monotonic() - began < most
        assert not Path(f"/proc/{night}").exists()


@pytest.mark.faults("B4.10")
@pytest.mark.parametrize(
    ("cron", "zone", "named"),
    [
        ("0 2 30 2 *", "UTC", "day of month"),
        ("61 * * * *", "UTC", "minute"),
        ("0 2 * * mon-", "UTC", "weekday"),
        ("every night", "UTC", "five fields"),
        ("0 2 * * *", "Mars/Olympus", "IANA zone"),
    ],
)
def test_a_wrong_schedule_is_an_error_of_every_command(recjob: Recjob, cron: str, zone: str, named: str) -> None:
    for command in (["schedule", "next"], ["schedule", "run"], ["check"]):
        done = recjob(*command, RECJOB_SCHEDULE_CRON=cron, RECJOB_SCHEDULE_TIMEZONE=zone)
        assert done.returncode == exits.USAGE
        assert "error[E_CONFIG]: " in done.stderr
        assert named in done.stderr


@pytest.mark.faults("B4.10")
def test_next_shows_so_many_times_with_their_offsets_and_sunday_is_0(recjob: Recjob) -> None:
    zone = {"RECJOB_SCHEDULE_CRON": "0 2 * * 0", "RECJOB_SCHEDULE_TIMEZONE": "Asia/Tokyo"}
    times = document(recjob("schedule", "next", "-n", "5", "--json", **zone))["next"]
    found = [datetime.fromisoformat(time["at"]) for time in times]
    assert len(found) == 5
    assert {(at.isoweekday(), at.hour, str(at.utcoffset())) for at in found} == {(7, 2, "9:00:00")}


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
