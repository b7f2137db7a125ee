"""From ratings to a trained model: encode once, step over integer batches, stop in time, come back after a crash."""

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from recommender import models, optimizer, replicas
from recommender.config import Recipe, TrainConfig
from recommender.errors import InvalidModel, TrainingDiverged
from recommender.known import NO_ATTRIBUTES, NO_NAMES, Attributes, Known, Names, known
from recommender.ready import Ready, stars_of
from recommender.tensorflow import tf, tidy, traced
from recommender.vocabulary import Vocabulary, all_ids

_CHECK_EVERY = 16
"""Steps between two looks at whether the loss is still finite."""
_HASHED = 1 << 20
"""Ids that are hashed at once."""

Arrays = dict[str, NDArray[Any]]
Pairs = dict[str, NDArray[Any]]
"""`user` int32 (B,), `movie` int32 (B,), `rating` float32 (B,)."""


@dataclass(frozen=True)
class Epoch:
    """One line of the training history; RMSE in stars."""

    number: int
    train_rmse: float
    """Mean over the epoch, while the weights were changing."""
    holdout_rmse: float | None


@dataclass(frozen=True)
class Trained:
    """A trained model as plain values: no code is stored, none is run by loading it."""

    recipe: Recipe
    users: Vocabulary
    movies: Vocabulary
    rating_scale: tuple[float, float]
    """Lowest and highest rating; predictions are clipped to it."""
    weights: Arrays
    history: tuple[Epoch, ...] = field(default=(), compare=False)
    names: Names = NO_NAMES
    """The features that a model by history knows."""

    @cached_property
    def model(self) -> Any:
        """A live TFRS model with these weights; raises `InvalidModel` where they do not fit."""
        model = models.build(self.recipe.model, self.users.rows, self.movies.rows, self.names)
        _restore(_stored(model), self.weights, "weight")
        return model

    @property
    def parameters(self) -> int:
        """Number of weights, trained and solved for."""
        return sum(int(weight.size) for weight in self.weights.values())

    def changed(self, **changes: Any) -> "Trained":
        """The same weights with some hyper-parameters replaced that training does not depend on."""
        return dataclasses.replace(self, recipe=self.recipe.changed(**changes))

    def ready(self, ratings: pa.Table, attributes: Attributes = NO_ATTRIBUTES) -> Ready:
        """The model as of a moment, when these `ratings` and `attributes` are known.

        A model by history scores everybody in them by their ratings there, whether or not they were there in training.
        For any other they are of no account.
        """
        config = self.recipe.model
        if not config.by_history:
            return Ready(self.model, self.users, self.movies, config.movie_key, self.rating_scale, None)
        tidy()  # gigabytes that would else be there twice
        users = all_ids("user_id", ratings, attributes.users)
        movies = all_ids("movie_id", ratings, attributes.movies)
        model = dataclasses.replace(self).model  # one of its own: it remembers
        rows = _user_rows(self.users, users, config.user_rows), _and_unknown(self.movies, movies)
        model.remember(known(ratings, users, movies, attributes, self.names), *rows, learns=False)
        model.settle()
        return Ready(model, users, movies, config.movie_key, self.rating_scale, np.diff(model.facts["starts"].numpy()))


class Checkpoints(Protocol):
    """Where unfinished training is kept between two lives of a run."""

    def load(self) -> Arrays | None:
        """The newest state, or None."""

    def save(self, state: Arrays) -> None:
        """Replace the state, whole or not at all."""


