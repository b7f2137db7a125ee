"""Spread: the first places stay, what many have moves back behind them, and a night and an evaluation do the same."""

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from conftest import small_world
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from recommender import candidates, history, ranking, score, spread
from recommender import train as training
from recommender.config import recipe
from recommender.known import Attributes
from recommender.rules import Rules
from recommender.train import Trained
from storage.catalogue import Catalogue

KEPT = spread.KEPT


def test_prices_grow_with_the_share_of_lists_that_have_a_movie() -> None:
    lists = np.array([[0, 1], [0, 2], [0, -1], [0, 1]], np.int32)
    found = spread.prices(lists, 4, 2.0)
    assert np.allclose(found, 2 * np.log1p(np.array([1, 0.5, 0.25, 0]) / 0.05))


def test_what_is_common_moves_back_behind_the_first_places() -> None:
    at = np.arange(KEPT + 3, dtype=np.int32)[None]
    scores = -np.arange(KEPT + 3, dtype=np.float32)[None]
    common = np.zeros(KEPT + 3, np.float32)
    common[[0, KEPT]] = 5  # one in the first places, one behind them
    worth, order = spread.priced(scores, at, common)
    assert order.tolist() == [[*range(KEPT), KEPT + 1, KEPT + 2, KEPT]]
    assert worth[0, -1] == scores[0, KEPT] - 5


@given(st.integers(0, 2**32 - 1), st.integers(1, 20), st.integers(1, 12))
def test_nobody_gains_or_loses_a_movie_and_scores_descend(seed: int, n: int, listed: int) -> None:
    chance = np.random.default_rng(seed)
    at = chance.permuted(np.tile(np.arange(30, dtype=np.int32), (4, 1)), axis=1)[:, :n]
    scores = -np.sort(-chance.integers(-3, 3, (4, n)).astype(np.float32), axis=1)
    scores[0, listed:] = -np.inf  # a list that has ended
    worth, order = spread.priced(scores, at, chance.exponential(size=30).astype(np.float32))
    assert (np.sort(order, axis=1) == np.sort(at, axis=1)).all()
    assert (order[:, :KEPT] == at[:, :KEPT]).all()
    assert (worth[:, 1:] <= worth[:, :-1]).all()
    assert (np.isneginf(worth) == np.isneginf(scores)).all()


def trained(world: Catalogue) -> tuple[Trained, Attributes]:
    """A small `default` that has learnt a world, and what is known beside its ratings."""
    known = Attributes(None, world.movies)
    small: dict[str, Any] = {"stars_dimension": 4, "choice_dimension": 8, "taste_dimension": 8, "batch_size": 16}
    made = recipe("default", **small, epochs=2, blend=(1.0, 0.5, 0.8))
    return training.train(world.ratings, made, attributes=known), known


def test_what_a_rule_takes_beside_a_list_stands_after_it() -> None:
    world = small_world()
    made, known = trained(world)
    allowed = candidates.select(world.ratings, None, min_ratings=1)
    seen = history.of(world.ratings, None, allowed)
    rules = Rules(genre_cap=2, genre_places=4, genres=world.movies.select(["movie_id", "genres"]))
    ready = made.changed(spread=3.0).ready(world.ratings, known)
    (block,) = score.top_n(ready, allowed, seen, 8, users_per_block=1024, rules=rules)
    rows = pa.table(block.recommendations)
    assert rows.filter(pc.is_valid(rows["reason"])).num_rows
    by_score = rows.filter(pc.is_null(rows["reason"]))
    user, height = (by_score[name].to_numpy() for name in ("user_id", "score"))
    assert not ((user[1:] == user[:-1]) & (height[1:] > height[:-1])).any()


def test_a_night_lists_what_an_evaluation_measures() -> None:
    world = small_world()
    made, known = trained(world)
    allowed = candidates.select(world.ratings, None, min_ratings=1)
    seen = history.of(world.ratings, None, allowed)
    task = ranking.everybody(world.ratings, allowed.ids)

    def of_night(weight: float) -> NDArray[np.int32]:
        ready = made.changed(spread=weight).ready(world.ratings, known)
        (block,) = score.top_n(ready, allowed, seen, 12, users_per_block=1024)
        rows = block.recommendations
        at = pc.index_in(rows["movie_id"], value_set=allowed.ids).to_numpy()
        found = np.full((len(seen.users), 12), -1, np.int32)
        found[pc.index_in(rows["user_id"], value_set=seen.users).to_numpy(), rows["rank"].to_numpy() - 1] = at
        assert (found == ready.lists(task, allowed.ids, world.ratings, 12)).all()
        return found

    plain, priced = of_night(0.0), of_night(3.0)
    assert (plain[:, :KEPT] == priced[:, :KEPT]).all()
    assert (plain != priced).any()
    share = np.bincount(plain[plain >= 0], minlength=len(allowed))
    later = [lists[:, KEPT : KEPT + 2] for lists in (plain, priced)]
    assert (np.minimum(*later) >= 0).all()
    assert share[later[1]].mean() < share[later[0]].mean()
