"""Exit codes: one place that says what each error means to whoever started the command."""

from jobs.allowed import InvalidSettings
from recommender import errors as recommender
from storage import errors as storage

DONE, BUG, USAGE, INPUT, GATE, BUSY, RESOURCES, INTEGRITY, NOT_FOUND, STALE, PARTIAL = range(11)
TIMEOUT, SIGINT, SIGTERM = 124, 130, 143
"""As timeout(1) and shells have them."""

MEANINGS: dict[int, tuple[str, str]] = {
    DONE: ("done, or nothing to do", ""),
    BUG: ("unexpected: a bug", "no"),
    USAGE: ("usage or configuration", "no"),
    INPUT: ("the input was rejected", "after mending the data"),
    GATE: (
        "the gate refused the model or the lists, the date was rolled back, or training diverged; nothing changed",
        "no",
    ),
    BUSY: ("another run holds the lock", "yes"),
    RESOURCES: ("disk, memory, permission, I/O, object store, catalogue", "yes, a few times"),
    INTEGRITY: (
        "a file of recjob's own failed its integrity check, or parted from its copy; doctor: tonight would not work",
        "no",
    ),
    NOT_FOUND: ("run, model, date or user not found", "no"),
    STALE: ("stale (`status --max-age`)", ""),
    PARTIAL: ("a backfill finished with failed dates", "only those: `--only failed`"),
    TIMEOUT: ("the run took longer than `--timeout` or `schedule.timeout_hours`", "if the machine was slow"),
    SIGINT: ("stopped by Ctrl-C, SIGINT", "yes"),
    SIGTERM: ("stopped by SIGTERM", "yes"),
}
"""What each code means, and whether it is worth trying again."""

CODES: dict[type[Exception], int] = {
    InvalidSettings: USAGE,
    storage.StorageError: BUG,
    storage.InvalidInput: INPUT,
    storage.NoRatings: INPUT,
    storage.InputChanging: INPUT,
    storage.InputLimit: INPUT,
    storage.UnlikelyInput: INPUT,
    storage.Busy: BUSY,
    storage.DiskFailed: RESOURCES,
    storage.DiskFull: RESOURCES,
    storage.NoPermission: RESOURCES,
    storage.StoreFailed: RESOURCES,
    storage.StoreForbidden: RESOURCES,
    storage.CatalogueFailed: RESOURCES,
    storage.StoreMissing: USAGE,
    storage.CorruptState: INTEGRITY,
    storage.AuditFailed: INTEGRITY,
    storage.StateVersion: INTEGRITY,
    storage.StoreConflict: INTEGRITY,
    storage.NotFound: NOT_FOUND,
    storage.QueryRefused: USAGE,
    recommender.RecommenderError: BUG,
    recommender.UnknownName: USAGE,
    recommender.NothingToRecommend: INPUT,
    recommender.TrainingDiverged: GATE,
    recommender.GateRefused: GATE,
    recommender.ListsRefused: GATE,
    recommender.RolledBack: GATE,
    recommender.InvalidModel: INTEGRITY,
    recommender.NonFiniteScores: INTEGRITY,
    recommender.OutOfMemory: RESOURCES,
    recommender.EngineFailed: RESOURCES,
    recommender.HostsFailed: RESOURCES,
    recommender.NoDevice: RESOURCES,
}


def code(error: BaseException) -> int:
    """The exit code for an error; 1 for what nobody expected."""
    return CODES.get(type(error), BUG)  # type: ignore[arg-type]
