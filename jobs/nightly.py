"""The path of a night: check > train > score > publish > report > prune. The other jobs are parts of it."""

import dataclasses
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date, datetime
from importlib.metadata import version
from typing import Any, Literal

import pyarrow as pa

from jobs import (
    configuration,
    engine,
    exits,
    expected,
    forget,
    hooks,
    inputs,
    mend,
    metrics,
    prune,
    publish,
    registry,
    rules,
    signals,
    space,
    state,
)
from jobs import run as journals
from jobs.inputs import Night
from jobs.progress import QUIET, Progress
from jobs.run import Journal, Run, Trigger
from jobs.settings import Settings
from recommender.errors import GateRefused, RecommenderError
from storage import atomic, digest, forgotten, models, runs, warehouse
from storage.errors import DiskFailed, StorageError
from storage.models import Model

logger = logging.getLogger(__name__)
Until = Literal["check", "train", "stage", "publish", "prune"]
_TRAINS = ("check", "train")
"""Where no lists are asked for, a model that is pinned changes nothing."""
_MADE = ("model_version", "n_users", "n_movies", "top_n", "device", "output_digest", "metrics", "checks")
"""What the record of a run says of lists, whoever made them."""


@dataclass(frozen=True)
class Options:
    """How one attempt differs from another with the same settings."""

    trigger: Trigger = "manual"
    until: Until = "prune"
    """The last step to take."""
    model: str = ""
    """train (find the model of these ratings, or train it), champion, or a version; by default the pinned one, or train."""
    force: str | None = None
    """The reason to score again what is already there, and to use a model or publish lists that the gate refuses."""
    accept_input: bool = False
    """Take ratings that are far fewer than before, too old, or changed without being written; recorded as overridden."""
    known_at: datetime | None = None
    """Leave out ratings that arrived from this instant on: the run as it was, or would have been, then."""
    dry_run: bool = False
    """Read and check the input only, and say in the record what would be left to do."""
    strict: bool = False
    """Fail when the gate refuses, instead of scoring with the champion."""
    wait: float = 0.0
    """Seconds to wait for another run to end."""
    progress: Progress = QUIET


def nightly(settings: Settings, as_of: date, options: Options = Options()) -> dict[str, Any]:
    """Run one night for `as_of` as far as `options.until`; returns the record of the run.

    The same inputs again are nothing to do. Whatever is raised, readers see what they saw before. The hooks are called last.
    """
    state.take_up(settings, options.wait)
    run = journals.new_run(as_of, settings.timezone, options.trigger, after=_newest(settings))
    with _told(settings, run):
        return _night(settings, run, options)


def release(settings: Settings, run_id: str = "", wait: float = 0.0) -> dict[str, Any]:
    """Publish what is staged, nothing read, trained or scored; returns the record of the run that did.

    `run_id`, or its beginning, says whose lists to show for their date: newer ones of it are taken for rolled back, and it no
    longer is. By default the newest that is staged. Raises `NotFound`; `AuditFailed`, and then readers see what they saw.
    """
    state.take_up(settings, wait)
    chosen = publish.releasable(settings, run_id)
    run = journals.new_run(chosen.as_of, settings.timezone, after=_newest(settings))
    options = Options(until="publish")
    with _told(settings, run), state.held(settings, wait, run.id), _recorded(settings, run, options) as journal:
        _clean(settings)
        rebuild = mend.mend(settings)
        shown = publish.visible(settings).get(str(chosen.as_of), {})
        journal.note(
            **{name: chosen.record[name] for name in ("input_digest", "n_ratings", *_MADE) if name in chosen.record}
        )
        if not rebuild and shown.get("run_id") == chosen.run_id:
            journal.finish("unchanged")
            return journal.record
        publish.take_up(settings, chosen)
        publish.publish(settings, journal)
        journal.finish("published")
        return journal.record


@contextmanager
def _told(settings: Settings, run: Run) -> Iterator[None]:
    """Tell others how the run ended, once it has."""
    try:
        yield
    finally:
        record = settings.journal / f"{run.id}.json"
        metrics.write(settings, record)
        hooks.after(settings.hooks, record)


