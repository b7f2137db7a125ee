"""The lists of a partition as a whole, and beside those of another: figures for the gate, each in one pass of the files."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import duckdb
import pyarrow as pa

from storage import warehouse
from storage.errors import NotFound
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
    with duckdb.connect(config=warehouse.OFFLINE) as connection:
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
    with duckdb.connect(config=warehouse.OFFLINE) as connection:
        query = warehouse.sql("checks/churn.sql")
        found = connection.execute(query, paths | {"every": users // _COMPARED + 1}).fetchall()[0][0]
    return None if found is None else float(found)


def over_cap(partition: RunPartition, cap: int, places: int) -> int:
    """How many users have more than `cap` movies of one genre in the first `places` of their list."""
    values = {name: str(partition.path(name)) for name in ("recommendations", "movies")} | {
        "cap": cap,
        "places": places,
    }
    with duckdb.connect(config=warehouse.OFFLINE) as connection:
        return int(connection.execute(warehouse.sql("checks/over_cap.sql"), values).fetchall()[0][0])


def rated_before(partition: RunPartition, ratings: pa.Table) -> int:
    """How many recommended movies their user had rated: a second, independent look at what scoring removed."""
    with duckdb.connect(config=warehouse.OFFLINE) as connection:
        connection.register("ratings", ratings)
        query = warehouse.sql("checks/rated_before.sql")
        return int(connection.execute(query, [str(partition.path("recommendations"))]).fetchall()[0][0])


def kept_from(partition: RunPartition, closed: Iterable[pa.Array], excluded: pa.Table | None) -> int:
    """How many recommended movies are among the `closed`, or kept from their user: such a look at what rules say."""
    if excluded is not None and (found := rated_before(partition, excluded)):
        return found
    with duckdb.connect(config=warehouse.OFFLINE) as connection:
        found, path = 0, str(partition.path("recommendations"))
        for ids in closed:
            connection.register("closed", pa.table([ids], names=["movie_id"]))
            found += int(connection.execute(warehouse.sql("checks/closed.sql"), [path]).fetchall()[0][0])
        return found


def difference(one: RunPartition, other: RunPartition, movies: int = 10) -> dict[str, Any]:
    """How the lists of `other` differ from those of `one`: users, shares of the places, and movies in more and in fewer lists.

    Of many users only some are looked at, and counted; `looked_at` is their share. Raises `NotFound` where ids are of other
    types.
    """
    if warehouse.id_types(one) != warehouse.id_types(other):
        raise NotFound(
            f"runs {one.run_id} and {other.run_id} have ids of different types",
            hint="their lists have nothing in common",
        )
    every = int(other.record["rows"]["user_status"]) // _COMPARED + 1
    paths = {"one": str(one.path("recommendations")), "other": str(other.path("recommendations"))}
    with duckdb.connect(config=warehouse.OFFLINE) as connection:

        def ask(query: str, values: dict[str, Any]) -> list[dict[str, Any]]:
            cursor = connection.execute(warehouse.sql(f"checks/{query}.sql"), paths | values)
            names = [column[0] for column in cursor.description]
            return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]

        (found,) = ask("difference", {"every": every})
        gained = ask("gained", {"movies": str(other.path("movies"))})
    more, fewer = [row for row in gained if row["gained"] > 0], [row for row in gained[::-1] if row["gained"] < 0]
    return found | {"looked_at": 1 / every, "more": more[:movies], "fewer": fewer[:movies]}
