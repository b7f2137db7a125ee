"""The state folder as a whole: of an older or a newer recjob, open to all, used by root."""

import os
import stat
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import duckdb
import pyarrow.parquet as pq
import pytest
from conftest import LAST, document, environment, small_world, world_in

from jobs import query
from jobs.nightly import nightly
from jobs.settings import Settings
from storage import atomic, state, warehouse
from storage.errors import CorruptState, NoPermission, StateVersion

Recjob = Callable[..., subprocess.CompletedProcess[str]]
COMMANDS = [
    ["ingest", "ratings.zip"],
    *([name, "--date", str(LAST)] for name in ("check", "train", "score", "nightly")),
    ["backfill", "--from", str(LAST), "--to", str(LAST)],
    ["rollback"],
    ["forget", "--user", "7"],
    ["status"],
    ["recommend", "--user", "7"],
    ["query", "SELECT 1"],
    ["runs", "list"],
    ["models", "list"],
]


def everything(root: Path) -> dict[str, tuple[int, bytes]]:
    return {
        str(path.relative_to(root)): (path.lstat().st_mtime_ns, b"" if path.is_dir() else path.read_bytes())
        for path in [root, *root.rglob("*")]
    }


def aged(path: Path) -> None:
    """Make a published file what an older recjob might have written: a table, a column and a version less."""
    path.chmod(0o640)
    with duckdb.connect(str(path)) as connection:
        connection.execute("DROP TABLE rejected_rows")
        connection.execute("ALTER TABLE models DROP COLUMN note")
        connection.execute("UPDATE schema_info SET schema_version = 0, recjob_version = '0.0.9'")
    path.chmod(0o440)


@pytest.mark.faults("B6.6")
@pytest.mark.no_store("it changes a published file, which is brought back")
def test_what_an_older_recjob_published_is_rebuilt_into_a_new_file(settings: Settings) -> None:
    nightly(settings, LAST)
    before, shown = settings.database.resolve(), query.recommend(settings, "7", 5)
    aged(before)
    (settings.state_dir / "version.json").unlink()
    with duckdb.connect(str(before), read_only=True) as reader:
        assert (
            subprocess.run(
                [sys.executable, "-m", "jobs.cli", "check", "--date", str(LAST)], env=environment(settings)
            ).returncode
            == 0
        )
        assert reader.execute("SELECT max(schema_version) FROM schema_info").fetchall() == [(0,)]
    after = settings.database.resolve()
    assert after != before
    assert not before.exists()
    assert stat.S_IMODE(after.stat().st_mode) == 0o440
    assert query.recommend(settings, "7", 5) == shown
    with warehouse.reader(settings.database) as connection:
        found = connection.execute("SELECT schema_version, recjob_version FROM schema_info").fetchall()
        assert found == [(warehouse.SCHEMA_VERSION, "0.0.9")]
        assert connection.execute("SELECT count(*), count(note) FROM models").fetchall() == [(1, 0)]
        assert connection.execute("SELECT count(*) FROM rejected_rows").fetchall() == [(0,)]
    assert state.check(settings.state_dir) == state.VERSION
    assert nightly(settings, LAST)["status"] == "unchanged"


@pytest.mark.faults("B6.6")
@pytest.mark.parametrize("arguments", COMMANDS, ids=" ".join)
def test_the_state_of_a_newer_recjob_is_refused_and_not_touched(
    settings: Settings, recjob: Recjob, arguments: list[str]
) -> None:
    atomic.write_json(settings.state_dir / "version.json", {"state_version": state.VERSION + 1})
    before = everything(settings.state_dir)
    done = recjob(*arguments, "--json")
    assert (done.returncode, document(done)["error"]["kind"]) == (7, "E_STATE_VERSION")
    assert everything(settings.state_dir) == before


@pytest.mark.faults("B6.6")
@pytest.mark.no_store("it changes a published file, which is brought back")
def test_a_published_file_of_a_newer_recjob_is_refused(settings: Settings) -> None:
    nightly(settings, LAST)
    live = settings.database.resolve()
    live.chmod(0o640)
    with duckdb.connect(str(live)) as connection:
        connection.execute("UPDATE schema_info SET schema_version = 99")
    (settings.state_dir / "version.json").unlink()
    with pytest.raises(StateVersion, match=live.name):
        nightly(settings, LAST)
    assert settings.database.resolve() == live


@pytest.mark.faults("B6.6")
@pytest.mark.parametrize("content", ["", "[]", "{}", '{"state_version": "new"}'])
def test_a_version_that_cannot_be_read_is_no_old_one(settings: Settings, content: str) -> None:
    (settings.state_dir / "version.json").write_text(content)
    with pytest.raises(CorruptState, match=r"version\.json"):
        nightly(settings, LAST)


@pytest.mark.faults("B5.9")
def test_a_state_folder_open_to_all_is_refused(settings: Settings, recjob: Recjob) -> None:
    settings.state_dir.chmod(0o777)
    before = everything(settings.state_dir)
    done = recjob("nightly", "--date", str(LAST), "--json")
    assert (done.returncode, document(done)["error"]["kind"]) == (6, "E_PERMISSION")
    assert everything(settings.state_dir) == before
    with pytest.raises(NoPermission):
        nightly(settings, LAST)
    settings.state_dir.chmod(0o770)
    assert state.check(settings.state_dir) == state.VERSION


@pytest.mark.faults("B5.9")
def test_whatever_the_umask_nothing_of_a_night_is_open_to_others(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        settings = world_in(tmp_path / "state", small_world())
        nightly(settings, LAST)
    finally:
        os.umask(before)
    paths = [path for path in [settings.state_dir, *settings.state_dir.rglob("*")] if not path.is_symlink()]
    modes = {str(path.relative_to(tmp_path)): stat.S_IMODE(path.stat().st_mode) for path in paths}
    wanted = {
        path: 0o750 if (tmp_path / path).is_dir() else 0o440 if path.endswith(".duckdb") else 0o640 for path in modes
    }
    assert modes == wanted


@pytest.mark.no_store("its other folder would take up the copy of the first")
@pytest.mark.faults("B5.14")
def test_root_is_warned_when_it_begins_a_state_folder_or_works_in_anothers(tmp_path: Path, recjob: Recjob) -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root")
    pq.write_table(small_world().ratings, tmp_path / "ratings.parquet")
    said = []
    for owner in (0, 0, 65534):
        if (tmp_path / "new").exists():
            os.chown(tmp_path / "new", owner, owner)
        done = recjob("ingest", "ratings.parquet", RECJOB_STATE_DIR=str(tmp_path / "new"))
        assert done.returncode == 0, done.stderr
        said.append(done.stderr.count("run.as_root"))
    assert said == [1, 0, 1]


@pytest.mark.faults("B5.14")
def test_anybody_else_is_not_warned() -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root, to become somebody else")
    with tempfile.TemporaryDirectory() as folder:  # tmp_path is root's alone
        settings = world_in(Path(folder) / "state")
        for path in (Path(folder), *Path(folder).rglob("*")):
            os.chown(path, 65534, 65534)
        command = [sys.executable, "-m", "jobs.cli", "check", "--date", str(LAST)]
        root = str(Path(state.__file__).parents[1])
        env = environment(settings) | {"PYTHONPATH": root, "HOME": folder}
        try:
            done = subprocess.run(command, env=env, cwd=folder, capture_output=True, text=True, user=65534, group=65534)
        except PermissionError as error:
            pytest.skip(f"another user cannot start this Python: {error}")
        assert done.returncode == 0, done.stderr
        assert "run.as_root" not in done.stderr
