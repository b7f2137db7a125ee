"""What every command shares: dates, common options, output, errors to exit codes. The commands are in `jobs.commands`.

stdout is the result, stderr the log. Nothing here imports TensorFlow, DuckDB or Arrow, so that `--help` is quick.
"""

import atexit
import io
import json
import logging
import math
import os
import sys
from collections.abc import Mapping
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any, NoReturn
from zoneinfo import ZoneInfo

import click

from jobs import configuration, examples, exits, log, signals
from jobs.options import COMMON
from jobs.settings import Settings
from storage import state

Answer = tuple[dict[str, Any], str] | tuple[dict[str, Any], str, int]
"""The document for --json, the text for people, and an exit code where it is not 0."""


def day_of(word: str, settings: Settings) -> date:
    """The date that an `AsOf` word means in the settings' zone."""
    today = datetime.now(ZoneInfo(settings.timezone)).date()
    named = {"today": today, "yesterday": today - timedelta(days=1)}
    day = named.get(word) or date.fromisoformat(word)
    if day > today:
        raise click.BadParameter(
            f"{day} lies in the future (it is {today} in {settings.timezone})", param_hint="--date"
        )
    return day


def _show_examples(ctx: click.Context, formatter: click.HelpFormatter) -> None:
    """Write what can be typed as it stands: long lines are not broken."""
    with formatter.section("Examples"):
        formatter.write("".join(f"  {line}\n" for line in examples.of(ctx.command_path)))


class Recjob(click.Group):
    """All commands: examples and exit codes stand below them."""

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Examples, then what a code means to whoever called, and when to call again."""
        _show_examples(ctx, formatter)
        with formatter.section("Exit codes"):
            formatter.write_dl(
                [
                    (str(code), meaning + (f"; try again: {again}" if again else ""))
                    for code, (meaning, again) in exits.MEANINGS.items()
                ]
            )


class Job(click.Command):
    """A command with the common options: it returns an `Answer`, or raises what `exits` knows."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        for option in COMMON:
            option(self)

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Examples below the options."""
        _show_examples(ctx, formatter)

    def invoke(self, ctx: click.Context) -> None:
        common = {
            name: ctx.params.pop(name)
            for name in ("config", "state_dir", "as_json", "quiet", "verbose", "log_format", "debug")
        }
        given = ctx.find_root().obj = {**common, **{k: v for k, v in (ctx.find_root().obj or {}).items() if v}}
        detailed = given["verbose"] or given["debug"]
        level = logging.DEBUG if detailed else logging.WARNING if given["quiet"] else logging.INFO
        if given["debug"]:
            os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "0")
        log.set_up(level, given["log_format"] or ("console" if sys.stderr.isatty() else "json"))
        answer: Answer = super().invoke(ctx)
        document, text, *code = answer
        name = ctx.command_path.removeprefix("recjob ").replace(" ", "-")
        click.echo(_document({"schema": f"recjob.{name}/1", **document}) if given["as_json"] else text)
        if code:
            ctx.exit(code[0])


def _document(document: dict[str, Any]) -> str:
    """One JSON document, which has no nan and no infinity: null stands for them. The fields: `jobs.documents`."""

    def finite(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: finite(inner) for key, inner in value.items()}
        if isinstance(value, list | tuple):
            return [finite(inner) for inner in value]
        return None if isinstance(value, float) and not math.isfinite(value) else value

    return json.dumps(finite(document), default=str)


def settings_of(ctx: click.Context, flags: Mapping[str, Any] | None = None) -> Settings:
    """The settings of this call; `flags` are dotted keys, None where a flag was not given. The state folder is checked."""
    given = ctx.find_root().obj
    settings = configuration.load(config_of(ctx), os.environ, {"state_dir": given["state_dir"], **(flags or {})})
    state.check(settings.state_dir)
    return settings


def config_of(ctx: click.Context) -> Path | None:
    """The TOML file of this call, if there is one."""
    chosen: Path | None = ctx.find_root().obj["config"] or (
        Path(os.environ["RECJOB_CONFIG"]) if "RECJOB_CONFIG" in os.environ else None
    )
    return chosen or (Path("recjob.toml") if Path("recjob.toml").is_file() else None)


def _open_streams() -> None:
    """Where stdin, stdout or stderr is closed, open the null device: else the next file, a database, would take its number."""
    for number, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        if getattr(sys, name) is None:
            handle = os.open(os.devnull, os.O_RDWR)  # the lowest free number
            if handle != number:
                os.dup2(handle, number)
            setattr(sys, name, os.fdopen(number, mode, closefd=False))


def main() -> NoReturn:
    """The `recjob` command."""
    _open_streams()
    signals.heed()
    wants_json, debug = "--json" in sys.argv, "--debug" in sys.argv
    try:
        for stream in (sys.stdout, sys.stderr):
            if isinstance(stream, io.TextIOWrapper):
                stream.reconfigure(errors="backslashreplace")  # what a locale has no letter for is no reason to end
        with signals.told():
            from jobs.commands import recjob

            code = recjob.main(standalone_mode=False, prog_name="recjob")
        sys.stdout.flush()
        sys.exit(code if isinstance(code, int) else exits.DONE)
    except click.UsageError as error:
        command = error.ctx.command_path if error.ctx else "recjob"
        _fail("E_USAGE", error.format_message(), f"{command} --help", exits.USAGE, wants_json)
    except signals.Stopped as stop:
        _end_quietly()
        _fail(stop.kind, stop.why, "run it again: nothing was lost", int(stop.code or exits.SIGTERM), wants_json)
    except (KeyboardInterrupt, click.Abort):
        _end_quietly()
        _fail("E_SIGNAL", "interrupted", "run it again: nothing was lost", exits.SIGINT, wants_json)
    except BrokenPipeError:
        _drop_output()
        sys.exit(exits.DONE)
    except OSError as error:
        if debug:
            raise
        _fail(
            "E_IO",
            f"{error.strerror or error} {error.filename or ''}".strip(),
            "free space, permissions and the disk's health",
            exits.RESOURCES,
            wants_json,
        )
    except Exception as error:
        code = exits.code(error)
        if debug or not hasattr(error, "kind"):
            logging.getLogger("recjob").error("failed", exc_info=error)
        kind, hint = getattr(error, "kind", "E_BUG"), getattr(error, "hint", "please report this with the lines above")
        _fail(kind, str(error) or type(error).__name__, hint, code, wants_json, getattr(error, "where", {}))


def _fail(
    kind: str, message: str, hint: str, code: int, as_json: bool, where: dict[str, object] | None = None
) -> NoReturn:
    """One block on stderr or, with --json, one document on stdout; then the exit code."""
    try:
        if as_json:
            error = {"kind": kind, "message": message, "hint": hint, **(where or {})}
            click.echo(_document({"schema": "recjob.error/1", "error": error, "exit_code": code}))
        else:
            click.echo(f"error[{kind}]: {message}" + (f"\nhint: {hint}" if hint else ""), err=True)
        sys.stdout.flush()
    except OSError:
        _drop_output()
    sys.exit(code)


def _end_quietly() -> None:
    """Let native libraries, cut off in the middle, say nothing of it as the interpreter ends."""
    if "tensorflow" in sys.modules or "tensorflow.python" in sys.modules:
        atexit.register(lambda: os.dup2(os.open(os.devnull, os.O_WRONLY), 2))


def _drop_output() -> None:
    """Send what stdout still holds nowhere: the interpreter would try once more at its end, and exit with 120."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


if __name__ == "__main__":
    main()
