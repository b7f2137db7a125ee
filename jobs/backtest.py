"""Play nights again: what retraining every night buys over retraining now and then, and over the plain baselines."""

import logging
import time
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from jobs import inputs, lists, signals
from jobs import run as journals
from jobs.allowed import InvalidSettings
from jobs.inputs import Night
from jobs.settings import Settings
from recommender import blend, ranking
from recommender import split as splits
from recommender import train as training
from recommender.baselines import BASELINES
from recommender.config import Recipe
from recommender.ranking import Task
from recommender.train import Epoch, Trained
from recommender.vocabulary import Vocabulary
from storage.errors import InvalidInput

logger = logging.getLogger(__name__)
BESIDE = ("popularity", "recent popularity", "EASE")
"""The baselines that are played beside the model; they are fitted anew every night."""
PER_USER = {"ndcg@10": ("ndcg", 10), "recall@50": ("recall", 50), "hit_rate@10": ("hit_rate", 10)}
"""Figures that each user has: their names in `ranking.per_user`, and of how many places they are."""
FIGURES = (*PER_USER, "coverage@10", "rmse")
"""What is told of each model and night; none is told where there is nothing to measure it on."""


@dataclass(frozen=True)
class Replay:
    """Which nights are played again, and with which model."""

    model: str
    first: date
    last: date
    every: int = 1
    """Days from one night to the next; the ratings of these days are what a night is tested on."""
    retrain: tuple[int, ...] = ()
    """Days between two trainings; each is a line of its own. None: once a night, and every 7 days in a longer range."""
    seed: int | None = None

    @property
    def days(self) -> list[date]:
        """The dates of the nights, oldest first."""
        return [self.first + timedelta(days=n) for n in range(0, (self.last - self.first).days + 1, self.every)]

    @property
    def paces(self) -> list[int]:
        """Days between two trainings, shortest first; raises `InvalidSettings` where they are shorter than a step."""
        weekly = (7,) if (self.last - self.first).days >= 7 and self.every < 7 else ()
        paces = sorted({*(self.retrain or (self.every, *weekly))})
        if paces[0] < self.every:
            raise InvalidSettings(
                f"with a night every {self.every} days, no model is retrained every {_days(paces[0])}",
                hint=f"--retrain {self.every} or more, or a smaller --every",
            )
        return paces


@dataclass(frozen=True)
class _Result:
    """How one model did on one night."""

    per_user: dict[str, NDArray[np.float64]]
    """By the names of `PER_USER`, each of shape (U,); empty where there is no user to measure."""
    users: pa.Array
    """Who they are, shape (U,)."""
    coverage: float | None = None
    error: NDArray[np.float64] | None = None
    """Squared error in stars of each test rating, shape (rows,); None for what predicts no stars."""
    trained: date | None = None
    """The night it was trained on."""

    @property
    def told(self) -> dict[str, Any]:
        """The figures of the night."""
        means = {name: float(self.per_user[name].mean()) if self.per_user else None for name in PER_USER}
        trained = {} if self.trained is None else {"trained": str(self.trained)}
        return {**trained, **means, "coverage@10": self.coverage, "rmse": _root(self.error)}


@dataclass
class _Trainings:
    """The trainings of a replay, each done when it is first asked for."""

    recipe: Recipe
    holdout: float
    done: dict[date, Trained] = field(default_factory=dict)
    count: int = 0

    def of(self, day: date, night: Night) -> Trained:
        """The model trained on all that was known on `day`, which is what `night` has."""
        if day not in self.done:
            signals.check()
            ratings = night.keyed(self.recipe.model.movie_key)
            if blend.is_open(self.recipe):
                cut = splits.newest(ratings, self.holdout)
                self.recipe = blend.settled(self.recipe, cut.train, cut.validation, night.attributes)
            self.done[day] = training.train(ratings, self.recipe, attributes=night.attributes, on_epoch=_heed)
            self.count += 1
        return self.done[day]

    def forget(self, but: set[date]) -> None:
        """Keep only the models of these nights."""
        self.done = {day: trained for day, trained in self.done.items() if day in but}


def backtest(settings: Settings, replay: Replay, plot: Path | None = None) -> dict[str, Any]:
    """Play each night as it would have gone, and measure its lists and stars on the days until the next one.

    A night knows what its watermark lets it know: ratings that were replaced later, too, as they were then. A model that
    is not retrained is told the night's ratings all the same; one by history makes use of them. What the ranking is by,
    where the recipe leaves that open, is settled at the first training only and kept. All epochs are run. Means are over
    user-nights, their intervals over users, each drawn with all nights; the RMSE is over ratings. Raises `InvalidInput`.
    """
    began = time.perf_counter()
    paces, days = replay.paces, replay.days
    marks = [journals.watermark(day, settings.timezone) for day in (*days, days[-1] + timedelta(days=replay.every))]
    _see_ratings(settings, replay, marks[0], marks[-1])
    changes = {} if replay.seed is None else {"seed": replay.seed}
    trainings = _Trainings(settings.recipe_of(replay.model).changed(**changes), settings.gate.holdout)
    due: dict[int, tuple[date, Night]] = {}
    results: list[dict[str, _Result]] = []
    told: list[dict[str, Any]] = []
    night = inputs.read(settings, marks[0])
    for day, start, stop in zip(days, marks[:-1], marks[1:], strict=True):
        later = inputs.read(settings, stop)
        due = {pace: due[pace] if pace in due and (day - due[pace][0]).days < pace else (day, night) for pace in paces}
        results.append(_played(night, later, start, due, trainings))
        told.append(_night(day, night, later, start, results[-1]))
        trainings.forget({trained for trained, _ in due.values()})
        night = later
    document: dict[str, Any] = {
        "model": replay.model,
        "from": str(days[0]),
        "to": str(days[-1]),
        "every": replay.every,
        "retrain": paces,
        "seed": trainings.recipe.train.seed,
        "blend": list(trainings.recipe.model.blend),
        "nights": told,
        **_summary([_pace(pace) for pace in paces], results),
        "trainings": trainings.count,
        "seconds": round(time.perf_counter() - began, 2),
    }
    if plot is not None:
        from jobs import plots

        document["plot"] = str(plots.backtest(told, f"{replay.model}, nights played again", plot))
    return document


