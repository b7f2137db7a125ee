"""Staged partitions with known lists, and the small tables that are published with them."""

from collections.abc import Iterable, Sequence
from datetime import date
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa

from recommender import schema
from storage import runs, warehouse
from storage.runs import RunPartition

Row = tuple[Any, ...]
WHOLE = pa.int64()
DAY = date(2026, 3, 10)
WHEN = "2026-03-11T02:00:00"
GOOD: list[Row] = [
    (1, 1, 10, 0.9, 4.5, "model"),
    (1, 2, 11, 0.8, 4.0, "model"),
    (2, 1, 11, 0.7, 3.5, "cold_user"),
    (2, 2, 10, 0.7, 3.0, "cold_user"),
]
"""user, rank, movie, score, stars, source; and the reason, where there is one"""
STATUS: list[Row] = [(1, "warm", 3, 2, None), (2, "cold", 0, 2, None)]
"""user, segment, ratings, length of the list, why it is short"""


def schemas(ids: pa.DataType = WHOLE) -> dict[str, pa.Schema]:
    """The schemas of what is staged, for ids of a type."""
    return {"recommendations": schema.recommendations(ids, ids), "user_status": schema.user_status(ids)}


def batch(name: str, rows: Sequence[Row], ids: pa.DataType = WHOLE) -> pa.RecordBatch:
    """Rows of `recommendations` or `user_status`."""
    shape = schemas(ids)[name]
    return pa.RecordBatch.from_pylist([dict(zip(shape.names, row, strict=False)) for row in rows], shape)


def catalogue(movies: Iterable[Any], unavailable: Iterable[Any] = (), title: str = "Movie") -> pa.Table:
    """Movies as they are staged, each with one rating."""
    listed = list(movies)
    columns = {"movie_id": listed, "title": [f"{title} {movie}" for movie in listed]}
    return pa.table(columns | {"available": [m not in unavailable for m in listed], "n_ratings": [1] * len(listed)})


def staged(
    root: Path,
    run_id: str,
    day: date = DAY,
    lists: Sequence[Row] = GOOD,
    status: Sequence[Row] = STATUS,
    movies: pa.Table | None = None,
    alike: Sequence[Row] = (),
) -> RunPartition:
    """Stage a partition in one batch; ids are text where those of the lists are."""
    ids = pa.string() if isinstance(lists[0][0], str) else WHOLE
    parts = [
        {"recommendations": batch("recommendations", lists, ids), "user_status": batch("user_status", status, ids)}
    ]
    tables = {"movies": catalogue([10, 11]) if movies is None else movies}
    if alike:
        shape = schema.similar_movies(ids)
        rows = [dict(zip(shape.names, row, strict=True)) for row in alike]
        tables["similar_movies"] = pa.Table.from_pylist(rows, shape)
    return runs.stage(root / "runs", day, run_id, parts, schemas(ids), tables, {})


def rows_of(partitions: Sequence[RunPartition]) -> dict[str, list[dict[str, Any]]]:
    """The small tables of partitions that were made by one model from one file each, lists of two."""
    run = {"status": "published", "trigger": "manual", "started_at": WHEN, "published_at": WHEN, "model_version": "m"}
    file = {"path": "a", "sha256": "s", "bytes": 1, "rows": 1, "rows_used": 1, "rows_future": 0, "rows_rejected": 0}
    model = {"model_version": "m", "created_at": WHEN, "trained_through": WHEN, "digest": "d", "status": "accepted"}
    return {
        "runs": [run | {"run_id": p.run_id, "as_of_date": str(p.as_of), "top_n": 2} for p in partitions],
        "run_inputs": [file | {"run_id": p.run_id} for p in partitions],
        "models": [model | {"name": "basic", "parameters": 1}],
    }


def publish(
    root: Path,
    run_id: str,
    partitions: Sequence[RunPartition],
    rows: dict[str, list[dict[str, Any]]] | None = None,
    attach: bool = False,
) -> warehouse.Published:
    """Publish partitions as `<root>/recs.duckdb`."""
    small = rows or rows_of(partitions)
    return warehouse.publish(root / "published", root / "recs.duckdb", run_id, partitions, small, attach=attach)


def ask(root: Path, statement: str) -> list[Row]:
    """The answer of the published file, as any DuckDB client gets it."""
    with duckdb.connect(str(root / "recs.duckdb"), read_only=True) as connection:
        return connection.execute(statement).fetchall()
