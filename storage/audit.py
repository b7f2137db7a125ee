"""What published tables promise, proven before they are: no rule of sql/audit is broken."""

from itertools import chain
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from storage.errors import AuditFailed

_BATCH = 1 << 20
"""Rows looked at together, where they are not DuckDB's to look at."""


_BY_LIST = ("rank_against_score", "repeated_movies")
"""Rules that sort all rows: asked only where one look at all lists has not proven them."""


def check(connection: duckdb.DuckDBPyConnection, folder: Path) -> None:
    """Each file in `<folder>/audit` selects the rows that break its rule: raise `AuditFailed` where there are any."""
    rules = {rule.stem: rule.read_text(encoding="utf-8") for rule in sorted((folder / "audit").glob("*.sql"))}
    broken = _broken(connection, {name: query for name, query in rules.items() if name not in _BY_LIST})
    if broken or _suspicious(connection, folder):
        broken |= _broken(connection, {name: rules[name] for name in _BY_LIST})
    if broken:
        told = ", ".join(f"{name} ({rows} rows)" for name, rows in sorted(broken.items()))
        raise AuditFailed(
            f"the new tables break {told}; they were not published",
            hint="readers still see the previous ones; sql/audit/ says what each rule demands",
        )


def _broken(connection: duckdb.DuckDBPyConnection, rules: dict[str, str]) -> dict[str, int]:
    """How many rows break each of the rules that some do."""
    asked = {name: connection.execute(f"SELECT count(*) FROM ({query})").fetchall() for name, query in rules.items()}
    return {name: int(count) for name, ((count,),) in asked.items() if count}


def _suspicious(connection: duckdb.DuckDBPyConnection, folder: Path) -> bool:
    """Whether a list has two rows with one number for their movies, or a score above one before it; once the other rules hold.

    Lists of a length are sorted side by side: that is several times as quick as sorting all rows by list and movie.
    """
    kinds = {"rank": pa.int16(), "movie": pa.uint64(), "score": pa.float32()}
    left = {name: np.zeros(0, kind.to_pandas_dtype()) for name, kind in kinds.items()}
    # a row of rank 1 ends the last list
    end = pa.record_batch([pa.array([int(name == "rank")], kind) for name, kind in kinds.items()], list(kinds))
    query = (folder / "checks" / "list_rows.sql").read_text(encoding="utf-8")
    for batch in chain(connection.sql(query).to_arrow_reader(_BATCH), [end]):
        rows = {name: np.concatenate([left[name], batch[name].to_numpy(zero_copy_only=False)]) for name in kinds}
        start = np.flatnonzero(rows["rank"] == 1)
        whole, left = slice(start[-1]), {name: values[start[-1] :] for name, values in rows.items()}
        if _repeats(rows["movie"], start) or _rises(rows["rank"][whole], rows["score"][whole]):
            return True
    return False


def _repeats(movie: NDArray[np.uint64], start: NDArray[np.int64]) -> bool:
    """Whether a number stands twice in a list; the last of the lists that start there is not looked at."""
    length = np.diff(start)
    for n in np.unique(length):
        lists = sliding_window_view(movie, n)[start[:-1][length == n]]
        lists.sort(axis=1)
        if (lists[:, 1:] == lists[:, :-1]).any():
            return True
    return False


def _rises(rank: NDArray[np.int16], score: NDArray[np.float32]) -> bool:
    """Whether a score is above the one before it in its list, those that are none left out."""
    own = np.flatnonzero(~np.isnan(score))
    higher = np.flatnonzero(score[own[1:]] > score[own[:-1]])
    if len(own) == len(rank):  # then ranks of a list follow each other
        return bool((rank[own[higher + 1]] > 1).any())
    of = np.cumsum(rank == 1)
    return bool((of[own[higher + 1]] == of[own[higher]]).any())
