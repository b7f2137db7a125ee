"""The commands that look after what recjob keeps."""

from typing import Any

import click

from jobs.cli import Answer, Job, settings_of


@click.command(cls=Job)
@click.option("--user", "users", multiple=True, help="The user's id, as in the source; may be repeated.")
@click.option(
    "--file", type=click.File(encoding="utf-8"), help="Ids, one a line; - is stdin, so that no shell keeps them."
)
@click.option("--let-in", is_flag=True, help="Only take them off the list of who is kept out.")
@click.option("--wait", type=click.FloatRange(0), default=0.0, help="Seconds to wait for another run to end.")
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


UPKEEP = (forget,)
