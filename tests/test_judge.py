"""The verdict on a candidate: beside the baselines, and beside the recipe of the champion."""

import dataclasses
from datetime import UTC, datetime, timedelta
from graphlib import TopologicalSorter
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import small
from conftest import LAST, world_in

from jobs import inputs
from jobs.nightly import Options, nightly
from jobs.settings import Settings
from recommender import gate, split
from recommender import train as training
from recommender.errors import GateRefused
from storage import models
from storage.catalogue import Catalogue


def test_lists_are_worse_only_where_chance_does_not_explain_it() -> None:
    rng = np.random.default_rng(0)
    other = rng.uniform(0, 1, 200)
    found = gate.compare_lists(other - 0.1, other)
    assert found.worse
    assert found.difference == pytest.approx(-0.1)
    assert found.low == pytest.approx(-0.1)
    noisy = gate.compare_lists(rng.uniform(0, 1, 200), other)
    assert not noisy.worse
    assert noisy.low < noisy.difference < noisy.high
    assert not gate.compare_lists(other + 0.1, other).worse


def test_stars_are_compared_by_user_and_in_rmse() -> None:
    held = small.ratings([1, 1, 2, 2, 3], [1, 2, 1, 2, 1], [3, 3, 3, 3, 3])
    right, off = np.full(5, 3, np.float32), np.full(5, 4, np.float32)
    found = gate.compare_stars(off, right, held)
    assert (found.value, found.other, found.worse) == (1.0, 0.0, True)
    assert (found.low, found.high) == (1.0, 1.0)
    assert not gate.compare_stars(right, off, held).worse
    one_bad = np.array([3, 3, 3, 3, 5], np.float32)  # a single user: other draws of users have none of it
    assert not gate.compare_stars(one_bad, right, held).worse


def again(settings: Settings, **changes: object) -> Settings:
    """The same state with other hyper-parameters."""
    model = dataclasses.replace(settings.model, **changes)  # type: ignore[arg-type]
    origin = dict(settings.origin) | {f"model.{name}": "test" for name in changes}
    return dataclasses.replace(settings, model=model, origin=origin)


@pytest.mark.faults("B3.1")
def test_a_recipe_that_is_worse_than_the_champions_is_refused_and_the_champion_scores(settings: Settings) -> None:
    better = again(settings, epochs=20)
    first = nightly(better, LAST, Options(until="stage"))
    assert not [check for check in first["checks"] if check["check_name"].startswith("champion")]
    worse = again(settings, epochs=1, learning_rate=1e-4)
    second = nightly(worse, LAST, Options(until="stage"))
    verdicts = {check["check_name"]: check for check in second["checks"]}
    assert verdicts["champion_rmse"]["verdict"] == "fail"
    assert first["model_version"] in verdicts["champion_rmse"]["message"]
    assert verdicts["champion_rmse"]["value"] > verdicts["champion_rmse"]["baseline"]
    assert second["model_version"] == first["model_version"]
    statuses = sorted(model.manifest["status"] for model in models.versions(settings.models))
    assert statuses == ["accepted", "refused"]
    champion = models.champion(settings.models)
    assert champion is not None
    assert champion.version == first["model_version"]


def test_the_same_recipe_on_newer_ratings_is_not_measured_against_itself(settings: Settings) -> None:
    nightly(settings, LAST.replace(day=9), Options(until="train"))
    second = nightly(settings, LAST, Options(until="train"))
    assert not [check for check in second["checks"] if check["check_name"].startswith("champion")]


def test_fewer_epochs_are_another_recipe_and_going_back_crowns_what_is_used_again(settings: Settings) -> None:
    """What was configured counts: a night may change nothing but the epochs, and is compared all the same."""
    later = [LAST + timedelta(days=days) for days in (1, 2)]  # without new ratings
    first = nightly(settings, LAST, Options(until="train"))
    other = nightly(again(settings, epochs=1), later[0], Options(until="train", force="to have it"))
    assert [check for check in other["checks"] if check["check_name"] == "champion_rmse"]
    assert champion_of(settings) == other["model_version"] != first["model_version"]
    back = nightly(settings, later[1], Options(until="train"))
    assert champion_of(settings) == back["model_version"] == first["model_version"]


