"""The published file: audited, flipped in under readers, and readable by anybody."""

import json
import subprocess
import sys
from datetime import date
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pytest

from storage import runs, warehouse
from storage.errors import AuditFailed, NotFound, QueryRefused
from storage.runs import RunPartition

DAY = date(2026, 3, 10)
SCHEMAS = {
    "recommendations": pa.schema(
        [("user_id", pa.int64()), ("rank", pa.int16()), ("movie_id", pa.int64()), ("score", pa.float32()),
         ("predicted_rating", pa.float32()), ("source", pa.string())]
    ),
    "user_status": pa.schema(
        [("user_id", pa.int64()), ("segment", pa.string()), ("n_ratings", pa.int32()), ("n_recommendations", pa.int16()),
         ("short_reason", pa.string())]
    ),
}  # fmt: skip
GOOD: list[tuple[Any, ...]] = [
    (1, 1, 10, 0.9, 4.5, "model"),
    (1, 2, 11, 0.8, 4.0, "model"),
    (2, 1, 11, 0.7, 3.5, "cold_user"),
    (2, 2, 10, 0.7, 3.0, "cold_user"),
]
STATUS: list[tuple[Any, ...]] = [(1, "warm", 3, 2, None), (2, "cold", 0, 2, None)]


def batch(name: str, rows: list[tuple[Any, ...]]) -> pa.RecordBatch:
    return pa.RecordBatch.from_pylist([dict(zip(SCHEMAS[name].names, row, strict=True)) for row in rows], SCHEMAS[name])


def staged(
    root: Path,
    run_id: str,
    day: date = DAY,
    lists: list[Any] = GOOD,
    status: list[Any] = STATUS,
    movies: tuple[int, ...] = (10, 11),
) -> RunPartition:
    catalogue = pa.table(
        {
            "movie_id": movies,
            "title": [f"Movie {movie}" for movie in movies],
            "available": [True] * len(movies),
            "n_ratings": [1] * len(movies),
        }
    )
    parts = [{"recommendations": batch("recommendations", lists), "user_status": batch("user_status", status)}]
    return runs.stage(root / "runs", day, run_id, parts, SCHEMAS, {"movies": catalogue}, {})


def rows_of(partitions: list[RunPartition]) -> dict[str, list[dict[str, Any]]]:
    model = {
        "model_version": "m",
        "created_at": "2026-03-11",
        "trained_through": "2026-03-11",
        "digest": "d",
        "status": "accepted",
        "name": "basic",
        "parameters": 1,
    }
    return {
        "runs": [{"run_id": p.run_id, "as_of_date": str(p.as_of), "status": "published", "trigger": "manual", "started_at": "2026-03-11T00:00:00", "published_at": "2026-03-11T00:00:00", "model_version": "m", "top_n": 2} for p in partitions],
        "run_inputs": [{"run_id": p.run_id, "path": "a", "sha256": "s", "bytes": 1, "rows": 1, "rows_used": 1, "rows_future": 0, "rows_rejected": 0} for p in partitions],
        "models": [model],
    }  # fmt: skip


def publish(
    root: Path, run_id: str, partitions: list[RunPartition], rows: dict[str, list[dict[str, Any]]] | None = None
) -> warehouse.Published:
    return warehouse.publish(root / "published", root / "recs.duckdb", run_id, partitions, rows or rows_of(partitions))


def ask(root: Path, statement: str) -> list[tuple[Any, ...]]:
    with duckdb.connect(str(root / "recs.duckdb"), read_only=True) as connection:
        return connection.execute(statement).fetchall()


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


BROKEN = {
    "rank_gaps": {"lists": [(1, 1, 10, 0.9, 4.5, "model"), (1, 3, 11, 0.8, 4.0, "model"), *GOOD[2:]]},
    "repeated_movies": {"lists": [(1, 1, 10, 0.9, 4.5, "model"), (1, 2, 10, 0.8, 4.0, "model"), *GOOD[2:]]},
    "rank_against_score": {"lists": [(1, 1, 10, 0.8, 4.5, "model"), (1, 2, 11, 0.9, 4.0, "model"), *GOOD[2:]]},
    "unexplained_short_lists": {"lists": GOOD[:3]},
    "lists_without_status": {"status": STATUS[:1]},
    "unknown_movies": {"movies": (10,)},
}


@pytest.mark.parametrize("rule", BROKEN)
def test_an_audit_rule_that_is_broken_stops_the_flip(tmp_path: Path, rule: str) -> None:
    publish(tmp_path, "r1", [staged(tmp_path, "r1")])
    with pytest.raises(AuditFailed, match=rule):
        publish(tmp_path, "r2", [staged(tmp_path, "r2", **BROKEN[rule])])  # type: ignore[arg-type]
    assert ask(tmp_path, "SELECT DISTINCT run_id FROM recommendations") == [("r1",)]
    assert len(list((tmp_path / "published").iterdir())) == 1


def test_a_row_without_lineage_stops_the_flip(tmp_path: Path) -> None:
    partition = staged(tmp_path, "r1")
    with pytest.raises(AuditFailed, match="lineage"):
        publish(tmp_path, "r1", [partition], rows_of([partition]) | {"models": []})


@pytest.mark.parametrize("score", [float("nan"), float("inf")])
def test_a_score_that_is_not_finite_cannot_be_stored(tmp_path: Path, score: float) -> None:
    with pytest.raises(AuditFailed, match="CHECK"):
        publish(tmp_path, "r1", [staged(tmp_path, "r1", lists=[(1, 1, 10, score, 4.5, "model"), *GOOD[1:]])])


