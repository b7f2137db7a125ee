"""The scripts in benchmarks/ still run, and print the figures that the documents quote. Nothing here looks at times."""

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import real_data

ROOT = Path(__file__).resolve().parents[1]
SCRIPTS = {
    "reading": (["--ratings", "30000"], {"encode_vs_unique", "read_share_of_epoch", "read_vs_pyarrow", "night_read_s"}),
    "publishing": (["--rows", "20000", "--dates", "2"], {"vs_ctas", "bytes_per_row", "attach_lookup_p50_ms"}),
    "training": (["--ratings", "20000"], {"mlp_vs_tutorial", "mlp_vs_ceiling", "default_vs_ceiling"}),
    "scoring": (
        ["--ratings", "50000", "--movies", "2000"],
        {
            "factor_vs_gemm",
            "grid_vs_gemm_peak",
            "screen_vs_grid_60k",
            "screen_vs_grid_10k",
            "screen_recall",
            "rss_4x_users",
        },
    ),
    "scale": (["--users", "500"], {"shard_efficiency", "users_scored", "rss_4x_users"}),
    "soak": (["--ratings", "5000"], {"kills", "publishes", "reads"}),
    "nightly": (
        ["--made-up", "20000"],
        {"wall_s", "peak_rss_gib", "other_share", "ratings_exponent", "users_exponent"},
    ),
}
"""Arguments that make a script small, and the figures that it prints at least."""


@pytest.mark.slow
@pytest.mark.parametrize("name", SCRIPTS)
def test_a_benchmark_runs_and_prints_its_figures(name: str, tmp_path: Path) -> None:
    arguments, figures = SCRIPTS[name]
    printed = figures_of(name, ["--repeat", "1", *arguments], tmp_path)
    assert printed.keys() >= figures
    assert all(math.isfinite(figure) for figure in printed.values())
    assert all(printed[figure] > 0 for figure in figures if not figure.endswith("_exponent"))


@pytest.mark.slow
def test_what_parts_cost_is_printed(tmp_path: Path) -> None:
    printed = figures_of("parts", ["--data", str(real_data("ml-latest-small.zip"))], tmp_path)
    assert printed.keys() == {f"{name}_{of}" for name in ("rmse", "ndcg@10", "recall@50") for of in (1, 2)}
    assert all(0 < figure < 2 for figure in printed.values())


def figures_of(name: str, arguments: list[str], folder: Path) -> dict[str, float]:
    """What a benchmark prints in its last line when it is quick."""
    done = subprocess.run(
        [sys.executable, str(ROOT / "benchmarks" / f"{name}.py"), "--quick", *arguments],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        cwd=folder,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    printed = json.loads(done.stdout.splitlines()[-1])
    assert printed["benchmark"] == name
    figures: dict[str, float] = printed["figures"]
    return figures
