"""What stands first in the report of a run: what became of it, the verdicts, its figures beside those of the nights before."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import date, datetime
from typing import Any

LISTED = ("published", "unchanged")
"""How a run ends whose lists readers see."""
_BAD = ("failed", "crashed", "cancelled", "refused")
_STALE = 2
"""Days without a rating before the date from which they are worth a warning."""
_NIGHTS = 30
"""Newest nights that are drawn beside each other."""
FIGURES = ("ndcg@10", "recall@50", "hit_rate@10", "coverage@10", "rmse", "mae")
"""Columns of the table of the model and the baselines; the last two are better where they are less."""
ORDER = ("fail", "overridden", "warn", "pass", "skipped")
"""Verdicts, the worst first."""
STATES = {"fail": "bad", "overridden": "warn", "warn": "warn", "pass": "good", "skipped": "good"}
_SAID = {"fail": "refused", "overridden": "forced", "warn": "look", "pass": "good", "skipped": "not judged"}
_STAGES = {"input": "Input", "model": "Model", "recommendations": "Lists"}
_NIGHTLY = ("ndcg@10", "popularity_ndcg@10", "rmse", "mean_rmse", "biases_rmse")
"""Figures of the ratings held out that are drawn night by night."""
Tile = tuple[str, str, str]


def headline(record: Mapping[str, Any], shown: Mapping[str, Any]) -> dict[str, str]:
    """What became of the run, and what readers see (`shown`, by date): a state (good, warn or bad), a title, a sentence."""
    status, day = record["status"], record["as_of_date"]
    replaced = status in LISTED and _refused_model(record)
    state = "bad" if status in _BAD else "good" if status in LISTED and not replaced else "warn"
    title = status.replace("_", " ").capitalize() + (" with the champion" if replaced else "")
    if status in LISTED:
        users = f" for {record['n_users']:,} users" if record.get("n_users") else ""
        return {"state": state, "title": title, "text": _seen(day, users, shown)}
    readers = f"Readers still see the lists of {max(shown)}." if shown else "Nothing is published yet."
    error = record.get("error_message") or ""
    return {"state": state, "title": title, "text": f"{error[:1].upper()}{error[1:]}{'. ' if error else ''}{readers}"}


def _seen(day: str, users: str, shown: Mapping[str, Any]) -> str:
    """What readers see once the lists of a date are published: those of a newer one, unless they ask for it."""
    newest = max(shown, default=day)
    if day not in shown:
        return f"The lists of {day}{users} were published." + (f" Readers now see those of {newest}." if shown else "")
    also = "" if newest == day else f" where they ask for that date; the newest are of {newest}"
    return f"Readers see the lists of {day}{users}{also}."


def verdicts(record: Mapping[str, Any]) -> list[dict[str, str]]:
    """Whether the ratings are fresh, and what each gate said: each with a state, and at length only where all is not well."""
    found = []
    newest = max((file["max_rated_at"] for file in record.get("inputs", []) if file["max_rated_at"]), default=None)
    if newest is not None:
        days = max(0, (date.fromisoformat(record["as_of_date"]) - date.fromisoformat(newest[:10])).days)
        what, state = ("Ratings: fresh", "good") if days <= _STALE else (f"Ratings: none for {days} days", "warn")
        found.append({"what": what, "state": state, "why": f"the newest is of {instant(newest)} UTC"})
    for stage, name in _STAGES.items():
        checks = [check for check in record.get("checks", []) if check["stage"] == stage]
        if checks:
            worst = min((check["verdict"] for check in checks), key=ORDER.index)
            told = "; ".join(
                check.get("message") or check["check_name"] for check in checks if check["verdict"] == worst
            )
            why = f"{_counted(checks)} within limits" if worst == "pass" else told
            found.append({"what": f"{name}: {_SAID[worst]}", "state": STATES[worst], "why": why})
    return found


def nights(records: Sequence[Mapping[str, Any]], run_id: str) -> list[dict[str, Any]]:
    """The newest attempt of each of the newest dates up to a run, by date: how it ended, and its figures."""
    idle = ("unchanged", "checked", "running")
    tried = {r["as_of_date"]: r for r in records if r["run_id"] <= run_id and r["status"] not in idle}
    return [_night(tried[day]) for day in sorted(tried)[-_NIGHTS:]]


def beside(metrics: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The model and the baselines by the figures of all that was held out: name, value, and whether it is the best."""
    rows: dict[str, dict[str, float]] = {}
    for metric in metrics:
        if metric["segment"] == "all" and metric["metric"] in FIGURES:
            rows.setdefault(metric["of"], {})[metric["metric"]] = metric["value"]
    best = {}
    for name in FIGURES:
        found = [row[name] for row in rows.values() if name in row]
        if found and name != "coverage@10":
            best[name] = min(found) if name in ("rmse", "mae") else max(found)
    return [
        {"of": of, "figures": [(name, row.get(name), row.get(name, 0) == best.get(name)) for name in FIGURES]}
        for of, row in rows.items()
    ]


