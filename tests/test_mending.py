"""Published files that were damaged, edited or given a stray log, state folders that cannot be used, disks without room."""

import json
import os
import shutil
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import straced
from conftest import LAST, brought_back, copied, environment, world_in
from worlds import GOOD, ask, publish, staged

from jobs import backfill, doctor, mend, query, run, score
from jobs import publish as publishing
from jobs.inputs import Night
from jobs.nightly import Options, nightly, release
from jobs.run import Journal
from jobs.settings import Settings
from storage import atomic, digest, mending, models, runs, warehouse
from storage.errors import AuditFailed, CorruptState, DiskFull, NotFound

Rows = list[tuple[Any, ...]]
BEFORE = LAST - timedelta(days=1)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """Two nights, published one after the other."""
    settings = world_in(tmp_path_factory.mktemp("made") / "state")
    for day in (BEFORE, LAST):
        nightly(settings, day)
    return settings


@pytest.fixture
def settings(made: Settings, tmp_path: Path) -> Settings:
    """A copy of the two nights that a test may spoil."""
    return copied(made, tmp_path / "state")


def lists(settings: Settings) -> Rows:
    """The lists that readers see, without the ids of the runs."""
    with duckdb.connect(str(settings.database), read_only=True) as connection:
        return connection.execute("SELECT * EXCLUDE run_id FROM recommendations ORDER BY ALL").fetchall()


def rewritten(path: Path, content: bytes) -> None:
    """Give a read-only file other content, as a bad disk would."""
    path.chmod(0o640)
    times = path.stat()
    path.write_bytes(content)
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))


def flipped(content: bytes, at: int) -> bytes:
    return content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :]


