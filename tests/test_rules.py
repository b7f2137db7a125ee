"""Rules on lists: against a plain walk over one user's movies, and what must hold whatever the rules are."""

from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from small import ids, random_model, ratings

from recommender import candidates, history, score
from recommender.candidates import Candidates
from recommender.rows import Rows
from recommender.rules import BY_SCORE, FILLER, NEW, NO_RULES, PINNED, Arrangement, Places, Rules

USERS = 9
GENRES = ("Drama", "Comedy", "War")
Entry = tuple[int, int, bool]
"""Movie, by what, moved back."""


@st.composite
def worlds(draw: st.DrawFn) -> dict[str, Any]:
    """Movies, what each user is not to get, scores in random order, and rules on them."""
    own, rare = draw(st.integers(1, 25)), draw(st.integers(0, 8))
    chance = np.random.default_rng(draw(st.integers(0, 2**32)))
    movies = range(own + rare)
    some = st.lists(st.sampled_from(movies), unique=True, max_size=4)
    closed = [
        (user, int(m))
        for user in range(USERS)
        for m in chance.permutation(own + rare)[: chance.integers(0, own + rare + 1)]
    ]
    return {
        "own": own, "rare": rare, "n": draw(st.integers(1, own + rare)), "chance": chance, "closed": closed,
        "rules": Rules(
            pinned=ids(draw(some)), new=ids(draw(some)), new_every=draw(st.integers(0, 4)), genre_cap=draw(st.integers(0, 3)),
            genre_places=draw(st.integers(1, 6)), fill=draw(st.booleans()), day=draw(st.integers(0, 9)),
            opted_out=ids(draw(st.lists(st.integers(0, USERS - 1), max_size=2))),
            genres=pa.table({"movie_id": ids(movies), "genres": [list(chance.permutation(GENRES)[: chance.integers(0, 4)]) for _ in movies]}),
        ),
    }  # fmt: skip


def arranged(world: dict[str, Any], blocks: int = 1) -> tuple[list[list[Entry]], np.ndarray, list[list[int]]]:
    """The lists of all users, in some blocks, the scores (USERS, M) they were made of, and whose turn it is among new movies."""
    own, rare = world["own"], world["rare"]
    size = own + rare
    listed = Candidates(ids(range(size)), np.arange(size, 0, -1), np.zeros(size, np.float32), None, rare)
    pairs = np.array(world["closed"], np.int64).reshape(-1, 2)
    made = Arrangement(world["rules"], listed, ids(range(USERS)), Rows.of(pairs[:, 0], pairs[:, 1], USERS), world["n"])
    scores = np.random.default_rng(3).permutation(USERS * own).reshape(USERS, own).astype(np.float32) + 1
    masked = scores.copy()
    masked[tuple(pairs[pairs[:, 1] < own].T)] = -np.inf
    at = np.argsort(-masked, axis=1, kind="stable")[:, : made.pool].astype(np.int32)
    highest = np.take_along_axis(masked, at, axis=1)
    parts = [made.of(users, highest[users], at[users]) for users in np.array_split(np.arange(USERS), blocks)]
    found = Places(*(np.concatenate([getattr(part, name) for part in parts]) for name in ("at", "score", "by", "back")))
    keep = found.score > -np.inf
    rows = [
        list(zip(found.at[user][keep[user]].tolist(), found.by[user][keep[user]].tolist(), found.back[user][keep[user]].tolist(), strict=True))
        for user in range(USERS)
    ]  # fmt: skip
    turns = [np.roll(made.new, -made.first[user]).tolist() if len(made.slots) else [] for user in range(USERS)]
    return rows, scores, turns


