"""Scoring: equal to ten lines of numpy, whatever the size of a block, and never a movie that was seen."""

import dataclasses
from functools import cache

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from conftest import small_world
from hypothesis import given, settings
from hypothesis import strategies as st

from recommender import candidates, score, train
from recommender.candidates import Candidates
from recommender.config import recipe
from recommender.errors import NonFiniteScores, NothingToRecommend, OutOfMemory
from recommender.score import History
from recommender.tensorflow import tf
from recommender.train import Trained

N = 5


@cache
def trained() -> Trained:
    chosen = recipe("basic", embedding_dimension=4, hidden_units=(8, 4), batch_size=128, epochs=3)
    return train.train(small_world().ratings, chosen)


@cache
def allowed() -> Candidates:
    return candidates.select(small_world().ratings, small_world().movies, min_ratings=1)


def lists(
    seen: History, n: int = N, users_per_block: int = 64, model: Trained | None = None
) -> tuple[pa.Table, pa.Table]:
    blocks = list(score.top_n(model or trained(), allowed(), seen, n, users_per_block=users_per_block))
    return (
        pa.Table.from_batches([block.recommendations for block in blocks]),
        pa.Table.from_batches([block.status for block in blocks]),
    )


def everybody(include_seen: bool = False) -> History:
    return score.history(small_world().ratings, small_world().users, allowed(), include_seen=include_seen)


def reference(seen: History, position: int, n: int) -> list[tuple[int, float]]:
    """One user's list by the book: score every pair, strike out the seen, sort."""
    model = trained()
    row = model.users.encode(seen.users[position : position + 1])
    movies = allowed().rows(model.movies, "movie_id")
    scores = model.model.call({"user": np.repeat(row, len(movies)), "movie": movies}).numpy()
    scores[seen.positions[seen.starts[position] : seen.starts[position + 1]]] = -np.inf
    best = [at for at in np.argsort(-scores, kind="stable")[:n] if np.isfinite(scores[at])]
    return [(allowed().ids[int(at)].as_py(), float(scores[at])) for at in best]


def test_lists_equal_those_of_numpy() -> None:
    seen = everybody()
    found, _ = lists(seen)
    for position, user in enumerate(seen.users.to_pylist()[:-1]):
        mine = found.filter(pc.equal(found["user_id"], user))
        expected = reference(seen, position, N)
        assert mine["movie_id"].to_pylist() == [movie for movie, _ in expected]
        np.testing.assert_allclose(mine["score"].to_numpy(), [value for _, value in expected], atol=1e-5)
        assert mine["rank"].to_pylist() == list(range(1, N + 1))


@pytest.mark.parametrize("users_per_block", [1, 7, 32, 1024])
def test_the_size_of_a_block_changes_nothing(users_per_block: int) -> None:
    assert lists(everybody(), users_per_block=users_per_block)[0].equals(lists(everybody(), users_per_block=16)[0])


@given(st.lists(st.sets(st.integers(0, 29)), min_size=41, max_size=41))
@settings(max_examples=15, deadline=None)
def test_seen_movies_are_never_listed_and_lists_are_refilled(rated: list[set[int]]) -> None:
    starts = np.concatenate([[0], np.cumsum([len(movies) for movies in rated])])
    positions = np.array([movie for movies in rated for movie in sorted(movies)], np.int32)
    seen = dataclasses.replace(everybody(), starts=starts, positions=positions)
    found, status = lists(seen)
    ids = allowed().ids.to_pylist()
    for user, movies in zip(seen.users.to_pylist(), rated, strict=True):
        mine = found.filter(pc.equal(found["user_id"], user))["movie_id"].to_pylist()
        assert not set(mine) & {ids[movie] for movie in movies}
        assert len(mine) == min(N, 30 - len(movies))
    short = [length < N for length in status["n_recommendations"].to_pylist()]
    assert [reason == "catalogue_exhausted" for reason in status["short_reason"].to_pylist()] == short


def test_with_seen_movies_allowed_everybody_has_all_to_choose_from() -> None:
    found, _ = lists(everybody(include_seen=True), n=30)
    assert found.num_rows == 41 * 30


def test_fewer_candidates_than_asked_for_is_said() -> None:
    found, status = lists(everybody(include_seen=True), n=50)
    assert found.num_rows == 41 * 30
    assert set(status["short_reason"].to_pylist()) == {"catalogue_exhausted"}


def test_an_unknown_user_gets_the_most_rated_and_is_marked() -> None:
    found, status = lists(everybody())
    cold = found.filter(pc.equal(found["user_id"], 999))
    assert cold["movie_id"].to_pylist() == allowed().ids.to_pylist()[:N]
    assert set(cold["source"].to_pylist()) == {"cold_user"}
    assert status["segment"].to_pylist().count("cold") == 1


def test_equal_scores_are_ranked_by_ratings_then_id() -> None:
    flat = {name: np.zeros_like(weight) for name, weight in trained().weights.items()}
    found, _ = lists(everybody(include_seen=True), model=dataclasses.replace(trained(), weights=flat))
    assert found["movie_id"].to_pylist() == allowed().ids.to_pylist()[:N] * 41


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_score_that_is_not_finite_stops_everything(value: float) -> None:
    weights = {name: weight.copy() for name, weight in trained().weights.items()}
    weights["weight/000"][3] = value
    with pytest.raises(NonFiniteScores, match="1 users"):
        lists(everybody(), model=dataclasses.replace(trained(), weights=weights))


def test_a_block_that_does_not_fit_is_halved_and_the_result_is_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    expected = lists(everybody())[0]
    real = score._Scorer.block

    def limited(self: score._Scorer, seen: History, start: int, stop: int) -> score.Block:
        if stop - start > most:
            raise tf.errors.ResourceExhaustedError(None, None, "out of memory")
        return real(self, seen, start, stop)

    monkeypatch.setattr(score._Scorer, "block", limited)
    most = 16
    assert lists(everybody(), users_per_block=4096)[0].equals(expected)
    most = 4
    with pytest.raises(OutOfMemory):
        lists(everybody())


def test_blocks_are_whole_groups_within_memory() -> None:
    assert score.block_users(10_000, memory=2**30) == 2**30 // (16 * 10_000) // score.GROUP * score.GROUP
    assert score.block_users(10**9, memory=1) == score.GROUP


def test_candidates_are_available_supported_and_most_rated_first() -> None:
    ratings, movies = small_world().ratings, small_world().movies
    assert movies is not None
    closed = movies.append_column("available", pa.array([number != 1 for number in movies["movie_id"].to_pylist()]))
    found = candidates.select(ratings, closed, min_ratings=18)
    assert 1 not in found.ids.to_pylist()
    assert found.n_ratings.min() >= 18
    assert list(zip(-found.n_ratings, found.ids.to_pylist(), strict=True)) == sorted(
        zip(-found.n_ratings, found.ids.to_pylist(), strict=True)
    )
    with pytest.raises(NothingToRecommend, match="601"):
        candidates.select(ratings, movies, min_ratings=601)
