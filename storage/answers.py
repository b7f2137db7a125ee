"""What the published file answers: any one SELECT, within limits, and the rows of one user."""

import threading
from typing import Any

import duckdb

from storage import warehouse
from storage.errors import QueryRefused

MEMORY = "1GiB"
"""The most that one SELECT may take."""


def select(
    connection: duckdb.DuckDBPyConnection, statement: str, max_rows: int, timeout: float
) -> tuple[list[str], list[tuple[Any, ...]]]:
    """Column names and rows of exactly one SELECT; raises `QueryRefused`."""
    try:
        parsed = connection.extract_statements(statement)
    except duckdb.Error as error:
        raise QueryRefused(warehouse.first_line(error)) from error
    if len(parsed) != 1 or parsed[0].type != duckdb.StatementType.SELECT:
        raise QueryRefused("only one SELECT at a time is allowed", hint="any DuckDB client can open the file for more")
    alarm = threading.Timer(timeout, connection.interrupt)
    alarm.start()
    try:
        cursor = connection.execute(statement)
        columns = [column[0] for column in cursor.description or []]
        rows = cursor.fetchmany(max_rows + 1)
    except duckdb.InterruptException as error:
        raise QueryRefused(f"the query took longer than {timeout:g} s", hint="--timeout SECONDS") from error
    except duckdb.Error as error:
        if warehouse.is_damage(error):
            raise
        raise QueryRefused(
            warehouse.first_line(error), hint='recjob query "SHOW TABLES" lists tables and views'
        ) from error
    finally:
        alarm.cancel()
    if len(rows) > max_rows:
        raise QueryRefused(f"the result has more than {max_rows:,} rows", hint="--max-rows N, or a LIMIT")
    return columns, rows


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
