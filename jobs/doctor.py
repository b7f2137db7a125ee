"""Everything that could keep tonight from working, looked at beforehand; nothing is changed."""

import os
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from jobs import engine, iceberg, inputs, kept, mend, query, schedule
from jobs import run as journals
from jobs.allowed import InvalidSettings
from jobs.settings import Settings
from recommender.errors import RecommenderError
from storage import atomic, forgotten, held, models, remote, runs, shards, state, tabular, warehouse
from storage.errors import FIRST, StorageError

State = Literal["good", "warn", "bad"]
_NIGHTS = 3
"""Nights like the largest so far that should fit on the disk."""


@dataclass(frozen=True)
class Finding:
    """One thing looked at."""

    check: str
    state: State
    message: str
    hint: str = ""


def examine(settings: Settings) -> dict[str, Any]:
    """Look at everything; `state` is the worst of the findings."""
    findings = [finding for look in _LOOKS for finding in _told(look, settings)]
    worst = max((finding.state for finding in findings), key=("good", "warn", "bad").index)
    return {"state": worst, "findings": [asdict(finding) for finding in findings]}


def _told(look: Callable[[Settings], Iterator[Finding]], settings: Settings) -> Iterator[Finding]:
    """What a look finds; an error that stops it is a finding, too."""
    try:
        yield from look(settings)
    except (StorageError, RecommenderError, InvalidSettings) as error:
        yield Finding(look.__name__.lstrip("_"), "bad", str(error), error.hint)


def _state_folder(settings: Settings) -> Iterator[Finding]:
    root = settings.state_dir
    version = state.check(root)
    if not root.is_dir():
        yield Finding("state folder", "warn", f"{root} is not there yet", "the first run makes it")
    elif not os.access(root, os.W_OK):
        yield Finding("state folder", "bad", f"{root} cannot be written", "run as its owner")
    else:
        yield Finding("state folder", "good", f"{root}, version {version or 'of none yet'}")
    if os.geteuid() == 0:
        yield Finding("user", "warn", "this is root", "a user of its own needs none of these rights")


def _disk(settings: Settings) -> Iterator[Finding]:
    folders = (settings.models, settings.runs, settings.published)
    newest = [max((path for path in folder.glob("*") if not path.is_symlink()), default=folder) for folder in folders]
    needed, free = _NIGHTS * sum(map(atomic.size, newest)), atomic.free(settings.state_dir)
    kind: State = "good" if free > needed else "warn"
    message = f"{free / 2**30:.1f} GiB free, {_NIGHTS} nights like the last take {needed / 2**30:.2f} GiB"
    yield Finding(
        "disk", kind, message, "" if kind == "good" else "make room, or lower publish.retention_dates and keep_files"
    )


def _input(settings: Settings) -> Iterator[Finding]:
    for name, url in inputs.remote_sources(settings).items():
        found = remote.objects_of(url)
        told = f"{len(found)} files, {sum(one.size for one in found) / 2**20:.0f} MiB, at {url}"
        yield Finding("input", "good", f"{name}: {told}; recjob check fetches and looks into them")
    source = settings.input.ratings or str(settings.lake / "ratings")
    files = [] if "ratings" in inputs.remote_sources(settings) else tabular.files_of(source)
    named = [*files, *map(Path, settings.rules.files.values())]
    unreadable = [path for path in named if not os.access(path, os.R_OK)]
    if unreadable:
        yield Finding("input", "bad", f"{unreadable[0]} cannot be read", "is it there? chmod, or run as another user")
    elif files:
        size = sum(path.stat().st_size for path in files)
        yield Finding(
            "input", "good", f"{len(files)} files of ratings, {size / 2**20:.0f} MiB; recjob check looks into them"
        )


def _published(settings: Settings) -> Iterator[Finding]:
    now = warehouse.current(settings.database)
    if now is None:
        yield Finding("published", "warn", "nothing is published yet", FIRST)
        return
    warehouse.check(now)
    if error := mend.lost_record(settings):
        raise error
    told = query.status(settings)
    yield Finding("published", "good", f"lists of {told['as_of_date']}, {told['hours_old'] or 0:.0f} h old, whole")
    for log in (*settings.published.glob("*.wal"), *settings.state_dir.glob("*.wal")):
        yield Finding("published", "warn", f"{log} is a stray write-ahead log", "the next night puts it aside")


def _forgotten(settings: Settings) -> Iterator[Finding]:
    listed = forgotten.load(settings.state_dir)
    kept_out = f"{len(listed.hashes)} people are kept out"
    if listed.pending:
        hint = "the next night finishes that, or recjob forget again, with the same ids"
        yield Finding("forgotten", "warn", f"{kept_out}, but something of theirs may still be held", hint)
    elif listed.hashes:
        yield Finding("forgotten", "good", kept_out)


def _registry(settings: Settings) -> Iterator[Finding]:
    for folder in models.unreadable(settings.models):
        yield Finding("models", "bad", f"{folder}/manifest.json cannot be read", f"restore {folder}, or remove it")
    champion = models.champion(settings.models)
    if champion is None:
        yield Finding("models", "warn", "there is no champion yet", "recjob nightly")
        return
    models.contents(champion)
    yield Finding("models", "good", f"champion {champion.version}, {len(models.versions(settings.models))} versions")


