"""The commands that work: each names its options and calls its job. Jobs are imported inside, so that `--help` is quick."""

from datetime import date
from importlib.metadata import version as installed
from pathlib import Path
from typing import Any

import click

from jobs import exits, experiments, lookups, signals, upkeep
from jobs.cli import Answer, Job, Recjob, day_of, settings_of
from jobs.options import COMMON, DATE, DRY_RUN, FORCE, INPUT, SEED, TIMEOUT, WAIT, AsOf, Part, of_a_run
from jobs.settings import Settings


@click.group(cls=Recjob, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(installed("recjob"), prog_name="recjob")
@click.pass_context
def recjob(ctx: click.Context, /, **common: Any) -> None:
    """Nightly recommendations: ratings in Parquet > a TensorFlow Recommenders model > top-N tables in DuckDB.

    Start with `recjob demo`, or: init, ingest, nightly, recommend.
    """
    ctx.obj = common


for _option in COMMON:
    _option(recjob)


@recjob.command(cls=Job)
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False), default="recjob-demo")
@click.pass_context
def demo(ctx: click.Context, folder: Path) -> Answer:
    """Run the whole path on made-up ratings, into FOLDER [recjob-demo]."""
    from jobs import demo as job
    from jobs import show
    from jobs.progress import Progress

    done = job.demo(folder, Progress.on_terminal(ctx.find_root().obj["quiet"]))
    return done, show.demo(done)


@recjob.command(cls=Job)
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False), default=".")
def init(folder: Path) -> Answer:
    """Write a commented recjob.toml and the state folder into FOLDER [.]."""
    from jobs import init as job
    from jobs import show

    done = job.init(folder)
    return done, show.facts(done)


@recjob.command(cls=Job)
@click.argument("source")
@click.option(
    "--column", "columns", multiple=True, metavar="OURS=THEIRS", help="E.g. --column user_id=userId; may be repeated."
)
@click.option("--movies", type=click.Path(), help="Parquet or CSV of movies, beside a Parquet or CSV SOURCE.")
@click.option("--users", type=click.Path(), help="Parquet or CSV of users, likewise.")
@WAIT
@click.pass_context
def ingest(
    ctx: click.Context, source: str, columns: tuple[str, ...], movies: str | None, users: str | None, wait: float
) -> Answer:
    """Add ratings to the lake; what is there already is not added again.

    SOURCE is movielens/100k, /1m, /latest-small, /20m or /25m (through TensorFlow Datasets), a GroupLens zip, or a
    Parquet or CSV file, folder or glob.
    """
    from jobs import ingest as job
    from jobs import show
    from jobs.progress import Progress

    settings = settings_of(ctx)
    pairs = [pair.partition("=") for pair in columns]
    if not all(theirs for _, _, theirs in pairs):
        raise click.BadParameter("expected OURS=THEIRS", param_hint="--column")
    own = {name: column for name, column in vars(settings.input.columns).items() if name != "ingested_at"}
    mapping = {**own, **{ours: theirs for ours, _, theirs in pairs}}
    progress = Progress.on_terminal(ctx.find_root().obj["quiet"])
    done = job.ingest(settings, source, mapping, movies, users, wait, progress)
    following = f"recjob nightly --date {done['last_rated_at'][:10]}"
    if settings.input.ratings:
        following = f"take out input.ratings ({settings.input.ratings}): a night reads the lake only without it"
    return done, f"{show.facts(done)}\n\nnext: {following}"


def _night(ctx: click.Context, until: str, word: str, options: dict[str, Any]) -> Answer:
    from jobs import show
    from jobs.nightly import nightly

    record = nightly(*_chosen(ctx, until, word, options))
    return record, show.run(record)


def _chosen(ctx: click.Context, until: str, word: str, options: dict[str, Any]) -> tuple[Settings, date, Any]:
    """What was asked for with the options of a night, as its job takes it."""
    from jobs.nightly import Options
    from jobs.progress import Progress

    keys = {
        "top_n": "score.top_n",
        "batch_size": "score.batch_size",
        "memory": "score.memory_gib",
        "shards": "score.shards",
        "engine": "score.engine",
        "device": "score.device",
        "include_seen": "score.include_seen",
        "seed": "model.seed",
    }
    settings = settings_of(ctx, {keys[name]: options.pop(name) for name in keys if name in options})
    force, reason = options.pop("force", False), options.pop("reason", None)
    if force and not reason:
        raise click.UsageError("--force needs --reason TEXT: it is recorded with the run")
    signals.end_after(options.pop("timeout", None) or 0)
    progress = Progress.on_terminal(ctx.find_root().obj["quiet"])
    chosen = Options(until=until, force=reason if force else None, progress=progress, **options)  # type: ignore[arg-type]
    return settings, day_of(word, settings), chosen


