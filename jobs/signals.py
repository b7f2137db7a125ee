"""SIGINT and SIGTERM, kept in mind: an exception that meets native code can be swallowed, or come out as another error."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from jobs import exits

_received: list[int] = []


def heed() -> None:
    """Let both signals raise from now on: `KeyboardInterrupt`, and `SystemExit` with the code of SIGTERM.

    A SIGINT that is ignored, as in a shell's background job, stays ignored.
    """
    for number in (signal.SIGINT, signal.SIGTERM):
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _stop)


def check() -> None:
    """Raise what the last signal raised, if one came: for long loops, between two turns."""
    if _received:
        raise KeyboardInterrupt if _received[-1] == signal.SIGINT else SystemExit(exits.SIGTERM)


@contextmanager
def told() -> Iterator[None]:
    """Tell an error that follows a signal as that signal: TensorFlow makes one of its own of what interrupts a trace."""
    try:
        yield
    except Exception:
        check()
        raise


def _stop(number: int, frame: FrameType | None) -> None:
    _received.append(number)
    check()
