"""Progress bars on a terminal, nothing elsewhere: log lines say what happened, bars only that something is happening."""

import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TypeVar

T = TypeVar("T")


@dataclass(frozen=True)
class Progress:
    """Whether to draw; decided once, by the command line."""

    shown: bool = False

    @classmethod
    def on_terminal(cls, quiet: bool) -> "Progress":
        """Draw if stderr is a terminal and nobody asked for quiet."""
        return cls(sys.stderr.isatty() and not quiet)

    def over(self, parts: Iterable[T], what: str, total: int, size: Callable[[T], int]) -> Iterator[T]:
        """Pass `parts` on, drawing how much of `total` they add up to."""
        if not self.shown:
            yield from parts
            return
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
        from rich.progress import Progress as Bars

        columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
        with Bars(*columns, console=Console(stderr=True), transient=True) as bars:
            task = bars.add_task(what, total=total)
            for part in parts:
                yield part
                bars.advance(task, size(part))


QUIET = Progress()
