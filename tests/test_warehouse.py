"""The published file: audited, flipped in under readers, and readable by anybody."""

import json
import os
import random
import signal
import stat
import subprocess
import sys
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pytest
from worlds import DAY, GOOD, STATUS, ask, catalogue, publish, rows_of, staged

from storage import answers, atomic, audit, lists, mending, warehouse
from storage.errors import AuditFailed, CorruptState, NotFound, QueryRefused

YESTERDAY = DAY - timedelta(days=1)


def rollback(root: Path, link: Path, to: str | None = None) -> tuple[str, str]:
    """Flip back, as the job does; returns the runs."""
    now, target = mending.earlier(root, link, to)
    atomic.flip(link, target)
    return warehouse.run_id_of(now), warehouse.run_id_of(target)


@pytest.fixture(scope="module", params=["copy", "attach"])
def shown(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Path:
    """A published world that tests only read, its lists in the file or shown from where they are staged."""
    root = tmp_path_factory.mktemp("shown")
    publish(root, "r1", [staged(root, "r1")], attach=request.param == "attach")
    return root


def test_any_duckdb_client_reads_what_was_published(tmp_path: Path) -> None:
    assert publish(tmp_path, "r1", [staged(tmp_path, "r1")]).rows == 4
    assert ask(tmp_path, "SELECT title FROM current_recommendations WHERE user_id = 1 ORDER BY rank") == [
        ("Movie 10",),
        ("Movie 11",),
    ]
    assert ask(
        tmp_path, "SELECT len(movies), movies[1].movie_id FROM current_recommendation_lists WHERE user_id = 2"
    ) == [(2, 11)]
    assert [path.name for path in (tmp_path / "published").iterdir()] == ["recommendations-r1.duckdb"]


BROKEN: dict[str, dict[str, Any]] = {
    "rank_gaps": {"lists": [(1, 1, 10, 0.9, 4.5, "model"), (1, 3, 11, 0.8, 4.0, "model"), *GOOD[2:]]},
    "repeated_movies": {"lists": [(1, 1, 10, 0.9, 4.5, "model"), (1, 2, 10, 0.8, 4.0, "model"), *GOOD[2:]]},
    "rank_against_score": {"lists": [(1, 1, 10, 0.8, 4.5, "model"), (1, 2, 11, 0.9, 4.0, "model"), *GOOD[2:]]},
    "unexplained_short_lists": {"lists": GOOD[:3]},
    "lists_without_status": {"status": STATUS[:1]},
    "unknown_movies": {"movies": catalogue([10])},
    "unusable_values": {"lists": [(1, 1, 10, 0.9, float("nan"), "model"), *GOOD[1:]]},
    "similar_movies": {"alike": [(10, 1, 10, 0.9)]},
}
BROKEN_OTHERWISE = [
    ("rank_gaps", {"lists": [(1, 1, 10, 0.9, 4.5, "model"), (1, 1, 11, 0.9, 4.0, "model"), *GOOD[2:]]}),
    ("rank_gaps", {"lists": [(1, 2, 10, 0.9, 4.5, "model"), (1, 3, 11, 0.8, 4.0, "model"), *GOOD[2:]]}),
    ("lists_without_status", {"status": [*STATUS, STATUS[0]]}),
    ("unexplained_short_lists", {"status": [*STATUS, (3, "cold", 0, 1, "catalogue_exhausted")]}),
    ("unexplained_short_lists", {"status": [*STATUS, (3, "cold", 0, 0, None)]}),
    ("unexplained_short_lists", {"status": [STATUS[0], (2, "cold", 0, 2, "catalogue_exhausted")]}),
    (
        "unexplained_short_lists",
        {"lists": [(1, 3, 12, 0.1, 1.0, "model"), *GOOD], "status": [(1, "warm", 3, 3, None), STATUS[1]]},
    ),
    ("unknown_movies", {"movies": catalogue([10, 11], unavailable=[11])}),
    ("unusable_values", {"lists": [(1, 1, 10, float("inf"), 4.5, "model"), *GOOD[1:]]}),
    ("unusable_values", {"lists": [(1, 1, 10, 0.9, 4.5, "guess"), *GOOD[1:]]}),
    ("unusable_values", {"lists": [(1, 0, 10, 0.9, 4.5, "model"), *GOOD[1:]]}),
    ("unusable_values", {"status": [(1, "lukewarm", 3, 2, None), STATUS[1]]}),
    ("rank_gaps", {"lists": [GOOD[0], *GOOD[2:], GOOD[1]]}),  # a list in two pieces
    ("rank_gaps", {"lists": [*GOOD[2:], *GOOD[:2]]}),  # users not in order
    ("repeated_movies", {"lists": [*GOOD[:3], (2, 2, 11, 0.7, 3.0, "cold_user")]}),
    ("unusable_values", {"lists": [(*GOOD[0], "a whim"), *GOOD[1:]]}),
    (
        "rank_against_score",
        {"lists": [(1, 1, 10, 0.5, 4, "model"), (1, 2, 12, 0.1, 4, "pinned"), (1, 3, 11, 0.8, 4, "model"), *GOOD[2:]]},
    ),
    ("similar_movies", {"alike": [(10, 1, 12, 0.9)]}),  # not in the catalogue
    ("similar_movies", {"alike": [(10, 2, 11, 0.9)]}),
    ("similar_movies", {"alike": [(10, 1, 11, float("nan"))]}),
    ("similar_movies", {"alike": [(10, 1, 11, 0.9), (10, 2, 11, 0.8)]}),
    ("similar_movies", {"alike": [(11, 1, 10, 0.9), (10, 1, 11, 0.9)]}),
    (
        "similar_movies",
        {"alike": [(10, 1, 11, 0.8), (10, 2, 12, 0.9)], "movies": catalogue([10, 11, 12])},
    ),
]


@pytest.mark.parametrize(("rule", "world"), [*BROKEN.items(), *BROKEN_OTHERWISE])
@pytest.mark.faults("B1.10")
def test_an_audit_rule_that_is_broken_stops_the_flip(tmp_path: Path, rule: str, world: dict[str, Any]) -> None:
    publish(tmp_path, "r1", [staged(tmp_path, "r1")])
    broken = staged(tmp_path, "r2", **world)
    for attach in (False, True):
        with pytest.raises(AuditFailed, match=rule):
            publish(tmp_path, "r2", [broken], attach=attach)
    assert ask(tmp_path, "SELECT DISTINCT run_id FROM recommendations") == [("r1",)]
    assert len(list((tmp_path / "published").iterdir())) == 1


@pytest.mark.parametrize("at_once", [1, 2, 3, 5, 100])
@pytest.mark.faults("B1.10")
def test_a_repeated_movie_is_found_wherever_the_rows_are_cut(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at_once: int
) -> None:
    """Lists of three lengths; the movie that stands twice, first in none, then in each of them."""
    monkeypatch.setattr(audit, "_BATCH", at_once)
    lists = {1: ["a"], 2: ["a", "b"], 3: ["b", "a"], 4: ["a", "b", "c", "d"], 5: ["c", "a"]}
    for twice in (None, 2, 3, 4, 5):
        movies = {user: list(listed) for user, listed in lists.items()}
        if twice:
            movies[twice][-1] = movies[twice][0]
        rows = [(f"{u}", r, m, 0.5, 4.0, "model") for u, listed in movies.items() for r, m in enumerate(listed, 1)]
        status = [(f"{u}", "warm", 1, len(listed), "catalogue_exhausted") for u, listed in movies.items()]
        partition = staged(tmp_path, f"r{twice}", lists=rows, status=status, movies=catalogue("abcd"))
        small = rows_of([partition])
        small["runs"][0]["top_n"] = 5
        if twice:
            with pytest.raises(AuditFailed, match=r"repeated_movies \(1 rows\)"):
                publish(tmp_path, f"r{twice}", [partition], small)
        else:
            assert publish(tmp_path, "rNone", [partition], small).rows == len(rows)


@pytest.mark.parametrize("missing", ["models", "run_inputs", "runs"])
def test_a_row_without_lineage_stops_the_flip(tmp_path: Path, missing: str) -> None:
    partition = staged(tmp_path, "r1")
    with pytest.raises(AuditFailed, match="lineage"):
        publish(tmp_path, "r1", [partition], rows_of([partition]) | {missing: []})
    assert not (tmp_path / "recs.duckdb").exists()


def test_a_run_that_is_not_called_published_stops_the_flip(tmp_path: Path) -> None:
    partition = staged(tmp_path, "r1")
    rows = rows_of([partition])
    with pytest.raises(AuditFailed, match="lineage"):
        publish(tmp_path, "r1", [partition], rows | {"runs": [rows["runs"][0] | {"status": "crashed"}]})


def test_a_short_list_with_a_reason_is_fine(tmp_path: Path) -> None:
    status = [STATUS[0], (2, "cold", 0, 1, "catalogue_exhausted"), (3, "cold", 0, 0, "catalogue_exhausted")]
    assert publish(tmp_path, "r1", [staged(tmp_path, "r1", lists=GOOD[:3], status=status)]).rows == 3


def test_rows_that_a_rule_placed_or_moved_back_need_not_follow_their_scores(tmp_path: Path) -> None:
    lists = [
        (1, 1, 12, 0.1, 4.0, "pinned"), (1, 2, 10, 0.5, 4.0, "model"), (1, 3, 11, 0.9, 4.0, "model", "genre_cap"),
        (2, 1, 10, 0.3, 4.0, "model"), (2, 2, 11, 0.6, 4.0, "new_movie"), (2, 3, 12, 0.2, 4.0, "model"),
    ]  # fmt: skip
    status = [(1, "warm", 3, 3, None), (2, "warm", 3, 3, None)]
    partition = staged(tmp_path, "r1", lists=lists, status=status, movies=catalogue([10, 11, 12]))
    small = rows_of([partition])
    small["runs"][0]["top_n"] = 3
    assert publish(tmp_path, "r1", [partition], small).rows == 6


def test_a_movie_that_is_gone_today_may_stand_in_the_lists_of_yesterday(tmp_path: Path) -> None:
    first = staged(tmp_path, "r1", YESTERDAY, movies=catalogue([10, 11, 12], title="Old"))
    today = staged(
        tmp_path,
        "r2",
        lists=[GOOD[0]],
        status=[(1, "warm", 3, 1, "catalogue_exhausted")],
        movies=catalogue([10, 11], unavailable=[11], title="New"),
    )
    publish(tmp_path, "r2", [first, today])
    assert ask(tmp_path, "SELECT movie_id, title, available FROM movies ORDER BY movie_id") == [
        (10, "New 10", True), (11, "New 11", False), (12, "Old 12", True),
    ]  # fmt: skip


@pytest.mark.parametrize("score", [float("nan"), float("inf")])
@pytest.mark.faults("B3.4")
def test_a_score_that_is_not_finite_cannot_be_stored(tmp_path: Path, score: float) -> None:
    with pytest.raises(AuditFailed, match="unusable_values"):
        publish(tmp_path, "r1", [staged(tmp_path, "r1", lists=[(1, 1, 10, score, 4.5, "model"), *GOOD[1:]])])
    assert not (tmp_path / "recs.duckdb").exists()


def test_every_rule_in_the_folder_has_a_test() -> None:
    rules = {path.stem for path in (Path(__file__).parents[1] / "sql" / "audit").glob("*.sql")}
    assert rules == {*BROKEN, "lineage"}


@pytest.mark.faults("B1.3")
def test_an_open_connection_keeps_its_rows_and_a_new_one_sees_the_new(tmp_path: Path) -> None:
    first = staged(tmp_path, "r1", YESTERDAY)
    publish(tmp_path, "r1", [first])
    with duckdb.connect(str(tmp_path / "recs.duckdb"), read_only=True) as held:
        publish(tmp_path, "r2", [first, staged(tmp_path, "r2")])
        assert held.execute("SELECT count(*) FROM recommendations").fetchall() == [(4,)]
        assert ask(tmp_path, "SELECT count(*) FROM recommendations") == [(8,)]
    changes = ask(tmp_path, "SELECT change, count(*) FROM recommendation_changes GROUP BY ALL")
    assert changes == [("same", 4)]


@pytest.mark.slow
@pytest.mark.faults("B1.2")
def test_readers_never_fail_nor_see_half_a_publication(tmp_path: Path) -> None:
    publish(tmp_path, "r00", [staged(tmp_path, "r00")])
    script = (
        "import duckdb, json, sys, time\nreads, mixed, end = 0, 0, time.time() + 8\n"
        "while time.time() < end or reads < 6:\n"
        f"    with duckdb.connect({str(tmp_path / 'recs.duckdb')!r}, read_only=True) as c:\n"
        "        low, high, n = c.execute('SELECT min(run_id), max(run_id), count(*) FROM recommendations').fetchall()[0]\n"
        "        reads += 1; mixed += low != high or n != 4\n"
        "print(json.dumps([reads, mixed]))"
    )
    readers = [subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) for _ in range(2)]
    published = 0
    while any(reader.poll() is None for reader in readers):
        published += 1
        publish(tmp_path, f"r{published:02}", [staged(tmp_path, f"r{published:02}")])
    for reader in readers:
        reads, mixed = json.loads(reader.communicate()[0])
        assert (reader.returncode, mixed) == (0, 0)
        assert reads > 5
    assert published > 5


