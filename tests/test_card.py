"""Model cards: of a manifest made by hand, and of a version that was really trained."""

import json
import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import LAST, document

from jobs import card, registry
from jobs.nightly import nightly
from jobs.settings import Settings
from recommender.config import RECIPES


def row(metric: str, value: float, n: int, segment: str = "all", around: float | None = None) -> dict[str, Any]:
    ends = {"ci_low": None, "ci_high": None}
    if around is not None:
        ends = {"ci_low": value - around, "ci_high": value + around}
    return {"segment": segment, "metric": metric, "value": value, "n": n, **ends}


MANIFEST: dict[str, Any] = {
    "version": "20260310-abcdef12",
    "name": "default",
    "status": "accepted",
    "note": None,
    "created_at": "2026-03-11T02:00:00.000",
    "trained_through": "2026-03-11T00:00:00",
    "parameters": 12345,
    "digest": "ab" * 32,
    "recipe": json.loads(json.dumps(RECIPES["default"].as_json())),
    "rating_scale": [0.5, 5.0],
    "history": [{"number": 1, "train_rmse": 1.2, "holdout_rmse": 1.1}, {"number": 2, "train_rmse": 1.0, "holdout_rmse": 1.0}],
    "features": {"users": ["age 18", "job: a|b"], "movies": ["Drama"]},
    "lineage": {
        "ratings": 50_000,
        "users": 400,
        "movies": 900,
        "first_rated_at": "2025-01-01T10:00:00",
        "last_rated_at": "2026-03-10T23:00:00",
        "holdout": 0.1,
        "training": "f" * 64,
    },
    "metrics": [
        row("rmse", 0.95, 5000, around=0.02),
        row("mae", 0.75, 5000, around=0.02),
        row("rmse", 0.9, 4000, "warm", 0.03),
        row("rmse", 1.15, 1000, "cold_user", 0.04),
        row("mean_rmse", 1.1, 5000, around=0.02),
        row("biases_rmse", 0.93, 5000, around=0.02),
        row("biases_rmse", 0.88, 4000, "warm", 0.02),
        row("champion_rmse", 0.96, 5000, around=0.02),
        row("ndcg@10", 0.2, 300, around=0.01),
        row("hit_rate@10", 0.5, 300, around=0.02),
        row("coverage@10", 0.125, 300),
        row("EASE_ndcg@10", 0.22, 300, around=0.01),
        row("EASE_hit_rate@10", 0.55, 300, around=0.02),
        row("recent popularity_ndcg@10", 0.1, 300, around=0.01),
    ],
    "checks": [{"stage": "model", "check_name": "holdout_rmse", "verdict": "pass", "message": "0.95 is within the limit"}],
}  # fmt: skip


def rows(page: str, first: str) -> list[list[str]]:
    """The lines of the table whose header begins with `first`, the header first, as cells."""
    lines = page.splitlines()
    at = next(number for number, line in enumerate(lines) if line.startswith(f"| {first} |"))
    found = []
    for line in lines[at:]:
        if not line.startswith("| "):
            break
        found.append([cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]])
    assert len({len(cells) for cells in found}) == 1, first
    return [found[0], *found[2:]]


def test_a_card_says_whose_each_figure_is() -> None:
    found = card.card(MANIFEST)
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    of = [(metric["of"], metric["metric"]) for metric in found["metrics"] if metric["segment"] == "all"]
    assert of == [
        ("model", "rmse"), ("model", "mae"), ("mean", "rmse"), ("biases", "rmse"), ("champion", "rmse"),
        ("model", "ndcg@10"), ("model", "hit_rate@10"), ("model", "coverage@10"),
        ("EASE", "ndcg@10"), ("EASE", "hit_rate@10"), ("recent popularity", "ndcg@10"),
    ]  # fmt: skip
    assert found["data"]["users"] == 400
    assert found["holdout"] == {"share": 0.1, "ratings": 5000}
    assert found["epochs"] == 2


def test_the_limits_are_facts_of_the_manifest() -> None:
    told = "\n".join(card.card(MANIFEST)["limits"])
    assert "no rating given at or after 2026-03-11T00:00:00 UTC" in told
    assert "20 % of the ratings held out (1,000 of 5,000) are of users without a rating" in told
    assert "RMSE 1.150 there, against 0.900 where both user and movie had some" in told
    assert "The RMSE of biases is better: 0.930, against 0.950." in told
    assert "The NDCG@10 of EASE is better: 0.220, against 0.200." in told
    assert "champion is better" not in told
    assert "mean is better" not in told
    assert "show 12.5 % of the movies" in told
    assert "clipped to 0.5 to 5" in told
    assert "not on random ones" in told
    assert "new ratings count without a new training" in told
    by_id = card.card(MANIFEST | {"recipe": RECIPES["basic"].as_json()})
    assert any("knows users by their ids" in limit for limit in by_id["limits"])
    refused = card.card(MANIFEST | {"status": "forced", "note": "the data moved"})
    assert refused["limits"][0] == "It did not pass its checks. It was used all the same: the data moved."


