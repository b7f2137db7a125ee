"""What publishing costs beside the least it could, and how long a user's list takes to look up in what was published.

    python benchmarks/publishing.py [--rows 70000000] [--dates 7] [--repeat 3] [--folder /var/tmp]
    python benchmarks/publishing.py --quick

vs_ctas: CPU time of a publication, from staged Parquet to a file that readers see (verified, built, audited, synced, flipped),
over that of a bare `CREATE TABLE AS SELECT` from the same Parquet; vs_ctas_wall: the same in wall time. lookup_p50_ms: one
user's list from `current_recommendations`, random users, one open read-only connection. attach_*: the same where it
shows the Parquet, with no copy (`publish.mode = "attach"`); attach_vs_publish: CPU time over a copy's. Made-up lists of 50.

Medians of interleaved repeats. The last line is JSON: {"benchmark": "publishing", "figures": {name: figure}}.
"""

import argparse
import json
import resource
import tempfile
import time
from collections.abc import Iterator
from datetime import date, timedelta
from pathlib import Path
from statistics import median
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
from timing import interleaved

from recommender import schema
from storage import runs, warehouse
from storage.parquet import ROW_GROUP
from storage.runs import RunPartition

TOP, MOVIES, FIRST = 50, 60_000, date(2026, 3, 1)
SCHEMAS = {
    "recommendations": schema.recommendations(pa.int64(), pa.int64()),
    "user_status": schema.user_status(pa.int64()),
}
TARGETS = {"vs_ctas": 1.3, "bytes_per_row": 8.0, "lookup_p50_ms": 3.0, "attach_lookup_p50_ms": 15.0}
"""What is wanted at most."""