def test_the_run_of_a_row_is_found_and_ordered_as_text(tmp_path: Path) -> None:
    """Run ids that sort otherwise than their dates, one with a quote in it."""
    partitions = [staged(tmp_path, "r'2", YESTERDAY), staged(tmp_path, "r1")]
    publish(tmp_path, "r3", partitions)
    assert ask(tmp_path, "SELECT min(run_id), max(run_id) FROM recommendations") == [("r'2", "r1")]
    assert ask(tmp_path, "SELECT count(*) FROM recommendations WHERE run_id > 'r''2'") == [(4,)]
    assert ask(tmp_path, "SELECT count(*) FROM user_status WHERE run_id IN ('r1', 'no run')") == [(2,)]
    assert ask(tmp_path, "SELECT count(*) FROM recommendations JOIN runs USING (run_id, as_of_date)") == [(8,)]


def test_everything_published_says_what_it_is(shown: Path) -> None:
    assert not ask(shown, "SELECT table_name FROM duckdb_tables() WHERE comment IS NULL AND NOT internal")
    assert not ask(shown, "SELECT view_name FROM duckdb_views() WHERE comment IS NULL AND NOT internal")
    tables = "SELECT table_name FROM duckdb_tables() WHERE NOT internal"
    assert not ask(
        shown,
        f"SELECT table_name, column_name FROM duckdb_columns() WHERE comment IS NULL AND table_name IN ({tables})",
    )


