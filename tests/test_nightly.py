"""The path of a night, from ratings in Parquet to SQL on the published file."""

import dataclasses
import signal
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import FIRST, LAST, brought_back, environment, small_world, world_in

from jobs import backfill, ingest, publish, query, run
from jobs.nightly import Options, nightly
from jobs.settings import Settings
from recommender.errors import GateRefused, NothingToRecommend
from storage import models, warehouse
from storage.catalogue import Catalogue
from storage.errors import Busy, InvalidInput, NoRatings, NotFound


def sql(settings: Settings, statement: str) -> list[tuple[Any, ...]]:
    with duckdb.connect(str(settings.database), read_only=True) as connection:
        return connection.execute(statement).fetchall()


def rated(user: int, movie: int, stars: float, at: datetime) -> Catalogue:
    columns = {"user_id": [user], "movie_id": [movie], "rating": pa.array([stars], pa.float32())}
    return Catalogue(pa.table({**columns, "rated_at": pa.array([at], pa.timestamp("us", "UTC"))}))


def test_a_night_leads_from_parquet_to_sql(settings: Settings) -> None:
    record = nightly(settings, LAST)
    assert record["status"] == "published"
    lists = sql(
        settings, "SELECT user_id, count(*), min(rank), max(rank) FROM current_recommendations GROUP BY 1 ORDER BY 1"
    )
    assert lists == [(user, 5, 1, 5) for user in [*range(1, 41), 999]]
    seen = set(zip(*(small_world().ratings[name].to_pylist() for name in ("user_id", "movie_id")), strict=True))
    recommended = set(sql(settings, "SELECT user_id, movie_id FROM recommendations"))
    assert not recommended & seen
    assert sql(settings, "SELECT DISTINCT title FROM current_recommendations WHERE movie_id = 1") == [
        ("Movie 1 (1911)",)
    ]
    assert sql(settings, "SELECT count(*) FROM run_inputs")[0][0] == len(
        list(settings.lake.glob("ratings/*/*.parquet"))
    )


@pytest.mark.faults("B3.11")
def test_a_user_without_ratings_gets_the_most_rated_movies(settings: Settings) -> None:
    nightly(settings, LAST)
    shown = sql(settings, "SELECT movie_id, source FROM current_recommendations WHERE user_id = 999 ORDER BY rank")
    popular = sql(settings, "SELECT movie_id FROM movies ORDER BY n_ratings DESC, movie_id LIMIT 5")
    assert shown == [(movie, "cold_user") for (movie,) in popular]
    assert sql(settings, "SELECT segment FROM user_status WHERE user_id = 999") == [("cold",)]


@pytest.mark.faults("B1.12")
def test_the_same_inputs_again_are_nothing_to_do(settings: Settings) -> None:
    first = nightly(settings, LAST)
    file = settings.database.resolve()
    assert nightly(settings, LAST)["status"] == "unchanged"
    assert settings.database.resolve() == file
    forced = nightly(settings, LAST, Options(force="to see that it is the same"))
    assert forced["status"] == "published"
    assert forced["output_digest"] == first["output_digest"]


@pytest.mark.faults("B1.12")
def test_a_changed_rating_replaces_the_date(settings: Settings) -> None:
    nightly(settings, LAST)
    ingest.append(settings, "a new rating", rated(1, 3, 5.0, datetime(2026, 3, 10, 23, 59, tzinfo=UTC)), 0.0)
    assert nightly(settings, LAST)["status"] == "published"
    assert sql(settings, "SELECT count(*), count(DISTINCT run_id) FROM recommendations") == [(41 * 5, 1)]
    assert not sql(settings, "SELECT * FROM recommendations WHERE user_id = 1 AND movie_id = 3")


@pytest.mark.faults("B2.6")
def test_nothing_after_the_watermark_changes_a_byte(settings: Settings) -> None:
    before = nightly(settings, LAST)
    ingest.append(settings, "the future", rated(1, 3, 5.0, datetime(2026, 3, 11, tzinfo=UTC)), 0.0)
    ingest.append(settings, "a new user", rated(7777, 29, 1.0, datetime(2026, 4, 1, tzinfo=UTC)), 0.0)
    again = nightly(settings, LAST)
    assert again["status"] == "unchanged"
    forced = nightly(settings, LAST, Options(force="prove it"))
    assert forced["output_digest"] == before["output_digest"]
    assert sum(file["rows_future"] for file in forced["inputs"]) == 2


def test_a_date_ends_in_the_configured_zone(tmp_path: Path) -> None:
    assert run.watermark(LAST, "America/New_York") == datetime(2026, 3, 11, 4, tzinfo=UTC)
    assert run.watermark(LAST, "UTC") == datetime(2026, 3, 11, tzinfo=UTC)


