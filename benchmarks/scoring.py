"""How many pairs of user and movie are scored in a core-second: recjob's kernels beside implicit, `predict`, and the limit.

    python benchmarks/scoring.py [--users 1024] [--movies 60000] [--factors 407] [--top 50] [--repeat 5]

product: a factored model such as `default`; every user against every movie, seen ones left out, the best kept. Beside it
implicit's `topk` with a filter, at the same number of factors, and the matrix product alone, by numpy.
mlp: the article's network; beside it the same as Keras `predict` over pairs, in batches of 8192.

Process CPU time, medians of interleaved repeats; what is compared shares the run. Weights are random: time does not depend on
them. The last line is JSON: {"benchmark": "scoring", "figures": {name: pairs in a core-second}, "ratios": {..}}.
"""

import argparse
import json
import os
import time
from collections.abc import Callable
from statistics import median
from types import SimpleNamespace
from typing import Any

import numpy as np

from recommender import models
from recommender.config import recipe
from recommender.device import block_users
from recommender.grid import GROUP, Grid, best
from recommender.tensorflow import tf


def product(given: argparse.Namespace) -> dict[str, tuple[int, Callable[[], Any]]]:
    """What a factored model is compared with; (pairs, run) by name."""
    random = np.random.default_rng(0)
    movies = random.normal(size=(given.movies, given.factors)).astype(np.float32)
    users = random.normal(size=(given.users, given.factors)).astype(np.float32)
    seen = [np.sort(random.choice(given.movies, given.seen, replace=False)) for _ in range(given.users)]
    model = SimpleNamespace(
        factored=True,
        encode_movies=lambda rows: tf.gather(np.vstack([movies[:1], movies]), rows),
        score_grid=lambda left, right: tf.matmul(left, right, transpose_b=True),
    )
    grid, size = Grid(model, np.arange(1, given.movies + 1, dtype=np.int32)), block_users(given.movies)

    @tf.function(reduce_retracing=True)
    def choose(codes: Any, rated: Any) -> Any:
        scores, broken = grid.scores(codes)
        masked = tf.tensor_scatter_nd_update(scores, rated, tf.fill(tf.shape(rated)[:1], -np.inf))
        return *best(masked, given.top), broken

    def recjob() -> None:
        for first in range(0, given.users, size):
            block = seen[first : first + size]
            place = np.repeat(np.arange(len(block)), given.seen)
            cells = np.stack([place, np.concatenate(block)], axis=1).astype(np.int32)
            choose(tf.constant(users[first : first + size]), tf.constant(cells))[0].numpy()

    def limit() -> None:
        for first in range(0, given.users, size):
            users[first : first + size] @ movies.T

    pairs = given.users * given.movies
    found: dict[str, tuple[int, Callable[[], Any]]] = {
        "product": (pairs, recjob),
        "numpy product alone": (pairs, limit),
    }
    try:
        import scipy.sparse as sp
        from implicit.cpu.topk import topk
    except ImportError as error:
        print(f"implicit is left out: {error}: pip install -e '.[bench]'")
        return found
    starts = np.arange(0, given.users * given.seen + 1, given.seen)
    shape = (given.users, given.movies)
    filtered = sp.csr_matrix((np.ones(starts[-1], np.float32), np.concatenate(seen), starts), shape=shape)

    def implicit() -> None:
        for first in range(0, given.users, 100):
            part = slice(first, first + 100)
            topk(movies, users[part], given.top, filter_query_items=filtered[part], num_threads=os.cpu_count())

    return found | {"implicit topk, filtered": (pairs, implicit)}


def mlp(given: argparse.Namespace) -> dict[str, tuple[int, Callable[[], Any]]]:
    """What the article's network is compared with, on fewer users."""
    users, movies = 2 * GROUP, min(given.movies, 10_000)
    model = models.build(recipe("basic").model, users + 1, movies + 1)
    grid, rows = Grid(model, np.arange(1, movies + 1, dtype=np.int32)), tf.range(1, users + 1)
    keras = tf.keras.Sequential([tf.keras.layers.InputLayer((64,)), *model.hidden, model.rating])
    few = 4
    pairs = np.repeat(np.arange(1, few + 1), movies), np.tile(np.arange(1, movies + 1), few)

    def predict() -> None:
        joined = np.hstack([model.user_embedding(pairs[0]).numpy(), model.movie_embedding(pairs[1]).numpy()])
        keras.predict(joined, batch_size=8192, verbose=0)

    def recjob() -> None:
        best(grid.scores(model.encode_users(rows))[0], given.top)[0].numpy()

    return {"mlp": (users * movies, recjob), "Keras predict over pairs": (few * movies, predict)}


def main() -> None:
    """Print a table and the line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--users", type=int, default=1024)
    parser.add_argument("--movies", type=int, default=60_000)
    parser.add_argument("--factors", type=int, default=407, help="as many as a user of `default` has")
    parser.add_argument("--seen", type=int, default=150, help="movies that each user has seen")
    parser.add_argument("--top", type=int, default=50)
    parser.add_argument("--repeat", type=int, default=5)
    given = parser.parse_args()
    variants = product(given) | mlp(given)
    took: dict[str, list[float]] = {name: [] for name in variants}
    for repeat in range(given.repeat + 1):
        for name, (_, run) in variants.items():
            began = time.process_time()
            run()
            if repeat:  # the first compiles
                took[name].append(time.process_time() - began)
    figures = {name: pairs / median(took[name]) for name, (pairs, _) in variants.items()}
    for name, figure in figures.items():
        print(f"{name:<28}{figure / 1e6:>10.2f} M pairs in a core-second")
    compared = (
        ("product", "implicit topk, filtered"),
        ("product", "numpy product alone"),
        ("mlp", "Keras predict over pairs"),
    )
    ratios = {f"{a} / {b}": figures[a] / figures[b] for a, b in compared if b in figures}
    for name, ratio in ratios.items():
        print(f"{name}: {ratio:.2f}")
    print(
        json.dumps(
            {"benchmark": "scoring", "figures": {name: round(f) for name, f in figures.items()}, "ratios": ratios}
        )
    )


if __name__ == "__main__":
    main()
