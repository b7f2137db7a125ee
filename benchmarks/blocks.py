"""Blocks of a factored model by the clock, on the device at hand: what to look at first on a GPU.

    python benchmarks/blocks.py [--movies 60000] [--factors 407] [--top 50]

For blocks of several numbers of users, with and without XLA: millions of pairs of user and movie in a second, listed as recjob
does and with the product rounded first (recommender/rounded.py); what share of the time top-N takes; bytes of GPU memory a
pair, at the peak; and the rate of operations as a share of that of one large float32 product. Medians of 5.
"""

import argparse
import json
import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np

from recommender import device
from recommender.grid import RUN, Grid, best
from recommender.rounded import Rounded
from recommender.tensorflow import tf

USERS = (256, 1024, 4096, 16384)


def measured(movies: int, factors: int, top: int) -> list[dict[str, float]]:
    """Print a table; returns its rows."""
    random = np.random.default_rng(5)
    table = tf.constant(random.normal(size=(movies // RUN * RUN + 1, factors)).astype(np.float32))
    model = SimpleNamespace(
        factored=True,
        encode_movies=lambda rows: tf.gather(table, rows),
        score_grid=lambda left, right: tf.matmul(left, right, transpose_b=True),
    )
    grid, large = Grid(model, np.arange(1, len(table), dtype=np.int32)), tf.ones([4096, 4096])
    limit, few_bits, rows = 2 * 4096**3 / seconds(lambda: tf.matmul(large, large)), Rounded(grid, top), []
    for users in USERS:
        codes = tf.constant(random.normal(size=(users, factors)).astype(np.float32))
        rows += [{"users": users, "xla": xla} | block(grid, few_bits, codes, top, xla, limit) for xla in (False, True)]
    print(device.name())
    print("".join(f"{name:>16}" for name in rows[0]))
    for row in rows:
        print("".join(f"{value:>16.4g}" for value in row.values()))
    return rows


def block(grid: Grid, few_bits: Rounded, codes: Any, top: int, xla: bool, limit: float) -> dict[str, float]:
    """The figures of one block."""
    product = tf.function(lambda codes: grid.scores(codes)[0], jit_compile=xla)
    listed = tf.function(lambda codes: best(grid.scores(codes)[0], top), jit_compile=xla)
    pairs, gpu = codes.shape[0] * grid.width, device.name() != "cpu"
    if gpu:
        tf.config.experimental.reset_memory_stats("GPU:0")
    alone, whole = seconds(lambda: product(codes)), seconds(lambda: listed(codes)[0])
    used = tf.config.experimental.get_memory_info("GPU:0")["peak"] if gpu else 0
    rounded = seconds(lambda: few_bits.best(few_bits.bounds(codes), codes)[0])
    return {
        "m_pairs_s": pairs / whole / 1e6,
        "rounded_m_pairs": pairs / rounded / 1e6,
        "top_n_share": 1 - alone / whole,
        "bytes_a_pair": used / pairs,
        "share_of_peak": 2 * codes.shape[1] * pairs / whole / limit,
    }


def seconds(run: Callable[[], Any]) -> float:
    """Of the clock, until the last number is here; a median after one that compiles."""
    took = []
    for _ in range(6):
        began = time.perf_counter()
        run()[-1, -1].numpy()
        took.append(time.perf_counter() - began)
    return float(np.median(took[1:]))


def main() -> None:
    """Print a table and a line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--movies", type=int, default=60_000)
    parser.add_argument("--factors", type=int, default=407)
    parser.add_argument("--top", type=int, default=50)
    given = parser.parse_args()
    rows = measured(given.movies, given.factors, given.top)
    print(json.dumps({"benchmark": "blocks", "device": device.name(), "blocks": rows}))


if __name__ == "__main__":
    main()
