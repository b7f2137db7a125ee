"""The gate on finished lists: too much alike, or of another world than what readers see."""

import json
from collections.abc import Callable
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from conftest import LAST, Recjob, document, small_world, world_in
from worlds import batch, catalogue, schemas

from jobs import plausible, publish
from jobs.nightly import Options, nightly
from jobs.settings import Settings
from recommender.errors import ListsRefused
from storage import models, runs, warehouse
from storage.runs import RunPartition

TOP, MOVIES = 10, 400
Choose = Callable[[int], list[int]]
"""The list of a user."""


def varied(user: int) -> list[int]:
    return [(user * 7 + place * 3) % MOVIES for place in range(TOP)]


def made(
    root: Path, choose: Choose, day: date = LAST, users: int = 200, cold: int = 0, movies: int = MOVIES
) -> RunPartition:
    """A partition of `users`, of whom the first `cold` have no rating and one list in common."""
    lists = [
        (user, place + 1, movie, 1.0 - place / 100, 4.0, "cold_user" if user < cold else "model")
        for user in range(users)
        for place, movie in enumerate(varied(0) if user < cold else choose(user))
    ]
    status = [(user, "cold" if user < cold else "warm", 3 * (user >= cold), TOP, None) for user in range(users)]
    parts = [{"recommendations": batch("recommendations", lists), "user_status": batch("user_status", status)}]
    record = {"n_movies": movies, "top_n": TOP}
    return runs.stage(
        root, day, f"{day:%Y%m%d}-{len(list(root.rglob('run=*')))}", parts, schemas(), {"movies": catalogue([])}, record
    )


@pytest.fixture
def gated(settings: Settings) -> Settings:
    gate = replace(settings.gate, max_same_first=0.95)
    return replace(settings, score=replace(settings.score, top_n=TOP), gate=gate)


def verdicts(found: list[dict[str, Any]]) -> dict[str, str]:
    return {check["check_name"]: check["verdict"] for check in found}


