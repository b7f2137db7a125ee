"""What the published file answers: any one SELECT, within limits, and the rows of one user."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import duckdb
import pyarrow as pa

from storage import warehouse
from storage.errors import QueryRefused

MEMORY = "1GiB"
"""The most that one SELECT may take."""
_BATCH = 122_880
"""Rows fetched at once: as many as DuckDB keeps together."""


def select(
    connection: duckdb.DuckDBPyConnection, statement: str, max_rows: int, timeout: float
) -> tuple[list[str], list[tuple[Any, ...]]]:
    """Column names and rows of exactly one SELECT; raises `QueryRefused`."""
    with _within(connection, statement, timeout):
        cursor = connection.execute(statement)
        columns = [column[0] for column in cursor.description or []]
        rows = cursor.fetchmany(max_rows + 1)
    _limit(len(rows), max_rows)
    return columns, rows


def table(connection: duckdb.DuckDBPyConnection, statement: str, max_rows: int, timeout: float) -> pa.Table:
    """The answer of exactly one SELECT with the types it has in DuckDB; raises `QueryRefused`."""
    with _within(connection, statement, timeout):
        reader, batches, count = connection.sql(statement).to_arrow_reader(_BATCH), [], 0
        for batch in reader:
            batches.append(batch)
            count += batch.num_rows
            _limit(count, max_rows)
    return pa.Table.from_batches(batches, reader.schema)


def _limit(rows: int, most: int) -> None:
    if rows > most:
        raise QueryRefused(f"the result has more than {most:,} rows", hint="--max-rows N, or a LIMIT")


@contextmanager
def _within(connection: duckdb.DuckDBPyConnection, statement: str, timeout: float) -> Iterator[None]:
    """Let exactly one SELECT be answered within `timeout` seconds; raises `QueryRefused`."""
    try:
        parsed = connection.extract_statements(statement)
    except duckdb.Error as error:
        raise QueryRefused(warehouse.first_line(error)) from error
    if len(parsed) != 1 or parsed[0].type != duckdb.StatementType.SELECT:
        raise QueryRefused("only one SELECT at a time is allowed", hint="any DuckDB client can open the file for more")
    alarm = threading.Timer(timeout, connection.interrupt)
    alarm.start()
    try:
        yield
    except duckdb.InterruptException as error:
        raise QueryRefused(f"the query took longer than {timeout:g} s", hint="--timeout SECONDS") from error
    except duckdb.Error as error:
        if warehouse.is_damage(error, connection):
            raise
        raise QueryRefused(
            warehouse.first_line(error), hint='recjob query "SHOW TABLES" lists tables and views'
        ) from error
    finally:
        alarm.cancel()


def of_user(connection: duckdb.DuckDBPyConnection, query: str, user: str) -> list[dict[str, Any]]:
    """The rows of `sql/queries/<query>.sql` for one user.

    The id comes as text and must be written as the source writes it: "007" is not 7.
    """
    kind = connection.execute("SELECT typeof(user_id) FROM user_status LIMIT 1").fetchall()
    numeric = bool(kind) and kind[0][0] == "BIGINT"
    if numeric and str(_integer(user)) != user:
        return []
    cursor = connection.execute(warehouse.sql(f"queries/{query}.sql"), {"user": _integer(user) if numeric else user})
    names = [column[0] for column in cursor.description or []]
    return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]


def _integer(text: str) -> int | None:
    try:
        number = int(text)
    except ValueError:
        return None
    return number if -(2**63) <= number < 2**63 else None
