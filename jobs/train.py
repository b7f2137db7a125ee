"""Retrain as of a date: measure on the newest ratings, judge, train on all of them, register."""

import dataclasses
import logging
from typing import Any

from jobs import run as journals
from jobs import signals
from jobs.inputs import Night
from jobs.run import Journal, Run
from jobs.settings import Settings
from recommender import evaluate, gate, split
from recommender import train as training
from recommender.config import Recipe
from recommender.errors import GateRefused
from recommender.gate import Verdict
from recommender.train import Epoch, Trained
from recommender.vocabulary import Vocabulary
from storage import digest, models
from storage.models import CheckpointFile, Model

logger = logging.getLogger(__name__)


def find_or_train(night: Night, settings: Settings, run: Run, journal: Journal, force: str | None = None) -> Model:
    """The model for these ratings and this recipe: found in the registry, or trained, judged and registered.

    An accepted model becomes the champion unless that one knows newer ratings, and so does a refused one with `force`,
    the reason to use it all the same. Raises `TrainingDiverged`.
    """
    recipe = settings.recipe
    key = digest.of_values(night.training_digest, recipe.as_json(), dataclasses.asdict(settings.gate))
    with journal.step("train") as step:
        step.rows = night.ratings.num_rows
        model = models.find(settings.models, key)
        if model is None:
            model = _train(night, settings, run, recipe, key)
        else:
            logger.info("model.found", extra={"version": model.version})
        if force is not None and model.manifest["status"] == "refused":
            model = _overrule(model, settings, force)
        _crown(model, settings)
    journal.note(
        model_version=model.version,
        metrics=model.manifest["metrics"],
        checks=[*night.checks, *model.manifest["checks"]],
    )
    return model


def choose(model: Model, settings: Settings, *, strict: bool) -> Model:
    """The model to score with: this one, or the champion if the gate refused it.

    Raises `GateRefused` where it was refused and there is no champion, or `strict` wants no substitute.
    """
    if model.manifest["status"] != "refused":
        return model
    champion = models.champion(settings.models)
    if champion is None or strict:
        raise GateRefused(model.manifest["checks"][0]["message"])
    logger.warning("gate.refused", extra={"version": model.version, "used_instead": champion.version})
    return champion


def load(model: Model) -> Trained:
    """The trained model of a stored version, its files verified."""
    weights, ids = models.contents(model)
    manifest = model.manifest
    return Trained(
        Recipe.from_json(manifest["recipe"]),
        Vocabulary(ids["users"]),
        Vocabulary(ids["movies"]),
        (manifest["rating_scale"][0], manifest["rating_scale"][1]),
        weights,
    )


def _train(night: Night, settings: Settings, run: Run, recipe: Recipe, key: str) -> Model:
    ratings = night.keyed(recipe.model.movie_key)
    cut = split.newest(ratings, settings.gate.holdout)
    probe = _fit(settings, f"{key}-holdout", cut.train, recipe, cut.validation, "holdout")
    metrics = _measure(probe, cut)
    verdict = gate.judge(metrics, settings.gate.max_rmse_ratio) if cut.validation.num_rows else None
    stopped_early = recipe.train.patience and cut.validation.num_rows
    epochs = min(probe.history, key=_holdout_rmse).number if stopped_early else len(probe.history)
    final = dataclasses.replace(recipe, train=dataclasses.replace(recipe.train, epochs=epochs, patience=0))
    trained = _fit(settings, f"{key}-final", ratings, final, None, "all ratings")
    logger.info(
        "gate.verdict",
        extra={"accepted": verdict is None or verdict.accepted, "why": verdict.message if verdict else "no holdout"},
    )
    return _register(settings, run, key, ratings.num_rows, trained, probe, metrics, verdict)


def _fit(settings: Settings, key: str, ratings: Any, recipe: Recipe, holdout: Any, what: str) -> Trained:
    def log_epoch(epoch: Epoch) -> None:
        signals.check()
        held = {} if epoch.holdout_rmse is None else {"holdout_rmse": epoch.holdout_rmse}
        logger.info(
            "train.epoch",
            extra={"on": what, "epoch": epoch.number, "of": recipe.train.epochs, "rmse": epoch.train_rmse, **held},
        )

    checkpoint = CheckpointFile(settings.models, digest.of_values(key))
    trained = training.train(ratings, recipe, holdout=holdout, checkpoints=checkpoint, on_epoch=log_epoch)
    checkpoint.clear()
    return trained


def _measure(probe: Trained, cut: split.Split) -> list[evaluate.Metric]:
    if not cut.validation.num_rows:
        return []
    metrics = evaluate.rating_error(probe.predict(cut.validation), cut.validation, cut.train)
    for name, predicted in evaluate.baselines(cut.validation, cut.train).items():
        metrics += evaluate.rating_error(predicted, cut.validation, cut.train, prefix=f"{name}_")
    return metrics


def _register(
    settings: Settings,
    run: Run,
    key: str,
    ratings: int,
    trained: Trained,
    probe: Trained,
    metrics: list[evaluate.Metric],
    verdict: Verdict | None,
) -> Model:
    status = "accepted" if verdict is None or verdict.accepted else "refused"
    ids = {"users": trained.users.ids, "movies": trained.movies.ids}
    recipe = trained.recipe.as_json()
    version = f"{run.as_of:%Y%m%d}-{models.digest(recipe, trained.weights, ids)[:8]}"
    manifest = {
        "name": settings.model.name,
        "created_at": journals.now(),
        "trained_through": run.watermark.isoformat().removesuffix("+00:00"),
        "status": status,
        "note": None,
        "recipe": recipe,
        "rating_scale": list(trained.rating_scale),
        "parameters": trained.parameters,
        "history": [dataclasses.asdict(epoch) for epoch in probe.history],
        "metrics": [dataclasses.asdict(metric) for metric in metrics],
        "checks": [_check(verdict)],
        "lineage": {"training": key, "ratings": ratings, "run_id": run.id},
    }
    model = models.save(settings.models, version, manifest, trained.weights, ids)
    logger.info("model.registered", extra={"version": version, "status": status, "parameters": trained.parameters})
    return model


def _crown(model: Model, settings: Settings) -> None:
    champion = models.champion(settings.models)
    older = champion is not None and model.manifest["trained_through"] < champion.manifest["trained_through"]
    if model.manifest["status"] != "refused" and not older:
        models.promote(settings.models, model.version)


def _overrule(model: Model, settings: Settings, reason: str) -> Model:
    checks = [
        {**check, "verdict": "overridden"} if check["verdict"] == "fail" else check
        for check in model.manifest["checks"]
    ]
    logger.warning("gate.overruled", extra={"version": model.version, "reason": reason})
    return models.amend(settings.models, model.version, status="forced", note=reason, checks=checks)


def _check(verdict: Verdict | None) -> dict[str, Any]:
    check = {"stage": "model", "check_name": "holdout_rmse", "severity": "block"}
    if verdict is None:
        return check | {
            "verdict": "skipped",
            "message": "no holdout: gate.holdout is 0, or all ratings are of one instant",
        }
    figures = {"value": verdict.rmse, "threshold": verdict.limit, "baseline": verdict.baseline}
    return check | figures | {"verdict": "pass" if verdict.accepted else "fail", "message": verdict.message}


def _holdout_rmse(epoch: Epoch) -> float:
    return float("inf") if epoch.holdout_rmse is None else epoch.holdout_rmse
