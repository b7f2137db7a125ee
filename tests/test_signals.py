"""A signal ends the process with its code, whatever native code makes of the exception that it raises."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
BEGIN = """
import os, signal
from jobs import signals
signal.signal(signal.SIGINT, signal.default_int_handler)  # which a shell's background jobs do not have
signals.heed()

def native(number, error=None):  # swallows what the signal raises, or makes another error of it
    try:
        os.kill(os.getpid(), number)
        signal.pause()
    except BaseException:
        if error is not None:
            raise error from None
"""
both = pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, -signal.SIGINT), (signal.SIGTERM, 143)])


def ended(script: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", BEGIN + script], cwd=ROOT, capture_output=True, text=True, timeout=60)


@both
def test_an_error_that_follows_a_signal_is_told_as_the_signal(number: int, code: int) -> None:
    done = ended(f"with signals.told():\n    native({number:d}, ValueError('internal'))")
    assert done.returncode == code, done.stderr


@both
def test_a_swallowed_signal_is_raised_at_the_next_look(number: int, code: int) -> None:
    done = ended(f"native({number:d})\nprint('on')\nsignals.check()\nprint('never')")
    assert (done.returncode, done.stdout) == (code, "on\n"), done.stderr


def test_without_a_signal_errors_are_themselves() -> None:
    done = ended("signals.check()\nwith signals.told():\n    raise ValueError('as it is')")
    assert (done.returncode, done.stderr.splitlines()[-1]) == (1, "ValueError: as it is")


@pytest.mark.parametrize("module", ["click", "jobs.lookups"])
def test_an_interrupt_while_modules_are_imported_ends_without_a_traceback(tmp_path: Path, module: str) -> None:
    shell = [sys.executable, "-c", "import os, signal, sys\nsignal.signal(signal.SIGINT, signal.default_int_handler)\n"
             "os.execv(sys.argv[1], sys.argv[1:])"]  # fmt: skip
    command = [
        *shell,
        sys.executable,
        "-X",
        "importtime",
        "-m",
        "jobs",
        "--state-dir",
        str(tmp_path),
        "schedule",
        "run",
    ]
    with subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        assert any(line.split("|")[-1].strip() == module for line in process.stderr)
        process.send_signal(signal.SIGINT)
        told = [line for line in process.stderr if not line.startswith("import time:")]
    assert process.returncode == 130
    assert "Traceback" not in "".join(told), told


def test_an_ignored_interrupt_stays_ignored() -> None:
    script = "signal.signal(signal.SIGINT, signal.SIG_IGN)\nsignals.heed()\nos.kill(os.getpid(), signal.SIGINT)"
    assert ended(f"{script}\nsignals.check()").returncode == 0
