"""Measure a model on a split of all ratings, beside the baselines; the article's figures are one of these."""

import dataclasses
import logging
import time
from pathlib import Path
from typing import Any

import pyarrow as pa

from jobs import inputs
from jobs import lists as measured
from jobs.inputs import Night
from jobs.settings import Settings
from recommender import blend, ranking
from recommender import evaluate as measures
from recommender import split as splits
from recommender import train as training
from recommender.config import Recipe
from recommender.split import Split
from recommender.train import Epoch, Trained
from storage.errors import InvalidInput

logger = logging.getLogger(__name__)


def evaluate(
    settings: Settings,
    model: str,
    split: str,
    movie_key: str | None = None,
    seed: int | None = None,
    plot: Path | None = None,
    lists: bool = True,
) -> dict[str, Any]:
    """Train `model` on the training part of `split` and measure it on the others; returns figures and a summary.

    On the time-range split, the article's, movies that have titles are known by them unless `movie_key` says otherwise,
    and the vocabularies cover all ratings, as there. `rmse.train` is the mean over the last epoch, as Keras reports it.
    With `lists`, what it lists for the test part's users is measured, too.
    """
    night = inputs.read(settings, None)
    by_history = settings.recipe_of(model).model.by_history
    article = split == "time-range" and night.has_titles and not by_history
    recipe = _recipe(settings, model, movie_key or ("title" if article else None), seed)
    if recipe.model.movie_key == "title" and not night.has_titles:
        raise InvalidInput("movies have no titles to be known by", hint="--movie-key movie_id")
    ratings = night.keyed(recipe.model.movie_key)
    cut = splits.by_name(split, ratings, recipe.train.seed)
    if not cut.test.num_rows:
        raise InvalidInput(f"the {split} split leaves nothing to test on", hint="are all ratings of one instant?")
    began = time.perf_counter()
    trained = _trained(cut, split, recipe, night, ratings)
    seconds = time.perf_counter() - began
    ready = trained.ready(cut.train, night.attributes)
    parts = {"validation": cut.validation, "test": cut.test}
    predicted = {name: ready.predict(part) for name, part in parts.items() if part.num_rows}
    errors = {name: measures.rating_error(stars, parts[name], cut.train) for name, stars in predicted.items()}
    figures = {
        "model": model,
        "split": split,
        "movie_key": recipe.model.movie_key,
        "seed": recipe.train.seed,
        "blend": list(trained.recipe.model.blend),
        "parameters": trained.parameters,
        "rows": {"train": cut.train.num_rows} | {name: part.num_rows for name, part in parts.items() if part.num_rows},
        "rmse": {"train": trained.history[-1].train_rmse} | {name: found[0].value for name, found in errors.items()},
        "metrics": {name: [dataclasses.asdict(metric) for metric in found] for name, found in errors.items()},
        "baselines": _baselines(cut.test, cut.train),
        "epochs": len(trained.history),
        "seconds": round(seconds, 2),
        "summary": _summary(trained),
        "history": [dataclasses.asdict(epoch) for epoch in trained.history],
    }
    if lists:
        figures["lists"] = measured.measure(ready, cut.train, cut.test, ranking.good(ratings))
    if plot is not None:
        from jobs import plots

        figures["plot"] = str(plots.history(trained.history, f"{model}, {split}", plot))
    return figures


def _trained(cut: Split, name: str, recipe: Recipe, night: Night, ratings: pa.Table) -> Trained:
    """The model of the training part; how it ranks, if that is open, is decided on a tenth of that part."""
    if blend.is_open(recipe):
        inner = splits.within(cut.train, name, recipe.train.seed)
        recipe = blend.settled(recipe, inner.train, inner.validation, night.attributes)
    everybody = name == "time-range" and not recipe.model.by_history
    return training.train(
        cut.train,
        recipe,
        attributes=night.attributes,
        holdout=cut.validation if cut.validation.num_rows else None,
        vocabularies=training.vocabularies_of(ratings, recipe.model.movie_key) if everybody else None,
        on_epoch=_log,
    )


def _recipe(settings: Settings, model: str, movie_key: str | None, seed: int | None) -> Recipe:
    changes = {"movie_key": movie_key, "seed": seed}
    return settings.recipe_of(model).changed(**{key: value for key, value in changes.items() if value is not None})


def _log(epoch: Epoch) -> None:
    logger.info(
        "train.epoch", extra={"epoch": epoch.number, "rmse": epoch.train_rmse, "holdout_rmse": epoch.holdout_rmse}
    )


def _baselines(test: pa.Table, train: pa.Table) -> dict[str, dict[str, float]]:
    found = {}
    for name, stars in measures.baselines(test, train).items():
        figures = measures.rating_error(stars, test, train)
        found[name] = {metric.metric: metric.value for metric in figures if metric.segment == "all"}
    return found


def _summary(trained: Trained) -> list[dict[str, Any]]:
    """The layers as `model.summary()` lists them: name, kind, trainable parameters."""
    return [
        {
            "layer": layer.name,
            "kind": type(layer).__name__,
            "parameters": sum(int(w.shape.num_elements()) for w in layer.trainable_weights),
        }
        for layer in trained.model.layers
        if layer.trainable_weights
    ] or [
        {"layer": weight.name.split(":")[0], "kind": "weights", "parameters": int(weight.shape.num_elements())}
        for weight in trained.model.trainable_variables
    ]
