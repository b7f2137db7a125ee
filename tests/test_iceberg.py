"""Iceberg tables over the staged lists: they follow what readers of the published file see, and hold nothing else."""

import dataclasses
import json
import os
import shutil
import subprocess
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any, Literal

import duckdb
import pyarrow as pa
import pytest
from conftest import COPIES, LAST, document, environment, small_world, world_in
from objectstore import SECRET, Store

from jobs import doctor, exits, forget, iceberg, prune, publish, state
from jobs import settings as configured
from jobs.allowed import InvalidSettings
from jobs.nightly import Options, nightly
from jobs.settings import Settings
from storage import runs
from storage.errors import CatalogueFailed

pytest.importorskip("pyiceberg")
from pyiceberg import catalog
from pyiceberg.utils.config import Config

LISTS = ("recommendations", "user_status", "similar_movies")
DAYS = [LAST - timedelta(days=back) for back in (2, 1, 0)]


@pytest.fixture(autouse=True)
def lake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The warehouse of a catalogue `lake` in SQLite; read as a new process would."""
    warehouse = tmp_path / "ware house"
    warehouse.mkdir()
    for name, value in {
        "TYPE": "sql",
        "URI": f"sqlite:///{tmp_path}/lake.db",
        "WAREHOUSE": f"file://{warehouse}",
    }.items():
        monkeypatch.setenv(f"PYICEBERG_CATALOG__LAKE__{name}", value)
    if COPIES:  # the tables are over the objects there, and whoever reads them says where that is
        told_of(os.environ["AWS_ENDPOINT_URL"], monkeypatch)
    monkeypatch.setattr(catalog, "_ENV_CONFIG", Config())
    return warehouse


def told_of(endpoint: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let readers of the catalogue find the store at `endpoint`."""
    for name, value in {"ENDPOINT": endpoint, "ACCESS_KEY_ID": "nobody", "SECRET_ACCESS_KEY": SECRET}.items():
        monkeypatch.setenv(f"PYICEBERG_CATALOG__LAKE__S3__{name}", value)
    monkeypatch.setattr(catalog, "_ENV_CONFIG", Config())


@pytest.fixture
def shown(tmp_path: Path) -> Settings:
    """A world whose lists are shown in the catalogue."""
    made = world_in(tmp_path / "state")
    return dataclasses.replace(
        made, publish=dataclasses.replace(made.publish, iceberg="lake.recjob", retention_dates=2)
    )


def table(name: str) -> Any:
    return catalog.load_catalog("lake").load_table(f"recjob.{name}")


def same(settings: Settings) -> None:
    """Whoever asks the tables gets what the published file says, column by column, and there is nothing older to ask for."""
    with duckdb.connect(str(settings.database), read_only=True) as published, duckdb.connect() as reader:
        for name in (*LISTS, "movies", "runs"):
            reader.register(name, table(name).scan().to_arrow())
            columns = ", ".join(f'"{column[0]}"' for column in published.sql(f"FROM {name} LIMIT 0").description)
            rows = published.sql(f"SELECT {columns} FROM {name} ORDER BY ALL").fetchall()
            assert reader.sql(f"SELECT {columns} FROM {name} ORDER BY ALL").fetchall() == rows
            assert rows
            assert len(table(name).snapshots()) == 1
    assert not iceberg.differ(settings)


def parquet_in(lake: Path) -> set[str]:
    """The tables that have rows of their own in the warehouse."""
    return {path.parts[len(lake.parts) + 1] for path in lake.rglob("*.parquet")}


def test_tables_show_what_readers_see_and_copy_no_list(shown: Settings, lake: Path) -> None:
    for day in DAYS:
        nightly(shown, day)
        same(shown)
    assert parquet_in(lake) == {"movies", "runs"}
    assert set(iceberg.iceberg.Tables("lake.recjob", "all").files()) == {
        (f"file://{partition.path(name)}", partition.run_id)
        for partition in publish.staged(shown)[-2:]
        for name in LISTS
    }
    rows = table("recommendations").scan(row_filter=f"as_of_date = '{LAST}' and user_id = 1").to_arrow()
    assert rows["as_of_date"].unique().to_pylist() == [LAST]
    assert table("recommendations").schema().find_field("rank").doc == "1 = best, without gaps, after all rules."
    assert [f["state"] for f in doctor.examine(shown)["findings"] if f["check"] == "iceberg"] == ["good"]