def batches(users: int, random: np.random.Generator) -> Iterator[dict[str, pa.RecordBatch]]:
    """Lists of users in order: different movies, the popular ones rather; scores that fall; stars that lie near them."""
    size = ROW_GROUP // TOP
    for first in range(0, users, size):
        user = np.arange(first, min(first + size, users)) + 1
        start, step = (random.random((len(user), 1)) ** 3 * MOVIES, random.integers(1, MOVIES // TOP, (len(user), 1)))
        movie = (start.astype(np.int64) + step * np.arange(TOP)) % MOVIES + 1
        score = -np.sort(-random.normal(0, 1, movie.shape).astype(np.float32), axis=1)
        stars = np.clip(4 + 0.3 * score + random.normal(0, 0.1, movie.shape), 0.5, 5).astype(np.float32)
        rank = np.tile(np.arange(1, TOP + 1, dtype=np.int16), len(user))
        score, stars = np.round(score, schema.SCORE_DECIMALS), np.round(stars, schema.STARS_DECIMALS)
        placed = [["model"] * movie.size, [None] * movie.size]
        lists = [np.repeat(user, TOP), rank, movie.ravel(), score.ravel(), stars.ravel(), *placed]
        status = [
            user,
            ["warm"] * len(user),
            random.integers(20, 500, len(user)),
            [TOP] * len(user),
            [None] * len(user),
        ]
        yield {
            name: pa.record_batch([pa.array(v, f.type) for v, f in zip(columns, shape, strict=True)], schema=shape)
            for (name, shape), columns in zip(SCHEMAS.items(), (lists, status), strict=True)
        }


def staged(folder: Path, rows: int, dates: int) -> list[RunPartition]:
    """Partitions of `dates` days, `rows` together."""
    random, movie = np.random.default_rng(1), range(1, MOVIES + 1)
    columns = {"movie_id": movie, "title": [f"Movie {number}" for number in movie], "genres": [["Drama"]] * MOVIES}
    movies = pa.table(columns | {"available": [True] * MOVIES, "n_ratings": [1] * MOVIES})
    days = [FIRST + timedelta(days=day) for day in range(dates)]
    users = rows // dates // TOP
    return [
        runs.stage(
            folder / "runs", day, f"{day:%Y%m%dT}020000", batches(users, random), SCHEMAS, {"movies": movies}, {}
        )
        for day in days
    ]


def small_tables(partitions: list[RunPartition]) -> dict[str, list[dict[str, Any]]]:
    """The lineage that the audit asks for."""
    when = "2026-03-11T02:00:00"
    run = {"status": "published", "trigger": "manual", "started_at": when, "model_version": "m", "top_n": TOP}
    file = {"path": "a", "sha256": "s", "bytes": 1, "rows": 1, "rows_used": 1, "rows_future": 0, "rows_rejected": 0}
    model = {"model_version": "m", "created_at": when, "trained_through": when, "digest": "d", "status": "accepted"}
    return {
        "runs": [run | {"run_id": part.run_id, "as_of_date": str(part.as_of)} for part in partitions],
        "run_inputs": [file | {"run_id": part.run_id} for part in partitions],
        "models": [model | {"name": "default", "parameters": 1}],
    }


def ctas(target: Path, partitions: list[RunPartition]) -> None:
    """The same rows and columns in a file, and nothing else."""
    target.unlink(missing_ok=True)
    paths = [str(partition.path("recommendations")) for partition in partitions]
    with duckdb.connect() as connection:
        connection.execute(f"ATTACH '{target}' AS bare (STORAGE_VERSION 'v1.5.0')")
        connection.execute(
            "CREATE TABLE bare.recommendations AS SELECT * FROM read_parquet($1, hive_partitioning = true)", [paths]
        )
        connection.execute("DETACH bare")


def lookup(database: Path, users: int, times: int = 200) -> float:
    """Milliseconds that a random user's list takes, the median, after twenty to warm up."""
    query = "SELECT rank, title, predicted_rating FROM current_recommendations WHERE user_id = ? ORDER BY rank LIMIT 10"
    random, took = np.random.default_rng(2), []
    with duckdb.connect(str(database), read_only=True) as connection:
        for user in random.integers(1, users + 1, times + 20).tolist():
            began = time.perf_counter()
            found = connection.execute(query, [user]).fetchall()
            took.append(time.perf_counter() - began)
            if len(found) != 10:
                raise SystemExit(f"user {user} has a list of {len(found)}")
    return 1000 * median(took[20:])


def main() -> None:
    """Print a table and the line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, help="of all dates; 70,000,000, or with --quick 1,400,000")
    parser.add_argument("--dates", type=int, default=7)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--folder", type=Path, help="where there is room for the files; they are removed afterwards")
    parser.add_argument("--quick", action="store_true")
    given = parser.parse_args()
    rows = given.rows or (1_400_000 if given.quick else 70_000_000)
    with tempfile.TemporaryDirectory(dir=given.folder) as name:
        folder = Path(name)
        partitions = staged(folder, rows, given.dates)
        root, link, small = folder / "published", folder / "recommendations.duckdb", small_tables(partitions)
        shown = folder / "attached.duckdb"
        took = interleaved(
            {
                "publish": lambda: warehouse.publish(root, link, "r", partitions, small),
                "attach": lambda: warehouse.publish(root, shown, "a", partitions, small, attach=True),
                "CREATE TABLE AS": lambda: ctas(folder / "bare.duckdb", partitions),
            },
            given.repeat,
            warm_up=0,
        )
        count = sum(partition.record["rows"]["recommendations"] for partition in partitions)
        size, bare = link.stat().st_size, (folder / "bare.duckdb").stat().st_size
        p50, attached_p50 = (lookup(path, rows // given.dates // TOP) for path in (link, shown))
        attached_size = shown.stat().st_size
    print(f"{count:,} rows of {given.dates} dates")
    for variant, (cpu, wall) in took.items():
        print(f"{variant:<18}{cpu:>9.2f} CPU-s{wall:>9.2f} s")
    (cpu, wall), (bare_cpu, bare_wall) = took["publish"], took["CREATE TABLE AS"]
    figures = {
        "vs_ctas": cpu / bare_cpu,
        "vs_ctas_wall": wall / bare_wall,
        "bytes_per_row": size / count,
        "bytes_per_row_ctas": bare / count,
        "lookup_p50_ms": p50,
        "attach_vs_publish": took["attach"][0] / cpu,
        "attach_cpu_s": took["attach"][0],
        "attach_s": took["attach"][1],
        "attach_mb": attached_size / 1e6,
        "copy_mb": size / 1e6,
        "attach_lookup_p50_ms": attached_p50,
        "peak_rss_gib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20,
        "rows": count,
    }
    for figure, target in TARGETS.items():
        print(f"{figure}: {figures[figure]:.3g}, at most {target:g} wanted")
    print(json.dumps({"benchmark": "publishing", "figures": {n: float(f"{f:.4g}") for n, f in figures.items()}}))


if __name__ == "__main__":
    main()
