"""Nights and publications that are killed, or that the disk fails, at any of their calls to the system."""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import duckdb
import pytest
import straced
from conftest import LAST, copied, environment, world_in
from straced import Call
from worlds import ask, publish, staged

from jobs import query, run
from jobs.nightly import nightly
from jobs.settings import Settings
from storage import atomic

Rows = list[tuple[Any, ...]]
COMMAND = [sys.executable, "-m", "jobs.cli", "nightly", "--date", str(LAST), "--log-format", "json"]


def lists(settings: Settings) -> Rows:
    """All that readers see of the lists, but for the ids of runs."""
    with duckdb.connect(str(settings.database), read_only=True) as connection:
        return connection.execute("SELECT * EXCLUDE run_id FROM recommendations ORDER BY ALL").fetchall()


def left_behind(root: Path) -> list[str]:
    """Names of drafts and write-ahead logs."""
    return [path.name for path in root.rglob("*") if ".draft-" in path.name or path.suffix == ".wal"]


class Nights:
    """A state with yesterday's lists published, copies of which are made to suffer; and what an undisturbed night makes of it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.template = world_in(root / "template", publish__keep_files=1)
        nightly(self.template, LAST - timedelta(days=1))
        self.old = lists(self.template)
        undisturbed = self.copy("undisturbed")
        traced = [] if straced.why_not else straced.traced(root / "calls")
        done = self.night(undisturbed, traced)
        assert done.returncode == 0, done.stderr
        self.calls = straced.calls_in(root / "calls") if traced else []
        self.new = lists(undisturbed)
        assert len(self.new) == 2 * len(self.old)

    def copy(self, name: str) -> Settings:
        return copied(self.template, self.root / name)

    def night(self, settings: Settings, before: list[str] | None = None) -> subprocess.CompletedProcess[str]:
        """The night as a child process, `before` put before its command."""
        env = self.environment(settings)
        return subprocess.run([*(before or []), *COMMAND], env=env, capture_output=True, text=True, timeout=240)

    def environment(self, settings: Settings) -> dict[str, str]:
        return environment(settings) | {"RECJOB_PUBLISH_KEEP_FILES": "1"}

    def recovers(self, settings: Settings, flipped: bool = False, ended: str = "crashed") -> str:
        """Readers see the old lists, or if it came to that all of the new; nobody runs; the next night makes them: its log."""
        assert lists(settings) == (self.new if flipped else self.old)
        assert query.status(settings)["running"] is None
        assert run.records(settings.journal, settings.lock)[-1]["status"] == ended
        done = self.night(settings)
        assert done.returncode == 0, done.stderr
        assert lists(settings) == self.new
        assert left_behind(settings.state_dir) == []
        assert len(list(settings.published.iterdir())) == 1
        return done.stderr


@pytest.fixture(scope="module")
def nights(tmp_path_factory: pytest.TempPathFactory) -> Nights:
    return Nights(tmp_path_factory.mktemp("nights"))


def after(calls: list[Call], name: str, end: str) -> Call:
    """The last of the calls with a path that ends so."""
    return [call for call in calls if call.name == name and call.paths[-1].endswith(end)][-1]


def moments(calls: list[Call]) -> dict[str, tuple[Call, str]]:
    """Calls of a night before which it is killed, and what the next night must log: whatever was finished is used."""
    flip = after(calls, "rename", "undisturbed/recommendations.duckdb")
    return {
        "it is the champion": (after(calls, "rename", "models/champion.json"), "model.found"),
        "the lists are staged": (after(calls, "rename", "run=RUN"), "model.found"),
        "the file is built": (after(calls, "fsync", "published/.draft-recommendations-RUN.duckdb"), "score.found"),
        "the link is flipped": (flip, "score.found"),
        "the flip is synced": (next(call for call in calls[calls.index(flip) :] if call.name == "fsync"), "unchanged"),
        "the old file is pruned": (after(calls, "unlink", "published/recommendations-RUN.duckdb"), "unchanged"),
    }


@pytest.mark.slow
@straced.needed
@pytest.mark.faults("B1.1")
def test_a_night_killed_at_any_step_changes_nothing_and_the_next_one_needs_no_hand(nights: Nights) -> None:
    for number, (moment, (call, event)) in enumerate(moments(nights.calls).items()):
        settings = nights.copy(f"killed-{number}")
        killed = nights.night(settings, straced.injected("signal=KILL", call))
        assert killed.returncode == -signal.SIGKILL, (moment, killed.stderr)
        ended = "published" if call.name == "unlink" else "crashed"
        log = nights.recovers(settings, flipped=event == "unchanged", ended=ended)
        assert f'"event": "{event}"' in log, moment
        assert "train.epoch" not in log, moment


@pytest.mark.slow
@pytest.mark.faults("B1.1")
def test_a_night_killed_while_it_scores_scores_anew_and_does_not_train(nights: Nights) -> None:
    settings = nights.copy("scoring")
    with subprocess.Popen(
        COMMAND, env=nights.environment(settings), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    ) as child:
        assert child.stderr is not None
        assert any("score.start" in line for line in child.stderr)
        child.kill()
    assert "train.epoch" not in nights.recovers(settings)


@straced.needed
@pytest.mark.faults("B1.7")
def test_everything_is_synced_before_it_gets_its_name_and_its_folder_after(nights: Nights) -> None:
    renamed = [
        (at, call.paths)
        for at, call in enumerate(nights.calls)
        if call.name == "rename" and "__pycache__" not in call.paths[0]
    ]
    synced = [(at, call.paths[0]) for at, call in enumerate(nights.calls) if call.name in ("fsync", "fdatasync")]
    assert len(renamed) > 20
    for (at, (draft, target)), following in zip(
        renamed, [*(at for at, _ in renamed[1:]), len(nights.calls)], strict=True
    ):
        assert target.endswith(("/recommendations.duckdb", "/latest.html")) or draft in [
            path for when, path in synced if when < at
        ]  # a link has nothing to sync
        assert str(Path(target).parent) in [path for when, path in synced if at < when < following], target
    link, file = (
        next(at for at, paths in renamed if paths[1].endswith(end))
        for end in ("undisturbed/recommendations.duckdb", "published/recommendations-RUN.duckdb")
    )
    assert file < link


@pytest.mark.slow
@pytest.mark.faults("B1.4")
@pytest.mark.skipif(not shutil.which("prlimit"), reason="prlimit is not installed")
def test_a_night_without_room_for_its_file_says_so_and_the_next_one_needs_no_hand(nights: Nights) -> None:
    settings = nights.copy("no-room")
    done = nights.night(settings, ["prlimit", "--fsize=1000000"])
    assert done.returncode == 6, done.stderr
    told = done.stderr[done.stderr.index("error[") :].splitlines()
    assert re.match(
        r"error\[E_DISK_FULL\]: no room for .*/recommendations-.*\.duckdb: .*; at least [\d,]+ bytes are needed",
        told[0],
    )
    assert told[1].startswith("hint: free some space")
    assert left_behind(settings.state_dir) == []
    assert "score.found" in nights.recovers(settings, ended="failed")


SCRIPT = """
import sys
from pathlib import Path
import worlds
from storage import warehouse
from storage.errors import StorageError
warehouse.OFFLINE["threads"] = 1  # calls are counted by thread, and which of DuckDB's writes would be chance
root, run_id = Path(sys.argv[1]), sys.argv[2]
try:
    worlds.publish(root, run_id, [worlds.staged(root, run_id)])
