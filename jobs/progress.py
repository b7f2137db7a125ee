"""Progress bars on a terminal, nothing elsewhere: log lines say what happened, bars only that something is happening."""

import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

T = TypeVar("T")
Advance = Callable[[int, str], None]
"""How many more are done, and what to say of them."""
_ROOMY = 76
"""Columns of a terminal from which there is room for the bar itself."""


@dataclass(frozen=True)
class Progress:
    """Whether to draw; decided once, by the command line."""

    shown: bool = False

    @classmethod
    def on_terminal(cls, quiet: bool) -> "Progress":
        """Draw if stderr is a terminal that can move its cursor, and nobody asked for quiet."""
        able = os.environ.get("TERM", "dumb") not in ("dumb", "unknown", "")
        return cls(sys.stderr.isatty() and able and not quiet)

    @contextmanager
    def bar(self, what: str, total: int | None) -> Iterator[Advance]:
        """A line that says how many of `total` (None: nobody knows how many there will be) are done, and when all will be."""
        if not self.shown:
            yield lambda count, note: None
            return
        from rich.console import Console
        from rich.progress import BarColumn, ProgressColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
        from rich.progress import Progress as Bars

        console = Console(stderr=True)
        known = total is not None
        columns: list[ProgressColumn] = [TextColumn("{task.description}")]
        if known and console.width >= _ROOMY:
            columns.append(BarColumn(20))
        columns.append(TextColumn("{task.completed:,} of {task.total:,}" if known else "{task.completed:,}"))
        if console.width >= _ROOMY:
            columns.append(TextColumn("{task.fields[note]}"))
        columns.append(TimeRemainingColumn(compact=True) if known else TimeElapsedColumn())
        with Bars(*columns, console=console, transient=True) as bars:
            task = bars.add_task(what, total=total, note="")
            yield lambda count, note: bars.update(task, advance=count, note=note)

    def over(self, parts: Iterable[T], what: str, total: int, size: Callable[[T], int], unit: str) -> Iterator[T]:
        """Pass `parts` on, drawing how much of `total` they add up to, and how much there is in a second."""
        began, done = time.monotonic(), 0
        with self.bar(what, total) as advance:
            for part in parts:
                yield part
                done += size(part)
                advance(size(part), f"{done / max(time.monotonic() - began, 1e-3):,.0f} {unit}/s")


QUIET = Progress()
