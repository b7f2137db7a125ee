"""What `--json` prints: the document of each command, and the JSON Schema made of it. Only `recjob schema` and tests load this.

A shape is a type, a list of one shape, a tuple of alternatives, or a dict by name: `name?` may be missing, and the key `str`
stands for all other names. A number of stars or seconds may be whole. Fields may be added within a version, never taken away.
"""

from typing import Any

ID, MAYBE_TEXT, MAYBE_INT, MAYBE = (int, str), (str, None), (int, None), (float, None)
"""Ids are those of the source: numbers or text. Times are UTC, ISO 8601 without an offset."""
CHECK = {
    **{"stage": str, "check_name": str, "severity": str, "verdict": str, "message": str},
    **{"value?": MAYBE, "threshold?": MAYBE, "baseline?": MAYBE},
}
METRIC = {
    "metric": str,
    "segment": str,
    "value": float,
    "n": MAYBE_INT,
    "ci_low": MAYBE,
    "ci_high": MAYBE,
    "k?": MAYBE_INT,
}
STEP = {
    **{"step": str, "attempt": int, "status": str, "started_at": str, "finished_at?": str},
    **{"seconds?": float, "cpu_seconds?": float, "rows?": MAYBE_INT, "peak_rss_mb?": int},
}
INPUT = {
    **{"path": str, "sha256": str, "bytes": int, "modified_at": MAYBE_TEXT, "rows": int, "rows_used": int},
    **{"rows_future": int, "rows_rejected": int, "min_rated_at": MAYBE_TEXT, "max_rated_at": MAYBE_TEXT},
}
RUN = {
    **{"run_id": str, "as_of_date": str, "trigger": str, "status": str, "started_at": str, "pid?": int},
    **{"finished_at?": str, "published_at?": str, "exit_code?": int, "error_kind?": str, "error_message?": str},
    **{"model_version?": MAYBE_TEXT, "n_ratings?": MAYBE_INT, "n_users?": MAYBE_INT, "n_movies?": MAYBE_INT},
    **{"top_n?": MAYBE_INT, "seed?": int, "device?": MAYBE_TEXT, "peak_rss_mb?": int, "recjob_version?": str},
    **{"input_digest?": MAYBE_TEXT, "config_digest?": str, "output_digest?": MAYBE_TEXT, "steps": [STEP]},
    **{
        "would?": str,
        "shard?": {"number": int, "of": int},
        "inputs?": [INPUT],
        "rejected?": [{str: Any}],
        "checks?": ([CHECK], None),
        "metrics?": ([METRIC], None),
    },
}
"""The journal's record of a run; what a run did not come to is missing."""
MOVED = {"movie_id": ID, "title": MAYBE_TEXT, "before": int, "after": int, "gained": int}
DIFFERENCE = {
    **{"one": MAYBE_TEXT, "other": str, "users_only_in_other": int, "users_only_in_one?": int, "users_in_both?": int},
    **{
        "same_lists?": int,
        "entered?": MAYBE,
        "moved?": MAYBE,
        "looked_at?": float,
        "more?": [MOVED],
        "fewer?": [MOVED],
    },
}
LISTED = {
    **{"rank": int, "movie_id": ID, "title": MAYBE_TEXT, "genres": ([str], None), "score": float},
    **{"predicted_rating": float, "source": str, "reason?": MAYBE_TEXT},
}
LIST = {
    **{"user_id": ID, "as_of_date": str, "run_id": str, "segment": str, "n_ratings": int, "n_recommendations": int},
    **{"short_reason": MAYBE_TEXT, "recommendations": [LISTED]},
}
NEAR = {"movie_id": ID, "title": MAYBE_TEXT, "rating": float, "cosine": float}
EXPLAINED = {
    **{"movie_id": ID, "title": MAYBE_TEXT, "why": str, "rank": MAYBE_INT, "note?": str, "of?": int, "score?": float},
    **{
        "parts?": {str: float},
        "predicted_rating?": float,
        "rating?": MAYBE,
        "near?": [NEAR],
        "source?": MAYBE_TEXT,
        "reason?": MAYBE_TEXT,
        "rule?": MAYBE_TEXT,
    },
}
VERSION = {
    **{"version": str, "name": str, "status": str, "champion": bool, "pinned": bool, "created_at": str},
    **{"trained_through": str, "parameters": int, "holdout_rmse": MAYBE},
}
RECIPE = {"model": {str: Any}, "train": {str: Any}}
EPOCH = {"number": int, "train_rmse": MAYBE, "holdout_rmse": MAYBE}
FEATURES = {"users": [str], "movies": [str]}
MANIFEST = {
    **{"version": str, "name": str, "status": str, "note": MAYBE_TEXT, "created_at": str, "trained_through": str},
    **{"digest": str, "parameters": int, "rating_scale": [float], "recipe": RECIPE, "asked": RECIPE},
    **{"features": FEATURES, "files": {str: str}, "history": [EPOCH], "lineage": {str: Any}},
    **{"metrics": [METRIC], "checks": [CHECK]},
}
CARD = {
    **{"version": str, "name": str, "status": str, "note": MAYBE_TEXT, "created_at": str, "trained_through": str},
    **{"digest": str, "parameters": int, "rating_scale": [float], "recipe": RECIPE, "features": FEATURES},
    **{"epochs": int, "data": {str: Any}, "holdout": {"share": MAYBE, "ratings": MAYBE_INT}, "limits": [str]},
    **{"metrics": [METRIC | {"of": str}], "verdicts": [{"check_name": str, "verdict": str, "message": str}]},
    **{"path?": str},
}
CROWNED = {"champion": str, "before": MAYBE_TEXT, "pinned": bool}
SETTING = (str, float, bool, [Any], None)
PLACE = {"files": int, "rows?": int}
TRIAL = {
    **{"trial": int, "state": str, "value": MAYBE, "params": {str: Any}, "epochs": int, "best_epoch": MAYBE_INT},
    **{"seconds": MAYBE, "error": MAYBE_TEXT},
}
STATUS = {
    **{"database": str, "as_of_date": MAYBE_TEXT, "published_at": MAYBE_TEXT, "hours_old": MAYBE, "dates": int},
    **{"damaged": ({"why": str, "hint": str}, None), "stale": bool, "champion": MAYBE_TEXT, "busy": bool},
    "running": ({"run_id": str, "as_of_date": str, "started_at": str, "pid": int}, None),
    "last_runs": [
        {"run_id": str, "as_of_date": str, "status": str, "started_at": MAYBE_TEXT, "error_kind": MAYBE_TEXT}
    ],
}

