"""Similar movies: the nearest by the model's vectors, as worked out by hand; and what a night publishes of them."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from conftest import LAST, world_in
from small import planted, random_model, tiny

from jobs import forget, query
from jobs.explain import explain
from jobs.nightly import nightly
from jobs.settings import Settings
from recommender import candidates, similar
from recommender.train import train


@pytest.mark.parametrize("name", ["default", "basic"])
def test_neighbours_are_those_with_the_highest_cosines_by_hand(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    ratings = planted(movies=70)
    ready = train(ratings, tiny(name)).ready(ratings)
    allowed = candidates.select(ratings, None, min_ratings=3)
    units = similar.vectors(ready, allowed.rows(ready.movies, "movie_id"))
    assert np.linalg.norm(units, axis=1) == pytest.approx(1, abs=1e-4)
    cosines = units.astype(float) @ units.T.astype(float)
    np.fill_diagonal(cosines, -np.inf)
    found = similar.nearest(ready, allowed, 5)
    monkeypatch.setattr(similar, "_BLOCK", 16)
    assert similar.nearest(ready, allowed, 5).select([0, 1, 2]) == found.select([0, 1, 2])
    ids = allowed.ids.to_numpy()
    assert found["movie_id"].to_pylist() == np.repeat(np.sort(ids), 5).tolist()
    by_hand = {ids[row]: -np.sort(-cosines[row])[:5] for row in range(len(ids))}
    expected = np.concatenate([by_hand[movie] for movie in np.sort(ids)])
    assert found["similarity"].to_numpy() == pytest.approx(expected, abs=1e-4)
    place = {movie: row for row, movie in enumerate(ids)}
    named = [
        cosines[place[a], place[b]]
        for a, b in zip(*(found[n].to_pylist() for n in ("movie_id", "similar_movie_id")), strict=True)
    ]
    assert named == pytest.approx(expected.tolist(), abs=1e-4)


def test_a_movie_the_model_does_not_know_is_like_no_other_and_few_movies_have_few_neighbours() -> None:
    ratings = planted(users=20, movies=6, count=100)
    ready = random_model(pa.array(range(1, 21)), pa.array([1, 2, 3, 4])).ready(ratings)
    found = similar.nearest(ready, candidates.select(ratings, None, min_ratings=1), 20)
    assert set(found["movie_id"].to_pylist()) == set(found["similar_movie_id"].to_pylist()) == {1, 2, 3, 4}
    assert found["rank"].to_pylist() == [1, 2, 3] * 4
    alone = ratings.filter(pa.compute.equal(ratings["movie_id"], 1))
    assert similar.nearest(ready, candidates.select(alone, None, min_ratings=1), 20).num_rows == 0


def test_movies_that_are_equally_alike_stand_in_candidate_order() -> None:
    ratings = planted(users=30, movies=9, count=200)
    trained = random_model(pa.array(range(1, 31)), pa.array(range(1, 10)))
    movie = next(name for name, weight in trained.weights.items() if weight.shape == (10, 4))
    trained.weights[movie][[2, 5, 7]] = trained.weights[movie][1]
    allowed = candidates.select(ratings, None, min_ratings=1)
    found = similar.nearest(trained.ready(ratings), allowed, 3).to_pylist()
    first = [row["similar_movie_id"] for row in found if row["movie_id"] == 1]
    assert first == [one for one in allowed.ids.to_pylist() if one in (2, 5, 7)]


@pytest.fixture(scope="module")
def night(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    settings = world_in(tmp_path_factory.mktemp("alike") / "state", publish__similar_movies=4)
    nightly(settings, LAST)
    return settings


def rows(settings: Settings, statement: str) -> list[list[object]]:
    found: list[list[object]] = query.query(settings, statement)["rows"]
    return found


def test_a_night_publishes_what_explain_calls_near(night: Settings) -> None:
    assert rows(night, "SELECT count(*), count(DISTINCT movie_id), max(rank) FROM current_similar_movies") == [
        [120, 30, 4]
    ]
    near = {
        (movie["movie_id"], other["movie_id"]): other["cosine"]
        for movie in explain(night, "3", limit=30)["movies"]
        for other in movie["near"]
    }
    shown = {
        (a, b): cosine
        for a, b, cosine in rows(night, "SELECT movie_id, similar_movie_id, similarity FROM similar_movies")
    }
    both = near.keys() & shown.keys()
    assert both
    assert [near[pair] for pair in both] == pytest.approx([shown[pair] for pair in both], abs=1e-4)


def test_another_number_of_similar_movies_is_another_night_and_none_leaves_the_table_empty(
    night: Settings, tmp_path: Path
) -> None:
    assert nightly(night, LAST)["status"] == "unchanged"
    none = world_in(tmp_path / "state", publish__similar_movies=0)
    assert nightly(none, LAST)["status"] == "published"
    assert rows(none, "SELECT count(*) FROM similar_movies") == [[0]]
    more = world_in(tmp_path / "state", publish__similar_movies=2)
    assert nightly(more, LAST)["status"] == "published"
    assert rows(more, "SELECT max(rank), count(DISTINCT run_id) FROM similar_movies") == [[2, 1]]
    forget.forget(more, ["3"], 0.0)
    assert rows(more, "SELECT max(rank), count(DISTINCT movie_id) FROM similar_movies") == [[2, 30]]
