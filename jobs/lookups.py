"""The commands that only look: at what is published, the journal, the registry and the settings."""

import json
from pathlib import Path
from typing import Any

import click

from jobs import configuration, exits
from jobs.cli import Answer, Job, day_of, settings_of
from jobs.options import Amount


@click.command(cls=Job)
@click.option("--max-age", metavar="HOURS", help="Exit 9 if the newest publication is older, e.g. 28h.")
@click.pass_context
def status(ctx: click.Context, max_age: str | None) -> Answer:
    """Show what is published, how old it is and what runs; a health probe with --max-age.

    Exit 7 where the published file is damaged, 9 where it is older than --max-age.
    """
    from jobs import query, show

    try:
        hours = Amount(0)(max_age.removesuffix("h")) if max_age else None
    except click.BadParameter as error:
        raise click.BadParameter("expected hours, e.g. 28h", param_hint="--max-age") from error
    done = query.status(settings_of(ctx), hours)
    code = exits.INTEGRITY if done["damaged"] else exits.STALE if done["stale"] else exits.DONE
    return done, show.status(done), code


@click.command(cls=Job)
@click.pass_context
def late(ctx: click.Context) -> Answer:
    """Show which published dates would now differ: ratings from before their end that arrived after their run."""
    from jobs import late as job
    from jobs import show

    done = job.late(settings_of(ctx))
    return done, show.table(["as of", "run", "then", "now", "late"], [list(day.values()) for day in done["dates"]])


@click.group()
def runs() -> None:
    """The journal of all attempts."""


@runs.command("list", cls=Job)
@click.option("-n", "count", type=click.IntRange(1), default=20, show_default=True)
@click.pass_context
def runs_list(ctx: click.Context, count: int) -> Answer:
    """List the newest runs, oldest first."""
    from jobs import run, show

    settings = settings_of(ctx)
    records = run.records(settings.journal, settings.lock)[-count:]
    names = ["run_id", "as_of_date", "status", "trigger", "model_version", "n_users", "peak_rss_mb", "error_kind"]
    shown = [{name: record.get(name) for name in names} for record in records]
    return {"runs": shown}, show.table(names, [row.values() for row in shown])  # type: ignore[misc]


@runs.command("show", cls=Job)
@click.argument("run_id")
@click.pass_context
def runs_show(ctx: click.Context, run_id: str) -> Answer:
    """Show one run: RUN_ID or the beginning of it."""
    from jobs import run, show

    settings = settings_of(ctx)
    record = run.find(settings.journal, settings.lock, run_id)
    return record, show.run(record)


@runs.command("diff", cls=Job)
@click.argument("one")
@click.argument("other")
@click.pass_context
def runs_diff(ctx: click.Context, one: str, other: str) -> Answer:
    """Say how the lists of run OTHER differ from those of run ONE: users, places, movies in more or fewer lists.

    ONE and OTHER are runs, the beginnings of their ids, or published dates, also as `yesterday` or `today`.
    """
    from jobs import compare, show

    settings = settings_of(ctx)
    named = [str(day_of(word, settings)) if word in ("today", "yesterday") else word for word in (one, other)]
    done = compare.diff(settings, *named)
    return done, show.difference(done)


@click.group()
def models() -> None:
    """The model registry."""


@models.command("list", cls=Job)
@click.pass_context
def models_list(ctx: click.Context) -> Answer:
    """List the versions, oldest first; the champion is marked."""
    from jobs import registry, show

    done = registry.listed(settings_of(ctx))
    return done, show.models(done)


@models.command("show", cls=Job)
@click.argument("version")
@click.pass_context
def models_show(ctx: click.Context, version: str) -> Answer:
    """Show one VERSION, or `champion`: recipe, metrics, verdict, lineage."""
    from jobs import registry, show

    done = registry.shown(settings_of(ctx), version)
    return done, show.model(done)


@models.command("export", cls=Job)
@click.argument("version")
@click.option("--to", "target", type=click.Path(path_type=Path), required=True, help="A new folder.")
@click.pass_context
def models_export(ctx: click.Context, version: str, target: Path) -> Answer:
    """Write VERSION, or `champion`, as a SavedModel that takes ids as strings (TensorFlow Serving)."""
    from jobs import registry, show

    done = registry.export(settings_of(ctx), version, target)
    return done, show.facts(done)


@models.command("card", cls=Job)
@click.argument("version")
@click.option("--to", "target", type=click.Path(path_type=Path, dir_okay=False), help="Write the page here.")
@click.pass_context
def models_card(ctx: click.Context, version: str, target: Path | None) -> Answer:
    """Tell what VERSION, or `champion`, is, what it was measured on and what limits it, as a Markdown page."""
    from jobs import card, registry, state

    settings = settings_of(ctx)
    done = card.card(registry.shown(settings, version))
    if target is None:
        return done, card.markdown(done).rstrip("\n")
    card.write(done, state.place_for(target, settings))
    return done | {"path": str(target)}, str(target)