DOCUMENTS: dict[str, dict[Any, Any]] = {
    "error": {"error": {"kind": str, "message": str, "hint": str, str: Any}, "exit_code": int},
    "demo": {
        **{"synthetic": bool, "run": RUN, "ratings": int, "lake": str, "database": str, "config": str},
        **{"user": LIST, "seconds": float},
    },
    "init": {"config": str, "state_dir": str},
    "ingest": {
        **{"source": str, "lake": str, "offered": int, "added": int, "files": int, "movies": int, "users": int},
        **{"first_rated_at": str, "last_rated_at": str, "seconds": float},
    },
    **dict.fromkeys(("check", "train", "score", "nightly", "publish", "runs show"), RUN),
    "plan": {"run": RUN, "difference": DIFFERENCE},
    "backfill": {
        **{"dry_run?": bool, "from?": str, "to?": str, "only?": str, "failed?": int},
        "dates": [(str, {"as_of_date": str, "status": str, "run_id?": str, "error?": str, "exit_code?": int})],
    },
    "rollback": {"from": str, "to": str, "champion": MAYBE_TEXT},
    "prune": {"removed": [str], "freed_bytes": int},
    "sync": {
        **{"url": str, "commit": MAYBE_TEXT, "files": int},
        **{name: {"files": int, "bytes": int} for name in ("taken", "pushed")},
    },
    "forget": {
        **{"asked": int, "kept_out": int, "let_in?": int, "held?": bool, "erased?": {str: PLACE}, "seconds?": float},
        "damaged?": [{"path": str, "hint": str}],
        "still_contain?": [{"path": str, "rows": MAYBE_INT}],
    },
    "schedule run": {"stopped_by": MAYBE_INT},
    "schedule next": {
        **{"cron": str, "timezone": str, "warning": MAYBE_TEXT},
        "next": [{"at": str, "utc": str, "as_of_date": str}],
    },
    "doctor": {"state": str, "findings": [{"check": str, "state": str, "message": str, "hint": str}]},
    "completion": {"shell": str, "script": str},
    "schema": {"document": {str: Any}},
    "status": STATUS,
    "late": {"dates": [{"as_of_date": str, "run_id": str, "then": MAYBE_INT, "now": int, "late": MAYBE_INT}]},
    "runs list": {
        "runs": [
            {"run_id": str, "as_of_date": str, "status": str, "trigger": MAYBE_TEXT, "model_version": MAYBE_TEXT}
            | {"n_users": MAYBE_INT, "peak_rss_mb": MAYBE_INT, "error_kind": MAYBE_TEXT}
        ]
    },
    "runs diff": DIFFERENCE,
    "models list": {"models": [VERSION]},
    "models show": MANIFEST,
    "models card": CARD,
    "models export": {"version": str, "path": str, "signature": str, "inputs": (dict, list), "output": str},
    **dict.fromkeys(("models promote", "models pin", "models unpin"), CROWNED),
    "recommend": LIST,
    "explain": {
        **{"user_id": ID, "as_of_date": str, "run_id": str, "model_version": str, "segment": str, "n_ratings": int},
        "movies": [EXPLAINED],
    },
    "export": {"path": str, "format": str, "as_of_date": str, "rows?": int, "lines?": int},
    "query": {"columns": [str], "rows": ([[Any]], int), "path?": str},
    "report": {"path": str},
    "config show": {"settings": {str: (*SETTING, {"value": SETTING, "origin": str})}},
    "evaluate": {
        **{"model": str, "split": str, "movie_key": str, "seed": int, "blend": [float], "parameters": int},
        **{"rows": {str: int}, "rmse": {str: MAYBE}, "metrics": {str: [METRIC]}, "baselines": {str: {str: float}}},
        **{"epochs": int, "seconds": float, "history": [EPOCH], "lists?": {str: {str: Any}}, "plot?": str},
        "summary": [{"layer": str, "kind": str, "parameters": int}],
    },
    "backtest": {
        **{"model": str, "from": str, "to": str, "every": int, "retrain": [int], "seed": int, "blend": [float]},
        **{"measured": int, "user_nights": int, "means": {str: {str: MAYBE}}, "trainings": int, "seconds": float},
        "differences": [{"metric": str, "of": str, "minus": str, "value": float, "ci_low": float, "ci_high": float}],
        "nights": [{"as_of": str, "known": int, "ratings": int, "users": int, "figures": {str: {str: Any}}}],
        "plot?": str,
    },
    "tune": {
        **{"study": str, "file": str, "model": str, "split": str, "preset": MAYBE_TEXT, "seed": int},
        **{"searched": [str], "trials": [TRIAL], "best": (TRIAL, None), "toml": MAYBE_TEXT, "plot?": MAYBE_TEXT},
    },
}
"""By command; `error` is what any of them prints where it fails."""

