"""Look into the model registry, say which version is the champion, and hand one to others."""

import logging
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from jobs import state
from jobs.allowed import InvalidSettings
from jobs.run import Run
from jobs.settings import Settings
from recommender.errors import GateRefused
from storage import atomic, models
from storage.errors import NotFound
from storage.models import Model

logger = logging.getLogger(__name__)


def listed(settings: Settings) -> dict[str, Any]:
    """All versions, oldest first."""
    champion, pinned = models.champion(settings.models), models.pinned(settings.models)
    crowned = champion.version if champion else None
    return {
        "models": [
            {
                "version": model.version,
                "name": model.manifest["name"],
                "status": model.manifest["status"],
                "champion": model.version == crowned,
                "pinned": pinned is not None and model.version == pinned.version,
                "created_at": model.manifest["created_at"],
                "trained_through": model.manifest["trained_through"],
                "parameters": model.manifest["parameters"],
                "holdout_rmse": _rmse(model),
            }
            for model in models.versions(settings.models)
        ]
    }


def shown(settings: Settings, version: str) -> dict[str, Any]:
    """The whole manifest of a version, or of the champion."""
    return find(settings, version).manifest


def find(settings: Settings, version: str) -> Model:
    """A version of the registry, or the `champion`; raises `NotFound`."""
    if version != "champion":
        return models.load(settings.models, version)
    champion = models.champion(settings.models)
    if champion is None:
        raise NotFound("there is no champion yet", hint="recjob train --date D")
    return champion


def from_future(model: Model, run: Run) -> list[dict[str, Any]]:
    """The verdict on a model that has learned from ratings after the end of the date that it is to score; none for others."""
    newest = datetime.fromisoformat(model.manifest["lineage"]["last_rated_at"])
    if newest < run.watermark:
        return []
    why = (
        f"{model.version} has learned from ratings up to {newest:%Y-%m-%d %H:%M} UTC, after the end of {run.as_of}: the lists "
        "are not those that the date would have had; --model train makes these"
    )
    logger.warning("model.from_future", extra={"version": model.version, "as_of": str(run.as_of), "why": why})
    found = {"stage": "model", "check_name": "model_from_future", "value": (newest - run.watermark) / timedelta(days=1)}
    return [found | {"severity": "warn", "verdict": "warn", "message": why}]


def promote(settings: Settings, version: str, *, pinned: bool, wait: float = 0.0) -> dict[str, Any]:
    """Make a version the champion, or pin it: then nights are scored by it, and none is trained, until `unpin`.

    Unpinned it is the champion until a night's own model is accepted. Raises `GateRefused` for a version that the gate refused,
    `CorruptState` for a damaged one.
    """
    with state.held(settings, wait, "models promote"):
        model, before = find(settings, version), models.champion(settings.models)
        if model.manifest["status"] == "refused":
            why = "; ".join(check["message"] for check in model.manifest["checks"] if check["verdict"] == "fail")
            raise GateRefused(f"{model.version} was refused: {why}")
        models.contents(model)
        models.promote(settings.models, model.version, pinned=pinned)
    return {"champion": model.version, "before": before.version if before else None, "pinned": pinned}


def unpin(settings: Settings, wait: float = 0.0) -> dict[str, Any]:
    """Let nights train again; the champion stays what it is until one of theirs is accepted."""
    return promote(settings, "champion", pinned=False, wait=wait)


def export(settings: Settings, version: str, target: Path) -> dict[str, Any]:
    """Write a version, or the champion, as a SavedModel into `target`, which must not exist yet."""
    if target.exists():
        raise InvalidSettings(f"{target} exists already", hint="--to a new folder")
    model = find(settings, version)
    from jobs import inputs as nights
    from jobs import train
    from recommender import export as exporting

    trained = train.load(model)
    # A model by history needs one: all that was known when it was trained goes into the export.
    night = nights.read(settings, datetime.fromisoformat(model.manifest["trained_through"]).replace(tzinfo=UTC))
    with atomic.new_folder(target) as draft:
        inputs = exporting.saved_model(trained.ready(night.ratings, night.attributes), draft)
    facts = {"version": model.version, "path": str(target), "signature": "serving_default"}
    return {**facts, "inputs": inputs, "output": "predicted_rating"}


def _rmse(model: Model) -> float | None:
    figures = [
        metric["value"]
        for metric in model.manifest["metrics"]
        if metric["metric"] == "rmse" and metric["segment"] == "all"
    ]
    return figures[0] if figures else None
