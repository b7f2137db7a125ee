"""The commands that look after what recjob keeps and when it runs."""

import difflib
import json
from typing import Any

import click

from jobs import exits
from jobs.cli import Answer, Job, config_of, settings_of
from jobs.lookups import models
from jobs.options import WAIT


@click.command(cls=Job)
@click.option("--user", "users", multiple=True, help="The user's id, as in the source; may be repeated.")
@click.option(
    "--file", type=click.File(encoding="utf-8"), help="Ids, one a line; - is stdin, so that no shell keeps them."
)
@click.option("--let-in", is_flag=True, help="Only take them off the list of who is kept out.")
@WAIT
@click.pass_context
def forget(ctx: click.Context, users: tuple[str, ...], file: Any, let_in: bool, wait: float) -> Answer:
    """Erase people from everything recjob keeps, and keep them out of later nights; prints a receipt.

    Files of your own are not changed: the receipt names those that still have them.
    """
    from jobs import forget as job
    from jobs import show

    ids = [*users, *([line.rstrip("\r\n") for line in file] if file else [])]
    ids = [one for one in ids if one]
    if not ids:
        raise click.UsageError("whom? --user ID, or --file FILE with ids, one a line")
    done = (job.let_in if let_in else job.forget)(settings_of(ctx), ids, wait)
    return done, show.facts(done) if let_in else show.receipt(done)


@click.command(cls=Job)
@click.option("--to", help="The run whose file to go back to, or the beginning of it.  [default: the one before]")
@WAIT
@click.pass_context
def rollback(ctx: click.Context, to: str | None, wait: float) -> Answer:
    """Show readers an earlier published file; what is taken back is not published again."""
    from jobs import publish, show, state

    settings = settings_of(ctx)
    with state.held(settings, wait, "rollback"):
        done = publish.rollback(settings, to)
    return done, show.facts(done)


@click.command(cls=Job)
@click.argument("run_id", required=False)
@WAIT
@click.pass_context
def publish(ctx: click.Context, run_id: str | None, wait: float) -> Answer:
    """Show readers what is staged, as `plan` and `score --no-publish` leave it: nothing is trained or scored.

    RUN_ID, or the beginning of it, says whose lists to show for their date, by default those of the newest staged run; one that
    was rolled back counts again, until a later night prunes it.
    """
    from jobs import nightly, show

    done = nightly.release(settings_of(ctx), run_id or "", wait)
    return done, show.run(done)


@click.command(cls=Job)
@WAIT
@click.pass_context
def prune(ctx: click.Context, wait: float) -> Answer:
    """Remove dates, published files, models and reports that [publish] no longer keeps; a night does so itself."""
    from jobs import prune as job
    from jobs import show

    done = job.by_hand(settings_of(ctx), wait)
    return done, show.facts(done | {"removed": len(done["removed"])})


@click.command(cls=Job)
@click.option("--discard", is_flag=True, help="Be what the store has, and drop what only this folder has.")
@WAIT
@click.pass_context
def sync(ctx: click.Context, discard: bool, wait: float) -> Answer:
    """Bring the state folder and its copy on store.url together: each run does so itself.

    An empty folder is filled from the store, and what is new here, or was lost there, is copied there.
    """
    from jobs import kept, show

    done = kept.sync(settings_of(ctx), wait, discard)
    moved = {name: "{files:,} files, {bytes:,} bytes".format(**done[name]) for name in ("taken", "pushed")}
    return done, show.facts(done | moved)


@models.command("promote", cls=Job)
@click.argument("version")
@WAIT
@click.pass_context
def models_promote(ctx: click.Context, version: str, wait: float) -> Answer:
    """Make VERSION the champion, until a night's own model is accepted; a pin is taken off."""
    from jobs import registry, show

    done = registry.promote(settings_of(ctx), version, pinned=False, wait=wait)
    return done, show.facts(done)


@models.command("pin", cls=Job)
@click.argument("version")
@WAIT
@click.pass_context
def models_pin(ctx: click.Context, version: str, wait: float) -> Answer:
    """Make VERSION, or `champion`, the champion for good: nights without --model score by it and train none, until `unpin`."""
    from jobs import registry, show

    done = registry.promote(settings_of(ctx), version, pinned=True, wait=wait)
    return done, show.facts(done)


@models.command("unpin", cls=Job)
@WAIT
@click.pass_context
def models_unpin(ctx: click.Context, wait: float) -> Answer:
    """Let nights train again; the champion stays until one of their models is accepted."""
    from jobs import registry, show

    done = registry.unpin(settings_of(ctx), wait)
    return done, show.facts(done)


@click.group()
def schedule() -> None:
    """Run nights by the clock, or see when they are due."""


@schedule.command("run", cls=Job)
@click.pass_context
def schedule_run(ctx: click.Context) -> Answer:
    """Stay and run each night in a process of its own, until SIGTERM or Ctrl-C."""
    from jobs import schedule as job

    number = job.run(settings_of(ctx), config_of(ctx))
    return {"stopped_by": number}, "stopped", 128 + number if number else exits.DONE


@schedule.command("next", cls=Job)
@click.option("-n", "count", type=click.IntRange(1, 1000), default=5, show_default=True)
@click.pass_context
def schedule_next(ctx: click.Context, count: int) -> Answer:
    """Show the next fire times, with their offsets, and the dates they are for."""
    from jobs import schedule as job
    from jobs import show

    done = job.upcoming(settings_of(ctx), count)
    columns = {f"at ({done['timezone']})": "at", "UTC": "utc", "as of": "as_of_date"}
    if done["timezone"] == "UTC":
        del columns["UTC"]
    rows = [tuple(time[name] for name in columns.values()) for time in done["next"]]
    warning = f"\nwarning: {done['warning']}" if done["warning"] else ""
    return done, show.table(list(columns), rows) + warning


@click.command(cls=Job)
@click.pass_context
def doctor(ctx: click.Context) -> Answer:
    """Look at everything that could keep tonight from working; exit 7 if something would."""
    from jobs import doctor as job
    from jobs import show

    done = job.examine(settings_of(ctx))
    return done, show.findings(done), exits.INTEGRITY if done["state"] == "bad" else exits.DONE


@click.command(cls=Job)
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(ctx: click.Context, shell: str) -> Answer:
    """Print what makes SHELL complete commands and options, e.g. for ~/.bashrc: eval "$(recjob completion bash)"."""
    from click.shell_completion import BashComplete, FishComplete, ZshComplete

    kind = {"bash": BashComplete, "zsh": ZshComplete, "fish": FishComplete}[shell]
    script = kind(ctx.find_root().command, {}, "recjob", "_RECJOB_COMPLETE").source()
    return {"shell": shell, "script": script}, script


@click.command(cls=Job)
@click.argument("command", nargs=-1, required=True)
def schema(command: tuple[str, ...]) -> Answer:
    """Print the JSON Schema of what COMMAND, or `error`, prints with --json."""
    from jobs import documents

    name = " ".join(command)
    if name not in documents.DOCUMENTS:
        near = difflib.get_close_matches(name, documents.DOCUMENTS, n=1)
        raise click.BadParameter(f"{name!r} is no command" + (f"; did you mean {near[0]!r}?" if near else ""))
    found = documents.schema(name)
    return {"document": found}, json.dumps(found, indent=1)


UPKEEP = (publish, rollback, prune, sync, forget, schedule, doctor, completion, schema)
