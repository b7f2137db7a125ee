"""Lists that are shown where they are staged: what readers see is what they see of a copy, also while files come and go."""

import dataclasses
import json
import os
import re
import shutil
import subprocess
import sys
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
import pytest
import straced
from conftest import LAST, brought_back, copied, document, environment, small_world, world_in
from worlds import DAY, ask, catalogue, publish, staged

from jobs import backfill, doctor, export, forget, mend, prune, query, run
from jobs import publish as publishing
from jobs.nightly import Options, nightly
from jobs.settings import Settings
from storage import answers, forgotten, warehouse
from storage.errors import AuditFailed, Busy, CorruptState, NotFound, QueryRefused

SQL = Path(__file__).parents[1] / "sql"
DAYS = [LAST - timedelta(days=back) for back in (2, 1, 0)]
YESTERDAY = DAY - timedelta(days=1)
VALUES: dict[str, Any] = {
    **{"day": DAY, "every": 1, "low": 0.5, "high": 5.0, "classes": 4, "formula": "^=", "shown": "x"}
}
OBJECTS = (
    "SELECT table_name FROM duckdb_tables() UNION SELECT view_name FROM duckdb_views() WHERE NOT internal ORDER BY 1"
)


def seen(root: Path, user: Any) -> dict[str, Any]:
    """All that a client can see: rows, types and comments of every table and view, and the answers to all of recjob's queries."""
    found: dict[str, Any] = {}
    with duckdb.connect(str(root / "recs.duckdb"), read_only=True) as connection:
        for (name,) in connection.execute(OBJECTS).fetchall():
            columns = "SELECT column_name, data_type, comment FROM duckdb_columns() WHERE table_name = ? ORDER BY column_index"
            rows = connection.execute(f"FROM {name} ORDER BY ALL").fetchall()
            found[name] = rows, connection.execute(columns, [name]).fetchall()
        for path in sorted(path for folder in ("queries", "report", "export") for path in (SQL / folder).glob("*.sql")):
            values = VALUES | {"user": user}
            values = {name: value for name, value in values.items() if re.search(rf"\${name}\b", path.read_text())}
            found[f"{path.parent.name}/{path.name}"] = connection.execute(path.read_text(), values).fetchall()
    assert found.pop("attached_files")[1]
    found.pop("freshness")  # as old as the clock says
    return found


@pytest.mark.parametrize("alike", [(), [(10, 1, 11, 0.5), (11, 1, 10, 0.5)]])
def test_readers_see_what_they_see_of_a_copy(tmp_path: Path, alike: list[tuple[Any, ...]]) -> None:
    lists = [("it's", 1, "b", 0.9, 4.5, "model"), ("it's", 2, "a", 0.8, 4.0, "model")]
    numbers = [staged(tmp_path, "r'1", YESTERDAY), staged(tmp_path, "r2", alike=alike)]
    texts = [
        staged(tmp_path / "text", "r1", lists=lists, status=[("it's", "warm", 3, 2, None)], movies=catalogue("ab"))
    ]
    for root, user, partitions in ((tmp_path, 1, numbers), (tmp_path / "text", "it's", texts)):
        publish(root, "c", partitions)
        copied = seen(root, user)
        size = publish(root, "d", partitions, attach=True).path.stat().st_size
        assert seen(root, user) == copied
        assert size < warehouse.versions(root / "published")[0].stat().st_size
        publish(root, "e", partitions)  # and back
        assert (seen(root, user), warehouse.shows(root / "recs.duckdb")) == (copied, [])


def test_a_lookup_reads_the_newest_file_only(tmp_path: Path) -> None:
    publish(tmp_path, "r2", [staged(tmp_path, "r1", YESTERDAY), staged(tmp_path, "r2")], attach=True)
    ((_, plan),) = ask(tmp_path, "EXPLAIN ANALYZE SELECT * FROM current_recommendations WHERE user_id = 1")
    read = re.findall(r"as_of=([-\d]+)/run=\w+/recommendations\.parquet", plan)
    assert read == [str(DAY)]


