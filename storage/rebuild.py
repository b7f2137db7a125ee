"""Published files made anew from published files: without somebody, or as the tables of this version.

To delete rows leaves their bytes in a DuckDB file, so all others are copied into a new one. The old file stays as it is until
the link is flipped, and is then removed; readers that hold it keep it.
"""

import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import duckdb
import pyarrow as pa

from storage import atomic, attached, runs, warehouse
from storage.errors import CorruptState, StateVersion
from storage.forgotten import Forgotten

_PER_USER = ("recommendations", "user_status")
"""The tables that show users."""


class RunFacts(NamedTuple):
    """What the state folder says of a run now, where a published file may say something else."""

    error_message: str | None
    output_digest: str | None
    staged: bool
    """Whether the digest is that of lists which are still staged, so that nobody on the list is in it."""


def remove(root: Path, link: Path, listed: Forgotten, facts: Mapping[str, RunFacts]) -> tuple[int, int]:
    """Rebuild each published file that shows a user on the list, or a message that is no longer that of the run.

    Returns the files and rows concerned. Readers see the old file or the new one; what was cut off is gone on with by the next
    call. Raises `CorruptState`, `AuditFailed`, `DiskFailed`.
    """
    found = {path: rows for path in warehouse.versions(root) if (rows := _concerned(path, listed, facts)) is not None}
    _replace(root, link, list(found), listed, facts)
    return len(found), sum(found.values())


def migrate(root: Path, link: Path, facts: Mapping[str, RunFacts]) -> int:
    """Rebuild each published file that was written by an older recjob; returns how many.

    Raises `StateVersion` where a newer one has written a file, and as `remove` does.
    """
    found = {path: schema_version(path) for path in warehouse.versions(root)}
    if newer := [path for path, number in found.items() if number > warehouse.SCHEMA_VERSION]:
        raise StateVersion(f"{newer[0]} was written by a newer recjob", hint="use that, or remove the file")
    older = [path for path, number in found.items() if number < warehouse.SCHEMA_VERSION]
    _replace(root, link, older, Forgotten(), facts)
    return len(older)


def schema_version(path: Path) -> int:
    """The `schema_version` that a published file says it has; raises `CorruptState`."""
    with warehouse.reader(path) as connection:
        try:
            found = connection.execute("SELECT max(schema_version) FROM schema_info").fetchall()[0][0]
        except duckdb.CatalogException as error:
            raise CorruptState(f"{path} has no schema_info: recjob did not write it", hint=f"remove {path}") from error
    return int(found or 0)


def _concerned(path: Path, listed: Forgotten, facts: Mapping[str, RunFacts]) -> int | None:
    """How many rows a published file has of users on the list, what it only shows not counted; None where nothing must go."""
    with warehouse.reader(path) as connection:
        connection.register("gone", _gone(connection, listed))
        counts = [f"(SELECT count(*) FROM {table} SEMI JOIN gone USING (user_id))" for table in _PER_USER]
        rows = int(connection.execute(f"SELECT {' + '.join(counts)}").fetchall()[0][0])
        shown = attached.files(connection)
        told = connection.execute("SELECT run_id, error_message FROM runs WHERE error_message IS NOT NULL").fetchall()
    stale = any(run_id not in facts or facts[run_id].error_message != message for run_id, message in told)
    return (0 if shown else rows) if rows or stale else None


def _gone(connection: duckdb.DuckDBPyConnection, listed: Forgotten, schema: str = "main") -> pa.Table:
    """The users on the list whom a published file shows."""
    query = " UNION ".join(f"SELECT user_id FROM {schema}.{table}" for table in _PER_USER)
    return pa.table({"user_id": listed.among(connection.sql(query).to_arrow_table()["user_id"])})


