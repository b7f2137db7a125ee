"""Scoring against a forward pass written out in numpy, over more movies than one tile and more users than one group."""

import dataclasses
from functools import cache
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from numpy.typing import NDArray
from small import as_text, ids, random_model, ratings

from recommender import candidates, grid, history, schema, score
from recommender.candidates import Candidates
from recommender.errors import NonFiniteScores, OutOfMemory
from recommender.history import History
from recommender.tensorflow import tf
from recommender.train import Trained

USERS, MOVIES, N = 37, 600, 6  # neither whole groups nor whole tiles
Lists = dict[Any, list[tuple[Any, float]]]


@cache
def world() -> pa.Table:
    """Ratings of USERS users and MOVIES movies; user 1 has rated every movie, user 2 all but three."""
    rng = np.random.default_rng(3)
    rated = {(1, movie) for movie in range(1, MOVIES + 1)} | {(2, movie) for movie in range(4, MOVIES + 1)}
    rated |= {(int(user), int(movie)) for user, movie in rng.integers([3, 1], [USERS + 1, MOVIES + 1], (4000, 2))}
    pairs = sorted(rated)
    return ratings([user for user, _ in pairs], [movie for _, movie in pairs], list(rng.integers(1, 6, len(pairs))))


@cache
def model() -> Trained:
    return random_model(world()["user_id"], world()["movie_id"], seed=1)


def run(
    trained: Trained, table: pa.Table, n: int = N, users: pa.Table | None = None, size: int = 64, **more: bool
) -> tuple[pa.Table, pa.Table]:
    """Lists and status of everybody."""
    allowed = candidates.select(table, None, min_ratings=1)
    blocks = list(
        score.top_n(trained.ready(table), allowed, history.of(table, users, allowed, **more), n, users_per_block=size)
    )
    lists = pa.Table.from_batches([block.recommendations for block in blocks])
    return lists, pa.Table.from_batches([block.status for block in blocks])


def by_user(lists: pa.Table) -> Lists:
    found: Lists = {}
    for row in lists.to_pylist():
        found.setdefault(row["user_id"], []).append((row["movie_id"], row["score"]))
    return found


def forward(trained: Trained, user: int, movies: NDArray[np.int32]) -> NDArray[np.float64]:
    """The article's network by hand, in double precision: scores (M,) of one user's row and these movies' rows."""
    users, items, *layers = (weight.astype(np.float64) for weight in trained.weights.values())
    x = np.concatenate([np.repeat(users[user][None], len(movies), axis=0), items[movies]], axis=1)
    for kernel, bias in zip(layers[:-2:2], layers[1:-2:2], strict=True):
        x = np.maximum(x @ kernel + bias, 0)
    return (x @ layers[-2] + layers[-1])[:, 0]


def by_hand(trained: Trained, table: pa.Table, n: int) -> Lists:
    """Score everything, strike out what was seen, sort, cut."""
    allowed = candidates.select(table, None, min_ratings=1)
    seen = set(zip(table["user_id"].to_pylist(), table["movie_id"].to_pylist(), strict=True))
    expected: Lists = {}
    for user in sorted(set(table["user_id"].to_pylist())):
        scores = forward(trained, int(trained.users.encode(ids([user]))[0]), trained.movies.encode(allowed.ids))
        unseen = [at for at, movie in enumerate(allowed.ids.to_pylist()) if (user, movie) not in seen]
        best = sorted(unseen, key=lambda at: -scores[at])[:n]
        expected[user] = [(allowed.ids[at].as_py(), scores[at]) for at in best]
    return {user: found for user, found in expected.items() if found}


def same(found: Lists, expected: Lists) -> bool:
    """The same users, movies and order, and scores that are those rounded, give or take 1e-5."""
    assert found.keys() == expected.keys()
    for user, best in expected.items():
        assert [movie for movie, _ in found[user]] == [movie for movie, _ in best], user
        np.testing.assert_allclose([s for _, s in found[user]], [s for _, s in best], rtol=0, atol=5e-5 + 1e-5)
    return True


