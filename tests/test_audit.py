"""The audit of files with so many lists that DuckDB works on them in pieces, by several threads: what is right passes, however
long the lists are, and one wrong row among all is found."""

from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from worlds import DAY, ask, catalogue, publish, rows_of, schemas

from storage import rebuild, runs
from storage.errors import AuditFailed
from storage.forgotten import Forgotten
from storage.runs import RunPartition

MOVIES = 300


def lists(users: int, length: int, placed: float = 0.0) -> dict[str, np.ndarray]:
    """Lists of one length, one after the other; a share of the rows are a rule's, whatever their score."""
    rng = np.random.default_rng(length)
    rank = np.tile(np.arange(1, length + 1), users)
    rule = rng.random(len(rank)) < placed
    return {
        "user_id": np.repeat(np.arange(users), length),
        "rank": rank,
        "movie_id": np.argsort(rng.random((users, MOVIES)), axis=1)[:, :length].ravel(),
        "score": np.where(rule, rng.random(len(rank)), 1 - rank / 1000),
        "predicted_rating": np.full(len(rank), 4.0),
        "source": np.where(rule, "pinned", "model"),
        "reason": np.full(len(rank), None),
    }


def staged(root: Path, day: int, rows: dict[str, np.ndarray], length: int) -> RunPartition:
    users = np.unique(rows["user_id"])
    status: dict[str, Any] = {
        "user_id": users,
        "segment": ["warm"] * len(users),
        "n_ratings": [1] * len(users),
        "n_recommendations": [length] * len(users),
        "short_reason": [None] * len(users),
    }
    parts = {
        name: pa.record_batch([pa.array(columns[one.name]).cast(one.type) for one in schemas()[name]], schemas()[name])
        for name, columns in {"recommendations": rows, "user_status": status}.items()
    }
    tables = {"movies": catalogue(range(MOVIES))}
    return runs.stage(root / "runs", DAY + timedelta(days=day), f"r{day}", [parts], schemas(), tables, {})


def small(partitions: list[RunPartition], lengths: list[int]) -> dict[str, list[dict[str, Any]]]:
    found = rows_of(partitions)
    for run, length in zip(found["runs"], lengths, strict=True):
        run["top_n"] = length
    return found


@pytest.mark.faults("B1.10")
@pytest.mark.parametrize("attach", [False, True])
@pytest.mark.parametrize("lengths", [(50, 50, 5), (50, 1, 20), (3, 60, 60)])
def test_lists_of_any_lengths_side_by_side_pass(tmp_path: Path, lengths: tuple[int, ...], attach: bool) -> None:
    made = [staged(tmp_path, day, lists(2500, n, placed=day * 0.3), n) for day, n in enumerate(lengths)]
    assert publish(tmp_path, "r2", made, small(made, list(lengths)), attach).rows == 2500 * sum(lengths)


@pytest.mark.faults("B1.10")
@pytest.mark.parametrize("attach", [False, True])
@pytest.mark.parametrize("placed", [0.0, 0.02, 0.9])
def test_one_row_of_many_that_is_above_a_better_score_is_found(tmp_path: Path, placed: float, attach: bool) -> None:
    rng = np.random.default_rng(3)
    for number in range(3):
        rows = lists(2500, 50, placed)
        own = np.flatnonzero((rows["source"] == "model") & (rows["rank"] > 1))
        before = {}  # the row before of the same list that is the model's
        last: dict[int, int] = {}
        for row in np.flatnonzero(rows["source"] == "model"):
            before[int(row)] = last.get(int(rows["user_id"][row]), -1)
            last[int(rows["user_id"][row])] = int(row)
        wrong = next(row for row in rng.permutation(own) if before[int(row)] >= 0)
        rows["score"][wrong] = rows["score"][before[int(wrong)]] + 0.001
        made = [staged(tmp_path / f"{number}", 0, rows, 50)]
        with pytest.raises(AuditFailed, match=r"rank_against_score \([12] rows\)"):
            publish(tmp_path / f"{number}", "r0", made, small(made, [50]), attach)


@pytest.mark.faults("B6.1")
def test_a_person_is_taken_out_of_a_file_of_many_rows_and_the_rest_stays_in_order(tmp_path: Path) -> None:
    lengths = [50, 20, 50]
    made = [staged(tmp_path, day, lists(2500, n), n) for day, n in enumerate(lengths)]
    publish(tmp_path, "r2", made, small(made, lengths))
    facts = {partition.run_id: rebuild.RunFacts(None, None, False) for partition in made}
    listed, root, link = Forgotten().adding(["43", "1999"]), tmp_path / "published", tmp_path / "recs.duckdb"
    assert rebuild.remove(root, link, listed, facts) == (1, 2 * (sum(lengths) + len(lengths)))
    left = "SELECT count(*), count(DISTINCT user_id), count(*) FILTER (user_id IN (43, 1999)) FROM recommendations"
    assert ask(tmp_path, left) == [((2500 - 2) * sum(lengths), 2498, 0)]
