"""Whether finished lists are plausible as a whole: the gate between scoring and publishing."""

import logging
from typing import Any

from jobs.settings import Gate, Settings
from storage import lists
from storage.lists import Figures
from storage.runs import RunPartition

logger = logging.getLogger(__name__)
_FEW = 100
"""Fewer lists than these may well be alike, and so may lists that take up half of the catalogue."""
Check = dict[str, Any]


def checks(partition: RunPartition, before: RunPartition | None, settings: Settings, force: str | None) -> list[Check]:
    """The verdicts on a partition that is not staged yet, rows of the table `checks`; `before` is what readers see now.

    A figure beyond its limit is a `fail`, or `overridden` where there is a reason to `force` it. What cannot be told is
    `skipped`: whether few lists are too much alike, or those of a tiny catalogue; and what changed, on a first run.
    """
    now = lists.figures(partition)
    rows = _alike(now, partition, settings) + _changed(now, partition, before, settings)
    for check in rows:
        if check["verdict"] == "fail":
            if force is not None:
                check |= {"verdict": "overridden", "message": f"{check['message']}; forced: {force}"}
            logger.warning(f"gate.{check['verdict']}", extra={"check": check["check_name"], "why": check["message"]})
    return rows


def _alike(found: Figures, partition: RunPartition, settings: Settings) -> list[Check]:
    """Whether the model tells users apart."""
    candidates = partition.record["n_movies"]
    if found.lists < _FEW or candidates < 2 * settings.score.top_n:
        why = f"{found.lists} lists by the model from {candidates} candidates are too few to tell"
        return [_skipped(name, why) for name in ("coverage", "same_list", "same_first")]
    possible = min(candidates, found.lists * settings.score.top_n)
    return [
        _check(settings.gate, name, limit, value, detail)
        for name, limit, value, detail in (
            (
                "coverage",
                "min_coverage",
                found.movies / possible,
                f"{found.movies} of {candidates} candidates are listed",
            ),
            (
                "same_list",
                "max_same_list",
                found.same_list / found.lists,
                f"{found.same_list} of {found.lists} users have one list",
            ),
            (
                "same_first",
                "max_same_first",
                found.same_first / found.lists,
                f"the lists of {found.same_first} of {found.lists} users begin with movie {found.first!r}",
            ),
        )
    ]


def _changed(now: Figures, partition: RunPartition, before: RunPartition | None, settings: Settings) -> list[Check]:
    """Whether the lists are still of the same world."""
    if before is None:
        return [_skipped(name, "nothing is published up to this date") for name in ("churn", "movies", "cold_rise")]
    gate, day, then = settings.gate, before.as_of, lists.figures(before)
    left = lists.churn(partition, before, now.lists)
    few, many = partition.record["n_movies"], before.record["n_movies"]
    cold = f"{now.cold:.1%} of the users are cold, {then.cold:.1%} were on {day}"
    return [
        _skipped("churn", f"no user has a list by the model now and on {day}")
        if left is None
        else _check(gate, "churn", "max_churn", left, f"so much of the lists of {day} has left them"),
        _check(gate, "movies", "min_movies", few / many, f"{few} candidates, {many} on {day}"),
        _check(gate, "cold_rise", "max_cold_rise", now.cold - then.cold, cold),
    ]


def _check(gate: Gate, name: str, limit: str, value: float, detail: str) -> Check:
    threshold = getattr(gate, limit)
    broken = value < threshold if limit.startswith("min") else value > threshold
    beyond = ("under" if limit.startswith("min") else "over") if broken else "within"
    message = f"{name} {value:.4g} is {beyond} gate.{limit} = {threshold:g}: {detail}"
    return _row(name, "fail" if broken else "pass", message) | {"value": value, "threshold": threshold}


def _skipped(name: str, why: str) -> Check:
    return _row(name, "skipped", why)


def _row(name: str, verdict: str, message: str) -> Check:
    return {"stage": "recommendations", "check_name": name, "severity": "block", "verdict": verdict, "message": message}
