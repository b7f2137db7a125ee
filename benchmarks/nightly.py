"""One night: wall time, memory and processor time by step, every step in the process that `recjob nightly` is.

    python benchmarks/nightly.py --data ml-1m.zip [--model default] [--repeat 3]
    python benchmarks/nightly.py --made-up 25000000 --repeat 1
    python benchmarks/nightly.py --made-up 500000 --growth 1 2 4 8 [--repeat 1]
    python benchmarks/nightly.py --data ml-100k.zip --profile
    python benchmarks/nightly.py --quick

--made-up makes up so many ratings in the shape of MovieLens-25M (generate.py): the lake is written, not ingested. --growth runs
nights with so many times the ratings, the users and the movies, each alone; an exponent is the slope of the logarithm of
processor time over that of the size, by least squares, of the night and of each step. --profile runs one night more under
cProfile, and prints what of recjob the time is spent in. --quick is --growth 1 4 with few ratings and `basic`.

The last line is JSON: {"benchmark": "nightly", "figures": {"wall_s": .., "peak_rss_gib": .., "other_share": ..}}; times are
medians over the repeats, memory is the largest, other_share is the processor time of what is neither training nor scoring.
"""

import argparse
import json
import os
import platform
import pstats
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
    parser.add_argument("--growth", type=int, nargs="+", metavar="TIMES")
    parser.add_argument("--profile", action="store_true")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--model", default="default")
    parser.add_argument("--repeat", type=int, default=3)
    given = parser.parse_args()
    if given.quick:
        given.made_up, given.growth, given.repeat, given.model = given.made_up or 50_000, [1, 4], 1, "basic"
    if (given.data is None) == (given.made_up is None):
        parser.error("give --data or --made-up")
    shape = None if given.data else SHAPE.of(given.made_up)
    nights = [night(given.data, shape, given.model) for _ in range(given.repeat)]
    what = given.data.name if given.data else f"{nights[0]['n_ratings']:,} made-up ratings"
    print(f"{platform.machine()}, {os.cpu_count()} cores, {what}, model {given.model}, {given.repeat} nights")
    figures = summary(nights)
    for name in ("ratings", "users", "movies") if given.growth else ():
        grown = {times: SHAPE.of(given.made_up).times(times, name) for times in given.growth}
        figures |= growth(
            name,
            [
                nights if times == 1 else [night(None, larger, given.model) for _ in range(given.repeat)]
                for times, larger in grown.items()
            ],
        )
    if given.profile:
        profile(given.data, shape, given.model)
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


def growth(name: str, found: list[list[dict[str, Any]]]) -> dict[str, float]:
    """Print the processor time of nights with more and more ratings, users or movies; returns the exponents."""
    sizes = [nights[0][f"n_{name}"] for nights in found]
    spent = {"": [median(nights, "cpu_s") for nights in found]}
    for number, step in enumerate(found[0][0]["steps"]):
        spent[f"{step['step']}_"] = [median([n["steps"][number] for n in nights], "cpu_seconds") for nights in found]
    print(f"{name:<20}" + "".join(f"{size:>14,}" for size in sizes))
    slopes = {}
    for step, seconds in spent.items():
        slopes[f"{step}{name}_exponent"] = slope = round(float(np.polyfit(np.log(sizes), np.log(seconds), 1)[0]), 3)
        print(f"{step.strip('_') or 'the night':<20}" + "".join(f"{s:>14.2f}" for s in seconds) + f"{slope:>10.2f}")
    return slopes


def profile(data: Path | None, shape: Any, model: str) -> None:
    """Print what of recjob's own a night spends its time in, and on imports: seconds with all that is called from there."""
    with tempfile.TemporaryDirectory() as folder:
        last, _ = prepared(folder, data, shape)
        recjob(folder, "nightly", "--date", last, RECJOB_MODEL_NAME=model, profile="night.prof")
        found = pstats.Stats(f"{folder}/night.prof").stats  # type: ignore[attr-defined]
    root, names = Path(__file__).resolve().parents[1], ("jobs", "recommender", "storage")
    ours = [
        (total, calls, f"{Path(file).relative_to(root)}:{line} {function}" if line else function)
        for (file, line, function), (_, calls, _, total, _) in found.items()
        if function == "<built-in method builtins.__import__>"
        or any(Path(file).is_relative_to(root / n) for n in names)
    ]
    for total, calls, what in sorted(ours, reverse=True)[:60]:
        print(f"{total:>8.2f} s {calls:>8,} x  {what}")


def median(records: list[dict[str, Any]], name: str) -> float:
    """Of one figure over the nights."""
    return round(statistics.median(record[name] for record in records), 2)


def night(data: Path | None, shape: Any, model: str) -> dict[str, Any]:
    """Prepare the ratings, run one night in a child process, and the same night again; its record with what it took."""
    with tempfile.TemporaryDirectory() as folder:
        last, facts = prepared(folder, data, shape)
        took, printed, usage = recjob(folder, "nightly", "--date", last, RECJOB_MODEL_NAME=model)
        again, _, _ = recjob(folder, "nightly", "--date", last, RECJOB_MODEL_NAME=model)
        facts |= {"wall_s": took, "cpu_s": usage.ru_utime + usage.ru_stime, "again_s": again}
        return json.loads(printed) | facts | {"peak_rss_gib": usage.ru_maxrss / 2**20}


def prepared(folder: str, data: Path | None, shape: Any) -> tuple[str, dict[str, Any]]:
    """Put the ratings into the folder; returns their last day, and how long it took to ingest them."""
    if data is None:
        return made_up(Path(folder), shape), {}
    ingested = json.loads(recjob(folder, "ingest", str(data.resolve()))[1])
    return ingested["last_rated_at"][:10], {"ingest_s": ingested["seconds"]}


def made_up(folder: Path, shape: Any) -> str:
    """Write a lake and recjob.toml into the folder; returns the last day."""
    random = np.random.default_rng(1)
    generate.write(folder, generate.world(random, shape.users, shape.movies, shape.ratings), random)
    newest = pq.read_table(folder / "ratings" / f"part-{generate.FILES - 1:02d}.parquet", columns=["rated_at"])
    return str(newest["rated_at"][-1].as_py().date())


def recjob(folder: str, *arguments: str, profile: str = "", **environment: str) -> tuple[float, str, Any]:
    """Wall seconds, stdout and resource usage of one recjob command; its `profile` is written into the folder."""
    profiled = ["-m", "cProfile", "-o", profile] if profile else []
    command = [sys.executable, *profiled, "-m", "jobs.cli", *arguments, "--json", "--quiet"]
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
