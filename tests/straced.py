"""recjob under strace: what it asked the kernel for, and faults that the kernel gives back."""

import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path

import pytest

RENAMES = "rename,renameat,renameat2"


@cache
def _why_not() -> str | None:
    if shutil.which("strace") is None:
        return "needs strace"
    tried = subprocess.run(["strace", "-o", "/dev/null", "true"], capture_output=True, text=True)
    return f"ptrace is not allowed here: {tried.stderr.strip()}" if tried.returncode else None


def recjob(
    options: Sequence[str], arguments: Sequence[str], environ: Mapping[str, str], log: Path, before: Sequence[str] = ()
) -> subprocess.CompletedProcess[str]:
    """Run `recjob ARGUMENTS` with all its children under `strace OPTIONS`, which writes to `log`; skips where it cannot."""
    if why := _why_not():
        pytest.skip(why)
    traced = [
        "strace",
        "-f",
        "-qq",
        "-o",
        str(log),
        *options,
        sys.executable,
        "-m",
        "jobs.cli",
        *arguments,
    ]
    return subprocess.run([*before, *traced], env=dict(environ), capture_output=True, text=True, timeout=240)