def _night(settings: Settings, run: Run, options: Options) -> dict[str, Any]:
    as_of = run.as_of
    with state.held(settings, options.wait, run.id), _recorded(settings, run, options) as journal:
        _clean(settings)
        options = with_pin(settings, options)
        visible = options.until in ("publish", "prune")
        rebuild = visible and not options.dry_run and mend.mend(settings)
        night = check(settings, run, journal, options)
        if options.until == "check":
            journal.finish("checked")
            return journal.record
        key = _input_digest(night, settings, options)
        journal.note(input_digest=key, n_ratings=night.ratings.num_rows)
        if options.dry_run:
            journal.finish("checked", would=_left_to_do(settings, as_of, key, options))
            return journal.record
        if visible and not rebuild and options.force is None and _shown_key(settings, as_of) == key:
            journal.finish("unchanged")
            logger.info("unchanged", extra={"as_of": str(as_of)})
            if options.until == "prune":
                prune.prune(settings)  # the run that published may have been killed before it did
            return journal.record
        if options.until != "train" and options.force is None:
            publish.demand_wanted(settings, as_of)
        if visible:
            publish.demand_place(settings, as_of, night.ratings.schema)
        anew = not visible or options.strict or options.force is not None
        if anew or not _is_staged(settings, as_of, key, journal):
            space.check(settings, night)
            engine.check(settings)
            model = _model(night, settings, run, journal, options)
            if options.until == "train":
                journal.finish("trained")
                return journal.record
            from jobs import score

            score.stage(night, model, settings, run, journal, options.progress, options.force)
        if options.until == "stage":
            journal.finish("staged")
            return journal.record
        publish.publish(settings, journal)
        journal.finish("published")
        if options.until == "prune":
            _report(settings, run, night.ratings)
            prune.prune(settings)
        return journal.record


@contextmanager
def _recorded(settings: Settings, run: Run, options: Options) -> Iterator[Journal]:
    """The journal of the run, closed with what ended it; a whole night that was refused or failed has a report that says so."""
    facts = {
        "recjob_version": version("recjob"),
        "seed": settings.recipe.train.seed,
        "config_digest": digest.of_values(configuration.flat(settings)),
    }
    now = warehouse.current(settings.database)
    crashed = journals.mark_crashed(settings.journal, warehouse.run_id_of(now) if now else "")
    journal = Journal.start(settings.journal, run, **facts)
    try:
        for run_id in crashed:
            logger.warning("run.crashed", extra={"crashed": run_id})
        logger.info("run.start", extra={"as_of": str(run.as_of), "watermark": run.watermark.isoformat()})
        with signals.told():
            yield journal
    except (StorageError, RecommenderError) as error:
        status = "refused" if isinstance(error, GateRefused) else "failed"
        _close(journal, status, error.kind, str(error), exits.code(error))
        if options.until == "prune":
            _report(settings, run)
        raise
    except KeyboardInterrupt:
        _close(journal, "cancelled", "E_SIGNAL", "interrupted", exits.SIGINT)
        raise
    except signals.Stopped as stop:
        _close(journal, "cancelled", stop.kind, stop.why, stop.code)
        raise
    except BaseException as error:
        _close(journal, "failed", "E_BUG", f"{type(error).__name__}: {error}", exits.BUG)
        raise


def _close(journal: Journal, status: str, kind: str, message: str, code: int) -> None:
    """Close the record of a run that ended early. On a full disk it stays open, and is found to have crashed."""
    try:
        journal.finish(status, error_kind=kind, error_message=message, exit_code=code)
    except DiskFailed as error:
        logger.warning("journal.failed", extra={"why": str(error)})


def _report(settings: Settings, run: Run, ratings: pa.Table | None = None) -> None:
    """Write the report of a run that has ended. Where that fails it is a warning, and the run ends as it would have."""
    if not settings.publish.keep_reports:
        return
    from jobs import report  # a template and pictures come with it

    try:
        report.write(settings, run.id, ratings)
    except Exception as error:  # lists that readers see must not count as failed for want of a picture
        signals.check()
        logger.warning("report.failed", extra={"why": f"{type(error).__name__}: {error}"}, exc_info=error)