@pytest.mark.parametrize("mode", ["copy", "attach"])
def test_a_rollback_and_a_prune_are_followed(shown: Settings, mode: Literal["copy", "attach"]) -> None:
    shown = dataclasses.replace(shown, publish=dataclasses.replace(shown.publish, mode=mode, retention_dates=1))
    for day in DAYS[:2]:
        nightly(shown, day)
    with state.held(shown, 0, "rollback"):
        publish.rollback(shown)
    assert list(publish.visible(shown)) == [str(DAYS[0])]
    same(shown)
    prune.by_hand(shown)
    same(shown)
    nightly(shown, DAYS[2])
    same(shown)
    assert iceberg.lost(shown) == []


@pytest.mark.faults("B8.2")
def test_what_the_tables_show_is_there_until_they_show_something_else(
    shown: Settings, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    shown = dataclasses.replace(shown, publish=dataclasses.replace(shown.publish, retention_dates=1, keep_files=1))
    nightly(shown, DAYS[0])
    rows = table("recommendations").scan().to_arrow()
    with monkeypatch.context() as down:
        down.setattr("storage.iceberg.Tables.__init__", _down)
        with pytest.raises(CatalogueFailed, match="what was done here stands"):
            nightly(shown, DAYS[1])
        with pytest.raises(CatalogueFailed):
            prune.by_hand(shown)
    assert table("recommendations").scan().to_arrow() == rows
    prune.by_hand(shown)
    same(shown)
    nightly(shown, DAYS[2])
    assert [one.as_of for one in runs.every(shown.runs)] == DAYS[1:]
    same(shown)


@pytest.mark.faults("B8.2")
@pytest.mark.parametrize("name", ["user_status", "movies"])
def test_a_table_that_was_dropped_is_made_anew(shown: Settings, name: str) -> None:
    nightly(shown, LAST)
    catalog.load_catalog("lake").drop_table(f"recjob.{name}")
    assert iceberg.differ(shown)
    assert nightly(shown, LAST)["status"] == "unchanged"
    same(shown)


def _down(*arguments: Any) -> None:
    raise CatalogueFailed("the catalogue is down")


@pytest.mark.faults("B6.1")
def test_who_is_forgotten_is_in_no_file_of_the_catalogue(shown: Settings, lake: Path) -> None:
    made = world_in(shown.state_dir.parent / "text", small_world(text_ids=True))
    shown = dataclasses.replace(shown, state_dir=made.state_dir, store=made.store)
    for day in DAYS[1:]:
        nightly(shown, day)
    forget.forget(shown, ["id-8"])
    before = set(lake.rglob("*"))
    forget.forget(shown, ["id-7"])
    same(shown)
    assert "id-7" not in table("recommendations").scan().to_arrow()["user_id"].to_pylist()
    assert len(set(lake.rglob("*"))) == len(before)  # what was written for the snapshots before is gone
    for path in filter(Path.is_file, lake.rglob("*")):
        assert b"id-7" not in path.read_bytes(), path


@pytest.mark.faults("B8.3")
def test_a_table_of_somebody_else_is_not_touched(shown: Settings) -> None:
    lake = catalog.load_catalog("lake")
    lake.create_namespace("recjob")
    rows = pa.table({"user_id": [1, 2]})
    lake.create_table("recjob.recommendations", rows.schema).append(rows)
    with pytest.raises(
        CatalogueFailed, match=r"what was done here stands, but lake.recjob.recommendations is a table that"
    ):
        nightly(shown, LAST)
    assert table("recommendations").scan().to_arrow() == rows
    assert list(publish.visible(shown)) == [str(LAST)]


@pytest.mark.faults("B8.3")
def test_a_part_of_the_users_does_not_replace_the_tables_of_another(shown: Settings) -> None:
    nightly(shown, LAST)
    part = dataclasses.replace(
        shown,
        state_dir=shown.state_dir.parent / "part",
        input=dataclasses.replace(shown.input, ratings=str(shown.lake / "ratings"), part="1/2"),
    )
    with pytest.raises(CatalogueFailed, match="is a table of all users, not of 1/2"):
        nightly(part, LAST)
    same(shown)


@pytest.mark.faults("B8.3")
def test_lists_with_other_ids_are_not_mixed_with_those_before(shown: Settings) -> None:
    nightly(shown, LAST)
    text = world_in(shown.state_dir.parent / "text", small_world(text_ids=True))
    text = dataclasses.replace(shown, state_dir=text.state_dir, store=text.store)
    with pytest.raises(CatalogueFailed, match="Cannot change column type") as raised:
        nightly(text, LAST)
    assert "dropped: they are made anew" in raised.value.hint
    same(shown)
    for name in (*LISTS, "movies"):
        catalog.load_catalog("lake").drop_table(f"recjob.{name}")
    nightly(text, LAST)
    same(text)


@pytest.mark.faults("B8.2")
@pytest.mark.no_store("lists that are made again are the same objects, and doctor finds nothing to do")
def test_what_a_killed_run_left_is_completed(shown: Settings, lake: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nightly(shown, DAYS[0])
    for moment in ("_set", "_tidy"):
        with monkeypatch.context() as patch:
            patch.setattr(f"storage.iceberg.{moment}", _killed)
            with pytest.raises(KeyboardInterrupt):
                nightly(shown, DAYS[1], Options(force="again"))
        assert [f["state"] for f in doctor.examine(shown)["findings"] if f["check"] == "iceberg"] == ["warn"]
        nightly(shown, DAYS[1])
        same(shown)


def _killed(*arguments: Any, **named: Any) -> None:
    raise KeyboardInterrupt


@pytest.mark.faults("B8.1")
def test_a_catalogue_that_cannot_be_used_is_told_before_the_night(shown: Settings, lake: Path, tmp_path: Path) -> None:
    for name, match in (("lake", "expected CATALOGUE.NAMESPACE"), ("missing.recjob", "no catalogue 'missing'")):
        wrong = dataclasses.replace(shown, publish=dataclasses.replace(shown.publish, iceberg=name))
        with pytest.raises(InvalidSettings, match=match):
            nightly(wrong, LAST)
    assert publish.visible(shown) == {}


@pytest.mark.faults("B8.1")
def test_a_catalogue_that_is_down_costs_nothing_but_its_tables(shown: Settings, tmp_path: Path) -> None:
    env = environment(shown) | {"RECJOB_PUBLISH_ICEBERG": "lake.recjob"}
    down = env | {"PYICEBERG_CATALOG__LAKE__TYPE": "rest", "PYICEBERG_CATALOG__LAKE__URI": "http://127.0.0.1:9"}
    command = [sys.executable, "-m", "jobs.cli", "nightly", "--date", str(LAST), "--json", "--quiet"]
    done = subprocess.run(command, env=down, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == exits.RESOURCES, done.stderr
    assert json.loads(done.stdout)["error"]["kind"] == "E_CATALOGUE"
    assert list(publish.visible(shown)) == [str(LAST)]
    done = subprocess.run(command, env=env, cwd=tmp_path, capture_output=True, text=True)
    assert document(done)["status"] == "unchanged"
    same(shown)


def test_tables_over_a_copy_name_its_objects(shown: Settings, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    told_of(store.url, monkeypatch)
    url = f"s3://{store.bucket()}/recjob"
    copied = dataclasses.replace(shown, store=configured.Store(url))
    for days in (0, 1, 2):  # on which nothing is new: all lists are the same, and so are the objects
        nightly(copied, LAST + timedelta(days=days))
        same(copied)
    files = iceberg.iceberg.Tables("lake.recjob", "all").files()
    assert all(file.url.startswith(f"{url}/objects/") for file in files)
    assert len({file.url for file in files}) == len(LISTS) < len(files)
    shutil.rmtree(copied.runs)
    with duckdb.connect(str(copied.database), read_only=True) as published:
        rows = published.sql("SELECT count(*) FROM recommendations").fetchall()
    assert [(table("recommendations").scan().to_arrow().num_rows,)] == rows
