"""How many examples are trained on in a core-second: recjob's own loop beside the tutorial's pipeline and two ceilings.

    python benchmarks/training.py [--quick] [--repeat 7]

mlp_vs_tutorial: ratings in a core-second of `train` with `basic`, over those of the article's pipeline as it has it: ids as
text, one element of tf.data at a time, shuffled and batched, StringLookup in the model, `model.fit` with Adagrad.
mlp_vs_not_autotuned: the same over that pipeline without the autotuner of tf.data, which on a busy machine can cost five times
the pipeline. The article keeps its batches in a cache, so all passes but the first are quicker: printed, in no figure.
mlp_vs_ceiling: the same over the network alone: forward and backward of its layers, for a batch that lies in memory, without
embeddings and without an optimizer.
default_vs_ceiling: the time of the products alone that a step of `default` is made of as its loss is written down, over the
time of the step. Those are, forward and backward, by TensorFlow's products of sparse and dense matrices in the widths in
which they are quickest: raters by movie; per rating of the batch, its movie among what the user rated, by 1 and by surprise
(stars), among the good, the poor and the newest (choice); the rows of movies and users that a rating looks up (five); and
the logits. The step also has the softmax, the errors, the draws and the optimizer. What it need not compute, since a weight
is 0, is in the ceiling all the same: so it stays where it is while the step changes.

Ratings are made up: a million, of 6,000 users and 4,000 movies, with long tails. Process CPU time, medians; each epoch of
recjob's is followed by a repeat of its peers in the same process. --quick repeats less, and gives the tutorial a twentieth
of the ratings. The last line is JSON: {"benchmark": "training", "figures": {..}}.
"""

import argparse
import json
import time
from collections.abc import Callable
from functools import partial
from statistics import median
from typing import Any

import numpy as np
import pyarrow as pa

from recommender import models
from recommender.config import recipe
from recommender.facts import some_raters
from recommender.known import known
from recommender.sparse import strips
from recommender.tensorflow import tf, tfrs
from recommender.train import Epoch, train, vocabularies_of

USERS, MOVIES = 6000, 4000
BATCH, WIDTH = 8192, 32
TARGETS = {"mlp_vs_tutorial": 3.3, "mlp_vs_not_autotuned": 3.3, "mlp_vs_ceiling": 0.65, "default_vs_ceiling": 0.65}
Took = dict[str, list[float]]


def made(ratings: int) -> pa.Table:
    """Ratings of users and movies some of which have many times as many as others, each pair once."""
    random = np.random.default_rng(0)
    often = random.pareto(1.5, USERS) + 0.2, (np.arange(MOVIES) + 20.0) ** -0.9
    user, movie = (random.choice(len(p), ratings * 2, p=p / p.sum()) for p in often)
    user, movie = np.divmod(random.permutation(np.unique(user * MOVIES + movie))[:ratings], MOVIES)
    at = pa.array(random.integers(0, 1000 * 86_400, len(user)) * 1_000_000, pa.timestamp("us", "UTC"))
    stars = random.integers(1, 6, len(user)).astype(np.float32)
    return pa.table({"user_id": user + 1, "movie_id": movie + 1, "rating": stars, "rated_at": at})


class Tutorial(tfrs.models.Model):
    """The article's model as it is written: vocabularies of text in the model."""

    def __init__(self, users: list[str], movies: list[str]) -> None:
        super().__init__()

        def embedded(ids: list[str]) -> Any:
            lookup = tf.keras.layers.StringLookup(vocabulary=ids, mask_token=None)
            return tf.keras.Sequential([lookup, tf.keras.layers.Embedding(len(ids) + 1, WIDTH)])

        self.users, self.movies = embedded(users), embedded(movies)
        layers = [tf.keras.layers.Dense(256, activation="relu"), tf.keras.layers.Dense(64, activation="relu")]
        self.ratings = tf.keras.Sequential([*layers, tf.keras.layers.Dense(1)])
        self.task = tfrs.tasks.Ranking(
            loss=tf.keras.losses.MeanSquaredError(), metrics=[tf.keras.metrics.RootMeanSquaredError()]
        )

    def compute_loss(self, features: Any, training: bool = False) -> Any:
        """Mean squared error."""
        pair = tf.concat([self.users(features["user_id"]), self.movies(features["movie_title"])], axis=1)  # (B, 2d)
        return self.task(labels=features["user_rating"], predictions=self.ratings(pair))


