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

from jobs import allowed
from jobs.allowed import InvalidSettings
from jobs.settings import Settings
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
    allowed.check(settings, dict(_flatten(settings)))
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
