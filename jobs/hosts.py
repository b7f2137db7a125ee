"""Train on several hosts together: all run the same command, the first of them keeps what is made."""

import json
import logging
import os
import re
from collections.abc import Mapping
from datetime import date
from typing import Any

from jobs import engine, meeting, nightly, signals
from jobs import run as journals
from jobs.allowed import InvalidSettings
from jobs.nightly import Options
from jobs.run import Journal
from jobs.settings import Settings
from recommender import together
from recommender.errors import HostsFailed

logger = logging.getLogger(__name__)
_EXAMPLE = {"cluster": {"worker": ["a:2222", "b:2222"]}, "task": {"type": "worker", "index": 0}}
_SUCH = f"such as {json.dumps(_EXAMPLE)}"


def train(settings: Settings, as_of: date, options: Options) -> dict[str, Any]:
    """Train as of a date with the hosts that TF_CONFIG names; returns the record of the run.

    It waits for all of them. The first one then runs as if it were alone: it has the lock of the state folder, which all must
    see, and registers the model. The others read, take their part of each batch, and leave no trace. Raises
    `InvalidSettings`, `HostsFailed`.
    """
    number, names = place(os.environ)
    of = len(names)
    if of == 1:
        logger.warning("hosts.alone", extra={"why": "TF_CONFIG names this host only: it trains as without --hosts"})
    logger.info("hosts.waiting", extra={"host": number + 1, "of": of, "names": names})
    meeting.wait(names, number)
    together.joined, together.first = True, number == 0
    engine.use_device(settings)
    try:
        with signals.at_once():
            from jobs import train as training  # TensorFlow comes with it, joins the others, and keeps SIGTERM
    except ImportError:
        raise
    except Exception as error:  # of TensorFlow's own kinds, which are not there to be named
        hint = "is that port free here, and can the others reach it?"
        raise HostsFailed(f"the hosts of TF_CONFIG cannot meet: {str(error).splitlines()[0]}", hint=hint) from error
    logger.info("hosts.met", extra={"host": number + 1, "of": of})
    if together.first:
        return nightly.nightly(settings, as_of, options)
    run = journals.new_run(as_of, settings.timezone, options.trigger)
    journal = Journal.start(None, run, host={"number": number + 1, "of": of})
    night = nightly.check(settings, run, journal, options)
    with journal.step("train") as step:
        step.rows = night.ratings.num_rows
        trained = training.follow(night, settings, options.force, options.progress)
    journal.finish("trained" if trained else "unchanged")
    return journal.record


def place(environ: Mapping[str, str]) -> tuple[int, list[str]]:
    """Which of the hosts in TF_CONFIG this is, from 0, and the addresses of all; raises `InvalidSettings`."""
    if not environ.get("TF_CONFIG"):
        raise InvalidSettings("TF_CONFIG is not set: it says which hosts train, and which of them this is", hint=_SUCH)
    try:
        config = json.loads(environ["TF_CONFIG"])
        hosts = {kind: list(config["cluster"].get(kind, [])) for kind in ("chief", "worker")}
        kind, index = config["task"]["type"], int(config["task"]["index"])
        if kind not in hosts or not 0 <= index < len(hosts[kind]):
            raise ValueError(f"task {kind} {index} is not in its cluster")
        for host in (host for part in config["cluster"].values() for host in part):
            if not re.fullmatch(r"\S+:[0-9]+", host):
                raise ValueError(f"{host!r} has no port")
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InvalidSettings(f"TF_CONFIG does not say which of the hosts this is ({error})", hint=_SUCH) from error
    return index + (len(hosts["chief"]) if kind == "worker" else 0), hosts["chief"] + hosts["worker"]