@pytest.mark.parametrize(
    ("name", "choose", "more"),
    [
        ("same_list", lambda user: varied(user if user < 90 else 0), {}),
        ("same_first", lambda user: [399, *varied(user)[1:]], {}),
        ("coverage", lambda user: [(user + place) % 11 for place in range(TOP)], {"movies": 4000}),
        ("churn", lambda user: [399 - movie for movie in varied(user)], {}),
        ("movies", varied, {"movies": MOVIES // 20}),
        ("cold_rise", varied, {"cold": 80}),
    ],
)
@pytest.mark.faults("B3.5", "B3.6")
def test_a_figure_beyond_its_limit_fails_and_says_so(
    tmp_path: Path, gated: Settings, name: str, choose: Choose, more: dict[str, Any]
) -> None:
    before = made(tmp_path, varied) if name != "coverage" else made(tmp_path, choose, movies=4000)
    found = plausible.checks(made(tmp_path, choose, **more), before, gated, None)
    assert [check["check_name"] for check in found if check["verdict"] == "fail"] == [name]
    (failed,) = (check for check in found if check["verdict"] == "fail")
    assert (
        f"gate.m{'in' if name in ('coverage', 'movies') else 'ax'}_{name} = {failed['threshold']:g}"
        in failed["message"]
    )
    assert (failed["stage"], failed["severity"]) == ("recommendations", "block")
    forced = plausible.checks(made(tmp_path, choose, **more), before, gated, "the new shop")
    assert verdicts(forced) == verdicts(found) | {name: "overridden"}
    assert next(check for check in forced if check["verdict"] == "overridden")["message"].endswith(
        "forced: the new shop"
    )


def test_a_healthy_night_passes_and_its_figures_are_those_counted_by_hand(tmp_path: Path, gated: Settings) -> None:
    before = made(tmp_path, varied, users=150, cold=10)

    def moved(user: int) -> list[int]:  # one movie of ten is another
        return [*varied(user)[:-1], (user * 7 + 200) % MOVIES]

    found = plausible.checks(made(tmp_path, moved, users=160, cold=20, movies=500), before, gated, None)
    assert set(verdicts(found).values()) == {"pass"}
    value = {check["check_name"]: check["value"] for check in found}
    movies = {movie for user in range(20, 160) for movie in moved(user)}
    assert value["coverage"] == len(movies) / 500
    assert value["same_list"] == value["same_first"] == 1 / 140
    assert value["churn"] == pytest.approx(0.1)
    assert value["movies"] == 500 / MOVIES
    assert value["cold_rise"] == pytest.approx(20 / 160 - 10 / 150)


def test_what_cannot_be_told_is_skipped(tmp_path: Path, gated: Settings) -> None:
    """A first run, a handful of users, a tiny catalogue, and a night on which everybody is cold."""
    alike, changed = {"coverage", "same_list", "same_first"}, {"churn", "movies", "cold_rise"}
    same: Choose = lambda user: varied(0)  # noqa: E731
    few = made(tmp_path, same, users=99)
    for partition in (few, made(tmp_path, same, movies=2 * TOP - 1), made(tmp_path, same, cold=200)):
        found = plausible.checks(partition, None, gated, None)
        assert verdicts(found) == dict.fromkeys(alike | changed, "skipped")
    later = plausible.checks(made(tmp_path, same, cold=200), made(tmp_path, same, cold=180), gated, None)
    assert {name for name, verdict in verdicts(later).items() if verdict == "skipped"} == alike | {"churn"}
    assert "fail" not in verdicts(later).values()


def test_churn_of_many_users_is_told_from_some(
    tmp_path: Path, gated: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("storage.lists._COMPARED", 50)
    half: Choose = lambda user: [*varied(user)[:5], *(399 - movie for movie in varied(user)[5:])]  # noqa: E731
    found = plausible.checks(made(tmp_path, half), made(tmp_path, varied), gated, None)
    (churn,) = (check["value"] for check in found if check["check_name"] == "churn")
    assert churn == pytest.approx(0.5, abs=0.02)


@pytest.mark.parametrize("zeroed", ["users", "all"])
@pytest.mark.faults("B3.5")
def test_a_model_that_gives_everybody_the_same_list_is_not_published(tmp_path: Path, zeroed: str) -> None:
    world = small_world(users=120, movies=60, ratings=900)
    settings = world_in(tmp_path / "state", world, score__top_n=10)
    first = nightly(settings, LAST.replace(day=9))
    live = settings.database.resolve()
    trained = models.load(settings.models, first["model_version"])
    weights, ids = models.contents(trained)
    rows = len(ids["users"]) + 1
    constant = {
        name: np.zeros_like(array) if zeroed == "all" or (array.ndim == 2 and len(array) == rows) else array
        for name, array in weights.items()
    }
    assert sum(not array.any() for array in constant.values()) >= 1
    models.save(settings.models, "20260310-abcdef12", trained.manifest, constant, ids)
    with_seen = replace(
        settings, score=replace(settings.score, include_seen=True)
    )  # else lists differ by what was rated
    with pytest.raises(
        ListsRefused, match=r"same_list 1 is over gate.max_same_list = 0\.5: 118 of 118 users have one list"
    ):
        nightly(with_seen, LAST, Options(model="20260310-abcdef12"))
    assert settings.database.resolve() == live
    assert [partition.run_id for partition in publish.staged(settings)] == [first["run_id"]]
    assert nightly(settings, LAST)["status"] == "published"


@pytest.mark.slow
@pytest.mark.faults("B3.6")
def test_a_catalogue_cut_to_a_twentieth_stops_the_night_until_it_is_said_to_be_meant(
    settings: Settings, recjob: Recjob
) -> None:
    world = small_world(users=120, movies=100, ratings=1500)
    world_in(settings.state_dir, world)
    assert recjob("nightly", "--date", "2026-03-09").returncode == 0
    live = settings.database.resolve()
    cut = world.movies.append_column("available", [[number % 20 == 0 for number in range(100)]])
    pq.write_table(cut, settings.lake / "movies.parquet")
    refused = recjob("nightly", "--date", str(LAST), "--json")
    assert refused.returncode == 4, refused.stderr
    error = document(refused)["error"]
    assert error["kind"] == "E_GATE_LISTS"
    assert "movies 0.05 is under gate.min_movies = 0.5: 5 candidates, 100 on 2026-03-09" in error["message"]
    assert "--force --reason" in error["hint"]
    assert settings.database.resolve() == live
    (run,) = (json.loads(path.read_text()) for path in sorted(settings.journal.iterdir())[-1:])
    assert (run["status"], run["error_kind"], run["exit_code"]) == ("refused", "E_GATE_LISTS", 4)
    assert "fail" in verdicts(run["checks"]).values()
    forced = recjob("nightly", "--date", str(LAST), "--force", "--reason", "licences ended")
    assert forced.returncode == 0, forced.stderr
    with warehouse.reader(settings.database) as connection:
        query = (
            "SELECT verdict, message FROM checks JOIN runs USING (run_id) WHERE check_name = 'movies' AND status = ?"
        )
        ((verdict, message),) = connection.execute(query + " AND as_of_date = '2026-03-10'", ["published"]).fetchall()
        assert (verdict, message.split("; ")[-1]) == ("overridden", "forced: licences ended")
        assert connection.execute(query, ["refused"]).fetchall()[0][0] == "fail"