except StorageError as error:
    print(error.kind, error)
"""
PUBLISH = [sys.executable, "-c", SCRIPT]
HERE = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
STATEMENT = "SELECT run_id, count(*) FROM recommendations GROUP BY ALL"


def publishing(root: Path, run_id: str, before: list[str]) -> subprocess.CompletedProcess[str]:
    """A process that stages and publishes one run of four rows, `before` put before its command."""
    command = [*before, *PUBLISH, str(root), run_id]
    return subprocess.run(command, env=HERE, capture_output=True, text=True, timeout=120)


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Call]]:
    """A folder with the files of two runs, and the calls that made the second."""
    root = tmp_path_factory.mktemp("published")
    publish(root, "r000", [staged(root, "r000")])
    done = publishing(root, "r001", straced.traced(root / "calls"))
    assert done.stdout == "", done.stderr
    return root, straced.calls_in(root / "calls")


def spread(calls: list[Call], names: tuple[str, ...], most: int) -> list[Call]:
    """All calls of each name, or `most` that lie evenly between the first and the last."""
    chosen = []
    for name in names:
        same = [call for call in calls if call.name == name]
        step = max(1, (len(same) - 1) // (most - 1))
        chosen += same[::step] if len(same) > most else same
    return chosen


FORKS = """
import os, signal, sys
from pathlib import Path
import duckdb, worlds
from storage import warehouse
warehouse.OFFLINE["threads"] = 1
root = Path(sys.argv[1])
for run_id in map(str.strip, sys.stdin):
    child = os.fork()
    if not child:
        os.kill(os.getpid(), signal.SIGSTOP)
        worlds.publish(root, run_id, [worlds.staged(root, run_id)])
        os._exit(0)
    os.waitpid(child, os.WUNTRACED)
    print(child, flush=True)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