@click.command(cls=Job)
@click.option("--user", required=True, help="The user's id, as in the source.")
@click.option("-n", "--limit", type=click.IntRange(1, 1000), default=10, show_default=True)
@click.pass_context
def recommend(ctx: click.Context, user: str, limit: int) -> Answer:
    """Show one user's newest published list with titles."""
    from jobs import query, show

    done = query.recommend(settings_of(ctx), user, limit)
    return done, show.recommendations(done)


@click.command(cls=Job)
@click.option("--user", required=True, help="The user's id, as in the source.")
@click.option("--movie", help="Why this movie is listed, or why not.  [default: each of the first -n]")
@click.option("-n", "--limit", type=click.IntRange(1, 1000), default=10, show_default=True)
@click.pass_context
def explain(ctx: click.Context, user: str, movie: str | None, limit: int) -> Answer:
    """Say why movies are in a user's newest list, or why one is not: its rank, the parts of its score, what it is near to.

    The list is worked out again from its model and ratings, which takes as long as reading these.
    """
    from jobs import explain as job
    from jobs import show

    done = job.explain(settings_of(ctx), user, movie, limit)
    return done, show.explanation(done)


@click.command(cls=Job)
@click.option(
    "--to", "target", type=click.Path(path_type=Path, dir_okay=False), required=True, help="The file to write."
)
@click.option(
    "--format", "form", type=click.Choice(["parquet", "csv", "jsonl"]), help="[default: what the name ends in]"
)
@click.option("--date", "as_of", help="A published date, YYYY-MM-DD.  [default: the newest]")
@click.pass_context
def export(ctx: click.Context, target: Path, form: Any, as_of: str | None) -> Answer:
    """Write the published lists of a date into a file: Parquet, CSV, or JSON lines with one user a line."""
    from jobs import export as job
    from jobs import show

    done = job.export(settings_of(ctx), target, form, as_of)
    return done, show.facts(done)


@click.command("query", cls=Job)
@click.argument("sql", required=False)
@click.option("-f", "--file", type=click.File(encoding="utf-8"), help="Read the SQL from a file; - is stdin.")
@click.option(
    "--format", "form", type=click.Choice(["table", "csv", "jsonl", "parquet"]), default="table", show_default=True
)
@click.option(
    "--to", "target", type=click.Path(path_type=Path, dir_okay=False), help="The file to write, with --format parquet."
)
@click.option("--max-rows", type=click.IntRange(1), default=100_000, show_default=True)
@click.option("--timeout", type=Amount(0.001), default=60.0, show_default=True, help="Seconds.")
@click.pass_context
def query_(
    ctx: click.Context, sql: str | None, file: Any, form: str, target: Path | None, max_rows: int, timeout: float
) -> Answer:
    """Run one SELECT on the published tables, read-only."""
    from jobs import query, show

    if (sql is None) == (file is None):
        raise click.UsageError("give the SQL as an argument, or with -f FILE")
    if (target is None) == (form == "parquet"):
        raise click.UsageError("--to FILE goes with --format parquet; other formats go to stdout")
    statement = sql if sql is not None else file.read()
    if target is not None:
        done = query.save(settings_of(ctx), statement, target, max_rows, timeout)
        return done, show.facts(done)
    done = query.query(settings_of(ctx), statement, max_rows, timeout)
    return done, show.rows(done, form)


@click.command(cls=Job)
@click.argument("run_id", required=False)
@click.pass_context
def report(ctx: click.Context, run_id: str | None) -> Answer:
    """Write the HTML report of a run, by default the newest: verdicts, quality, what is listed, sample lists, steps.

    A night writes its own; for a run that failed, or was refused, this is how to get one.
    """
    from jobs import report as job

    path = job.write(settings_of(ctx), run_id)
    return {"path": str(path)}, str(path)


@click.group()
def config() -> None:
    """The settings."""


@config.command("show", cls=Job)
@click.option("--origin", is_flag=True, help="Say where each value comes from.")
@click.pass_context
def config_show(ctx: click.Context, origin: bool) -> Answer:
    """Show every setting with its value."""
    from jobs import show

    settings = settings_of(ctx)
    hidden = {
        key: "..." for key, value in configuration.flat(settings).items() if key in configuration.PRIVATE and value
    }
    values = configuration.flat(settings) | hidden
    sources = {key: settings.origin.get(key, "default") for key in values}
    shown = {key: {"value": value, "origin": sources[key]} if origin else value for key, value in values.items()}
    rows = [(key, json.dumps(value, default=str), *([sources[key]] if origin else [])) for key, value in values.items()]
    return {"settings": shown}, show.table(["key", "value", *(["origin"] if origin else [])], rows)


LOOKUPS = (status, late, runs, models, recommend, explain, query_, export, report, config)
