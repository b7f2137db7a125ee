"""All or nothing on disk, whoever dies when."""

import os
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest

from storage import atomic
from storage.errors import Busy, DiskFailed


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def child(script: str) -> subprocess.Popen[str]:
    head = "import sys, time, os; from pathlib import Path; from storage import atomic\n"
    return subprocess.Popen([sys.executable, "-c", head + script], stdout=subprocess.PIPE, text=True)


def test_a_block_that_fails_keeps_the_old_file_and_leaves_no_draft(tmp_path: Path) -> None:
    target = tmp_path / "file"
    target.write_text("old")
    with pytest.raises(ZeroDivisionError), atomic.new_file(target) as draft:
        draft.write_text("new")
        _ = 1 / 0
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
    assert target.read_text() == "old"


def test_a_folder_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), atomic.new_folder(tmp_path / "a") as draft:
        (draft / "x").write_text("x")
        _ = 1 / 0
    assert not list(tmp_path.iterdir())
    with atomic.new_folder(tmp_path / "a") as draft:
        (draft / "x").write_text("x")
        assert not (tmp_path / "a").exists()
    assert (tmp_path / "a" / "x").read_text() == "x"


@pytest.mark.faults("B1.1")
def test_a_killed_writer_leaves_a_draft_that_sweep_removes(tmp_path: Path) -> None:
    target = tmp_path / "deep" / "file"
    script = f"with atomic.new_file(Path({str(target)!r})) as d:\n d.write_text('half'); print('x', flush=True); time.sleep(60)"
    with child(script) as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.send_signal(signal.SIGKILL)
    assert not target.exists()
    assert len(atomic.sweep(tmp_path)) == 1
    assert not list(target.parent.iterdir())


@pytest.mark.faults("B5.9")
def test_files_are_not_open_to_others_whatever_the_umask(tmp_path: Path) -> None:
    script = f"""
os.umask(0)
state = Path({str(tmp_path)!r}) / "state"
atomic.write_json(state / "deep" / "note.json", {{}})
with atomic.new_file(state / "published", mode=atomic.PUBLISHED_MODE) as draft:
    draft.write_text("x")
with atomic.new_folder(state / "run") as draft:
    (draft / "part").write_text("x")
with atomic.lock(state / "lock", 0, "run-7"):
    pass
"""
    with child(script) as process:
        assert process.wait() == 0
    state = tmp_path / "state"
    folders, files = [".", "deep", "run"], ["deep/note.json", "run/part", "lock", "lock.json"]
    assert {name: oct(mode(state / name)) for name in folders} == dict.fromkeys(folders, "0o750")
    assert {name: oct(mode(state / name)) for name in files} == dict.fromkeys(files, "0o640")
    assert oct(mode(state / "published")) == "0o440"


def test_a_flipped_link_is_always_there(tmp_path: Path) -> None:
    link = tmp_path / "link"
    for name in ("one", "two"):
        (tmp_path / name).write_text(name)
    atomic.flip(link, tmp_path / "one")
    script = f"p = Path({str(link)!r})\nprint('x', flush=True)\nseen = {{p.read_text() for _ in range(3000)}}\nprint(len(seen), flush=True)"
    with child(script) as process:
        assert process.stdout is not None
        process.stdout.readline()
        while process.poll() is None:
            for name in ("two", "one"):
                atomic.flip(link, tmp_path / name)
        assert process.stdout.read() == "2\n"
    assert process.returncode == 0


def test_the_lock_names_its_holder_and_is_free_once_the_holder_is_dead(tmp_path: Path) -> None:
    lock = tmp_path / "lock"
    script = f"with atomic.lock(Path({str(lock)!r}), 0, 'run-7'):\n print('held', flush=True); time.sleep(60)"
    with child(script) as process:
        assert process.stdout is not None
        process.stdout.readline()
        with pytest.raises(Busy, match=f"run-7, pid {process.pid}, since 20"), atomic.lock(lock, 0, "me"):
            pass
        assert atomic.is_locked(lock)
        process.send_signal(signal.SIGKILL)
    with atomic.lock(lock, 0, "me"):
        assert atomic.is_locked(lock)
    assert not atomic.is_locked(lock)


