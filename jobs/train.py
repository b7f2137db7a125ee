"""Retrain as of a date: measure on the newest ratings, judge, train on all of them, register."""

import dataclasses
import json
import logging
import math
import time
from importlib.metadata import version
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from jobs import publish, signals
from jobs import run as journals
from jobs.inputs import Night
from jobs.judge import Judged, Rival, judge
from jobs.progress import QUIET, Progress
from jobs.run import Journal, Run
from jobs.settings import Settings
from recommender import blend, split, together
from recommender import train as training
from recommender.config import Recipe
from recommender.errors import GateRefused
from recommender.known import Names
from recommender.train import Epoch, Trained
from recommender.vocabulary import Vocabulary
from storage import digest, models
from storage.models import CheckpointFile, Model

logger = logging.getLogger(__name__)
_FEATURES = ("user_features", "movie_features")
"""What the names of features are stored as."""


def find_or_train(
    night: Night,
    settings: Settings,
    run: Run,
    journal: Journal,
    force: str | None = None,
    progress: Progress = QUIET,
) -> Model:
    """The model for these ratings and this recipe: found in the registry, or trained, judged and registered.

    An accepted model becomes the champion unless that one is pinned or of a later date than this run, or its lists were rolled
    back, and so does any with `force`, the reason to use it all the same. Raises `TrainingDiverged`.
    """
    recipe, key = settings.recipe, key_of(night, settings)
    with journal.step("train") as step:
        step.rows = night.ratings.num_rows
        model = _registered(settings, key, force)
        if model is None:
            model = _register(settings, run, key, night, *_trained(night, settings, recipe, key, progress))
        else:
            logger.info("model.found", extra={"version": model.version})
        if force is not None and model.manifest["status"] == "refused":
            model = _overrule(model, settings, force)
        if force is not None or model.version not in publish.models_taken_back(settings):
            _crown(model, settings, run)
    journal.note(
        model_version=model.version,
        metrics=model.manifest["metrics"],
        checks=[*night.checks, *model.manifest["checks"]],
    )
    return model


def follow(night: Night, settings: Settings, force: str | None, progress: Progress) -> bool:
    """Take part in what `find_or_train` does on the first of several hosts, and keep nothing; whether there was anything to do.

    Raises `TrainingDiverged`, `HostsFailed`.
    """
    recipe, key = settings.recipe, key_of(night, settings)
    if _registered(settings, key, force) is not None:
        return False
    _trained(night, settings, recipe, key, progress)
    return True


def key_of(night: Night, settings: Settings) -> str:
    """The digest of everything that a training depends on, by which its model is found again."""
    return digest.of_values(night.training_digest, settings.recipe.as_json(), settings.gate.of_model)


def choose(model: Model, settings: Settings, force: str | None = None, *, strict: bool) -> Model:
    """The model to score with: this one, or the champion if the gate refused it, or its lists were rolled back.

    Raises `GateRefused` where that is so and there is no champion, or `strict` wants no substitute.
    """
    champion, refused = models.champion(settings.models), model.manifest["status"] == "refused"
    if not refused:
        chosen = force is not None or (champion is not None and champion.version == model.version)
        if chosen or model.version not in publish.models_taken_back(settings):
            return model
    if champion is None or strict:
        failed = [check["message"] for check in model.manifest["checks"] if check["verdict"] == "fail"]
        raise GateRefused("; ".join(failed) if refused else f"the lists of {model.version} were rolled back")
    if refused:
        logger.warning("gate.refused", extra={"version": model.version, "used_instead": champion.version})
    else:
        logger.warning("model.taken_back", extra={"version": model.version, "used_instead": champion.version})
    return champion


def load(model: Model) -> Trained:
    """The trained model of a stored version, its files verified."""
    weights, ids = models.contents(model)
    manifest = model.manifest
    scale = (manifest["rating_scale"][0], manifest["rating_scale"][1])
    names = Names(*(tuple(ids[kind].to_pylist()) if kind in ids else () for kind in _FEATURES))
    recipe, users, movies = Recipe.from_json(manifest["recipe"]), Vocabulary(ids["users"]), Vocabulary(ids["movies"])
    return Trained(recipe, users, movies, scale, weights, names=names)