def _replace(root: Path, link: Path, paths: Sequence[Path], listed: Forgotten, facts: Mapping[str, RunFacts]) -> None:
    for path in paths:
        run_id = warehouse.run_id_of(path)
        made = [
            other for other in warehouse.versions(root) if other not in paths and warehouse.run_id_of(other) == run_id
        ]
        target = made[0] if made else root / f"recommendations-{run_id}.{uuid.uuid4().hex[:8]}.duckdb"
        if not made:
            _copy(path, target, listed, facts)
        if warehouse.current(link) == path.resolve():
            atomic.flip(link, target)
        atomic.remove(path)


def _copy(source: Path, target: Path, listed: Forgotten, facts: Mapping[str, RunFacts]) -> None:
    """Copy all rows but those of users on the list into a new file, in the tables of this version; audited as ever.

    Lists that are shown, and not copied, are those of the same runs as they are staged now.
    """
    home = attached.home_of(source)
    with warehouse.reader(source) as connection:
        gone = _gone(connection, listed)
        connection.register("gone", gone)
        kept = "SELECT count(*) FROM recommendations ANTI JOIN gone USING (user_id)"
        expected = int(connection.execute(kept).fetchall()[0][0])
        columns = connection.execute(
            "SELECT table_name, column_name, data_type FROM duckdb_columns() WHERE NOT internal"
        )
        held = {(table, column): kind for table, column, kind in columns.fetchall()}
        listing = " UNION ".join(f"SELECT run_id::VARCHAR FROM {table}" for table in _PER_USER)
        run_ids = [run_id for (run_id,) in connection.execute(listing).fetchall()]
        known = {file.run_id for file in attached.files(connection)}
        shown = [partition for partition in runs.every(home / "runs") if partition.run_id in known]

    def fill(new: duckdb.DuckDBPyConnection) -> None:
        types = {name: held["recommendations", name] for name in ("user_id", "movie_id")}
        warehouse.create_tables(new, types, run_ids)
        new.execute(f"ATTACH '{attached.quoted(source)}' AS old (READ_ONLY)")
        new.execute("SET VARIABLE recjob_state = ?", [str(home)])
        new.register("gone", gone)
        rows = [(run_id, *fact) for run_id, fact in facts.items()]
        new.register("facts", pa.table(dict(zip(("run_id", *RunFacts._fields), zip(*rows, strict=True), strict=True))))
        tables = "SELECT table_name FROM duckdb_tables() WHERE database_name = current_database()"
        for (table,) in new.execute(tables).fetchall():
            shared = [name for name in new.table(table).columns if (table, name) in held]
            if shared and not (shown and table in (*attached.TABLES, "attached_files")):
                new.execute(_insert(table, shared))
        new.execute("UPDATE schema_info SET schema_version = ?", [warehouse.SCHEMA_VERSION])
        if shown:
            attached.show(new, home, shown)
        new.execute("DETACH old")

    warehouse.build(target, fill, expected, atomic.size(source))


def _insert(table: str, columns: Sequence[str]) -> str:
    """The statement that copies a table; of runs with what is known of them now."""
    names = ", ".join(f'"{name}"' for name in columns)
    if table == "runs":
        return _INSERT_RUNS.format(names=names)
    # By several threads a join keeps no order, which rows that stand one after the other must have.
    without = " ANTI JOIN gone USING (user_id) ORDER BY rowid" if table in _PER_USER else ""
    return f'INSERT INTO "{table}" BY NAME SELECT {names} FROM old.main."{table}"{without}'


_INSERT_RUNS = """
INSERT INTO runs BY NAME
SELECT {names}
FROM (
  SELECT r.* REPLACE (
    f.error_message AS error_message,
    CASE WHEN f.staged OR NOT EXISTS (
      FROM old.main.recommendations SEMI JOIN gone USING (user_id) WHERE run_id = r.run_id
    ) THEN f.output_digest END AS output_digest
  )
  FROM old.main.runs r LEFT JOIN facts f USING (run_id)
  ORDER BY r.run_id
)
"""