@pytest.mark.faults("B3.9")
def test_lists_are_those_of_the_forward_pass_by_hand() -> None:
    assert same(by_user(run(model(), world())[0]), by_hand(model(), world(), N))


def test_ids_as_text_are_scored_and_returned_as_text() -> None:
    table = as_text(world())
    trained = random_model(table["user_id"], table["movie_id"], seed=2)
    lists, status = run(trained, table)
    assert lists.schema == schema.recommendations(pa.string(), pa.string())
    assert status.schema == schema.user_status(pa.string())
    assert same(by_user(lists), by_hand(trained, table, N))


@pytest.mark.faults("B2.12")
def test_ids_at_both_ends_of_int64_are_returned_as_they_came() -> None:
    ends = [-(2**63), 2**63 - 1]
    table = ratings([*ends, 0], [*ends, 7], [1.0, 5.0, 3.0])
    trained = random_model(table["user_id"], table["movie_id"])
    assert same(by_user(run(trained, table)[0]), by_hand(trained, table, N))


@pytest.mark.parametrize("size", [1, 7, 64, 1024])
@pytest.mark.faults("B3.8")
def test_any_number_of_users_per_block_gives_the_identical_tables(size: int) -> None:
    lists, status = run(model(), world(), size=size)
    expected = run(model(), world(), size=16)
    assert lists.equals(expected[0])
    assert status.equals(expected[1])


def test_ranks_have_no_gaps_and_users_come_in_order() -> None:
    lists, status = run(model(), world())
    lengths = dict(zip(status["user_id"].to_pylist(), status["n_recommendations"].to_pylist(), strict=True))
    assert list(lengths) == list(range(1, USERS + 1))
    ranked = list(zip(lists["user_id"].to_pylist(), lists["rank"].to_pylist(), strict=True))
    assert ranked == [(user, rank) for user, length in lengths.items() for rank in range(1, length + 1)]


@pytest.mark.faults("B2.11")
def test_a_user_who_rated_everything_gets_an_empty_list_and_a_reason() -> None:
    lists, status = run(model(), world())
    assert 1 not in by_user(lists)
    assert sorted(movie for movie, _ in by_user(lists)[2]) == [1, 2, 3]
    reasons = [(row["n_recommendations"], row["short_reason"]) for row in status.to_pylist()]
    assert reasons == [(0, "catalogue_exhausted"), (3, "catalogue_exhausted"), *[(N, None)] * (USERS - 2)]
    assert status["n_ratings"].to_pylist()[:2] == [MOVIES, MOVIES - 3]


def test_seen_movies_come_back_where_they_are_allowed() -> None:
    lists, status = run(model(), world(), include_seen=True)
    assert len(by_user(lists)[1]) == N
    assert status["n_ratings"].to_pylist()[0] == MOVIES
    assert set(status["short_reason"].to_pylist()) == {None}


def test_predicted_stars_are_those_of_the_model_clipped_to_the_scale() -> None:
    lists, _ = run(model(), world())
    assert lists["predicted_rating"].to_numpy() == pytest.approx(
        model().ready(world()).predict(with_stars(lists)), abs=5e-4 + 1e-5
    )
    np.testing.assert_allclose(lists["predicted_rating"], np.clip(lists["score"], 1, 5), atol=5e-4 + 5e-5 + 1e-5)


def test_scores_and_stars_have_few_decimals_and_still_fall_with_the_rank() -> None:
    lists, _ = run(model(), world())
    for name, decimals in (("score", 4), ("predicted_rating", 3)):
        values = lists[name].to_numpy()
        assert {len(str(value).partition(".")[2]) for value in values} <= set(range(decimals + 1))
    first, score = lists["rank"].to_numpy() == 1, lists["score"].to_numpy()
    assert (first[1:] | (score[1:] <= score[:-1])).all()


def with_stars(lists: pa.Table) -> pa.Table:
    return lists.append_column("rating", pa.array(np.zeros(lists.num_rows, np.float32)))


