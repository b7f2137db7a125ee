"""A model card: what a stored version is, what it was measured on, and what is known to limit it."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from recommender.config import Recipe
from storage import atomic

_KINDS = ("rmse", "mae", "ndcg", "recall", "hit_rate", "mrr", "map", "coverage", "novelty", "gini", "diversity")
"""Figures by name, without the number of places; what stands before one says whose it is: `EASE_ndcg@10`."""
_FACTS = ("status", "note", "created_at", "trained_through", "parameters", "digest")
_SPAN = ("ratings", "users", "movies", "first_rated_at", "last_rated_at")
MODEL = "model"
"""Whose figures are not a baseline's."""


def card(manifest: Mapping[str, Any]) -> dict[str, Any]:
    """The facts in a manifest of the registry that a reader needs to trust a version, or not to; unknown ones are None.

    The figures are those of a first training without the newest ratings; the weights are those of a second on all.
    """
    lineage, checks = manifest.get("lineage", {}), manifest.get("checks", [])
    metrics = [_metric(row) for row in manifest.get("metrics", [])]
    found = {
        **{name: manifest.get(name) for name in ("version", "name", *_FACTS)},
        "data": {name: lineage.get(name) for name in _SPAN},
        "holdout": {"share": lineage.get("holdout"), "ratings": _value(metrics, MODEL, "rmse", figure="n")},
        "metrics": metrics,
        "verdicts": [{key: check.get(key) for key in ("check_name", "verdict", "message")} for check in checks],
        "recipe": manifest.get("recipe", {}),
        "rating_scale": manifest.get("rating_scale"),
        "features": {side: list(manifest.get("features", {}).get(side, [])) for side in ("users", "movies")},
        "epochs": len(manifest.get("history", [])),
    }
    return found | {"limits": list(_limits(found))}


def write(document: Mapping[str, Any], target: Path) -> Path:
    """Write a card as Markdown into `target`, whole or not at all; returns it."""
    with atomic.new_file(target) as draft:
        draft.write_text(markdown(document), encoding="utf-8")
    return target


def markdown(document: Mapping[str, Any]) -> str:
    """A card as a Markdown page."""
    told = {name: document[name] for name in _FACTS} | document["data"] | {"epochs": document["epochs"]}
    recipe = {**document["recipe"].get("model", {}), **document["recipe"].get("train", {})}
    verdicts = [(row["check_name"], row["verdict"], row["message"]) for row in document["verdicts"]]
    features = [(side, len(names), ", ".join(names)) for side, names in document["features"].items() if names]
    parts = [
        f"# Model card: {_text(document['name'])} {_text(document['version'])}",
        _table(("fact", "value"), [(_words(key), value) for key, value in told.items() if value is not None]),
        f"## Figures\n\n{_measured_on(document['holdout'])}",
        *_errors(document["metrics"]),
        *_lists(document["metrics"]),
        "## Known limits\n\n" + "\n".join(f"- {_text(limit)}" for limit in document["limits"]),
        *(["## Verdicts\n\n" + _table(("check", "verdict", "why"), verdicts)] if verdicts else []),
        *(["## Features\n\n" + _table(("of", "number", "names"), features)] if features else []),
        "## Recipe\n\n" + _table(("hyper-parameter", "value"), recipe.items()),
    ]
    return "\n\n".join(parts) + "\n"


