"""All or nothing on disk, whoever dies when."""

import os
import signal
import stat
import subprocess
import sys
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


def test_files_are_not_open_to_others_whatever_the_umask(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        atomic.write_json(tmp_path / "a" / "b" / "file.json", {})
        with atomic.new_file(tmp_path / "published", mode=atomic.PUBLISHED_MODE) as draft:
            draft.write_text("x")
    finally:
        os.umask(before)
    assert (mode(tmp_path / "a"), mode(tmp_path / "a" / "b")) == (0o750, 0o750)
    assert (mode(tmp_path / "a" / "b" / "file.json"), mode(tmp_path / "published")) == (0o640, 0o440)


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