def test_the_page_has_every_fact_in_tables_of_one_width() -> None:
    page = card.markdown(card.card(MANIFEST))
    assert page.startswith("# Model card: default 20260310-abcdef12\n")
    assert ["first rated at", "2025-01-01T10:00:00"] in rows(page, "fact")
    errors = rows(page, "segment")
    assert errors[0] == ["segment", "ratings", "RMSE", "MAE", "RMSE of mean", "RMSE of biases", "RMSE of champion"]
    assert errors[1] == ["all", "5,000", "0.950 (0.930 to 0.970)", "0.750 (0.730 to 0.770)", "1.100", "0.930", "0.960"]
    assert [cells[0] for cells in errors[1:]] == ["all", "warm", "cold user"]
    lists = rows(page, "lists of")
    assert lists[0] == ["lists of", "users", "ndcg@10", "hit_rate@10", "coverage@10"]
    assert lists[1:] == [
        ["model", "300", "0.200 (0.190 to 0.210)", "0.500 (0.480 to 0.520)", "0.125"],
        ["EASE", "300", "0.220 (0.210 to 0.230)", "0.550 (0.530 to 0.570)", ""],
        ["recent popularity", "300", "0.100 (0.090 to 0.110)", "", ""],
    ]
    assert ["users", "2", "age 18, job: a\\|b"] in rows(page, "of")
    assert ["learning_rate", "0.02"] in rows(page, "hyper-parameter")
    assert ["holdout_rmse", "pass", "0.95 is within the limit"] in rows(page, "check")
    assert "the newest 10 % of the ratings, 5,000 of them" in page


def test_a_manifest_that_says_little_makes_a_short_card() -> None:
    least = {"version": "20260310-abcdef12", "recipe": RECIPES["basic"].as_json(), "lineage": {"training": "f"}}
    found = card.card(least | {"created_at": "2026-03-11T02:00:00", "name": "a | <b>\nc", "metrics": [], "history": []})
    assert found["data"] == dict.fromkeys(("ratings", "users", "movies", "first_rated_at", "last_rated_at"))
    assert "It was not measured: no rating was held out." in found["limits"]
    page = card.markdown(found)
    assert page.startswith("# Model card: a \\| &lt;b> c 20260310-abcdef12\n")
    assert "no rating was held out" in page
    assert not [heading for heading in ("Predicted stars", "Lists", "Verdicts", "Features") if f"# {heading}" in page]


def test_the_card_of_a_version_that_was_trained(settings: Settings, tmp_path: Path) -> None:
    nightly(settings, LAST)
    manifest = registry.shown(settings, "champion")
    found = card.card(manifest)
    assert (found["version"], found["data"]["ratings"]) == (manifest["version"], 600)
    (rmse,) = (m for m in manifest["metrics"] if (m["segment"], m["metric"]) == ("all", "rmse"))
    assert found["holdout"]["ratings"] == rmse["n"]
    assert found["verdicts"][0]["message"] == manifest["checks"][0]["message"]
    assert {metric["of"] for metric in found["metrics"]} >= {"model", "mean", "biases"}
    written = card.write(found, tmp_path / "card.md")
    assert rows(written.read_text(), "segment")[1][:2] == ["all", str(rmse["n"])]


@pytest.mark.slow
def test_the_command_prints_the_page_or_writes_it(
    recjob: Callable[..., subprocess.CompletedProcess[str]], settings: Settings, tmp_path: Path
) -> None:
    nightly(settings, LAST)
    shown = recjob("models", "card", "champion")
    assert (shown.returncode, shown.stderr) == (0, "")
    assert recjob("models", "card", "champion", "--to", "card.md").stdout == "card.md\n"
    assert (tmp_path / "card.md").read_text() == shown.stdout
    told = document(recjob("models", "card", "champion", "--json"))
    assert told["schema"] == "recjob.models-card/1"
    assert {"data", "holdout", "metrics", "verdicts", "recipe", "features", "epochs", "limits"} <= set(told)
    assert recjob("models", "card", "20260101-abcdef12").returncode == 8
