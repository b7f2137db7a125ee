"""The state folder, held by one run at a time, and of this version."""

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path

from jobs import iceberg, kept
from jobs import run as journals
from jobs.allowed import InvalidSettings
from jobs.settings import Settings
from storage import atomic, rebuild, runs, state
from storage.rebuild import RunFacts

logger = logging.getLogger(__name__)


@contextmanager
def held(settings: Settings, wait: float, holder: str) -> Iterator[None]:
    """Hold the lock of the state folder, which an older recjob may have written: then it is first brought to this version.

    With `store.url` what is newer there is taken up before, and what is new here is copied there after; the tables of
    `publish.iceberg` follow. Raises `Busy`; `StateVersion` where a newer one has written it, and then nothing was touched;
    `NoPermission`; what `kept.kept` and `iceberg.followed` do.
    """
    state.check(settings.state_dir)
    with (
        atomic.lock(settings.lock, wait, holder),
        iceberg.followed(settings, holder),
        kept.kept(settings, holder),
    ):
        noted = state.check(settings.state_dir)
        if os.geteuid() == 0 and (noted == 0 or settings.state_dir.stat().st_uid != 0):
            logger.warning(
                "run.as_root", extra={"why": "a user of its own needs none of these rights, and owns what it writes"}
            )
        if noted < state.VERSION:
            rebuilt = rebuild.migrate(settings.published, settings.database, run_facts(settings))
            state.note(settings.state_dir, version("recjob"))
            if rebuilt:
                logger.info("state.migrated", extra={"published_files": rebuilt, "state_version": state.VERSION})
        yield


@contextmanager
def shared(settings: Settings, wait: float) -> Iterator[None]:
    """Share the state folder with others that add what nobody else writes; no run, `forget` or prune is at work meanwhile.

    Raises what `held` does.
    """
    if state.check(settings.state_dir) < state.VERSION:
        with held(settings, wait, "shard"):  # brings it to this version
            pass
    with atomic.shared_lock(settings.lock, wait):
        state.check(settings.state_dir)
        yield


def take_up(settings: Settings, wait: float) -> None:
    """Take up what the store has where nothing, or half of it, is here: for whoever looks before it holds the lock."""
    if kept.is_to_be_taken_up(settings):
        with held(settings, wait, "taking up"):
            pass


def place_for(target: Path, settings: Settings) -> Path:
    """Where a file is written that somebody asked for: links are followed. Raises `InvalidSettings`.

    A file appears whole, by a rename: that would put it in the place of a pipe or a device, or of what readers open.
    """
    place = target.resolve()
    if place.is_relative_to(settings.state_dir.resolve()):
        raise InvalidSettings(
            f"{target} is in the state folder", hint="name a file elsewhere: recjob alone writes there"
        )
    if (target.exists() and not target.is_file()) or target.name == "-":
        raise InvalidSettings(f"{target} is no plain file", hint="name one; recjob query --format csv prints to stdout")
    if not place.parent.is_dir():
        raise InvalidSettings(f"the folder of {target} does not exist", hint=f"mkdir -p {place.parent}")
    return place


def run_facts(settings: Settings) -> dict[str, RunFacts]:
    """What the journal says of each run, with the digest of its lists as they are staged now."""
    digests = {partition.run_id: partition.record["output_digest"] for partition in runs.every(settings.runs)}
    facts = {}
    for path in sorted(settings.journal.glob("*.json")):
        record = journals.read(path)
        run_id, digest = record["run_id"], record.get("output_digest")
        if run_id in digests and digests[run_id] != digest:
            atomic.write_json(path, record | {"output_digest": digests[run_id]})
        facts[run_id] = RunFacts(record.get("error_message"), digests.get(run_id, digest), run_id in digests)
    return facts
