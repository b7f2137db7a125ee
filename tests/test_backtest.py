"""Nights played again with real trainings: what a night knows, what retraining and histories buy, and what is told."""

import json
import subprocess
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from conftest import document, small_world, world_in

from jobs import backtest, ingest, inputs, show_experiments
from jobs import run as journals
from jobs.allowed import InvalidSettings
from jobs.backtest import BESIDE, FIGURES, Replay
from jobs.settings import Settings
from recommender import train as training
from storage.catalogue import Catalogue
from storage.errors import InvalidInput, NoRatings

START = date(2026, 3, 1)
DAILY, WEEKLY = "retrained every day", "retrained every 7 days"
FEW = Replay("basic", date(2026, 3, 6), date(2026, 3, 8), retrain=(1, 2))
TOWERS = {
    "model__name": "default",
    "model__epochs": 5,
    "model__steps_per_epoch": 4,
    "model__batch_size": 64,
    "model__learning_rate": 0.05,
    "model__stars_dimension": 4,
    "model__choice_dimension": 8,
    "model__taste_dimension": 4,
}


def catalogue(rows: list[tuple[int, int, float, float]]) -> Catalogue:
    """User, movie, stars, and the time in days after the start."""
    user, movie, stars, day = zip(*rows, strict=True)
    first = datetime(2026, 3, 1, tzinfo=UTC)
    at = [first + timedelta(days=days) for days in day]
    columns = {"user_id": pa.array(user, pa.int64()), "movie_id": pa.array(movie, pa.int64())}
    columns |= {"rating": pa.array(stars, pa.float32()), "rated_at": pa.array(at, pa.timestamp("us", "UTC"))}
    movies = pa.table(
        {"movie_id": pa.array(sorted(set(movie)), pa.int64()), "title": [str(m) for m in sorted(set(movie))]}
    )
    return Catalogue(pa.table(columns), movies, pa.table({"user_id": pa.array(sorted(set(user)), pa.int64())}))


def releases() -> Iterator[tuple[int, int, float, float]]:
    """Four movies come out each day: odd users like them that day, even users the next. Old movies are not liked."""
    for user in range(40):
        for movie in range(20):
            if (user + movie) % 3:
                yield user, movie, 2.0, 0.1
    for day in range(10):
        for movie in range(100 + 4 * day, 104 + 4 * day):
            for user in range(40):
                yield user, movie, 5.0, day + (0.5 if user % 2 else 1.5)


def newcomers() -> Iterator[tuple[int, int, float, float]]:
    """Six users join each day and rate six movies then, four the next day: all good ones of their own half of the movies."""
    rng = np.random.default_rng(3)
    for day in range(16):
        for number in range(6):
            user = 6 * day + number
            for place, movie in enumerate(rng.permutation(20)[:10]):
                yield user, int(movie) + 20 * (user % 2), 4.0 + (place % 2), day + (0.5 if place < 6 else 1.5)


def figures(done: dict[str, Any]) -> list[Any]:
    return [done[key] for key in ("nights", "measured", "user_nights", "means", "differences", "trainings")]


def test_retraining_every_night_finds_what_came_out_since(tmp_path: Path) -> None:
    settings = world_in(tmp_path / "state", catalogue(list(releases())), model__epochs=20, model__batch_size=64)
    done = backtest.backtest(settings, Replay("basic", START, date(2026, 3, 4), retrain=(3, 1)))
    seldom = "retrained every 3 days"
    assert (done["retrain"], done["trainings"]) == ([1, 3], 4)  # on the first night and the last, one model is both
    assert [night["figures"][seldom]["trained"][-2:] for night in done["nights"]] == ["01", "01", "01", "04"]
    assert [night["figures"][DAILY]["trained"] for night in done["nights"]] == [n["as_of"] for n in done["nights"]]
    for same in (0, 3):
        assert done["nights"][same]["figures"][seldom] == done["nights"][same]["figures"][DAILY]
    assert done["means"][DAILY]["ndcg@10"] > 1.5 * done["means"][seldom]["ndcg@10"]
    assert done["means"][DAILY]["rmse"] < done["means"][seldom]["rmse"]
    (gain, beside) = done["differences"]
    assert (gain["of"], gain["minus"]) == (DAILY, seldom)
    assert 0.05 < gain["ci_low"] < gain["value"] < gain["ci_high"]
    assert beside["minus"] == max(BESIDE, key=lambda name: done["means"][name]["ndcg@10"])
    assert gain["value"] == pytest.approx(done["means"][DAILY]["ndcg@10"] - done["means"][seldom]["ndcg@10"])


