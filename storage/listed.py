"""What people say of movies and users in files of their own: ids in Parquet or CSV, and one SELECT over the movies."""

from collections.abc import Mapping
from datetime import date
from pathlib import Path
from typing import Any

import pyarrow as pa

from storage import answers, digest, steady, tabular, warehouse
from storage.errors import InvalidInput, QueryRefused

_LARGEST = 2**20
"""Bytes of a statement."""
_HINT = "one SELECT of movie_id over the table movies: docs/rules.md"


def read(path: Path, columns: Mapping[str, str], types: Mapping[str, pa.DataType]) -> tuple[pa.Table, dict[str, Any]]:
    """The ids in the file, in the types of the ratings, without nulls, and where they came from (a row of `run_inputs`).

    `columns` maps recjob's names to those of the file, `types` has the columns that are wanted. Raises `InvalidInput`.
    """
    with steady.unchanged(path) as found:
        wanted = {name: columns.get(name, name) for name in types}
        table, problems = tabular.typed(tabular.read(path, wanted), dict.fromkeys(types, "id"), list(types), path)
        lineage = steady.lineage(path, found) | {"sha256": digest.of_file(path)}
    if problems:
        raise InvalidInput("\n".join(map(str, problems)), path=str(path), column=problems[0].column)
    for name, kind in types.items():
        table = _fitting(table, name, kind, path)
    return table, lineage | _counted(table.num_rows, table.num_rows)


def chosen(path: Path, movies: pa.Table, as_of: date, timeout: float = 60.0) -> tuple[pa.Array, dict[str, Any]]:
    """The ids that the SELECT in the file gives over the table `movies`, and where they came from.

    It runs on a database in memory that holds nothing else and reaches nothing else; `as_of_date()` is the date of the night.
    Raises `InvalidInput` for the file, `QueryRefused` for what is in it.
    """
    with steady.unchanged(path) as found:
        if found.st_size > _LARGEST:
            raise InvalidInput(f"{path} has {found.st_size:,} bytes, a statement at most {_LARGEST:,}", path=str(path))
        try:
            statement = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise InvalidInput(f"{path} cannot be read: {error}", hint=_HINT, path=str(path)) from error
        lineage = steady.lineage(path, found) | {"sha256": digest.of_file(path)}
    with warehouse.in_memory(answers.MEMORY) as connection:
        connection.register("incoming", movies)
        connection.execute("CREATE TABLE movies AS SELECT * FROM incoming")
        connection.unregister("incoming")
        connection.execute(f"CREATE MACRO as_of_date() AS DATE '{as_of}'")
        try:
            names, rows = answers.select(connection, statement, 10 * movies.num_rows, timeout)
            if names != ["movie_id"]:
                raise QueryRefused(f"it selects {', '.join(names)}, expected movie_id alone")
            ids = pa.array([row[0] for row in rows], movies.schema.field("movie_id").type)
        except (QueryRefused, pa.ArrowException) as error:
            raise QueryRefused(f"{path}: {error}", hint=_HINT) from error
    return ids.drop_null().unique(), lineage | _counted(movies.num_rows, len(ids))


def _fitting(table: pa.Table, name: str, kind: pa.DataType, path: Path) -> pa.Table:
    """The table with a column of ids in the type that the ratings have it in."""
    if table[name].null_count:
        row = table[name].to_pylist().index(None) + 1
        raise InvalidInput(f"{path}: {name} is null in row {row}", path=str(path), column=name, row=row)
    if table[name].type != kind:
        (table,) = tabular.one_type([(path, table)], name)  # CSV is text until it is all whole numbers
    if table[name].type != kind:
        kinds = f"{table[name].type} there and {kind} in the ratings"
        raise InvalidInput(f"{name} of {path} is {kinds}", hint="ids are those of the ratings", column=name)
    return table


def _counted(rows: int, used: int) -> dict[str, Any]:
    none = dict.fromkeys(("rows_future", "rows_rejected"), 0) | dict.fromkeys(("min_rated_at", "max_rated_at"))
    return {"rows": rows, "rows_used": used, **none}
