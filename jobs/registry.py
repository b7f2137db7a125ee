"""Look into the model registry, and hand a model to others."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from jobs.configuration import InvalidSettings
from jobs.settings import Settings
from storage import atomic, models
from storage.errors import NotFound
from storage.models import Model


def listed(settings: Settings) -> dict[str, Any]:
    """All versions, oldest first."""
    champion = models.champion(settings.models)
    crowned = champion.version if champion else None
    return {
        "models": [
            {
                "version": model.version,
                "name": model.manifest["name"],
                "status": model.manifest["status"],
                "champion": model.version == crowned,
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
    return _find(settings, version).manifest


def export(settings: Settings, version: str, target: Path) -> dict[str, Any]:
    """Write a version, or the champion, as a SavedModel into `target`, which must not exist yet."""
    if target.exists():
        raise InvalidSettings(f"{target} exists already", hint="--to a new folder")
    model = _find(settings, version)
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


def _find(settings: Settings, version: str) -> Model:
    if version != "champion":
        return models.load(settings.models, version)
    champion = models.champion(settings.models)
    if champion is None:
        raise NotFound("there is no champion yet", hint="recjob train --date D")
    return champion


def _rmse(model: Model) -> float | None:
    figures = [
        metric["value"]
        for metric in model.manifest["metrics"]
        if metric["metric"] == "rmse" and metric["segment"] == "all"
    ]
    return figures[0] if figures else None