def test_every_rule_in_the_folder_has_a_test() -> None:
    rules = {path.stem for path in (Path(__file__).parents[1] / "sql" / "audit").glob("*.sql")}
    assert rules == {*BROKEN, "lineage"}


def test_an_open_connection_keeps_its_rows_and_a_new_one_sees_the_new(tmp_path: Path) -> None:
    first = staged(tmp_path, "r1", date(2026, 3, 9))
    publish(tmp_path, "r1", [first])
    with duckdb.connect(str(tmp_path / "recs.duckdb"), read_only=True) as held:
        publish(tmp_path, "r2", [first, staged(tmp_path, "r2")])
        assert held.execute("SELECT count(*) FROM recommendations").fetchall() == [(4,)]
        assert ask(tmp_path, "SELECT count(*) FROM recommendations") == [(8,)]
    changes = ask(tmp_path, "SELECT change, count(*) FROM recommendation_changes GROUP BY ALL")
    assert changes == [("same", 4)]


@pytest.mark.slow
def test_readers_never_fail_nor_see_half_a_publication(tmp_path: Path) -> None:
    publish(tmp_path, "r00", [staged(tmp_path, "r00")])
    script = (
        "import duckdb, json, sys, time\nreads, mixed, end = 0, 0, time.time() + 8\n"
        "while time.time() < end:\n"
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


def test_everything_published_says_what_it_is(tmp_path: Path) -> None:
    publish(tmp_path, "r1", [staged(tmp_path, "r1")])
    assert not ask(tmp_path, "SELECT table_name FROM duckdb_tables() WHERE comment IS NULL AND NOT internal")
    assert not ask(tmp_path, "SELECT view_name FROM duckdb_views() WHERE comment IS NULL AND NOT internal")
    tables = "SELECT table_name FROM duckdb_tables() WHERE NOT internal"
    assert not ask(
        tmp_path,
        f"SELECT table_name, column_name FROM duckdb_columns() WHERE comment IS NULL AND table_name IN ({tables})",
    )


def test_clients_from_duckdb_1_5_on_can_read_the_file(tmp_path: Path) -> None:
    publish(tmp_path, "r1", [staged(tmp_path, "r1")])
    (tags,) = ask(tmp_path, "SELECT tags FROM duckdb_databases() WHERE NOT internal")
    assert "v1.5" in str(tags)


def test_rollback_goes_back_and_no_further_than_there_is(tmp_path: Path) -> None:
    link, root = tmp_path / "recs.duckdb", tmp_path / "published"
    for run_id in ("r1", "r2"):
        publish(tmp_path, run_id, [staged(tmp_path, run_id)])
    assert warehouse.rollback(root, link) == ("r2", "r1")
    assert ask(tmp_path, "SELECT DISTINCT run_id FROM recommendations") == [("r1",)]
    with pytest.raises(NotFound):
        warehouse.rollback(root, link)


@pytest.mark.parametrize(
    "statement",
    ["DROP TABLE runs", "SELECT 1; SELECT 2", "COPY runs TO 'x'", "ATTACH 'x' AS y", "INSTALL httpfs", "SET threads = 1",
     "SELECT * FROM read_text('/etc/passwd')", "SELECT * FROM 'x.parquet'", "PRAGMA database_list; SELECT 1", "", "SELEC 1",
     "CREATE TABLE x (a INT)"],
)  # fmt: skip
def test_the_reader_takes_one_select_and_nothing_else(tmp_path: Path, statement: str) -> None:
    publish(tmp_path, "r1", [staged(tmp_path, "r1")])
    with warehouse.reader(tmp_path / "recs.duckdb") as connection, pytest.raises(QueryRefused):
        warehouse.select(connection, statement, 100, 5)


def test_a_query_ends_at_its_limits(tmp_path: Path) -> None:
    publish(tmp_path, "r1", [staged(tmp_path, "r1")])
    with warehouse.reader(tmp_path / "recs.duckdb") as connection:
        with pytest.raises(QueryRefused, match="more than 10 rows"):
            warehouse.select(connection, "SELECT * FROM range(11)", 10, 5)
        with pytest.raises(QueryRefused, match="longer than 0.3 s"):
            warehouse.select(
                connection, "SELECT sum(sqrt(a.range * b.range)) FROM range(1000000) a, range(1000000) b", 10, 0.3
            )
        assert warehouse.select(connection, "SELECT 7 AS seven", 10, 5) == (["seven"], [(7,)])


def test_a_stage_that_fails_leaves_nothing(tmp_path: Path) -> None:
    def cut() -> Any:
        yield {"recommendations": batch("recommendations", GOOD)}
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        runs.stage(tmp_path / "runs", DAY, "r1", cut(), SCHEMAS, {}, {})
    assert not list(tmp_path.rglob("*.*"))


def test_the_digest_does_not_depend_on_the_borders_of_batches(tmp_path: Path) -> None:
    whole = staged(tmp_path, "r1").record["output_digest"]
    single = ({"recommendations": batch("recommendations", [row])} for row in GOOD)
    apart = runs.stage(tmp_path / "runs", DAY, "r2", single, {"recommendations": SCHEMAS["recommendations"]}, {}, {})
    assert apart.record["output_digest"] == whole
    assert [partition.run_id for partition in runs.partitions(tmp_path / "runs")] == ["r2"]
