"""Users scored in shards, by whomever and in whatever order: the lists are those of one run, byte for byte."""

import dataclasses
import importlib.util
import json
import logging
import os
import shutil
import signal
import subprocess
import sys
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pytest
from conftest import LAST, copied, environment, small_world, world_in
from hypothesis import given
from hypothesis import strategies as st
from worlds import DAY, GOOD, STATUS, batch, schemas, staged

from jobs import configuration, doctor, engine, forget, ingest, prune, state
from jobs import shards as parts
from jobs.allowed import InvalidSettings
from jobs.nightly import Options, nightly
from jobs.settings import Settings
from recommender.grid import GROUP, slices
from storage import atomic, models, runs, shards
from storage.errors import Busy, NotFound
from storage.runs import RunPartition
from storage.shards import Shard

MODEL = {
    **{"model.name": "default", "model.stars_dimension": 4, "model.choice_dimension": 8, "model.taste_dimension": 8},
    **{"model.epochs": 1, "score.top_n": 12, "score.batch_size": 16},
}
"""Lists are so long that the later places depend on those of all users (`recommender/spread.py`)."""
STAGE = Options(until="stage", force="once more")


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> tuple[Settings, RunPartition]:
    """A state with a trained model, and the lists as one run in one piece makes them; its partition is not in the state."""
    world = small_world(users=200, movies=40, ratings=3000)
    settings = world_in(
        tmp_path_factory.mktemp("shards") / "state",
        world,
        **{key.replace(".", "__"): value for key, value in MODEL.items()},
    )
    record = nightly(settings, LAST, Options(until="stage"))
    whole = runs.find(settings.runs, record["run_id"])
    aside = settings.state_dir.parent / "whole"
    whole.folder.rename(aside)
    return settings, dataclasses.replace(whole, folder=aside)


@pytest.fixture
def whole(kept: tuple[Settings, RunPartition]) -> RunPartition:
    return kept[1]


@pytest.fixture
def copy(kept: tuple[Settings, RunPartition], tmp_path: Path) -> Settings:
    return copied(kept[0], tmp_path / "state")


def changed(settings: Settings, **changes: Any) -> Settings:
    return dataclasses.replace(settings, score=dataclasses.replace(settings.score, **changes))


def made(settings: Settings, count: int) -> RunPartition:
    """Score all users in so many shards, and stage them."""
    return runs.find(settings.runs, nightly(changed(settings, shards=count), LAST, STAGE)["run_id"])


