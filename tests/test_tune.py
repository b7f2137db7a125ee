"""Studies with real trainings: they go on where they were cut off, prune what is hopeless, and refuse other data."""

import importlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from conftest import environment, small_world, world_in

from jobs import configuration, exits, inputs, tune
from jobs.allowed import InvalidSettings
from jobs.settings import Settings
from jobs.tune import Range, Search
from recommender import split as splits
from recommender import train as training
from recommender.config import RECIPES
from recommender.errors import TrainingDiverged
from storage import atomic
from storage.errors import Busy, CorruptState

BASIC = Search("basic", only=("learning_rate", "embedding_dimension"))
ROOT = Path(__file__).resolve().parents[1]


def rates(document: dict[str, Any]) -> list[float]:
    return [trial["params"]["learning_rate"] for trial in document["trials"]]


def outcomes(document: dict[str, Any]) -> list[tuple[Any, ...]]:
    return [(trial["state"], trial["value"], trial["params"]) for trial in document["trials"]]


def interrupted_after(monkeypatch: pytest.MonkeyPatch, trainings: int) -> None:
    """Ctrl-C in the first epoch of the training after so many."""
    real, calls = training.train, []

    def train(*args: Any, on_epoch: Callable[[Any], None], **more: Any) -> Any:
        calls.append(None)

        def stop(epoch: Any) -> None:
            on_epoch(epoch)
            raise KeyboardInterrupt

        return real(*args, on_epoch=stop if len(calls) > trainings else on_epoch, **more)

    monkeypatch.setattr(training, "train", train)


