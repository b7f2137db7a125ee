"""Lists and their figures against arithmetic by hand, brute force and a published implementation."""

import itertools
import math

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from small import as_text, ids, ratings

from recommender import candidates, evaluate, ranking
from recommender.errors import NonFiniteScores
from recommender.ranking import Scorer, Task

# Raters: movie 1 {1, 2, 3, 4}, movie 2 {1, 3}, movie 3 {2}, movie 4 {3}. Positions are movie - 1.
TRAIN = ratings([1, 1, 2, 2, 3, 3, 3, 4], [1, 2, 1, 3, 1, 2, 4, 1], [3.0] * 7 + [1.0])
# User 1 likes 3 and 9, which nobody has rated; user 2 likes 2 and 4, and 1 again; 3 likes nothing; 4 likes 9; 5 is new.
HELD = ratings([1, 1, 1, 2, 2, 2, 3, 4, 5], [3, 4, 9, 2, 4, 1, 3, 9, 1], [5.0, 2.0, 4.0, 4.0, 5.0, 5.0, 3.0, 5.0, 5.0])
TASK = ranking.task(TRAIN, HELD, 4.0)
LOG3 = math.log2(3)
SEEDS = st.integers(0, 10_000)


def same(*scores: float) -> Scorer:
    return lambda users: np.tile(np.array(scores, np.float32), (len(users), 1))


