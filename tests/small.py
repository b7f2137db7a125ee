"""Small Arrow worlds with a known answer, and models small enough for a test."""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from recommender import models
from recommender.config import Recipe, recipe
from recommender.train import Trained
from recommender.vocabulary import Vocabulary

DAY = 86_400_000_000
"""Microseconds."""


def ids(values: Iterable[Any]) -> pa.Array:
    """An id column: int64, or string where the values are text."""
    listed = list(values)
    return pa.array(listed, pa.string() if listed and isinstance(listed[0], str) else pa.int64())


def ratings(
    users: Sequence[Any], movies: Sequence[Any], stars: Sequence[float], days: Sequence[float] = ()
) -> pa.Table:
    """A ratings table, row by row; `days` since 1970, by default one rating a day."""
    at = np.asarray(days if len(days) else range(len(stars)), float) * DAY
    return pa.table(
        {
            "user_id": ids(users),
            "movie_id": ids(movies),
            "rating": pa.array(stars, pa.float32()),
            "rated_at": pa.array(at.astype(np.int64), pa.timestamp("us", "UTC")),
        }
    )


def planted(users: int = 60, movies: int = 40, count: int = 1200, seed: int = 0, noise: float = 0.2) -> pa.Table:
    """Ratings that are 3 + user effect + movie effect + noise, in random order: ids from 1, each pair at most once."""
    rng = np.random.default_rng(seed)
    pairs = rng.permutation(users * movies)[:count]
    user, movie = pairs // movies, pairs % movies
    stars = 3 + np.linspace(-1, 1, users)[user] + np.linspace(-0.8, 0.8, movies)[movie] + rng.normal(0, noise, count)
    return ratings(list(user + 1), list(movie + 1), list(np.clip(stars, 1, 5)))


def as_text(table: pa.Table) -> pa.Table:
    """The same ratings with string ids: user 7 is "u7", movie 7 is "m7"."""
    for place, (name, letter) in enumerate((("user_id", "u"), ("movie_id", "m"))):
        text = pc.binary_join_element_wise(letter, table[name].cast(pa.string()), "")
        table = table.set_column(place, name, text)
    return table


def tiny(name: str = "basic", **changes: Any) -> Recipe:
    """A named recipe, made small enough to train in a second."""
    shape = {"embedding_dimension": 4, "hidden_units": (8, 4), "batch_size": 256, "epochs": 2, "learning_rate": 0.1}
    return recipe(name, **(shape | changes))


def random_model(users: pa.Array, movies: pa.Array, seed: int = 0, **changes: Any) -> Trained:
    """A `Trained` of random weights, all of them far from 0, that knows these users and movies; scale 1 to 5."""
    made = tiny(**changes)
    known = Vocabulary.of(users), Vocabulary.of(movies)
    shapes = [tuple(v.shape) for v in models.build(made.model, *(v.rows for v in known)).trainable_variables]
    rng = np.random.default_rng(seed)
    weights = {f"weight/{i:03d}": rng.normal(0, 0.7, shape).astype(np.float32) for i, shape in enumerate(shapes)}
    return Trained(made, *known, (1.0, 5.0), weights)


def rmse(predicted: Any, table: pa.Table) -> float:
    """Root mean squared error against the ratings of a table."""
    return float(np.sqrt(np.mean((np.asarray(predicted, float) - table["rating"].to_numpy()) ** 2)))