def test_a_path_that_cannot_be_written_is_an_error_with_its_name(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(DiskFailed, match="in-the-way|file"), atomic.new_file(tmp_path / "file" / "below"):
        pass


def test_a_folder_that_is_already_there_is_not_replaced(tmp_path: Path) -> None:
    target = tmp_path / "folder"
    target.mkdir()
    (target / "part").write_text("old")
    with pytest.raises(DiskFailed, match="folder"), atomic.new_folder(target) as draft:
        (draft / "part").write_text("new")
    assert (target / "part").read_text() == "old"
    assert os.listdir(tmp_path) == ["folder"]


@pytest.mark.faults("B1.1")
def test_a_killed_writer_of_a_folder_leaves_a_draft_that_sweep_removes(tmp_path: Path) -> None:
    script = f"""
with atomic.new_folder(Path({str(tmp_path)!r}) / "run") as draft:
    (draft / "part").write_text("half"); print("x", flush=True); time.sleep(60)
"""
    with child(script) as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.send_signal(signal.SIGKILL)
    assert [path.name.startswith(atomic.DRAFT) for path in tmp_path.iterdir()] == [True]
    atomic.sweep(tmp_path)
    assert not os.listdir(tmp_path)


@pytest.mark.faults("B1.4")
def test_a_full_disk_is_an_error_that_names_the_file_and_keeps_the_old_one(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("old")
    script = f"""
import resource, signal
from storage.errors import DiskFull
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
try:
    with atomic.new_file(Path({str(tmp_path)!r}) / "file") as draft:
        draft.write_bytes(bytes(2000))
except DiskFull as error:
    print(error.kind, error.where["needed_bytes"], error.where["free_bytes"] > 0, error)
"""
    with child(script) as process:
        assert process.stdout is not None
        said = process.stdout.read()
    assert said.startswith(f"E_DISK_FULL 1000 True no room for {tmp_path}/file: File too large; at least 1,000 bytes")
    assert (tmp_path / "file").read_text() == "old"
    assert os.listdir(tmp_path) == ["file"]


def test_a_link_still_leads_to_its_file_when_the_state_folder_is_moved(tmp_path: Path) -> None:
    atomic.write_json(tmp_path / "state" / "published" / "file", 1)
    atomic.flip(tmp_path / "state" / "link", tmp_path / "state" / "published" / "file")
    os.rename(tmp_path / "state", tmp_path / "moved")
    assert (tmp_path / "moved" / "link").read_text() == "1\n"


@pytest.mark.faults("B4.1")
def test_the_lock_is_free_after_a_kill_although_a_child_of_its_holder_lives(tmp_path: Path) -> None:
    lock = tmp_path / "lock"
    script = f"""
import subprocess
with atomic.lock(Path({str(lock)!r}), 0, "run-7"):
    print(subprocess.Popen(["sleep", "60"], stdout=subprocess.DEVNULL).pid, flush=True); time.sleep(60)
"""
    with child(script) as process:
        assert process.stdout is not None
        sleeper = int(process.stdout.readline())
        process.send_signal(signal.SIGKILL)
    try:
        os.kill(sleeper, 0)
        assert not atomic.is_locked(lock)
    finally:
        os.kill(sleeper, signal.SIGKILL)


@pytest.mark.faults("B4.1")
def test_a_lock_that_is_waited_for_is_had_once_it_is_free(tmp_path: Path) -> None:
    lock = tmp_path / "lock"
    script = f"with atomic.lock(Path({str(lock)!r}), 0, 'run-7'):\n print('held', flush=True); time.sleep(0.5)"
    with child(script) as process:
        assert process.stdout is not None
        process.stdout.readline()
        began = time.monotonic()
        with atomic.lock(lock, 20, "me"):
            assert 0.1 < time.monotonic() - began < 10


def test_a_lock_is_free_again_after_an_error(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), atomic.lock(tmp_path / "lock", 0, "me"):
        _ = 1 / 0
    assert not atomic.is_locked(tmp_path / "lock")


def test_what_is_removed_is_gone_and_nothing_else(tmp_path: Path) -> None:
    for name in ("one", "two"):
        atomic.write_json(tmp_path / name / "part", 1)
    atomic.remove(tmp_path / "one")
    atomic.remove(tmp_path / "not there")
    assert os.listdir(tmp_path) == ["two"]