def _registered(settings: Settings, key: str, force: str | None) -> Model | None:
    """The model that was trained before; with `force` none that is damaged."""
    model = models.find(settings.models, key)
    if model is not None and force is not None and not models.is_intact(settings.models, model.version):
        logger.warning("model.damaged", extra={"version": model.version, "instead": "it is trained again"})
        return None
    return model


def _trained(
    night: Night, settings: Settings, recipe: Recipe, key: str, progress: Progress
) -> tuple[Trained, tuple[Epoch, ...], Judged]:
    """The model, how its training went, and the verdict."""
    ratings = night.keyed(recipe.model.movie_key)
    recipe, history, judged = _probed(night, ratings, settings, recipe, key, progress)
    stopped_early = recipe.train.patience and history[0].holdout_rmse is not None
    epochs = min(history, key=_holdout_rmse).number if stopped_early else len(history)
    settled = recipe.changed(epochs=epochs, patience=0)
    trained = _fit(settings, f"{key}-final", night, ratings, settled, None, "all ratings", progress)
    for check in judged.checks:
        level = logging.WARNING if check["verdict"] in ("warn", "fail") else logging.INFO
        logger.log(level, f"gate.{check['verdict']}", extra={"check": check["check_name"], "why": check["message"]})
    logger.info("gate.verdict", extra={"accepted": judged.accepted})
    return trained, history, judged


def _probed(
    night: Night, ratings: pa.Table, settings: Settings, recipe: Recipe, key: str, progress: Progress
) -> tuple[Recipe, tuple[Epoch, ...], Judged]:
    """Train on all but the newest ratings and judge on these: the recipe as settled there, the history, the verdict.

    Its own function so that what the model had in mind is gone when the next is trained: gigabytes on large inputs.
    """
    cut = split.newest(ratings, settings.gate.holdout)
    probe = _fit(settings, f"{key}-holdout", night, cut.train, recipe, cut.validation, "holdout", progress)
    ready = probe.ready(cut.train, night.attributes)
    if blend.is_open(recipe):
        chosen = blend.choose(ready, cut.train, cut.validation)
        recipe = recipe.changed(blend=chosen)
        logger.info("train.blend", extra=dict(zip(("choice", "taste", "stars"), chosen, strict=True)))
    rival = _rival(settings, key, night, cut, recipe, progress)
    began = time.perf_counter()
    judged = judge(ready, rival, night, cut, settings)
    logger.debug("train.judged", extra={"held_out": cut.validation.num_rows, "seconds": time.perf_counter() - began})
    return recipe, probe.history, judged


def _rival(
    settings: Settings, key: str, night: Night, cut: split.Split, recipe: Recipe, progress: Progress
) -> Rival | None:
    """The champion's recipe, if it is another, trained on the same part: the champion itself has seen the holdout."""
    champion = models.champion(settings.models)
    if champion is None or not cut.validation.num_rows:
        return None
    other = Recipe.from_json(champion.manifest["recipe"])
    if other.model.movie_key != recipe.model.movie_key or champion.manifest.get("asked") == _asked(settings):
        return None
    what = f"the champion's recipe, {champion.version}"
    return Rival(champion.version, _fit(settings, f"{key}-rival", night, cut.train, other, None, what, progress))


def _asked(settings: Settings) -> dict[str, Any]:
    """The configured recipe, as JSON has it: before a night decides what the recipe leaves to it."""
    plain: dict[str, Any] = json.loads(json.dumps(settings.recipe.as_json()))
    return plain