def by_hand(world: dict[str, Any], user: int, scores: np.ndarray, turn: list[int]) -> list[Entry]:
    """The list of one user, a movie at a time."""
    rules, n, own = world["rules"], world["n"], world["own"]
    if user in rules.opted_out.to_pylist():
        return []
    closed = {movie for person, movie in world["closed"] if person == user}
    genres = dict(zip(*rules.genres.to_pydict().values(), strict=True))
    places: dict[int, Entry] = {}
    slots = range(rules.new_every - 1, n, rules.new_every) if rules.new_every else ()
    for slot, movie in zip(slots, (movie for movie in turn if movie not in closed), strict=False):
        places[slot] = (movie, NEW, False)
    pinned = [movie for movie in rules.pinned.to_pylist() if movie not in closed][:n]
    places |= {place: (movie, PINNED, False) for place, movie in enumerate(pinned)}
    taken = {movie for movie, _, _ in places.values()}
    left = [m for m in np.argsort(-scores[:own], kind="stable").tolist() if m not in closed | taken]
    first: list[Entry] = []
    back: list[Entry] = []
    window = [place for place in range(min(rules.genre_places, n)) if place not in places] if rules.genre_cap else []
    above = [genre for place, entry in places.items() if place < rules.genre_places for genre in genres[entry[0]]]
    while left and len(first) < len(window):
        movie = left.pop(0)
        if any(above.count(genre) >= rules.genre_cap for genre in genres[movie]):
            back.append((movie, BY_SCORE, True))
        else:
            first.append((movie, BY_SCORE, False))
            above += genres[movie]
    others = sorted([*back, *((m, BY_SCORE, False) for m in left)], key=lambda entry: -scores[entry[0]])
    queue = [*first, *others]
    for place in range(n):
        if place not in places and queue:
            places[place] = queue.pop(0)
    found = [places[place] for place in sorted(places) if place < n]
    if rules.fill:
        there = {movie for movie, _, _ in found} | closed
        found += [(movie, FILLER, False) for movie in range(own, own + world["rare"]) if movie not in there]
    return found[:n]


@given(worlds())
@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
def test_lists_are_those_of_a_walk_over_the_movies_of_each_user(world: dict[str, Any]) -> None:
    lists, scores, turns = arranged(world)
    for user, found in enumerate(lists):
        assert found == by_hand(world, user, scores[user], turns[user])


@given(worlds())
@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
def test_whatever_the_rules_nobody_gets_what_is_kept_from_them_or_a_movie_twice(world: dict[str, Any]) -> None:
    lists, scores, _ = arranged(world)
    rules, closed = world["rules"], set(world["closed"])
    for user, found in enumerate(lists):
        movies = [movie for movie, _, _ in found]
        assert len(movies) == len(set(movies)) <= world["n"]
        assert not closed & {(user, movie) for movie in movies}
        if user in rules.opted_out.to_pylist():
            assert not found
            continue
        left = {movie for movie in range(world["own"]) if (user, movie) not in closed}
        assert len(movies) >= min(world["n"], len(left))  # full where there are candidates enough
        assert all(movie in rules.pinned.to_pylist() for movie, by, _ in found if by == PINNED)
        assert all(movie in rules.new.to_pylist() for movie, by, _ in found if by == NEW)
        assert all(movie >= world["own"] for movie, by, _ in found if by == FILLER)
        falling = [scores[user][movie] for movie, by, back in found if by == BY_SCORE and not back]
        assert falling == sorted(falling, reverse=True)


@given(worlds(), st.integers(2, USERS))
@settings(max_examples=50, deadline=None, suppress_health_check=list(HealthCheck))
def test_blocks_do_not_change_a_list(world: dict[str, Any], blocks: int) -> None:
    assert arranged(world, blocks)[0] == arranged(world)[0]


def test_new_movies_take_turns_by_date_and_user() -> None:
    users, movies = 600, 40
    listed = Candidates(ids(range(movies)), np.ones(movies, np.int64), np.zeros(movies, np.float32))
    highest, at = np.zeros((users, 30), np.float32), np.tile(np.arange(30, dtype=np.int32), (users, 1))
    nobody = Rows.of(np.zeros(0, int), np.zeros(0, int), users)

    def new(day: int) -> np.ndarray:
        rules = Rules(new=ids(range(30, 40)), new_every=10, day=day)
        found = Arrangement(rules, listed, ids(range(users)), nobody, 30).of(np.arange(users), highest, at)
        assert (found.by[:, [9, 19, 29]] == NEW).all()
        assert (found.by == NEW).sum() == 3 * users
        return found.at[:, [9, 19, 29]]

    one = new(20000)
    assert (one == new(20000)).all()
    assert (one != new(20001)).any(axis=1).mean() > 0.8
    shown = np.bincount(one.ravel(), minlength=movies)[30:]
    assert shown.min() > 0.7 * 3 * users / 10  # each stands in about as many lists