def train(
    ratings: pa.Table,
    recipe: Recipe,
    *,
    attributes: Attributes = NO_ATTRIBUTES,
    holdout: pa.Table | None = None,
    vocabularies: tuple[Vocabulary, Vocabulary] | None = None,
    checkpoints: Checkpoints | None = None,
    devices: int = 1,
    task: Mapping[str, str] | None = None,
    on_epoch: Callable[[Epoch], None] = lambda epoch: None,
) -> Trained:
    """Fit `recipe` to `ratings`; a model by history learns from `attributes`, too.

    With `train.patience`, the epoch with the best RMSE on `holdout` is the one kept. Vocabularies default to the ids in
    `ratings`. The same ratings, recipe and seed give the same weights on the same kind of CPU, whether or not the
    training was cut off in between and went on from `checkpoints`. `devices`: GPUs that take part, 0 for all; on several the
    weights are those of one but for what chance does. Hosts that train together must name the same `task`. Raises
    `TrainingDiverged`, `HostsFailed`.
    """
    tidy()
    users, movies = vocabularies or vocabularies_of(ratings, recipe.model.movie_key)
    facts = known(ratings, users, movies, attributes) if recipe.model.by_history else None
    pairs = {} if recipe.model.by_history else encode(ratings, users, movies, recipe.model.movie_key)
    held = encode(holdout, users, movies, recipe.model.movie_key) if holdout is not None and holdout.num_rows else None
    spread = replicas.strategy(devices)
    with replicas.reachable():
        replicas.agree(task or {})
        with spread.scope() if spread else nullcontext():
            fit = _Fit(recipe, users.rows, movies.rows, pairs, facts, spread)
        del facts, pairs  # the fit has its own of what it goes on to use
        if checkpoints is not None and (saved := checkpoints.load()) is not None:
            fit.restore(saved)
        replicas.agree({**(task or {}), "unfinished training": str(len(fit.history))})
        while not fit.finished:
            epoch = fit.run_epoch(held)
            if checkpoints is not None:
                checkpoints.save(fit.state())
            on_epoch(epoch)
    stars = ratings["rating"].to_numpy().astype(np.float32)
    scale = (float(np.min(stars)), float(np.max(stars)))
    return Trained(recipe, users, movies, scale, fit.best_weights(), tuple(fit.history), fit.names)


def vocabularies_of(ratings: pa.Table, movie_key: str) -> tuple[Vocabulary, Vocabulary]:
    """The users and movies of a ratings table; movies by id or, for the article's models, by title."""
    return Vocabulary.of(ratings["user_id"]), Vocabulary.of(ratings[movie_key])


def encode(ratings: pa.Table, users: Vocabulary, movies: Vocabulary, movie_key: str) -> Pairs:
    """The ratings as embedding rows and stars."""
    return {
        "user": users.encode(ratings["user_id"]),
        "movie": movies.encode(ratings[movie_key]),
        "rating": ratings["rating"].to_numpy().astype(np.float32),
    }