def tutorial(ratings: pa.Table) -> dict[str, Callable[[], Any]]:
    """A pass over `ratings` as the article has it, one without tf.data's autotuner, and one over batches in the cache."""
    text = {name: ratings[name].cast(pa.string()).to_numpy().astype(str) for name in ("user_id", "movie_id")}
    rows = {"user": text["user_id"], "movie": text["movie_id"], "stars": ratings["rating"].to_numpy()}
    data = tf.data.Dataset.from_tensor_slices(rows)
    data = data.map(lambda x: {"user_id": x["user"], "movie_title": x["movie"], "user_rating": x["stars"]})
    data = data.shuffle(100_000).batch(BATCH)
    model = Tutorial(*(sorted(set(ids)) for ids in text.values()))
    model.compile(optimizer=tf.keras.optimizers.Adagrad(learning_rate=0.1))
    options = tf.data.Options()
    options.autotune.enabled = False
    kinds = {"tutorial": data, "not autotuned": data.with_options(options), "from its cache": data.cache()}
    return {name: partial(model.fit, kind, epochs=1, verbose=0) for name, kind in kinds.items()}


def network(ratings: int) -> Callable[[], Any]:
    """Forward and backward of the article's layers, as often as there are batches."""
    model = models.build(recipe("basic").model, 1, 1)
    layers = [*model.hidden, model.rating]
    random = np.random.default_rng(0)
    pair = tf.constant(random.normal(size=(BATCH, 2 * WIDTH)).astype(np.float32))
    stars = tf.constant(random.normal(size=(BATCH, 1)).astype(np.float32))

    @tf.function
    def step() -> Any:
        with tf.GradientTape() as tape:
            tape.watch(pair)
            x = pair
            for layer in layers:
                x = layer(x)
            loss = tf.reduce_mean((x - stars) ** 2)
        return tape.gradient(loss, [pair, *(weight for layer in layers for weight in layer.trainable_variables)])

    def run() -> None:
        for _ in range(ratings // BATCH):
            found = step()
        found[0].numpy()

    return run


def products(ratings: pa.Table) -> Callable[[], Any]:
    """The products of one step of `default`, forward and backward; see the head of this file."""
    model, size = recipe("default").model, recipe("default").train.batch_size
    facts, random = known(ratings, *vocabularies_of(ratings, "movie_id")), np.random.default_rng(0)
    batch = np.sort(random.permutation(np.arange(1, facts.users.rows))[:size])
    counts = np.diff(facts.starts)[batch]
    row = np.repeat(np.arange(size), counts)
    at = np.repeat(facts.starts[batch] - (np.cumsum(counts) - counts), counts) + np.arange(counts.sum())
    each, movies, users = np.arange(len(at)), facts.movies.rows, facts.users.rows
    raters = some_raters(facts, 1 << 20)[0]

    def normal(*shape: int) -> Any:
        return tf.constant(random.normal(size=shape).astype(np.float32))

    def sparse(rows: Any, columns: Any, shape: tuple[int, int]) -> Any:
        cells = np.stack([rows, columns], axis=1).astype(np.int64)
        return tf.SparseTensor(cells, np.ones(len(cells), np.float32), shape)

    k, d = model.stars_dimension + 1, model.choice_dimension
    by_movie = sparse(facts.movie[raters], facts.user[raters], (movies, users))
    rated = sparse(row, facts.movie[at], (size, movies))
    of_movie, of_user = sparse(each, facts.movie[at], (len(at), movies)), sparse(each, row, (len(at), size))
    wide = strips(d) * 3
    forward = [(by_movie, [k]), (rated, [k, k]), (rated, wide)]
    sides = [(m, [(normal(m.shape[1], w), normal(m.shape[0], w)) for w in widths]) for m, widths in forward]
    rows = [(of_movie, facts.movie[at], normal(movies, k), normal(len(at), k)) for _ in range(3)]
    rows += [(of_user, row, normal(size, k), normal(len(at), k)) for _ in range(2)]
    people, films, logits = normal(size, d + 1), normal(movies, d + 1), normal(size, movies)

    @tf.function
    def step() -> Any:
        found = [tf.matmul(people, films, transpose_b=True)]
        found += [tf.matmul(logits, films), tf.matmul(logits, people, transpose_a=True)]
        for matrix, parts in sides:
            for right, upstream in parts:
                found.append(tf.sparse.sparse_dense_matmul(matrix, right))
                found.append(tf.sparse.sparse_dense_matmul(matrix, upstream, adjoint_a=True))
        for chosen, place, table, upstream in rows:
            found.append(tf.gather(table, place))
            found.append(tf.sparse.sparse_dense_matmul(chosen, upstream, adjoint_a=True))
        return [part[0, 0] for part in found]

    return lambda: step()[0].numpy()


def timed(run: Callable[[], Any]) -> float:
    """Process CPU time, in seconds."""
    began = time.process_time()
    run()
    return time.process_time() - began


def measured(ratings: pa.Table, name: str, repeat: int, peers: dict[str, Callable[[], Any]]) -> Took:
    """CPU seconds of the epochs of a recipe, and of the peers after each, but for the first of all, which compile."""
    took: Took = {each: [] for each in (name, *peers)}
    began = 0.0

    def after(epoch: Epoch) -> None:
        nonlocal began
        own = time.process_time() - began
        others = {peer: timed(run) for peer, run in peers.items()}
        if epoch.number > 1:
            for each, seconds in ((name, own), *others.items()):
                took[each].append(seconds)
        began = time.process_time()

    # The partners that are solved for are no part of a step: few components do.
    train(ratings, recipe(name, epochs=repeat + 1, taste_dimension=4, ridge_dimension=4), on_epoch=after)
    return took


def main() -> None:
    """Print a table and the line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="less than a minute on two quiet cores")
    parser.add_argument("--repeat", type=int, default=7)
    parser.add_argument("--ratings", type=int, default=1_000_000)
    given = parser.parse_args()
    repeat = min(2, given.repeat) if given.quick else given.repeat
    ratings = made(given.ratings)
    some = ratings.slice(0, len(ratings) // 20 if given.quick else len(ratings))
    pipelines = tutorial(some)
    took = measured(ratings, "basic", repeat, pipelines | {"network": network(len(ratings))})
    batches = len(ratings) // BATCH
    counts = {"basic": len(ratings), "network": batches * BATCH} | {name: len(some) for name in pipelines}
    rate = {name: count / median(took[name]) for name, count in counts.items()}
    for name, figure in rate.items():
        print(f"{name:<24}{figure / 1000:>8.0f} thousand ratings in a core-second")
    steps = 6  # of an epoch of `default`, for a pass of six batches
    took = measured(ratings, "default", 2 * repeat, {"products": products(ratings)})
    step = {"default": median(took["default"]) / steps, "products": median(took["products"])}
    for name, seconds in step.items():
        print(f"{name:<24}{1000 * seconds:>8.0f} ms of CPU a step")
    figures = {
        "mlp_vs_tutorial": rate["basic"] / rate["tutorial"],
        "mlp_vs_not_autotuned": rate["basic"] / rate["not autotuned"],
        "mlp_vs_ceiling": rate["basic"] / rate["network"],
        "default_vs_ceiling": step["products"] / step["default"],
    }
    for name, figure in figures.items():
        print(f"{name:<24}{figure:>8.2f} of at least {TARGETS[name]}")
    print(json.dumps({"benchmark": "training", "figures": {name: round(f, 3) for name, f in figures.items()}}))


if __name__ == "__main__":
    main()
