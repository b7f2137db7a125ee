"""The lists of a partition as a whole, and beside those of another: figures for the gate, each in one pass of the files."""

from dataclasses import dataclass
from typing import Any

import duckdb

from storage import warehouse
from storage.runs import RunPartition

_COMPARED = 50_000
"""Users whose lists are compared at most, about: what is held of them does not grow with the users."""


@dataclass(frozen=True)
class Figures:
    """Counts of users and movies; lists are the model's own, not those of cold users."""

    lists: int
    """Users with such a list."""
    same_list: int
    """Users with the most common list."""
    same_first: int
    """Users with the most common first place."""
    first: Any
    """The movie in it; None without lists."""
    movies: int
    """Different movies in the lists."""
    cold: float
    """Share of all users who are cold."""


def figures(partition: RunPartition) -> Figures:
    """The figures of a partition, also one that has not appeared yet."""
    paths = {name: str(partition.path(name)) for name in ("recommendations", "user_status")}
    with duckdb.connect() as connection:
        ((lists, same_list, same_first, *rest),) = connection.execute(
            warehouse.sql("checks/lists.sql"), paths
        ).fetchall()
    return Figures(lists, same_list or 0, same_first or 0, *rest)


def churn(partition: RunPartition, before: RunPartition, users: int) -> float | None:
    """Share of the movies listed in `before` that their users' lists no longer have; None where nothing can be compared.

    `users` is about how many have a list now: of many, only some are looked at.
    """
    if warehouse.id_types(partition) != warehouse.id_types(before):
        return None
    paths = {"recommendations": str(partition.path("recommendations")), "before": str(before.path("recommendations"))}
    with duckdb.connect() as connection:
        query = warehouse.sql("checks/churn.sql")
        found = connection.execute(query, paths | {"every": users // _COMPARED + 1}).fetchall()[0][0]
    return None if found is None else float(found)