_TYPES = {int: "integer", str: "string", float: "number", bool: "boolean", dict: "object", list: "array", None: "null"}


def identity(command: str) -> str:
    """The `schema` field of a command's document: its name and version, e.g. recjob.runs-show/1."""
    return f"recjob.{command.replace(' ', '-')}/1"


def schema(command: str, *, closed: bool = False) -> dict[str, Any]:
    """The JSON Schema (draft 7) of the document that a command prints; `closed`: without room for other fields.

    Raises `KeyError` for what is no command.
    """
    named = _schema(DOCUMENTS[command], closed)
    named["properties"] = {"schema": {"const": identity(command)}, **named["properties"]}
    named["required"] = ["schema", *named["required"]]
    return {"$schema": "http://json-schema.org/draft-07/schema#", "$id": identity(command), **named}


def _schema(shape: Any, closed: bool) -> dict[str, Any]:
    if shape is Any:
        return {}
    if isinstance(shape, list):
        return {"type": "array", "items": _schema(shape[0], closed)}
    if isinstance(shape, tuple):
        return {"anyOf": [_schema(one, closed) for one in shape]}
    if not isinstance(shape, dict):
        return {"type": _TYPES[shape]}
    named = {name: inner for name, inner in shape.items() if name is not str}
    return {
        "type": "object",
        "properties": {name.removesuffix("?"): _schema(inner, closed) for name, inner in named.items()},
        "required": [name for name in named if not name.endswith("?")],
        "additionalProperties": _schema(shape[str], closed) if str in shape else not closed,
    }