def test_two_dates_are_kept_and_compared(settings: Settings) -> None:
    nightly(settings, LAST - timedelta(days=1))
    nightly(settings, LAST)
    assert sql(settings, "SELECT as_of_date FROM freshness") == [(LAST,)]
    changes = dict(sql(settings, "SELECT change, count(*) FROM recommendation_changes GROUP BY 1"))
    assert sum(changes.values()) - changes.get("left", 0) == 41 * 5


def test_ids_that_are_text_stay_text(tmp_path: Path) -> None:
    settings = world_in(tmp_path / "state", small_world(text_ids=True))
    nightly(settings, LAST)
    assert sql(settings, "SELECT count(*) FROM current_recommendations WHERE user_id = 'id-7'") == [(5,)]
    assert query.recommend(settings, "id-7", 3)["recommendations"][0]["movie_id"].startswith("id-")


@pytest.mark.faults("B3.2")
def test_the_first_refused_model_publishes_nothing(settings: Settings) -> None:
    strict = dataclasses.replace(settings, gate=dataclasses.replace(settings.gate, max_rmse_ratio=0.01))
    with pytest.raises(GateRefused, match="over the limit"):
        nightly(strict, LAST)
    assert not settings.database.exists()
    assert run.records(settings.journal, settings.lock)[-1]["status"] == "refused"


@pytest.mark.faults("B3.1")
def test_a_refused_model_leaves_the_champion_in_use(settings: Settings) -> None:
    nightly(settings, LAST - timedelta(days=1))
    champion = models.champion(settings.models)
    picky = dataclasses.replace(settings, gate=dataclasses.replace(settings.gate, max_rmse_ratio=0.01))
    record = nightly(picky, LAST)
    assert record["status"] == "published"
    assert champion is not None
    assert record["model_version"] == champion.version
    assert models.champion(settings.models) == champion
    assert sql(
        settings,
        "SELECT verdict FROM checks WHERE run_id = (SELECT max(run_id) FROM runs) AND check_name = 'holdout_rmse'",
    ) == [("fail",)]


@pytest.mark.faults("B3.1")
def test_strict_refuses_instead_of_using_the_champion(settings: Settings) -> None:
    nightly(settings, LAST - timedelta(days=1))
    picky = dataclasses.replace(settings, gate=dataclasses.replace(settings.gate, max_rmse_ratio=0.01))
    with pytest.raises(GateRefused):
        nightly(picky, LAST, Options(strict=True))
    assert sql(settings, "SELECT max(as_of_date) FROM recommendations") == [(LAST - timedelta(days=1),)]


@pytest.mark.faults("B3.1")
def test_force_uses_a_refused_model_and_says_why(settings: Settings) -> None:
    picky = dataclasses.replace(settings, gate=dataclasses.replace(settings.gate, max_rmse_ratio=0.01))
    nightly(picky, LAST, Options(force="we looked at it"))
    assert sql(settings, "SELECT status, note, alias FROM models") == [("forced", "we looked at it", "champion")]
    assert sql(settings, "SELECT verdict FROM checks WHERE check_name = 'holdout_rmse'") == [("overridden",)]


def test_ratings_of_one_instant_cannot_be_held_out_and_all_epochs_are_run(tmp_path: Path) -> None:
    world = small_world()
    at = pa.array([datetime(2026, 3, 5, tzinfo=UTC)] * world.ratings.num_rows, pa.timestamp("us", "UTC"))
    settings = world_in(tmp_path / "state", Catalogue(world.ratings.set_column(3, "rated_at", at)), model__patience=1)
    nightly(settings, LAST)
    champion = models.champion(settings.models)
    assert champion is not None
    assert champion.manifest["recipe"]["train"]["epochs"] == 2
    assert champion.manifest["checks"][0]["verdict"] == "skipped"


def test_no_movie_with_enough_ratings_is_an_error(settings: Settings) -> None:
    wanting = dataclasses.replace(settings, candidates=dataclasses.replace(settings.candidates, min_ratings=10_000))
    with pytest.raises(NothingToRecommend, match="10000"):
        nightly(wanting, LAST)
    assert not settings.database.exists()


@pytest.mark.faults("B4.14", "B2.9")
def test_a_date_before_the_first_rating_is_an_error(settings: Settings) -> None:
    with pytest.raises(NoRatings, match="before 2026-02-01"):
        nightly(settings, FIRST - timedelta(days=29))


