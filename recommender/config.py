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
    hidden_units: tuple[int, ...] = (256, 64)
    """Widths of the ReLU layers between the embeddings and the predicted rating."""
    l2: float = 0.0
    """Weight of the squared kernel weights of the hidden layers in the loss."""


@dataclass(frozen=True)
class TrainConfig:
    """How a model is fitted."""

    optimizer: Literal["adagrad", "adam"] = "adagrad"
    learning_rate: float = 0.1
    batch_size: int = 8192
    """Ratings per step."""
    epochs: int = 3
    """Most passes over the ratings."""
    patience: int = 0
    """Stop after this many epochs without a better holdout RMSE, and keep the best one; 0 runs all epochs."""
    seed: int = 42


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
        model = document["model"] | {"hidden_units": tuple(document["model"]["hidden_units"])}
        return cls(ModelConfig(**model), TrainConfig(**document["train"]))

    def changed(self, **changes: Any) -> "Recipe":
        """This recipe with some hyper-parameters replaced."""
        of_model = {field.name for field in dataclasses.fields(ModelConfig)}
        model = {key: value for key, value in changes.items() if key in of_model}
        train = {key: value for key, value in changes.items() if key not in of_model}
        return Recipe(dataclasses.replace(self.model, **model), dataclasses.replace(self.train, **train))


RECIPES: dict[str, Recipe] = {
    "basic": Recipe(),
    "tuned": Recipe(ModelConfig(l2=0.01), TrainConfig(epochs=50)),
}
"""The two models of the article."""


def recipe(name: str, **changes: Any) -> Recipe:
    """The recipe called `name` with some hyper-parameters replaced; raises `UnknownName`."""
    if name not in RECIPES:
        raise UnknownName(f"no model is called {name!r}", hint=f"one of: {', '.join(RECIPES)}")
    return RECIPES[name].changed(**changes)