def world(seed: int) -> tuple[pa.Table, pa.Table]:
    """Train and held-out ratings of a random world; some movies are rated in one of them only."""
    rng = np.random.default_rng(seed)
    users, movies = rng.integers(2, 12), rng.integers(3, 15)
    pairs = rng.permutation(users * movies)[: rng.integers(users, users * movies + 1)]
    stars = rng.integers(1, 6, len(pairs)).astype(float)
    cut = max(1, int(0.6 * len(pairs)))
    parts = (slice(0, cut), slice(cut, None))
    train, held = (ratings(list(pairs[s] // movies), list(pairs[s] % movies), list(stars[s])) for s in parts)
    return train, held


def coarse(task: Task, seed: int) -> Scorer:
    """Scores with many equals and some -inf, that depend on the ids of user and movie alone."""

    def score(users: pa.Array) -> NDArray[np.float32]:
        user, movie = users.to_numpy()[:, None], task.movies.to_numpy()[None, :]
        mixed = (user * 31 + movie * 17 + seed) % 7
        return np.where(mixed == 6, -np.inf, mixed).astype(np.float32)

    return score


def rows(found: ranking.Rows) -> list[list[int]]:
    return [found.positions[a:b].tolist() for a, b in zip(found.starts, found.starts[1:], strict=False)]


def test_the_task_is_the_one_by_hand() -> None:
    assert TASK.movies.to_pylist() == [1, 2, 3, 4]
    assert TASK.users.to_pylist() == [1, 2, 4]
    assert rows(TASK.seen) == [[0, 1], [0, 2], [0]]
    assert rows(TASK.relevant) == [[2], [1, 3], []]
    assert TASK.n_relevant.tolist() == [2, 2, 1]


def test_candidates_are_in_the_order_of_the_nights() -> None:
    train, held = world(3)
    assert ranking.task(train, held, 4.0).movies.equals(candidates.select(train, None, min_ratings=1).ids)


def test_ids_may_be_text() -> None:
    text = ranking.task(as_text(TRAIN), as_text(HELD), 4.0)
    assert text.users.to_pylist() == ["u1", "u2", "u4"]
    assert text.movies.to_pylist() == ["m1", "m2", "m3", "m4"]
    assert rows(text.relevant) == rows(TASK.relevant)


@pytest.mark.parametrize(("lowest", "highest", "expected"), [(0.5, 5, 3.875), (1, 5, 4), (1, 10, 7.75)])
def test_good_is_three_quarters_up_the_scale(lowest: float, highest: float, expected: float) -> None:
    assert ranking.good(ratings([1, 2, 3], [1, 1, 1], [highest, lowest, 2.0])) == expected


def test_lists_leave_out_what_is_seen_and_fill_with_minus_one() -> None:
    assert ranking.lists(TASK, same(1, 2, 3, 4), n=3).tolist() == [[3, 2, -1], [3, 1, -1], [3, 2, 1]]


def test_equal_scores_are_listed_in_the_order_of_the_candidates() -> None:
    assert ranking.lists(TASK, same(1, 1, 1, 1), n=2).tolist() == [[2, 3], [1, 3], [1, 2]]


def test_minus_infinity_is_never_listed() -> None:
    assert ranking.lists(TASK, same(9, 1, 2, -np.inf), n=2).tolist() == [[2, -1], [1, -1], [2, 1]]


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_score_that_is_no_number_stops_it(bad: float) -> None:
    with pytest.raises(NonFiniteScores, match="3 users"):
        ranking.lists(TASK, same(1, bad, 1, 1))


def test_scores_of_another_shape_and_too_short_lists_are_refused() -> None:
    with pytest.raises(ValueError, match="shape"):
        ranking.lists(TASK, same(1, 2))
    with pytest.raises(ValueError, match="at 11"):
        ranking.per_user(TASK, ranking.lists(TASK, same(1, 2, 3, 4), n=10), at=11)


def test_a_scorer_keeps_its_scores() -> None:
    scores = np.ones((3, 4), np.float32)
    ranking.lists(TASK, lambda users: scores, n=2)
    assert (scores == 1).all()


def test_figures_are_those_by_hand() -> None:
    """Lists [4, 3], [4, 2], [4, 3]: user 1 hits at place 2, user 2 twice, user 4 never.

    User 1 at 2: gain 1 / log2 3 of 1 + 1 / log2 3; half of 2 relevant; precision at the hit 1/2, over min(2, 2).
    """
    lists = ranking.lists(TASK, same(1, 2, 3, 4), n=3)
    found = {name: values.tolist() for name, values in ranking.per_user(TASK, lists, 2).items()}
    assert found["ndcg"] == pytest.approx([(1 / LOG3) / (1 + 1 / LOG3), 1, 0])
    assert found["recall"] == [0.5, 1, 0]
    assert found["hit_rate"] == [1, 1, 0]
    assert found["mrr"] == [0.5, 1, 0]
    assert found["map"] == [0.25, 1, 0]
    at_one = {name: values.tolist() for name, values in ranking.per_user(TASK, lists, 1).items()}
    assert at_one == {
        "ndcg": [0, 1, 0],
        "recall": [0, 0.5, 0],
        "hit_rate": [0, 1, 0],
        "mrr": [0, 1, 0],
        "map": [0, 1, 0],
    }


def test_beyond_accuracy_is_that_by_hand() -> None:
    """Lists [4, 3], [4, 2], [4, 3] at 2: movies listed 0, 1, 2, 3 times.

    Novelty: 1 of 4 users rated movies 3 and 4, 2 bits; 2 of 4 movie 2, 1 bit: (5 * 2 + 1) / 6.
    Gini: (-3 * 0 - 1 * 1 + 1 * 2 + 3 * 3) / (4 * 6). Movies 4 and 3 share no rater; 4 and 2 have cosine 1 / sqrt(1 * 2).
    """
    lists = ranking.lists(TASK, same(1, 2, 3, 4), n=3)
    found = ranking.beyond_accuracy(TASK, lists, TRAIN, 2)
    assert found["coverage"] == 3 / 4
    assert found["novelty"] == pytest.approx(11 / 6)
    assert found["gini"] == pytest.approx(10 / 24)
    assert found["diversity"] == pytest.approx((1 + (1 - 1 / math.sqrt(2)) + 1) / 3)


def test_places_that_are_empty_count_for_nothing() -> None:
    """At 3: users 1 and 2 as at 2; user 4 has 4, 3, 2 with cosines 0, 1 / sqrt 2 and 0. A list of one has no pair."""
    lists = ranking.lists(TASK, same(1, 2, 3, 4), n=3)
    near = 1 / math.sqrt(2)
    expected = (1 + (1 - near) + (1 - near / 3)) / 3
    assert ranking.beyond_accuracy(TASK, lists, TRAIN, 3)["diversity"] == pytest.approx(expected)
    assert ranking.beyond_accuracy(TASK, lists, TRAIN, 1)["diversity"] == 0
    assert ranking.beyond_accuracy(TASK, np.full((3, 2), -1, np.int32), TRAIN, 2) == {}


@given(seed=SEEDS)
def test_lists_are_those_of_brute_force(seed: int) -> None:
    train, held = world(seed)
    task = ranking.task(train, held, 4.0)
    scorer = coarse(task, seed)
    lists = ranking.lists(task, scorer, n=5, users_per_block=2)
    seen = set(zip(train["user_id"].to_pylist(), train["movie_id"].to_pylist(), strict=True))
    for row, user in enumerate(task.users.to_pylist()):
        scores = scorer(pa.array([user]))[0]
        movies = task.movies.to_pylist()
        open_to = [place for place, movie in enumerate(movies) if (user, movie) not in seen and scores[place] > -np.inf]
        best = sorted(open_to, key=lambda place: (-scores[place], place))[:5]
        assert lists[row].tolist() == best + [-1] * (5 - len(best))


@given(seed=SEEDS)
def test_the_task_is_that_of_brute_force(seed: int) -> None:
    train, held = world(seed)
    task = ranking.task(train, held, 4.0)
    rated = [set(zip(part["user_id"].to_pylist(), part["movie_id"].to_pylist(), strict=True)) for part in (train, held)]
    known = {user for user, _ in rated[0]}
    liked = [(row["user_id"], row["movie_id"]) for row in held.to_pylist() if row["rating"] >= 4]
    expected = {user: {m for u, m in liked if u == user and (u, m) not in rated[0]} for user in known}
    expected = {user: movies for user, movies in expected.items() if movies}
    assert task.users.to_pylist() == sorted(expected)
    assert task.n_relevant.tolist() == [len(expected[user]) for user in sorted(expected)]
    movies = task.movies.to_pylist()
    for user, seen, relevant in zip(task.users.to_pylist(), rows(task.seen), rows(task.relevant), strict=True):
        assert {movies[place] for place in seen} == {m for u, m in rated[0] if u == user}
        assert {movies[place] for place in relevant} == expected[user] & set(movies)


@given(seed=SEEDS)
def test_figures_stay_in_their_bounds(seed: int) -> None:
    task = ranking.task(*world(seed), 4.0)
    found = ranking.per_user(task, ranking.lists(task, coarse(task, seed), n=5), 5)
    assert all(((values >= 0) & (values <= 1 + 1e-12)).all() for values in found.values())
    assert (found["recall"] <= task.relevant.counts / task.n_relevant).all()
    assert (found["hit_rate"] >= found["mrr"]).all()


@given(seed=SEEDS)
def test_perfect_lists_are_perfect(seed: int) -> None:
    """Relevant movies first: NDCG and MAP are 1 where all that are relevant are candidates."""
    task = ranking.task(*world(seed), 4.0)
    oracle = task.relevant.dense(np.arange(len(task.users)), len(task.movies))
    lists = ranking.lists(task, lambda users: oracle[ranking.positions(users, task.users)], n=20)
    found = ranking.per_user(task, lists, 20)
    whole = task.relevant.counts == task.n_relevant
    for name in found:
        assert found[name][whole] == pytest.approx(1)
    assert found["recall"] == pytest.approx(task.relevant.counts / task.n_relevant)


@given(seed=SEEDS)
def test_the_order_of_rows_and_the_names_of_users_change_nothing(seed: int) -> None:
    train, held = world(seed)
    rng = np.random.default_rng(seed)
    task = ranking.task(train, held, 4.0)
    scorer = coarse(task, seed)
    lists = ranking.lists(task, scorer, n=5)

    def renamed(table: pa.Table) -> pa.Table:
        shuffled = table.take(pa.array(rng.permutation(table.num_rows)))
        return shuffled.set_column(0, "user_id", ids(1000 - user for user in shuffled["user_id"].to_pylist()))

    other = ranking.task(renamed(train), renamed(held), 4.0)
    assert other.movies.equals(task.movies)
    others = ranking.lists(other, lambda users: scorer(pa.array(1000 - users.to_numpy())), n=5)
    assert np.array_equal(others, lists[::-1])
    for name, values in ranking.per_user(task, lists, 5).items():
        assert np.array_equal(ranking.per_user(other, others, 5)[name][::-1], values)


@given(seed=SEEDS)
@settings(max_examples=30)
def test_beyond_accuracy_is_that_of_loops(seed: int) -> None:
    train, held = world(seed)
    task = ranking.task(train, held, 4.0)
    lists = ranking.lists(task, coarse(task, seed), n=4)
    raters: dict[int, set[int]] = {movie: set() for movie in task.movies.to_pylist()}
    for row in train.to_pylist():
        raters[row["movie_id"]].add(row["user_id"])
    listed = [[task.movies[int(place)].as_py() for place in row if place >= 0] for row in lists]
    flat = [movie for movies in listed for movie in movies]
    if not flat:
        return
    n_users = len(set(train["user_id"].to_pylist()))
    times = [flat.count(movie) for movie in raters]

    def cosine(a: int, b: int) -> float:
        return len(raters[a] & raters[b]) / math.sqrt(len(raters[a]) * len(raters[b]))

    apart = [np.mean([1 - cosine(*pair) for pair in itertools.combinations(row, 2)]) for row in listed if len(row) > 1]
    found = ranking.beyond_accuracy(task, lists, train, 4)
    assert found["coverage"] == len(set(flat)) / len(raters)
    assert found["novelty"] == pytest.approx(np.mean([-math.log2(len(raters[movie]) / n_users) for movie in flat]))
    assert found["gini"] == pytest.approx(sum(abs(a - b) for a in times for b in times) / (2 * len(times) * sum(times)))
    assert found["diversity"] == pytest.approx(np.mean(apart) if apart else 0, abs=1e-6)


def test_tiles_and_blocks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    train, held = world(8)
    task = ranking.task(train, held, 4.0)
    lists = ranking.lists(task, coarse(task, 1), n=5)
    whole = ranking.beyond_accuracy(task, lists, train, 5)
    monkeypatch.setattr(ranking, "_CELLS", 20)
    assert ranking.beyond_accuracy(task, lists, train, 5) == pytest.approx(whole)
    every = np.arange(len(task.movies))
    rated = ranking.interactions(train, task.movies)
    dense = rated.dense(np.arange(len(rated)), len(every))
    assert np.array_equal(ranking.cooccurrence(rated, every, every), dense.T @ dense)


def test_all_is_measured_at_each_cut_off_with_intervals_around_means() -> None:
    lists = ranking.lists(TASK, same(1, 2, 3, 4), n=3)
    found = ranking.measure(TASK, lists, TRAIN, at=(1, 2), resamples=200)
    means = ["ndcg", "recall", "hit_rate", "mrr", "map"]
    others = ["coverage", "gini", "novelty", "diversity"]
    assert [metric.metric for metric in found] == [f"{name}@{at}" for at in (1, 2) for name in means + others]
    assert {(metric.segment, metric.n) for metric in found} == {("all", 3)}
    by_name = {metric.metric: metric for metric in found}
    assert by_name["recall@2"].value == pytest.approx(0.5)
    for name in means:
        metric = by_name[f"{name}@2"]
        assert metric.ci_low is not None
        assert metric.ci_high is not None
        assert metric.ci_low <= metric.value <= metric.ci_high
    assert all(by_name[f"{name}@2"].ci_low is None for name in others)
    assert found == ranking.measure(TASK, lists, TRAIN, at=(1, 2), resamples=200)
    quick = [metric for metric in found if not metric.metric.startswith(("novelty", "diversity"))]
    assert quick == ranking.measure(TASK, lists, None, at=(1, 2), resamples=200)


def test_without_users_there_is_nothing_to_measure() -> None:
    nobody = ranking.task(TRAIN, HELD.slice(0, 0), 4.0)
    lists = ranking.lists(nobody, same(1, 2, 3, 4), n=3)
    assert lists.shape == (0, 3)
    assert ranking.measure(nobody, lists, TRAIN, at=(2,)) == []


def test_paired_sees_a_difference_that_intervals_of_each_would_not() -> None:
    """Users differ by 1, the two rankings by 0.1 +- 0.05: half a width of 1.96 * 0.05 / sqrt(400) = 0.0049."""
    rng, each = np.random.default_rng(0), np.arange(400, dtype=np.int32)
    b = rng.normal(0, 1, 400)
    a = b + rng.normal(0.1, 0.05, 400)
    mean, low, high = ranking.paired(a, b, each)
    assert mean == pytest.approx(np.mean(a - b))
    assert low < mean < high
    assert (high - low) / 2 == pytest.approx(1.96 * 0.05 / 20, rel=0.15)
    assert ranking.paired(b + 1, b, each)[1:] == pytest.approx((1, 1))
    apart = evaluate.intervals(a[:, None], np.ones((400, 1)))
    assert apart[0][0] < float(b.mean()) < apart[1][0]


def test_paired_knows_that_rows_of_one_user_are_not_independent() -> None:
    """100 users with 4 equal rows each are 100 draws, not 400: the interval is twice as wide as if they were 400."""
    difference = np.repeat(np.random.default_rng(1).normal(0, 1, 100), 4)
    user, nothing = np.repeat(np.arange(100), 4).astype(np.int32), np.zeros(400)
    mean, low, high = ranking.paired(difference, nothing, user)
    assert mean == pytest.approx(difference.mean())
    assert (high - low) / 2 == pytest.approx(1.96 * difference.std() / 10, rel=0.15)
    few = ranking.paired(difference, nothing, np.arange(400, dtype=np.int32))
    assert (high - low) / (few[2] - few[1]) == pytest.approx(2, rel=0.15)


@pytest.mark.slow
@pytest.mark.parametrize("at", [1, 5, 10])
def test_a_published_implementation_finds_the_same(at: int) -> None:
    """ranx divides average precision by all relevant movies, not by those that fit into the list."""
    ranx = pytest.importorskip("ranx")
    train, held = world(5)
    task = ranking.task(train, held, 3.0)
    lists = ranking.lists(task, coarse(task, 5), n=10)
    users, movies = task.users.to_pylist(), task.movies.to_pylist()
    seen = set(zip(train["user_id"].to_pylist(), train["movie_id"].to_pylist(), strict=True))
    hits: dict[str, dict[str, int]] = {}
    for row in held.to_pylist():
        pair = row["user_id"], row["movie_id"]
        if row["rating"] >= 3 and pair not in seen and pair[0] in users:
            hits.setdefault(str(pair[0]), {})[str(pair[1])] = 1
    run = {
        str(user): {str(movies[place]): 1 - rank / 100 for rank, place in enumerate(row) if place >= 0}
        for user, row in zip(users, lists, strict=True)
    }
    names = ["ndcg", "recall", "hit_rate", "mrr", "map"]
    theirs = ranx.evaluate(ranx.Qrels(hits), ranx.Run(run), [f"{name}@{at}" for name in names])
    ours = ranking.per_user(task, lists, at)
    ours["map"] = ours["map"] * np.minimum(at, task.n_relevant) / task.n_relevant
    for name in names:
        assert ours[name].mean() == pytest.approx(float(theirs[f"{name}@{at}"]), abs=1e-6)