def _fit(
    settings: Settings,
    key: str,
    night: Night,
    ratings: pa.Table,
    recipe: Recipe,
    holdout: pa.Table | None,
    what: str,
    progress: Progress,
) -> Trained:
    """Train, and tell each epoch: on a terminal by a bar, and its line is a detail then."""
    epochs, began, done = recipe.train.epochs, time.perf_counter(), 0
    apart = {} if together.first else {"apart": math.inf}
    checkpoint = CheckpointFile(settings.models, digest.of_values(key), **apart)
    with progress.bar(f"training: {what}", epochs) as advance:

        def tell(epoch: Epoch) -> None:
            nonlocal done
            signals.check()
            held = {} if epoch.holdout_rmse is None else {"holdout_rmse": epoch.holdout_rmse}
            told = {"on": what, "epoch": epoch.number, "of": epochs, "rmse": epoch.train_rmse, **held}
            logger.log(logging.DEBUG if progress.shown else logging.INFO, "train.epoch", extra=told)
            advance(epoch.number - done, f"RMSE {held.get('holdout_rmse', epoch.train_rmse):.3f}")
            done = epoch.number

        trained = training.train(
            ratings,
            recipe,
            attributes=night.attributes,
            holdout=holdout,
            checkpoints=checkpoint,
            devices=settings.score.devices,
            task={
                "the version of recjob": version("recjob"),
                "the date, its ratings, movies or users": night.training_digest,
                "[model]": json.dumps(settings.recipe.as_json()),
                "[gate]": json.dumps(settings.gate.of_model),
                "what is trained": what,
            },
            on_epoch=tell,
        )
    seconds = time.perf_counter() - began
    told = {"on": what, "ratings": ratings.num_rows, "parameters": trained.parameters, "seconds": seconds}
    logger.debug("train.fitted", extra=told)
    checkpoint.clear()
    return trained


def _register(
    settings: Settings, run: Run, key: str, night: Night, trained: Trained, history: tuple[Epoch, ...], judged: Judged
) -> Model:
    status = "accepted" if judged.accepted else "refused"
    ids = {"users": trained.users.ids, "movies": trained.movies.ids}
    ids |= {kind: pa.array(names, pa.string()) for kind, names in zip(_FEATURES, trained.names, strict=True) if names}
    recipe = trained.recipe.as_json()
    version = f"{run.as_of:%Y%m%d}-{models.digest(recipe, trained.weights, ids)[:8]}"
    manifest = {
        "name": settings.model.name,
        "created_at": journals.now(),
        "trained_through": _instant(run),
        "status": status,
        "note": None,
        "recipe": recipe,
        "asked": _asked(settings),
        "rating_scale": list(trained.rating_scale),
        "parameters": trained.parameters,
        "history": [dataclasses.asdict(epoch) for epoch in history],
        "metrics": [dataclasses.asdict(metric) for metric in judged.metrics],
        "checks": judged.checks,
        "features": dict(zip(("users", "movies"), map(list, trained.names), strict=True)),
        "lineage": {"training": key, "run_id": run.id, **_lineage(night, settings, trained)},
    }
    model = models.save(settings.models, version, manifest, trained.weights, ids)
    logger.info("model.registered", extra={"version": version, "status": status, "parameters": trained.parameters})
    return model


def _crown(model: Model, settings: Settings, run: Run) -> None:
    champion = models.champion(settings.models)
    late = champion is not None and champion.manifest["trained_through"] > _instant(run)  # a backfill's night
    if model.manifest["status"] != "refused" and not late and models.pinned(settings.models) is None:
        models.promote(settings.models, model.version)


def _instant(run: Run) -> str:
    return run.watermark.isoformat().removesuffix("+00:00")


def _overrule(model: Model, settings: Settings, reason: str) -> Model:
    checks = [
        {**check, "verdict": "overridden"} if check["verdict"] == "fail" else check
        for check in model.manifest["checks"]
    ]
    logger.warning("gate.overruled", extra={"version": model.version, "reason": reason})
    return models.amend(settings.models, model.version, status="forced", note=reason, checks=checks)


def _lineage(night: Night, settings: Settings, trained: Trained) -> dict[str, Any]:
    span = pc.min_max(night.ratings["rated_at"]).as_py()
    return {
        "ratings": night.ratings.num_rows,
        "users": len(trained.users),
        "movies": len(trained.movies),
        "first_rated_at": span["min"].isoformat(),
        "last_rated_at": span["max"].isoformat(),
        "holdout": settings.gate.holdout,
        "trained_on": "all ratings, the holdout included, once the verdict was given",
    }


def _holdout_rmse(epoch: Epoch) -> float:
    return float("inf") if epoch.holdout_rmse is None else epoch.holdout_rmse
