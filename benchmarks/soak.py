"""Nights back to back, killed at random, while two processes read: whatever is lost, left behind or grows is counted.

    python benchmarks/soak.py [--minutes 60] [--ratings 20000] [--repeat 1]
    python benchmarks/soak.py --quick

Every second night, and the first, is killed (SIGKILL) after a random part of the time that a whole one takes; then the date is
run again. Each night is of the day after the one before. Meanwhile a scheduler (`recjob schedule run`, a night each minute)
works in a state folder of its own, and every second night that it starts is killed, too. The last line is JSON:
{"benchmark": "soak", "figures": {..}}: kills, publishes and reads as counts; reader_errors: reads that failed, saw a list that
was not whole, or went back in time; lost_dates: of those that should be published at the end; leaked_files: drafts, logs, files
put aside, and published files, dates and models beyond those that are kept; rss_growth_mb: of the nights, the last quarter
beside the first, and of the readers, whichever is more; scheduled, scheduled_kills: nights that the scheduler began, and those
that were killed; scheduler_rss_growth_mb, scheduler_fd_growth: of its process, from its first night to the end.
"""

import argparse
import json
import os
import random
import resource
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from contextlib import suppress
from datetime import date, timedelta
from pathlib import Path
from statistics import median
from typing import Any

import duckdb
import nightly

KEEP = {"RECJOB_PUBLISH_RETENTION_DATES": "7", "RECJOB_PUBLISH_KEEP_FILES": "3", "RECJOB_PUBLISH_KEEP_MODELS": "3"}
QUICK_MODEL = {"RECJOB_MODEL_NAME": "basic", "RECJOB_MODEL_EPOCHS": "2", "RECJOB_GATE_MAX_RMSE_RATIO": "10"}
READER = """
import json, resource, sys, time
from pathlib import Path
import duckdb
database, stop = Path(sys.argv[1]), Path(sys.argv[2])
reads, errors, newest, first = 0, 0, "", 0
def rss(): return int(open("/proc/self/statm").read().split()[1]) * resource.getpagesize() / 2**20
while not stop.exists():
    if not database.exists() and not newest:
        time.sleep(0.1)
        continue
    try:
        with duckdb.connect(str(database), read_only=True) as connection:
            broken = connection.execute(
                "SELECT count(*) FROM (SELECT max(rank) AS last, count(*) AS n, count(DISTINCT run_id) AS runs "
                "FROM recommendations GROUP BY as_of_date, user_id) WHERE last <> n OR runs <> 1").fetchall()[0][0]
            day = str(connection.execute("SELECT max(as_of_date) FROM recommendations").fetchall()[0][0])
        errors += bool(broken) or day < newest
        newest = day
    except duckdb.Error as error:
        print(error, file=sys.stderr)
        errors += 1
    reads += 1
    first = rss() if reads == 20 else first
    time.sleep(0.05)
print(json.dumps([reads, errors, rss() - first if first else 0]))
"""