DAMAGE: dict[str, Callable[[bytes], bytes]] = {
    "cut in half": lambda content: content[: len(content) // 2],
    "one bit of a table flipped": lambda content: flipped(content, len(content) - 200_000),
    "empty": lambda content: b"",
    "no database": lambda content: b"<html>not found</html>" * 1000,
}


@pytest.mark.faults("B1.11")
@pytest.mark.parametrize("damage", DAMAGE)
@brought_back
def test_a_damaged_file_is_told_by_status_put_aside_by_the_next_night_and_built_anew(
    settings: Settings, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    whole, path = lists(settings), settings.database.resolve()
    rewritten(path, DAMAGE[damage](path.read_bytes()))
    status = subprocess.run(
        [sys.executable, "-m", "jobs.cli", "status", "--json"],
        env=environment(settings),
        capture_output=True,
        text=True,
    )
    told = json.loads(status.stdout)
    assert status.returncode == 7, status.stderr
    assert str(path) in told["damaged"]["why"]
    assert "recjob nightly" in told["damaged"]["hint"]
    assert told["champion"]
    assert [at["status"] for at in told["last_runs"]] == ["published", "published"]

    record = nightly(settings, LAST)
    assert (record["status"], record["model_version"]) == ("published", told["champion"])
    assert lists(settings) == whole
    assert [record.getMessage() for record in caplog.records if record.levelname == "WARNING"] == ["published.damaged"]
    assert sum(".aside-" in name for name in os.listdir(settings.published)) == 1
    assert query.status(settings)["damaged"] is None


@pytest.mark.faults("B1.11")
def test_readers_get_the_newest_whole_file_as_soon_as_a_night_begins(settings: Settings) -> None:
    earlier, now = warehouse.versions(settings.published)
    rewritten(now, b"")
    assert mend.mend(settings)
    assert settings.database.resolve() == earlier
    rewritten(earlier, b"")
    assert mend.mend(settings)
    assert len(lists(settings)) == 2 * 205, "of all that is staged, before a night has scored"
    assert nightly(settings, LAST)["status"] == "unchanged"


@pytest.mark.faults("B1.11")
@brought_back
def test_a_date_whose_lists_are_lost_is_told_when_it_leaves_the_published_file(
    settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    shutil.rmtree(settings.runs / f"as_of={BEFORE}")
    rewritten(settings.database.resolve(), b"")
    assert nightly(settings, LAST)["status"] == "published"
    assert {row[0] for row in lists(settings)} == {LAST}
    told = [record.as_of for record in caplog.records if record.getMessage() == "publish.lost"]  # type: ignore[attr-defined]
    assert told == [str(BEFORE)]


@pytest.mark.faults("B1.18")
def test_a_date_that_retention_drops_anyway_is_not_told_as_lost(
    settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    fewer = replace(settings, publish=replace(settings.publish, retention_dates=1))
    shutil.rmtree(settings.runs / f"as_of={BEFORE}")
    assert nightly(fewer, LAST, Options(force="a new file"))["status"] == "published"
    assert {row[0] for row in lists(fewer)} == {LAST}
    assert "publish.lost" not in caplog.messages


@pytest.mark.faults("B1.18")
def test_dates_that_are_lost_with_all_that_is_published_are_told(
    settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    shutil.rmtree(settings.runs / f"as_of={BEFORE}")
    shutil.rmtree(settings.published)
    settings.database.unlink()
    assert nightly(settings, LAST)["status"] == "published"
    told = [record.as_of for record in caplog.records if record.getMessage() == "publish.lost"]  # type: ignore[attr-defined]
    assert told == [str(BEFORE)]
    assert backfill.wanted(settings, BEFORE, LAST, "missing") == [BEFORE]


@pytest.mark.faults("B1.18")
def test_lists_that_cannot_be_compared_with_those_before_are_told_by_their_place(
    settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    (folder,) = settings.runs.glob(f"as_of={LAST}/*")
    shutil.rmtree(folder)
    assert publishing.newest_before(settings, LAST) is None
    (told,) = caplog.records
    assert told.getMessage() == "lists.not_compared"
    assert told.why == f"{folder}, which readers were shown, is not there: the new lists are compared with none"  # type: ignore[attr-defined]


@pytest.mark.faults("B1.11")
def test_no_flipped_bit_in_any_block_is_taken_for_a_list(tmp_path: Path) -> None:
    path = publish(tmp_path, "r1", [staged(tmp_path, "r1")]).path
    content, rows, found = path.read_bytes(), ask(tmp_path, "SELECT * FROM recommendations"), 0
    places = range(20, len(content), 1 << 17)
    for at in places:
        rewritten(path, flipped(content, at))
        try:
            warehouse.check(path)
            assert ask(tmp_path, "SELECT * FROM recommendations") == rows
        except CorruptState:
            found += 1
    assert found >= len(places) // 2  # the others are in blocks that nothing is stored in


@pytest.mark.faults("B1.15", "B1.11")
def test_nobody_is_taken_back_to_a_damaged_file(settings: Settings) -> None:
    earlier, now = warehouse.versions(settings.published)
    rewritten(earlier, DAMAGE["cut in half"](earlier.read_bytes()))
    with pytest.raises(CorruptState, match=earlier.name) as told:
        publishing.rollback(settings)
    assert settings.database.resolve() == now
    assert "rollback" not in told.value.hint, "no other is kept"
    assert "recjob publish RUN" in told.value.hint


@pytest.mark.faults("B1.11")
@brought_back
def test_damaged_staged_lists_of_another_date_stop_a_night_which_says_what_helps(settings: Settings) -> None:
    whole = lists(settings)
    (path,) = settings.runs.glob(f"as_of={BEFORE}/*/recommendations.parquet")
    rewritten(path, path.read_bytes()[:-9])
    with pytest.raises(CorruptState, match=str(path)) as told:
        nightly(settings, LAST, Options(force="to publish anew"))
    assert lists(settings) == whole
    first, _, then = told.value.hint.partition(", then ")
    assert then == f"recjob backfill --from {BEFORE} --to {BEFORE} --only all"
    shutil.rmtree(first.removeprefix("remove "))
    assert backfill.backfill(settings, BEFORE, BEFORE, "all")["failed"] == 0
    assert lists(settings) == whole
    runs.verify(runs.partitions(settings.runs)[0])


@pytest.mark.faults("B1.15")
def test_rollback_is_quick_and_takes_the_champion_of_the_bad_night_back(settings: Settings) -> None:
    bad, (good, *_) = models.champion(settings.models), models.versions(settings.models)
    assert bad is not None
    assert bad != good
    began = time.monotonic()
    done = publishing.rollback(settings)
    assert time.monotonic() - began < 1
    assert done["champion"] == good.version
    assert models.champion(settings.models) == good
    assert {row[0] for row in lists(settings)} == {BEFORE}
    states = {record["as_of_date"]: record["status"] for record in run.records(settings.journal, settings.lock)}
    assert states == {str(BEFORE): "published", str(LAST): "rolled_back"}
    with pytest.raises(NotFound, match="before the current one") as told:
        publishing.rollback(settings)
    assert f"recjob rollback --to RUN goes to another that is kept: {done['from']}" in told.value.hint


@straced.needed
@pytest.mark.no_store("it counts the renames of a rollback, and copying it takes some more")
@pytest.mark.faults("B1.15", "B1.1")
def test_a_rollback_killed_at_any_step_is_done_by_the_next_and_goes_no_further(
    settings: Settings, tmp_path: Path
) -> None:
    nightly(settings, LAST, Options(force="a third file"))
    command, ended = [sys.executable, "-m", "jobs.cli", "rollback"], []
    _, second, third = warehouse.versions(settings.published)
    for number in range(1, 9):
        assert settings.database.resolve() == third
        killer = straced.injected("signal=KILL", straced.Call("rename", number, ()))
        ended.append(subprocess.run([*killer, *command], env=environment(settings), check=False).returncode)
        if not ended[-1]:
            break
    assert ended == [-9, -9, -9, 0]  # the note of who holds the lock, the record of the run, the link, and none
    assert settings.database.resolve() == second
    assert [record["status"] for record in run.records(settings.journal, settings.lock)][-1] == "rolled_back"


@pytest.mark.faults("B1.15", "B1.11")
def test_a_damaged_file_can_be_rolled_back_from(settings: Settings) -> None:
    rewritten(settings.database.resolve(), b"")
    publishing.rollback(settings)
    assert {row[0] for row in lists(settings)} == {BEFORE}


@pytest.mark.faults("B1.8")
def test_a_stray_log_is_put_aside_with_a_warning(settings: Settings, caplog: pytest.LogCaptureFixture) -> None:
    whole, path = lists(settings), settings.database.resolve()
    script = (
        "import duckdb, os, signal, sys\nc = duckdb.connect(sys.argv[1])\n"
        "c.execute('DELETE FROM recommendations'); os.kill(os.getpid(), signal.SIGKILL)"
    )
    scratch = settings.state_dir.parent / "scratch"
    shutil.copyfile(path, scratch)
    subprocess.run([sys.executable, "-c", script, str(scratch)], check=False)
    log = scratch.with_name("scratch.wal").read_bytes()
    assert log
    for beside in (settings.database, path):
        Path(f"{beside}.wal").write_bytes(log)
    with pytest.raises((duckdb.Error, AssertionError)):
        assert lists(settings) == whole
    assert nightly(settings, LAST)["status"] == "unchanged"
    assert lists(settings) == whole
    assert [record.getMessage() for record in caplog.records if record.levelname == "WARNING"] == [
        "published.stray_log"
    ] * 2
    assert [path.name for path in settings.state_dir.rglob("*.wal")] == []
    assert len(list(settings.published.glob("*.wal.aside-*"))) == 1, "of what is put aside the newest is kept"


@pytest.mark.faults("B1.13")
@brought_back
def test_what_somebody_wrote_into_the_published_file_is_told_and_gone_the_next_night(
    settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    whole, path = lists(settings), settings.database.resolve()
    assert stat.S_IMODE(path.stat().st_mode) == 0o440
    assert not mending.edited(settings.database)
    path.chmod(0o640)
    with duckdb.connect(str(path)) as connection:
        connection.execute("DELETE FROM recommendations WHERE user_id = 1")
    assert len(lists(settings)) == len(whole) - 10
    assert nightly(settings, LAST)["status"] == "published"
    assert lists(settings) == whole
    assert "published.edited" in [record.getMessage() for record in caplog.records]


@pytest.mark.faults("B1.12")
def test_a_forced_night_says_the_same(settings: Settings) -> None:
    before = lists(settings)
    record = nightly(settings, LAST, Options(force="to see that it is the same"))
    assert record["output_digest"] == runs.partitions(settings.runs)[-1].record["output_digest"]
    assert len({part.record["output_digest"] for part in runs.partitions(settings.runs)}) == 2
    assert lists(settings) == before


@pytest.mark.slow
@pytest.mark.faults("B1.14")
def test_thirty_nights_take_the_room_of_those_that_are_kept(tmp_path: Path) -> None:
    keep, root, link = 7, tmp_path / "published", tmp_path / "recs.duckdb"
    for number in range(30):
        staged(tmp_path, f"r{number:02}", date(2026, 3, 1) + timedelta(days=number))
        newest = runs.partitions(tmp_path / "runs")[-keep:]
        publish(tmp_path, f"r{number:02}", newest)
        runs.prune(tmp_path / "runs", {partition.run_id for partition in newest})
        warehouse.prune(root, link, 3)
    assert len(os.listdir(root)) == 3
    assert len(list((tmp_path / "runs").glob("*/*"))) == keep
    assert ask(tmp_path, "SELECT count(DISTINCT as_of_date), count(*) FROM recommendations") == [(keep, 4 * keep)]
    fresh = tmp_path / "fresh"
    publish(fresh, "r", [staged(fresh, f"r{n}", date(2026, 3, 1) + timedelta(days=n)) for n in range(keep)])
    assert link.stat().st_size <= 1.2 * (fresh / "recs.duckdb").stat().st_size


SPOILED = {
    "a row lost": ([GOOD[1], *GOOD[2:]], "rank_gaps"),
    "the last row lost": (GOOD[:3], "unexplained_short_lists"),
    "a row doubled": ([GOOD[0], *GOOD], "rank_gaps"),
    "two ranks swapped": ([(1, 1, *GOOD[1][2:]), (1, 2, *GOOD[0][2:]), *GOOD[2:]], "rank_against_score"),
}


@pytest.mark.faults("B1.10")
@pytest.mark.parametrize("spoiled", SPOILED)
def test_each_way_to_spoil_a_list_is_found_by_name(tmp_path: Path, spoiled: str) -> None:
    rows, rule = SPOILED[spoiled]
    with pytest.raises(AuditFailed, match=rule):
        publish(tmp_path, "r1", [staged(tmp_path, "r1", lists=rows)])
    assert os.listdir(tmp_path) == ["runs"] or os.listdir(tmp_path / "published") == []


@pytest.mark.faults("B1.10")
@brought_back
def test_lists_that_the_audit_refuses_are_put_aside_and_fail_no_other_date(settings: Settings) -> None:
    nightly(settings, LAST + timedelta(days=1), Options(until="stage"))
    *good, bad = runs.every(settings.runs)
    rows = pq.read_table(bad.path("recommendations"))
    rows = rows.set_column(rows.column_names.index("score"), "score", pa.array(np.arange(len(rows)), pa.float32()))
    pq.write_table(rows.cast(pq.read_schema(bad.path("recommendations"))), bad.path("recommendations"))
    files = bad.record["files"] | {"recommendations.parquet": digest.of_file(bad.path("recommendations"))}
    atomic.write_json(bad.folder / "run.json", bad.record | {"files": files})
    with pytest.raises(AuditFailed, match="rank_against_score") as raised:
        release(settings)
    assert f"the lists of {bad.as_of} were put aside" in raised.value.hint
    assert [one.run_id for one in runs.every(settings.runs)] == [one.run_id for one in good]
    after = LAST + timedelta(days=2)
    assert nightly(settings, after)["status"] == "published"
    assert list(publishing.visible(settings)) == [str(BEFORE), str(LAST), str(after)]


@pytest.mark.faults("B1.10")
def test_a_list_with_a_rated_movie_is_refused(settings: Settings) -> None:
    partition = runs.partitions(settings.runs)[-1]
    with duckdb.connect() as connection:
        rated = connection.sql(f"SELECT user_id, movie_id FROM '{partition.path('recommendations')}' LIMIT 1")
        night = Night(rated.to_arrow_table(), None, None, [])
    with pytest.raises(AuditFailed, match="1 recommended movies had been rated by their user"):
        score._inspected(
            night, settings, Journal(settings.journal, {}), None, partition
        )  # and `runs.stage` leaves nothing


STATES: dict[str, tuple[str, int]] = {
    "mkdir -m 500 state; chown 65534 state": ("E_PERMISSION", 6),
    "mkdir -m 777 state": ("E_PERMISSION", 6),
    "touch state": ("E_IO", 6),
    "ln -s nowhere state": ("E_IO", 6),
    "mkdir -m 777 theirs; ln -s theirs state; chown -h 65534 state": ("E_PERMISSION", 6),
    "mkdir ours; ln -s ours state; chown -h 65534 state ours": ("E_NO_RATINGS", 3),
}


@pytest.mark.faults("B1.16")
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to become another user")
@pytest.mark.parametrize("state", STATES)
def test_a_state_folder_that_cannot_be_used_is_told_before_any_work(tmp_path: Path, state: str) -> None:
    tmp_path.chmod(0o755)
    for parent in tmp_path.parents[:3]:
        parent.chmod(0o755)
    if STATES[state][1] == 3 and not all(
        part.stat().st_mode & stat.S_IXOTH for part in Path(sys.prefix, "lib").parents
    ):
        pytest.skip(f"another user cannot read {sys.prefix}")
    subprocess.run(state, shell=True, cwd=tmp_path, check=True)
    before = sorted(path.name for path in tmp_path.rglob("*"))
    script = "import os; from jobs import cli, commands, nightly, progress, show; os.setegid(65534); os.seteuid(65534); cli.main()"
    command = [sys.executable, "-c", script, "nightly", "--json", "--state-dir", str(tmp_path / "state")]
    here = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(command, env=here, capture_output=True, text=True)
    kind, code = STATES[state]
    assert (json.loads(done.stdout)["error"]["kind"], done.returncode) == (kind, code), done.stderr
    assert str(tmp_path / "state") in json.loads(done.stdout)["error"]["message"]
    if code == 6:
        assert sorted(path.name for path in tmp_path.rglob("*")) == before


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A folder on a disk of 1 MiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "none", str(folder)], capture_output=True, text=True
    )
    if done.returncode:
        pytest.skip(f"a small disk cannot be mounted here: {done.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.mark.faults("B1.4")
def test_a_disk_that_is_too_small_for_the_file_is_told_and_works_again_once_it_is_larger(small_disk: Path) -> None:
    partition = staged(small_disk, "r1")
    with pytest.raises(DiskFull, match=r"no room for .*recommendations-r1.duckdb: .*No space left") as told:
        publish(small_disk, "r1", [partition])
    assert told.value.where["needed_bytes"] > 0
    assert 0 <= told.value.where["free_bytes"] < 1 << 20
    assert os.listdir(small_disk / "published") == []
    subprocess.run(["mount", "-o", "remount,size=16m", str(small_disk)], check=True)
    assert publish(small_disk, "r1", [partition]).rows == 4


@pytest.mark.faults("B1.5")
def test_a_night_that_will_not_fit_is_not_begun(small_disk: Path) -> None:
    settings = world_in(small_disk / "state")
    began = time.monotonic()
    with pytest.raises(DiskFull, match=r"at least 1\d,\d{3},\d{3} bytes are needed, [\d,]+ bytes are free"):
        nightly(settings, LAST)
    assert time.monotonic() - began < 5
    (record,) = run.records(settings.journal, settings.lock)
    assert (record["status"], record["error_kind"], record["exit_code"]) == ("failed", "E_DISK_FULL", 6)
    assert [step["step"] for step in record["steps"]] == ["check"]
    assert not settings.models.exists()


def test_what_is_put_aside_is_kept_once(tmp_path: Path) -> None:
    root = tmp_path / "published"
    publish(tmp_path, "r1", [staged(tmp_path, "r1")])
    for number in range(3):
        (root / "stray").write_text(str(number))
        atomic.put_aside(root / "stray", root)
    warehouse.prune(root, tmp_path / "recs.duckdb", 1)
    (kept,) = root.glob("stray.aside-*")
    assert kept.read_text() == "2"


def test_a_record_of_the_journal_that_is_damaged_is_named(settings: Settings) -> None:
    record = sorted(settings.journal.iterdir())[0]
    record.write_text("{}")
    with pytest.raises(CorruptState, match=record.name):
        nightly(settings, LAST)
    record.unlink()
    assert nightly(settings, LAST)["status"] == "unchanged"


@pytest.mark.faults("B1.17")
def test_a_flip_that_cannot_be_told_is_done_all_the_same(settings: Settings) -> None:
    publishing.rollback(settings)
    command = [
        sys.executable,
        "-m",
        "jobs.cli",
        "rollback",
        "--to",
        warehouse.versions(settings.published)[-1].stem[16:],
    ]
    with open("/dev/full", "w") as full:
        done = subprocess.run(command, env=environment(settings), stdout=full, stderr=subprocess.PIPE, text=True)
    assert done.returncode == 6
    assert "error[E_IO]: No space left on device" in done.stderr
    assert "Traceback" not in done.stderr
    assert settings.database.resolve() == warehouse.versions(settings.published)[-1]


@pytest.mark.slow
@pytest.mark.faults("B1.11")
@brought_back
def test_a_damaged_version_that_nobody_needs_stops_neither_nights_nor_rollback(settings: Settings) -> None:
    nightly(settings, LAST + timedelta(days=1))
    oldest = models.versions(settings.models)[0].folder
    (oldest / "manifest.json").write_text("")
    publishing.rollback(settings)
    assert max(publishing.visible(settings)) == str(LAST)
    assert nightly(settings, LAST + timedelta(days=2))["status"] == "published"
    assert oldest not in {model.folder for model in models.versions(settings.models)}
    (settings.models / "champion.json").write_text("{")
    publishing.rollback(settings)
    assert max(publishing.visible(settings)) == str(LAST)
    found = doctor.examine(settings)["findings"]
    assert [one["message"] for one in found if one["check"] == "models"] == [f"{oldest}/manifest.json cannot be read"]