@pytest.mark.faults("B3.11")
def test_users_the_model_does_not_know_get_the_most_rated_and_their_damped_means() -> None:
    strangers = pa.table({"user_id": ids([5, 1000, -3])})
    lists, status = run(model(), world(), users=strangers)
    allowed = candidates.select(world(), None, min_ratings=1)
    for user in (-3, 1000):
        mine = lists.filter(pc.equal(lists["user_id"], user))
        assert mine["movie_id"].to_pylist() == allowed.ids.to_pylist()[:N]
        assert mine["predicted_rating"].to_pylist() == np.round(allowed.mean_rating[:N], 3).tolist()
        assert mine["score"].to_pylist() == pytest.approx(np.log1p(allowed.n_ratings[:N]).tolist(), abs=5e-5)
    assert set(lists.filter(pc.equal(lists["source"], "cold_user"))["user_id"].to_pylist()) == {-3, 1000}
    cold = [row for row in status.to_pylist() if row["segment"] == "cold"]
    assert [(row["user_id"], row["n_ratings"]) for row in cold] == [(-3, 0), (1000, 0)]


def test_a_rater_too_new_for_the_model_is_cold_and_not_shown_what_they_rated() -> None:
    older = random_model(ids(range(1, USERS)), world()["movie_id"])
    lists, status = run(older, world())
    seen = set(world().filter(pc.equal(world()["user_id"], USERS))["movie_id"].to_pylist())
    popular = [movie for movie in candidates.select(world(), None, min_ratings=1).ids.to_pylist() if movie not in seen]
    assert [movie for movie, _ in by_user(lists)[USERS]] == popular[:N]
    assert status["segment"].to_pylist() == ["warm"] * (USERS - 1) + ["cold"]


@pytest.mark.faults("B3.11")
def test_a_movie_too_new_for_the_model_is_never_an_opinion_of_the_model() -> None:
    older = random_model(ids([1, 2]), ids([10, 20]))
    table = ratings([1, 2, 3, 2], [10, 20, 30, 30], [5.0, 4.0, 5.0, 5.0])
    lists, status = run(older, table)
    found = {user: [movie for movie, _ in best] for user, best in by_user(lists).items()}
    assert found == {1: [20], 2: [10], 3: [10, 20]}
    assert [movie for movie, _ in by_user(run(older, table, include_seen=True)[0])[3]] == [30, 10, 20]
    assert set(status["short_reason"].to_pylist()) == {"catalogue_exhausted"}


def test_movies_of_one_title_share_a_score_and_stand_in_candidate_order() -> None:
    table = ratings([1, 2, 3, 3, 2], [11, 12, 13, 12, 13], [3.0] * 5)
    titled = pa.table({"movie_id": ids([11, 12, 13]), "title": ["Twins", "Alone", "Twins"]})
    allowed = candidates.select(table, titled, min_ratings=1)
    trained = random_model(table["user_id"], titled["title"], movie_key="title")
    seen = history.of(table, None, allowed, include_seen=True)
    block = next(score.top_n(trained.ready(table), allowed, seen, 3, users_per_block=16))
    lists = by_user(pa.Table.from_batches([block.recommendations]))
    for best in lists.values():
        scores = dict(best)
        assert scores[11] == scores[13]
        assert [movie for movie, _ in best if movie != 12] == [13, 11]


@pytest.mark.faults("B3.5")
def test_equal_scores_stand_in_candidate_order_across_tiles() -> None:
    flat = dataclasses.replace(model(), weights={name: np.zeros_like(w) for name, w in model().weights.items()})
    lists, _ = run(flat, world(), n=MOVIES, include_seen=True)
    order = candidates.select(world(), None, min_ratings=1).ids.to_pylist()
    assert lists["movie_id"].to_pylist() == order * USERS


