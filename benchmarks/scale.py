"""What more users cost: nights measured at several sizes, what shards and Ray add, and a model that says how much for how many.

    python benchmarks/scale.py [--users 15625] [--folder /var/tmp] [--measured scale.json]
    python benchmarks/scale.py --quick

A world of --users users, 22 ratings each and a twelfth as many movies is made up (generate.py); then there are 4 and 16 times
the users, and 4 times the movies. Each has a night in a state folder of its own. The model of the smallest scores the users of
the others, of 64 times as many, and of one of 64 parts of these (`score`: nothing is trained). What was measured goes to
--measured; where that file is there, it is read and nothing is run.

shard_efficiency: the processor time of scoring everybody in one process over that of two with half of the shards each;
shard_speedup: seconds of one process on one core over those of two on two, all that a process does counted; ray_speedup: of the
step `score`, one actor against two. *_overhead_s: seconds that shards and Ray add to the smallest night's scoring. rss_*: how
much more memory scoring takes for so many times the users, and how many bytes that is for a user, the ratings included;
rss_part_of_64x_users: for one of 64 parts of 64 times the users.
cpu_error, memory_error: the largest night predicted from the smaller ones, as a share; fit_*: the worst of all sizes.

The model: processor seconds of each step, bytes of memory and of files are sums of a constant and one or two sizes, by least
squares (scale_model.py). The last line is JSON: {"benchmark": "scale", "figures": {name: figure}}.
"""

import argparse
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from statistics import median
from typing import Any

import generate
import nightly
import pyarrow.parquet as pq
from scale_model import ASSUMED, GIB, RATINGS, SIZES, Model, scoring_memory, seen, spent, table

SMALL = {"RECJOB_MODEL_NAME": "basic", "RECJOB_MODEL_EPOCHS": "1", "RECJOB_GATE_MAX_RMSE_RATIO": "10"}


def night(folder: Path, shape: generate.Shape, environment: Mapping[str, str]) -> dict[str, Any]:
    """Make up a lake and run a night on it; what each step took, and how large what it wrote is."""
    last = made_up(folder, shape)
    record = json.loads(nightly.recjob(str(folder), "nightly", "--date", last, **environment)[1])
    state = folder / "state"
    return {
        **{name: record[f"n_{name}"] for name in ("users", "movies", "ratings")},
        "last": last,
        "steps": {step["step"]: step["cpu_seconds"] for step in record["steps"]},
        "parallel": {
            step["step"]: step["cpu_seconds"] / step["seconds"] for step in record["steps"] if step["seconds"]
        },
        "rss": max(step["peak_rss_mb"] for step in record["steps"]) * 2**20,
        "lake": size(folder / "ratings") + size(folder / "movies.parquet"),
        "model": size(state / "models"),
        "lists": size(state / "runs"),
        "published": size(state / "published"),
    }


def made_up(folder: Path, shape: generate.Shape) -> str:
    """Write a lake, and return its last day; in a process of its own, for one hands its peak of memory on to its children."""
    asked = [f"--{name}={getattr(shape, name)}" for name in ("users", "movies", "ratings")]
    subprocess.run([sys.executable, generate.__file__, "--out", folder, *asked], check=True, stdout=subprocess.DEVNULL)
    newest = pq.read_table(folder / "ratings" / f"part-{generate.FILES - 1:02d}.parquet", columns=["rated_at"])
    return str(newest["rated_at"][-1].as_py().date())


def size(path: Path) -> int:
    """Bytes of a file, or of all in a folder."""
    return sum(one.stat().st_size for one in [path, *path.rglob("*")] if one.is_file())


def scored(folder: Path, lake: Path, last: str, **environment: str) -> dict[str, Any]:
    """Score the users of a lake by the model that a state folder has; what it took, and the most memory."""
    paths = {f"RECJOB_INPUT_{name.upper()}": str(lake / where) for name, where in INPUT.items()}
    told = ["--model", "champion", "--no-publish", "--accept-input", "--force", "--reason", "a measurement"]
    record = json.loads(nightly.recjob(str(folder), "score", "--date", last, *told, **paths, **environment)[1])
    step = record["steps"][-1]
    facts = {"users": record["n_users"], "ratings": record["n_ratings"], "rss": step["peak_rss_mb"] * 2**20}
    return facts | {name: step[name] for name in ("seconds", "cpu_seconds")}


INPUT = {"ratings": "ratings/*.parquet", "movies": "movies.parquet"}


def shards(folder: Path, last: str, environment: Mapping[str, str]) -> dict[str, float]:
    """One process on one core that scores everybody, and two on two that score half each."""
    cores = sorted(os.sched_getaffinity(0))[:2] * 2

    def run(*parts: str) -> tuple[float, float]:
        """Seconds until the last has ended, and processor seconds of their scoring."""
        told = ["--model", "champion", "--accept-input", "--json", "--quiet"]
        command = [sys.executable, "-m", "jobs.cli", "score", "--date", last, *told]
        began = time.perf_counter()
        children = [
            subprocess.Popen(
                ["taskset", "-c", str(core), *command, "--shard", part],
                cwd=folder,
                env=os.environ | environment,
                stdout=subprocess.PIPE,
                text=True,
            )
            for core, part in zip(cores, parts, strict=False)
        ]
        printed = [child.communicate()[0] for child in children]
        took = time.perf_counter() - began
        if any(child.returncode for child in children):
            raise SystemExit(f"a shard failed: {printed}")
        steps = [step for text in printed for step in json.loads(text)["steps"] if step["step"] == "score"]
        return took, sum(step["cpu_seconds"] for step in steps)

    one, two = run("1/1"), run("1/2", "2/2")
    return {"shard_efficiency": one[1] / two[1], "shard_speedup": one[0] / two[0]}


