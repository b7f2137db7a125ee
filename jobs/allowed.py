"""Which values settings may have."""

from collections.abc import Mapping
from typing import Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from jobs.settings import Schedule, Settings
from recommender.config import RECIPES


class InvalidSettings(Exception):
    """A setting that cannot be used: unknown, of the wrong type, or out of range."""

    kind = "E_CONFIG"

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint


RANGES: dict[str, tuple[float, float]] = {
    "input.max_rejected": (0, 1),
    "input.min_share": (0, 1),
    "input.max_age_days": (0, 36_500),
    "input.settle_seconds": (0, 3600),
    "gate.holdout": (0, 0.9),
    "gate.max_rmse_ratio": (0, 1000),
    "gate.min_coverage": (0, 1),
    "gate.max_same_list": (0, 1),
    "gate.max_same_first": (0, 1),
    "gate.max_churn": (0, 1),
    "gate.min_movies": (0, 1),
    "gate.max_cold_rise": (0, 1),
    "candidates.min_ratings": (1, 2**31),
    "rules.new_every": (0, 1000),
    "rules.new_days": (0, 36_500),
    "rules.genre_cap": (0, 1000),
    "rules.genre_places": (1, 1000),
    "rules.damping": (0, 1000),
    "score.top_n": (1, 1000),
    "score.batch_size": (0, 2**31),
    "score.memory_gib": (0, 4096),
    "score.shards": (1, 10_000),
    "score.actors": (0, 10_000),
    "score.devices": (0, 1024),
    "publish.retention_dates": (1, 3660),
    "publish.keep_files": (1, 1000),
    "publish.keep_models": (1, 1000),
    "publish.keep_reports": (0, 10_000),
    "publish.similar_movies": (0, 1000),
    "schedule.timeout_hours": (0.001, 240),
    "schedule.retries": (0, 10),
    "hooks.timeout_seconds": (0.1, 3600),
    "model.epochs": (1, 100_000),
    "model.batch_size": (1, 2**24),
    "model.patience": (0, 100_000),
    "model.embedding_dimension": (1, 4096),
    "model.l2": (0, 1000),
    "model.steps_per_epoch": (0, 100_000),
    "model.stars_dimension": (1, 4096),
    "model.choice_dimension": (1, 4096),
    "model.user_rows": (0, 2**31 - 2),
    "model.taste_dimension": (1, 4096),
    "model.taste_l2": (1e-6, 1000),
    "model.ridge_dimension": (1, 4096),
    "model.ridge_l2": (1e-6, 1e9),
    "model.trend_days": (0.1, 36_500),
    "model.timely": (0, 1),
    "model.prior": (1e-3, 1000),
    "model.learning_rate": (1e-9, 1e9),
}


def check(settings: Settings, values: Mapping[str, Any]) -> None:
    """Raise `InvalidSettings` where a value cannot be; `values` are all by their dotted keys."""
    for key, (low, high) in RANGES.items():
        if values[key] is not None and not low <= values[key] <= high:
            found = settings.origin.get(key, "default")
            raise InvalidSettings(
                f"{key} is {values[key]}, expected {low:g} to {high:g}", hint=f"it comes from: {found}"
            )
    weights = settings.model.blend
    if weights and not (len(weights) == 3 and all(0 <= w < 1e6 for w in weights) and any(weights)):
        raise InvalidSettings(
            f"model.blend is {list(weights)}, expected three weights of choice, taste and stars from 0 on, not all 0",
            hint="[1, 0.5, 0.8], in the environment 1,0.5,0.8; without it the holdout decides",
        )
    if settings.input.part:
        from storage.part import Part  # takes numpy

        try:
            Part.parsed(settings.input.part)
        except ValueError as error:
            hint = "3/16 is the third of sixteen parts of the users"
            raise InvalidSettings(f"input.part is {settings.input.part!r}, expected K/N", hint=hint) from error
    if settings.model.name not in RECIPES:
        raise InvalidSettings(f"model.name is {settings.model.name!r}, expected one of {', '.join(RECIPES)}")
    for key in ("timezone", "schedule.timezone"):
        try:
            ZoneInfo(values[key])
        except (ZoneInfoNotFoundError, ValueError) as error:
            raise InvalidSettings(
                f"{key} is {values[key]!r}, which is no IANA zone", hint="e.g. Europe/Paris"
            ) from error
    if settings.schedule.cron != Schedule.cron:
        import scheduler  # takes 75 ms: the default is known to be good

        try:
            scheduler.trigger(settings.schedule.cron, settings.schedule.timezone)
        except scheduler.InvalidSchedule as error:
            found = settings.origin.get("schedule.cron", "default")
            raise InvalidSettings(f"schedule.cron: {error}", hint=f"it comes from: {found}") from error