class _Fit:
    """The state of one training: model, optimizer, history and, with patience, the best weights so far."""

    def __init__(self, recipe: Recipe, users: int, movies: int, pairs: Pairs, facts: Known | None, spread: Any) -> None:
        self.config: TrainConfig = recipe.train
        self.examples: Arrays = (
            pairs if facts is None else {"users": np.flatnonzero(np.diff(facts.starts)).astype(np.int32)}
        )
        self.by_history = facts is not None
        tf.keras.utils.set_random_seed(self.config.seed)
        tf.config.experimental.enable_op_determinism()
        self.names = NO_NAMES if facts is None else Names(facts.user_features.names, facts.movie_features.names)
        self.model = models.build(recipe.model, users, movies, self.names)
        if facts is not None:
            self.model.solve(facts, self.config.seed)  # first: it takes most memory, and what is remembered stays
            rows = _user_rows(facts.users, facts.users, recipe.model.user_rows)
            self.model.remember(facts, rows, np.arange(movies, dtype=np.int32))
        in_pass = -(-len(next(iter(self.examples.values()))) // self.config.batch_size)
        self.steps = optimizer.steps_of_epoch(self.config, in_pass)
        self.model.compile(optimizer=optimizer.of(self.config, in_pass, self.steps * self.config.epochs))
        # The slots exist only after a first step, but a checkpoint must be restored before it.
        self.model.optimizer._create_all_weights(self.model.trainable_variables)
        # One graph for all sizes of a batch: one made for the size that comes first would round as that does.
        batch = {name: tf.TensorSpec([None], column.dtype) for name, column in self.examples.items()}
        batch |= {"seed": tf.TensorSpec([2], tf.int32)} if self.by_history else {}
        self.step = replicas.step(self.model, batch, spread)
        self.call = traced(self.model.call, reduce_retracing=True)
        self.history: list[Epoch] = []
        self.best: Arrays | None = None

    @property
    def finished(self) -> bool:
        done = len(self.history)
        if not self.config.patience or done == 0 or self.history[-1].holdout_rmse is None:
            return done >= self.config.epochs
        return done >= self.config.epochs or done - self._best_epoch >= self.config.patience

    def run_epoch(self, held: Pairs | None) -> Epoch:
        """The steps of one epoch, in an order that depends on its number and the seed only."""
        number = len(self.history) + 1
        self.model.reset_metrics()
        train_rmse = float("nan")
        for done, batch in enumerate(self._batches(number), start=1):
            metrics = self.step(batch)
            if done % _CHECK_EVERY == 0 or done == self.steps:
                train_rmse = float(metrics["rmse"])  # the running value of this epoch; reading it waits for the step
                if not np.isfinite(train_rmse):
                    raise TrainingDiverged(number, done, self.config.learning_rate)
        if not all(np.isfinite(weight.numpy()).all() for weight in self.model.trainable_variables):
            # The loss of the last step was taken before it moved the weights.
            raise TrainingDiverged(number, self.steps, self.config.learning_rate)
        epoch = Epoch(number, train_rmse, None if held is None else self._rmse(held))
        self.history.append(epoch)
        if self._best_epoch == number and self.config.patience and held is not None:
            self.best = _named(_stored(self.model), "weight")
        return epoch

    def best_weights(self) -> Arrays:
        """The weights to keep."""
        return self.best if self.best is not None else _named(_stored(self.model), "weight")

    def state(self) -> Arrays:
        """All that a later process needs to go on as if nothing had happened."""
        history = [[e.number, e.train_rmse, np.nan if e.holdout_rmse is None else e.holdout_rmse] for e in self.history]
        best = {f"best/{name}": weight for name, weight in (self.best or {}).items()}
        return {
            **_named(_stored(self.model), "weight"),
            **_named(self.model.optimizer.variables(), "optimizer"),
            **best,
            "history": np.array(history),
        }

    def restore(self, state: Arrays) -> None:
        """The inverse of `state`."""
        _restore(_stored(self.model), state, "weight")
        _restore(self.model.optimizer.variables(), state, "optimizer")
        self.history = [
            Epoch(int(number), float(train_rmse), None if np.isnan(held) else float(held))
            for number, train_rmse, held in state["history"]
        ]
        best = {name.removeprefix("best/"): array for name, array in state.items() if name.startswith("best/")}
        self.best = best or None

    @property
    def _best_epoch(self) -> int:
        return min(self.history, key=lambda e: np.inf if e.holdout_rmse is None else e.holdout_rmse).number

    def _rmse(self, held: Pairs) -> float:
        error = stars_of(self.call, held["user"], held["movie"]).astype(np.float64) - held["rating"]
        return float(np.sqrt(np.mean(error**2)))

    def _batches(self, epoch: int) -> Iterator[dict[str, Any]]:
        """Slices of permuted arrays, pass after pass: nothing here handles one rating at a time."""
        size, count = self.config.batch_size, len(next(iter(self.examples.values())))
        in_pass, shuffled = -(-count // size), None
        for step in range((epoch - 1) * self.steps, epoch * self.steps):
            passes, place = divmod(step, in_pass)
            if shuffled is None or place == 0:
                order = np.random.default_rng([self.config.seed, passes + 1]).permutation(count)
                shuffled = {key: column[order] for key, column in self.examples.items()}
            batch = {key: tf.constant(c[place * size : (place + 1) * size]) for key, c in shuffled.items()}
            yield batch | ({"seed": tf.constant([self.config.seed, step], tf.int32)} if self.by_history else {})


def _stored(model: Any) -> list[Any]:
    return [*model.trainable_variables, *model.solved]


def _and_unknown(own: Vocabulary, now: Vocabulary) -> NDArray[np.int32]:
    """Rows in `own` of the rows of `now`, shape (now.rows,); 0 for the unknown row and for those that are not in it."""
    return np.concatenate([[0], own.encode(now.ids)]).astype(np.int32)


def _user_rows(own: Vocabulary, now: Vocabulary, shared: int) -> NDArray[np.int32]:
    """The same of users; where they share so many rows, the row that is anybody's of that id."""
    rows = _and_unknown(own, now)
    if not shared:
        return rows
    ids = now.ids.cast(pa.string())
    parts = [
        tf.strings.to_hash_bucket_fast(ids[at : at + _HASHED].to_pylist(), shared).numpy() + 1
        for at in range(0, len(ids), _HASHED)
    ]
    return np.where(rows > 0, np.concatenate([[0], *parts]), 0).astype(np.int32)


def _named(variables: list[Any], kind: str) -> Arrays:
    return {f"{kind}/{number:03d}": variable.numpy() for number, variable in enumerate(variables)}


def _restore(variables: list[Any], arrays: Arrays, kind: str) -> None:
    for number, variable in enumerate(variables):
        array = arrays.get(f"{kind}/{number:03d}")
        if array is not None and array.shape == (0, *variable.shape[1:]) and variable.shape[0] == 1:
            continue  # stored when no features had no row: whatever is in the one that nobody has counts for nothing
        if array is None or tuple(array.shape) != tuple(variable.shape):
            found = "missing" if array is None else f"of shape {array.shape}"
            raise InvalidModel(f"{kind} {number} ({variable.name}) is {found}, expected {tuple(variable.shape)}")
        variable.assign(array)