def test_clients_from_duckdb_1_5_on_can_read_the_file(shown: Path) -> None:
    (tags,) = ask(shown, "SELECT tags FROM duckdb_databases() WHERE NOT internal")
    assert "v1.5" in str(tags)


@pytest.mark.faults("B1.15")
def test_rollback_goes_back_and_no_further_than_there_is(tmp_path: Path) -> None:
    link, root = tmp_path / "recs.duckdb", tmp_path / "published"
    for run_id in ("r1", "r2"):
        publish(tmp_path, run_id, [staged(tmp_path, run_id)])
    assert rollback(root, link) == ("r2", "r1")
    assert ask(tmp_path, "SELECT DISTINCT run_id FROM recommendations") == [("r1",)]
    with pytest.raises(NotFound):
        rollback(root, link)


@pytest.mark.parametrize(
    "statement",
    ["DROP TABLE runs", "SELECT 1; SELECT 2", "COPY runs TO 'x'", "ATTACH 'x' AS y", "INSTALL httpfs", "SET threads = 1",
     "SELECT * FROM read_text('/etc/passwd')", "SELECT * FROM 'x.parquet'", "PRAGMA database_list; SELECT 1", "", "SELEC 1",
     "CREATE TABLE x (a INT)", "CHECKPOINT", "CALL pragma_version()", "EXPORT DATABASE 'x'", "LOAD httpfs", "RESET threads",
     "WITH gone AS (DELETE FROM runs RETURNING *) SELECT * FROM gone", "EXPLAIN SELECT 1", "SELECT * FROM read_csv('x')",
     "SELECT * FROM glob('/*')", "SELECT * FROM read_parquet('https://example.org/x.parquet')"],
)  # fmt: skip
@pytest.mark.faults("B5.4")
def test_the_reader_takes_one_select_and_nothing_else(shown: Path, statement: str) -> None:
    with warehouse.reader(shown / "recs.duckdb") as connection, pytest.raises(QueryRefused):
        answers.select(connection, statement, 100, 5)