def night(rules: Rules = NO_RULES, **more: Any) -> tuple[pa.Table, pa.Table]:
    """Lists and status of 40 users by a random model of the article's kind, in blocks of 16."""
    chance = np.random.default_rng(4)
    pairs = np.unique(chance.integers([1, 1], [41, 31], (500, 2)), axis=0)
    table = ratings(pairs[:, 0].tolist(), pairs[:, 1].tolist(), chance.integers(1, 6, len(pairs)).tolist())
    users = pa.table({"user_id": ids([999])})
    trained = random_model(table["user_id"], table["movie_id"], seed=1)
    allowed = candidates.select(table, None, min_ratings=8, closed=rules.closed.values(), also=rules.also(table))
    seen = history.of(table, users, allowed, excluded=rules.excluded)
    options = {"users_per_block": 16} | more
    blocks = list(score.top_n(trained.ready(table), allowed, seen, 10, rules=rules, **options))
    return tuple(pa.Table.from_batches([getattr(b, part) for b in blocks]) for part in ("recommendations", "status"))


ALL = Rules(
    closed={"block": ids([2, 3]), "released": ids([4])},
    excluded=pa.table({"user_id": ids([1, 1, 5, 77]), "movie_id": ids([6, 7, 6, 6])}),
    opted_out=ids([9, 12345]),
    pinned=ids([30, 1, 2]),
    new=ids([500, 501, 12]),
    new_every=5,
    genre_cap=2,
    genre_places=5,
    genres=pa.table({"movie_id": ids(range(1, 31)), "genres": [[GENRES[m % 3]] for m in range(1, 31)]}),
    damping=0.5,
    fill=True,
    day=20000,
)


def test_rules_that_say_nothing_change_no_byte() -> None:
    for one, other in zip(night(), night(Rules(genre_places=3, new_every=0, day=7)), strict=True):
        assert one.equals(other)
    lists, status = night()
    assert set(lists["source"].to_pylist()) == {"model", "cold_user"}
    assert lists["reason"].null_count == lists.num_rows
    for part, same in zip(night(Rules(opted_out=ids([12345]))), (lists, status), strict=True):
        assert part.equals(same)  # nor does the way by the rules


@pytest.mark.parametrize("size", [1, 64])
def test_a_night_with_every_rule_is_the_same_in_blocks_of_any_size(size: int) -> None:
    lists, status = night(ALL)
    for one, other in zip(night(ALL, users_per_block=size), (lists, status), strict=True):
        assert one.equals(other)
    rows = lists.to_pylist()
    assert not {row["movie_id"] for row in rows} & {2, 3, 4}
    assert not {(1, 6), (1, 7), (5, 6)} & {(row["user_id"], row["movie_id"]) for row in rows}
    assert {row["source"] for row in rows} == {"model", "cold_user", "pinned", "new_movie"}
    told = {row["user_id"]: row for row in status.to_pylist()}
    assert (told[9]["n_recommendations"], told[9]["short_reason"]) == (0, "opted_out")
    assert told[1]["short_reason"] is None
    assert all(np.isfinite(row["score"]) and 1 <= row["predicted_rating"] <= 5 for row in rows)
    unrated = [row for row in rows if row["movie_id"] in (500, 501)]
    assert unrated
    assert {row["source"] for row in unrated} <= {"new_movie", "filler"}
    mine = [row for row in rows if row["user_id"] == 999]
    assert [row["source"] for row in mine[:2]] == ["pinned", "pinned"]


def test_damping_takes_from_each_score_a_share_of_the_logarithm_of_the_ratings() -> None:
    plain, damped = (night(rules)[0].to_pylist() for rules in (NO_RULES, Rules(damping=0.5)))
    scores = {(row["user_id"], row["movie_id"]): row["score"] for row in plain if row["source"] == "model"}
    found = {(row["user_id"], row["movie_id"]): row["score"] for row in damped if row["source"] == "model"}
    both = scores.keys() & found.keys()
    lost: dict[int, set[float]] = {}
    for user, movie in both:
        lost.setdefault(movie, set()).add(round(scores[user, movie] - found[user, movie], 3))
    assert len(both) > 100
    assert all(max(losses) - min(losses) < 3e-3 for losses in lost.values())
    assert np.mean([min(losses) for losses in lost.values()]) > 0.5 * np.log(8)
