"""What nights of any size take, by a model that is fitted to a few that were measured: `scale.py` prints it."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

RATINGS, TOP, GIB = 22, 50, 2**30
"""A user's ratings in all that is made up; places of a list."""
KEPT = {"dates": 14, "files": 3, "models": 7}
"""As [publish] has them by default."""
MACHINES = {"2 vCPU, 24 GiB": (2, 24, 1), "16 vCPU, 128 GiB": (16, 128, 1), "16 of those": (16, 128, 16)}
"""Cores, GiB, and how many there are."""
CANDIDATES = 10_000
ASSUMED = (
    f"{RATINGS} ratings a user, {CANDIDATES:,} candidates, lists of {TOP}, the model `default`, cores like those measured",
    "training, reading and publishing are no faster than on the two cores measured; scoring is divided by cores",
    "each part of the users has a night of its own, one after the other on a machine: all ratings are read for it, and its "
    "own held; there are as few as the memory allows, nine tenths of it, and as many on each machine",
    "disks and networks keep up",
    f"{KEPT['dates']} dates, {KEPT['files']} published files and {KEPT['models']} models are kept",
)
SIZES = ("lake", "model", "lists", "published")
"""Bytes of files."""


def visits(users: float) -> float:
    """How many users' histories all steps of a training of `default` look at: recommender/train.py has the rule."""
    batches = max(users / 1024, 1)
    return float(20 * max(4 * batches**0.25, 2 * batches / 20) * min(users, 1024))


def sizes(users: float, movies: float) -> dict[str, list[float]]:
    """By what is predicted, the sizes that it grows with, after a constant."""
    ratings = RATINGS * users
    return {
        **{"check": [ratings], "train": [2 * visits(users) * movies, ratings], "score": [users * movies, users]},
        **{"publish": [users], "rss": [ratings, movies]},
        **{"lake": [ratings], "model": [users, movies], "lists": [users], "published": [users]},
    }


def seen(one: Mapping[str, Any]) -> dict[str, float]:
    """What a night has of each."""
    return dict(one["steps"]) | {name: one[name] for name in ("rss", *SIZES)}


class Model:
    """Of each figure a constant and what it grows with, none of them negative: least squares of relative errors."""

    def __init__(self, nights: Sequence[Mapping[str, Any]]) -> None:
        grows, found = [sizes(one["users"], one["movies"]) for one in nights], [seen(one) for one in nights]
        self.weights = {
            name: positive(np.array([[1.0, *row[name]] for row in grows]), np.array([row[name] for row in found]))
            for name in grows[0]
        }

    def of(self, users: float, movies: float) -> dict[str, float]:
        """All figures for a size."""
        return {
            name: float(np.dot(self.weights[name], np.array([1.0, *grow])))
            for name, grow in sizes(users, movies).items()
        }

    def errors(self, one: Mapping[str, Any]) -> tuple[float, float]:
        """By how much processor time and memory of a night are missed, as shares."""
        said, had = self.of(one["users"], one["movies"]), seen(one)
        return abs(spent(said) / spent(had) - 1), abs(said["rss"] / had["rss"] - 1)


def spent(one: Mapping[str, float]) -> float:
    """Processor seconds of all steps."""
    return sum(value for name, value in one.items() if name not in ("rss", *SIZES))


def positive(columns: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Weights that are not negative, so that no size is predicted to take less than a smaller one."""
    weighed, kept = columns / values[:, None], list(range(columns.shape[1]))
    while True:
        scale = np.abs(weighed[:, kept]).max(axis=0)
        weights = np.linalg.lstsq(weighed[:, kept] / scale, np.ones(len(values)), rcond=None)[0] / scale
        if (weights >= 0).all() or len(kept) == 1:
            found = np.zeros(columns.shape[1])
            found[kept] = np.maximum(weights, 0)
            return found
        kept.pop(int(np.argmin(weights * scale)))


def table(model: Model, found: Mapping[str, Any]) -> str:
    """What the nights of all parts take for how many users on which machine, as Markdown."""
    wide = max(found["nights"].values(), key=lambda one: one["users"])
    lines = [
        "| users | machine | parts | hours | memory, GiB | files, GiB | over the network, GiB |",
        "|---|---|---|---|---|---|---|",
    ]
    for users in (1e6, 1e8, 1e9):
        for name, (cores, gib, machines) in MACHINES.items():
            parts = machines
            while model.of(users / parts, CANDIDATES)["rss"] > 0.9 * gib * GIB:
                parts += machines
            said = model.of(users / parts, CANDIDATES)
            said["check"] = model.of(users, CANDIDATES)["check"]
            score = said["score"] / (cores * (1 if cores == 2 else min(found["shards"]["shard_efficiency"], 1)))
            hours = ((spent(said) - said["score"]) / wide["parallel"]["train"] + score) * parts / machines / 3600
            kept = parts * (KEPT["dates"] * said["lists"] + KEPT["models"] * said["model"])
            kept += model.of(users, CANDIDATES)["lake"]
            files = f"{gibs(kept)}, copied {gibs(kept + parts * KEPT['files'] * KEPT['dates'] * said['published'])}"
            moved = machines * model.of(users, CANDIDATES)["lake"] if machines > 1 else 0
            memory = f"{said['rss'] / GIB:,.0f}"
            lines.append(
                f"| {users:,.0f} | {name} | {parts:,} | {_hours(hours)} | {memory} | {files} | {gibs(moved)} |"
            )
    return "\n".join(lines)


def _hours(count: float) -> str:
    return f"{count:,.0f}" if count >= 10 else f"{count:.1f}" if count >= 1 else f"{count:.2f}"


def gibs(count: float) -> str:
    """Bytes as GiB."""
    return f"{count / GIB:,.0f}" if count >= 10 * GIB or not count else f"{count / GIB:.1f}"


def scoring_memory(found: Mapping[str, Any]) -> tuple[float, float]:
    """Bytes a rating and the rest, of a process that only scores."""
    runs = list(found["scored"].values())
    slope, base = np.polyfit([run["ratings"] for run in runs], [run["rss"] for run in runs], 1)
    return float(slope), float(base)
