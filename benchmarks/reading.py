"""How long it takes from Parquet to arrays that a model trains on, beside what else could be done and beside the training.

    python benchmarks/reading.py [--ratings 25000000 | --source 'big/ratings/*.parquet'] [--repeat 3]
    python benchmarks/reading.py --source 'big/ratings/*.parquet' --only-night
    python benchmarks/reading.py --quick

read: ratings checked, hashed, in order, the latest of each pair, and encoded; beside it pyarrow that only reads the columns,
and one epoch of training `basic` on the same ratings. encode: the vocabulary of user_id and the rows of all ratings in it;
beside it `np.unique`. Without --source, ratings are made up as by generate.py. --quick: a million of them.

Process CPU time, medians of interleaved repeats. night_read_s and night_read_gib are wall time and peak memory of the first
reading, before anything is warm; night_bytes_a_rating is that memory less what the process had before. The last line is JSON:
{"benchmark": "reading", "figures": {name: figure}}.
"""

import argparse
import json
import resource
import tempfile
import time
from pathlib import Path
from statistics import median

import generate
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from timing import interleaved

from recommender.vocabulary import Vocabulary
from storage import ratings, tabular

COLUMNS = ["user_id", "movie_id", "rating", "rated_at"]
TARGETS = {"encode_vs_unique": ("at least", 10.0), "read_share_of_epoch": ("at most", 0.05)}
TEXTS = 2_000_000
"""Most ids that are compared as text: `np.unique` takes long for them."""


def night(source: str) -> pa.Table:
    """What a night reads."""
    return ratings.read(source, {}, before=None).table


def encoded(table: pa.Table) -> dict[str, np.ndarray]:
    """What a training is given."""
    return {name: encode(table[name]) for name in ("user_id", "movie_id")} | {"rating": table["rating"].to_numpy()}


def encode(column: pa.ChunkedArray) -> np.ndarray:
    """The rows of all ids."""
    return Vocabulary.of(column).encode(column)


def unique(column: pa.ChunkedArray) -> np.ndarray:
    """The same by numpy."""
    return np.unique(column.to_numpy(), return_inverse=True)[1]


def epoch(table: pa.Table, epochs: int) -> float:
    """CPU seconds of an epoch of `basic`: the median of those after the first, which traces."""
    from recommender import train
    from recommender.config import recipe

    ends: list[float] = []
    train.train(
        table,
        recipe("basic").changed(epochs=epochs + 1, patience=0),
        on_epoch=lambda _: ends.append(time.process_time()),
    )
    return median(np.diff(ends))


def first_night(source: str) -> tuple[pa.Table, dict[str, float]]:
    """The ratings as the first thing that a process reads, and what that took."""
    began, before = time.perf_counter(), int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()
    table = night(source)
    took, peak = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return table, {
        "night_read_s": took,
        "night_read_gib": peak / 2**30,
        "night_bytes_a_rating": (peak - before) / table.num_rows,
        "ratings": table.num_rows,
    }


def compare(source: str, repeat: int, epochs: int) -> dict[str, float]:
    """Print a table and return the figures."""
    table, first = first_night(source)
    paths, users = tabular.files_of(source), table["user_id"]
    texts = users.slice(0, TEXTS).cast(pa.string())
    reads = {
        "read and encode": lambda: encoded(night(source)),
        "pyarrow reads the columns": lambda: [pq.read_table(p, columns=COLUMNS, memory_map=True) for p in paths],
    }
    # By itself, as in a night: after `np.unique` of as many numbers it takes a third more, nearly all of it the system's.
    both = interleaved(reads, repeat)
    both |= interleaved(
        {
            "encode user_id": lambda: encode(users),
            "np.unique of user_id": lambda: unique(users),
            "encode user_id as text": lambda: encode(texts),
            "np.unique of user_id as text": lambda: unique(texts),
        },
        repeat,
    )
    took = {name: cpu for name, (cpu, _) in both.items()}
    took["an epoch of basic"] = epoch(table, epochs)
    print(f"{table.num_rows:,} ratings, {len(texts):,} ids as text")
    for name, seconds in took.items():
        print(f"{name:<30}{seconds:>9.3f} CPU-s")
    return {
        "encode_vs_unique": took["np.unique of user_id"] / took["encode user_id"],
        "encode_vs_unique_text": took["np.unique of user_id as text"] / took["encode user_id as text"],
        "read_share_of_epoch": took["read and encode"] / took["an epoch of basic"],
        "read_vs_pyarrow": took["read and encode"] / took["pyarrow reads the columns"],
        **first,
    }


def main() -> None:
    """Print a table and the line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ratings", type=int, help="how many to make up; 25,000,000, or with --quick 1,000,000")
    parser.add_argument("--source", help="Parquet files to read instead: a file, a folder or a glob")
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=1, help="epochs to take the median of")
    parser.add_argument("--only-night", action="store_true", help="the first reading, and nothing else")
    parser.add_argument("--quick", action="store_true")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        if not given.source:
            count = given.ratings or (1_000_000 if given.quick else 25_000_000)
            random = np.random.default_rng(1)
            generate.write(Path(folder), generate.world(random, count // 154 + 1, count // 423 + 200, count), random)
        source = given.source or f"{folder}/ratings"
        figures = first_night(source)[1] if given.only_night else compare(source, given.repeat, given.epochs)
    for name, (bound, target) in () if given.only_night else TARGETS.items():
        print(f"{name}: {figures[name]:.3g}, {bound} {target:g} wanted")
    print(json.dumps({"benchmark": "reading", "figures": {name: float(f"{f:.4g}") for name, f in figures.items()}}))


if __name__ == "__main__":
    main()
