"""From ratings to a trained model: encode once, step over integer batches, stop in time, come back after a crash."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from recommender import models
from recommender.config import Recipe, TrainConfig
from recommender.errors import InvalidModel, TrainingDiverged
from recommender.tensorflow import tf
from recommender.vocabulary import Vocabulary

_CHECK_EVERY = 16
"""Steps between two looks at whether the loss is still finite."""

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

    @cached_property
    def model(self) -> Any:
        """The live TFRS model with these weights; raises `InvalidModel` where they do not fit."""
        model = models.build(self.recipe.model, self.users.rows, self.movies.rows)
        _restore(model.trainable_variables, self.weights, "weight")
        return model

    @property
    def parameters(self) -> int:
        """Number of trainable parameters."""
        return sum(int(weight.size) for weight in self.weights.values())

    def predict(self, ratings: pa.Table, batch: int = 65536) -> NDArray[np.float32]:
        """Predicted stars for the pairs of a ratings table, clipped to the scale, shape (rows,)."""
        pairs = encode(ratings, self.users, self.movies, self.recipe.model.movie_key)
        call = tf.function(self.model.call, reduce_retracing=True)
        parts = [
            call({key: tf.constant(pairs[key][start : start + batch]) for key in ("user", "movie")}).numpy()
            for start in range(0, ratings.num_rows, batch)
        ]
        return np.clip(np.concatenate(parts or [np.zeros(0, np.float32)]), *self.rating_scale)


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
    holdout: pa.Table | None = None,
    vocabularies: tuple[Vocabulary, Vocabulary] | None = None,
    checkpoints: Checkpoints | None = None,
    on_epoch: Callable[[Epoch], None] = lambda epoch: None,
) -> Trained:
    """Fit `recipe` to `ratings`.

    With `train.patience`, the epoch with the best RMSE on `holdout` is the one kept. Vocabularies default to the ids in
    `ratings`. The same ratings, recipe and seed give the same weights on the same kind of CPU, whether or not the
    training was cut off in between and went on from `checkpoints`. Raises `TrainingDiverged`.
    """
    users, movies = vocabularies or vocabularies_of(ratings, recipe.model.movie_key)
    pairs = encode(ratings, users, movies, recipe.model.movie_key)
    held = encode(holdout, users, movies, recipe.model.movie_key) if holdout is not None and holdout.num_rows else None
    fit = _Fit(recipe, users.rows, movies.rows)
    if checkpoints is not None and (saved := checkpoints.load()) is not None:
        fit.restore(saved)
    while not fit.finished:
        epoch = fit.run_epoch(pairs, held)
        if checkpoints is not None:
            checkpoints.save(fit.state())
        on_epoch(epoch)
    scale = (float(np.min(pairs["rating"])), float(np.max(pairs["rating"])))
    return Trained(recipe, users, movies, scale, fit.best_weights(), tuple(fit.history))


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

    def __init__(self, recipe: Recipe, users: int, movies: int) -> None:
        self.config: TrainConfig = recipe.train
        tf.keras.utils.set_random_seed(self.config.seed)
        tf.config.experimental.enable_op_determinism()
        self.model = models.build(recipe.model, users, movies)
        self.model.compile(optimizer=_optimizer(self.config))
        # The slots exist only after a first step, but a checkpoint must be restored before it.
        self.model.optimizer._create_all_weights(self.model.trainable_variables)
        self.step = tf.function(self.model.train_step, reduce_retracing=True)
        self.evaluate = tf.function(self.model.test_step, reduce_retracing=True)
        self.history: list[Epoch] = []
        self.best: Arrays | None = None

    @property
    def finished(self) -> bool:
        done = len(self.history)
        if not self.config.patience or done == 0 or self.history[-1].holdout_rmse is None:
            return done >= self.config.epochs
        return done >= self.config.epochs or done - self._best_epoch >= self.config.patience

    def run_epoch(self, pairs: Pairs, held: Pairs | None) -> Epoch:
        """One pass in an order that depends on seed and epoch only."""
        number = len(self.history) + 1
        order = np.random.default_rng([self.config.seed, number]).permutation(len(pairs["rating"]))
        train_rmse = self._pass(self.step, pairs, order, number)
        if not all(np.isfinite(weight.numpy()).all() for weight in self.model.trainable_variables):
            # The loss of the last step was taken before it moved the weights.
            raise TrainingDiverged(number, -(-len(order) // self.config.batch_size), self.config.learning_rate)
        holdout_rmse = None
        if held is not None:
            holdout_rmse = self._pass(self.evaluate, held, np.arange(len(held["rating"])), number)
        epoch = Epoch(number, train_rmse, holdout_rmse)
        self.history.append(epoch)
        if self._best_epoch == number and self.config.patience and held is not None:
            self.best = _named(self.model.trainable_variables, "weight")
        return epoch

    def best_weights(self) -> Arrays:
        """The weights to keep."""
        return self.best if self.best is not None else _named(self.model.trainable_variables, "weight")

    def state(self) -> Arrays:
        """All that a later process needs to go on as if nothing had happened."""
        history = [[e.number, e.train_rmse, np.nan if e.holdout_rmse is None else e.holdout_rmse] for e in self.history]
        best = {f"best/{name}": weight for name, weight in (self.best or {}).items()}
        return {
            **_named(self.model.trainable_variables, "weight"),
            **_named(self.model.optimizer.variables(), "optimizer"),
            **best,
            "history": np.array(history),
        }

    def restore(self, state: Arrays) -> None:
        """The inverse of `state`."""
        _restore(self.model.trainable_variables, state, "weight")
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

    def _pass(self, step: Any, pairs: Pairs, order: NDArray[np.int64], epoch: int) -> float:
        """Take `step` over all pairs in the given order; returns the RMSE of the pass in stars."""
        self.model.reset_metrics()
        last = -(-len(order) // self.config.batch_size)
        rmse = float("nan")
        for number, batch in enumerate(_batches(pairs, order, self.config.batch_size), start=1):
            metrics = step(batch)
            if number % _CHECK_EVERY == 0 or number == last:
                rmse = float(metrics["rmse"])  # the running value of this pass; reading it waits for the step
                if not np.isfinite(rmse):
                    raise TrainingDiverged(epoch, number, self.config.learning_rate)
        return rmse


def _batches(pairs: Pairs, order: NDArray[np.int64], size: int) -> Iterator[dict[str, Any]]:
    """Slices of the arrays in the given order: nothing here handles one rating at a time."""
    shuffled = {key: column[order] for key, column in pairs.items()}
    for start in range(0, len(order), size):
        yield {key: tf.constant(column[start : start + size]) for key, column in shuffled.items()}


def _optimizer(config: TrainConfig) -> Any:
    """The legacy classes: their Adagrad has a fused sparse kernel, and it is the one the article used."""
    kinds = {"adagrad": tf.keras.optimizers.legacy.Adagrad, "adam": tf.keras.optimizers.legacy.Adam}
    return kinds[config.optimizer](learning_rate=config.learning_rate)


def _named(variables: list[Any], kind: str) -> Arrays:
    return {f"{kind}/{number:03d}": variable.numpy() for number, variable in enumerate(variables)}


def _restore(variables: list[Any], arrays: Arrays, kind: str) -> None:
    for number, variable in enumerate(variables):
        array = arrays.get(f"{kind}/{number:03d}")
        if array is None or tuple(array.shape) != tuple(variable.shape):
            found = "missing" if array is None else f"of shape {array.shape}"
            raise InvalidModel(f"{kind} {number} ({variable.name}) is {found}, expected {tuple(variable.shape)}")
        variable.assign(array)
