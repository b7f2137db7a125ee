"""What the report of a night tells of its lists: from the published file, beside the ratings that they were made from.

Of many users only some are looked at where figures are about all of them. Nobody's id leaves this module.
"""

from collections.abc import Mapping, Sequence
from datetime import date
from itertools import groupby
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from recommender import schema
from storage import warehouse

_TOP = 10
"""Movies in the table of the most listed."""
_MOVED = 5
"""Movies that gained, and that lost, the most lists."""
_LIKED = 5
"""Rated movies shown beside a sample list."""
_LOOKED_AT = 20_000
"""Users, about, whose lists changes and distributions are counted of."""
_LOOKED_AT_DAILY = 2_000
"""Users, about, whose lists are looked at on each of all published dates."""
_POINTS = 100
"""Points of a Lorenz curve."""
_RECENT = 30
"""Days whose ratings are set beside all."""
CLASSES = 20
"""Of histograms."""


class _Asker:
    """Answers of the queries in sql/report, as plain rows."""

    def __init__(self, connection: Any) -> None:
        self.connection = connection

    def __call__(self, query: str, **values: Any) -> list[dict[str, Any]]:
        cursor = self.connection.execute(warehouse.sql(f"report/{query}.sql"), values)
        names = [column[0] for column in cursor.description]
        return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]