@pytest.mark.slow
def test_a_model_by_history_makes_use_of_ratings_that_it_was_not_trained_on(tmp_path: Path) -> None:
    settings = world_in(tmp_path / "state", catalogue(list(newcomers())), **TOWERS)
    done = backtest.backtest(settings, Replay("default", date(2026, 3, 8), date(2026, 3, 14), retrain=(7,)))
    assert done["trainings"] == 1
    assert len(done["blend"]) == 3
    late = [night["figures"] for night in done["nights"][2:]]  # nobody who is measured was there in training
    assert all(found[WEEKLY]["ndcg@10"] > found["popularity"]["ndcg@10"] for found in late)
    by_id = backtest.backtest(settings, Replay("basic", date(2026, 3, 8), date(2026, 3, 14), retrain=(7,)))
    assert all(
        night["figures"][WEEKLY]["ndcg@10"] == night["figures"]["popularity"]["ndcg@10"]
        for night in by_id["nights"][2:]
    )


def test_nothing_later_changes_a_night(settings: Settings) -> None:
    before = backtest.backtest(settings, FEW)
    rows = inputs.read(settings, None).ratings.slice(0, 200).to_pylist()
    instant = datetime(2026, 3, 10, tzinfo=UTC)  # the end of the last night's test: the day after
    again = [(row["user_id"], row["movie_id"], 1.0 if row["rating"] > 3 else 5.0) for row in rows]
    more = [(500 + number, 1, 5.0) for number in range(30)]
    days = (instant - datetime(2026, 3, 1, tzinfo=UTC)).days
    later = catalogue([(*row, days + number / 1e4) for number, row in enumerate(again + more)])
    ingest.append(settings, "later", Catalogue(later.ratings), 0.0)
    assert inputs.read(settings, None).ratings.num_rows == 630  # 200 ratings were replaced
    assert figures(backtest.backtest(settings, FEW)) == figures(before)


def test_a_night_knows_and_is_tested_on_what_its_time_zone_says(tmp_path: Path) -> None:
    settings = world_in(tmp_path / "state", timezone="Pacific/Auckland")
    (night,) = backtest.backtest(settings, Replay("basic", date(2026, 3, 6), date(2026, 3, 6), every=2))["nights"]
    ends = [journals.watermark(day, "Pacific/Auckland") for day in (date(2026, 3, 6), date(2026, 3, 8))]
    at = inputs.read(settings, None).ratings["rated_at"].to_pylist()
    assert night["known"] == sum(instant < ends[0] for instant in at)
    assert night["ratings"] == sum(ends[0] <= instant < ends[1] for instant in at)


def test_the_document_has_every_figure_of_every_night(settings: Settings, tmp_path: Path) -> None:
    done = backtest.backtest(settings, FEW, tmp_path / "nights.png")
    names = [DAILY, "retrained every 2 days", *BESIDE]
    assert json.loads(json.dumps(done, allow_nan=False)) == done
    assert [night["as_of"] for night in done["nights"]] == ["2026-03-06", "2026-03-07", "2026-03-08"]
    assert (done["from"], done["to"], done["every"], done["retrain"]) == ("2026-03-06", "2026-03-08", 1, [1, 2])
    for night in done["nights"]:
        assert list(night["figures"]) == names
        assert night["users"] > 0
        for name, found in night["figures"].items():
            assert tuple(key for key in found if key != "trained") == FIGURES
            assert (found["rmse"] is None) == (name in BESIDE) == ("trained" not in found)
            assert all(0 <= found[key] <= 1 for key in FIGURES if key != "rmse")
    assert done["user_nights"] == sum(night["users"] for night in done["nights"])
    for name, found in done["means"].items():
        mean = sum(night["users"] * night["figures"][name]["ndcg@10"] for night in done["nights"]) / done["user_nights"]
        assert found["ndcg@10"] == pytest.approx(mean)
    squared = sum(night["ratings"] * night["figures"][DAILY]["rmse"] ** 2 for night in done["nights"])
    rows = sum(night["ratings"] for night in done["nights"])
    assert done["means"][DAILY]["rmse"] == pytest.approx((squared / rows) ** 0.5)
    assert (tmp_path / "nights.png").read_bytes().startswith(b"\x89PNG")
    told = show_experiments.backtest(done)
    assert f"{done['means'][DAILY]['ndcg@10']:.4f}" in told
    assert f"means over {done['user_nights']:,} user-nights" in told


