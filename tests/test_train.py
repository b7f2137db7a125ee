"""Training: what is kept, what is measured, and what must not matter."""

import dataclasses
import hashlib
import subprocess
import sys
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from small import as_text, planted, ratings, rmse, tiny

from recommender import split
from recommender.config import Recipe
from recommender.errors import InvalidModel, TrainingDiverged
from recommender.split import Split
from recommender.train import Arrays, Epoch, Trained, train, vocabularies_of


class Kept:
    """Checkpoints in memory, all of them."""

    def __init__(self, *states: Arrays) -> None:
        self.states = list(states)

    def load(self) -> Arrays | None:
        return self.states[-1] if self.states else None

    def save(self, state: Arrays) -> None:
        self.states.append(state)


@cache
def world() -> Split:
    return split.random(planted(), seed=1)


def same_bytes(one: Trained, two: Trained) -> bool:
    return one.weights.keys() == two.weights.keys() and all(
        one.weights[name].tobytes() == two.weights[name].tobytes() for name in one.weights
    )


@pytest.mark.parametrize("changes", [{"optimizer": "adam", "l2": 0.01}, {"patience": 1}])
@pytest.mark.faults("B3.15")
def test_training_goes_on_from_any_epoch_as_if_it_had_not_stopped(changes: dict[str, object]) -> None:
    chosen = tiny(epochs=3, **changes)
    every = Kept()
    whole = train(world().train, chosen, holdout=world().test, checkpoints=every)
    for state in every.states[:-1]:
        seen: list[Epoch] = []
        resumed = train(world().train, chosen, holdout=world().test, checkpoints=Kept(state), on_epoch=seen.append)
        assert same_bytes(resumed, whole)
        assert resumed.history == whole.history
        assert seen == list(whole.history[len(state["history"]) :])


def digest(trained: Trained) -> str:
    """Hash of all weights, in order."""
    return hashlib.sha256(b"".join(weight.tobytes() for weight in trained.weights.values())).hexdigest()


@pytest.mark.faults("B3.7")
def test_the_same_seed_gives_the_same_bytes_in_another_process() -> None:
    script = "import test_train as t; print(t.digest(t.train(t.world().train, t.tiny())))"
    other = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=Path(__file__).parent)
    assert other.stdout.strip() == digest(train(world().train, tiny())), other.stderr


def test_the_seed_decides_the_weights() -> None:
    first, again, other = (train(world().train, tiny(seed=seed)) for seed in (1, 1, 2))
    assert same_bytes(first, again)
    assert not same_bytes(first, other)


def test_a_holdout_is_only_looked_at() -> None:
    chosen = tiny()
    without = train(world().train, chosen)
    assert same_bytes(train(world().train, chosen, holdout=world().test), without)
    assert [epoch.holdout_rmse for epoch in without.history] == [None, None]


def test_an_empty_holdout_with_patience_runs_all_epochs() -> None:
    trained = train(world().train, tiny(epochs=4, patience=1), holdout=world().test.slice(0, 0))
    assert [epoch.holdout_rmse for epoch in trained.history] == [None] * 4


def test_history_counts_epochs_and_measures_the_holdout_in_stars() -> None:
    seen: list[Epoch] = []
    trained = train(world().train, tiny(epochs=3), holdout=world().test, on_epoch=seen.append)
    assert tuple(seen) == trained.history
    assert [epoch.number for epoch in seen] == [1, 2, 3]
    plain = dataclasses.replace(trained, rating_scale=(-np.inf, np.inf))  # the history is of unclipped predictions
    assert seen[-1].holdout_rmse == pytest.approx(
        rmse(plain.ready(world().train).predict(world().test), world().test), abs=1e-5
    )


def test_patience_keeps_the_weights_of_the_best_epoch() -> None:
    chosen = tiny(epochs=60, patience=2, optimizer="adam", learning_rate=0.1, batch_size=64)
    few = world().train.slice(0, 150)
    kept = Kept()
    trained = train(few, chosen, holdout=world().test, checkpoints=kept)
    best = int(np.argmin([epoch.holdout_rmse or 0 for epoch in trained.history]))
    assert len(trained.history) == best + 1 + 2 < 60
    assert all(np.array_equal(trained.weights[name], kept.states[best][name]) for name in trained.weights)
    assert not np.array_equal(trained.weights["weight/000"], kept.states[-1]["weight/000"])
    resumed = train(few, chosen, holdout=world().test, checkpoints=Kept(kept.states[best + 1]))
    assert same_bytes(resumed, trained)


