"""What commands take: the types of their options, and options that several of them have."""

import math
import re
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import click


class AsOf(click.ParamType[str]):
    """YYYY-MM-DD, `today` or `yesterday`; nothing else, nothing later than today."""

    name = "date"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        if value in ("today", "yesterday"):
            return str(value)
        try:
            day = date.fromisoformat(value) if len(value) == 10 else None
        except ValueError:
            day = None
        if day is None or not date(1900, 1, 1) <= day <= datetime.now(UTC).date() + timedelta(days=1):
            self.fail(f"{value!r} is not a date up to today: YYYY-MM-DD, today or yesterday", param, ctx)
        return str(value)


class Amount(click.FloatRange):
    """A number in a range: neither nan, which no bound keeps out, nor infinite."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        number = float(super().convert(value, param, ctx))
        return number if math.isfinite(number) else self.fail(f"{value!r} is not a number", param, ctx)


class Instant(click.ParamType[datetime]):
    """A moment as ISO 8601 writes it, with its offset from UTC."""

    name = "instant"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> datetime:
        try:
            found = value if isinstance(value, datetime) else datetime.fromisoformat(value)
            return found.astimezone(UTC) if found.tzinfo else self.fail(f"{value!r} has no offset: 2026-11-24T03:30Z")
        except (ValueError, OverflowError):
            self.fail(f"{value!r} is not an instant such as 2026-11-24T03:30Z", param, ctx)


class Duration(click.ParamType[float]):
    """Seconds, from a number with a unit: 90s, 30m, 2h."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        found = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)([smh])", str(value))
        if found is None or not 0 < (seconds := float(found[1]) * {"s": 1, "m": 60, "h": 3600}[found[2]]) < 1e7:
            self.fail(f"{value!r} is not a duration: 90s, 30m or 2h", param, ctx)
        return seconds


class Part(click.ParamType[tuple[int, int]]):
    """Which of how many parts: 3/8 is the third of eight."""

    name = "part"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, int]:
        found = re.fullmatch(r"([0-9]{1,5})/([0-9]{1,5})", str(value))
        if found is None or not 1 <= int(found[1]) <= int(found[2]) <= 10_000:
            self.fail(f"{value!r} is not a part such as 1/8 or 8/8", param, ctx)
        return int(found[1]), int(found[2])


class Memory(click.ParamType[float]):
    """GiB, from an amount with its unit: 512MiB, 8GiB."""

    name = "memory"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        found = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?) ?(MiB|GiB)", str(value))
        if found is None or not 0 < (amount := float(found[1]) / {"MiB": 1024, "GiB": 1}[found[2]]) <= 4096:
            self.fail(f"{value!r} is no amount of memory up to 4096GiB with its unit: 512MiB or 8GiB", param, ctx)
        return amount


COMMON: list[Callable[[Any], Any]] = [
    click.option(
        "-c",
        "--config",
        type=click.Path(path_type=Path, dir_okay=False),
        help="The TOML file.  [default: ./recjob.toml if there is one]",
    ),
    click.option("--state-dir", type=click.Path(path_type=Path), help="Where recjob keeps everything."),
    click.option("--json", "as_json", is_flag=True, help="Print the result as one JSON document."),
    click.option("-q", "--quiet", is_flag=True, help="Log warnings only."),
    click.option("-v", "--verbose", is_flag=True, help="Log details: files, blocks, epochs, seconds."),
    click.option(
        "--log-format", type=click.Choice(["console", "json"]), help="[default: console on a terminal, else json]"
    ),
    click.option("--debug", is_flag=True, help="Log details, show tracebacks, and let TensorFlow speak."),
]
WAIT = click.option("--wait", type=Amount(0), default=0.0, help="Seconds to wait for another run to end.")
DATE = click.option(
    "--date",
    "word",
    type=AsOf(),
    default="yesterday",
    show_default=True,
    help="Use ratings up to the end of this date.",
)
SEED = click.option("--seed", type=int, help="Seed of the training.")
FORCE = [
    click.option(
        "--force", is_flag=True, help="Score again what is already there; use a model or lists that the gate refuses."
    ),
    click.option("--reason", help="Why --force; recorded."),
]
TIMEOUT = click.option("--timeout", type=Duration(), help="End the run after this long, e.g. 2h, with exit code 124.")
DRY_RUN = click.option(
    "--dry-run", is_flag=True, help="Check the input, and say what would be left to do: nothing, publish or score."
)
INPUT = [
    click.option(
        "--accept-input", is_flag=True, help="Take ratings that are far fewer than before, or too old; recorded."
    ),
    click.option("--known-at", type=Instant(), help="Leave out ratings that arrived later, e.g. 2026-11-24T03:30Z."),
]


def of_a_run(command: Any) -> Any:
    """Give a command the options of a whole run."""
    options = [
        *INPUT,
        click.option(
            "--model",
            default="",
            help="train (unless there is a model of these ratings), champion, or a version.  [default: the pinned, or train]",
        ),
        *FORCE,
        click.option("--strict", is_flag=True, help="Exit 4 if the gate refuses, instead of using the champion."),
        click.option("--top-n", type=int, help="Movies per user."),
        click.option("--batch-size", type=int, help="Users scored at once; never changes a list."),
        click.option("--shards", type=int, help="Score in so many parts, each kept until all are staged."),
        click.option("--engine", type=click.Choice(["local", "ray"]), help="What scores the shards."),
        click.option("--memory", type=Memory(), help="Memory for scores, e.g. 8GiB; never changes a list."),
        click.option("--device", type=click.Choice(["auto", "cpu", "gpu"]), help="What trains and scores."),
        click.option("--include-seen", is_flag=True, default=None, help="Recommend rated movies, too."),
        SEED,
        click.option("--trigger", type=click.Choice(["manual", "schedule"]), default="manual", hidden=True),
        WAIT,
        TIMEOUT,
    ]
    for option in reversed(options):
        command = option(command)
    return command