@pytest.mark.parametrize(("weight", "users"), [("weight/000", 1), ("weight/001", USERS)])
@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.faults("B3.4")
def test_one_broken_embedding_stops_the_block(weight: str, users: int, value: float) -> None:
    broken = model().weights[weight].copy()
    broken[5] = value
    trained = dataclasses.replace(model(), weights=model().weights | {weight: broken})
    with pytest.raises(NonFiniteScores, match="users in one block") as caught:
        run(trained, world())
    if np.isnan(value):
        assert str(caught.value).startswith(f"{users} ")


def test_broken_weights_of_the_unknown_rows_do_no_harm() -> None:
    weights = {name: weight.copy() for name, weight in model().weights.items()}
    weights["weight/000"][0] = weights["weight/001"][0] = np.nan
    users = pa.table({"user_id": ids([1000])})
    expected = run(model(), world(), users=users)[0]
    assert run(dataclasses.replace(model(), weights=weights), world(), users=users)[0].equals(expected)


def limit_memory(monkeypatch: pytest.MonkeyPatch, most: int) -> list[int]:
    """Let the choice of the best fail, as TensorFlow does, for more than `most` users at once; returns the sizes tried."""
    real, tried = score._Scorer._exact, []

    def choose(self: score._Scorer, users: Any, rated: Any) -> Any:
        tried.append(len(users))
        if len(users) > most:
            raise tf.errors.ResourceExhaustedError(None, None, "no more")
        return real(self, users, rated)

    monkeypatch.setattr(score._Scorer, "_exact", choose)
    return tried


@pytest.mark.faults("B3.12")
def test_blocks_shrink_until_they_fit_and_the_tables_are_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    expected = run(model(), world())
    tried = limit_memory(monkeypatch, most=16)
    lists, status = run(model(), world(), size=128)
    assert tried == [48, 48, 32, 16, 16, 16]  # 37 users in whole groups, twice; then what fits
    assert lists.equals(expected[0])
    assert status.equals(expected[1])


@pytest.mark.faults("B3.12")
def test_what_does_not_fit_in_the_smallest_block_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    limit_memory(monkeypatch, most=4)
    with pytest.raises(OutOfMemory, match=f"{grid.GROUP} users against {MOVIES} movies"):
        run(model(), world())


def history_of(table: pa.Table, allowed: Candidates, **more: Any) -> dict[int, list[int]]:
    seen: History = history.of(table, more.pop("users", None), allowed, **more)
    return {
        user: seen.rated.positions[seen.rated.starts[at] : seen.rated.starts[at + 1]].tolist()
        for at, user in enumerate(seen.users.to_pylist())
    }


def test_history_holds_the_rated_candidates_of_every_user() -> None:
    table = ratings([8, 3, 8, 3, 8], [1, 1, 2, 5, 9], [3.0] * 5)
    allowed = candidates.select(table.slice(0, 4), None, min_ratings=1)  # 1, 2, 5; not 9
    users = pa.table({"user_id": ids([5, 3])})
    assert history_of(table, allowed, users=users) == {3: [0, 2], 5: [], 8: [0, 1]}
    assert history_of(table, allowed, users=users, include_seen=True) == {3: [], 5: [], 8: []}
    assert history.of(table, users, allowed).n_ratings.tolist() == [2, 0, 3]


@pytest.mark.parametrize(("movies", "n"), [(64, 5), (640, 9), (640, 10), (3200, 7)])
def test_the_best_are_those_of_a_whole_sort_with_the_lower_place_first_among_equals(movies: int, n: int) -> None:
    rng = np.random.default_rng(movies + n)
    scores = rng.integers(0, 12, (40, movies)).astype(np.float32)
    scores[rng.random(scores.shape) < 0.3] = -np.inf
    scores[0] = -np.inf
    highest, at = (part.numpy() for part in grid.best(tf.constant(scores), n))
    expected = np.argsort(-scores, axis=1, kind="stable")[:, :n]
    np.testing.assert_array_equal(at, expected)
    np.testing.assert_array_equal(highest, np.take_along_axis(scores, expected, axis=1))
