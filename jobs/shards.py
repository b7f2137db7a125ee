"""Score one part of the users by itself, beside processes and machines that score the others; `score.stage` takes all."""

import dataclasses
import logging
from datetime import date
from typing import Any

from jobs import engine, nightly, registry, space, state
from jobs import run as journals
from jobs.inputs import Night
from jobs.nightly import Options
from jobs.run import Journal
from jobs.settings import Settings
from storage import models
from storage.errors import NotFound
from storage.models import Model

logger = logging.getLogger(__name__)


def score(settings: Settings, as_of: date, part: tuple[int, int], options: Options) -> dict[str, Any]:
    """Score a shard for `as_of`, unless it is there, and keep it; returns what the record of a run would say.

    `part` is its number, from 1, and of how many. The model must be there: so many processes would train the same. The journal
    has no record of it, and no hook is called: it is a part of the run that stages the whole. Raises `Busy` where a run works
    in the state folder, `NotFound`, `GateRefused`, and what reading and scoring do.
    """
    number, of = part
    settings = dataclasses.replace(settings, score=dataclasses.replace(settings.score, shards=of))
    run = journals.new_run(as_of, settings.timezone, options.trigger)
    journal = Journal.start(None, run, shard={"number": number, "of": of})
    with state.shared(settings, options.wait):
        options = nightly.with_pin(settings, options)
        night = nightly.check(settings, run, journal, options)
        space.check(settings, night)
        model = _model(night, settings, as_of, options)
        from jobs import score as scoring

        journal.note(n_ratings=night.ratings.num_rows, model_version=model.version)
        made = scoring.shard(night, model, settings, run, journal, options.progress, number)
        journal.finish("scored" if made else "unchanged")
    return journal.record


def _model(night: Night, settings: Settings, as_of: date, options: Options) -> Model:
    """The model that the whole will be scored with."""
    engine.use_device(settings)
    if options.model != "train":
        return registry.find(settings, options.model)
    from jobs import train

    model = models.find(settings.models, train.key_of(night, settings))
    if model is None:
        hint = f"recjob train --date {as_of} makes it, once for all shards; --model champion takes the one in use"
        raise NotFound("no model has been trained for these ratings, and a shard trains none", hint=hint)
    return train.choose(model, settings, options.force, strict=options.strict)
