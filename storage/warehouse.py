"""The published DuckDB file: built anew beside the old one, audited, then flipped in. Readers never wait.

`<state>/published/recommendations-<run id>.duckdb` and the link `<state>/recommendations.duckdb` to the newest of them.
One that was rebuilt (`rebuild.py`) is `recommendations-<run id>.<hex>.duckdb`: a name is never used twice, since a process that
still holds the old file would get it again. No file that was ever published is opened for writing again.
"""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.resources import files
from itertools import chain
from pathlib import Path
from string import Template
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
from numpy.lib.stride_tricks import sliding_window_view

from storage import atomic, parquet, runs
from storage.errors import AuditFailed, CorruptState, DiskFailed, InvalidInput, NotFound
from storage.runs import RunPartition

SCHEMA_VERSION = 1
_FORMAT = "v1.5.0"
"""DuckDB's own file format version: clients from 1.5 on can read it."""
_OTHER = "the next recjob nightly puts it aside and builds it anew; recjob rollback shows an earlier one at once"
_BATCH = 1 << 20
"""Rows looked at together, where they are not DuckDB's to look at."""
_DISK = (duckdb.IOException, duckdb.FatalException, duckdb.TransactionException, duckdb.OutOfMemoryException)
"""What DuckDB makes of an error of the disk: as it writes, syncs, commits or spills."""
OFFLINE: dict[str, Any] = {"autoinstall_known_extensions": "false"}
"""How every connection is made: DuckDB asks nobody for what it lacks."""
CLOSED = OFFLINE | {
    "enable_external_access": "false",
    "lock_configuration": "true",
    "temp_directory": "",  # else what does not fit is spilled beside the published file
}
"""What a reader may do."""
_TYPES = {"int64": "BIGINT", "string": "VARCHAR"}
Rows = Mapping[str, Sequence[Mapping[str, Any]]]
"""Table name -> rows, for the small tables: schema_info, models, runs, run_steps, run_inputs, metrics, checks, ..."""


@dataclass(frozen=True)
class Published:
    """A published file."""

    run_id: str
    path: Path
    rows: int
    """Rows of `recommendations`, all dates."""


def publish(root: Path, link: Path, run_id: str, partitions: Sequence[RunPartition], rows: Rows) -> Published:
    """Build the file of `run_id` from `partitions` (oldest date first), audit it, and flip the link to it.

    Raises `AuditFailed` and `CorruptState` (nothing changes for readers), `DiskFailed`.
    """
    for partition in partitions:
        runs.verify(partition)
    target = root / f"recommendations-{run_id}.duckdb"
    expected = sum(int(partition.record["rows"]["recommendations"]) for partition in partitions)
    needed = sum(atomic.size(partition.folder) for partition in partitions)  # the file takes about as much as they do
    build(target, lambda connection: _fill(connection, partitions, rows), expected, needed)
    atomic.flip(link, target)
    return Published(run_id, target, expected)


def build(target: Path, fill: Callable[[duckdb.DuckDBPyConnection], None], expected: int, needed: int) -> None:
    """Write a file that readers can open: filled by `fill`, audited, and found to hold `expected` recommendations.

    `needed` is about how many bytes it takes. Raises `AuditFailed` and `DiskFailed`, and then it is not there.
    """
    with atomic.new_file(target, mode=atomic.PUBLISHED_MODE) as draft, _nothing_beside(draft):
        with (
            _disk_errors(target, draft, needed),
            duckdb.connect(config=OFFLINE | {"temp_directory": f"{draft}.tmp"}) as connection,
        ):
            # A build that is cut off is begun anew: a write-ahead log would only cost a sync for each of its statements.
            options = f"STORAGE_VERSION '{_FORMAT}', RECOVERY_MODE NO_WAL_WRITES"
            connection.execute(f"ATTACH '{quoted(draft)}' AS published ({options})")
            connection.execute("USE published")
            fill(connection)
            _audit(connection)
            connection.execute("CHECKPOINT published")
            connection.execute("USE memory")
            connection.execute("DETACH published")
        _verify(draft, expected)
        if Path(f"{draft}.wal").exists():
            raise AuditFailed(f"{draft} was not closed cleanly: a write-ahead log is left; it was not published")


def current(link: Path) -> Path | None:
    """The file the link points to, if it is there."""
    return link.resolve() if link.exists() else None


def run_id_of(path: Path) -> str:
    """The run that a published file was built by."""
    return path.name.removeprefix("recommendations-").partition(".")[0]


