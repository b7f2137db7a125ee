"""One night: wall time, memory and processor time by step, every step in the process that `recjob nightly` is.

    python benchmarks/nightly.py --data ml-1m.zip [--model default] [--repeat 3]
    python benchmarks/nightly.py --made-up 25000000 --repeat 1
    python benchmarks/nightly.py --made-up 1000000 --growth
    python benchmarks/nightly.py --quick

--made-up makes up so many ratings in the shape of MovieLens-25M (generate.py): the lake is written, not ingested. --growth runs
three nights more, with four times the ratings, the users and the movies, each alone; an exponent is the logarithm to base 4 of
how the processor time of the night grew. --quick is --growth with few ratings and `basic`.

The last line is JSON: {"benchmark": "nightly", "figures": {"wall_s": .., "peak_rss_gib": .., "other_share": ..}}; times are
medians over the repeats, memory is the largest, other_share is the processor time of what is neither training nor scoring.
"""

import argparse
import json
import math
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import generate
import numpy as np
import pyarrow.parquet as pq

SHAPE = generate.Shape()


def main() -> None:
    """Run the benchmark and print a table and the line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="a GroupLens zip")
    parser.add_argument("--made-up", type=int, metavar="RATINGS")
    parser.add_argument("--growth", action="store_true")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--model", default="default")
    parser.add_argument("--repeat", type=int, default=3)
    given = parser.parse_args()
    if given.quick:
        given.made_up, given.growth, given.repeat, given.model = given.made_up or 50_000, True, 1, "basic"
    if (given.data is None) == (given.made_up is None):
        parser.error("give --data or --made-up")
    shape = None if given.data else SHAPE.of(given.made_up)
    nights = [night(given.data, shape, given.model) for _ in range(given.repeat)]
    what = given.data.name if given.data else f"{nights[0]['n_ratings']:,} made-up ratings"
    print(f"{platform.machine()}, {os.cpu_count()} cores, {what}, model {given.model}, {given.repeat} nights")
    figures = summary(nights)
    if given.growth:
        for name in ("ratings", "users", "movies"):
            (larger,) = [night(None, shape.times(4, name), given.model)]
            grown = larger["cpu_s"] / statistics.median(record["cpu_s"] for record in nights)
            figures[f"{name}_exponent"] = round(math.log(grown, 4), 3)
            print(f"four times the {name}: {grown:.2f} times the processor time")
    print(json.dumps({"benchmark": "nightly", "figures": figures}))


def summary(nights: list[dict[str, Any]]) -> dict[str, float]:
    """Print a table of the steps; returns the figures."""
    steps: dict[str, list[dict[str, Any]]] = {}
    for record in nights:
        for step in record["steps"]:
            steps.setdefault(step["step"], []).append(step)
    print(f"{'step':<10}{'seconds':>10}{'CPU s':>10}{'peak MB':>10}{'rows':>12}")
    for name, found in steps.items():
        wall, worked = (median(found, what) for what in ("seconds", "cpu_seconds"))
        peak, rows = max(step["peak_rss_mb"] for step in found), found[0]["rows"] or 0
        print(f"{name:<10}{wall:>10.2f}{worked:>10.2f}{peak:>10}{rows:>12,}")
    main_work = sum(median(steps[name], "cpu_seconds") for name in ("train", "score"))
    return {
        **{name: median(nights, name) for name in ("wall_s", "cpu_s", "ingest_s", "again_s") if name in nights[0]},
        "peak_rss_gib": round(max(record["peak_rss_gib"] for record in nights), 3),
        "other_share": round(1 - main_work / median(nights, "cpu_s"), 3),
        **{f"{name}_s": median(found, "seconds") for name, found in steps.items()},
        "users": nights[0]["n_users"],
        "movies": nights[0]["n_movies"],
        "ratings": nights[0]["n_ratings"],
    }


def median(records: list[dict[str, Any]], name: str) -> float:
    """Of one figure over the nights."""
    return round(statistics.median(record[name] for record in records), 2)


def night(data: Path | None, shape: Any, model: str) -> dict[str, Any]:
    """Prepare the ratings, run one night in a child process, and the same night again; its record with what it took."""
    with tempfile.TemporaryDirectory() as folder:
        facts: dict[str, Any] = {}
        if data is not None:
            _, ingested, _ = recjob(folder, "ingest", str(data.resolve()))
            last, facts["ingest_s"] = json.loads(ingested)["last_rated_at"][:10], json.loads(ingested)["seconds"]
        else:
            last = made_up(Path(folder), shape)
        took, printed, usage = recjob(folder, "nightly", "--date", last, RECJOB_MODEL_NAME=model)
        again, _, _ = recjob(folder, "nightly", "--date", last, RECJOB_MODEL_NAME=model)
        facts |= {"wall_s": took, "cpu_s": usage.ru_utime + usage.ru_stime, "again_s": again}
        return json.loads(printed) | facts | {"peak_rss_gib": usage.ru_maxrss / 2**20}


def made_up(folder: Path, shape: Any) -> str:
    """Write a lake and recjob.toml into the folder; returns the last day."""
    random = np.random.default_rng(1)
    generate.write(folder, generate.world(random, shape.users, shape.movies, shape.ratings), random)
    newest = pq.read_table(folder / "ratings" / f"part-{generate.FILES - 1:02d}.parquet", columns=["rated_at"])
    return str(newest["rated_at"][-1].as_py().date())


def recjob(folder: str, *arguments: str, **environment: str) -> tuple[float, str, Any]:
    """Wall seconds, stdout and resource usage of one recjob command."""
    command = [sys.executable, "-m", "jobs.cli", *arguments, "--json", "--quiet"]
    began = time.perf_counter()
    child = subprocess.Popen(command, cwd=folder, env=os.environ | environment, stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    printed = child.stdout.read()
    _, status, usage = os.wait4(child.pid, 0)
    if status:
        raise SystemExit(f"recjob {' '.join(arguments)} failed: {printed}")
    return time.perf_counter() - began, printed, usage


if __name__ == "__main__":
    main()