def of(connection: Any, day: date, scale: Sequence[float], ratings: pa.Table | None) -> dict[str, Any]:
    """All that is told of the lists of a published date; `scale` are the lowest and the highest rating."""
    ask = _Asker(connection)
    low, high = float(scale[0]), max(float(scale[1]), float(scale[0]) + 1)
    exposure, people, samples = ask("exposure", day=day), ask("people", day=day), ask("samples", day=day)
    users = sum(row["users"] for row in people)
    some = {"day": day, "every": max(1, users // _LOOKED_AT)}
    for sample in samples:
        sample["movies"] = ask("one_list", day=day, user=sample["user_id"])
    _add_liked(samples, ratings, {row["movie_id"]: row["title"] for row in exposure})
    return {
        "scale": (low, high),
        "given": None if ratings is None else _given(ratings, low, high),
        "by_day": [] if ratings is None else _by_day(ratings, day),
        "listed_stars": _distributions(ask("distributions", low=low, high=high, classes=CLASSES, **some)),
        "spread": ask("spread", day=day, every=max(1, users // _LOOKED_AT_DAILY)),
        "users": users,
        "rows": sum(row["rows"] for row in people),
        "people": people,
        "changes": ask("changes", **some),
        "sources": ask("sources", day=day),
        "samples": samples,
        **_exposure(exposure),
    }


def _exposure(movies: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """How places in lists are shared among movies; `movies` has the most listed first."""
    listed, before = ([row[name] for row in movies] for name in ("n_users", "n_before"))
    gained = sorted(movies, key=lambda row: row["n_before"] - row["n_users"]) if any(before) else []
    few = max(1, len(movies) // 100)
    return {
        "movies": len(movies),
        "listed": sum(n > 0 for n in listed),
        "gini": gini(listed),
        "few": few,
        "share_of_few": sum(listed[:few]) / max(1, sum(listed)),
        "lorenz": {
            "these lists": lorenz(listed),
            "the date before": lorenz(before),
            "ratings": lorenz([row["n_ratings"] for row in movies]),
        },
        "top": movies[:_TOP],
        "more": [row for row in gained[:_MOVED] if row["n_users"] > row["n_before"]],
        "fewer": [row for row in gained[: -_MOVED - 1 : -1] if row["n_users"] < row["n_before"]],
    }


def lorenz(counts: Sequence[int]) -> list[tuple[float, float]]:
    """Points of the Lorenz curve: share of the movies, the least listed first, and their share of all places in lists."""
    ordered = np.sort(np.asarray(counts, float))
    if not ordered.sum():
        return []
    total = np.concatenate([[0.0], np.cumsum(ordered) / ordered.sum()])
    at = np.unique(np.linspace(0, len(ordered), _POINTS + 1).round().astype(int))
    return [(float(x / len(ordered)), float(total[x])) for x in at]


def gini(counts: Sequence[int]) -> float | None:
    """0 where all are alike, close to 1 where one has all: one less twice the area under the Lorenz curve."""
    ordered = np.sort(np.asarray(counts, float))
    if not ordered.sum():
        return None
    total = np.concatenate([[0.0], np.cumsum(ordered) / ordered.sum()])
    return float(1 - (total[1:] + total[:-1]).sum() / len(ordered))


def moved(one: Sequence[float], other: Sequence[float]) -> float:
    """How far two distributions are apart: the share that is in another class (the total variation distance)."""
    return float(np.abs(np.asarray(one) - np.asarray(other)).sum() / 2)


def _distributions(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """By figure: its bounds, its shares by class on each date, the newest first, and how far these are apart."""
    found = {}
    for figure, of_figure in groupby(rows, key=lambda row: row["figure"]):
        days: dict[str, list[float]] = {}
        for row in of_figure:
            days.setdefault(str(row["as_of_date"]), [0.0] * CLASSES)[row["class"]] = row["share"]
        shares = list(days.values())
        found[str(figure)] = {
            "bounds": (row["low"], row["high"]),
            "days": days,
            "moved": moved(*shares) if len(shares) == 2 else None,
        }
    return found


def _given(ratings: pa.Table, low: float, high: float) -> dict[str, Any]:
    """The stars given, over all time and in the newest `_RECENT` days: shares by class from `low` to `high`, and means."""
    at, stars = ratings["rated_at"].cast(pa.int64()).to_numpy(), ratings["rating"].to_numpy()
    parts = {"all": stars, "recent": stars[at > at.max() - _RECENT * schema.DAY]}
    shares = {name: (np.histogram(part, CLASSES, (low, high))[0] / len(part)).tolist() for name, part in parts.items()}
    return {
        "shares": shares,
        "mean": {name: float(part.mean(dtype=np.float64)) for name, part in parts.items()},
        "moved": moved(shares["all"], shares["recent"]),
    }


def _by_day(ratings: pa.Table, last: date) -> list[dict[str, Any]]:
    """Ratings and their mean on each of the newest `_RECENT` days (UTC) up to `last`."""
    end = int(np.datetime64(last, "D").astype(np.int64))
    days = ratings["rated_at"].cast(pa.int64()).to_numpy() // schema.DAY - (end - _RECENT + 1)
    inside = (days >= 0) & (days < _RECENT)
    stars = ratings["rating"].to_numpy()[inside].astype(np.float64)
    counts = np.bincount(days[inside], minlength=_RECENT)
    sums = np.bincount(days[inside], stars, minlength=_RECENT)
    return [
        {
            "day": str(np.datetime64(end - _RECENT + 1 + place, "D")),
            "ratings": int(n),
            "mean": float(total / n) if n else None,
        }
        for place, (n, total) in enumerate(zip(counts, sums, strict=True))
    ]


def _add_liked(samples: list[dict[str, Any]], ratings: pa.Table | None, titles: Mapping[Any, str | None]) -> None:
    """Put what each of the users rated best beside their list, and take their ids out."""
    wanted = [sample.pop("user_id") for sample in samples]
    for sample in samples:
        sample["liked"] = []
    if ratings is None:
        return
    kind = ratings["user_id"].type
    theirs = ratings.filter(pc.is_in(ratings["user_id"], value_set=pa.array(wanted, kind)))
    theirs = theirs.sort_by([("rating", "descending"), ("rated_at", "descending")])
    for sample, user in zip(samples, wanted, strict=True):
        best = theirs.filter(pc.equal(theirs["user_id"], pa.scalar(user, kind))).slice(0, _LIKED).to_pylist()
        sample["liked"] = [
            {"title": titles.get(row["movie_id"]) or row["movie_id"], "rating": row["rating"]} for row in best
        ]
