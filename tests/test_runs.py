"""Staged partitions: whole or absent, and the same whatever batches their rows came in."""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from datetime import date, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from worlds import DAY, GOOD, STATUS, batch, schemas, staged

from storage import atomic, runs
from storage.errors import CorruptState, DiskFailed, NotFound


def test_what_is_staged_can_be_read_back(tmp_path: Path) -> None:
    partition = staged(tmp_path, "r1")
    assert partition.folder == tmp_path / "runs" / "as_of=2026-03-10" / "run=r1"
    assert pq.read_table(partition.path("recommendations"), partitioning=None).equals(
        pa.Table.from_batches([batch("recommendations", GOOD)])
    )
    assert partition.record["rows"] == {"recommendations": len(GOOD), "user_status": len(STATUS)}
    assert runs.find(tmp_path / "runs", "r1") == partition
    assert sorted(os.listdir(partition.folder)) == [
        "movies.parquet",
        "recommendations.parquet",
        "run.json",
        "user_status.parquet",
    ]


def test_a_partition_is_not_there_before_it_is_whole(tmp_path: Path) -> None:
    def watched() -> Iterator[Any]:
        yield {"recommendations": batch("recommendations", GOOD)}
        assert runs.partitions(tmp_path / "runs") == []
        yield {"user_status": batch("user_status", STATUS)}

    runs.stage(tmp_path / "runs", DAY, "r1", watched(), schemas(), {}, {})
    assert [partition.run_id for partition in runs.partitions(tmp_path / "runs")] == ["r1"]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_a_stage_that_fails_leaves_nothing(tmp_path: Path, error: type[BaseException]) -> None:
    def cut() -> Iterator[Any]:
        yield {"recommendations": batch("recommendations", GOOD)}
        raise error

    with pytest.raises(error):
        runs.stage(tmp_path / "runs", DAY, "r1", cut(), schemas(), {}, {})
    assert not list(tmp_path.rglob("*.*"))
    assert staged(tmp_path, "r1").record["rows"]["recommendations"] == len(GOOD)


@pytest.mark.faults("B1.1")
def test_a_killed_stage_is_not_taken_for_a_partition(tmp_path: Path) -> None:
    script = (
        "import sys, time; from pathlib import Path; from storage import runs; import worlds\n"
        "def cut():\n"
        "    yield {'recommendations': worlds.batch('recommendations', worlds.GOOD)}\n"
        "    print('x', flush=True); time.sleep(60)\n"
        "runs.stage(Path(sys.argv[1]), worlds.DAY, 'r1', cut(), worlds.schemas(), {}, {})"
    )
    here = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", script, str(tmp_path / "runs")]
    with subprocess.Popen(command, env=here, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.send_signal(signal.SIGKILL)
    assert runs.partitions(tmp_path / "runs") == []
    assert len(atomic.sweep(tmp_path)) == 1
    assert [partition.run_id for partition in [staged(tmp_path, "r1")]] == ["r1"]


def test_a_partition_is_never_written_over(tmp_path: Path) -> None:
    first = staged(tmp_path, "r1")
    with pytest.raises(DiskFailed, match="run=r1"):
        staged(tmp_path, "r1", lists=GOOD[:1])
    assert runs.find(tmp_path / "runs", "r1") == first
    runs.verify(first)


LISTS = st.lists(st.tuples(st.integers(1, 9), st.integers(1, 3), st.integers(1, 99)), min_size=1, max_size=10)


@given(LISTS, st.lists(st.integers(0, 10), max_size=4))
@settings(max_examples=15, deadline=None)
@pytest.mark.faults("B3.8")
def test_the_digest_does_not_depend_on_the_borders_of_batches(
    lists: list[tuple[int, int, int]], cuts: list[int]
) -> None:
    whole = batch("recommendations", [(user, rank, movie, 0.5, 4.0, "model") for user, rank, movie in lists])
    borders = [0, *sorted(cut for cut in cuts if cut <= len(lists)), len(lists)]
    parts = [{"recommendations": whole.slice(start, end - start)} for start, end in pairwise(borders)]
    shape = {"recommendations": whole.schema}
    with tempfile.TemporaryDirectory() as name:
        one = runs.stage(Path(name), DAY, "r1", [{"recommendations": whole}], shape, {}, {})
        many = runs.stage(Path(name), DAY, "r2", parts, shape, {}, {})
        changed = whole.set_column(2, "movie_id", pa.array([movie + 1 for *_, movie in lists]))
        other = runs.stage(Path(name), DAY, "r3", [{"recommendations": changed.cast(whole.schema)}], shape, {}, {})
        assert many.path("recommendations").read_bytes() == one.path("recommendations").read_bytes()
    assert many.record["output_digest"] == one.record["output_digest"]
    assert other.record["output_digest"] != one.record["output_digest"]


def test_the_newest_run_of_each_date_counts_oldest_date_first(tmp_path: Path) -> None:
    for run_id, day in (("r1", DAY), ("r2", DAY - timedelta(days=1)), ("r3", DAY), ("r4", date(2025, 12, 31))):
        staged(tmp_path, run_id, day)
    root = tmp_path / "runs"
    assert [partition.run_id for partition in runs.partitions(root)] == ["r4", "r2", "r3"]
    assert [partition.run_id for partition in runs.partitions(root, without=["r3"])] == ["r4", "r2", "r1"]


def test_pruning_removes_what_is_not_kept_and_empty_dates(tmp_path: Path) -> None:
    for run_id, day in (("r1", DAY - timedelta(days=1)), ("r2", DAY), ("r3", DAY)):
        staged(tmp_path, run_id, day)
    root = tmp_path / "runs"
    assert runs.prune(root, {partition.run_id for partition in runs.partitions(root)[1:]}) == ["r1", "r2"]
    assert [path.relative_to(root).as_posix() for path in sorted(root.glob("*/*"))] == ["as_of=2026-03-10/run=r3"]
    assert os.listdir(root) == ["as_of=2026-03-10"]


def test_a_run_that_was_not_staged_is_not_found(tmp_path: Path) -> None:
    staged(tmp_path, "r1")
    for name in ("r2", "", "*", "../run=r1"):
        with pytest.raises(NotFound):
            runs.find(tmp_path / "runs", name)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"{}", b'{"as_of_date": "today", "run_id": "r1"}', b"\xff"])
def test_a_broken_record_is_named(tmp_path: Path, content: bytes) -> None:
    (staged(tmp_path, "r1").folder / "run.json").write_bytes(content)
    with pytest.raises(CorruptState, match=r"run=r1/run\.json"):
        runs.partitions(tmp_path / "runs")


@pytest.mark.parametrize("name", ["recommendations", "user_status", "movies"])
def test_a_file_that_was_changed_since_it_was_staged_is_named(tmp_path: Path, name: str) -> None:
    partition = staged(tmp_path, "r1")
    runs.verify(partition)
    path = partition.path(name)
    content = path.read_bytes()
    for damaged in (content[:-1] + bytes([content[-1] ^ 1]), content[: len(content) // 2], b""):
        path.write_bytes(damaged)
        with pytest.raises(CorruptState, match=rf"{name}\.parquet"):
            runs.verify(partition)
    path.unlink()
    with pytest.raises(CorruptState, match=rf"{name}\.parquet"):
        runs.verify(partition)


def test_a_date_without_its_folder_is_no_partition(tmp_path: Path) -> None:
    shutil.rmtree(staged(tmp_path, "r1").folder)
    assert runs.partitions(tmp_path / "runs") == []
