"""Nights on real MovieLens: from the zip to SQL, for every user."""

import json
import subprocess
import sys
from pathlib import Path

import duckdb
import pytest
from conftest import real_data

from recommender import split
from recommender import train as training
from recommender.config import recipe
from storage.grouplens import read_zip

CASES = [("ml-100k.zip", 943, 100_000), ("ml-latest-small.zip", 610, 100_836), ("ml-1m.zip", 6_040, 1_000_209)]


def recjob(folder: Path, *arguments: str, before: str = "") -> dict[str, object]:
    """Run a command in a process of its own, after the lines `before`; what it prints."""
    run = f"{before}\nfrom jobs.cli import main\nmain()"
    command = [sys.executable, "-c", run, *arguments, "--json", "--quiet"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    answer: dict[str, object] = json.loads(done.stdout)
    return answer


@pytest.mark.slow
@pytest.mark.parametrize(("name", "users", "ratings"), CASES)
@pytest.mark.timeout(900)
def test_a_night_on_movielens_gives_every_user_a_whole_list_of_unseen_movies(
    tmp_path: Path, name: str, users: int, ratings: int
) -> None:
    added = recjob(tmp_path, "ingest", str(real_data(name)))
    assert added["added"] == ratings
    assert recjob(tmp_path, "ingest", str(real_data(name)))["added"] == 0
    last = str(added["last_rated_at"])[:10]
    assert recjob(tmp_path, "nightly", "--date", last)["status"] == "published"
    assert recjob(tmp_path, "nightly", "--date", last)["status"] == "unchanged"
    with duckdb.connect() as connection:
        connection.execute(f"ATTACH '{tmp_path / 'state' / 'recommendations.duckdb'}' AS recs (READ_ONLY)")
        lists = (
            "SELECT user_id, count(*) AS n FROM recs.current_recommendations WHERE title IS NOT NULL GROUP BY user_id"
        )
        assert connection.execute(f"SELECT count(*), min(n), max(n) FROM ({lists})").fetchall() == [(users, 50, 50)]
        lake = f"read_parquet('{tmp_path / 'state' / 'lake' / 'ratings' / '**' / '*.parquet'}')"
        seen = f"SELECT count(*) FROM recs.recommendations SEMI JOIN {lake} USING (user_id, movie_id)"
        assert connection.execute(seen).fetchall() == [(0,)]
        better = "SELECT count(DISTINCT metric) FROM recs.metrics WHERE segment = 'all' AND metric IN ('rmse', 'mean_rmse', 'biases_rmse')"
        assert connection.execute(better).fetchall() == [(3,)]


def test_evaluate_prints_the_figures_of_the_article(tmp_path: Path) -> None:
    recjob(tmp_path, "ingest", str(real_data("ml-100k.zip")))
    figures = recjob(tmp_path, "evaluate", "--split", "time-range", "--model", "basic")
    assert figures["parameters"] == 116_641
    assert figures["rows"] == {"train": 65_336, "validation": 15_778, "test": 18_886}
    assert figures["rmse"] == pytest.approx({"train": 1.11, "validation": 1.13, "test": 1.12}, abs=0.02)
    assert (tmp_path / "state" / "reports" / "evaluate-basic-time-range.png").stat().st_size > 10_000


@pytest.mark.slow
@pytest.mark.faults("B3.8")
def test_neither_the_size_of_a_block_nor_the_number_of_cores_nor_rounding_changes_a_byte(tmp_path: Path) -> None:
    added = recjob(tmp_path, "ingest", str(real_data("ml-latest-small.zip")))
    (tmp_path / "recjob.toml").write_text("[model]\nepochs = 2\n[publish]\nkeep_reports = 0\n")
    night = ("score", "--date", str(added["last_rated_at"])[:10])
    recjob(tmp_path, *night)
    again = (*night, "--model", "champion", "--force", "--reason", "compared")
    recjob(
        tmp_path,
        *again,
        "--batch-size",
        "16",
        before="import os; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})",
    )
    (tmp_path / "recjob.toml").write_text(
        '[model]\nepochs = 2\n[publish]\nkeep_reports = 0\n[score]\nprecision = "tf32"\n'
    )
    recjob(tmp_path, *again, "--batch-size", "208")
    runs = [json.loads(path.read_text()) for path in sorted(tmp_path.glob("state/runs/as_of=*/run=*/run.json"))]
    assert [run["rows"]["recommendations"] for run in runs] == [610 * 50] * 3
    assert len({run["output_digest"] for run in runs}) == 1


@pytest.mark.slow
def test_training_converges_where_a_pass_has_many_batches() -> None:
    """150 of them, as with 150,000 users: at the rate that suits one batch the RMSE swings out to 2 and more on the way."""
    ratings = read_zip(real_data("ml-1m.zip")).ratings
    cut = split.random(ratings, seed=0)
    small = recipe("default", batch_size=40, taste_dimension=4, ridge_dimension=4, choice_dimension=4)
    made = training.train(cut.train, small, holdout=cut.test)
    assert max(epoch.train_rmse for epoch in made.history[2:]) < 1
    assert made.history[-1].holdout_rmse is not None
    assert made.history[-1].holdout_rmse < 0.88
