"""What published tables promise, proven before they are: no rule of sql/audit is broken."""

from itertools import chain
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa
from numpy.lib.stride_tricks import sliding_window_view

from storage.errors import AuditFailed

_BATCH = 1 << 20
"""Rows looked at together, where they are not DuckDB's to look at."""


def check(connection: duckdb.DuckDBPyConnection, folder: Path) -> None:
    """Each file in `<folder>/audit` selects the rows that break its rule: raise `AuditFailed` where there are any."""
    broken: list[str] = []
    for rule in sorted((folder / "audit").glob("*.sql")):
        if rule.stem == "repeated_movies" and not broken and not _may_repeat(connection, folder):
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


def _may_repeat(connection: duckdb.DuckDBPyConnection, folder: Path) -> bool:
    """Whether two rows of a list have the same number for their movie, once the rules before `repeated_movies` hold.

    Lists of a length are sorted side by side: that is several times as quick as sorting all rows by list and movie.
    """
    rank, movie = np.zeros(0, np.int16), np.zeros(0, np.uint64)
    # a row of rank 1 ends the last list
    end = pa.record_batch([pa.array([1], pa.int16()), pa.array([0], pa.uint64())], ["rank", "movie"])
    query = (folder / "checks" / "list_movies.sql").read_text(encoding="utf-8")
    for batch in chain(connection.sql(query).to_arrow_reader(_BATCH), [end]):
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
