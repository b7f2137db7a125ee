"""Hyper-parameters: what a recipe for a model is made of, and the named ones.

No TensorFlow here: the command line reads it.
"""

import dataclasses
from dataclasses import dataclass
from typing import Any, Literal

from recommender.errors import UnknownName


@dataclass(frozen=True)
class ModelConfig:
    """The shape of a model. Each model in `recommender/models/` reads the fields it has use for."""

    architecture: str = "mlp"
    """The file in `recommender/models/`."""
    movie_key: Literal["movie_id", "title"] = "movie_id"
    """What a movie is known by. Titles are not unique; `title` is the article's choice, kept to reproduce it."""
    embedding_dimension: int = 32
    """Width of the embeddings of users and movies, of a model that has such."""
    hidden_units: tuple[int, ...] = (256, 64)
    """Widths of the ReLU layers between the embeddings and the predicted rating."""
    l2: float = 0.0
    """Weight of the squared kernel weights of the hidden layers in the loss; of half those of the choice tower."""
    stars_dimension: int = 20
    """Factors of the tower that predicts stars."""
    user_rows: int = 0
    """Rows of its tables of users, which share them by a hash of the id, where one for each would not fit; 0: one for each."""
    choice_dimension: int = 64
    """Factors of the tower that predicts what is chosen and liked next."""
    taste_dimension: int = 64
    """Factors of the partner by alternating least squares."""
    taste_l2: float = 0.02
    """Its regularisation, per rating."""
    ridge_dimension: int = 256
    """Components of the partner by ridge regression."""
    ridge_l2: float = 2.5
    """Its regularisation: so many good ratings of a movie, times the square root of the number of all good ratings."""
    trend_days: float = 14.0
    """Mean life, in days, of a rating in what counts as recently popular."""
    timely: float = 1.0
    """Share of users whose choices are learned in order of time; the rest out of order."""
    prior: float = 1.0
    """Times the standard deviations that the weights of the stars tower are expected to have."""
    blend: tuple[float, ...] = ()
    """What the ranking is by: weights of choice, taste and predicted stars. Empty: decided on the holdout."""

    spread: float = 0.0
    """By how much, in units of the score, movies that stand in many lists are moved back in the later places of each."""

    @property
    def by_history(self) -> bool:
        """Whether the model looks users up among known ratings, so that it must be told them before it scores."""
        return self.architecture == "towers"


@dataclass(frozen=True)
class TrainConfig:
    """How a model is fitted."""

    optimizer: Literal["adagrad", "adam"] = "adagrad"
    """How the weights are moved."""
    learning_rate: float = 0.1
    """With `steps_per_epoch`, that of a pass of one batch; it falls with the fifth root of the batches in a pass."""
    schedule: Literal["constant", "cosine"] = "constant"
    """The learning rate over all steps: as it is, or rising over a fifth of them and falling to 0 as a cosine does."""
    batch_size: int = 8192
    """Ratings per step; users per step for a model that learns users by their histories."""
    epochs: int = 3
    """Most passes over the ratings."""
    steps_per_epoch: int = 0
    """Steps that count as an epoch where a pass is one batch, and more as the fourth root of the batches of a pass; no fewer
    than make two passes in all. 0: an epoch is one pass."""
    patience: int = 0
    """Stop after this many epochs without a better holdout RMSE, and keep the best one; 0 runs all epochs."""
    seed: int = 42
    """Of the first weights and of the order of the ratings."""


@dataclass(frozen=True)
class Recipe:
    """Everything that, with the ratings, determines a trained model."""

    model: ModelConfig = ModelConfig()
    train: TrainConfig = TrainConfig()

    def as_json(self) -> dict[str, Any]:
        """The recipe as nested plain values."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, document: dict[str, Any]) -> "Recipe":
        """The inverse of `as_json`."""
        model: dict[str, Any] = {key: tuple(v) if isinstance(v, list) else v for key, v in document["model"].items()}
        return cls(ModelConfig(**model), TrainConfig(**document["train"]))

    def changed(self, **changes: Any) -> "Recipe":
        """This recipe with some hyper-parameters replaced."""
        of_model = {field.name for field in dataclasses.fields(ModelConfig)}
        model = {key: value for key, value in changes.items() if key in of_model}
        train = {key: value for key, value in changes.items() if key not in of_model}
        return Recipe(dataclasses.replace(self.model, **model), dataclasses.replace(self.train, **train))


RECIPES: dict[str, Recipe] = {
    "default": Recipe(
        ModelConfig(architecture="towers", l2=1e-4, spread=1.0),
        TrainConfig("adam", 0.02, schedule="cosine", batch_size=1024, epochs=20, steps_per_epoch=4),
    ),
    "basic": Recipe(),
    "tuned": Recipe(ModelConfig(l2=0.01), TrainConfig(epochs=50)),
}
"""`default` is the best there is here; `basic` and `tuned` are the two models of the article."""


def recipe(name: str, **changes: Any) -> Recipe:
    """The recipe called `name` with some hyper-parameters replaced; raises `UnknownName`."""
    if name not in RECIPES:
        raise UnknownName(f"no model is called {name!r}", hint=f"one of: {', '.join(RECIPES)}")
    return RECIPES[name].changed(**changes)
