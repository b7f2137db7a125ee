"""One night on real ratings: wall time and memory by step, every step in the process that `recjob nightly` is.

    python benchmarks/nightly.py --data ml-1m.zip [--model default] [--repeat 3]

The last line is JSON: {"benchmark": "nightly", "figures": {"wall_s": .., "peak_rss_gib": .., ...}}; times are medians over
the repeats, memory is the largest.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

TARGETS = {"wall_s": 180.0, "peak_rss_gib": 3.0}
"""What a night on ML-1M with the `basic` model may take on 2 cores; that with `default`, which trains three parts, is measured
against it, too."""


def main() -> None:
    """Run the benchmark and print a table and the line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="a GroupLens zip")
    parser.add_argument("--model", default="default")
    parser.add_argument("--repeat", type=int, default=3)
    given = parser.parse_args()
    nights = [night(given.data.resolve(), given.model) for _ in range(given.repeat)]
    steps: dict[str, list[dict[str, Any]]] = {}
    for record in nights:
        for step in record["steps"]:
            steps.setdefault(step["step"], []).append(step)
    print(
        f"{platform.machine()}, {os.cpu_count()} cores, {given.data.name}, model {given.model}, {given.repeat} nights"
    )
    print(f"{'step':<10}{'seconds':>10}{'peak MB':>10}{'rows':>12}")
    for name, found in steps.items():
        seconds = statistics.median(step["seconds"] for step in found)
        print(f"{name:<10}{seconds:>10.2f}{max(step['peak_rss_mb'] for step in found):>10}{found[0]['rows'] or 0:>12,}")
    figures = {
        "wall_s": round(statistics.median(record["wall_s"] for record in nights), 2),
        "peak_rss_gib": round(max(record["peak_rss_gib"] for record in nights), 3),
        "ingest_s": round(statistics.median(record["ingest_s"] for record in nights), 2),
        "again_s": round(statistics.median(record["again_s"] for record in nights), 2),
        **{f"{name}_s": round(statistics.median(s["seconds"] for s in found), 2) for name, found in steps.items()},
        "users": nights[0]["n_users"],
        "movies": nights[0]["n_movies"],
        "ratings": nights[0]["n_ratings"],
    }
    for name, target in TARGETS.items():
        print(f"{name}: {figures[name]} of at most {target:g}: {figures[name] / target:.2f}")
    print(json.dumps({"benchmark": "nightly", "figures": figures}))


def night(data: Path, model: str) -> dict[str, Any]:
    """Ingest, run one night in a child process, and the same night again; returns its record with what it took."""
    with tempfile.TemporaryDirectory() as folder:
        _, ingested, _ = recjob(folder, "ingest", str(data))
        last = json.loads(ingested)["last_rated_at"][:10]
        took, printed, usage = recjob(folder, "nightly", "--date", last, RECJOB_MODEL_NAME=model)
        again, _, _ = recjob(folder, "nightly", "--date", last, RECJOB_MODEL_NAME=model)
        record: dict[str, Any] = json.loads(printed)
        facts = {
            "wall_s": took,
            "peak_rss_gib": usage / 2**20,
            "again_s": again,
            "ingest_s": json.loads(ingested)["seconds"],
        }
        return {**record, **facts}


def recjob(folder: str, *arguments: str, **environment: str) -> tuple[float, str, int]:
    """Wall seconds, stdout and peak memory (KiB) of one recjob command."""
    command = [sys.executable, "-m", "jobs.cli", *arguments, "--json", "--quiet"]
    began = time.perf_counter()
    child = subprocess.Popen(command, cwd=folder, env=os.environ | environment, stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    printed = child.stdout.read()
    _, status, usage = os.wait4(child.pid, 0)
    if status:
        raise SystemExit(f"recjob {' '.join(arguments)} failed: {printed}")
    return time.perf_counter() - began, printed, usage.ru_maxrss


if __name__ == "__main__":
    main()