def champion_of(settings: Settings) -> str | None:
    found = models.champion(settings.models)
    return found and found.version


@pytest.mark.slow
@pytest.mark.faults("B3.16")
def test_verdicts_on_ten_seeds_do_not_go_round_in_a_circle(settings: Settings) -> None:
    """Else each would be refused beside one and replace another, and they would take turns as the champion."""
    ratings = inputs.read(settings, None).ratings
    cut = split.newest(ratings, settings.gate.holdout)
    stars = [
        training.train(cut.train, settings.recipe.changed(seed=seed, epochs=20))
        .ready(cut.train)
        .predict(cut.validation)
        for seed in range(10)
    ]
    assert len({predicted.tobytes() for predicted in stars}) == 10
    worse = {
        one: {other for other in range(10) if gate.compare_stars(stars[one], stars[other], cut.validation).worse}
        for one in range(10)
    }
    assert sum(map(len, worse.values())) < 45  # most pairs are told apart by chance alone, and neither is refused
    assert len(list(TopologicalSorter(worse).static_order())) == 10  # raises where there is a circle


def loved_by_few() -> Catalogue:
    """Everybody picks what everybody picks, and likes it; the few who meet another movie love it."""
    rng = np.random.default_rng(0)
    share = 1 / np.arange(1, 61) ** 1.2
    rows = [(user, movie) for user in range(200) for movie in rng.choice(60, 12, replace=False, p=share / share.sum())]
    order = rng.permutation(len(rows))
    user, movie = np.array(rows)[order].T
    at = datetime(2026, 3, 1, tzinfo=UTC) + timedelta(minutes=5) * np.arange(len(rows))
    stars = np.where(movie < 15, 4.0, np.where(rng.random(len(rows)) < 0.9, 5.0, 1.0))
    columns = {"user_id": user, "movie_id": movie, "rating": pa.array(stars, pa.float32())}
    return Catalogue(pa.table(columns | {"rated_at": pa.array(at, pa.timestamp("us", "UTC"))}))


@pytest.mark.faults("B3.2")
def test_a_first_model_that_popularity_beats_is_published_with_a_warning_or_by_choice_refused(tmp_path: Path) -> None:
    warned = world_in(tmp_path / "warned", loved_by_few(), model__epochs=20, gate__max_same_list=1)
    record = nightly(warned, LAST)
    (check,) = (row for row in record["checks"] if row["check_name"] == "popularity_ndcg@10")
    assert (record["status"], check["verdict"], check["severity"]) == ("published", "warn", "warn")
    assert check["value"] < check["baseline"]
    blocked = world_in(
        tmp_path / "blocked", loved_by_few(), model__epochs=20, gate__max_same_list=1, gate__lists="block"
    )
    with pytest.raises(GateRefused, match="is worse than popularity's"):
        nightly(blocked, LAST)
    assert not blocked.database.exists()
    assert models.champion(blocked.models) is None
    forced = nightly(blocked, LAST, Options(force="a start"))
    assert (forced["status"], champion_of(blocked)) == ("published", forced["model_version"])


@pytest.mark.faults("B3.2")
def test_lists_worse_than_popularity_are_a_warning_or_by_choice_a_refusal(settings: Settings) -> None:
    record = nightly(settings, LAST, Options(until="train"))
    names = {row["metric"] for row in record["metrics"]}
    assert {"ndcg@10", "popularity_ndcg@10", "recent popularity_ndcg@10", "coverage@10"} <= names
    (check,) = (row for row in record["checks"] if row["check_name"] == "popularity_ndcg@10")
    assert check["severity"] == "warn"
    strict = world_in(settings.state_dir.parent / "strict", gate__lists="block")
    (check,) = (
        row
        for row in nightly(strict, LAST, Options(until="train"))["checks"]
        if row["check_name"] == "popularity_ndcg@10"
    )
    assert check["severity"] == "block"
