"""Child processes under strace: what they ask of the system, and the system failing or killing them at the n-th call."""

import re
import shutil
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

RENAMES = "rename,renameat,renameat2"
DISK = ("rename", "fsync", "fdatasync", "pwrite64", "unlink")


def _why_not() -> str:
    if not shutil.which("strace"):
        return "strace is not installed"
    done = subprocess.run(["strace", "-o", "/dev/null", "true"], capture_output=True, text=True)
    return "" if done.returncode == 0 else f"strace cannot trace here: {done.stderr.strip()}"


why_not = _why_not()
needed = pytest.mark.skipif(bool(why_not), reason=why_not)


def recjob(
    options: Sequence[str], arguments: Sequence[str], environ: Mapping[str, str], log: Path, before: Sequence[str] = ()
) -> subprocess.CompletedProcess[str]:
    """Run `recjob ARGUMENTS` with all its children under `strace OPTIONS`, which writes to `log`; skips where it cannot."""
    if why_not:
        pytest.skip(why_not)
    traced = ["strace", "-f", "-qq", "-o", str(log), *options, sys.executable, "-m", "jobs.cli", *arguments]
    return subprocess.run([*before, *traced], env=dict(environ), capture_output=True, text=True, timeout=240)


@dataclass(frozen=True)
class Call:
    """One system call of a process."""

    name: str
    number: int
    """The how manieth of its name, from 1: what `when=` counts."""
    paths: tuple[str, ...]
    """Paths of its files, random parts of their names left out."""


def traced(log: Path, calls: Sequence[str] = DISK) -> list[str]:
    """What to put before a command, so that these calls of it are in the file `log`."""
    return [
        "strace",
        "-f",
        "-y",
        "-qq",
        "-s",
        "1",
        "-o",
        str(log),
        "-e",
        f"trace={','.join(calls)}",
        "-e",
        "signal=none",
    ]


def injected(fault: str, call: Call, log: Path = Path("/dev/null")) -> list[str]:
    """What to put before a command, so that `fault` (error=EIO, signal=KILL) meets that call of it, as `met` finds in the log."""
    name, when = call.name, call.number
    arguments = ["-e", f"trace={name}", "-e", f"inject={name}:{fault}:when={when}", "-e", "signal=none"]
    return ["strace", "-f", "-qq", "-o", str(log), *arguments]


def met(log: Path) -> bool:
    """Whether the call came: calls are counted by thread, and of several threads of DuckDB any may write."""
    return "(INJECTED)" in log.read_text()


def calls_in(log: Path) -> list[Call]:
    """The successful calls of the first process of a log, in order."""
    seen: Counter[str] = Counter()
    found = []
    lines = [line.split(maxsplit=1) for line in log.read_text().splitlines()]
    for process, rest in lines:
        name = rest.partition("(")[0]
        if process != lines[0][0] or not name.isidentifier():
            continue
        seen[name] += 1
        if not rest.rstrip().endswith("= 0") and " = -1 " in rest:
            continue
        paths = re.findall(r"<(/[^>]*)>|\"(/[^\"]*)\"", rest)
        found.append(Call(name, seen[name], tuple(_plain(one or other) for one, other in paths)))
    return found


def _plain(path: str) -> str:
    return re.sub(r"20\d{6}T\d+Z-[0-9a-f]{6}", "RUN", re.sub(r"\.draft-[0-9a-f]{32}-", ".draft-", path))


def stopped_child(strace: int, within: float = 60) -> int:
    """The process that strace `strace` traces, once it stands still: for a moment it does so at every call."""
    end, still = time.monotonic() + within, 0
    while time.monotonic() < end:
        children = Path(f"/proc/{strace}/task/{strace}/children").read_text().split()
        stopped = [
            child for child in children if Path(f"/proc/{child}/stat").read_text().rpartition(")")[2].split()[0] in "Tt"
        ]
        still = still + 1 if stopped else 0
        if still == 20:
            return int(stopped[0])
        time.sleep(0.02)
    raise TimeoutError(f"nothing that {strace} traces was stopped")
