"""Scoring in little memory, measured in a process of its own: what four times the users take, and a real refusal of memory."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

ROOT = Path(__file__).resolve().parents[1]
SCRIPT = """
import json, resource
from datetime import UTC, datetime, timedelta
import numpy as np, pyarrow as pa
from recommender import candidates, device, history, score, train
from recommender.config import recipe

MOVIES, SPARE = 4000, 60 * 2**20

def world(users):  # three ratings each
    rng = np.random.default_rng(0)
    pairs = np.unique(np.stack([np.repeat(np.arange(users), 3), rng.integers(0, MOVIES, users * 3)], 1), axis=0)
    at = datetime(2026, 1, 1, tzinfo=UTC) + np.arange(len(pairs)) * timedelta(minutes=1)
    columns = {"user_id": pairs[:, 0], "movie_id": pairs[:, 1], "rating": pa.array(rng.integers(1, 6, len(pairs)), pa.float32())}
    return pa.table(columns | {"rated_at": pa.array(at, pa.timestamp("us", "UTC"))})

def scored(table, size, spare=None):
    allowed = candidates.select(table, None, min_ratings=1)
    seen, ready = history.of(table, None, allowed), trained.ready(table)
    blocks = score.top_n(ready, allowed, seen, 10, users_per_block=size)
    if spare:  # what is mapped now, and so much more
        mapped = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (mapped + spare, resource.RLIM_INFINITY))
    sizes, lists = [], []
    for block in blocks:
        sizes.append(block.status.num_rows)
        lists.append(np.stack([column.to_numpy() for column in block.recommendations.columns[:4]], axis=1))
    return sizes, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, np.concatenate(lists)

dimensions = dict.fromkeys(("stars_dimension", "choice_dimension", "taste_dimension", "ridge_dimension"), 4)
trained = train.train(world(2000), recipe("default", epochs=1, steps_per_epoch=2, **dimensions))
budget = device.block_users(MOVIES, 64 * 2**20)  # as --memory 64MiB has it
few, many = scored(world(5000), budget), scored(world(20000), budget)
short = scored(world(20000), 8192, SPARE)
same, scores = (many[2] == short[2])[:, :3].all(), (many[2][:, 3], short[2][:, 3])
off = np.max(np.abs(scores[0] - scores[1]) / np.abs(scores[0]))
print(json.dumps({"sizes": short[0], "peaks": [few[1], many[1]], "same": bool(same), "off": off}))
"""


READING = """
import resource, sys
from pathlib import Path
from storage import ratings

def peak(source):
    rows = ratings.read(source, {}, before=None).table.num_rows
    return rows, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024

first, every = peak(str(Path(sys.argv[1]) / "0.parquet")), peak(sys.argv[1])
print((every[1] - first[1]) / (every[0] - first[0]))
"""


@pytest.mark.slow
def test_reading_takes_little_more_than_the_28_bytes_of_a_rating(tmp_path: Path) -> None:
    rng, rows, files = np.random.default_rng(1), 5_000_000, 5
    at = np.sort(rng.integers(0, 6 * 10**8, rows) * 10**6 + 10**15)
    user, movie = rng.integers(0, 500_000, rows), rng.integers(0, 60_000, rows)  # hardly a pair is there twice
    for number in range(files):
        part = slice(number * rows // files, (number + 1) * rows // files)
        columns = {"user_id": user[part], "movie_id": movie[part], "rating": np.full(rows // files, 4, np.float32)}
        columns |= {"rated_at": pa.array(at[part], pa.timestamp("us", "UTC"))}
        pq.write_table(pa.table(columns), tmp_path / f"{number}.parquet")
    command = [sys.executable, "-c", READING, str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert float(done.stdout) < 44


@pytest.mark.slow
@pytest.mark.faults("B3.12", "B3.13")
def test_four_times_the_users_take_no_more_memory_and_memory_that_is_refused_halves_the_blocks() -> None:
    done = subprocess.run([sys.executable, "-c", SCRIPT], cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    few, many = found["peaks"]
    assert many < 1.1 * few
    assert sum(found["sizes"]) == 20_000
    assert found["sizes"][0] in (4096, 2048, 1024, 512), "TensorFlow was refused nothing, or could do nothing"
    assert found["same"]
    assert found["off"] < 1e-6  # products of other sizes may round otherwise
