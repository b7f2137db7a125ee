"""How many pairs of user and movie are scored in a core-second: recjob's kernels beside other libraries and the limit.

    python benchmarks/scoring.py [--quick] [--users 1024] [--movies 60000] [--factors 407] [--top 50] [--repeat 5]

factor: a factored model such as `default`; every user against every movie, seen ones left out, the best kept. Beside it, at the
same number of factors, implicit's `topk` with a filter, faiss and TFRS BruteForce (which have none), and the matrix product
alone, by numpy. Weights are random: time does not depend on them.
grid: the article's network, untrained; beside it Keras `predict` over pairs in batches of 8192 and of 32, and the rate at which
numpy multiplies large matrices, in pairs of 32.9 thousand operations.
screen: the same network, trained on made-up ratings (generate.py), with and without its screen; how much of the exact lists the
screened ones hold. Time is that of blocks of users after the first: making the screen is about as much as scoring 512 users.
rounded: the factored model, its product rounded as tensor cores have it and the best scored anew (recommender/rounded.py); on a
CPU it only costs.
rss: peak memory of scoring four times as many users over that of scoring one times, each in a process of its own; with_memory:
with the blocks of --memory 256MiB.
blocks.py is run, too, where there is a GPU, or with --blocks.

Process CPU time, medians of interleaved repeats; what is compared shares the run. The last line is JSON:
{"benchmark": "scoring", "figures": {ratio: ..}, "pairs_per_core_second": {..}}.
"""

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from types import SimpleNamespace
from typing import Any

import blocks
import generate
import numpy as np
import pyarrow as pa
from timing import interleaved

from recommender import history, models, score
from recommender.candidates import Candidates
from recommender.config import recipe
from recommender.device import block_users
from recommender.device import name as name_of_device
from recommender.grid import GROUP, Grid, best
from recommender.ready import Ready
from recommender.rounded import FLOAT32, TF32, Rounded
from recommender.screen import Screening
from recommender.tensorflow import tf, tfrs
from recommender.train import train
from recommender.vocabulary import Vocabulary

PAIR = 2 * (256 * 64 + 64)
"""Floating-point operations of the network for a pair, its first layer done once per user and movie."""
Variants = dict[str, tuple[int, Callable[[], Any]]]
"""Pairs, and what scores them, by name."""


def factored(given: argparse.Namespace) -> Variants:
    """A factored model, and what it is compared with."""
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
    brute = tfrs.layers.factorized_top_k.BruteForce(k=given.top).index(movies)

    def recjob(product: Rounded) -> None:
        for first in range(0, given.users, size):
            block, codes = seen[first : first + size], tf.constant(users[first : first + size])
            place = np.repeat(np.arange(len(block)), given.seen)
            cells = np.stack([place, np.concatenate(block)], axis=1).astype(np.int32)
            bounds = tf.tensor_scatter_nd_update(product.bounds(codes), cells, tf.fill([len(cells)], -np.inf))
            highest, _, sure = product.best(bounds, codes)
            highest.numpy()
            if not sure.numpy().all():  # a night would score these again
                raise SystemExit(f"{(~sure.numpy()).sum()} of {len(block)} lists are not proven")

    def limit() -> None:
        for first in range(0, given.users, size):
            users[first : first + size] @ movies.T

    def brute_force() -> None:
        for first in range(0, given.users, size):
            brute(tf.constant(users[first : first + size]))[0].numpy()

    plain, few_bits = (partial(recjob, Rounded(grid, given.top, bits)) for bits in (FLOAT32, TF32))
    pairs = given.users * given.movies
    found: Variants = {"factor": (pairs, plain), "product": (pairs, limit), "TFRS BruteForce": (pairs, brute_force)}
    found["rounded"] = (pairs, few_bits)
    return found | _implicit(given, users, movies, seen) | _faiss(given, users, movies)


def _implicit(given: argparse.Namespace, users: np.ndarray, movies: np.ndarray, seen: list[np.ndarray]) -> Variants:
    try:
        import scipy.sparse as sp
        from implicit.cpu.topk import topk
    except ImportError as error:
        print(f"implicit is left out: {error}: pip install -e '.[bench]'")
        return {}
    starts = np.arange(0, given.users * given.seen + 1, given.seen)
    shape = (given.users, given.movies)
    filtered = sp.csr_matrix((np.ones(starts[-1], np.float32), np.concatenate(seen), starts), shape=shape)

    def run() -> None:
        for first in range(0, given.users, 100):
            part = slice(first, first + 100)
            topk(movies, users[part], given.top, filter_query_items=filtered[part], num_threads=os.cpu_count())

    return {"implicit": (given.users * given.movies, run)}