@recjob.command(cls=Job)
@DATE
@INPUT[0]
@INPUT[1]
@WAIT
@click.pass_context
def check(ctx: click.Context, /, word: str, **options: Any) -> Answer:
    """Validate the input of a date, and do nothing else."""
    return _night(ctx, "check", word, options)


@recjob.command(cls=Job)
@DATE
@INPUT[0]
@INPUT[1]
@FORCE[0]
@FORCE[1]
@SEED
@click.option("--hosts", is_flag=True, help="Train together with the hosts of TF_CONFIG, which run the same command.")
@WAIT
@TIMEOUT
@click.pass_context
def train(ctx: click.Context, /, word: str, hosts: bool, **options: Any) -> Answer:
    """Retrain as of a date: measure, judge, register; nothing is scored."""
    if not hosts:
        return _night(ctx, "train", word, options)
    from jobs import hosts as job
    from jobs import show

    record = job.train(*_chosen(ctx, "train", word, options))
    return record, show.run(record)


@recjob.command(cls=Job)
@DATE
@click.option("--no-publish", is_flag=True, help="Stage the lists only; readers see no change.")
@click.option("--shard", type=Part(), help="Score and keep one of N parts only, e.g. 3/8; --shards 8 takes them all.")
@DRY_RUN
@of_a_run
@click.pass_context
def score(ctx: click.Context, /, word: str, no_publish: bool, **options: Any) -> Answer:
    """Score every user as of a date and publish the lists; trains first if no model is registered for the date.

    With --shard it trains and publishes nothing, and any number of processes and machines may do so at once.
    """
    if (part := options.pop("shard")) is None:
        return _night(ctx, "stage" if no_publish else "publish", word, options)
    if options["shards"] or options["force"] or options["dry_run"]:
        raise click.UsageError("--shard keeps a part for a run with --shards, which takes --force and --dry-run")
    from jobs import shards, show

    settings, day, chosen = _chosen(ctx, "stage", word, options)
    record = shards.score(settings, day, part, chosen)
    return record, show.run(record)


@recjob.command(cls=Job)
@DATE
@DRY_RUN
@of_a_run
@click.pass_context
def nightly(ctx: click.Context, /, word: str, **options: Any) -> Answer:
    """Check, train, score, publish, report, prune: what the scheduler runs."""
    return _night(ctx, "prune", word, options)


@recjob.command(cls=Job)
@DATE
@of_a_run
@click.pass_context
def plan(ctx: click.Context, /, word: str, **options: Any) -> Answer:
    """Stage the lists of a date, and say how they differ from those that readers see; `score` publishes them."""
    from jobs import compare, show

    done = compare.plan(*_chosen(ctx, "stage", word, options))
    return done, f"{show.run(done['run'])}\n\n{show.difference(done['difference'])}"


@recjob.command(cls=Job)
@click.option("--from", "first", type=AsOf(), required=True, help="First date.")
@click.option("--to", "last", type=AsOf(), required=True, help="Last date.")
@click.option("--only", type=click.Choice(["missing", "failed", "all"]), default="missing", show_default=True)
@click.option("--dry-run", is_flag=True, help="Only say which dates would run.")
@WAIT
@click.pass_context
def backfill(ctx: click.Context, first: str, last: str, only: str, dry_run: bool, wait: float) -> Answer:
    """Make the dates that are missing, oldest first; exit 10 if some failed."""
    from jobs import backfill as job
    from jobs import show
    from jobs.nightly import Options
    from jobs.progress import Progress

    settings = settings_of(ctx)
    start, end = day_of(first, settings), day_of(last, settings)
    if start > end:
        raise click.UsageError(f"--from {start} is after --to {end}")
    if dry_run:
        days = [str(day) for day in job.wanted(settings, start, end, only)]  # type: ignore[arg-type]
        return {"dry_run": True, "dates": days}, "\n".join(days) or "nothing to do"
    options = Options(wait=wait, progress=Progress.on_terminal(ctx.find_root().obj["quiet"]))
    done = job.backfill(settings, start, end, only, options)  # type: ignore[arg-type]
    rows = [(day["as_of_date"], day["status"], day.get("run_id") or day.get("error")) for day in done["dates"]]
    return (
        done,
        show.table(["as of", "status", "run"], rows) if rows else "nothing to do",
        exits.PARTIAL if done["failed"] else exits.DONE,
    )


for _command in (*experiments.EXPERIMENTS, *lookups.LOOKUPS, *upkeep.UPKEEP):
    recjob.add_command(_command)