@pytest.mark.faults("B2.1")
def test_a_damaged_input_file_stops_the_run_and_changes_nothing(settings: Settings) -> None:
    nightly(settings, LAST)
    live = settings.database.resolve()
    broken = settings.lake / "ratings" / "month=2026-03" / "part-broken.parquet"
    broken.write_bytes(b"<html>not found</html>")
    with pytest.raises(InvalidInput, match=r"part-broken\.parquet"):
        nightly(settings, LAST)
    assert settings.database.resolve() == live
    assert query.status(settings)["as_of_date"] == str(LAST)


@pytest.mark.faults("B1.11")
@brought_back
def test_a_damaged_published_file_is_replaced_by_the_next_night(settings: Settings) -> None:
    nightly(settings, LAST)
    live = settings.database.resolve()
    live.chmod(0o600)
    live.write_bytes(b"garbage")
    assert "cannot be opened" in query.status(settings)["damaged"]["why"]
    assert nightly(settings, LAST)["status"] == "published"
    assert sql(settings, "SELECT count(*) FROM recommendations") == [(205,)]


@pytest.mark.faults("B2.11")
def test_a_user_who_rated_everything_is_known_and_has_an_empty_list(tmp_path: Path) -> None:
    world = small_world(users=3, movies=4, ratings=12)
    settings = world_in(tmp_path / "state", world)
    nightly(settings, LAST)
    found = query.recommend(settings, "2", 10)
    assert (found["recommendations"], found["short_reason"], found["segment"]) == ([], "catalogue_exhausted", "warm")
    with pytest.raises(NotFound):
        query.recommend(settings, "02", 10)


def test_a_night_without_a_single_list_is_published_and_says_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    world = small_world(users=6, movies=4, ratings=24)
    settings = world_in(tmp_path / "state", Catalogue(world.ratings, movies=world.movies))
    assert nightly(settings, LAST)["status"] == "published"
    (said,) = (record for record in caplog.records if record.getMessage() == "score.no_lists")
    assert (said.levelname, said.why) == ("WARNING", "no movie is left to list: 6 users, 4 candidates")  # type: ignore[attr-defined]
    assert sql(settings, "SELECT count(*) FROM recommendations") == [(0,)]


@pytest.mark.faults("B1.15")
def test_what_was_rolled_back_is_not_rolled_back_to_and_goes_before_what_was_good(settings: Settings) -> None:
    made = [nightly(settings, FIRST, Options(force="again"))["run_id"] for _ in range(3)]
    for _ in range(2):
        publish.rollback(settings)
    assert publish.visible(settings)[str(FIRST)]["run_id"] == made[0]
    nightly(settings, FIRST + timedelta(days=1))
    files = {warehouse.run_id_of(path) for path in warehouse.versions(settings.published)}
    assert made[0] in files
    publish.rollback(settings)
    assert publish.visible(settings) == {str(FIRST): publish.visible(settings)[str(FIRST)]}
    assert publish.visible(settings)[str(FIRST)]["run_id"] == made[0]


def test_a_rollback_that_is_taken_back_lasts(settings: Settings) -> None:
    nightly(settings, FIRST)
    second = nightly(settings, FIRST + timedelta(days=1))
    publish.rollback(settings)
    publish.rollback(settings, to=second["run_id"])
    assert run.find(settings.journal, settings.lock, second["run_id"])["status"] == "published"
    nightly(settings, LAST)
    assert publish.visible(settings)[str(FIRST + timedelta(days=1))]["run_id"] == second["run_id"]


def test_rollback_shows_the_earlier_lists_and_they_stay(settings: Settings) -> None:
    nightly(settings, LAST - timedelta(days=2))
    nightly(settings, LAST - timedelta(days=1))
    publish.rollback(settings)
    assert query.status(settings)["as_of_date"] == str(LAST - timedelta(days=2))
    nightly(settings, LAST)
    assert sql(settings, "SELECT DISTINCT as_of_date FROM recommendations ORDER BY 1") == [
        (LAST - timedelta(days=2),),
        (LAST,),
    ]
    with pytest.raises(NotFound):
        publish.rollback(settings, to="20200101T000000000Z-000000")


@pytest.mark.faults("B6.5")
def test_old_dates_models_and_files_are_pruned(tmp_path: Path) -> None:
    settings = world_in(tmp_path / "state", publish__retention_dates=2, publish__keep_files=2, publish__keep_models=1)
    for days in (3, 2, 1, 0):
        nightly(settings, LAST - timedelta(days=days))
    assert len(sql(settings, "SELECT DISTINCT as_of_date FROM recommendations")) == 2
    assert len(list(settings.runs.glob("as_of=*"))) == 2
    assert len(list(settings.published.iterdir())) == 2
    assert len(models.versions(settings.models)) == 1