@pytest.mark.faults("B5.5")
def test_a_query_ends_at_its_limits(shown: Path) -> None:
    with warehouse.reader(shown / "recs.duckdb") as connection:
        with pytest.raises(QueryRefused, match="more than 10 rows"):
            answers.select(connection, "SELECT * FROM range(11)", 10, 5)
        with pytest.raises(QueryRefused, match="longer than 0.3 s"):
            answers.select(
                connection, "SELECT sum(sqrt(a.range * b.range)) FROM range(1000000) a, range(1000000) b", 10, 0.3
            )
        assert answers.select(connection, "SELECT 7 AS seven", 10, 5) == (["seven"], [(7,)])


@pytest.mark.parametrize("statement", ["FROM freshness", "SHOW TABLES;", "WITH a AS (SELECT 1) FROM a", "VALUES (1)"])
def test_the_reader_takes_a_select_in_any_of_its_forms(shown: Path, statement: str) -> None:
    with warehouse.reader(shown / "recs.duckdb") as connection:
        columns, rows = answers.select(connection, statement, 100, 5)
    assert rows
    assert len(columns) == len(rows[0])


@pytest.mark.parametrize(
    "statement",
    ["SET threads = 1", "SET lock_configuration = false", "SET enable_external_access = true", "ATTACH '/tmp/x.duckdb' AS x",
     "SELECT * FROM read_text('/etc/passwd')", "COPY runs TO '/tmp/x.csv'", "INSTALL httpfs", "DELETE FROM runs"],
)  # fmt: skip
@pytest.mark.faults("B5.4")
def test_a_reader_cannot_open_itself_up(shown: Path, statement: str) -> None:
    with warehouse.reader(shown / "recs.duckdb") as connection, pytest.raises(duckdb.Error):
        connection.execute(statement).fetchall()


