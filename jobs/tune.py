"""Search the hyper-parameters of a recipe with Optuna. A study is a file: it can be cut off and gone on with."""

import json
import logging
import math
import os
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from threading import RLock
from typing import Any

import numpy as np
import pyarrow as pa

from jobs import inputs, signals
from jobs.allowed import InvalidSettings
from jobs.settings import Settings
from recommender import split as splits
from recommender import train as training
from recommender.config import Recipe, TrainConfig
from recommender.config import recipe as named_recipe
from recommender.errors import TrainingDiverged
from recommender.train import Epoch, Trained
from storage import atomic
from storage.errors import CorruptState, InvalidInput

try:
    import optuna
except ImportError as missing:
    raise InvalidSettings("recjob tune needs Optuna", hint="pip install 'recjob[tune]'") from missing
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, Trial, TrialState

logger = logging.getLogger(__name__)
optuna.logging.disable_default_handler()
optuna.logging.enable_propagation()
optuna.logging.set_verbosity(optuna.logging.ERROR)


@dataclass(frozen=True)
class Range:
    """What a hyper-parameter may be: from `low` to `high`, whole numbers where both are, or one of `choices`."""

    low: float = 0
    high: float = 0
    log: bool = False
    choices: tuple[Any, ...] = ()

    def __str__(self) -> str:
        return "/".join(map(str, self.choices)) or f"{self.low} to {self.high}"

    def holds(self, value: Any) -> bool:
        """Whether `value` is one of these."""
        return value in self.choices if self.choices else self.low <= value <= self.high

    def suggested(self, trial: Trial, name: str) -> Any:
        """The value for one trial."""
        if self.choices:
            return trial.suggest_categorical(name, self.choices)
        if isinstance(self.low, int) and isinstance(self.high, int):
            return trial.suggest_int(name, self.low, self.high, log=self.log)
        return trial.suggest_float(name, self.low, self.high, log=self.log)


FITTING = {
    "learning_rate": Range(1e-3, 1.0, log=True),
    "batch_size": Range(choices=(1024, 2048, 4096, 8192, 16384)),
    "optimizer": Range(choices=("adagrad", "adam")),
}
"""What every model is fitted with."""
SPACES: dict[str, dict[str, Range]] = {
    "mlp": FITTING | {"embedding_dimension": Range(choices=(8, 16, 32, 64, 128)), "l2": Range(1e-6, 0.1, log=True)},
    "towers": {
        "learning_rate": Range(3e-3, 0.1, log=True),
        "steps_per_epoch": Range(2, 10),
        "stars_dimension": Range(choices=(10, 20, 40)),
        "prior": Range(0.5, 2.0, log=True),
    },
}
"""The hyper-parameters to search, by architecture. One that a recipe sets to 0 is one that it does without."""
PRESETS: dict[str, dict[str, Range]] = {"article-learning-rate": {"learning_rate": Range(1e-4, 10.0, log=True)}}
COARSE = (1e-3, 1e-2, 1e-1, 1.0)
"""The preset's first learning rates. The others are five from a third to three times the best of these, evenly."""
TRIALS = 30
"""Trials of a study for which neither a number nor a time is given."""


@dataclass(frozen=True)
class Search:
    """What a study looks for. It is settled when the study begins."""

    model: str
    split: str = "newest"
    preset: str | None = None
    only: tuple[str, ...] = ()
    """Hyper-parameters to search; none: all that the recipe has use for."""
    seed: int | None = None

    @property
    def study(self) -> str:
        """What the study is called unless it is given a name."""
        return "-".join([self.model, self.split, *([self.preset] if self.preset else [])])


