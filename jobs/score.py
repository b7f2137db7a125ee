"""Score every user known by the watermark and stage the lists."""

import dataclasses
import json
import logging
import time
from collections.abc import Iterator
from functools import partial
from typing import Any

import pyarrow as pa

from jobs import plausible, publish, rules, train
from jobs.inputs import Night
from jobs.progress import Progress
from jobs.run import Journal, Run
from jobs.settings import Settings
from recommender import device, history, schema, score, similar
from recommender.candidates import Candidates
from recommender.errors import ListsRefused
from recommender.ready import Ready
from storage import lists, runs
from storage.errors import AuditFailed
from storage.models import Model
from storage.runs import RunPartition

logger = logging.getLogger(__name__)


def stage(
    night: Night, model: Model, settings: Settings, run: Run, journal: Journal, progress: Progress, force: str | None
) -> RunPartition:
    """Score all users in blocks and write the partition of the run; readers do not see it yet.

    Raises `NothingToRecommend`, `NonFiniteScores`, `OutOfMemory`, `AuditFailed`, and `ListsRefused` unless there is a reason
    to `force` them; then there is no partition that a later night could publish.
    """
    with journal.step("score") as step:
        allowed = rules.candidates_of(night, settings)
        include_seen, excluded = settings.score.include_seen, night.rules.excluded
        seen = history.of(night.ratings, night.users, allowed, include_seen=include_seen, excluded=excluded)
        memory = int(settings.score.memory_gib * 2**30) or None
        size = settings.score.batch_size or device.block_users(len(allowed), memory)
        logger.info("score.start", extra={"users": len(seen.users), "movies": allowed.own, "users_per_block": size})
        ready = train.load(model).ready(night.ratings, night.attributes)
        blocks = score.top_n(
            ready,
            allowed,
            seen,
            settings.score.top_n,
            users_per_block=size,
            exact=settings.score.exact,
            rounded=device.rounds(settings.score.precision),
            on_screen=lambda screening: logger.info("score.screened", extra=dataclasses.asdict(screening)),
            rules=night.rules,
        )
        journal.note(
            n_users=len(seen.users),
            n_movies=allowed.own,
            top_n=settings.score.top_n,
            model_version=model.version,
            device=device.name(),
        )
        partition = runs.stage(
            settings.runs,
            run.as_of,
            run.id,
            _streams(progress.over(_timed(blocks), "scoring users", len(seen.users), _users, "users")),
            {
                "recommendations": schema.recommendations(seen.users.type, allowed.ids.type),
                "user_status": schema.user_status(seen.users.type),
            },
            _tables(night, ready, allowed, settings.publish.similar_movies),
            _record(journal.record, model),
            partial(_inspected, night, settings, journal, force),
        )
        step.rows = partition.record["rows"]["recommendations"]
        if not step.rows:
            why = f"no movie is left to list: {len(seen.users)} users, {len(allowed)} candidates"
            logger.warning("score.no_lists", extra={"why": why})
    journal.note(output_digest=partition.record["output_digest"])
    return partition


def _tables(night: Night, ready: Ready, allowed: Candidates, similar_movies: int) -> dict[str, pa.Table]:
    """What is staged beside the lists: the catalogue, and which movies the model takes for alike."""
    tables = {"movies": night.catalogue}
    if similar_movies:
        began = time.perf_counter()
        tables["similar_movies"] = found = similar.nearest(ready, allowed, similar_movies)
        logger.info("score.similar", extra={"rows": found.num_rows, "seconds": round(time.perf_counter() - began, 3)})
    return tables


def _users(block: score.Block) -> int:
    return int(block.status.num_rows)


def _timed(blocks: Iterator[score.Block]) -> Iterator[score.Block]:
    """The blocks, with a line on each: one that has fewer users than the last was halved, as memory was short."""
    began = time.perf_counter()
    for block in blocks:
        took = time.perf_counter() - began
        logger.debug(
            "score.block", extra={"users": _users(block), "rows": block.recommendations.num_rows, "seconds": took}
        )
        yield block
        began = time.perf_counter()


def _streams(blocks: Iterator[score.Block]) -> Iterator[dict[str, pa.RecordBatch]]:
    for block in blocks:
        yield {"recommendations": block.recommendations, "user_status": block.status}


def _record(record: dict[str, Any], model: Model) -> dict[str, Any]:
    """What of the journal and the model belongs into the partition, so that it tells its whole story alone."""
    kept = {key: value for key, value in record.items() if key not in ("steps", "pid", "status")}
    manifest = {key: value for key, value in model.manifest.items() if key not in ("history", "files")}
    plain: dict[str, Any] = json.loads(json.dumps(kept | {"model": manifest}, default=str))
    return plain


def _inspected(
    night: Night, settings: Settings, journal: Journal, force: str | None, partition: RunPartition
) -> dict[str, Any]:
    """What is to be said of finished lists before they are staged: the verdicts on them, and nothing that was rated."""
    if not settings.score.include_seen and (found := lists.rated_before(partition, night.ratings)):
        raise AuditFailed(
            f"{found} recommended movies had been rated by their user; run {partition.run_id} was not published",
            hint="this is a bug in recjob: please report it",
        )
    if found := lists.kept_from(partition, night.rules.closed.values(), night.rules.excluded):
        raise AuditFailed(
            f"{found} recommended movies are kept out by a rule; run {partition.run_id} was not published",
            hint="this is a bug in recjob: please report it",
        )
    checks = plausible.checks(partition, publish.newest_before(settings, partition.as_of), settings, force)
    checks += rules.verdicts(partition, night)
    journal.note(checks=[*journal.record["checks"], *checks])
    if failed := [check["message"] for check in checks if check["verdict"] == "fail"]:
        raise ListsRefused("; ".join(failed))
    return {"checks": journal.record["checks"]}
