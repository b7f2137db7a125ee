"""Seen movies, for any histories: never listed, lists refilled, short ones explained."""

import dataclasses
from functools import cache

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from conftest import small_world
from hypothesis import given, settings
from hypothesis import strategies as st

from recommender import candidates, history, score, train
from recommender.candidates import Candidates
from recommender.config import recipe
from recommender.history import History
from recommender.rows import Rows
from recommender.train import Trained

N = 5


@cache
def trained() -> Trained:
    chosen = recipe("basic", embedding_dimension=4, hidden_units=(8, 4), batch_size=128, epochs=3)
    return train.train(small_world().ratings, chosen)


@cache
def allowed() -> Candidates:
    return candidates.select(small_world().ratings, small_world().movies, min_ratings=1)


def lists(seen: History, n: int = N) -> tuple[pa.Table, pa.Table]:
    blocks = list(score.top_n(trained().ready(small_world().ratings), allowed(), seen, n, users_per_block=64))
    return (
        pa.Table.from_batches([block.recommendations for block in blocks]),
        pa.Table.from_batches([block.status for block in blocks]),
    )


def everybody(include_seen: bool = False) -> History:
    return history.of(small_world().ratings, small_world().users, allowed(), include_seen=include_seen)


@given(st.lists(st.sets(st.integers(0, 29)), min_size=41, max_size=41))
@settings(max_examples=15, deadline=None)
@pytest.mark.faults("B3.10")
def test_seen_movies_are_never_listed_and_lists_are_refilled(rated: list[set[int]]) -> None:
    starts = np.concatenate([[0], np.cumsum([len(movies) for movies in rated])])
    positions = np.array([movie for movies in rated for movie in sorted(movies)], np.int32)
    seen = dataclasses.replace(everybody(), rated=Rows(starts, positions))
    found, status = lists(seen)
    ids = allowed().ids.to_pylist()
    for user, movies in zip(seen.users.to_pylist(), rated, strict=True):
        mine = found.filter(pc.equal(found["user_id"], user))["movie_id"].to_pylist()
        assert not set(mine) & {ids[movie] for movie in movies}
        assert len(mine) == min(N, 30 - len(movies))
    short = [length < N for length in status["n_recommendations"].to_pylist()]
    assert [reason == "catalogue_exhausted" for reason in status["short_reason"].to_pylist()] == short


@pytest.mark.faults("B2.11")
def test_fewer_candidates_than_asked_for_is_said() -> None:
    found, status = lists(everybody(include_seen=True), n=50)
    assert found.num_rows == 41 * 30
    assert set(status["short_reason"].to_pylist()) == {"catalogue_exhausted"}
