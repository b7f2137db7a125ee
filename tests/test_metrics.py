"""Figures for Prometheus: those of the run, readable by Prometheus' own parser, whatever the end of the run."""

from datetime import UTC, datetime
from pathlib import Path

import pytest
from conftest import LAST, world_in
from prometheus_client.parser import text_string_to_metric_families

from jobs.nightly import nightly
from recommender.errors import GateRefused


def figures(path: Path) -> dict[tuple[str, ...], float]:
    """By name and the values of the labels."""
    families = text_string_to_metric_families(path.read_text())
    return {(sample.name, *sample.labels.values()): sample.value for family in families for sample in family.samples}


def test_a_night_leaves_its_figures(tmp_path: Path) -> None:
    file = tmp_path / "metrics" / "recjob.prom"
    settings = world_in(tmp_path / "state", publish__metrics_file=str(file))
    record = nightly(settings, LAST)
    found = figures(file)
    assert found["recjob_run_exit_code",] == 0
    assert found["recjob_users",] == record["n_users"]
    assert found["recjob_step_seconds", "train"] == record["steps"][1]["seconds"]
    assert (
        found["recjob_published_date_timestamp_seconds",]
        == datetime(LAST.year, LAST.month, LAST.day, tzinfo=UTC).timestamp()
    )
    assert found["recjob_published_timestamp_seconds",] <= found["recjob_run_finished_timestamp_seconds",] + 1
    (rmse,) = (m["value"] for m in record["metrics"] if (m["metric"], m["segment"]) == ("rmse", "all"))
    assert found["recjob_holdout", "rmse"] == rmse
    assert file.stat().st_mode & 0o777 == 0o644
    assert list(file.parent.iterdir()) == [file]


def test_a_refused_night_says_so_and_what_readers_still_see(tmp_path: Path) -> None:
    file = tmp_path / "recjob.prom"
    settings = world_in(tmp_path / "state", publish__metrics_file=str(file), gate__max_rmse_ratio=0.01)
    with pytest.raises(GateRefused):
        nightly(settings, LAST)
    found = figures(file)
    assert found["recjob_run_exit_code",] == 4
    assert found["recjob_checks", "fail"] >= 1
    assert ("recjob_published_timestamp_seconds",) not in found