def main() -> None:
    """Soak, and print the line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--ratings", type=int, default=20_000)
    parser.add_argument("--repeat", type=int, default=1, help="soaks, each in a folder of its own; counts are added up")
    parser.add_argument("--quick", action="store_true", help="as short as it can be: one kill, two nights")
    given = parser.parse_args()
    figures: Counter[str] = Counter()
    for seed in range(given.repeat):
        with tempfile.TemporaryDirectory() as folder:
            found = soak(Path(folder), 0 if given.quick else 60 * given.minutes, given.ratings, random.Random(seed))
        grown = {name: max(figures[name], found.pop(name)) for name in list(found) if "growth" in name}
        figures.update(found)
        for name, most in grown.items():
            figures[name] = most
    for name, figure in figures.items():
        print(f"{name:<24}{figure:>10,.4g}")
    print(json.dumps({"benchmark": "soak", "figures": figures}))


def soak(folder: Path, seconds: float, ratings: int, dice: random.Random) -> dict[str, float]:
    """Nights for so many seconds, at least two and one that was killed; returns the figures."""
    last = date.fromisoformat(nightly.made_up(folder, nightly.SHAPE.of(ratings)))
    state, stop = folder / "state", folder / "stop"
    command = [sys.executable, "-c", READER, str(state / "recommendations.duckdb"), str(stop)]
    readers = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    scheduled = Scheduled(folder)
    day, kills, took, end = last - timedelta(days=365), 0, [6.0], time.monotonic() + seconds
    published: list[date] = []
    killed = False
    try:
        while not kills or killed or len(published) < 2 or time.monotonic() < end:  # the last night is a whole one
            patience = dice.uniform(0, 1.1) * median(took[-9:]) if (len(published) + kills) % 2 == 0 else None
            began = time.monotonic()
            if killed := one_night(folder, day, patience):
                kills += 1
                continue
            took.append(time.monotonic() - began)
            published.append(day)
            day += timedelta(days=1)
    finally:
        stop.touch()
        by_the_clock = scheduled.end()
        read = [json.loads(reader.communicate()[0].splitlines()[-1]) for reader in readers]  # DuckDB shows its progress
    left = leaked(state)
    for path in left:
        print(f"left behind: {path}", file=sys.stderr)
    return {
        "kills": kills,
        "publishes": len(published),
        "reads": sum(reads for reads, _, _ in read),
        "reader_errors": sum(errors for _, errors, _ in read),
        "lost_dates": len(set(published[-7:]) - set(shown(state))),
        "leaked_files": len(left),
        "rss_growth_mb": round(max(growth_of_nights(state), *(growth for _, _, growth in read)), 1),
        **by_the_clock,
    }


class Scheduled:
    """A scheduler with a night each minute in a state folder of its own; every second night of it is killed."""

    def __init__(self, folder: Path) -> None:
        self.begun, self.killed, self.ended = 0, 0, threading.Event()
        command = [sys.executable, "-m", "jobs.cli", "--state-dir", str(folder / "scheduled"), "schedule", "run"]
        every_minute = KEEP | QUICK_MODEL | {"RECJOB_SCHEDULE_CRON": "* * * * *"}
        self.log = (folder / "scheduler.log").open("wb")
        self.process = subprocess.Popen(
            command, cwd=folder, env=os.environ | every_minute, stdout=self.log, stderr=self.log
        )
        self.held: list[tuple[float, int]] = []
        """MB and open files of the scheduler's process, each second from the end of its first night on."""
        self.watch = threading.Thread(target=self._watch)
        self.watch.start()

    def _watch(self) -> None:
        proc, seen, dice = Path(f"/proc/{self.process.pid}"), list[int](), random.Random(0)
        while not self.ended.wait(1):
            with suppress(OSError):  # a thread or the scheduler ended just now
                children = [int(pid) for task in proc.glob("task/*/children") for pid in task.read_text().split()]
                for pid in set(children) - set(seen):
                    seen.append(pid)
                    self.begun += 1
                    if len(seen) % 2 == 0 and not self.ended.wait(dice.uniform(0, 10)):
                        os.kill(pid, signal.SIGKILL)
                        self.killed += 1
                if len(seen) > 1 or (seen and not children):
                    pages = int((proc / "statm").read_text().split()[1])
                    self.held.append((pages * resource.getpagesize() / 2**20, len(list((proc / "fd").iterdir()))))

    def end(self) -> dict[str, float]:
        """End it as systemd would; returns its figures."""
        self.ended.set()
        self.watch.join()
        if (code := self.process.poll()) is not None:
            raise SystemExit(f"the scheduler ended with {code}: {self.log.name}")
        self.process.terminate()
        self.process.wait(30)
        self.log.close()
        (first_mb, first_files), (last_mb, last_files) = (
            (self.held[0], self.held[-1]) if self.held else ((0, 0), (0, 0))
        )
        return {
            "scheduled": self.begun,
            "scheduled_kills": self.killed,
            "scheduler_rss_growth_mb": round(last_mb - first_mb, 1),
            "scheduler_fd_growth": last_files - first_files,
        }


def one_night(folder: Path, day: date, patience: float | None) -> bool:
    """Run a night, and kill it after so many seconds (None: never); whether it was killed."""
    command = [sys.executable, "-m", "jobs.cli", "nightly", "--date", str(day), "--quiet"]
    child = subprocess.Popen(command, cwd=folder, env=os.environ | KEEP | QUICK_MODEL, stdout=subprocess.DEVNULL)
    try:
        code = child.wait(patience)
    except subprocess.TimeoutExpired:
        child.kill()
        code = child.wait()
    if code not in (0, -9):
        raise SystemExit(f"the night of {day} ended with {code}")
    return code != 0


def shown(state: Path) -> list[date]:
    """The dates that readers see."""
    with duckdb.connect(str(state / "recommendations.duckdb"), read_only=True) as connection:
        return [day for (day,) in connection.execute("SELECT DISTINCT as_of_date FROM recommendations").fetchall()]


def leaked(state: Path) -> list[Path]:
    """Files that a finished night leaves nobody any use for."""
    kept = {"published/*": 3, "runs/as_of=*": 7, "models/2*": 4}  # of models the champion, too
    beyond = [path for pattern, n in kept.items() for path in sorted(state.glob(pattern))[:-n]]
    marks = (".draft-", ".aside-", ".wal")
    return [path for path in state.rglob("*") if any(mark in path.name for mark in marks)] + beyond


def growth_of_nights(state: Path) -> float:
    """MB by which the last quarter of the finished nights needed more memory than the first, medians."""
    records: list[dict[str, Any]] = [
        json.loads(path.read_text()) for path in sorted((state / "journal").glob("*.json"))
    ]
    peaks = [
        record["peak_rss_mb"] for record in records if record["status"] == "published" and len(record["steps"]) == 4
    ]
    part = max(1, len(peaks) // 4)
    return median(peaks[-part:]) - median(peaks[:part]) if peaks else 0.0


if __name__ == "__main__":
    main()