def _faiss(given: argparse.Namespace, users: np.ndarray, movies: np.ndarray) -> Variants:
    try:
        import faiss
    except ImportError as error:
        print(f"faiss is left out: {error}: pip install faiss-cpu")
        return {}
    index = faiss.IndexFlatIP(given.factors)
    index.add(movies)
    return {"faiss": (given.users * given.movies, lambda: index.search(users, given.top))}


def grid(given: argparse.Namespace) -> Variants:
    """The article's network, and what it is compared with; each on as many pairs as take about a second."""
    users, movies = 8 * GROUP, min(given.movies, 10_000)
    model = models.build(recipe("basic").model, users + 1, movies + 1)
    made, rows = Grid(model, np.arange(1, movies + 1, dtype=np.int32)), tf.range(1, users + 1)
    keras = tf.keras.Sequential([tf.keras.layers.InputLayer((64,)), *model.hidden, model.rating])
    left, right = (np.random.default_rng(1).normal(size=(1536, 1536)).astype(np.float32) for _ in range(2))

    def predict(users: int, batch: int) -> None:
        pairs = np.repeat(np.arange(1, users + 1), movies), np.tile(np.arange(1, movies + 1), users)
        joined = np.hstack([model.user_embedding(pairs[0]).numpy(), model.movie_embedding(pairs[1]).numpy()])
        keras.predict(joined, batch_size=batch, verbose=0)

    def recjob() -> None:
        best(made.scores(model.encode_users(rows))[0], given.top)[0].numpy()

    return {
        "grid": (users * movies, recjob),
        "predict, 8192 pairs": (4 * movies, lambda: predict(4, 8192)),
        "predict, 32 pairs": (movies, lambda: predict(1, 32)),
        "gemm": (4 * 2 * 1536**3 // PAIR, lambda: [left @ right for _ in range(4)]),
    }


def screen(given: argparse.Namespace, movies: int) -> tuple[Variants, Callable[[], float]]:
    """The network trained on made-up ratings, exact and screened, and what share of the exact lists is found."""
    random = np.random.default_rng(3)
    users, name = 8192, f"{movies // 1000}k"
    ratings = generate.table(random, generate.world(random, users, movies, given.ratings))
    ids = pa.array(np.arange(1, movies + 1))
    known = Vocabulary.of(ratings["user_id"]), Vocabulary.of(pa.chunked_array([ids]))
    ready = train(ratings, recipe("basic"), vocabularies=known).ready(ratings)
    counts = np.bincount(ratings["movie_id"].to_numpy(), minlength=movies + 1)[1:]
    candidates = Candidates(ids, counts, np.full(movies, 3.5, np.float32))
    seen = history.of(ratings, None, candidates)
    said: list[Screening] = []

    def blocks(ready: Ready, size: int, exact: bool) -> Any:
        return score.top_n(ready, candidates, seen, given.top, users_per_block=size, exact=exact, on_screen=said.append)

    few, many = 2 * GROUP if given.quick else 64, min(block_users(movies), 512)
    exact, screened = blocks(ready, few, True), blocks(ready, many, False)
    found = [next(exact), next(screened)]  # compiles, and makes the screen
    print(f"screen, {name} movies: {said[0]}")

    def recall() -> float:
        listed = [set(map(tuple, zip(*(b.recommendations[c].to_pylist() for c in (0, 2)), strict=True))) for b in found]
        names = set(found[0].status["user_id"].to_pylist())
        return len(listed[0] & listed[1]) / sum(user in names for user, _ in listed[1])

    return {
        f"exact {name}": (few * movies, lambda: next(exact)),
        f"screen {name}": (many * movies, lambda: next(screened)),
    }, recall


def peak(users: int, movies: int, mib: int = 0) -> int:
    """Peak memory, KiB, of a process that scores so many users, with twenty ratings each, in `mib` of memory or by default."""
    command = [sys.executable, __file__, "--only-memory", str(users), str(mib), "--movies", str(movies)]
    return int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def only_memory(users: int, mib: int, movies: int) -> None:
    """Score, and print the peak."""
    import resource

    random, ratings = np.random.default_rng(4), 20 * users
    user, movie = np.repeat(np.arange(users), 20), random.integers(0, movies, ratings)
    at = pa.array(np.arange(ratings), pa.timestamp("us", "UTC"))
    table = pa.table({"user_id": user, "movie_id": movie, "rating": np.full(ratings, 4, np.float32), "rated_at": at})
    candidates = Candidates(pa.array(np.arange(movies)), np.zeros(movies, np.int64), np.zeros(movies, np.float32))
    known = Vocabulary.of(table["user_id"]), Vocabulary.of(pa.chunked_array([candidates.ids]))
    model = models.build(recipe("basic", hidden_units=(8,), embedding_dimension=4).model, *(v.rows for v in known))
    ready = Ready(model, *known, "movie_id", (1.0, 5.0), None)
    seen = history.of(table, None, candidates)
    for _ in score.top_n(ready, candidates, seen, 50, users_per_block=block_users(movies, mib * 2**20 or None)):
        pass
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)


