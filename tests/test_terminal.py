"""What a real terminal shows: bars that fit, no noise, nothing that it cannot write."""

import fcntl
import os
import pty
import re
import struct
import subprocess
import sys
import termios
from pathlib import Path

import pytest
from conftest import LAST, environment

from jobs.settings import Settings

BAR = """
from jobs.progress import Progress
with Progress.on_terminal(quiet=False).bar("scoring users", 1000) as advance:
    advance(400, "25 users/s")
"""


def on_terminal(command: list[str], columns: int, **environ: str) -> str:
    """All that a child writes to a terminal of so many columns on stderr; its stdout is a pipe."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    told = {"TERM": "xterm-256color"} | environ
    kept = {name: value for name, value in os.environ.items() if name not in ("NO_COLOR", "COLUMNS", "LC_ALL", "LANG")}
    with subprocess.Popen(command, env=kept | told, stderr=theirs, stdout=subprocess.PIPE) as child:
        os.close(theirs)
        shown = b""
        while True:
            try:
                part = os.read(ours, 4096)
            except OSError:  # as Linux says that the other end is closed
                break
            if not part:
                break
            shown += part
        assert child.wait() == 0, shown
    os.close(ours)
    return shown.decode()


def lines(shown: str) -> list[str]:
    """What was to be read at some moment, without colors and movements of the cursor."""
    return [
        line.rstrip() for line in re.split(r"[\r\n]+", re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown)) if line.strip()
    ]


@pytest.mark.parametrize(
    ("columns", "environ", "seen"),
    [
        (100, {}, "scoring users .* 400 of 1,000 25 users/s"),
        (40, {}, "scoring users 400 of 1,000 "),
        (100, {"COLUMNS": "40"}, "scoring users 400 of 1,000 "),
        (100, {"NO_COLOR": "1"}, "scoring users .* 400 of 1,000 25 users/s"),
        (100, {"PYTHONIOENCODING": "ascii"}, "scoring users [- ]+ 400 of 1,000 25 users/s"),
        (100, {"TERM": "dumb"}, None),
    ],
)
def test_a_bar_fits_its_terminal(columns: int, environ: dict[str, str], seen: str | None) -> None:
    shown = on_terminal([sys.executable, "-c", BAR], columns, **environ)
    if seen is None:
        assert shown == ""
        return
    assert any(re.search(seen, line) for line in lines(shown)), shown
    assert max(map(len, lines(shown))) <= int(environ.get("COLUMNS", columns))
    assert (re.search(r"\x1b\[[0-9;]*3[0-9]", shown) is None) == ("NO_COLOR" in environ)
    assert shown.isascii() or "PYTHONIOENCODING" not in environ


@pytest.mark.slow
def test_a_training_on_a_terminal_shows_epochs_and_nothing_of_tensorflow(settings: Settings) -> None:
    command = [sys.executable, "-m", "jobs.cli", "train", "--date", str(LAST)]
    shown = on_terminal(command, 100, **environment(settings))
    told = lines(shown)
    assert any(re.match(r"training: all ratings .* 2 of 2 RMSE [0-9.]+", line) for line in told), told
    own = re.compile(r"[0-9:]{8}  |training: |reading ratings ")
    assert [line for line in told if not own.match(line)] == []
    assert not any("train.epoch" in line for line in told)


def test_details_are_those_of_recjob_alone() -> None:
    script = (
        "import logging\nfrom jobs import log\nlog.set_up(logging.DEBUG, 'console')\n"
        "for name in ('storage.lake', 'urllib3', 'asyncio'):\n    logging.getLogger(name).debug(f'of {name}')\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert [line.split("  ", 1)[1].strip() for line in done.stderr.splitlines()] == ["of storage.lake"]


def test_what_a_locale_has_no_letter_for_is_no_error(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "jobs.cli", "init", str(tmp_path / "\u6620\u753b")]
    done = subprocess.run(command, env=os.environ | {"PYTHONIOENCODING": "latin-1"}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "\\u6620\\u753b" in done.stdout
