"""Real nights in processes of their own that are stopped, killed, hang, or meet each other and a clock that was set."""

import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from conftest import LAST, Recjob, document, environment, world_in

from jobs import exits, publish, run
from jobs.nightly import Options, nightly
from jobs.settings import Settings
from storage import atomic, warehouse

EPOCHS = 20


@contextmanager
def started(settings: Settings, *more: str, **variables: str) -> Iterator[subprocess.Popen[str]]:
    """A night in a session of its own; its log is on stderr, one JSON object a line."""
    command = [sys.executable, "-m", "jobs.cli", "nightly", "--date", str(LAST), "--json", *more]
    given: dict[str, Any] = {"env": environment(settings) | variables, "text": True, "start_new_session": True}
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, **given) as child:
        try:
            yield child
        finally:
            child.kill()


def until(child: subprocess.Popen[str], event: str, times: int = 1) -> dict[str, Any]:
    """Read the log until an event has come so many times; returns its line."""
    assert child.stderr is not None
    for line in child.stderr:
        if f'"event": "{event}"' in line:  # TensorFlow, interrupted while it is imported, has lines of its own
            times -= 1
        if times == 0:
            logged: dict[str, Any] = json.loads(line)
            return logged
    raise AssertionError(f"{event} did not come")


def session(number: int) -> list[int]:
    """The processes of a session that are left."""
    left = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            fields = (folder / "stat").read_text().rpartition(")")[2].split()
        except OSError:  # it has just ended
            continue
        if int(fields[3]) == number and fields[0] != "Z":
            left.append(int(folder.name))
    return left


def last(settings: Settings) -> dict[str, Any]:
    return run.records(settings.journal, settings.lock)[-1]


STOPS = [
    ("run.start", signal.SIGTERM),
    ("check.done", signal.SIGINT),  # TensorFlow is being imported
    ("train.epoch", signal.SIGINT),
    ("train.epoch", signal.SIGTERM),
    ("score.start", signal.SIGTERM),
    ("score.done", signal.SIGTERM),  # the file is being built
    ("score.done", signal.SIGINT),
]


@pytest.mark.slow
@pytest.mark.faults("B4.5")
@pytest.mark.parametrize("after", [0.8, 1.6])
def test_a_signal_while_tensorflow_is_loaded_says_two_lines_and_no_more(settings: Settings, after: float) -> None:
    """Native libraries that are cut off in the middle have a lot to say of it."""
    command = [sys.executable, "-m", "jobs.cli", "-q", "nightly", "--date", str(LAST)]
    with subprocess.Popen(command, env=environment(settings), stderr=subprocess.PIPE, text=True) as child:
        while "tensorflow" not in Path(f"/proc/{child.pid}/maps").read_text():
            time.sleep(0.01)
        time.sleep(after)
        child.terminate()
        _, said = child.communicate(timeout=60)
    assert child.returncode == 143
    assert [line for line in said.splitlines() if not line.startswith("{")] == [
        "error[E_SIGNAL]: stopped by SIGTERM",
        "hint: run it again: nothing was lost",
    ]


@pytest.mark.slow
@pytest.mark.faults("B4.5")
def test_a_signal_in_any_step_ends_the_run_and_the_next_one_needs_no_hand(tmp_path: Path) -> None:
    undisturbed = nightly(world_in(tmp_path / "other"), LAST)
    settings = world_in(tmp_path / "state")
    for event, number in STOPS:
        with started(
            settings, *(("--force", "--reason", "to score anew") if event.startswith("score") else ())
        ) as child:
            until(child, event)
            child.send_signal(number)
            began = time.monotonic()
            printed, logged = child.communicate(timeout=20)
            assert time.monotonic() - began < 10
            assert (child.returncode, json.loads(printed)["exit_code"]) == (128 + number, 128 + number), (event, logged)
            assert json.loads(printed)["error"]["kind"] == "E_SIGNAL"
            assert "Traceback" not in logged
        assert (last(settings)["status"], last(settings)["exit_code"]) == ("cancelled", 128 + number)
        assert not atomic.is_locked(settings.lock)
        assert session(child.pid) == []
        assert not settings.database.exists()
    record = nightly(settings, LAST)
    assert (record["status"], record["output_digest"]) == ("published", undisturbed["output_digest"])
    assert not list(settings.state_dir.rglob(".draft-*"))


@pytest.mark.slow
@pytest.mark.faults("B3.15", "B4.1")
def test_a_training_that_was_killed_is_gone_on_with_at_once_by_the_next_run(tmp_path: Path, recjob: Recjob) -> None:
    more = {"RECJOB_MODEL_EPOCHS": str(EPOCHS)}
    undisturbed = nightly(world_in(tmp_path / "other", model__epochs=EPOCHS), LAST)
    settings = world_in(tmp_path / "state")
    with started(settings, **more) as first:
        killed = until(first, "train.epoch", times=5)
        first.send_signal(signal.SIGSTOP)  # alive, and in the middle of training, for as long as this takes
        began = time.monotonic()
        busy = recjob("nightly", "--date", str(LAST), "--json")
        took = time.monotonic() - began
        first.send_signal(signal.SIGKILL)
        assert first.wait(5) == -signal.SIGKILL
    error = document(busy)["error"]
    assert (busy.returncode, error["kind"]) == (exits.BUSY, "E_BUSY")
    held = json.loads(settings.lock.with_suffix(".json").read_text())
    assert f"{killed['run_id']}, pid {first.pid}, since {held['since']}" in error["message"]
    assert took < 3  # most of it is the start of Python
    with started(settings, **more) as second:
        assert until(second, "run.crashed")["crashed"] == killed["run_id"]
        assert until(second, "train.epoch")["epoch"] > 1  # that of a first state is kept at once
        assert second.stdout is not None
        assert second.wait(60) == exits.DONE
        record = json.loads(second.stdout.read())
    assert record["output_digest"] == undisturbed["output_digest"]
    assert record["model_version"] == undisturbed["model_version"]
    assert run.find(settings.journal, settings.lock, killed["run_id"])["status"] == "crashed"


