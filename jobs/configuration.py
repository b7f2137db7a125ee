"""Where settings come from: flags, `RECJOB_*` variables, one TOML file, defaults, in that order.

Unknown keys are errors.
"""

import dataclasses
import difflib
import logging
import tomllib
from collections.abc import Mapping
from pathlib import Path
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from jobs.settings import Schedule, Settings
from recommender.config import RECIPES
from storage import urls

logger = logging.getLogger(__name__)
_LARGEST = 2**20
"""Bytes of a configuration."""
_OTHER_VARIABLES = ("RECJOB_CONFIG", "RECJOB_RUN_", "RECJOB_TEST_")
"""Variables that are no settings: the file, what hooks are told, what tests need."""
_PATHS = (
    *("state_dir", "input.ratings", "input.movies", "input.users", "publish.metrics_file"),
    *(f"rules.{name}" for name in ("candidates_sql", "allow", "block", "exclude", "opt_out", "pinned")),
)
"""Keys of files and folders."""
_URLS = ("input.ratings", "input.movies", "input.users", "store.url")
"""Keys that may be URLs as well."""
PRIVATE = ("hooks.on_success", "hooks.on_refusal", "hooks.on_failure")
"""Keys whose values are shown nowhere: arguments of programs may hold a password."""


class InvalidSettings(Exception):
    """A setting that cannot be used: unknown, of the wrong type, or out of range."""

    kind = "E_CONFIG"

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint


def load(file: Path | None, environ: Mapping[str, str], flags: Mapping[str, Any] | None = None) -> Settings:
    """Settings from `flags` (dotted keys), `RECJOB_*` variables, the TOML `file` and defaults; raises `InvalidSettings`.

    Relative paths in a file count from the file's folder, all others from the working folder.
    """
    values: dict[str, Any] = {}
    origin: dict[str, str] = {}
    for source, found in (
        (str(file), _from_file(file)),
        ("environment", _from_environ(environ)),
        ("flag", {key: value for key, value in (flags or {}).items() if value is not None}),
    ):
        for key, value in found.items():
            values[key] = _located(key, _checked(key, value, source), source)
            origin[key] = f"{source} {variable(key)}" if source == "environment" else source
    settings: Settings = _build(Settings, values, origin)
    _check_ranges(settings)
    return settings


def _located(key: str, value: Any, source: str) -> Any:
    """The value, of a key that may be a URL: with file:// as a path. Raises `InvalidSettings`, which quotes no password."""
    if key not in _URLS or not value or (key != "store.url" and not urls.is_url(value)):
        return value
    folder = key == "store.url" and value.startswith("file:")
    if problem := "is a folder: copy the state folder itself" if folder else urls.problem(value):
        raise InvalidSettings(
            f"{source}: {key} {problem}", hint="s3://bucket/folder, gs://, az://, abfs:// (docs/howto/s3.md)"
        )
    return urls.plain(value)


def known_keys() -> dict[str, Any]:
    """Every dotted key with its default."""
    return dict(_flatten(Settings()))


def flat(settings: Settings) -> dict[str, Any]:
    """Every dotted key with its value; hyper-parameters as the recipe resolves them."""
    values = dict(_flatten(settings))
    resolved = settings.recipe
    for part in (resolved.model, resolved.train):
        for parameter in dataclasses.fields(part):
            values[f"model.{parameter.name}"] = getattr(part, parameter.name)
    return values


def _from_file(file: Path | None) -> dict[str, Any]:
    if file is None:
        return {}
    try:
        if not file.is_file() or file.stat().st_size > _LARGEST:
            what = (
                f"has {file.stat().st_size:,} bytes, a configuration has at most {_LARGEST:,}"
                if file.is_file()
                else "is no file"
            )
            raise InvalidSettings(f"{file} {what}", hint="recjob init writes one")
        document = tomllib.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise InvalidSettings(f"{file} cannot be read: {error.strerror}", hint="recjob init writes one") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InvalidSettings(f"{file} is not TOML: {error}") from error
    found = _leaves(document)
    for key in _PATHS:
        if isinstance(found.get(key), str) and found[key] and not urls.is_url(found[key]):
            found[key] = str(file.resolve().parent / found[key])
    return found