def _see_ratings(settings: Settings, replay: Replay, first: datetime, end: datetime) -> None:
    """Raise `InvalidInput` where no night has anything to be tested on."""
    newest = pc.max(inputs.read(settings, end).ratings["rated_at"]).as_py()
    if newest < first:
        raise InvalidInput(
            f"no rating was given after {replay.first} to test a night on; the newest is of {newest:%Y-%m-%d}",
            hint="--from an earlier date: a night is tested on the days after it",
        )


def _played(
    night: Night, later: Night, start: datetime, due: dict[int, tuple[date, Night]], trainings: _Trainings
) -> dict[str, _Result]:
    """What each model and baseline did on a night: they know `night`, and are tested on what is new in `later`."""
    key = trainings.recipe.model.movie_key
    train, held = night.keyed(key), _since(later.keyed(key), start)
    if not held.num_rows:
        return {}
    stars = held["rating"].to_numpy().astype(np.float64)
    task = ranking.task(train, held, ranking.good(train))
    found: dict[str, _Result] = {}
    same: dict[date, _Result] = {}
    for pace, (day, then) in due.items():
        if day not in same:
            ready = trainings.of(day, then).ready(train, night.attributes)
            error = np.square(ready.predict(held).astype(np.float64) - stars)
            listed = ready.lists(task, lists.keys_of(task, train, key), train) if len(task.users) else None
            same[day] = _result(task, listed, error, day)
        found[_pace(pace)] = same[day]
    for name in BESIDE:
        signals.check()
        found[name] = _result(task, ranking.lists(task, BASELINES[name](train, task)) if len(task.users) else None)
    return found


def _since(ratings: pa.Table, start: datetime) -> pa.Table:
    return ratings.filter(pc.greater_equal(ratings["rated_at"], pa.scalar(start, pa.timestamp("us", "UTC"))))


def _result(
    task: Task,
    listed: NDArray[np.int32] | None,
    error: NDArray[np.float64] | None = None,
    trained: date | None = None,
) -> _Result:
    if listed is None:
        return _Result({}, task.users, None, error, trained)
    by_places = {at: ranking.per_user(task, listed, at) for _, at in PER_USER.values()}
    coverage = ranking.beyond_accuracy(task, listed, None, 10).get("coverage", 0.0)
    per_user = {name: by_places[at][kind] for name, (kind, at) in PER_USER.items()}
    return _Result(per_user, task.users, coverage, error, trained)


def _night(day: date, night: Night, later: Night, start: datetime, found: dict[str, _Result]) -> dict[str, Any]:
    """What is told of a night, and logged."""
    users = max((len(one.per_user["ndcg@10"]) for one in found.values() if one.per_user), default=0)
    size = {"known": night.ratings.num_rows, "ratings": _since(later.ratings, start).num_rows, "users": users}
    told = {name: one.told for name, one in found.items()}
    figures = {name: figure["ndcg@10"] for name, figure in told.items() if users}
    logger.info("backtest.night", extra={"as_of": str(day)} | size | figures)
    return {"as_of": str(day), **size, "figures": told}


def _summary(of_model: list[str], results: list[dict[str, _Result]]) -> dict[str, Any]:
    """Means over all user-nights, and how far the model retrained most often is from the others."""
    measured = [found for found in results if found]
    ranked = [found for found in measured if found[of_model[0]].per_user]
    names = [*of_model, *BESIDE]
    joined = {
        name: {figure: np.concatenate([found[name].per_user[figure] for found in ranked]) for figure in PER_USER}
        for name in (names if ranked else ())
    }
    means: dict[str, dict[str, float | None]] = {}
    for name in names:
        coverage = [found[name].coverage for found in ranked]
        errors = [error for found in measured if (error := found[name].error) is not None]
        means[name] = {figure: float(joined[name][figure].mean()) if ranked else None for figure in PER_USER}
        means[name]["coverage@10"] = float(np.mean(coverage)) if ranked else None  # type: ignore[arg-type]
        means[name]["rmse"] = _root(np.concatenate(errors)) if errors else None
    differences = []
    if ranked:
        best = max(BESIDE, key=lambda name: float(joined[name]["ndcg@10"].mean()))
        ids = pa.chunked_array([found[of_model[0]].users for found in ranked])
        user = Vocabulary.of(ids).encode(ids) - 1
        for other in (*of_model[1:], best):
            values = ranking.paired(joined[of_model[0]]["ndcg@10"], joined[other]["ndcg@10"], user)
            ends = dict(zip(("value", "ci_low", "ci_high"), values, strict=True))
            differences.append({"metric": "ndcg@10", "of": of_model[0], "minus": other, **ends})
    user_nights = sum(len(found[of_model[0]].per_user["ndcg@10"]) for found in ranked)
    return {"measured": len(ranked), "user_nights": user_nights, "means": means, "differences": differences}


def _root(error: NDArray[np.float64] | None) -> float | None:
    return None if error is None else float(np.sqrt(error.mean()))


def _heed(epoch: Epoch) -> None:
    signals.check()


def _days(count: int) -> str:
    return "day" if count == 1 else f"{count} days"


def _pace(count: int) -> str:
    """What a model that is retrained so often is called."""
    return f"retrained every {_days(count)}"