@pytest.mark.faults("B1.10")
def test_files_with_other_rows_than_were_staged_are_not_shown(tmp_path: Path) -> None:
    partition = staged(tmp_path, "r1")
    partition.record["rows"]["recommendations"] += 1
    with pytest.raises(AuditFailed, match="holds 4 rows, expected 5"):
        publish(tmp_path, "r1", [partition], attach=True)
    assert os.listdir(tmp_path / "published") == []


@pytest.mark.faults("B5.4")
def test_recjobs_reader_reaches_the_files_that_are_shown_and_no_other(tmp_path: Path) -> None:
    shown, hidden = staged(tmp_path, "r1", YESTERDAY), staged(tmp_path, "r2")
    publish(tmp_path, "r1", [shown], attach=True)
    with warehouse.reader(tmp_path / "recs.duckdb") as connection:
        assert answers.select(connection, "SELECT count(*) FROM recommendations", 9, 5)[1] == [(4,)]
        for path in (hidden.path("recommendations"), shown.path("movies"), shown.folder / "run.json", "/etc/passwd"):
            for function in ("read_parquet", "read_text", "glob"):
                with pytest.raises(QueryRefused):
                    answers.select(connection, f"SELECT * FROM {function}('{path}')", 9, 5)
        for statement in ("SET enable_external_access = true", f"SET allowed_paths = ['{hidden.path('movies')}']"):
            with pytest.raises(duckdb.Error):
                connection.execute(statement)


def test_a_state_folder_that_is_elsewhere_is_found_there(tmp_path: Path) -> None:
    first, second = tmp_path / "a [b]", tmp_path / "it's"
    publish(first, "r1", [staged(first, "r1")], attach=True)
    first.rename(second)
    with warehouse.reader(second / "recs.duckdb") as connection:
        assert connection.execute("SELECT count(*) FROM recommendations").fetchall() == [(4,)]
    with duckdb.connect(str(second / "recs.duckdb"), read_only=True) as connection:
        with pytest.raises(
            duckdb.IOException, match=re.escape(f"{first}/runs/as_of={DAY}/run=r1/recommendations.parquet")
        ):
            connection.execute("FROM recommendations")
        connection.execute("SET VARIABLE recjob_state = ?", [str(second)])
        assert connection.execute("SELECT count(*) FROM current_recommendations").fetchall() == [(4,)]


def test_partitions_may_be_on_another_disk(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "runs").symlink_to("disk")
    publish(tmp_path, "r1", [staged(tmp_path, "r1")], attach=True)
    assert ask(tmp_path, "SELECT count(*) FROM recommendations") == [(4,)]
    with warehouse.reader(tmp_path / "recs.duckdb") as connection:
        assert connection.execute("SELECT count(*) FROM recommendations").fetchall() == [(4,)]


@pytest.mark.faults("B1.11")
@pytest.mark.parametrize("table", ["recommendations", "user_status"])
@pytest.mark.parametrize("damage", ["missing", "empty", "cut", "flipped"])
def test_parquet_that_is_missing_or_damaged_is_named(tmp_path: Path, damage: str, table: str) -> None:
    partition = staged(tmp_path, "r1")
    publish(tmp_path, "r1", [partition], attach=True)
    path = partition.path(table)
    content = path.read_bytes()
    path.unlink()
    if damage != "missing":
        flipped = content[:50] + bytes(255 - byte for byte in content[50:400]) + content[400:]
        path.write_bytes({"empty": b"", "cut": content[:-9], "flipped": flipped}[damage])
    for ask_it in (
        lambda connection: answers.select(connection, f"FROM {table}", 10, 5),
        lambda connection: connection.execute(f"FROM {table}").fetchall(),
    ):
        with (
            pytest.raises(CorruptState, match=rf"shows .*/run=r1/{table}\.parquet, which is missing or was changed"),
            warehouse.reader(tmp_path / "recs.duckdb") as connection,
        ):
            ask_it(connection)
    with pytest.raises(CorruptState):
        warehouse.check(tmp_path / "recs.duckdb")