def tune(
    settings: Settings,
    search: Search,
    *,
    trials: int | None = None,
    minutes: float | None = None,
    study: str | None = None,
    wait: float = 0.0,
    plot: Path | None = None,
) -> dict[str, Any]:
    """Go on with a study until it has `trials` trials in all, or for `minutes`; returns all of them and the best.

    A trial that was interrupted does not count; it is tried again. What is measured is the RMSE of the best epoch (of the
    last, where the learning rate falls to 0) on a tenth of what `evaluate` trains on: a random one on random, else the
    newest; on time-range, on the article's validation part. No rating of a test part is used. Raises `InvalidSettings`
    where the study has looked for something else.
    """
    name = search.study if study is None else study
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", name):
        raise InvalidSettings(f"a study cannot be called {name!r}", hint="--study NAME: letters, digits, . _ -")
    base = settings.recipe_of(search.model)
    space = _space(base, search)
    night = inputs.read(settings, None)
    # Keys and vocabularies as `evaluate` has them, so that figures compare.
    article = search.split == "time-range" and not base.model.by_history
    keyed = {"movie_key": "title"} if article and night.has_titles else {}
    recipe = base.changed(**keyed, **({} if search.seed is None else {"seed": search.seed}))
    ratings = night.keyed(recipe.model.movie_key)
    learnt, held = _split(ratings, search.split, recipe.train.seed)
    whole = training.vocabularies_of(ratings, recipe.model.movie_key) if article else None
    fit = partial(training.train, learnt, attributes=night.attributes, holdout=held, vocabularies=whole)
    asked = {"model": search.model, "split": search.split, "preset": search.preset}
    ranges = {"searched": "; ".join(f"{key} {values}" for key, values in space.items())}
    with _opened(settings.state_dir / "tune", name, wait) as (file, found):
        _agree(found, asked | ranges | {"ratings": night.training_digest[:16]} | _values(recipe))
        limit = trials or (TRIALS if minutes is None else math.inf)
        deadline = time.monotonic() + 60 * (math.inf if minutes is None else minutes)
        while len(done := _counted(found)) < limit and time.monotonic() < deadline:
            if (planned := _planned(done, search, recipe, space)) is None:
                break
            trial = _asked(found, planned, recipe.train, search.preset is not None)
            changes = {key: values.suggested(trial, key) for key, values in space.items()}
            _attempt(found, trial, recipe.changed(**changes), fit)
        document = {"study": name, "file": str(file), **asked, "seed": recipe.train.seed, "searched": list(space)}
        result = _result(found, search.model, base)
    if plot is not None and result["trials"]:
        from jobs import plots

        scales = {key: "choices" if r.choices else "log" if r.log else "linear" for key, r in space.items()}
        result["plot"] = str(plots.tuning(result["trials"], scales, name, plot))
    return document | result


def _space(recipe: Recipe, search: Search) -> dict[str, Range]:
    """The hyper-parameters to search."""
    if search.preset:
        if search.only:
            raise InvalidSettings("a preset says itself what is searched", hint="--only or --preset, not both")
        return PRESETS[search.preset]
    known = SPACES.get(recipe.model.architecture, FITTING)
    if unknown := [name for name in search.only if name not in known]:
        raise InvalidSettings(f"{search.model} has no range for {unknown[0]!r}", hint=f"one of: {', '.join(known)}")
    used = search.only or [name for name in known if _values(recipe)[name] != 0]
    return {name: values for name, values in known.items() if name in used}


def _split(ratings: pa.Table, name: str, seed: int) -> tuple[pa.Table, pa.Table]:
    cut = splits.by_name(name, ratings, seed)
    if name != "time-range":  # that one has a validation part; the others give a tenth of what `evaluate` trains on
        cut = splits.within(cut.train, name, seed)
    learnt, held = cut.train, cut.validation
    if not held.num_rows:
        raise InvalidInput(f"the {name} split leaves nothing to validate on", hint="are all ratings of one instant?")
    return learnt, held


def _values(recipe: Recipe) -> dict[str, Any]:
    """Every hyper-parameter, as JSON has it."""
    return dict(json.loads(json.dumps({**vars(recipe.model), **vars(recipe.train)})))


@contextmanager
def _opened(folder: Path, name: str, wait: float) -> Iterator[tuple[Path, optuna.Study]]:
    """The study and its file in `folder`, locked; what a killed process left half done is put right."""
    file = folder / f"{name}.journal"
    with atomic.lock(folder / f"{name}.lock", wait, f"tune {name}"):
        if not file.exists():
            with atomic.new_file(file) as draft:
                draft.touch()
        written = file.read_bytes()
        os.truncate(file, written.rfind(b"\n") + 1)
        try:
            # Optuna's lock can make another error of a Ctrl-C; ours is held, so that one within the process will do.
            storage = optuna.storages.JournalStorage(JournalFileBackend(str(file), RLock()))  # type: ignore[arg-type]
            there = optuna.get_all_study_names(storage)
            study = optuna.load_study(study_name=there[0], storage=storage) if there else None
        except (ValueError, KeyError) as error:
            raise CorruptState(f"{file} is damaged: {error}", hint="remove it, or use another --study NAME") from error
        study = study or optuna.create_study(study_name=name, storage=storage)
        for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            study.tell(trial.number, state=TrialState.FAIL)
        yield file, study


def _agree(study: optuna.Study, asked: dict[str, Any]) -> None:
    """See that the study has looked for what is asked for; a new one remembers it."""
    made = study.user_attrs if study.get_trials(deepcopy=False) else asked
    if different := [f"{key} {made.get(key)!r}, not {asked[key]!r}" for key in asked if made.get(key) != asked[key]]:
        raise InvalidSettings(f"study {study.study_name} has {'; '.join(different)}", hint="another --study NAME")
    for key, value in asked.items() if made is asked else ():
        study.set_user_attr(key, value)


def _counted(study: optuna.Study) -> list[FrozenTrial]:
    """The trials that came to an end, be it a bad one; not those that were interrupted."""
    ended = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL))
    return [trial for trial in ended if trial.state != TrialState.FAIL or "error" in trial.user_attrs]