def test_two_readers_in_one_process_do_not_disturb_each_other(shown: Path) -> None:
    link = shown / "recs.duckdb"
    with warehouse.reader(link) as one:
        with warehouse.reader(link) as other:
            assert answers.select(other, "SELECT 1", 1, 5)[1] == [(1,)]
        assert answers.select(one, "SELECT 2", 1, 5)[1] == [(2,)]


def test_before_the_first_publication_there_is_nothing_to_read(tmp_path: Path) -> None:
    link = tmp_path / "recs.duckdb"
    for look in (lambda: warehouse.reader(link).__enter__(), lambda: rollback(tmp_path / "published", link)):
        with pytest.raises(NotFound, match="nothing has been published yet"):
            look()
    assert warehouse.current(link) is None
    assert warehouse.versions(tmp_path / "published") == []


@pytest.mark.parametrize("content", [b"", b"no database"])
@pytest.mark.faults("B1.11")
def test_a_published_file_that_is_no_database_is_named(tmp_path: Path, content: bytes) -> None:
    file = publish(tmp_path, "r1", [staged(tmp_path, "r1")]).path
    file.unlink()
    file.write_bytes(content)
    with pytest.raises(CorruptState, match=r"recommendations-r1\.duckdb cannot be opened"):
        warehouse.reader(tmp_path / "recs.duckdb").__enter__()