def test_a_reader_whose_lists_are_replaced_is_told_to_ask_again(tmp_path: Path) -> None:
    old, link = staged(tmp_path, "r1"), tmp_path / "recs.duckdb"
    publish(tmp_path, "r1", [old], attach=True)
    with pytest.raises(Busy, match="replaced while they were read"), warehouse.reader(link) as connection:
        publish(tmp_path, "r2", [staged(tmp_path, "r2")], attach=True)
        shutil.rmtree(old.folder)
        connection.execute("FROM recommendations")
    with warehouse.reader(link) as connection:
        assert connection.execute("SELECT count(*) FROM recommendations").fetchall() == [(4,)]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """Three nights, of which the first was published as a copy."""
    world = small_world(text_ids=True)
    settings = world_in(tmp_path_factory.mktemp("made") / "state", world)
    nightly(settings, DAYS[0])
    settings = attaching(settings)
    for day in DAYS[1:]:
        nightly(settings, day)
    return settings


def attaching(settings: Settings, **changes: Any) -> Settings:
    return dataclasses.replace(settings, publish=dataclasses.replace(settings.publish, mode="attach", **changes))


@pytest.fixture
def settings(made: Settings, tmp_path: Path) -> Settings:
    """A copy of the three nights that a test may spoil, brought to where it is by a night."""
    return copied(made, tmp_path / "state")


def recjob(settings: Settings, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "jobs.cli", *arguments]
    return subprocess.run(command, env=environment(settings), capture_output=True, text=True)


def lists(settings: Settings) -> list[tuple[Any, ...]]:
    with warehouse.reader(settings.database) as connection:
        return connection.execute("SELECT * EXCLUDE run_id FROM recommendations ORDER BY ALL").fetchall()


def dates(settings: Settings) -> list[date]:
    return sorted({row[0] for row in lists(settings)})


def test_nights_may_change_the_mode_and_every_command_reads_either(made: Settings, tmp_path: Path) -> None:
    assert [bool(warehouse.shows(path)) for path in warehouse.versions(made.published)] == [False, True, True]
    assert dates(made) == DAYS
    assert query.status(made, 1e6)["damaged"] is None
    assert len(query.recommend(made, "id-7", 5)["recommendations"]) == 5
    assert export.export(made, tmp_path / "lists.csv")["rows"] == 41 * 5
    assert {found["check"]: found["state"] for found in doctor.examine(made)["findings"]}["published"] == "good"
    assert nightly(made, LAST)["status"] == "unchanged"


@pytest.mark.faults("B1.15", "B6.5")
def test_what_a_kept_file_shows_is_kept_and_can_be_rolled_back_to(settings: Settings) -> None:
    nightly(settings, LAST)  # at its new place
    lower = attaching(settings, retention_dates=1, keep_files=2)
    nightly(lower, LAST, Options(force="a second run of the date, and older dates go"))
    assert dates(lower) == [LAST]
    assert len(list(lower.runs.glob("*/*"))) == 4  # the file before shows three dates, this one a second run
    publishing.rollback(lower)
    assert dates(lower) == DAYS
    publishing.rollback(lower, to=warehouse.run_id_of(warehouse.versions(lower.published)[-1]))
    prune.by_hand(attaching(lower, keep_files=1))
    assert len(list(lower.runs.glob("*/*"))) == 1
    assert dates(lower) == [LAST]


@pytest.mark.faults("B1.11")
@pytest.mark.parametrize("day", [DAYS[1], DAYS[2]])
@brought_back
def test_damaged_lists_are_told_and_repaired_by_the_next_night(
    settings: Settings, day: date, caplog: pytest.LogCaptureFixture
) -> None:
    nightly(settings, LAST)
    whole = lists(settings)
    (path,) = settings.runs.glob(f"as_of={day}/*/recommendations.parquet")
    content = path.read_bytes()
    path.write_bytes(content[:-100] + bytes(100))
    for command in (["status"], ["query", "FROM recommendations"]):
        done = recjob(settings, *command, "--json")
        assert done.returncode == 7, (command, done.stderr)
        assert str(path) in done.stdout
    assert recjob(settings, "doctor").returncode == 7
    caplog.clear()
    if day != LAST:  # all files show it: readers have the other dates at once, not first when a night has scored
        assert mend.mend(settings)
        assert dates(settings) == [DAYS[0], LAST]
        assert backfill.wanted(settings, DAYS[0], LAST, "missing") == [day]
    assert nightly(settings, day)["status"] == "published"
    told = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert told[:2] == ["lists.damaged", "published.damaged"]
    assert lists(settings) == whole
    assert len(list(settings.runs.glob("*.aside-*"))) == 1
    forget.forget(settings, ["id-7"])
    assert list(settings.runs.glob("*.aside-*")) == []