def measured(given: argparse.Namespace, root: Path) -> dict[str, Any]:
    """Run everything; what was found, ready for JSON."""
    base = generate.Shape(given.users, max(given.users // 12, 200), RATINGS * given.users)
    more, environment = ([4], SMALL) if given.quick else ([4, 16], {})
    shapes = {"1": base} | ({} if given.quick else {"movies": base.times(4, "movies")})
    shapes |= {str(times): base.times(times, "users", "ratings") for times in more}
    found: dict[str, Any] = {"nights": {name: night(root / name, shape, environment) for name, shape in shapes.items()}}
    first = root / "1"
    last = found["nights"]["1"]["last"]
    alone = {"RECJOB_SCORE_SHARDS": "1"} | environment
    lakes = {name: root / name for name in ("1", *map(str, more))}
    if not given.quick:
        lakes["64"] = root / "64"
        made_up(lakes["64"], base.times(64, "users", "ratings"))
    found["scored"] = {name: scored(first, lake, last, **alone) for name, lake in lakes.items()}
    largest = list(lakes)[-1]
    one = {"RECJOB_INPUT_PART": f"1/{largest}"} | alone
    found["part"] = {"of": largest, **scored(first, lakes[largest], last, **one)}
    found["engine"] = {"plain": found["scored"]["1"]["seconds"]} | {
        name: median(scored(first, first, last, **environment | more)["seconds"] for _ in range(given.repeat))
        for name, more in engines(given.quick).items()
    }
    found["shards"] = shards(root / str(more[0]), found["nights"][str(more[0])]["last"], environment)
    return found


def engines(quick: bool) -> dict[str, dict[str, str]]:
    """The ways to score: by the environment that asks for each."""
    kinds = {"shards": {"RECJOB_SCORE_SHARDS": "8"}}
    if quick:
        return kinds
    kinds["plain"] = {"RECJOB_SCORE_SHARDS": "1"}
    if importlib.util.find_spec("ray"):
        ray = {"RECJOB_SCORE_ENGINE": "ray", "RECJOB_SCORE_SHARDS": "8"}
        kinds |= {f"ray {actors}": ray | {"RECJOB_SCORE_ACTORS": actors} for actors in ("1", "2")}
    return kinds


def figures(found: Mapping[str, Any], model: Model) -> dict[str, float]:
    """What the documents quote."""
    nights, runs, engine = list(found["nights"].values()), found["scored"], found["engine"]
    largest = max(nights, key=lambda one: one["users"])
    smaller = [one for one in nights if one is not largest]
    cpu, memory = Model(smaller).errors(largest)
    worst = [max(errors) for errors in zip(*(model.errors(one) for one in nights), strict=True)]
    told = {
        **found["shards"],
        **{"cpu_error": cpu, "memory_error": memory, "fit_cpu_error": worst[0], "fit_memory_error": worst[1]},
        "rss_bytes_a_user": RATINGS * scoring_memory(found)[0],
        "users_scored": max(run["users"] for run in runs.values()),
        **{f"rss_{name}x_users": run["rss"] / runs["1"]["rss"] for name, run in runs.items() if name != "1"},
        f"rss_part_of_{found['part']['of']}x_users": found["part"]["rss"] / runs["1"]["rss"],
    }
    if "shards" in engine:
        told["shards_overhead_s"] = engine["shards"] - engine["plain"]
    if "ray 1" in engine:
        told |= {"ray_overhead_s": engine["ray 1"] - engine["plain"], "ray_speedup": engine["ray 1"] / engine["ray 2"]}
    return {name: float(f"{value:.4g}") for name, value in told.items()}


def main() -> None:
    """Print tables and the line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--users", type=int)
    parser.add_argument("--repeat", type=int, default=3, help="of the ways to score")
    parser.add_argument("--folder", type=Path, help="where there is room for the lakes; they are removed afterwards")
    parser.add_argument("--measured", type=Path, help="a file for what was measured, or that has it")
    parser.add_argument("--quick", action="store_true")
    given = parser.parse_args()
    given.users, given.repeat = given.users or (1_500 if given.quick else 15_625), 1 if given.quick else given.repeat
    if given.measured and given.measured.exists():
        found = json.loads(given.measured.read_text())
    else:
        with tempfile.TemporaryDirectory(dir=given.folder) as name:
            found = measured(given, Path(name))
        if given.measured:
            given.measured.write_text(json.dumps(found, indent=1))
    model = Model(list(found["nights"].values()))
    print(
        f"{'users':>10}{'movies':>8}{'CPU s':>8}{'said':>8}{'GiB':>7}{'said':>7}  " + "".join(f"{n:>12}" for n in SIZES)
    )
    for one in found["nights"].values():
        said = model.of(one["users"], one["movies"])
        print(f"{one['users']:>10,}{one['movies']:>8,}{spent(seen(one)):>8.1f}{spent(said):>8.1f}", end="")
        print(f"{one['rss'] / GIB:>7.2f}{said['rss'] / GIB:>7.2f}  " + "".join(f"{one[n]:>12,}" for n in SIZES))
    for name, run in found["scored"].items():
        print(f"scored {name:>3} times: {run['users']:,} users, {run['rss'] / GIB:.2f} GiB, {run['seconds']:.1f} s")
    part = found["part"]
    print(
        f"scored a part of {part['of']}: {part['users']:,} users, {part['rss'] / GIB:.2f} GiB, {part['seconds']:.1f} s"
    )
    print(json.dumps(found["engine"]))
    print(f"\n{table(model, found)}\n\n" + "\n".join(f"- {one}" for one in ASSUMED) + "\n")
    print(json.dumps({"benchmark": "scale", "figures": figures(found, model)}))


if __name__ == "__main__":
    main()