def _metric(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row of the manifest's metrics, with whose figure it is."""
    name = str(row["metric"])
    whole = name.partition("@")[0]
    kind = next((kind for kind in _KINDS if whole == kind or whole.endswith(f"_{kind}")), whole)
    of = whole.removesuffix(kind).removesuffix("_") or MODEL
    figure = name if of == MODEL else name.removeprefix(f"{of}_")
    rest = {key: row.get(key) for key in ("value", "n", "ci_low", "ci_high")}
    return {"of": of, "segment": row["segment"], "metric": figure, **rest}


def _found(metrics: Iterable[dict[str, Any]], of: str, metric: str, segment: str = "all") -> dict[str, Any] | None:
    wanted = (of, metric, segment)
    return next((row for row in metrics if (row["of"], row["metric"], row["segment"]) == wanted), None)


def _value(
    metrics: Iterable[dict[str, Any]], of: str, metric: str, segment: str = "all", figure: str = "value"
) -> Any | None:
    row = _found(metrics, of, metric, segment)
    return None if row is None else row[figure]


def _owners(metrics: Iterable[dict[str, Any]]) -> list[str]:
    """Whose figures there are, the model's first."""
    return list(dict.fromkeys([MODEL, *(row["of"] for row in metrics)]))


def _limits(found: Mapping[str, Any]) -> Iterable[str]:
    """What is known to limit the version, a sentence each."""
    metrics = found["metrics"]
    if found["status"] in ("refused", "forced"):
        why = f" It was used all the same: {found['note']}." if found["note"] else ""
        yield f"It did not pass its checks.{why}"
    if found["trained_through"]:
        yield f"It learned from no rating given at or after {found['trained_through']} UTC."
    if not metrics:
        yield "It was not measured: no rating was held out."
    else:
        yield (
            "It was measured on the newest ratings, not on random ones, so its figures do not compare with those of "
            "random splits. They are of a first training without these ratings; the version was then trained on all."
        )
    yield from _cold(metrics)
    if found["recipe"].get("model"):
        by_history = Recipe.from_json(found["recipe"]).model.by_history
        yield (
            "It describes users by the ratings known when it scores: new ratings count without a new training."
            if by_history
            else "It knows users by their ids: one who joined after its training gets the most rated movies."
        )
    yield from _beaten(metrics)
    coverage = _value(metrics, MODEL, "coverage@10")
    if coverage is not None:
        yield f"The first ten of all lists that were measured show {_share(coverage)} of the movies."
    if found["rating_scale"]:
        low, high = found["rating_scale"]
        yield f"Predicted stars are clipped to {low:g} to {high:g}, the scale of its training."


def _cold(metrics: Sequence[dict[str, Any]]) -> Iterable[str]:
    """How much of what was held out the model could not know, and how far off it is there."""
    everything, warm = _found(metrics, MODEL, "rmse"), _value(metrics, MODEL, "rmse", "warm")
    for segment, what in (("cold_user", "users"), ("cold_movie", "movies")):
        cold = _found(metrics, MODEL, "rmse", segment)
        if everything is None or cold is None:
            continue
        beside = "" if warm is None else f", against {warm:.3f} where both user and movie had some"
        yield (
            f"{_share(cold['n'] / everything['n'])} of the ratings held out ({cold['n']:,} of {everything['n']:,}) are of "
            f"{what} without a rating in that first training: RMSE {cold['value']:.3f} there{beside}."
        )


def _beaten(metrics: Sequence[dict[str, Any]]) -> Iterable[str]:
    """Which of the others have a better figure."""
    for name, shown, sign in (("rmse", "RMSE", -1), ("ndcg@10", "NDCG@10", 1)):
        own = _value(metrics, MODEL, name)
        for other in _owners(metrics)[1:]:
            value = _value(metrics, other, name)
            if own is not None and value is not None and sign * value > sign * own:
                yield f"The {shown} of {other} is better: {value:.3f}, against {own:.3f}."


def _measured_on(holdout: Mapping[str, Any]) -> str:
    if holdout["ratings"] is None:
        return "None: no rating was held out."
    share = "" if holdout["share"] is None else f"{_share(holdout['share'])} of the "
    return (
        f"Measured on the newest {share}ratings, {holdout['ratings']:,} of them. In brackets: 95 % bootstrap intervals over "
        "users. Warm: both user and movie had ratings in training. Light, medium, heavy: users who had 1 to 19, 20 to 99, "
        "100 or more."
    )


def _errors(metrics: Sequence[dict[str, Any]]) -> list[str]:
    """A table of the errors in stars: a segment a line."""
    segments = list(dict.fromkeys(row["segment"] for row in metrics if row["metric"] == "rmse" and row["of"] == MODEL))
    if not segments:
        return []
    others = [of for of in _owners(metrics)[1:] if _found(metrics, of, "rmse")]
    rows = [
        (
            _words(segment),
            _value(metrics, MODEL, "rmse", segment, "n"),
            _interval(_found(metrics, MODEL, "rmse", segment)),
            _interval(_found(metrics, MODEL, "mae", segment)),
            *(_plain(_value(metrics, of, "rmse", segment)) for of in others),
        )
        for segment in segments
    ]
    columns = ("segment", "ratings", "RMSE", "MAE", *(f"RMSE of {of}" for of in others))
    return ["### Predicted stars", _table(columns, rows)]


def _lists(metrics: Sequence[dict[str, Any]]) -> list[str]:
    """A table of how good the lists are: the model, and each of the others, a line."""
    names = list(dict.fromkeys(row["metric"] for row in metrics if "@" in row["metric"]))
    if not names:
        return []
    rows = []
    for of in _owners(metrics):
        found = [_found(metrics, of, name) for name in names]
        if users := max((row["n"] or 0 for row in found if row), default=0):
            rows.append((of, users, *(_interval(row) for row in found)))
    return ["### Lists", _table(("lists of", "users", *names), rows)]


def _interval(row: Mapping[str, Any] | None) -> str:
    if row is None or row["value"] is None:
        return ""
    ends = "" if row["ci_low"] is None else f" ({row['ci_low']:.3f} to {row['ci_high']:.3f})"
    return f"{row['value']:.3f}{ends}"


def _plain(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"


def _share(value: float) -> str:
    return f"{100 * value:.3g} %"


def _words(name: str) -> str:
    return name.replace("_", " ")


def _table(columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """A Markdown table; columns of numbers to the right."""
    body = [[_text(value) for value in row] for row in rows]
    right = [bool(body) and all(row[at][:1].isdigit() or not row[at] for row in body) for at in range(len(columns))]
    lines = [[_text(name) for name in columns], ["---:" if flag else "---" for flag in right], *body]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _text(value: Any) -> str:
    """A value in one line, without what Markdown would read as the end of a cell or as a tag."""
    if value is None:
        return ""
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    text = ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
    line = "".join(letter if letter.isprintable() else " " for letter in text)
    return line.replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;")
