"""What scores: which device, and with `score.engine = "ray"` which actors of a cluster. Ray is an extra, imported only then."""

import contextlib
import importlib.util
import logging
import os
from collections.abc import Sequence
from typing import Any

from jobs import signals
from jobs.allowed import InvalidSettings
from jobs.inputs import Night
from jobs.progress import QUIET
from jobs.settings import Settings
from recommender.errors import EngineFailed
from storage.models import Model
from storage.shards import Shard

logger = logging.getLogger(__name__)
_AGAIN = 2
"""How often a lost actor is started anew, and its shard tried again."""


def check(settings: Settings) -> None:
    """Raise `InvalidSettings` where the engine cannot work, before anything else has taken its time."""
    if settings.score.engine != "ray":
        return
    if importlib.util.find_spec("ray") is None:
        raise InvalidSettings("score.engine is ray, and Ray is not installed", hint='pip install "recjob[ray]"')
    if settings.score.shards < 2:
        raise InvalidSettings("score.engine is ray, and there are no shards to give out", hint="--shards 8, say")


def score(night: Night, model: Model, settings: Settings, missing: Sequence[Shard]) -> None:
    """Score shards and keep them, on the cluster that `RAY_ADDRESS` names, or one that is started here and ends with this.

    An actor that is lost costs its shard, which is tried again; what others have finished stays. Raises `EngineFailed`,
    and whatever scoring raises.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # a night tells nobody
    import ray
    from ray.util import ActorPool

    with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere):  # where Ray tells of lost actors
        try:
            ray.init(os.environ.get("RAY_ADDRESS", "local"), log_to_driver=False, configure_logging=False)
            signals.heed()  # Ray takes SIGTERM
            machines = sum(node["Alive"] for node in ray.nodes())
            count = min(settings.score.actors or machines, len(missing))
            actor = ray.remote(max_restarts=_AGAIN, max_task_retries=_AGAIN, scheduling_strategy="SPREAD")(_Actor)
            facts = ray.put(
                night
            )  # held here, and given with each shard: what an actor was made with may be lost, Ray warns
            actors = [actor.remote(model, settings) for _ in range(count)]
            pids = ray.get([one.pid.remote() for one in actors])
            logger.info("score.actors", extra={"machines": machines, "actors": count, "pids": pids})
            scored = ActorPool(actors).map_unordered(lambda one, shard: one.score.remote([facts], shard), missing)
            for number, pid in scored:
                logger.info("score.shard", extra={"shard": number, "of": settings.score.shards, "by": pid})
        except SystemExit:  # Ray makes one of its own of the signal that interrupts it
            signals.check()
            raise
        except ConnectionError as error:
            hint = "is the cluster of RAY_ADDRESS up, and RAY_AUTH_TOKEN the one it was started with?"
            raise EngineFailed(f"no Ray cluster answers: {_line(error)}", hint=hint) from error
        except ray.exceptions.RayTaskError as error:
            raise error.cause from error
        except ray.exceptions.RayActorError as error:
            hint = "often memory: lower score.actors, or --memory; finished shards are kept, run it again"
            raise EngineFailed(f"an actor was lost, and {_AGAIN} in its place: {_line(error)}", hint=hint) from error
        finally:
            ray.shutdown()
            signals.heed()


def _line(error: Exception) -> str:
    return str(error).partition("\n")[0]


def use_device(settings: Settings) -> None:
    """Let TensorFlow have what `score.device` says, before it is imported; raises `NoDevice`."""
    if settings.score.device == "cpu":
        os.environ["CUDA_VISIBLE_DEVICES"] = "-1"
    if settings.score.device == "gpu":
        from recommender import device

        device.demand("gpu")


class _Actor:
    """Loads the model once, and scores shards."""

    def __init__(self, model: Model, settings: Settings) -> None:
        use_device(settings)
        self._model, self._settings = model, settings
        self._keeper: Any = None

    def pid(self) -> int:
        """Its process."""
        return os.getpid()

    def score(self, night: Sequence[Any], shard: Shard) -> tuple[int, int]:
        """Score a shard and keep it; its number, and by which process. `night` has one reference, of Ray's, to the `Night`."""
        if self._keeper is None:
            import ray

            from jobs import score as scoring

            work = scoring.Work.of(ray.get(night[0]), self._model, self._settings)
            self._keeper = scoring.Keeper(work, QUIET, 0)
        self._keeper.keep(shard)
        return shard.number, os.getpid()