def _planned(done: list[FrozenTrial], search: Search, recipe: Recipe, space: dict[str, Range]) -> dict[str, Any] | None:
    """What the next trial has to use; None: there is none. The first one is the recipe as it stands."""
    if not search.preset:
        standing = _values(recipe)
        return {} if done else {name: standing[name] for name in space if space[name].holds(standing[name])}
    rates, coarse = list(COARSE), [trial for trial in done[: len(COARSE)] if trial.state == TrialState.COMPLETE]
    if len(done) >= len(COARSE) and coarse:
        best = min(coarse, key=lambda trial: trial.values[0]).params["learning_rate"]
        # One of the five is the best itself, which has had its trial.
        rates += [rate for rate in np.linspace(best / 3, best * 3, 5).tolist() if not np.isclose(rate, best)]
    return {"learning_rate": rates[len(done)]} if len(done) < len(rates) else None


def _asked(study: optuna.Study, planned: dict[str, Any], config: TrainConfig, grid: bool) -> Trial:
    """A new trial. Its sampler has a seed of its own, so that a study that was cut off goes on as if it had not been."""
    own = int(np.random.SeedSequence([config.seed, len(_counted(study))]).generate_state(1)[0])
    study.sampler = optuna.samplers.TPESampler(seed=own, multivariate=True, constant_liar=False)
    pruner = optuna.pruners.MedianPruner(n_startup_trials=5, n_warmup_steps=max(1, config.epochs // 10))
    study.pruner = optuna.pruners.NopPruner() if grid else pruner
    if planned and not study.get_trials(deepcopy=False, states=(TrialState.WAITING,)):
        study.enqueue_trial(planned)
    return study.ask()


def _attempt(study: optuna.Study, trial: Trial, recipe: Recipe, fit: Callable[..., Trained]) -> None:
    """Train, and tell how it went. An interrupt tells nothing: such a trial does not count."""

    def on_epoch(epoch: Epoch) -> None:
        signals.check()
        trial.report(float(epoch.holdout_rmse or 0.0), epoch.number)
        if epoch.number < recipe.train.epochs and trial.should_prune():
            raise optuna.TrialPruned

    try:
        with signals.told():
            history = fit(recipe, on_epoch=on_epoch).history
        last = history[-1:] if recipe.train.schedule == "cosine" else history
        study.tell(trial, min(epoch.holdout_rmse or 0.0 for epoch in last))
    except optuna.TrialPruned:
        study.tell(trial, state=TrialState.PRUNED)
    except TrainingDiverged as error:
        trial.set_user_attr("error", str(error))
        study.tell(trial, state=TrialState.PRUNED)  # Optuna learns from pruned trials, not from failed ones
    except Exception as error:
        trial.set_user_attr("error", f"{type(error).__name__}: {error}")
        study.tell(trial, state=TrialState.FAIL)
        raise
    told = _told(_counted(study)[-1])
    logger.info("tune.trial", extra={key: told[key] for key in ("trial", "state", "value", "seconds")} | trial.params)


def _told(trial: FrozenTrial) -> dict[str, Any]:
    """A trial as plain values; `value` is the best validation RMSE that it came to."""
    rmses = {rmse: epoch for epoch, rmse in reversed(trial.intermediate_values.items())}
    failed = "error" in trial.user_attrs
    value = None if failed else trial.value if trial.state == TrialState.COMPLETE else min(rmses)
    return {
        "trial": trial.number,
        "state": "failed" if failed else trial.state.name.lower(),
        "value": value,
        "params": trial.params,
        "epochs": len(trial.intermediate_values),
        "best_epoch": None if value is None else rmses[value],
        "seconds": trial.duration and round(trial.duration.total_seconds(), 2),
        "error": trial.user_attrs.get("error"),
    }


def _result(study: optuna.Study, model: str, base: Recipe) -> dict[str, Any]:
    """The trials in their order, the best, and the lines of recjob.toml that make it the model of the nights."""
    trials = [_told(trial) for trial in _counted(study)]
    best = min((row for row in trials if row["state"] == "complete"), key=lambda row: row["value"], default=None)
    if best is None:
        return {"trials": trials, "best": None, "toml": None}
    # With patience the best epoch is kept, and a learning rate that falls to 0 needs all of them.
    whole = base.train.patience or base.train.schedule == "cosine"
    changes = best["params"] | ({} if whole else {"epochs": best["best_epoch"]})
    there, now = _values(named_recipe(model)), _values(base.changed(**changes))
    lines = [f"{key} = {json.dumps(now[key])}" for key in now if key in changes or now[key] != there[key]]
    return {"trials": trials, "best": best, "toml": "\n".join(["[model]", f"name = {json.dumps(model)}", *lines])}
