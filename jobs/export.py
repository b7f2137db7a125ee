"""Hand a model of the registry to others."""

from pathlib import Path
from typing import Any

from jobs import train
from jobs.configuration import InvalidSettings
from jobs.settings import Settings
from storage import models
from storage.errors import NotFound


def export(settings: Settings, version: str, target: Path) -> dict[str, Any]:
    """Write a version (or `champion`) as a SavedModel into `target`, which must not exist yet."""
    if target.exists():
        raise InvalidSettings(f"{target} exists already", hint="--to a new folder")
    model = models.champion(settings.models) if version == "champion" else models.load(settings.models, version)
    if model is None:
        raise NotFound("there is no champion yet", hint="recjob train --date D")
    from recommender import export as exporting
    from storage import atomic

    with atomic.new_folder(target) as draft:
        inputs = exporting.saved_model(train.load(model), draft)
    return {"version": model.version, "path": str(target), "signature": "serving_default", "inputs": inputs, "output": "predicted_rating"}
