"""SIGINT, SIGTERM and the end of a run's time, kept in mind: an exception that meets native code can be swallowed, or come out
as another error."""

import faulthandler
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from jobs import exits

_received: list[int] = []
_PATIENCE = 30.0
"""Seconds that a run has to end by itself after its time is over."""


class Stopped(SystemExit):
    """The run has to end: SIGTERM came, or its time is over. `code` is the exit code."""

    def __init__(self, number: int) -> None:
        late = number == signal.SIGALRM
        self.code: int = exits.TIMEOUT if late else exits.SIGTERM
        super().__init__(self.code)
        self.kind = "E_TIMEOUT" if late else "E_SIGNAL"
        self.why = "stopped: it took longer than --timeout" if late else "stopped by SIGTERM"


def heed() -> None:
    """Let both signals raise from now on: `KeyboardInterrupt` and `Stopped`.

    A SIGINT that is ignored, as in a shell's background job, stays ignored.
    """
    sys.unraisablehook = _unheard
    for number in (signal.SIGINT, signal.SIGTERM):
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _stop)


@contextmanager
def at_once() -> Iterator[None]:
    """Let signals end the process where it stands: for native code that waits, and keeps them from Python. Then `heed` them."""
    ends = [signal.SIGINT, signal.SIGTERM, signal.SIGALRM]
    before = {number: signal.signal(number, signal.SIG_DFL) for number in ends if callable(signal.getsignal(number))}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def end_after(seconds: float) -> None:
    """Raise `Stopped` when so much time has passed; 0 is no limit.

    Native code that hangs is not reached by it: 30 s later the process writes where each thread stands, and ends with 1.
    """
    if seconds:
        signal.signal(signal.SIGALRM, _stop)
        signal.setitimer(signal.ITIMER_REAL, seconds)
        faulthandler.dump_traceback_later(seconds + _PATIENCE, exit=True)


def check() -> None:
    """Raise what the last signal raised, if one came: for long loops, between two turns."""
    if _received:
        raise KeyboardInterrupt if _received[-1] == signal.SIGINT else Stopped(_received[-1])


@contextmanager
def told() -> Iterator[None]:
    """Tell an error that follows a signal as that signal: TensorFlow makes one of its own of what interrupts a trace."""
    try:
        yield
    except Exception:
        check()
        raise


def _unheard(lost: Any) -> None:
    """A signal that met a destructor is told by the next `check`: no traceback beside it says that it was ignored."""
    if not (_received and isinstance(lost.exc_value, (Stopped, KeyboardInterrupt))):
        sys.__unraisablehook__(lost)


def _stop(number: int, frame: FrameType | None) -> None:
    _received.append(number)
    check()