@pytest.mark.parametrize("damage", ["cut", "flipped"])
@pytest.mark.faults("B1.11")
def test_damage_that_shows_only_when_a_table_is_read_is_named(tmp_path: Path, damage: str) -> None:
    file = publish(tmp_path, "r1", [staged(tmp_path, "r1")]).path
    content = bytearray(file.read_bytes())
    if damage == "cut":
        del content[len(content) // 3 :]
    else:
        content[600_000:1_300_000:9000] = bytes(255 - byte for byte in content[600_000:1_300_000:9000])
    file.unlink()
    file.write_bytes(content)
    for ask_it in (
        lambda connection: answers.select(connection, "SELECT * FROM recommendations", 10, 5),
        lambda connection: connection.execute("SELECT * FROM recommendations").fetchall(),
    ):
        with (
            pytest.raises(CorruptState, match=r"recommendations-r1\.duckdb (is damaged|cannot be opened)"),
            warehouse.reader(tmp_path / "recs.duckdb") as connection,
        ):
            ask_it(connection)


@pytest.mark.parametrize("table", ["recommendations", "user_status", "movies"])
@pytest.mark.faults("B1.11")
def test_a_partition_that_was_damaged_is_not_published(tmp_path: Path, table: str) -> None:
    first, second = staged(tmp_path, "r1", YESTERDAY), staged(tmp_path, "r2")
    publish(tmp_path, "r1", [first])
    path = first.path(table)
    content = path.read_bytes()
    for damaged in (content[:60] + bytes([content[60] ^ 4]) + content[61:], content[:-9], b""):
        path.write_bytes(damaged)
        with pytest.raises(CorruptState, match=rf"run=r1/{table}\.parquet"):
            publish(tmp_path, "r2", [first, second])
    assert ask(tmp_path, "SELECT DISTINCT run_id FROM recommendations") == [("r1",)]


def test_the_type_of_ids_in_a_damaged_partition_is_an_error_of_the_state(tmp_path: Path) -> None:
    partition = staged(tmp_path, "r1")
    partition.path("recommendations").write_bytes(b"PAR1")
    with pytest.raises(CorruptState, match="recommendations"):
        warehouse.id_types(partition)


@pytest.mark.faults("B1.10")
def test_a_file_with_other_rows_than_were_staged_is_not_published(tmp_path: Path) -> None:
    partition = staged(tmp_path, "r1")
    partition.record["rows"]["recommendations"] += 1
    with pytest.raises(AuditFailed, match="holds 4 rows, expected 5"):
        publish(tmp_path, "r1", [partition])
    assert os.listdir(tmp_path / "published") == []


def test_ids_that_are_text_are_published_as_text(tmp_path: Path) -> None:
    lists = [("007", 1, "b'1", 0.9, 4.5, "model"), ("7", 1, "a", 0.9, 4.5, "model")]
    status = [(user, "warm", 1, 1, "catalogue_exhausted") for user in ("007", "7")]
    publish(tmp_path, "r1", [staged(tmp_path, "r1", lists=lists, status=status, movies=catalogue(["a", "b'1"]))])
    assert ask(tmp_path, "SELECT user_id, movie_id, title FROM current_recommendations ORDER BY user_id") == [
        ("007", "b'1", "Movie b'1"),
        ("7", "a", "Movie a"),
    ]
    with warehouse.reader(tmp_path / "recs.duckdb") as connection:
        assert [row["movie_id"] for row in answers.of_user(connection, "one_list", "007")] == ["b'1"]


def test_a_user_whose_id_is_a_number_is_found_only_as_it_is_written(shown: Path) -> None:
    with warehouse.reader(shown / "recs.duckdb") as connection:
        found = {
            user: len(answers.of_user(connection, "one_list", user)) for user in ("1", "01", " 1", "3", "x", "1e0")
        }
    assert found == {"1": 2, "01": 0, " 1": 0, "3": 0, "x": 0, "1e0": 0}


def test_views_tell_what_changed_between_two_dates(tmp_path: Path) -> None:
    first = staged(tmp_path, "r1", YESTERDAY)
    lists = [
        (1, 1, 11, 0.9, 4.5, "model"),
        (1, 2, 12, 0.8, 4.0, "model"),
        (2, 1, 11, 0.7, 3.5, "model"),
        (2, 2, 10, 0.7, 3.0, "model"),
    ]
    publish(tmp_path, "r2", [first, staged(tmp_path, "r2", lists=lists, movies=catalogue([10, 11, 12]))])
    changes = "SELECT user_id, movie_id, old_rank, new_rank, change FROM recommendation_changes ORDER BY ALL"
    assert ask(tmp_path, changes) == [
        (1, 10, 1, None, "left"),
        (1, 11, 2, 1, "up"),
        (1, 12, None, 2, "entered"),
        (2, 10, 2, 2, "same"),
        (2, 11, 1, 1, "same"),
    ]
    exposed = "SELECT movie_id, n_users, share FROM movie_exposure WHERE as_of_date = '2026-03-10' ORDER BY movie_id"
    assert ask(tmp_path, exposed) == [(10, 1, 0.25), (11, 2, 0.5), (12, 1, 0.25)]
    assert ask(tmp_path, "SELECT count(*), count(DISTINCT as_of_date) FROM current_recommendations") == [(4, 1)]


def test_rows_are_stored_by_date_user_and_rank(tmp_path: Path) -> None:
    publish(tmp_path, "r2", [staged(tmp_path, "r1", YESTERDAY), staged(tmp_path, "r2")])
    rows = ask(tmp_path, "SELECT as_of_date, user_id, rank FROM recommendations ORDER BY rowid")
    assert rows == sorted(rows)


@pytest.mark.faults("B1.13")
def test_published_files_are_read_only_and_nothing_lies_beside_them(tmp_path: Path) -> None:
    for run_id in ("r1", "r2", "r3"):
        publish(tmp_path, run_id, [staged(tmp_path, run_id)])
    files = sorted((tmp_path / "published").iterdir())
    assert [path.name for path in files] == [f"recommendations-r{number}.duckdb" for number in (1, 2, 3)]
    assert {oct(stat.S_IMODE(path.stat().st_mode)) for path in files} == {"0o440"}
    assert os.readlink(tmp_path / "recs.duckdb") == "published/recommendations-r3.duckdb"
    assert sorted(os.listdir(tmp_path)) == ["published", "recs.duckdb", "runs"]


@pytest.mark.faults("B6.5")
def test_pruning_keeps_the_newest_files_and_the_one_in_use(tmp_path: Path) -> None:
    link, root = tmp_path / "recs.duckdb", tmp_path / "published"
    for run_id in ("r1", "r2", "r3", "r4"):
        publish(tmp_path, run_id, [staged(tmp_path, run_id)])
    assert rollback(root, link, to="r1") == ("r4", "r1")
    assert [warehouse.run_id_of(path) for path in warehouse.prune(root, link, 2)] == ["r2"]
    assert [warehouse.run_id_of(path) for path in warehouse.versions(root)] == ["r1", "r3", "r4"]
    assert ask(tmp_path, "SELECT DISTINCT run_id FROM recommendations") == [("r1",)]
    with pytest.raises(NotFound, match="of run r2"):
        rollback(root, link, to="r2")
    with pytest.raises(NotFound, match="before the current one"):
        rollback(root, link)
    with pytest.raises(NotFound, match="of 3 runs begin with 'r'"):
        rollback(root, link, to="r")
    assert rollback(root, link, to="r4") == ("r1", "r4")


@pytest.mark.faults("B5.1")
def test_a_folder_with_a_quote_in_its_name_is_published_into(tmp_path: Path) -> None:
    root = tmp_path / "it's; DROP TABLE runs;--"
    publish(root, "r1", [staged(root, "r1")])
    assert ask(root, "SELECT count(*) FROM runs") == [(1,)]


def test_what_a_user_has_rated_is_counted_in_a_staged_partition(tmp_path: Path) -> None:
    rated = pa.table({"user_id": [1, 1, 2, 9], "movie_id": [10, 99, 10, 11]})
    assert lists.rated_before(staged(tmp_path, "r1"), rated) == 2


PUBLISH = """
import sys; from pathlib import Path; import worlds
root = Path(sys.argv[1])
for number in range(int(sys.argv[2]), int(sys.argv[3])):
    print(number, flush=True)
    worlds.publish(root, f"r{number:03}", [worlds.staged(root, f"r{number:03}")])
"""


def publisher(root: Path, first: int, end: int, before: str = "") -> subprocess.Popen[str]:
    """A process that publishes runs `first` to `end`."""
    command = [sys.executable, "-c", before + PUBLISH, str(root), str(first), str(end)]
    here = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    return subprocess.Popen(command, env=here, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.mark.faults("B1.4")
def test_a_disk_that_fills_up_while_building_changes_nothing(tmp_path: Path) -> None:
    publish(tmp_path, "r000", [staged(tmp_path, "r000")])
    full = "import resource, signal\nsignal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
    with publisher(tmp_path, 1, 2, full + "resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))\n") as process:
        _, complaint = process.communicate()
    assert "DiskFull: no room for" in complaint
    assert "recommendations-r001.duckdb" in complaint
    assert os.listdir(tmp_path / "published") == ["recommendations-r000.duckdb"]
    assert ask(tmp_path, "SELECT DISTINCT run_id FROM recommendations") == [("r000",)]


@pytest.mark.slow
@pytest.mark.faults("B1.1")
def test_a_publisher_killed_at_any_moment_leaves_a_whole_file_and_needs_no_hand(tmp_path: Path) -> None:
    publish(tmp_path, "r000", [staged(tmp_path, "r000")])
    moment = random.Random(3)
    for turn in range(5):
        with publisher(tmp_path, turn * 100 + 1, turn * 100 + 100) as process:
            assert process.stdout is not None
            process.stdout.readline()
            time.sleep(moment.uniform(0, 0.6))
            process.send_signal(signal.SIGKILL)
        assert ask(tmp_path, "SELECT count(*), count(DISTINCT run_id) FROM recommendations") == [(4, 1)]
        atomic.sweep(tmp_path)
        publish(tmp_path, f"r{turn}99", [staged(tmp_path, f"r{turn}99")])
        assert ask(tmp_path, "SELECT DISTINCT run_id FROM recommendations") == [(f"r{turn}99",)]
        assert {path.suffix for path in (tmp_path / "published").iterdir()} == {".duckdb"}


def test_similar_movies_are_published_by_date_where_a_run_has_them(tmp_path: Path) -> None:
    older = staged(tmp_path, "r1", YESTERDAY)
    publish(tmp_path, "r2", [older, staged(tmp_path, "r2", alike=[(10, 1, 11, 0.5), (11, 1, 10, 0.5)])])
    assert ask(
        tmp_path, "SELECT movie_id, title, similar_title, run_id::TEXT FROM current_similar_movies ORDER BY ALL"
    ) == [
        (10, "Movie 10", "Movie 11", "r2"),
        (11, "Movie 11", "Movie 10", "r2"),
    ]
    publish(tmp_path, "r3", [older])
    assert ask(tmp_path, "SELECT count(*) FROM similar_movies") == [(0,)]
