"""One file per model.

The contract that training and scoring rely on is `Model`; `tests/test_models.py` holds each file to it.
"""

import importlib
from typing import Any, Protocol

from recommender.config import ModelConfig
from recommender.errors import UnknownName
from recommender.known import NO_NAMES, Names


class Model(Protocol):
    """A TFRS model that can also score a whole grid of users and movies.

    Users and movies are embedding rows, int32, row 0 for unknown. U, M and B are numbers of users, movies and pairs; the
    two encodings are 2-d, of whatever widths the model chooses.

    A model by history (`ModelConfig.by_history`) looks users up among known ratings: it also has `solve`, `remember` and
    `settle`, as `recommender/models/towers.py` has them, and learns from batches of users instead of pairs. What it ranks by
    is its `blend`, which may be set at any time.
    """

    solved: list[Any]
    """Variables that are stored with the trainable ones but solved for, not trained."""
    spread: float
    """`ModelConfig.spread`, in units of the score as it is blended now."""
    factored: bool
    """Whether `score_grid` is the product of the two encodings: all users and movies are then scored as one matrix product."""

    def call(self, features: dict[str, Any]) -> Any:
        """Predicted ratings, shape (B,), of the pairs `features["user"]`, `features["movie"]`, each (B,)."""

    def compute_loss(self, features: dict[str, Any], training: bool = False) -> Any:
        """The loss, a scalar, of the pairs with their `features["rating"]` (B,)."""

    def encode_users(self, users: Any) -> Any:
        """What scoring needs of each user, shape (U, h)."""

    def encode_movies(self, movies: Any) -> Any:
        """What scoring needs of each movie, shape (M, g); computed once a night."""

    def score_grid(self, user_codes: Any, movie_codes: Any) -> Any:
        """What the ranking is by, shape (U, M): every user against every movie."""


def build(config: ModelConfig, users: int, movies: int, names: Names = NO_NAMES) -> Any:
    """A fresh, untrained `Model` with `users` and `movies` embedding rows (row 0 included), its weights made.

    `names` are the features of users and movies, of use to a model by history. The weights depend on TensorFlow's global
    seed only.
    """
    try:
        module = importlib.import_module(f"recommender.models.{config.architecture}")
    except ModuleNotFoundError as error:
        raise UnknownName(f"no model file recommender/models/{config.architecture}.py") from error
    return module.build(config, users, movies, names)