@contextmanager
def publishers(root: Path) -> Iterator[Callable[[str, list[str]], int]]:
    """Publish a run in a process that strace watches, and return how that ended; they are forks, so that none imports anything."""
    command = [sys.executable, "-c", FORKS, str(root)]
    with subprocess.Popen(command, env=HERE, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as forks:
        assert forks.stdin
        assert forks.stdout
        asked, told = forks.stdin, forks.stdout

        def publish_under(run_id: str, before: list[str]) -> int:
            print(run_id, file=asked, flush=True)
            child = int(told.readline())
            with subprocess.Popen([*before, "-p", str(child)], stderr=subprocess.DEVNULL):
                while "TracerPid:\t0" in Path(f"/proc/{child}/status").read_text():
                    time.sleep(0.002)
                os.kill(child, signal.SIGCONT)
                return int(told.readline())

        yield publish_under
        asked.close()


@pytest.mark.slow
@straced.needed
@pytest.mark.faults("B1.1")
def test_a_publication_killed_at_every_call_is_seen_whole_or_not_at_all(tmp_path: Path) -> None:
    publish(tmp_path, "r000", [staged(tmp_path, "r000")])
    with publishers(tmp_path) as publish_under:
        assert publish_under("r001", straced.traced(tmp_path / "calls")) == 0
        calls, visible = straced.calls_in(tmp_path / "calls"), "r001"
        assert {call.name for call in calls} >= {"rename", "fsync", "fdatasync", "pwrite64"}
        for number, call in enumerate(calls):
            code = publish_under(f"s{number:03}", straced.injected("signal=KILL", call))
            assert code == -signal.SIGKILL, call
            visible = f"s{number:03}" if call == calls[-1] else visible  # the sync after the flip
            assert ask(tmp_path, STATEMENT) == [(visible, 4)], call
            atomic.sweep(tmp_path)
            assert left_behind(tmp_path) == []
    publish(tmp_path, "t", [staged(tmp_path, "t")])
    assert ask(tmp_path, STATEMENT) == [("t", 4)]


@straced.needed
@pytest.mark.faults("B1.9")
@pytest.mark.parametrize("torn", [b"", b"torn"])
def test_the_log_of_the_build_is_never_read_back(tmp_path: Path, torn: bytes) -> None:
    publish(tmp_path, "r0", [staged(tmp_path, "r0")])
    assert publishing(tmp_path, "r1", straced.traced(tmp_path / "calls")).returncode == 0
    (unlink,) = [c for c in straced.calls_in(tmp_path / "calls") if c.name == "unlink" and c.paths[0].endswith(".wal")]
    with subprocess.Popen(
        [*straced.injected("signal=STOP", unlink), *PUBLISH, str(tmp_path), "r2"], env=HERE
    ) as strace:
        publisher = straced.stopped_child(strace.pid)
        try:
            for log in (tmp_path / "published").glob(".draft-*.wal"):
                log.write_bytes(torn)
        finally:
            os.kill(publisher, signal.SIGCONT)
        assert strace.wait(60) == 0
    assert ask(tmp_path, STATEMENT) == [("r2", 4)]


@pytest.mark.slow
@straced.needed
@pytest.mark.faults("B1.4", "B1.6")
def test_a_disk_that_fails_any_call_is_told_by_its_kind_and_leaves_nothing(published: tuple[Path, list[Call]]) -> None:
    root, calls = published
    (before,) = ask(root, STATEMENT)
    faults = [("error=EIO", call, "E_IO ") for call in spread(calls, ("rename", "fsync", "fdatasync"), 5)]
    faults += [("error=ENOSPC", call, "E_DISK_FULL ") for call in spread(calls, ("fdatasync", "pwrite64"), 3)]
    log, failed = root / "log", 0
    for number, (fault, call, kind) in enumerate(faults):
        done = publishing(root, f"s{number:02}", straced.injected(fault, call, log))
        met = straced.met(log)
        failed += met
        assert done.stdout.startswith(kind if met else ""), (call, done.stdout, done.stderr)
        flipped = (
            not met or call == calls[-1]
        )  # the folder of the link could not be synced: too late to change one's mind
        before = (f"s{number:02}", 4) if flipped else before
        assert ask(root, STATEMENT) == [before], call
        assert left_behind(root) == []
    assert failed > len(faults) - 4