def test_a_date_that_readers_would_not_see_is_refused_before_any_work(tmp_path: Path) -> None:
    settings = world_in(tmp_path / "state", publish__retention_dates=1)
    nightly(settings, LAST)
    with pytest.raises(InvalidInput, match="2026-03-09 would not be published: 1 later dates are there"):
        nightly(settings, LAST - timedelta(days=1))
    pq.write_table(small_world(text_ids=True).ratings, tmp_path / "text.parquet")
    others = dataclasses.replace(settings.input, ratings=str(tmp_path / "text.parquet"))
    kept = dataclasses.replace(settings.publish, retention_dates=2)
    with pytest.raises(
        InvalidInput, match="its ids are user_id string, movie_id string; those of 2026-03-10 are user_id int64"
    ):
        nightly(dataclasses.replace(settings, input=others, publish=kept), LAST - timedelta(days=1))
    assert sql(settings, "SELECT DISTINCT as_of_date FROM recommendations") == [(LAST,)]


@pytest.mark.faults("B4.9")
def test_backfill_makes_missing_dates_and_leaves_the_newest_current(settings: Settings) -> None:
    nightly(settings, LAST)
    done = backfill.backfill(settings, LAST - timedelta(days=2), LAST)
    assert [day["status"] for day in done["dates"]] == ["published", "published"]
    assert sql(settings, "SELECT count(DISTINCT as_of_date), max(as_of_date) FROM recommendations") == [(3, LAST)]
    assert sql(settings, "SELECT DISTINCT as_of_date FROM current_recommendations") == [(LAST,)]
    champion = models.champion(settings.models)
    assert champion is not None
    assert champion.manifest["trained_through"] == "2026-03-11T00:00:00"
    assert backfill.wanted(settings, LAST - timedelta(days=2), LAST, "missing") == []


def test_a_date_that_was_only_staged_is_missing_and_one_that_failed_later_is_not(settings: Settings) -> None:
    nightly(settings, FIRST, Options(until="stage"))
    assert backfill.wanted(settings, FIRST, FIRST, "missing") == [FIRST]
    nightly(settings, LAST)
    with pytest.raises(NothingToRecommend):
        nightly(
            dataclasses.replace(settings, candidates=dataclasses.replace(settings.candidates, min_ratings=10_000)), LAST
        )
    assert backfill.wanted(settings, FIRST, FIRST, "missing") == []  # readers have seen it since
    assert backfill.wanted(settings, LAST, LAST, "missing") == []
    assert backfill.wanted(settings, LAST, LAST, "failed") == [LAST]


@pytest.mark.faults("B4.8")
def test_backfill_goes_on_after_a_bad_date(settings: Settings) -> None:
    done = backfill.backfill(settings, FIRST - timedelta(days=1), FIRST + timedelta(days=1))
    assert [day["status"] for day in done["dates"]] == ["failed", "published", "published"]
    assert done["failed"] == 1
    assert backfill.wanted(settings, FIRST - timedelta(days=1), FIRST, "failed") == [FIRST - timedelta(days=1)]


@pytest.mark.faults("B4.1")
def test_a_second_run_is_told_who_is_busy(settings: Settings) -> None:
    from storage import atomic

    ready = "import sys, time; from pathlib import Path; from storage import atomic\n"
    hold = f"{ready}with atomic.lock(Path({str(settings.lock)!r}), 0, 'the-other-run'):\n    print('held', flush=True); time.sleep(60)"
    with subprocess.Popen([sys.executable, "-c", hold], stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        with pytest.raises(Busy, match=f"the-other-run, pid {other.pid}"):
            nightly(settings, LAST)
        other.kill()
    assert not atomic.is_locked(settings.lock)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
@pytest.mark.faults("B4.5")
def test_a_stopped_run_is_recorded_and_the_next_one_just_works(tmp_path: Path, number: signal.Signals) -> None:
    settings = world_in(tmp_path / "state")
    undisturbed = nightly(world_in(tmp_path / "other"), LAST)
    command = [sys.executable, "-m", "jobs.cli", "nightly", "--date", str(LAST)]
    slow = environment(settings) | {"RECJOB_MODEL_EPOCHS": "100000"}
    with subprocess.Popen(command, env=slow, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as child:
        assert child.stderr is not None
        for line in child.stderr:
            if "train.epoch" in line:
                child.send_signal(number)
                break
        began = time.monotonic()
        child.stderr.read()
        code = child.wait(30)
    assert code == (-9 if number == signal.SIGKILL else 143)
    assert time.monotonic() - began < 10
    status = run.records(settings.journal, settings.lock)[-1]["status"]
    assert status == ("crashed" if number == signal.SIGKILL else "cancelled")
    assert not settings.database.exists()
    assert nightly(settings, LAST)["output_digest"] == undisturbed["output_digest"]
    assert not list(settings.state_dir.rglob(".draft-*"))