def versions(root: Path) -> list[Path]:
    """Published files that are still kept, oldest first."""
    return sorted(root.glob("recommendations-*.duckdb"))


def check(path: Path) -> None:
    """Read a published file whole, as DuckDB finds a damaged block only then; raises `CorruptState`."""
    with reader(path) as connection:
        for (table,) in connection.execute("SELECT table_name FROM duckdb_tables()").fetchall():
            connection.execute(f'SELECT count(*) FROM "{table}" AS whole WHERE hash(whole) = 0').fetchall()


def earlier(root: Path, link: Path, to: str | None = None) -> tuple[Path, Path]:
    """The current file and the one before it, or that of run `to`; raises `NotFound`, or `CorruptState` if it is damaged."""
    now = current(link)
    if now is None:
        raise NotFound("nothing has been published yet", hint="recjob nightly --date D, or recjob demo")
    found = [path for path in versions(root) if (run_id_of(path) == to if to else path.name < now.name)]
    if not found:
        wanted = f"of run {to}" if to else "before the current one"
        raise NotFound(f"no published file {wanted} is kept", hint="publish.keep_files says how many are")
    check(found[-1])
    return now, found[-1]


def prune(root: Path, link: Path, keep: int) -> list[Path]:
    """Remove all but the newest `keep` published files and the current one, and of those put aside all but the newest.

    Readers that hold one keep it.
    """
    now = current(link)
    old = [path for path in versions(root)[:-keep] if path != now] + sorted(root.glob("*.aside-*"))[:-1]
    for path in old:
        atomic.remove(path)
    return old


@contextmanager
def reader(link: Path, memory: str | None = None) -> Iterator[duckdb.DuckDBPyConnection]:
    """A read-only connection to the current file that can reach nothing else: no files, no network, no settings.

    `memory` is the most it may take, such as 1GiB; without it, what DuckDB takes by default.
    """
    path = current(link)
    if path is None:
        raise NotFound("nothing has been published yet", hint="recjob nightly --date D, or recjob demo")
    try:
        connection = duckdb.connect(
            str(path), read_only=True, config=CLOSED | ({"memory_limit": memory} if memory else {})
        )
    except duckdb.Error as error:
        raise CorruptState(f"{path} cannot be opened: {first_line(error)}", hint=_OTHER) from error
    try:
        with connection:
            yield connection
    except duckdb.Error as error:
        if not is_damage(error):
            raise
        raise CorruptState(f"{path} is damaged: {first_line(error)}", hint=_OTHER) from error


def sql(name: str) -> str:
    """The text of a file in `sql/`."""
    return (_sql_folder() / name).read_text(encoding="utf-8")


def _sql_folder() -> Path:
    installed = Path(str(files("storage"))) / "_sql"
    return installed if installed.is_dir() else Path(__file__).resolve().parents[1] / "sql"


def _fill(connection: duckdb.DuckDBPyConnection, partitions: Sequence[RunPartition], rows: Rows) -> None:
    types = {name: _TYPES[kind] for name, kind in id_types(partitions[-1]).items()}
    create_tables(connection, types, [partition.run_id for partition in partitions])
    for table, values in rows.items():
        if values:
            names = dict.fromkeys(name for value in values for name in value)
            columns = {name: [value.get(name) for value in values] for name in names}
            connection.register("incoming", pa.table(columns))
            connection.execute(f'INSERT INTO "{table}" BY NAME SELECT * FROM incoming')
            connection.unregister("incoming")
    for partition in partitions:
        for table in filter(partition.has, ("recommendations", "user_status", "similar_movies")):
            connection.execute(
                f"INSERT INTO {table} BY NAME SELECT ?::DATE AS as_of_date, ?::published_run AS run_id, * "
                "FROM read_parquet(?, hive_partitioning = false)",
                [partition.as_of, partition.run_id, str(partition.path(table))],
            )
    paths = [str(partition.path("movies")) for partition in reversed(partitions)]
    connection.execute(sql("fill_movies.sql"), [paths])


def create_tables(connection: duckdb.DuckDBPyConnection, types: Mapping[str, str], run_ids: Sequence[str]) -> None:
    """Make the empty tables and the views; `types` are those of user_id and movie_id, `run_ids` the runs whose lists follow."""
    listed = ", ".join(f"'{quoted(run_id)}'" for run_id in sorted(run_ids))
    connection.execute(Template(sql("tables.sql")).substitute(types, runs=listed))
    connection.execute(sql("comments.sql"))
    for view in sorted((_sql_folder() / "views").glob("*.sql")):
        connection.execute(view.read_text(encoding="utf-8"))


