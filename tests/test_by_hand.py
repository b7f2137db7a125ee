"""What people do between nights: publish what is staged, choose the champion, prune, take an answer away as a file."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import LAST, Recjob, small_world

from jobs import backfill, compare, configuration, forget, nightly, publish, query, registry
from jobs import prune as pruning
from jobs import run as journals
from jobs.nightly import Options
from jobs.settings import Settings
from recommender.errors import GateRefused
from storage import models, runs
from storage.errors import NotFound, QueryRefused

EVE = LAST - timedelta(days=1)


def shown(settings: Settings) -> dict[str, str]:
    return {day: run["run_id"] for day, run in publish.visible(settings).items()}


def status(settings: Settings, run_id: str) -> str:
    return str(journals.find(settings.journal, settings.lock, run_id)["status"])


def test_what_is_staged_is_published_without_a_training_and_an_older_run_of_a_date_can_be_chosen(
    settings: Settings,
) -> None:
    with pytest.raises(NotFound, match="nothing is staged"):
        nightly.release(settings)
    dry = Options(dry_run=True)
    assert nightly.nightly(settings, LAST, dry)["would"] == "score"
    first = nightly.nightly(settings, LAST, Options(until="stage"))
    assert nightly.nightly(settings, LAST, dry)["would"] == "publish"
    assert shown(settings) == {}
    done = nightly.release(settings)
    assert (done["status"], [step["step"] for step in done["steps"]]) == ("published", ["publish"])
    assert done["output_digest"] == first["output_digest"]
    assert shown(settings) == {str(LAST): first["run_id"]}
    assert nightly.release(settings)["status"] == "unchanged"
    looked = nightly.nightly(settings, LAST, dry)
    assert (looked["status"], looked["would"]) == ("checked", "nothing")
    assert nightly.nightly(settings, LAST, Options(dry_run=True, force="again"))["would"] == "score"
    second = nightly.nightly(settings, LAST, Options(until="publish", force="again"))
    assert shown(settings) == {str(LAST): second["run_id"]}
    nightly.release(settings, first["run_id"][:-2])
    assert shown(settings) == {str(LAST): first["run_id"]}
    assert status(settings, second["run_id"]) == "rolled_back"
    nightly.release(settings, second["run_id"])
    assert shown(settings) == {str(LAST): second["run_id"]}
    with pytest.raises(NotFound, match="2 staged runs begin with"):
        nightly.release(settings, "2")


def test_a_plan_that_goes_live_with_another_date_is_published_in_the_journal_too(settings: Settings) -> None:
    planned = nightly.nightly(settings, EVE, Options(until="stage"))
    assert status(settings, planned["run_id"]) == "staged"
    nightly.nightly(settings, LAST, Options(until="publish"))
    assert shown(settings)[str(EVE)] == planned["run_id"]
    assert status(settings, planned["run_id"]) == "published"
    dates = compare.diff(settings, str(EVE), str(LAST))
    assert dates["one"] == planned["run_id"]


def test_nights_are_scored_by_the_model_that_is_pinned_until_it_is_not(settings: Settings) -> None:
    with pytest.raises(NotFound):
        registry.promote(settings, "champion", pinned=True)
    first = nightly.nightly(settings, EVE)["model_version"]
    assert registry.promote(settings, "champion", pinned=True) == {"champion": first, "before": first, "pinned": True}
    pinned = nightly.nightly(settings, LAST)
    assert (pinned["status"], pinned["model_version"]) == ("published", first)
    assert [step["step"] for step in pinned["steps"]] == ["check", "score", "publish"]
    assert nightly.nightly(settings, LAST)["status"] == "unchanged"
    trained = nightly.nightly(settings, LAST, Options(until="train"))["model_version"]
    assert [row["pinned"] for row in registry.listed(settings)["models"]] == [True, False]
    forget.forget(settings, ["3"])  # the pin stays where the model is stored anew without somebody
    (kept,) = [row for row in registry.listed(settings)["models"] if row["pinned"]]
    assert kept["version"] != first
    registry.unpin(settings)
    night = nightly.nightly(settings, LAST)
    assert night["status"] == "published"
    assert night["model_version"] not in (first, kept["version"], trained)
    assert models.champion(settings.models).version == night["model_version"]  # type: ignore[union-attr]
    registry.promote(settings, kept["version"], pinned=False)
    models.amend(settings.models, night["model_version"], status="refused")
    with pytest.raises(GateRefused):
        registry.promote(settings, night["model_version"], pinned=False)
    assert models.champion(settings.models).version == kept["version"]  # type: ignore[union-attr]


def test_what_is_named_counts_beside_a_pin_and_a_model_of_a_later_date_is_told(
    settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    late = nightly.nightly(settings, LAST)["model_version"]
    registry.promote(settings, late, pinned=True)
    done = backfill.backfill(settings, EVE, EVE)
    (night,) = (journals.find(settings.journal, settings.lock, row["run_id"]) for row in done["dates"])
    assert (night["status"], night["model_version"]) == ("published", late)
    assert "model.from_future" in [record.message for record in caplog.records if record.levelname == "WARNING"]
    (verdict,) = query.query(
        settings, "SELECT stage, verdict, message FROM checks WHERE check_name = 'model_from_future'"
    )["rows"]
    assert verdict[:2] == ["model", "warn"]
    assert f"after the end of {EVE}" in verdict[2]
    caplog.clear()
    named = nightly.nightly(settings, EVE, Options(model="train"))
    assert named["model_version"] not in (late, None)
    assert models.champion(settings.models).version == late  # type: ignore[union-attr]
    assert "model_from_future" not in {check["check_name"] for check in named["checks"]}
    assert "model.from_future" not in caplog.messages


def test_pruning_by_hand_removes_what_is_no_longer_kept_and_an_answer_is_saved_with_its_types(
    settings: Settings, tmp_path: Path
) -> None:
    for day in (EVE, LAST):
        nightly.nightly(settings, day)
    fewer = configuration.load(None, {}, {"state_dir": settings.state_dir, "publish.retention_dates": 1})
    done = pruning.by_hand(fewer)
    assert len(done["removed"]) == 1
    assert done["freed_bytes"] > 0
    assert pruning.by_hand(fewer)["removed"] == []
    anew = nightly.nightly(settings, LAST, Options(until="stage", force="again"))
    assert pruning.by_hand(fewer)["removed"] == [], "what readers see is kept beside what is staged since"
    assert {one.run_id for one in runs.every(settings.runs)} == {anew["run_id"], *shown(settings).values()} - {
        shown(settings)[str(EVE)]
    }
    target = tmp_path / "answer.parquet"
    statement = (
        "SELECT as_of_date, rank, genres FROM current_recommendations JOIN user_status USING (as_of_date, user_id)"
    )
    saved = query.save(settings, statement, target)
    table = pq.read_table(target)
    assert (saved["rows"], saved["columns"]) == (table.num_rows, ["as_of_date", "rank", "genres"])
    assert table.schema.types == [pa.date32(), pa.int16(), pa.list_(pa.string())]
    for wrong in ("SELECT 1; SELECT 2", "SELECT nothing FROM runs", "COPY runs TO 'x'"):
        with pytest.raises(QueryRefused):
            query.save(settings, wrong, target)
    with pytest.raises(QueryRefused, match="more than 3 rows"):
        query.save(settings, statement, target, max_rows=3)
    assert pq.read_table(target) == table


def test_who_ingests_beside_ratings_of_their_own_is_told_and_runs_are_compared_by_word(
    recjob: Recjob, tmp_path: Path
) -> None:
    pq.write_table(small_world(seed=3).ratings, tmp_path / "more.parquet")
    told = recjob("ingest", "more.parquet", RECJOB_INPUT_RATINGS="own.parquet")
    assert told.returncode == 0, told.stderr
    assert "next: take out input.ratings (own.parquet): a night reads the lake only without it" in told.stdout
    assert "next: recjob nightly --date 2026-03-10" in recjob("ingest", "more.parquet").stdout
    before = datetime.now(UTC).date()
    failed = recjob("runs", "diff", "today", "yesterday")
    assert failed.returncode == 8
    assert any(f"there are no lists of a run '{day}'" in failed.stderr for day in {before, datetime.now(UTC).date()})
