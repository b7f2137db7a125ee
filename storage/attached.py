"""Lists that are not copied: `recommendations`, `user_status` and `similar_movies` as views over the staged Parquet files.

The table `attached_files` says which; it is empty where the lists are in the published file itself. The views find the state
folder where it was when they were made, or where a client says that it is: `SET VARIABLE recjob_state = '/mnt/state'`.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import duckdb

from storage import digest, parquet, runs
from storage.errors import CorruptState
from storage.runs import RunPartition

TABLES = ("recommendations", "user_status", "similar_movies")
"""What is a view then; all else is a table."""
_SCAN = """
read_parquet(
  [coalesce(getvariable('recjob_state'), '{home}') || '/' || file FOR file IN [{files}]],
  hive_partitioning = true, hive_types = {{'as_of': DATE, 'run': VARCHAR}}, union_by_name = {differ}
)
"""
_NUMBERED = """
CREATE TEMP VIEW recommendations AS
SELECT as_of AS as_of_date, * EXCLUDE (as_of, run), run AS run_id, file_row_number + CASE as_of {starts} END AS rowid
FROM (SELECT *, file_row_number FROM {scan})
"""
_RECORDED = (
    *("run_id", "as_of_date", '"trigger"', "started_at", "model_version", "n_users", "n_movies", "n_ratings", "top_n"),
    *("input_digest", "config_digest", "output_digest", "seed", "recjob_version", "device"),
)
"""Columns of `runs` that are in a run.json."""
_PARTS = {"run_inputs": "inputs", "rejected_rows": "rejected", "checks": "checks", "metrics": "metrics"}
"""The tables of what is in lists there."""
_OURS = "FROM duckdb_databases() WHERE NOT internal AND path IS NOT NULL"


class File(NamedTuple):
    """A Parquet file that a published file shows."""

    run_id: str
    table: str
    made: Path
    """Where it was when that was built."""
    path: Path
    """Where it is, as the published file lies in the same state folder."""
    sha256: str
    bytes: int

    @property
    def as_of(self) -> str:
        """The date of its lists."""
        return runs.day_of(self.path.parent)


def show(connection: duckdb.DuckDBPyConnection, home: Path, partitions: Sequence[RunPartition]) -> None:
    """Put views over the files of partitions of the state folder `home` in the place of the three empty tables.

    For the audit, which comes next on this connection, a temporary view of `recommendations` has `rowid`, as tables do.
    """
    for table in TABLES:
        columns = connection.execute(
            "SELECT column_name, data_type, comment FROM duckdb_columns() "
            "WHERE database_name = current_database() AND table_name = ? ORDER BY column_index",
            [table],
        ).fetchall()
        meaning = connection.execute(
            "SELECT comment FROM duckdb_tables() WHERE database_name = current_database() AND table_name = ?", [table]
        ).fetchall()[0][0]
        shown = [partition for partition in partitions if partition.has(table)]
        connection.execute(f"DROP TABLE {table}")
        connection.execute(f"CREATE VIEW {table} AS {_select(table, columns, home, shown)}")
        connection.execute(f"COMMENT ON VIEW {table} IS '{quoted(meaning)}'")
        for name, _, said in columns:
            connection.execute(f"COMMENT ON COLUMN {table}.{name} IS '{quoted(said)}'")
        for partition in shown:
            path = home / _within(partition.path(table))
            facts = [partition.run_id, table, str(path), partition.record["files"][path.name], path.stat().st_size]
            connection.execute("INSERT INTO attached_files VALUES (?, ?, ?, ?, ?)", facts)
    starts, start = [], 0
    for partition in partitions:
        starts.append(f"WHEN DATE '{partition.as_of}' THEN {start}")
        start += int(partition.record["rows"]["recommendations"])
    scan = _scan("recommendations", home, partitions)
    connection.execute(_NUMBERED.format(starts=" ".join(starts), scan=scan))


def _select(table: str, columns: Sequence[tuple[str, str, str]], home: Path, shown: Sequence[RunPartition]) -> str:
    """The rows of a table, each column as the table has it."""
    if not shown:
        return "SELECT " + ", ".join(f"NULL::{kind} AS {name}" for name, kind, _ in columns) + " WHERE false"
    stored = ", ".join(f"{name}::{kind} AS {name}" for name, kind, _ in columns[1:-1])
    scan = _scan(table, home, shown)
    return f"SELECT as_of AS as_of_date, {stored}, run::published_run AS run_id FROM {scan}"


def _scan(table: str, home: Path, shown: Sequence[RunPartition]) -> str:
    paths = [partition.path(table) for partition in shown]
    names = {tuple(parquet.open_file(path).schema_arrow.names) for path in paths}
    listed = ", ".join(f"'{quoted(_within(path))}'" for path in paths)
    return _SCAN.format(home=quoted(home), files=listed, differ="true" if len(names) > 1 else "false")


def files(connection: duckdb.DuckDBPyConnection) -> list[File]:
    """What the published file of a connection shows; none where it has all itself."""
    made = "SELECT 1 FROM duckdb_tables() WHERE table_name = 'attached_files'"  # not where an older recjob wrote it
    if not connection.execute(made).fetchall():
        return []
    home = home_of(Path(connection.execute(f"SELECT path {_OURS}").fetchall()[0][0]))
    rows = connection.execute(
        "SELECT run_id, table_name, path, sha256, bytes FROM attached_files ORDER BY ALL"
    ).fetchall()
    return [File(run_id, table, Path(made), home / _within(Path(made)), *facts) for run_id, table, made, *facts in rows]


def _within(path: Path) -> Path:
    """A staged file by its place in the state folder: runs/as_of=D/run=ID/NAME, be it a link on the way to another disk."""
    return Path(*path.parts[-4:])


def home_of(published: Path) -> Path:
    """The state folder that a published file lies in."""
    return published.resolve().parents[1]


def close(connection: duckdb.DuckDBPyConnection) -> list[File]:
    """Let a connection reach the files that its views show, and from now on nothing else: no settings, no network."""
    shown = files(connection)
    if not connection.execute("SELECT current_setting('lock_configuration')").fetchall()[0][0]:
        listed = ", ".join(f"'{quoted(file.path)}'" for file in shown)
        connection.execute(f"SET allowed_paths = [{listed}]")
        connection.execute("SET enable_external_access = false")
        connection.execute("SET lock_configuration = true")
    if shown:
        connection.execute("SET VARIABLE recjob_state = ?", [str(shown[0].path.parents[3])])
    return shown


def demand(shown: Sequence[File], published: Path, *, thorough: bool = False) -> None:
    """Raise `CorruptState` where a file that a published one shows is `broken`."""
    for file in broken(shown, thorough=thorough):
        what = f"{published} shows {file.path}, which is missing or was changed"
        raise CorruptState(what, hint=f"{runs.again(file.as_of)} makes the lists of that date again")


def broken(shown: Sequence[File], *, thorough: bool = False) -> Iterator[File]:
    """Files that are missing or not of their size; `thorough`: or of other bytes."""
    for file in shown:
        whole = file.path.is_file() and file.path.stat().st_size == file.bytes
        if not whole or (thorough and digest.of_file(file.path) != file.sha256):
            yield file


def record_of(
    connection: duckdb.DuckDBPyConnection, folder: Path, own: Sequence[File], manifests: Mapping[str, Mapping[str, Any]]
) -> dict[str, Any]:
    """What `run.json` in `folder` said, of lists whose files are `own`; raises `InvalidInput` where the movies are damaged."""

    def rows(query: str, value: str) -> list[dict[str, Any]]:
        cursor = connection.execute(query, [value])
        names = [column[0] for column in cursor.description]
        return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]

    run_id = runs.run_of(folder)
    (record,) = rows(f"SELECT {', '.join(_RECORDED)} FROM runs WHERE run_id = ?", run_id)
    for table, name in _PARTS.items():
        left_out = "run_id, model_version" if table == "metrics" else "run_id"
        record[name] = rows(f"SELECT * EXCLUDE ({left_out}) FROM {table} WHERE run_id = ?", run_id)
    version = record["model_version"]
    (published,) = rows("SELECT * EXCLUDE alias FROM models WHERE model_version = ?", version)
    kept = manifests.get(version, {"lineage": {"run_id": ""}})
    record["model"] = {**kept, **published, "version": version}
    movies = folder / "movies.parquet"
    parquet.read(movies)
    record["files"] = {file.path.name: file.sha256 for file in own} | {movies.name: digest.of_file(movies)}
    counted = [file for file in own if file.table in ("recommendations", "user_status")]
    record["rows"] = {file.table: parquet.open_file(file.path).metadata.num_rows for file in counted}
    return record


def quoted(text: str | Path) -> str:
    """Text inside single quotes in SQL: no statement that defines something takes bound values."""
    return str(text).replace("'", "''")
