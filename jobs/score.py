"""Score every user known by the watermark and stage the lists."""

import dataclasses
import json
import logging
import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import date
from functools import partial
from importlib.metadata import version
from typing import Any

import pyarrow as pa

from jobs import engine, inputs, plausible, publish, rules, train
from jobs.inputs import Night
from jobs.progress import Progress
from jobs.run import Journal, Run
from jobs.settings import Settings
from recommender import device, history, schema, score, similar
from recommender.candidates import Candidates
from recommender.errors import ListsRefused
from recommender.grid import slices
from recommender.history import History
from recommender.ready import Ready
from storage import digest, lists, runs, shards
from storage.errors import AuditFailed
from storage.models import Model
from storage.runs import RunPartition
from storage.shards import Shard

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Work:
    """All users of a night, and what their lists are made from."""

    night: Night
    model: Model
    settings: Settings
    allowed: Candidates
    seen: History
    ready: Ready
    users_per_block: int

    @classmethod
    def of(cls, night: Night, model: Model, settings: Settings) -> "Work":
        """Load the model and look up what it needs."""
        allowed = rules.candidates_of(night, settings)
        include_seen, excluded = settings.score.include_seen, night.rules.excluded
        seen = history.of(night.ratings, night.users, allowed, include_seen=include_seen, excluded=excluded)
        memory = int(settings.score.memory_gib * 2**30) or None
        size = settings.score.batch_size or device.block_users(len(allowed), memory)
        logger.info("score.start", extra={"users": len(seen.users), "movies": allowed.own, "users_per_block": size})
        ready = train.load(model).ready(night.ratings, night.attributes)
        return cls(night, model, settings, allowed, seen, ready, size)

    def note(self, journal: Journal) -> None:
        """Tell the journal what it is."""
        journal.note(
            n_users=len(self.seen.users),
            n_movies=self.allowed.own,
            top_n=self.settings.score.top_n,
            model_version=self.model.version,
            device=device.name(),
        )

    @property
    def schemas(self) -> dict[str, pa.Schema]:
        """Of what is made for every user."""
        users = self.seen.users.type
        return {
            "recommendations": schema.recommendations(users, self.allowed.ids.type),
            "user_status": schema.user_status(users),
        }

    @property
    def parts(self) -> list[range]:
        """The users of each shard."""
        own = self.settings.score
        return slices(len(self.seen.users), own.shards)

    def blocks(self, progress: Progress, users: int, parts: Iterable[range] | None = None) -> Iterator[score.Block]:
        """The lists of `users`: of all, or of one of the `parts` after the other."""
        chosen = self.settings.score
        blocks = score.top_n(
            self.ready,
            self.allowed,
            self.seen,
            chosen.top_n,
            users_per_block=self.users_per_block,
            exact=chosen.exact,
            rounded=device.rounds(chosen.precision),
            on_screen=lambda screening: logger.info("score.screened", extra=dataclasses.asdict(screening)),
            rules=self.night.rules,
            parts=parts,
        )
        return progress.over(_timed(blocks), "scoring users", users, _users, "users")


def stage(
    night: Night, model: Model, settings: Settings, run: Run, journal: Journal, progress: Progress, force: str | None
) -> RunPartition:
    """Score all users in blocks and write the partition of the run; readers do not see it yet.

    Raises `NothingToRecommend`, `NonFiniteScores`, `OutOfMemory`, `AuditFailed`, and `ListsRefused` unless there is a reason
    to `force` them; then there is no partition that a later night could publish.
    """
    with journal.step("score") as step:
        work, whole = Work.of(night, model, settings), _shards(night, model, settings, run.as_of)
        work.note(journal)
        partition = runs.stage(
            settings.runs,
            run.as_of,
            run.id,
            _from_shards(work, whole, progress)
            if len(whole) > 1
            else _streams(work.blocks(progress, len(work.seen.users))),
            work.schemas,
            _tables(night, work.ready, work.allowed, settings.publish.similar_movies),
            _record(journal.record, model),
            partial(_inspected, night, settings, journal, force),
        )
        shards.remove(settings.runs, run.as_of)
        step.rows = partition.record["rows"]["recommendations"]
        if not step.rows:
            why = f"no movie is left to list: {len(work.seen.users)} users, {len(work.allowed)} candidates"
            logger.warning("score.no_lists", extra={"why": why})
    journal.note(output_digest=partition.record["output_digest"])
    return partition


def shard(
    night: Night, model: Model, settings: Settings, run: Run, journal: Journal, progress: Progress, number: int
) -> bool:
    """Score one of `score.shards` shards, from 1, and keep it for `stage`; False where it was there already.

    Raises what `stage` does before it looks at the lists.
    """
    one = _shards(night, model, settings, run.as_of)[number - 1]
    if shards.is_finished(settings.runs, one):
        return False
    with journal.step("score") as step:
        work = Work.of(night, model, settings)
        work.note(journal)
        step.rows = Keeper(work, progress, len(work.parts[number - 1])).keep(one)
    return True


class Keeper:
    """Scores shards, one after the other, and keeps each; what all of them need is looked up once."""

    def __init__(self, work: Work, progress: Progress, users: int) -> None:
        """`users` is how many there will be, for the bar."""
        self._work, self._wanted = work, deque[range]()
        self._blocks = work.blocks(progress, users, iter(self._wanted.popleft, None))

    def keep(self, one: Shard) -> int:
        """Score a shard and write it; returns its users. Raises what `score.top_n` does."""
        users = self._work.parts[one.number - 1]
        if users:
            self._wanted.append(users)
        blocks = _first(self._blocks, len(users))
        shards.write(self._work.settings.runs, one, _streams(blocks), self._work.schemas)
        logger.debug("score.shard", extra={"shard": one.number, "of": one.of, "users": len(users)})
        return len(users)


def _shards(night: Night, model: Model, settings: Settings, as_of: date) -> list[Shard]:
    """The shards of a night in the order of their users; the key is of all that the lists depend on."""
    lists_of = inputs.key_of(night, settings, model.version)
    key = digest.of_values(lists_of, settings.score.exact, version("recjob"))
    return [Shard(as_of, number + 1, settings.score.shards, key) for number in range(settings.score.shards)]


def _from_shards(work: Work, whole: Sequence[Shard], progress: Progress) -> Iterator[dict[str, pa.RecordBatch]]:
    """The lists of all shards; one that is not finished is scored, and kept before the next is."""
    root = work.settings.runs
    missing = [one for one in whole if not shards.is_finished(root, one)]
    if len(missing) < len(whole):
        goes_on_at = missing[0].number if missing else None
        finished = len(whole) - len(missing)
        logger.info("score.resumed", extra={"finished": finished, "of": len(whole), "goes_on_at": goes_on_at})
    if work.settings.score.engine == "ray" and missing:
        engine.score(work.night, work.model, work.settings, missing)
        missing = []
    keeper = Keeper(work, progress, sum(len(work.parts[one.number - 1]) for one in missing))
    for one in whole:
        if one in missing:
            keeper.keep(one)
        yield from shards.read(root, one, work.schemas)


def _first(blocks: Iterator[score.Block], users: int) -> Iterator[score.Block]:
    """The next blocks, until they have so many users."""
    while users:
        block = next(blocks)
        users -= _users(block)
        yield block


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