@pytest.mark.slow
@pytest.mark.faults("B4.6")
def test_a_night_that_takes_longer_than_its_timeout_ends_and_changes_nothing(settings: Settings) -> None:
    with started(settings, "--timeout", "6s", RECJOB_MODEL_EPOCHS="100000") as child:
        printed, _ = child.communicate(timeout=60)
    answer = json.loads(printed)
    assert (child.returncode, answer["exit_code"], answer["error"]["kind"]) == (
        exits.TIMEOUT,
        exits.TIMEOUT,
        "E_TIMEOUT",
    )
    record = last(settings)
    assert (record["status"], record["error_kind"], record["exit_code"]) == ("cancelled", "E_TIMEOUT", exits.TIMEOUT)
    assert not settings.database.exists()
    assert not atomic.is_locked(settings.lock)


@pytest.mark.faults("B4.6")
def test_native_code_that_hangs_past_the_timeout_is_ended_with_a_trace() -> None:
    """A lock of the C library is waited for without a look at signals: nothing of Python runs any more."""
    script = (
        "import ctypes\nfrom jobs import signals\nsignals._PATIENCE = 0.5\nsignals.end_after(0.5)\n"
        "library, lock = ctypes.PyDLL(None), ctypes.create_string_buffer(64)\n"
        "library.pthread_mutex_lock(lock)\nlibrary.pthread_mutex_lock(lock)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=30)
    assert done.returncode == exits.BUG
    assert "line 7 in <module>" in done.stderr


@pytest.mark.parametrize("given", ["2", "2 h", "-1s", "0s", "1d", "", "1e3s"])
def test_a_timeout_needs_its_unit(recjob: Recjob, given: str) -> None:
    done = recjob("nightly", "--timeout", given)
    assert done.returncode == exits.USAGE
    assert "90s, 30m or 2h" in done.stderr


class Clock(datetime):
    """A clock that can be set; durations are not its business."""

    ahead = timedelta()

    @classmethod
    def now(cls, tz: Any = None) -> Any:
        return datetime.now(tz) + cls.ahead


@pytest.mark.parametrize("ahead", [timedelta(hours=2), timedelta(days=1)])
@pytest.mark.faults("B4.7")
def test_a_clock_that_is_set_publishes_nothing_twice_and_nothing_old(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, ahead: timedelta
) -> None:
    """A run while the clock is ahead, then more once it has been set back."""
    monkeypatch.setattr("jobs.run.datetime", Clock)
    monkeypatch.setattr(Clock, "ahead", ahead)
    first = nightly(settings, LAST)
    monkeypatch.setattr(Clock, "ahead", timedelta())
    assert nightly(settings, LAST)["status"] == "unchanged"
    forced = nightly(settings, LAST, Options(force="the clock was wrong"))
    assert forced["run_id"] > first["run_id"]
    assert publish.visible(settings)[str(LAST)]["run_id"] == forced["run_id"]
    assert [partition.run_id for partition in publish.staged(settings)] == [forced["run_id"]]
    publish.rollback(settings)
    assert publish.visible(settings)[str(LAST)]["run_id"] == first["run_id"]
    with warehouse.reader(settings.database) as connection:
        assert connection.execute("SELECT count(*), count(DISTINCT user_id) FROM recommendations").fetchall() == [
            (205, 41)
        ]
        assert connection.execute("SELECT hours_old >= 0 FROM freshness").fetchall() == [(True,)]


@pytest.mark.faults("B4.7")
def test_a_step_during_which_the_clock_is_set_back_took_the_time_that_it_took(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("jobs.run.datetime", Clock)
    journal = run.Journal.start(settings.journal, run.new_run(LAST, "UTC"))
    with journal.step("check"):
        time.sleep(0.01)
        monkeypatch.setattr(Clock, "ahead", timedelta(hours=-2))
    (step,) = journal.record["steps"]
    assert 0.01 <= step["seconds"] < 5


@pytest.mark.faults("B4.13")
def test_what_was_published_too_long_ago_is_stale(
    settings: Settings, recjob: Recjob, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("jobs.run.datetime", Clock)
    monkeypatch.setattr(Clock, "ahead", timedelta(hours=-28.5))
    nightly(settings, LAST)
    for age, stale in (("28h", True), ("29h", False)):
        done = recjob("status", "--max-age", age, "--json")
        assert (done.returncode, document(done)["stale"]) == (exits.STALE if stale else exits.DONE, stale)
    assert "STALE" in recjob("status", "--max-age", "28h").stdout


def test_an_id_comes_after_the_newest_and_is_of_now_where_that_is_later() -> None:
    future = f"{datetime.now(UTC) + timedelta(days=3):%Y%m%dT%H%M%S}999Z-ffffff"
    assert run.new_run(LAST, "UTC", after=future).id > future
    for other in ("20200101T000000000Z-ffffff", "nothing that recjob wrote", ""):
        assert run.new_run(LAST, "UTC", after=other).id.startswith(f"{datetime.now(UTC):%Y%m%d}")
