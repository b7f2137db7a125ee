"""Training on several devices, of one machine or of several: each takes its part of a batch, and gradients are added up.

Every device has all weights (`tf.distribute`). A batch is cut into as many parts, in order, and the loss of a part counts by
its share of the rows: for a batch of ratings the gradient is that of one device but for its last bits, for one of users it is
so on average.
"""

import hashlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from typing import Any

from recommender.errors import HostsFailed
from recommender.tensorflow import hosts, tf, traced

_LOST = (tf.errors.UnavailableError, tf.errors.AbortedError, tf.errors.CancelledError, tf.errors.DeadlineExceededError)
"""What a collective operation raises where another host has gone."""


@cache
def strategy(devices: int) -> Any:
    """What trains on so many GPUs of this machine, 0 for all of them, or on all hosts that were joined; None for one device.

    The same for every training of a process: two would take each other's sums for their own.
    """
    if hosts is not None:
        return hosts
    kind = "GPU" if tf.config.list_logical_devices("GPU") else "CPU"
    found = [device.name for device in tf.config.list_logical_devices(kind)]
    chosen = found[: devices or None]
    return tf.distribute.MirroredStrategy(chosen) if len(chosen) > 1 else None


def agree(task: Mapping[str, str]) -> None:
    """Raise `HostsFailed`, with the names of what differs, unless all hosts that train together say the same."""
    if hosts is None:
        return
    own = [int.from_bytes(hashlib.sha256(said.encode()).digest()[:7]) for said in task.values()]  # positive as int64
    found = hosts.gather(hosts.run(lambda: tf.constant([own], tf.int64)), axis=0).numpy()  # (hosts, parts)
    differ = [name for name, said in zip(task, found.T, strict=True) if (said != said[0]).any()]
    if differ:
        raise HostsFailed(
            f"the hosts do not train the same: {', '.join(differ)} {'differ' if differ[1:] else 'differs'}",
            hint="they need the same --date, recjob.toml, ratings, state folder and version of recjob",
        )


@contextmanager
def reachable() -> Iterator[None]:
    """Say so where another host has gone."""
    try:
        yield
    except _LOST as error:
        hint = "start all of them again: training goes on where the first one kept it last"
        raise HostsFailed("another host was lost, and this one cannot go on without it", hint=hint) from error


def step(model: Any, signature: Any, strategy: Any) -> Callable[[Any], dict[str, Any]]:
    """One step of training on a batch: it moves the weights, and returns the metrics so far."""
    if strategy is None:
        found: Callable[[Any], dict[str, Any]] = traced(model.train_step, input_signature=[signature])
        return found

    def everywhere(batch: dict[str, Any]) -> dict[str, Any]:
        strategy.run(lambda whole: _part(model, whole), args=(batch,))
        return {metric.name: metric.result() for metric in model.metrics}

    spread: Callable[[Any], dict[str, Any]] = traced(everywhere, input_signature=[signature])
    return spread


def _part(model: Any, batch: dict[str, Any]) -> None:
    """What one device does of a step."""
    context = tf.distribute.get_replica_context()
    number, of = tf.cast(context.replica_id_in_sync_group, tf.int32), context.num_replicas_in_sync
    columns = {name: column for name, column in batch.items() if name != "seed"}
    rows = tf.shape(next(iter(columns.values())))[0]
    start, stop = rows * number // of, rows * (number + 1) // of
    share = tf.cast(stop - start, tf.float32) / tf.cast(rows, tf.float32)
    start = tf.minimum(start, rows - 1)  # a part without rows has one, that does not count
    own = {name: column[start : tf.maximum(stop, start + 1)] for name, column in columns.items()}
    if "seed" in batch:
        own["seed"] = batch["seed"] + tf.stack([number * 65_537, 0])  # each leaves out others
    with tf.GradientTape() as tape:
        loss = share * (model.compute_loss(own, training=True) + sum(model.losses))
    variables = model.trainable_variables
    model.optimizer.apply_gradients(zip(tape.gradient(loss, variables), variables, strict=True))