def measured(variants: Variants, repeat: int) -> dict[str, float]:
    """Pairs in a core-second; the first round, which compiles, does not count."""
    took = interleaved({name: run for name, (_, run) in variants.items()}, repeat)
    return {name: pairs / took[name][0] for name, (pairs, _) in variants.items()}


COMPARED = {
    "factor_vs_implicit": ("factor", "implicit"),
    "factor_vs_gemm": ("factor", "product"),
    "rounded_vs_factor": ("rounded", "factor"),
    "factor_vs_brute_force": ("factor", "TFRS BruteForce"),
    "factor_vs_faiss": ("factor", "faiss"),
    "grid_vs_gemm_peak": ("grid", "gemm"),
    "grid_vs_predict_pairs": ("grid", "predict, 8192 pairs"),
    "grid_vs_predict_default": ("grid", "predict, 32 pairs"),
    "screen_vs_grid_60k": ("screen 60k", "exact 60k"),
    "screen_vs_grid_10k": ("screen 10k", "exact 10k"),
}


def main() -> None:
    """Print a table and the line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer users and repeats, less training")
    parser.add_argument("--users", type=int, default=1024)
    parser.add_argument("--movies", type=int, default=60_000)
    parser.add_argument("--factors", type=int, default=407, help="as many as a user of `default` has")
    parser.add_argument("--seen", type=int, default=150, help="movies that each user has seen")
    parser.add_argument("--top", type=int, default=50)
    parser.add_argument("--ratings", type=int, default=2_000_000, help="to train the screened network on")
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--blocks", action="store_true", help="blocks by the clock, also where there is no GPU")
    parser.add_argument("--only-memory", type=int, nargs=2, metavar=("USERS", "MIB"), help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.only_memory:
        only_memory(*given.only_memory, given.movies)
        return
    if given.quick:
        given.users, given.ratings, given.repeat = 256, min(given.ratings, 100_000), min(given.repeat, 2)
    rates, recalls = measured(factored(given) | grid(given), given.repeat), []
    for movies in (10_000, 60_000):
        variants, recall = screen(given, movies)
        rates |= measured(variants, given.repeat)
        recalls.append(recall())
    for name, rate in rates.items():
        print(f"{name:<24}{rate / 1e6:>10.2f} M pairs in a core-second")
    figures = {name: round(rates[a] / rates[b], 4) for name, (a, b) in COMPARED.items() if b in rates}
    figures |= {"screen_recall": min(recalls)}
    users = 2_000 if given.quick else 40_000
    for name, mib in {"rss_4x_users": 0, "rss_4x_users_with_memory": 256}.items():
        figures[name] = round(peak(4 * users, 2_000, mib) / peak(users, 2_000, mib), 3)
    for name, figure in figures.items():
        print(f"{name:<24}{figure:>10.3f}")
    by_block = (
        blocks.measured(given.movies, given.factors, given.top) if given.blocks or name_of_device() != "cpu" else []
    )
    report = {"benchmark": "scoring", "figures": figures, "pairs_per_core_second": rates, "device": name_of_device()}
    print(json.dumps(report | {"blocks": by_block}))


if __name__ == "__main__":
    main()
