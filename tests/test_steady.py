"""A file that somebody writes or replaces while it is read is refused, whoever does it and how."""

import hashlib
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import LAST, small_world, world_in

from jobs.nightly import Options, nightly
from storage import ratings, steady
from storage.errors import InputChanging, InvalidInput

READY = "import os, random, sys, time\nfrom pathlib import Path\n"
REPLACE = f"""{READY}
path, others = Path(sys.argv[1]), [Path(name).read_bytes() for name in sys.argv[2:]]
print("ready", flush=True)
while True:
    for content in others:
        path.with_name(".new").write_bytes(content)
        os.replace(path.with_name(".new"), path)
        time.sleep(random.random() / 100)
"""
OVERWRITE = f"""{READY}
path, content = Path(sys.argv[1]), Path(sys.argv[1]).read_bytes()
print("ready", flush=True)
while True:
    path.write_bytes(content)
"""
APPEND = f"""{READY}
with open(sys.argv[1], "a") as file:
    print("ready", flush=True)
    while True:
        file.write("1,1,4,1767225600\\n")
        file.flush()
        time.sleep(0.02)
"""
READ = """
import sys, time
from storage import ratings
from storage.errors import InvalidInput
ends, kinds = time.monotonic() + 3, set()
while time.monotonic() < ends:
    try:
        kinds.add(f"read {ratings.read(sys.argv[1], {}, before=None).table.num_rows}")
    except InvalidInput as error:
        kinds.add(error.kind)
print(",".join(sorted(kinds)))
"""


@contextmanager
def busy(script: str, *paths: Path) -> Iterator[None]:
    """A process that works on files for as long as the body runs."""
    with subprocess.Popen([sys.executable, "-c", script, *map(str, paths)], stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "ready\n"
        try:
            yield
        finally:
            child.kill()


def written(path: Path, rows: int, stars: float = 4.0) -> Path:
    columns = {"user_id": list(range(rows)), "movie_id": [1] * rows, "rating": pa.array([stars] * rows, pa.float32())}
    pq.write_table(pa.table(columns | {"rated_at": [date(2026, 3, 1)] * rows}), path)
    return path


@pytest.mark.faults("B2.16")
def test_what_is_recorded_is_the_hash_of_what_was_read_although_files_are_replaced(tmp_path: Path) -> None:
    stars = {}
    for value in (2.0, 5.0):
        other = written(tmp_path / f"{value}.bytes", 1000, value)
        stars[hashlib.sha256(other.read_bytes()).hexdigest()] = value
    path = written(tmp_path / "a.parquet", 1000, 2.0)
    read = refused = 0
    with busy(REPLACE, path, *sorted(tmp_path.glob("*.bytes"))):
        until = time.monotonic() + 60
        while not (read and refused >= 20) and time.monotonic() < until:
            try:
                found = ratings.read(str(path), {}, before=None)
            except InputChanging as error:
                refused += error.where == {"path": str(path)} and "rename" in error.hint
            else:
                read += 1
                assert set(found.table["rating"].to_pylist()) == {stars[found.files[0]["sha256"]]}
    assert (read > 0, refused > 0) == (True, True)


@pytest.mark.faults("B2.2")
def test_a_file_that_is_written_over_and_over_is_refused_and_kills_nobody(tmp_path: Path) -> None:
    path = written(tmp_path / "a.parquet", 200_000)
    with busy(OVERWRITE, path):
        done = subprocess.run([sys.executable, "-c", READ, str(path)], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    kinds = set(done.stdout.strip().split(","))
    assert "E_INPUT_CHANGING" in kinds
    assert kinds <= {"E_INPUT_CHANGING", "E_INPUT", "read 200000"}  # E_INPUT: found empty, before and after


@pytest.mark.faults("B2.2")
def test_a_night_leaves_a_file_alone_that_is_still_written(tmp_path: Path) -> None:
    path = tmp_path / "ratings.csv"
    path.write_text("user_id,movie_id,rating,rated_at\n")
    settings = world_in(tmp_path / "state", input__ratings=str(path), input__settle_seconds=0.5)
    with busy(APPEND, path), pytest.raises(InputChanging, match=r"ratings\.csv changed"):
        nightly(settings, LAST, Options(until="check"))


@pytest.mark.faults("B2.2")
def test_a_file_that_was_just_finished_is_waited_for_and_an_old_one_is_not(tmp_path: Path) -> None:
    path = tmp_path / "ratings.parquet"
    pq.write_table(small_world().ratings, path)
    settings = world_in(tmp_path / "state", input__ratings=str(path), input__settle_seconds=1.0)
    began = time.monotonic()
    assert nightly(settings, LAST, Options(until="check"))["status"] == "checked"
    assert time.monotonic() - began > 0.5
    began = time.monotonic()
    steady.settle([path], 1.0)
    assert time.monotonic() - began < 0.5


def test_a_clock_ahead_of_ours_does_not_hold_a_night_up(tmp_path: Path) -> None:
    path = written(tmp_path / "a.parquet", 2)
    os.utime(path, (time.time() + 10_000, time.time() + 10_000))
    began = time.monotonic()
    steady.settle([path], 0.3)
    assert time.monotonic() - began < 2


@pytest.mark.faults("B2.2")
def test_a_file_that_is_gone_is_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match=r"movies\.csv cannot be read: No such file"):
        ratings.read_movies(tmp_path / "movies.csv", {})
    path = written(tmp_path / "a.parquet", 2)
    with pytest.raises(InputChanging, match=r"a\.parquet changed"), steady.unchanged(path):
        path.unlink()