def _from_environ(environ: Mapping[str, str]) -> dict[str, Any]:
    by_variable = {variable(key): key for key in known_keys()}
    for name in environ:
        if name.startswith("RECJOB_") and name not in by_variable and not name.startswith(_OTHER_VARIABLES):
            near = difflib.get_close_matches(name, by_variable, n=1, cutoff=0.5)
            logger.warning("config.unknown_variable", extra={"variable": name, "nearest": near[0] if near else None})
    return {by_variable[name]: value for name, value in environ.items() if name in by_variable}


def variable(key: str) -> str:
    """The environment variable of a dotted key."""
    return "RECJOB_" + key.replace(".", "_").upper()


def _leaves(document: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in document.items():
        found |= _leaves(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return found


def _flatten(value: Any, prefix: str = "") -> list[tuple[str, Any]]:
    found: list[tuple[str, Any]] = []
    for part in dataclasses.fields(value):
        if part.name == "origin":
            continue
        inner = getattr(value, part.name)
        nested = dataclasses.is_dataclass(inner)
        found += _flatten(inner, f"{prefix}{part.name}.") if nested else [(f"{prefix}{part.name}", inner)]
    return found


def _checked(key: str, value: Any, source: str) -> Any:
    """The value in the type of its key."""
    keys = known_keys()
    if key not in keys:
        near = difflib.get_close_matches(key, keys, n=1, cutoff=0.5)
        raise InvalidSettings(
            f"{source}: unknown key {key!r}",
            hint=f"did you mean {near[0]!r}?" if near else "recjob config show lists the keys",
        )
    owner: Any = Settings
    *sections, name = key.split(".")
    for section in sections:
        owner = get_type_hints(owner)[section]
    wanted = get_type_hints(owner)[name]
    converted = _converted(value, wanted)
    if converted is None:
        shown = "is something else" if key in PRIVATE else f"is {value!r}"
        raise InvalidSettings(f"{source}: {key} {shown}, expected {_described(wanted)}")
    return converted


def _converted(value: Any, wanted: Any) -> Any:
    """`value` as the type `wanted`, text (from the environment) parsed; None where it does not fit."""
    if get_origin(wanted) in (Union, UnionType):
        return _converted(value, next(kind for kind in get_args(wanted) if kind is not type(None)))
    if get_origin(wanted) is Literal:
        return value if value in get_args(wanted) else None
    if get_origin(wanted) is tuple:
        parts = value.split(",") if isinstance(value, str) else value
        numbers = (
            [_converted(part, get_args(wanted)[0]) for part in parts] if isinstance(parts, list | tuple) else [None]
        )
        return None if None in numbers else tuple(numbers)
    if wanted is bool:
        return {"true": True, "false": False, "1": True, "0": False}.get(str(value).lower())
    if wanted is Path:
        return Path(value) if isinstance(value, str | Path) and str(value) else None
    if wanted is str:
        return value if isinstance(value, str) else None
    if isinstance(value, bool):
        return None
    try:
        number = wanted(value)
    except (TypeError, ValueError):
        return None
    return number if isinstance(value, str) or number == value else None


_LISTED = {int: "whole numbers", float: "numbers", str: "texts"}


def _described(wanted: Any) -> str:
    if get_origin(wanted) is Literal:
        return "one of " + ", ".join(map(repr, get_args(wanted)))
    if get_origin(wanted) is tuple:
        return f"a list of {_LISTED[get_args(wanted)[0]]}"
    names = {int: "a whole number", float: "a number", bool: "true or false", str: "text", Path: "a path"}
    return names.get(wanted, "a number")


def _build(kind: Any, values: Mapping[str, Any], origin: Mapping[str, str], prefix: str = "") -> Any:
    arguments: dict[str, Any] = {"origin": dict(origin)} if kind is Settings else {}
    for part in dataclasses.fields(kind):
        key = f"{prefix}{part.name}"
        nested = get_type_hints(kind)[part.name]
        if dataclasses.is_dataclass(nested):
            arguments[part.name] = _build(nested, values, origin, f"{key}.")
        elif key in values:
            arguments[part.name] = values[key]
    return kind(**arguments)


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


def _check_ranges(settings: Settings) -> None:
    values = dict(_flatten(settings))
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
