"""The screen against scoring everything, over enough users and movies for it to be tried."""

from functools import cache
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from small import random_model, ratings

from recommender import candidates, history, score
from recommender.candidates import Candidates
from recommender.rules import Rules
from recommender.screen import Screen, Screening
from recommender.tensorflow import tf
from recommender.train import Trained

USERS, MOVIES, N = 2100, 4200, 10
STRANGERS = 3


@cache
def world() -> pa.Table:
    """Every user has rated four movies, every movie has been rated."""
    rng = np.random.default_rng(5)
    user = np.tile(np.arange(1, USERS + 1), 4)
    movie = np.concatenate([rng.permutation(MOVIES), rng.permutation(MOVIES)])[: len(user)] + 1
    pairs = np.unique(np.stack([user, movie], axis=1), axis=0)
    return ratings(pairs[:, 0].tolist(), pairs[:, 1].tolist(), rng.integers(1, 6, len(pairs)).tolist())


def run(trained: Trained, **more: Any) -> tuple[pa.Table, list[Screening]]:
    """The lists of everybody, three strangers among them, and what was said of the screen."""
    users = pa.table({"user_id": pa.array(range(USERS, USERS + STRANGERS + 1))})
    allowed = candidates.select(world(), None, min_ratings=1)
    seen, said = history.of(world(), users, allowed), list[Screening]()
    options = {"users_per_block": 512, "on_screen": said.append} | more
    blocks = list(score.top_n(trained.ready(world()), allowed, seen, N, **options))
    return pa.Table.from_batches([block.recommendations for block in blocks]), said


def by_rank(lists: pa.Table, column: str) -> np.ndarray:
    return lists[column].to_numpy().reshape(USERS + STRANGERS, N)


@cache
def model() -> Trained:
    return random_model(world()["user_id"], world()["movie_id"], seed=7, embedding_dimension=2, hidden_units=(16, 8))


@cache
def screened(size: int) -> tuple[pa.Table, list[Screening]]:
    return run(model(), exact=False, users_per_block=size)


def test_screened_lists_are_those_of_scoring_everything() -> None:
    (exact, nothing), (found, said) = run(model()), screened(512)
    assert nothing == []
    assert said[0].used
    assert said[0].recall >= 0.999
    assert said[0].sure > 0.9
    assert said[0].candidates < MOVIES / 4
    assert (by_rank(found, "movie_id") == by_rank(exact, "movie_id")).mean() > 0.999
    np.testing.assert_allclose(by_rank(found, "score"), by_rank(exact, "score"), atol=2e-4)
    assert (by_rank(found, "movie_id")[-STRANGERS:] == by_rank(exact, "movie_id")[-STRANGERS:]).all()


class Skewed(Rules):
    """Something of its own for each movie, as damping has it, but by chance."""

    def bias(self, candidates: Candidates) -> np.ndarray:
        return np.random.default_rng(1).normal(0, 0.5, len(candidates)).astype(np.float32)


def test_what_a_rule_adds_to_movies_is_in_the_scores_and_in_the_screen() -> None:
    (plain, _), (exact, _), (found, said) = (
        run(model()),
        run(model(), rules=Skewed()),
        run(model(), rules=Skewed(), exact=False),
    )
    assert said[0].used
    assert (by_rank(found, "movie_id") == by_rank(exact, "movie_id")).mean() > 0.999
    np.testing.assert_allclose(by_rank(found, "score"), by_rank(exact, "score"), atol=2e-4)
    allowed = candidates.select(world(), None, min_ratings=1)
    bias = dict(zip(allowed.ids.to_pylist(), Skewed().bias(allowed).tolist(), strict=True))
    pairs = {(row["user_id"], row["movie_id"]): row["score"] for row in plain.to_pylist() if row["source"] == "model"}
    both = [row for row in exact.to_pylist() if (row["user_id"], row["movie_id"]) in pairs]
    assert len(both) > 100
    for row in both:
        assert row["score"] == pytest.approx(pairs[row["user_id"], row["movie_id"]] + bias[row["movie_id"]], abs=2e-4)


def test_the_number_of_users_per_block_does_not_change_a_screened_list() -> None:
    assert screened(80)[0].equals(screened(512)[0])


def test_who_is_not_sure_is_looked_for_among_more_movies_before_all_are_scored(monkeypatch: pytest.MonkeyPatch) -> None:
    looked: list[tuple[int, np.ndarray]] = []
    best = Screen._best

    def told(self: Screen, bounds: Any, codes: Any, wide: int) -> Any:
        found = best(self, bounds, codes, wide)
        looked.append((wide, found[2].numpy()))
        return found

    monkeypatch.setattr(Screen, "_best", told)
    found, said = run(model(), exact=False)
    first, more = ([sure for wide, sure in looked if (wide > said[0].candidates) is wider] for wider in (False, True))
    assert {wide for wide, _ in looked} == {said[0].candidates, 16 * said[0].candidates}
    assert sum((~sure).sum() for sure in first) > 0
    assert np.concatenate(more).mean() > 0.5  # most of whom one group of users each would have been scored for
    assert (by_rank(found, "movie_id") == by_rank(run(model())[0], "movie_id")).mean() > 0.999


def test_a_screen_that_needs_too_many_movies_is_not_used_and_lists_are_exact() -> None:
    trained = random_model(
        world()["user_id"], world()["movie_id"], seed=7, embedding_dimension=64, hidden_units=(64, 32)
    )
    trained.weights["weight/000"][:] *= (
        4  # random, of many dimensions, and nothing in common: no basis of 32 could hold it
    )
    found, said = run(trained, exact=False)
    assert not said[0].used
    assert found.equals(run(trained)[0])


def test_few_users_or_a_model_of_factors_are_never_screened() -> None:
    allowed = candidates.select(world(), None, min_ratings=1)
    some = world().filter(pc.less(world()["user_id"], 200))
    said: list[Screening] = []
    seen = history.of(some, None, allowed)
    list(score.top_n(model().ready(some), allowed, seen, N, users_per_block=512, exact=False, on_screen=said.append))
    assert said == []


def test_without_the_memory_for_a_screen_everything_is_scored(monkeypatch: pytest.MonkeyPatch) -> None:
    def short(*_: Any) -> None:
        raise tf.errors.ResourceExhaustedError(None, None, "no more")

    monkeypatch.setattr(score, "Screen", short)
    found, said = run(model(), exact=False)
    assert [(screening.users, screening.used) for screening in said] == [(0, False)]
    assert found.equals(run(model())[0])