def test_a_night_without_ratings_or_users_to_measure_is_told_and_left_out_of_the_means(tmp_path: Path) -> None:
    rows = [(user, movie, 3.0 + movie % 3, 0.1 * movie) for user in range(10) for movie in range(8)]
    rows += [(0, 90, 5.0, 1.5), (50, 1, 1.0, 3.5)]  # nothing on the day between; then a stranger
    settings = world_in(tmp_path / "state", catalogue(rows))
    done = backtest.backtest(settings, Replay("basic", START, START + timedelta(days=3)), tmp_path / "nights.svg")
    assert [(night["ratings"], night["users"]) for night in done["nights"]] == [(1, 1), (0, 0), (1, 0), (0, 0)]
    assert [bool(night["figures"]) for night in done["nights"]] == [True, False, True, False]
    stranger = done["nights"][2]["figures"][DAILY]
    assert (stranger["ndcg@10"], stranger["coverage@10"]) == (None, None)
    assert stranger["rmse"] > 0
    assert (done["measured"], done["user_nights"], done["trainings"]) == (1, 1, 2)
    assert "2026-03-02" in show_experiments.backtest(done)
    alone = backtest.backtest(settings, Replay("basic", date(2026, 3, 3), date(2026, 3, 3)))
    assert (alone["means"][DAILY]["ndcg@10"], alone["differences"]) == (None, [])
    assert "nobody could be measured" in show_experiments.backtest(alone)


def test_the_same_seed_gives_the_same_figures(settings: Settings) -> None:
    found = [backtest.backtest(settings, Replay("basic", FEW.first, FEW.first, seed=seed)) for seed in (7, 7, 8)]
    assert figures(found[0]) == figures(found[1])
    assert figures(found[0]) != figures(found[2])


@pytest.mark.parametrize(
    ("days", "every", "asked", "paces"),
    [(7, 1, (), [1]), (8, 1, (), [1, 7]), (30, 7, (), [7]), (30, 2, (), [2, 7]), (3, 1, (5, 3, 5), [3, 5])],
)
def test_how_often_a_model_is_retrained(days: int, every: int, asked: tuple[int, ...], paces: list[int]) -> None:
    assert Replay("basic", START, START + timedelta(days=days - 1), every, asked).paces == paces


def test_what_cannot_be_played_is_refused_with_a_hint(settings: Settings) -> None:
    with pytest.raises(InvalidSettings, match="no model is retrained every day") as shorter:
        backtest.backtest(settings, Replay("basic", START, date(2026, 3, 8), every=2, retrain=(1,)))
    with pytest.raises(InvalidInput, match="no rating was given after 2026-04-01") as after:
        backtest.backtest(settings, Replay("basic", date(2026, 4, 1), date(2026, 4, 3)))
    with pytest.raises(NoRatings, match="no ratings before 2026-02-02") as before:
        backtest.backtest(settings, Replay("basic", date(2026, 2, 1), date(2026, 3, 5)))
    assert all(caught.value.hint for caught in (shorter, after, before))


def test_a_signal_is_heeded_between_trainings(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    real, calls = training.train, []

    def train(*args: Any, **more: Any) -> Any:
        calls.append(None)
        done = real(*args, **more)
        monkeypatch.setattr("jobs.signals._received", [2])
        return done

    monkeypatch.setattr(training, "train", train)
    with pytest.raises(KeyboardInterrupt):
        backtest.backtest(settings, FEW)
    assert len(calls) == 1


@pytest.mark.slow
def test_the_command_plays_nights_and_draws_them(
    recjob: Callable[..., subprocess.CompletedProcess[str]], settings: Settings
) -> None:
    asked = ["backtest", "--from", "2026-03-06", "--to", "2026-03-08", "--every", "2", "--model", "basic"]
    done = recjob(*asked, "--json", "--log-format", "json")
    assert done.returncode == 0, done.stderr
    found = document(done)
    assert found["schema"] == "recjob.backtest/1"
    assert [night["as_of"] for night in found["nights"]] == ["2026-03-06", "2026-03-08"]
    assert found["plot"] == str(settings.state_dir / "reports" / "backtest-basic.png")
    assert Path(found["plot"]).read_bytes().startswith(b"\x89PNG")
    events = [json.loads(line) for line in done.stderr.splitlines()]
    assert [event["as_of"] for event in events if event["event"] == "backtest.night"] == ["2026-03-06", "2026-03-08"]
    assert recjob(*asked[:1], "--from", "2026-03-08", "--to", "2026-03-06").returncode == 2


def test_ids_may_be_text(tmp_path: Path) -> None:
    settings = world_in(tmp_path / "state", small_world(text_ids=True))
    done = backtest.backtest(settings, Replay("basic", FEW.first, FEW.first))
    assert done["user_nights"] > 0