def _newest(settings: Settings) -> str:
    """The newest run that has left a trace."""
    journal = [path.stem for path in settings.journal.glob("*.json")]
    staged = [path.name.removeprefix("run=") for path in settings.runs.glob("as_of=*/run=*")]
    return max([*journal, *staged, *map(warehouse.run_id_of, warehouse.versions(settings.published))], default="")


def _clean(settings: Settings) -> None:
    """Remove what killed runs left behind, and finish what a killed `forget` began; safe because this run holds the lock."""
    swept = atomic.sweep(settings.state_dir, below=False)
    for folder in settings.guarded:
        swept += atomic.sweep(folder)
    for draft in swept:
        logger.info("swept", extra={"draft": draft.name})
    listed = forgotten.load(settings.state_dir)
    if listed.pending:
        erased, damaged = forget.finish(settings, listed)
        logger.warning("forget.resumed", extra={"erased": erased, "damaged": list(map(str, damaged))})


def check(settings: Settings, run: Run, journal: Journal, options: Options) -> Night:
    """Read the input of a run, and raise what keeps it from being used."""
    with journal.step("check") as step:
        night = inputs.read(settings, run.watermark, options.known_at, options.progress)
        night = rules.applied(night, settings, run.as_of)
        step.rows = night.ratings.num_rows
        history = journals.records(settings.journal, settings.lock)
        night.checks.extend(expected.verdicts(night, settings, run, history, options.accept_input))
        journal.note(inputs=night.files, rejected=night.rejected, checks=night.checks)
        expected.demand(night.checks)
    return night


def _input_digest(night: Night, settings: Settings, options: Options) -> str:
    """Everything the lists depend on."""
    champion = models.champion(settings.models) if options.model == "champion" else None
    return inputs.key_of(night, settings, champion.version if champion else options.model)


def _shown_key(settings: Settings, as_of: date) -> str | None:
    """The digest of what the lists that readers see for a date were made of, where they still are in `runs` as well."""
    shown = publish.visible(settings).get(str(as_of), {})
    there = {one.run_id for one in runs.every(settings.runs)}
    return shown["input_digest"] if shown.get("run_id") in there else None


def _left_to_do(settings: Settings, as_of: date, key: str, options: Options) -> str:
    """What a run with these options would do: nothing, publish (what is staged already) or score."""
    if options.force is None and (
        _shown_key(settings, as_of) == key or str(as_of) in publish.days_taken_back(settings)
    ):
        return "nothing"
    made = any(one.as_of == as_of and one.record.get("input_digest") == key for one in publish.staged(settings))
    return "publish" if made and not (options.strict or options.force) else "score"


def _is_staged(settings: Settings, as_of: date, key: str, journal: Journal) -> bool:
    """Whether a run that did not get to publish has made these lists already; the journal then says what they are."""
    for partition in publish.staged(settings):
        if partition.as_of == as_of and partition.record.get("input_digest") == key:
            journal.note(**{name: partition.record[name] for name in _MADE if name in partition.record})
            logger.info("score.found", extra={"staged_by": partition.run_id})
            return True
    return False


def with_pin(settings: Settings, options: Options) -> Options:
    """The options with the model that is meant where none is named: for lists the pinned one, if there is one, or `train`."""
    if options.model:
        return options
    pinned = models.pinned(settings.models) if options.until not in _TRAINS else None
    if pinned is None:
        return dataclasses.replace(options, model="train")
    logger.info("model.pinned", extra={"version": pinned.version})
    return dataclasses.replace(options, model=pinned.version)


def _model(night: Night, settings: Settings, run: Run, journal: Journal, options: Options) -> Model:
    engine.use_device(settings)
    if options.model == "train":
        from jobs import train  # TensorFlow comes with it: a night with nothing to do does without

        model = train.find_or_train(night, settings, run, journal, options.force, options.progress)
        if options.until == "train":
            return model
        model = train.choose(model, settings, options.force, strict=options.strict)
    else:
        model = registry.find(settings, options.model)
    journal.note(checks=[*journal.record["checks"], *registry.from_future(model, run)])
    return model
