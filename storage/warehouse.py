"""The published DuckDB file: built anew beside the old one, audited, then flipped in. Readers never wait.

`<state>/published/recommendations-<run id>.duckdb` and the link `<state>/recommendations.duckdb` to the newest of them.
One that was rebuilt (`rebuild.py`) is `recommendations-<run id>.<hex>.duckdb`: a name is never used twice, since a process that
still holds the old file would get it again. No file that was ever published is opened for writing again.
"""

import os
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from string import Template
from typing import Any

import duckdb
import pyarrow as pa

from storage import atomic, attached, audit, parquet, runs
from storage.attached import quoted
from storage.errors import AuditFailed, Busy, CorruptState, DiskFailed, InvalidInput, nothing_published
from storage.runs import RunPartition

SCHEMA_VERSION = 1
_FORMAT = "v1.5.0"
"""DuckDB's own file format version: clients from 1.5 on can read it."""
_DISK = (duckdb.IOException, duckdb.FatalException, duckdb.TransactionException, duckdb.OutOfMemoryException)
"""What DuckDB makes of an error of the disk: as it writes, syncs, commits or spills."""
OFFLINE: dict[str, Any] = {"autoinstall_known_extensions": "false"}
"""How every connection is made: DuckDB asks nobody for what it lacks."""
_NO_SPILL = {"temp_directory": ""}  # else what does not fit is spilled beside the published file
_ASKED = (
    *(duckdb.ParserException, duckdb.BinderException, duckdb.CatalogException, duckdb.ConversionException),
    *(duckdb.PermissionException, duckdb.InterruptException),
)
"""What DuckDB raises for what was asked, whatever is in a Parquet file."""
OTHER = "the next recjob nightly puts it aside and builds it anew; recjob rollback shows an earlier one at once"
"""What to do about a published file that cannot be used."""
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


def publish(
    root: Path, link: Path, run_id: str, partitions: Sequence[RunPartition], rows: Rows, *, attach: bool = False
) -> Published:
    """Build the file of `run_id` from `partitions` (oldest date first), audit it, and flip the link to it.

    `attach`: their lists are not copied, the file shows their Parquet. Raises `AuditFailed` and `CorruptState` (nothing changes
    for readers), `DiskFailed`.
    """
    for partition in partitions:
        runs.verify(partition)
    target = root / f"recommendations-{run_id}.duckdb"
    expected = sum(int(partition.record["rows"]["recommendations"]) for partition in partitions)
    # the file takes about as much as they do
    needed = 0 if attach else sum(atomic.size(partition.folder) for partition in partitions)
    home = attached.home_of(target) if attach else None
    build(target, lambda connection: _fill(connection, partitions, rows, home), expected, needed)
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
            audit.check(connection, _sql_folder())
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
    """Read a published file whole, as DuckDB finds a damaged block only then, and what it shows; raises `CorruptState`."""
    with reader(path) as connection:
        attached.demand(attached.files(connection), path, thorough=True)
        for (table,) in connection.execute("SELECT table_name FROM duckdb_tables()").fetchall():
            connection.execute(f'SELECT count(*) FROM "{table}" AS whole WHERE hash(whole) = 0').fetchall()


def shows(path: Path) -> list[attached.File]:
    """The staged files that a published file has no copy of, whole or not; none where it has all itself."""
    with reader(path, asked=()) as connection:
        return attached.files(connection)


def prune(root: Path, link: Path, keep: int, without: Collection[str] = ()) -> list[Path]:
    """Remove all but the newest `keep` published files and the current one, and of those put aside all but the newest.

    Those of the runs `without` go first: nobody is to see them again. Readers that hold one keep it.
    """
    now = current(link)
    kept = sorted(versions(root), key=lambda path: (run_id_of(path) not in without, path.name))
    old = [path for path in kept[:-keep] if path != now] + sorted(root.glob("*.aside-*"))[:-1]
    for path in old:
        atomic.remove(path)
    return old