def id_types(partition: RunPartition) -> dict[str, str]:
    """The Arrow types of the ids in a partition, by column name."""
    try:
        schema = parquet.open_file(partition.path("recommendations")).schema_arrow
    except InvalidInput as error:  # a file of our own
        raise CorruptState(str(error), hint="remove its folder and score the date again") from error
    return {name: str(schema.field(name).type) for name in ("user_id", "movie_id")}


def _audit(connection: duckdb.DuckDBPyConnection) -> None:
    """Each file in sql/audit selects the rows that break its rule: none may be left."""
    broken: list[str] = []
    for rule in sorted((_sql_folder() / "audit").glob("*.sql")):
        if rule.stem == "repeated_movies" and not broken and not _may_repeat(connection):
            continue  # proven by less
        query = rule.read_text(encoding="utf-8")
        count = connection.execute(f"SELECT count(*) FROM ({query})").fetchall()[0][0]
        if count:
            broken.append(f"{rule.stem} ({count} rows)")
    if broken:
        raise AuditFailed(
            f"the new tables break {', '.join(broken)}; they were not published",
            hint="readers still see the previous ones; sql/audit/ says what each rule demands",
        )


def _may_repeat(connection: duckdb.DuckDBPyConnection) -> bool:
    """Whether two rows of a list have the same number for their movie, once the rules before `repeated_movies` hold.

    Lists of a length are sorted side by side: that is several times as quick as sorting all rows by list and movie.
    """
    rank, movie = np.zeros(0, np.int16), np.zeros(0, np.uint64)
    # a row of rank 1 ends the last list
    end = pa.record_batch([pa.array([1], pa.int16()), pa.array([0], pa.uint64())], ["rank", "movie"])
    for batch in chain(connection.sql(sql("checks/list_movies.sql")).to_arrow_reader(_BATCH), [end]):
        rank, movie = np.concatenate([rank, batch["rank"]]), np.concatenate([movie, batch["movie"]])
        start = np.flatnonzero(rank == 1)
        length = np.diff(start)
        for n in np.unique(length):
            lists = sliding_window_view(movie, n)[start[:-1][length == n]]
            lists.sort(axis=1)
            if (lists[:, 1:] == lists[:, :-1]).any():
                return True
        rank, movie = rank[start[-1] :], movie[start[-1] :]
    return False


def _verify(path: Path, expected: int) -> None:
    """Open the finished file as a reader would, and count the rows of `recommendations`."""
    with duckdb.connect(str(path), read_only=True, config=CLOSED) as connection:
        found = int(connection.execute("SELECT count(*) FROM recommendations").fetchall()[0][0])
        connection.execute("SELECT * FROM current_recommendations LIMIT 1").fetchall()
    if found != expected:
        raise AuditFailed(f"the new file holds {found} rows, expected {expected}; it was not published")


@contextmanager
def _nothing_beside(draft: Path) -> Iterator[None]:
    """Remove what DuckDB keeps beside a file that it could not finish: a write-ahead log, spilled rows."""
    try:
        yield
    finally:
        for left in draft.parent.glob(f"{draft.name}.*"):
            atomic.remove(left)


@contextmanager
def _disk_errors(path: Path, draft: Path, needed: int) -> Iterator[None]:
    try:
        yield
    except duckdb.ConstraintException as error:
        raise AuditFailed(f"{first_line(error)}; nothing was published") from error
    except _DISK as error:
        if any(os.strerror(number) in str(error) for number in atomic.FULL):
            raise atomic.full(path, first_line(error), max(needed, atomic.size(draft))) from error
        hint = "free space, permissions and the disk's health"
        raise DiskFailed(f"cannot build {path}: {first_line(error)}", hint=hint, path=path) from error


def is_damage(error: duckdb.Error) -> bool:
    """Whether it is the file that failed, not the query: DuckDB reads and checks a block when it first needs it."""
    return isinstance(error, duckdb.IOException) or "Corrupt database file" in str(error)


def first_line(error: Exception) -> str:
    """What DuckDB says went wrong, without where in the statement."""
    return str(error).splitlines()[0]


def quoted(text: str | Path) -> str:
    """Text inside single quotes in SQL: neither ATTACH nor CREATE TYPE takes bound values."""
    return str(text).replace("'", "''")