def test_a_model_learns_what_users_and_movies_have_in_common() -> None:
    chosen = tiny(epochs=40, optimizer="adam", learning_rate=0.02, batch_size=64)
    trained = train(world().train, chosen)
    mean = rmse(np.full(world().test.num_rows, np.mean(world().train["rating"].to_numpy())), world().test)
    assert rmse(trained.ready(world().train).predict(world().test), world().test) < 0.5 * mean


@pytest.mark.parametrize("optimizer", ["adagrad", "adam"])
@pytest.mark.faults("B3.3")
def test_a_learning_rate_beyond_reason_is_told_and_keeps_no_model(optimizer: str) -> None:
    kept = Kept()
    with pytest.raises(TrainingDiverged, match="epoch 1, step") as caught:
        train(world().train, tiny(optimizer=optimizer, learning_rate=1e9), checkpoints=kept)
    assert "1e+09" in caught.value.hint
    assert kept.states == []


@pytest.mark.faults("B3.3")
def test_weights_that_only_the_last_step_broke_are_no_model() -> None:
    kept = Kept()
    with pytest.raises(TrainingDiverged, match="epoch 1, step 1"):
        train(world().train, tiny(epochs=1, batch_size=10_000, learning_rate=3e38), checkpoints=kept)
    assert kept.states == []


def test_predictions_do_not_depend_on_the_batch_and_stay_on_the_scale() -> None:
    trained = train(world().train, tiny())
    whole = trained.ready(world().train).predict(world().test)
    np.testing.assert_allclose(trained.ready(world().train).predict(world().test, batch=7), whole, atol=1e-5)
    narrow = dataclasses.replace(trained, rating_scale=(2.9, 3.1)).ready(world().train).predict(world().test)
    assert (narrow.min(), narrow.max()) == (pytest.approx(2.9), pytest.approx(3.1))
    assert len(trained.ready(world().train).predict(world().test.slice(0, 0))) == 0


def test_the_scale_is_that_of_the_ratings() -> None:
    assert train(ratings([1, 2], [1, 1], [0.5, 4.5]), tiny()).rating_scale == (0.5, 4.5)


def test_ids_as_text_and_as_numbers_give_the_same_model_where_they_sort_alike() -> None:
    few = ratings([1, 2, 3, 4] * 9, [5, 6, 7] * 12, [1.0, 2.0, 3.0, 4.0, 5.0, 3.0] * 6)
    assert same_bytes(train(few, tiny()), train(as_text(few), tiny()))


def test_movies_may_be_known_by_title() -> None:
    few = ratings([1, 2, 3], [10, 11, 12], [1.0, 3.0, 5.0]).append_column("title", [["Twins", "Twins", "Alone"]])
    trained = train(few, tiny(movie_key="title"))
    assert trained.movies.ids.to_pylist() == ["Alone", "Twins"]
    assert trained.weights["weight/001"].shape == (3, 4)


def test_wider_vocabularies_make_room_for_ids_without_ratings() -> None:
    trained = train(world().train.slice(0, 5), tiny(), vocabularies=vocabularies_of(planted(), "movie_id"))
    assert (trained.users.rows, trained.movies.rows) == (61, 41)
    assert [len(trained.weights[name]) for name in ("weight/000", "weight/001")] == [61, 41]


@pytest.mark.parametrize("damage", ["cut", "missing", "of a wider model"])
@pytest.mark.faults("B3.14")
def test_weights_that_do_not_fit_are_refused(damage: str) -> None:
    trained = train(world().train, tiny(epochs=1))
    weights, recipe = dict(trained.weights), trained.recipe
    if damage == "cut":
        weights["weight/001"] = weights["weight/001"][:-1]
    elif damage == "missing":
        del weights["weight/005"]
    else:
        recipe = Recipe(dataclasses.replace(recipe.model, hidden_units=(8, 5)), recipe.train)
    with pytest.raises(InvalidModel, match="weight"):
        _ = dataclasses.replace(trained, weights=weights, recipe=recipe).model


def test_a_checkpoint_of_another_model_is_refused() -> None:
    kept = Kept()
    train(world().train, tiny(epochs=1), checkpoints=kept)
    with pytest.raises(InvalidModel, match="expected"):
        train(world().train, tiny(epochs=2, embedding_dimension=5), checkpoints=kept)


def test_fewer_ratings_than_a_batch_and_a_ragged_last_batch_train() -> None:
    for count in (1, 257):
        trained = train(world().train.slice(0, count), tiny(epochs=1))
        assert all(np.isfinite(weight).all() for weight in trained.weights.values())