def tiles(
    run: Mapping[str, Any], published: Mapping[str, Any] | None, nights: Sequence[Mapping[str, Any]]
) -> list[Tile]:
    """The figures of a run at a glance: value, what it is, what to compare it with."""
    day = run["as_of_date"]
    now: Mapping[str, Any] = next((night for night in nights if night["as_of_date"] == day), {})
    before: Mapping[str, Any] = next(
        (n for n in reversed(nights) if n["as_of_date"] < day and n["status"] in LISTED), {}
    )

    def figure(name: str, what: str, form: Callable[[float], str], other: str = "", rival: str = "") -> Iterator[Tile]:
        if now.get(name) is None:
            return
        others = [f"{other} {form(now[rival])}"] if now.get(rival) is not None else [other] if not rival else []
        was = [f"{form(before[name])} on {before['as_of_date'][5:]}"] if before.get(name) is not None else []
        yield form(now[name]), what, ", ".join(filter(None, [*others, *was]))

    found = [
        *figure("n_users", "users", "{:,.0f}".format, f"{published['rows']:,} places" if published else ""),
        *figure("ndcg@10", "NDCG@10 of the lists", "{:.3f}".format, "popularity", "popularity_ndcg@10"),
        *figure("rmse", "RMSE of the stars", "{:.3f}".format, "mean rating", "mean_rmse"),
    ]
    if published:
        now = {**now, "churn": _churn(published["changes"])}
        part = f"{share(published['listed'] / max(1, published['movies']))} of {published['movies']:,}"
        found.append((f"{published['listed']:,}", "movies in lists", part))
    found += figure("churn", "list churn", share)
    if (took := seconds(run)) is not None:
        memory = f"{run['peak_rss_mb'] / 1024:.2g} GiB at most" if run.get("peak_rss_mb") else ""
        found.append((_duration(took), "from start to end", memory))
    return found


def seconds(record: Mapping[str, Any]) -> float | None:
    """How long a run took; None while it runs, and where it crashed."""
    if not record.get("finished_at"):
        return None
    return (
        datetime.fromisoformat(record["finished_at"]) - datetime.fromisoformat(record["started_at"])
    ).total_seconds()


def share(value: float) -> str:
    """A part of a whole, in percent."""
    return f"{100 * value:.0f} %" if value >= 0.1 else f"{100 * value:.1f} %"


def instant(written: str) -> str:
    """A time as people read it, to the minute."""
    return written[:16].replace("T", " ")


def _night(record: Mapping[str, Any]) -> dict[str, Any]:
    metrics = {row["metric"]: row["value"] for row in record.get("metrics", []) if row["segment"] == "all"}
    checks = {row["check_name"]: row.get("value") for row in record.get("checks", [])}
    took = seconds(record)
    return {
        **{name: record.get(name) for name in ("as_of_date", "status", "n_users", "peak_rss_mb")},
        **{name: metrics.get(name) for name in _NIGHTLY},
        **{name: checks.get(name) for name in ("coverage", "churn")},
        "minutes": None if took is None else took / 60,
    }


def _churn(changes: Sequence[Mapping[str, Any]]) -> float | None:
    """Share of the movies listed on the date before that have left their list; the gate's figure is of the lists before, which
    may be of the same date."""
    rows = {row["change"]: row["rows"] for row in changes}
    before = sum(rows.values()) - rows.get("entered", 0)
    return rows.get("left", 0) / before if before else None


def _refused_model(record: Mapping[str, Any]) -> bool:
    return any((check["stage"], check["verdict"]) == ("model", "fail") for check in record.get("checks", []))


def _counted(checks: Sequence[Mapping[str, Any]]) -> str:
    skipped = sum(check["verdict"] == "skipped" for check in checks)
    return f"{len(checks) - skipped} of {len(checks)}" if skipped else f"all {len(checks)} figures"


def _duration(seconds: float) -> str:
    minutes = round(seconds / 60)
    return f"{seconds:.0f} s" if seconds < 120 else f"{minutes} min" if minutes < 120 else f"{seconds / 3600:.1f} h"