@pytest.fixture
def space(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Search learning rates among the given ones only."""

    def among(*choices: float) -> None:
        monkeypatch.setattr(tune, "SPACES", {"mlp": {"learning_rate": Range(choices=choices)}})

    return among


def test_a_study_goes_on_to_the_number_asked_for(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    first = tune.tune(settings, BASIC, trials=2)
    file = Path(first["file"])
    before = file.read_bytes()
    assert file == settings.state_dir / "tune" / "basic-newest.journal"
    second = tune.tune(settings, BASIC, trials=4)
    after = file.read_bytes()
    assert after.startswith(before)
    assert second["trials"][:2] == first["trials"]
    assert [trial["trial"] for trial in second["trials"]] == [0, 1, 2, 3]
    interrupted_after(monkeypatch, 0)
    assert tune.tune(settings, BASIC, trials=3) == second  # enough there: nothing is trained, nothing written
    assert file.read_bytes() == after


def test_the_first_trial_is_the_recipe_as_it_stands(settings: Settings) -> None:
    done = tune.tune(settings, Search("basic"), trials=1)
    assert done["searched"] == ["learning_rate", "batch_size", "optimizer", "embedding_dimension"]  # it has no l2
    (trial,) = done["trials"]
    assert (trial["params"]["learning_rate"], trial["params"]["optimizer"]) == (0.1, "adagrad")
    assert (trial["state"], trial["epochs"]) == ("complete", 2)


@pytest.mark.slow
def test_a_study_cut_off_is_the_one_that_was_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = tune.tune(world_in(tmp_path / "a"), BASIC, trials=12)
    cut = world_in(tmp_path / "b")
    for before in (0, 3, 8):
        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            interrupted_after(patch, before)
            tune.tune(cut, BASIC, trials=12)
    done = tune.tune(cut, BASIC, trials=12)
    assert outcomes(done) == outcomes(whole)
    numbers = [trial["trial"] for trial in done["trials"]]
    assert numbers == [1, 2, 3, 5, 6, 7, 8, 9, 10, 11, 12, 14]  # 0, 4 and 13 were cut off and tried again
    assert whole["best"]["value"] == min(t["value"] for t in whole["trials"] if t["state"] == "complete")


def test_the_seed_decides_what_is_tried(tmp_path: Path) -> None:
    found = [tune.tune(world_in(tmp_path / str(n)), Search("basic", seed=s), trials=3) for n, s in enumerate((7, 7, 8))]
    assert outcomes(found[0]) == outcomes(found[1])
    assert rates(found[0])[1:] != rates(found[2])[1:]


@pytest.mark.parametrize(
    ("search", "changes", "named"),
    [
        (Search("tuned", only=BASIC.only), {}, "model 'basic', not 'tuned'"),
        (Search("basic", only=BASIC.only, split="random"), {}, "split 'newest', not 'random'"),
        (Search("basic", only=BASIC.only, seed=3), {}, "seed 42, not 3"),
        (Search("basic", only=("learning_rate",)), {}, "searched"),
        (Search("basic", preset="article-learning-rate"), {}, "preset None, not 'article-learning-rate'"),
        (BASIC, {"model__epochs": 3}, "epochs 2, not 3"),
        (BASIC, {"catalogue": small_world(seed=2)}, "ratings '"),
    ],
)
def test_a_study_of_something_else_is_refused(
    settings: Settings, tmp_path: Path, search: Search, changes: dict[str, Any], named: str
) -> None:
    file = Path(tune.tune(settings, BASIC, trials=1, study="mine")["file"])
    other = world_in(tmp_path / "other", **changes)
    (other.state_dir / "tune").mkdir()
    (other.state_dir / "tune" / file.name).write_bytes(file.read_bytes())
    with pytest.raises(InvalidSettings, match="study mine has ") as caught:
        tune.tune(other, search, trials=2, study="mine")
    assert named in str(caught.value)
    assert "--study NAME" in caught.value.hint
    assert (other.state_dir / "tune" / file.name).read_bytes() == file.read_bytes()
    assert tune.tune(other, search, trials=1, study="another")["study"] == "another"


@pytest.mark.slow
def test_the_preset_looks_around_the_best_of_its_first_stage(settings: Settings, tmp_path: Path) -> None:
    search = Search("basic", preset="article-learning-rate")
    coarse = tune.tune(settings, search, trials=4)
    assert rates(coarse) == [0.001, 0.01, 0.1, 1.0]
    best = coarse["best"]["params"]["learning_rate"]
    tune.tune(settings, search, trials=6)
    done = tune.tune(settings, search, plot=tmp_path / "grid.svg")
    assert done["study"] == "basic-newest-article-learning-rate"
    assert rates(done)[4:] == pytest.approx([best / 3, best * 5 / 3, best * 7 / 3, best * 3])
    assert {trial["state"] for trial in done["trials"]} == {"complete"}
    assert (tmp_path / "grid.svg").read_text().startswith("<?xml")
    with pytest.raises(InvalidSettings, match="preset"):
        tune.tune(settings, Search("basic", preset=search.preset, only=("l2",)))


@pytest.mark.slow
def test_a_hopeless_learning_rate_is_pruned(settings: Settings, space: Callable[..., None], tmp_path: Path) -> None:
    space(0.1, 0.12, 0.15, 1e-9)  # a rate of 0.3 overshoots at first and is the worse of the two after one epoch
    done = tune.tune(settings, Search("basic"), trials=20, plot=tmp_path / "plot.png")
    pruned = [trial for trial in done["trials"] if trial["state"] == "pruned"]
    assert 1e-9 in [trial["params"]["learning_rate"] for trial in pruned]
    assert {trial["epochs"] for trial in pruned} == {1}
    complete = [number for number, trial in enumerate(done["trials"]) if trial["state"] == "complete"]
    assert not [trial for trial in pruned if trial["trial"] <= complete[4]]  # five to compare with come first
    assert done["best"]["params"]["learning_rate"] > 0.05
    assert (tmp_path / "plot.png").read_bytes()[:4] == b"\x89PNG"


def test_a_training_that_diverges_is_a_trial_that_failed(
    settings: Settings, space: Callable[..., None], tmp_path: Path
) -> None:
    space(1e30)
    done = tune.tune(settings, Search("basic"), trials=2, plot=tmp_path / "plot.png")
    assert [(trial["state"], trial["value"]) for trial in done["trials"]] == [("failed", None)] * 2
    assert "not finite" in done["trials"][0]["error"]
    assert (done["best"], done["toml"]) == (None, None)
    json.dumps(done, allow_nan=False)
    assert (tmp_path / "plot.png").exists()


def test_an_unexpected_error_is_shown_and_not_met_again(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*args: Any, **more: Any) -> None:
        raise RuntimeError("no memory left")

    with monkeypatch.context() as patch, pytest.raises(RuntimeError):
        patch.setattr(training, "train", broken)
        tune.tune(settings, BASIC, trials=3)
    done = tune.tune(settings, BASIC, trials=2)
    assert [trial["state"] for trial in done["trials"]] == ["failed", "complete"]
    assert done["trials"][0]["error"] == "RuntimeError: no memory left"


def test_the_lines_for_the_configuration_are_the_best_recipe(settings: Settings, tmp_path: Path) -> None:
    done = tune.tune(settings, BASIC, trials=3)
    (tmp_path / "recjob.toml").write_text(done["toml"])
    recipe = configuration.load(tmp_path / "recjob.toml", {}).recipe
    assert recipe.train.learning_rate == done["best"]["params"]["learning_rate"]
    assert recipe.model.embedding_dimension == done["best"]["params"]["embedding_dimension"]
    assert recipe.train.epochs == done["best"]["best_epoch"]
    assert (recipe.model.hidden_units, recipe.train.batch_size) == ((8, 4), 256)  # as configured, not as in `basic`


@pytest.mark.parametrize("split", ["newest", "time-range", "random"])
def test_nothing_of_the_test_part_is_used(settings: Settings, monkeypatch: pytest.MonkeyPatch, split: str) -> None:
    seen: dict[str, pa.Table] = {}

    def look(ratings: pa.Table, recipe: Any, *, holdout: pa.Table, **more: Any) -> None:
        seen.update(train=ratings, validation=holdout)
        raise TrainingDiverged(1, 1, 0.1)

    monkeypatch.setattr(training, "train", look)
    tune.tune(settings, Search("basic", split=split), trials=1)
    ratings = inputs.read(settings, None).ratings
    pairs = {
        part: set(zip(table["user_id"].to_pylist(), table["movie_id"].to_pylist(), strict=True))
        for part, table in {**seen, "test": splits.by_name(split, ratings, 42).test}.items()
    }
    assert all(pairs[part] for part in seen)
    assert not pairs["train"] & pairs["validation"]
    assert not pairs["test"] & (pairs["train"] | pairs["validation"])


def test_what_a_kill_left_half_written_is_put_right(settings: Settings) -> None:
    file = Path(tune.tune(settings, BASIC, trials=1)["file"])
    whole = file.read_bytes()
    file.write_bytes(whole + b'{"op_code":5,"worker_id":"a')
    assert len(tune.tune(settings, BASIC, trials=2)["trials"]) == 2
    assert file.read_bytes().startswith(whole)
    file.write_bytes(b"no journal\n" + whole)
    with pytest.raises(CorruptState, match="is damaged"):
        tune.tune(settings, BASIC, trials=3)


def test_one_at_a_time_and_for_a_time(settings: Settings) -> None:
    with atomic.lock(settings.state_dir / "tune" / "basic-newest.lock", 0, "a test"), pytest.raises(Busy):
        tune.tune(settings, BASIC, trials=1)
    assert tune.tune(settings, BASIC, minutes=1e-9)["trials"] == []
    assert len(tune.tune(settings, BASIC, minutes=0.001)["trials"]) == 1  # a trial begun is ended


@pytest.mark.parametrize("name", ["", "../up", "a/b", ".hidden", "x" * 101])
def test_a_name_is_one_file(settings: Settings, name: str) -> None:
    with pytest.raises(InvalidSettings, match="cannot be called"):
        tune.tune(settings, BASIC, study=name)
    assert not (settings.state_dir / "tune").exists()


def test_ranges_are_of_hyper_parameters_that_there_are() -> None:
    for name, recipe in RECIPES.items():
        known = {field.name for part in (recipe.model, recipe.train) for field in fields(part)}
        space = tune.SPACES[recipe.model.architecture]
        assert set(space) <= known, name
        assert all(r.choices or r.low < r.high for r in space.values())
    with pytest.raises(InvalidSettings, match="no range for 'seed'"):
        tune.tune(Settings(), Search("basic", only=("seed",)))


def test_without_optuna_it_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "optuna", None)
    monkeypatch.delitem(sys.modules, "jobs.tune")
    with pytest.raises(InvalidSettings) as caught:
        importlib.import_module("jobs.tune")
    assert (caught.value.hint, exits.code(caught.value)) == ("pip install 'recjob[tune]'", exits.USAGE)


SCRIPT = """
import logging, os, signal, sys
from jobs import configuration, log, signals
log.set_up(logging.INFO, "json")
signal.signal(signal.SIGINT, signal.default_int_handler)  # which a shell's background jobs do not have
signals.heed()
from jobs import tune
try:
    tune.tune(configuration.load(None, os.environ), tune.Search("basic"), trials=1000)
except KeyboardInterrupt:
    sys.exit(130)
"""


@pytest.mark.slow
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGKILL, -9)])
def test_a_signal_keeps_the_finished_trials(settings: Settings, number: int, code: int) -> None:
    file = settings.state_dir / "tune" / "basic-newest.journal"
    child = subprocess.Popen(
        [sys.executable, "-c", SCRIPT],
        cwd=ROOT,
        env=environment(settings),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    deadline = time.monotonic() + 120
    try:
        while (not file.exists() or file.read_bytes().count(b'"state":1') < 3) and time.monotonic() < deadline:
            assert child.poll() is None, child.communicate()
            time.sleep(0.05)
        os.kill(child.pid, number)
        out, err = child.communicate(timeout=60)
    finally:
        child.kill()
    assert (child.returncode, out) == (code, "")
    events = [json.loads(line) for line in err.splitlines()]
    assert {event["event"] for event in events} == {"tune.trial"}  # Optuna says nothing
    before = file.read_bytes()
    done = tune.tune(settings, Search("basic"), trials=len(events) + 1)
    assert len(done["trials"]) >= len(events) + 1
    assert [trial["value"] for trial in done["trials"][: len(events)]] == [event["value"] for event in events]
    assert file.read_bytes().startswith(before[: before.rfind(b"\n") + 1])
