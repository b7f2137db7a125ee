"""Lists of two runs side by side, counted by hand; and a plan that readers do not see."""

from datetime import date, timedelta
from pathlib import Path

import pytest
import worlds
from conftest import LAST, world_in

from jobs import compare, publish
from jobs.nightly import Options, nightly
from storage import lists
from storage.errors import NotFound

BEFORE = [
    (1, 1, 10, 0.9, 4.5, "model"),
    (1, 2, 11, 0.8, 4.0, "model"),
    (2, 1, 11, 0.7, 3.5, "model"),
    (3, 1, 10, 0.7, 3.0, "model"),
]
AFTER = [
    (1, 1, 11, 0.9, 4.5, "model"),
    (1, 2, 10, 0.8, 4.0, "model"),
    (2, 1, 12, 0.7, 3.5, "model"),
    (4, 1, 10, 0.7, 3.0, "model"),
]


def test_differences_are_those_by_hand(tmp_path: Path) -> None:
    """User 1 has two movies swapped, user 2 another one; 3 is gone, 4 is new. Of four places two are new, two moved."""
    catalogue = worlds.catalogue([10, 11, 12])
    one = worlds.staged(tmp_path, "20260310T000000000Z-aaaaaa", lists=BEFORE, movies=catalogue)
    other = worlds.staged(tmp_path, "20260311T000000000Z-bbbbbb", date(2026, 3, 11), AFTER, movies=catalogue)
    found = lists.difference(one, other)
    assert (found["users_in_both"], found["users_only_in_one"], found["users_only_in_other"]) == (2, 1, 1)
    assert (found["same_lists"], found["entered"], found["moved"], found["looked_at"]) == (0, 0.5, 0.5, 1)
    assert [(row["title"], row["gained"]) for row in found["more"]] == [("Movie 12", 1)]
    assert [(row["title"], row["gained"]) for row in found["fewer"]] == [("Movie 11", -1)]
    same = lists.difference(one, one)
    assert (same["same_lists"], same["entered"], same["moved"], same["more"]) == (3, 0, 0, [])


def test_ids_of_other_types_cannot_be_compared(tmp_path: Path) -> None:
    one = worlds.staged(tmp_path, "20260310T000000000Z-aaaaaa")
    text = [(f"u{user}", rank, f"m{movie}", *rest) for user, rank, movie, *rest in worlds.GOOD]
    status = [(f"u{user}", *rest) for user, *rest in worlds.STATUS]
    movies = worlds.catalogue(["m10", "m11"])
    other = worlds.staged(tmp_path, "20260311T000000000Z-bbbbbb", date(2026, 3, 11), text, status, movies)
    with pytest.raises(NotFound, match="different types"):
        lists.difference(one, other)


def test_a_plan_stages_what_the_next_score_publishes(tmp_path: Path) -> None:
    settings = world_in(tmp_path / "state")
    first = compare.plan(settings, LAST - timedelta(days=1), Options(until="stage"))
    assert first["difference"]["one"] is None
    nightly(settings, LAST - timedelta(days=1))
    planned = compare.plan(settings, LAST, Options(until="stage"))
    assert max(publish.visible(settings)) == str(LAST - timedelta(days=1))
    assert 0 < planned["difference"]["users_in_both"] <= 41
    assert compare.diff(settings, first["run"]["run_id"], planned["run"]["run_id"]) == planned["difference"]
    published = nightly(settings, LAST)
    assert published["output_digest"] == planned["run"]["output_digest"]
    assert max(publish.visible(settings)) == str(LAST)


def test_a_run_without_lists_is_not_found(tmp_path: Path) -> None:
    settings = world_in(tmp_path / "state")
    nightly(settings, LAST)
    with pytest.raises(NotFound):
        compare.diff(settings, "2020", "2")