@pytest.mark.faults("B1.11")
def test_a_list_is_shown_though_a_file_of_another_table_is_gone_and_its_date_can_be_made_again(
    settings: Settings, tmp_path: Path
) -> None:
    nightly(settings, LAST)
    whole, (day, *_) = lists(settings), DAYS
    (gone,) = settings.runs.glob(f"as_of={day}/*/similar_movies.parquet")
    gone.unlink()
    assert len(query.recommend(settings, "id-7", 5)["recommendations"]) == 5
    assert export.export(settings, tmp_path / "lists.csv")["rows"] == 41 * 5
    for ask_it in (lambda: query.query(settings, "FROM similar_movies"), lambda: publishing.rollback(settings)):
        with pytest.raises(CorruptState, match=rf"as_of={day}/.*/similar_movies\.parquet") as told:
            ask_it()
        assert f"recjob backfill --from {day} --to {day} --only all" in told.value.hint
    assert backfill.backfill(settings, day, day, "all")["failed"] == 0
    assert query.query(settings, "SELECT DISTINCT as_of_date FROM similar_movies ORDER BY ALL")["rows"] == [
        [str(one)] for one in DAYS
    ]
    assert lists(settings) == whole


@pytest.mark.faults("B1.18")
@pytest.mark.parametrize("content", [None, b'{"as_of_date": "2026-03-0'])
@brought_back
def test_a_lost_record_of_what_is_shown_is_told_and_written_anew_and_nothing_goes(
    settings: Settings, content: bytes | None, caplog: pytest.LogCaptureFixture
) -> None:
    nightly(settings, LAST)
    whole, day = lists(settings), DAYS[1]
    files = sorted(settings.runs.rglob("*.parquet"))
    (path,) = settings.runs.glob(f"as_of={day}/*/run.json")
    before = json.loads(path.read_bytes())
    path.unlink()
    if content is not None:
        path.write_bytes(content)
    if content is None:
        prune.by_hand(settings)
    assert sorted(settings.runs.rglob("*.parquet")) == files
    told = query.status(settings)
    damaged = told["damaged"]
    assert damaged is not None
    assert told["dates"] == 3, "which readers see"
    assert str(path.parent) in damaged["why"]
    assert f"recjob backfill --from {day} --to {day} --only all" in damaged["hint"]
    assert {found["check"]: found["state"] for found in doctor.examine(settings)["findings"]}["published"] == "bad"
    assert nightly(settings, LAST)["status"] == "unchanged"
    assert [record.getMessage() for record in caplog.records if record.levelname == "WARNING"] == ["lists.restored"]
    after = json.loads(path.read_bytes())
    assert (after.keys(), after["files"], after["rows"]) == (before.keys(), before["files"], before["rows"])
    for instant in ("created_at", "trained_through"):
        assert datetime.fromisoformat(after["model"].pop(instant)) == datetime.fromisoformat(
            before["model"].pop(instant)
        )
    assert after["model"].items() >= before["model"].items()
    assert query.status(settings)["damaged"] is None
    assert nightly(settings, LAST, Options(force="a new file"))["status"] == "published"
    assert lists(settings) == whole