def in_child(settings: Settings, *arguments: str, script: str = "", **more: str) -> subprocess.Popen[str]:
    """Run `recjob score` in a process of its own, after `script`."""
    named = {configuration.variable(key): str(value) for key, value in MODEL.items()}
    code = f"import sys\nfrom jobs import cli\n{script}\nsys.argv[0] = 'recjob'\ncli.main()"
    command = [sys.executable, "-c", code, "score", "--date", str(LAST), "--log-format", "json", *arguments]
    return subprocess.Popen(
        command, env=environment(settings) | named | more, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def names(settings: Settings) -> list[str]:
    """The numbers of the shards that are there, e.g. 3-of-8."""
    return [folder.name.removeprefix("shard=").rpartition("-")[0] for folder in shards.every(settings.runs)]


def resumed(caplog: pytest.LogCaptureFixture) -> list[tuple[int, int]]:
    """Of each run that found finished shards, how many, and at which it went on."""
    found = [vars(line) for line in caplog.records if line.message == "score.resumed"]
    return [(line["finished"], line["goes_on_at"]) for line in found]


@given(st.integers(0, 5000), st.integers(1, 40))
def test_slices_are_whole_groups_of_all_users_in_order(users: int, count: int) -> None:
    cut = slices(users, count)
    assert len(cut) == count
    assert [user for part in cut for user in part] == list(range(users))
    assert all(part.start % GROUP == 0 or not part for part in cut)
    assert max(map(len, cut)) - min(map(len, cut)) <= 2 * GROUP


@pytest.mark.faults("B3.8")
def test_any_number_of_shards_gives_the_identical_files(copy: Settings, whole: RunPartition) -> None:
    assert whole.record["rows"] == {"recommendations": 201 * 12, "user_status": 201}
    for count in (3, 8):
        partition = made(copy, count)
        assert partition.record["output_digest"] == whole.record["output_digest"]
        assert partition.record["files"] == whole.record["files"]
        assert names(copy) == []


@pytest.mark.faults("B3.8")
def test_shards_of_processes_that_run_at_once_in_any_order_are_taken_and_the_rest_is_scored(
    copy: Settings, whole: RunPartition, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    child = in_child(copy, "--shard", "3/3", "--json")
    with state.shared(copy, 0):
        assert parts.score(copy, LAST, (1, 3), Options())["status"] == "scored"
        out, told = child.communicate(timeout=120)
    assert child.returncode == 0, told
    record = json.loads(out)
    assert (record["status"], record["shard"]) == ("scored", {"number": 3, "of": 3})
    assert names(copy) == ["1-of-3", "3-of-3"]
    assert "2 of 2026-03-10" in str(doctor.examine(copy)["findings"])
    again = parts.score(copy, LAST, (3, 3), Options())
    assert (again["status"], [step["step"] for step in again["steps"]]) == ("unchanged", ["check"])
    partition = made(copy, 3)
    assert resumed(caplog) == [(2, 2)]
    assert partition.record["files"] == whole.record["files"]


KILL = """
import os, signal
from storage import parquet
real, count = parquet.write_streams, []
def write_streams(folder, schemas, batches):
    count.append(1)
    real(folder, schemas, batches)
    if len(count) == 5:  # the partition comes first, and then its shards: this is the fourth
        os.kill(os.getpid(), signal.SIGKILL)
parquet.write_streams = write_streams
"""


@pytest.mark.faults("B1.1")
def test_a_run_that_is_killed_in_a_shard_goes_on_with_that_shard(
    copy: Settings, whole: RunPartition, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level(logging.INFO)
    child = in_child(copy, "--shards", "8", "--no-publish", script=KILL)
    _, told = child.communicate(timeout=120)
    assert child.returncode == -signal.SIGKILL, told
    assert names(copy) == ["1-of-8", "2-of-8", "3-of-8"]
    assert len(list(copy.runs.rglob(".draft-*"))) == 2
    written: list[int] = []
    write = shards.write
    monkeypatch.setattr(shards, "write", lambda root, one, *rows: (written.append(one.number), write(root, one, *rows)))
    partition = made(copy, 8)
    assert resumed(caplog) == [(3, 4)]
    assert written == [4, 5, 6, 7, 8]
    assert partition.record["files"] == whole.record["files"]
    assert names(copy) == []
    assert list(copy.runs.rglob(".draft-*")) == []


@pytest.mark.slow
@pytest.mark.faults("B1.1", "B3.8")
@pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason='needs Ray: pip install "recjob[ray]"')
def test_an_actor_that_is_killed_costs_its_shard_only_and_the_files_are_those_of_one_run(
    copy: Settings, whole: RunPartition
) -> None:
    child = in_child(copy, "--shards", "8", "--engine", "ray", "--no-publish", "--json", RECJOB_SCORE_ACTORS="2")
    assert child.stderr is not None
    pids = json.loads(next(line for line in child.stderr if '"score.actors"' in line))["pids"]
    assert len(pids) == 2
    os.kill(pids[0], signal.SIGKILL)
    out, rest = child.communicate(timeout=200)
    assert child.returncode == 0, rest
    by = [json.loads(line)["by"] for line in rest.splitlines() if '"score.shard"' in line]
    assert len(by) == 8
    assert len({*by, *pids}) == 3  # one took the place of the first
    partition = runs.find(copy.runs, json.loads(out)["run_id"])
    assert partition.record["files"] == whole.record["files"]


def test_ray_needs_shards_and_ray(copy: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InvalidSettings, match="ray"):
        engine.check(changed(copy, engine="ray"))
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(InvalidSettings, match="Ray is not installed"):
        nightly(changed(copy, engine="ray", shards=2), LAST, STAGE)


@pytest.mark.faults("B1.1", "B3.8")
def test_a_shard_of_other_ratings_another_model_or_other_settings_is_not_taken(
    copy: Settings,
) -> None:
    def status(settings: Settings, part: tuple[int, int] = (1, 2), model: str = "champion") -> str:
        return str(parts.score(settings, LAST, part, Options(model=model))["status"])

    assert [status(copy), status(copy)] == ["scored", "unchanged"]
    assert status(changed(copy, top_n=11)) == "scored"
    assert status(copy, (1, 3)) == "scored"
    champion = models.champion(copy.models)
    assert champion is not None
    shutil.copytree(champion.folder, copy.models / "20260310-0123abcd")
    assert status(copy, model="20260310-0123abcd") == "scored"
    ingest.append(copy, "more", small_world(users=2, movies=40, ratings=3, seed=5), 0.0)
    assert status(copy) == "scored"
    assert names(copy) == [*["1-of-2"] * 4, "1-of-3"]


def test_a_damaged_shard_is_scored_again(copy: Settings, whole: RunPartition, caplog: pytest.LogCaptureFixture) -> None:
    parts.score(copy, LAST, (1, 2), Options())
    (folder,) = shards.every(copy.runs)
    path = folder / "user_status.parquet"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    assert made(copy, 2).record["files"] == whole.record["files"]
    assert "shard.damaged" in caplog.messages


def test_a_shard_without_a_model_says_who_trains_it(settings: Settings) -> None:
    with pytest.raises(NotFound, match="a shard trains none") as error:
        parts.score(settings, LAST, (1, 2), Options())
    assert f"recjob train --date {LAST}" in error.value.hint
    assert not settings.runs.exists()
    assert not list(settings.journal.glob("*.json"))


@pytest.mark.faults("B6.1")
def test_forgetting_somebody_removes_shards_and_waits_for_those_that_are_scored(copy: Settings) -> None:
    parts.score(copy, LAST, (1, 2), Options())
    with atomic.shared_lock(copy.lock, 0), pytest.raises(Busy, match="shards are being scored"):
        forget.forget(copy, ["7"])
    assert names(copy) == ["1-of-2"]
    forget.forget(copy, ["7"])
    assert names(copy) == []
    with pytest.raises(NotFound, match="a shard trains none"):  # for these ratings there is no model any more
        parts.score(copy, LAST, (1, 2), Options())
    assert parts.score(copy, LAST, (1, 2), Options(model="champion"))["status"] == "scored"
    (folder,) = shards.every(copy.runs)
    users = {user for part in shards.read(copy.runs, shard_in(folder), ["user_status"]) for user in ids_of(part)}
    assert 6 in users
    assert 7 not in users


def shard_in(folder: Path) -> Shard:
    record = json.loads((folder / "shard.json").read_text())
    return Shard(date.fromisoformat(record["as_of_date"]), **record["shard"], key=record["key"])


def ids_of(part: dict[str, Any]) -> list[int]:
    return list(part["user_status"]["user_id"].to_pylist())


def by_hand(root: Path, day: date = DAY, number: int = 1) -> Shard:
    """A finished shard of a few rows."""
    rows = [{"recommendations": batch("recommendations", GOOD), "user_status": batch("user_status", STATUS)}]
    shards.write(root / "runs", made := Shard(day, number, 3, "a" * 64), rows, schemas())
    return made


def test_two_who_finish_the_same_shard_are_both_right(tmp_path: Path) -> None:
    one = by_hand(tmp_path)
    before = sorted(path.stat().st_mtime_ns for path in one.folder(tmp_path / "runs").iterdir())
    assert by_hand(tmp_path) == one
    assert sorted(path.stat().st_mtime_ns for path in one.folder(tmp_path / "runs").iterdir()) == before
    assert list(tmp_path.rglob(".draft-*")) == []
    read = list(shards.read(tmp_path / "runs", one, ["recommendations", "user_status"]))
    assert read == [
        {"recommendations": batch("recommendations", GOOD)},
        {"user_status": batch("user_status", STATUS)},
    ]


@pytest.mark.faults("B6.5")
def test_shards_are_pruned_once_their_date_is_staged_or_too_old_and_wait_until_then(tmp_path: Path) -> None:
    root = tmp_path / "state"
    settings = configuration.load(None, {}, {"state_dir": root, "publish.retention_dates": 2})
    early, late = DAY - timedelta(days=9), DAY + timedelta(days=1)
    waiting, too_old, done = by_hand(root, late), by_hand(root, early), by_hand(root, DAY, 2)
    staged(root, "r0", DAY - timedelta(days=1))
    assert prune.by_hand(settings)["removed"] == []
    os.utime(done.folder(root / "runs") / "shard.json", ns=(1, 1))
    staged(root, "r1", DAY)
    after = by_hand(root, DAY, 3)
    later = shards.finished_at(root / "runs" / f"as_of={DAY}" / "run=r1") + 1
    os.utime(after.folder(root / "runs") / "shard.json", ns=(later, later))
    removed = prune.by_hand(settings)["removed"]
    assert sorted(removed) == sorted(one.folder(root / "runs").name for one in (too_old, done))
    assert [shard_in(folder) for folder in shards.every(root / "runs")] == [after, waiting]


@pytest.mark.faults("B4.1")
def test_shards_share_the_lock_and_a_run_has_it_alone(tmp_path: Path) -> None:
    lock = tmp_path / "lock"
    with atomic.shared_lock(lock, 0), atomic.shared_lock(lock, 0):
        assert not atomic.is_locked(lock)
        with pytest.raises(Busy, match="shards are being scored: they share"), atomic.lock(lock, 0, "a night"):
            pass
    with (
        atomic.lock(lock, 0, "a night"),
        pytest.raises(Busy, match="a night, pid "),
        atomic.shared_lock(lock, 0),
    ):
        pass
    with atomic.shared_lock(lock, 0):
        pass
