"""The commands that try things out; nothing that readers see depends on them."""

from pathlib import Path

import click

from jobs.cli import Answer, Job, day_of, settings_of
from jobs.options import WAIT, Amount, AsOf


@click.command(cls=Job)
@click.argument("name", required=False)
@click.option("--model", help="default, basic, tuned.  [default: the configured model]")
@click.option(
    "--split", type=click.Choice(["time-range", "newest", "last", "random"]), default="newest", show_default=True
)
@click.option(
    "--movie-key",
    type=click.Choice(["movie_id", "title"]),
    help="[default: title on time-range, as the article, else movie_id]",
)
@click.option("--seed", type=int)
@click.option(
    "--plot",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Draw epoch against RMSE here.  [default: STATE_DIR/reports/evaluate-MODEL-SPLIT.png]",
)
@click.option("--no-lists", is_flag=True, help="Measure predicted stars only: quicker where movies are many.")
@click.pass_context
def evaluate(
    ctx: click.Context,
    name: str | None,
    model: str | None,
    split: str,
    movie_key: str | None,
    seed: int | None,
    plot: Path | None,
    no_lists: bool,
) -> Answer:
    """Train a model on part of all ratings and measure it on the rest, beside the baselines.

    Measured are the predicted stars and the lists: of all movies a user has not rated, which come first.
    On the time-range split `basic` and `tuned` reproduce the article: 60 % / 20 % / 20 % of the time range.
    """
    from jobs import evaluate as job
    from jobs import show_experiments

    settings = settings_of(ctx)
    chosen = model or name or settings.model.name
    target = plot or settings.reports / f"evaluate-{chosen}-{split}.png"
    done = job.evaluate(settings, chosen, split, movie_key, seed, target, not no_lists)
    return done, show_experiments.evaluation(done)


@click.command(cls=Job)
@click.option("--model", help="The recipe to start from: default, basic, tuned.  [default: the configured model]")
@click.option("--trials", type=click.IntRange(1), help="Trials in all, those of earlier calls included.  [default: 30]")
@click.option("--timeout-minutes", "minutes", type=Amount(0, min_open=True), help="Begin no trial after this.")
@click.option("--study", help="The study's name.  [default: MODEL-SPLIT]")
@click.option("--split", type=click.Choice(["newest", "time-range", "random"]), default="newest", show_default=True)
@click.option("--preset", type=click.Choice(["article-learning-rate"]), help="A fixed grid in place of a search.")
@click.option("--only", multiple=True, metavar="NAME", help="Search this hyper-parameter; may be repeated.")
@click.option("--seed", type=int, help="Seed of the trainings and of the search.")
@WAIT
@click.option(
    "--plot",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Draw the trials here.  [default: STATE_DIR/reports/tune-STUDY.png]",
)
@click.pass_context
def tune(
    ctx: click.Context,
    model: str | None,
    trials: int | None,
    minutes: float | None,
    study: str | None,
    split: str,
    preset: str | None,
    only: tuple[str, ...],
    seed: int | None,
    wait: float,
    plot: Path | None,
) -> Answer:
    """Search a model's hyper-parameters on a validation part; the same call again goes on where the last one ended.

    Ctrl-C keeps the trials that are finished. The best is shown as lines for recjob.toml.
    """
    from jobs import show_experiments
    from jobs import tune as job

    settings = settings_of(ctx)
    search = job.Search(model or settings.model.name, split, preset, only, seed)
    target = plot or settings.reports / f"tune-{study or search.study}.png"
    done = job.tune(settings, search, trials=trials, minutes=minutes, study=study, wait=wait, plot=target)
    return done, show_experiments.tuning(done)


@click.command(cls=Job)
@click.option("--from", "first", type=AsOf(), required=True, help="The first night.")
@click.option("--to", "last", type=AsOf(), required=True, help="The last night, tested on the days after it.")
@click.option(
    "--every", type=click.IntRange(1), default=1, show_default=True, metavar="DAYS", help="From one night to the next."
)
@click.option(
    "--retrain",
    type=click.IntRange(1),
    multiple=True,
    metavar="DAYS",
    help="From one training to the next; may be repeated.  [default: each night, and 7 where the range is longer]",
)
@click.option("--model", help="The recipe to train: default, basic, tuned.  [default: the configured model]")
@click.option("--seed", type=int, help="Seed of the trainings.")
@click.option(
    "--plot",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Draw the nights here.  [default: STATE_DIR/reports/backtest-MODEL.png]",
)
@click.pass_context
def backtest(
    ctx: click.Context,
    first: str,
    last: str,
    every: int,
    retrain: tuple[int, ...],
    model: str | None,
    seed: int | None,
    plot: Path | None,
) -> Answer:
    """Play past nights again: what does retraining every night buy over every week, and over plain baselines?

    Each night knows what it would have known then, and is measured on the ratings of the days until the next.
    """
    from jobs import backtest as job
    from jobs import show_experiments

    settings = settings_of(ctx)
    start, end = day_of(first, settings), day_of(last, settings)
    if start > end:
        raise click.UsageError(f"--from {start} is after --to {end}")
    replay = job.Replay(model or settings.model.name, start, end, every, retrain, seed)
    target = plot or settings.reports / f"backtest-{replay.model}.png"
    done = job.backtest(settings, replay, target)
    return done, show_experiments.backtest(done)


EXPERIMENTS = (evaluate, tune, backtest)