@pytest.mark.faults("B1.18")
def test_a_date_that_is_gone_is_told_with_what_makes_it_again_and_is_missing_until_then(
    settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    nightly(settings, LAST)
    whole, day = lists(settings), DAYS[1]
    shutil.rmtree(settings.runs / f"as_of={day}")
    assert backfill.wanted(settings, DAYS[0], LAST, "missing") == [day]
    assert nightly(settings, LAST)["status"] == "published"
    (told,) = (record for record in caplog.records if record.getMessage() == "publish.lost")
    assert told.as_of == str(day)  # type: ignore[attr-defined]
    assert f"recjob backfill --from {day} --to {day} makes" in told.why  # type: ignore[attr-defined]
    assert dates(settings) == [DAYS[0], LAST]
    lower = attaching(settings, retention_dates=1)
    assert backfill.wanted(lower, DAYS[0], LAST, "missing") == []
    assert [one["as_of_date"] for one in backfill.backfill(settings, DAYS[0], LAST)["dates"]] == [str(day)]
    assert lists(settings) == whole


@pytest.mark.slow
@pytest.mark.faults("B6.1", "B1.18")
@brought_back
def test_forget_gets_through_damaged_lists_and_their_date_can_be_made_again(settings: Settings) -> None:
    nightly(settings, LAST)
    whole, day = [row for row in lists(settings) if row[1] != "id-7"], DAYS[1]
    (path,) = settings.runs.glob(f"as_of={day}/*/recommendations.parquet")
    os.truncate(path, 100)
    forgotten.save(settings.state_dir, forgotten.load(settings.state_dir).adding(["id-7"]))  # as a killed one leaves it
    assert nightly(settings, LAST)["status"] == "published"
    assert not path.parent.exists()
    assert not forgotten.load(settings.state_dir).pending
    assert [record["status"] for record in run.records(settings.journal, settings.lock)][1] == "failed"
    assert backfill.backfill(settings, DAYS[0], LAST)["dates"][0]["as_of_date"] == str(day)
    assert dates(settings) == DAYS
    assert {row[:2] for row in lists(settings)} == {row[:2] for row in whole}
    assert not [*settings.runs.glob("*.aside-*"), *settings.published.glob("*.aside-*")]


@pytest.mark.slow
@straced.needed
@pytest.mark.faults("B6.3", "B1.1")
def test_forget_killed_at_any_step_leaves_lists_that_can_be_read(settings: Settings, tmp_path: Path) -> None:
    nightly(settings, LAST)
    before, left = lists(settings), []
    # one date is rewritten; the link is not flipped yet; it is, and of the old lists half are removed
    for name, number in (("rename", 7), ("rename", 19), ("unlink", 24)):
        copy = copied(settings, tmp_path / f"{name}-{number}")
        inject = ["-e", f"trace={name}", "-e", f"inject={name}:signal=KILL:when={number}"]
        done = straced.recjob(inject, ["forget", "--user", "id-7"], environment(copy), tmp_path / "log")
        assert done.returncode == -9, done.stderr
        left.append(len(lists(copy)))
        warehouse.check(copy.database)
    assert left == sorted(left, reverse=True)
    assert set(left) == {len(before), len(before) - 3 * 5}
    assert recjob(copy, "forget", "--user", "id-7").returncode == 0
    with pytest.raises(NotFound):
        query.recommend(copy, "id-7", 5)
    assert len(list(copy.runs.glob("*/*/*.parquet"))) == 3 * 4


@pytest.mark.faults("B6.1", "B1.3")
def test_a_reader_from_before_a_forget_has_an_error_and_never_half_a_list(settings: Settings) -> None:
    nightly(settings, LAST)
    with duckdb.connect(str(settings.database.resolve()), read_only=True) as old:
        assert old.execute("SELECT count(*) FROM current_recommendations WHERE user_id = 'id-7'").fetchall() == [(5,)]
        assert recjob(settings, "forget", "--user", "id-7").returncode == 0
        with pytest.raises(duckdb.IOException, match=r"recommendations\.parquet"):
            old.execute("SELECT count(*) FROM current_recommendations WHERE user_id = 'id-7'")
    with duckdb.connect(str(settings.database), read_only=True) as new:
        assert new.execute("SELECT count(*) FROM recommendations").fetchall() == [(3 * 40 * 5,)]
    assert document(recjob(settings, "status", "--json"))["damaged"] is None