def _staged(settings: Settings) -> Iterator[Finding]:
    partitions = runs.partitions(settings.runs)
    for partition in partitions:
        runs.verify(partition)
    yield Finding("staged lists", "good", f"{len(partitions)} dates, whole")
    for folder in runs.unrecorded(settings.runs):
        yield Finding("staged lists", "bad", f"{folder}/run.json is missing", runs.again(runs.day_of(folder)))
    for day, count in sorted(Counter(shards.every(settings.runs).values()).items()):
        yield Finding(
            "shards", "good", f"{count} of {day} wait for the others, or for recjob score --date {day} --shards"
        )


def _last_runs(settings: Settings) -> Iterator[Finding]:
    records = journals.records(settings.journal, settings.lock)
    if not records:
        return
    last = records[-1]
    good = last["status"] in ("published", "unchanged", "staged", "trained", "checked", "running")
    why = f": {last['error_message']}" if last.get("error_message") else ""
    yield Finding(
        "last run", "good" if good else "warn", f"{last['run_id']} of {last['as_of_date']} {last['status']}{why}"
    )
    if atomic.is_locked(settings.lock):
        yield Finding("lock", "good", "a run is working now")


def _store(settings: Settings) -> Iterator[Finding]:
    store = kept.of(settings)
    if store is None:
        return
    note, newest = store.note(), store.newest()
    if newest is None:
        yield Finding(
            "store", "warn", f"{store.url} has nothing yet", "the next run, or recjob sync, copies everything"
        )
        return
    if lost := store.lacking(newest):
        message = f"{store.url} lacks {len(lost)} files of {newest.name}, {lost[0]} for one"
        yield Finding("store", "bad", message, "recjob sync, on a machine whose state folder is whole")
        return
    here = held.of(settings.state_dir, note.held)
    if newest.name in (note.commit, note.next) and here == newest.held:
        yield Finding("store", "good", f"{store.url} has all {len(newest.held.files)} files, as of {newest.name}")
    elif (
        newest.name in (note.commit, note.next)
        or note.taking
        or here.essence == note.held.essence
        or held.is_empty(settings.state_dir)
    ):
        yield Finding(
            "store", "warn", f"{store.url} and {settings.state_dir} differ", "the next run, or recjob sync, ends that"
        )
    else:
        hint = "two machines work on one store: recjob sync --discard takes what the store has"
        yield Finding(
            "store", "bad", f"{store.url} has {newest.name} of another machine, and here is what is not there", hint
        )


def _iceberg(settings: Settings) -> Iterator[Finding]:
    if not settings.publish.iceberg:
        return
    iceberg.check(settings)
    if warehouse.current(settings.database) and iceberg.differ(settings):
        message = f"the tables of {settings.publish.iceberg} are not what readers see"
        yield Finding("iceberg", "warn", message, "the next run ends that")
    elif lost := iceberg.lost(settings):
        message = f"the tables of {settings.publish.iceberg} lack {', '.join(lost)}: the lists are not staged any more"
        yield Finding("iceberg", "warn", message, runs.again(lost[-1]))
    else:
        yield Finding("iceberg", "good", f"the tables of {settings.publish.iceberg} are what readers see")


def _schedule(settings: Settings) -> Iterator[Finding]:
    upcoming = schedule.upcoming(settings, 1)
    yield Finding("schedule", "good", f"next at {upcoming['next'][0]['at']}, for {upcoming['next'][0]['as_of_date']}")
    if upcoming["warning"]:
        yield Finding("schedule", "warn", upcoming["warning"], "schedule.timezone = UTC has no such nights")


def _told_afterwards(settings: Settings) -> Iterator[Finding]:
    """Hooks by their names only: what is called, and with what, is shown nowhere."""
    named = {f"hooks.{name}": getattr(settings.hooks, name) for name in ("on_success", "on_refusal", "on_failure")}
    for name, command in named.items():
        if command and shutil.which(command[0]) is None:
            yield Finding("hooks", "warn", f"{name} cannot be started", "is it there, and executable by this user?")
    if any(named.values()):
        yield Finding("hooks", "good", f"{sum(map(bool, named.values()))} configured")
    if settings.publish.metrics_file:
        folder = next(part for part in Path(settings.publish.metrics_file).absolute().parents if part.exists())
        usable = folder.is_dir() and os.access(folder, os.W_OK)
        wrong = "a run would do its work and then exit with 6"
        yield (
            Finding("metrics", "good", settings.publish.metrics_file)
            if usable
            else Finding(
                "metrics",
                "bad",
                f"{settings.publish.metrics_file} cannot be written: {wrong}",
                f"chown or chmod {folder}",
            )
        )


def _device(settings: Settings) -> Iterator[Finding]:
    engine.check(settings)
    from recommender import device  # TensorFlow comes with it

    yield Finding("device", "good", device.name())


_LOOKS = (
    _state_folder,
    _disk,
    _input,
    _published,
    _forgotten,
    _registry,
    _staged,
    _last_runs,
    _store,
    _iceberg,
    _schedule,
    _told_afterwards,
    _device,
)