@contextmanager
def reader(
    link: Path, memory: str | None = None, asked: Collection[str] = attached.TABLES
) -> Iterator[duckdb.DuckDBPyConnection]:
    """A read-only connection to the current file that can reach nothing else: no files, no network, no settings.

    `memory` is the most it may take, such as 1GiB; without it, what DuckDB takes by default. `asked` are the lists that will be
    read: where they are shown and not copied, damaged files of the others are no reason to refuse.
    """
    path = current(link)
    if path is None:
        raise nothing_published()
    try:
        connection, shown = _open(path, memory)
    except duckdb.Error as error:
        raise CorruptState(f"{path} cannot be opened: {first_line(error)}", hint=OTHER) from error
    with connection:
        attached.demand([file for file in shown if file.table in asked], path)
        try:
            yield connection
        except duckdb.Error as error:
            if current(link) != path and any(attached.broken(shown)):
                raise Busy("the lists were replaced while they were read", hint="do it again") from error
            if not is_damage(error, connection):
                raise
            attached.demand(shown, path, thorough=True)
            raise CorruptState(f"{path} is damaged: {first_line(error)}", hint=OTHER) from error


def _open(path: Path, memory: str | None = None) -> tuple[duckdb.DuckDBPyConnection, list[attached.File]]:
    """A connection for reading that can reach nothing but what the file shows; and that."""
    limits = {"memory_limit": memory} if memory else {}
    connection = duckdb.connect(str(path), read_only=True, config=OFFLINE | _NO_SPILL | limits)
    return connection, attached.close(connection)


def in_memory(memory: str) -> duckdb.DuckDBPyConnection:
    """A connection to a database that is empty, may take so much `memory`, and can reach nothing."""
    connection = duckdb.connect(config=OFFLINE | _NO_SPILL | {"memory_limit": memory})
    attached.close(connection)  # not by its config, which DuckDB does not take in order
    return connection


def sql(name: str) -> str:
    """The text of a file in `sql/`."""
    return (_sql_folder() / name).read_text(encoding="utf-8")


def _sql_folder() -> Path:
    installed = Path(str(files("storage"))) / "_sql"
    return installed if installed.is_dir() else Path(__file__).resolve().parents[1] / "sql"


def _fill(
    connection: duckdb.DuckDBPyConnection, partitions: Sequence[RunPartition], rows: Rows, home: Path | None
) -> None:
    """Fill the tables; of the state folder `home`, where it is given, the lists are shown and not copied."""
    types = {name: _TYPES[kind] for name, kind in id_types(partitions[-1]).items()}
    create_tables(connection, types, [partition.run_id for partition in partitions])
    for table, values in rows.items():
        if values:
            names = dict.fromkeys(name for value in values for name in value)
            columns = {name: [value.get(name) for value in values] for name in names}
            connection.register("incoming", pa.table(columns))
            connection.execute(f'INSERT INTO "{table}" BY NAME SELECT * FROM incoming')
            connection.unregister("incoming")
    for partition in partitions if home is None else ():
        for table in filter(partition.has, attached.TABLES):
            connection.execute(
                f"INSERT INTO {table} BY NAME SELECT ?::DATE AS as_of_date, ?::published_run AS run_id, * "
                "FROM read_parquet(?, hive_partitioning = false)",
                [partition.as_of, partition.run_id, str(partition.path(table))],
            )
    paths = [str(partition.path("movies")) for partition in reversed(partitions)]
    connection.execute(sql("fill_movies.sql"), [paths])
    if home is not None:
        attached.show(connection, home, partitions)


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
        raise runs.damaged(partition.folder, str(error)) from error
    return {name: str(schema.field(name).type) for name in ("user_id", "movie_id")}


def _verify(path: Path, expected: int) -> None:
    """Open the finished file as a reader would, and count the rows of `recommendations`."""
    connection, _ = _open(path)
    with connection:
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


def is_damage(error: duckdb.Error, connection: duckdb.DuckDBPyConnection) -> bool:
    """Whether it is a file that failed, not the query: DuckDB reads and checks a block when it first needs it.

    Of Parquet it says so in many ways: where it may be that, the files are asked themselves.
    """
    if isinstance(error, duckdb.IOException) or "Corrupt database file" in str(error):
        return True
    return any(attached.broken(attached.files(connection), thorough=not isinstance(error, _ASKED)))


def first_line(error: Exception) -> str:
    """What DuckDB says went wrong, without where in the statement."""
    return str(error).splitlines()[0]
