"""Days that are made later are the days they would have been, and one that cannot be made does not stop the others."""

import json
import sys
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow.compute as pc
import pytest
from conftest import LAST, brought_back, environment, small_world, world_in

from jobs import backfill, cli, exits, ingest, run
from jobs.nightly import Options, nightly
from jobs.settings import Settings
from storage import atomic, models, runs
from storage.catalogue import Catalogue

DAYS = [LAST - timedelta(days=days) for days in (3, 2, 1, 0)]
BAD = DAYS[1]


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Any:
    """Run `recjob backfill` over DAYS; returns its exit code and its document."""

    def call(settings: Settings, *more: str) -> tuple[int, dict[str, Any]]:
        for name, value in environment(settings).items():
            monkeypatch.setenv(name, value)
        span = ["--from", str(DAYS[0]), "--to", str(DAYS[-1])]
        monkeypatch.setattr(sys, "argv", ["recjob", "backfill", *span, "--json", *more])
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            cli.main()
        assert isinstance(ended.value.code, int)
        return ended.value.code, json.loads(capsys.readouterr().out)

    return call


def until(day: date, after: date | None) -> Catalogue:
    """What of the small world came in after one day and up to another."""
    world = small_world()
    end = datetime.combine(day + timedelta(days=1), datetime.min.time(), UTC)
    begin = (
        datetime.combine(after + timedelta(days=1), datetime.min.time(), UTC)
        if after
        else datetime(1970, 1, 1, tzinfo=UTC)
    )
    at = world.ratings["rated_at"]
    return Catalogue(
        world.ratings.filter(pc.and_(pc.greater_equal(at, begin), pc.less(at, end))), world.movies, world.users
    )


@pytest.mark.faults("B1.1")
@pytest.mark.parametrize("step", ["running", "done"])
def test_what_readers_see_of_a_run_that_was_killed_was_published(tmp_path: Path, step: str) -> None:
    settings = world_in(tmp_path / "state")
    made = nightly(settings, LAST)
    *before, last = made["steps"]
    killed = {
        "status": "running",
        "pid": 0,
        "steps": [*before, last | {"status": step}],
    }  # as one after the flip leaves it
    run.amend(settings.journal, made["run_id"], **killed)
    (record,) = run.records(settings.journal, settings.lock)
    assert record["status"] == ("published" if step == "done" else "crashed")
    assert backfill.wanted(settings, LAST, LAST, "missing") == backfill.wanted(settings, LAST, LAST, "failed") == []
    assert nightly(settings, LAST)["status"] == "unchanged"
    assert run.records(settings.journal, settings.lock)[0]["status"] == "published"


@pytest.mark.slow
@pytest.mark.faults("B4.8")
@brought_back
def test_a_backfill_with_one_bad_day_makes_the_others_as_they_were_made_on_their_days(
    tmp_path: Path, command: Any
) -> None:
    daily = world_in(tmp_path / "daily", until(DAYS[0], None))
    made = {}
    for day, before in zip(DAYS, [None, *DAYS], strict=False):
        if before is not None:
            ingest.append(daily, f"the ratings of {day}", until(day, before), 0.0)
        made[str(day)] = nightly(daily, day)["output_digest"]

    later = world_in(tmp_path / "later")
    damaged = nightly(later, BAD, Options(until="train"))["model_version"]
    weights = later.models / damaged / "weights.npz"
    weights.write_bytes(weights.read_bytes()[:-1])

    code, planned = command(later, "--dry-run")
    assert (code, planned["dates"]) == (exits.DONE, [str(day) for day in DAYS])
    assert not later.runs.exists()

    code, done = command(later)
    assert (code, done["failed"]) == (exits.PARTIAL, 1)
    outcomes = {row["as_of_date"]: row for row in done["dates"]}
    assert [outcomes[str(day)]["status"] for day in DAYS] == ["published", "failed", "published", "published"]
    assert outcomes[str(BAD)]["exit_code"] == exits.INTEGRITY
    assert damaged in outcomes[str(BAD)]["error"]

    atomic.remove(later.models / damaged)
    assert command(later, "--only", "failed", "--dry-run")[1]["dates"] == [str(BAD)]
    code, done = command(later, "--only", "failed")
    assert (code, [row["as_of_date"] for row in done["dates"]]) == (exits.DONE, [str(BAD)])
    assert {str(p.as_of): p.record["output_digest"] for p in runs.partitions(later.runs)} == made
    assert backfill.wanted(later, DAYS[0], DAYS[-1], "all") == DAYS
    assert command(later)[1]["dates"] == []
    assert models.champion(later.models).manifest["trained_through"] == "2026-03-11T00:00:00"  # type: ignore[union-attr]
