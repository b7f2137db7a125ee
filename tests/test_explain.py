"""Explanations agree with what was published, and add up."""

import dataclasses
import shutil
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from conftest import LAST, small_world, world_in

from jobs import ingest, query, show
from jobs.explain import explain
from jobs.nightly import Options, nightly
from jobs.settings import Settings
from storage.catalogue import Catalogue
from storage.errors import NotFound


@pytest.fixture(scope="module")
def night(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    settings = world_in(
        tmp_path_factory.mktemp("explain") / "state", model__name="default", model__epochs=3, candidates__min_ratings=2
    )
    nightly(settings, LAST)
    return settings


def test_what_is_explained_is_the_published_list(night: Settings) -> None:
    for user in ("1", "17"):
        published = query.recommend(night, user, 5)["recommendations"]
        told = explain(night, user, limit=5)["movies"]
        assert [movie["movie_id"] for movie in told] == [row["movie_id"] for row in published]
        assert [movie["score"] for movie in told] == pytest.approx([row["score"] for row in published], abs=1e-4)
        stars = [row["predicted_rating"] for row in published]
        assert [movie["predicted_rating"] for movie in told] == pytest.approx(stars, abs=1e-3)
        assert {movie["why"] for movie in told} == {"listed"}
        assert [movie["rank"] for movie in told] == [1, 2, 3, 4, 5]


def agree(settings: Settings, user: str) -> dict[str, Any]:
    """The explanation of a whole list, once it is known to be of the published one."""
    published, told = query.recommend(settings, user, 5), explain(settings, user, limit=5)
    assert told["segment"] == published["segment"]
    for name, near in (("movie_id", 0), ("rank", 0), ("source", None), ("score", 1e-4), ("predicted_rating", 1e-3)):
        listed = [row[name] for row in published["recommendations"]]
        assert [movie[name] for movie in told["movies"]] == (pytest.approx(listed, abs=near) if near else listed), name
    return told


def test_lists_of_people_whom_the_model_does_not_know_are_explained_as_they_were_made(
    tmp_path: Path, night: Settings
) -> None:
    assert agree(night, "999")["movies"][0]["parts"]["choice"]  # default: what is popular of late
    settings = world_in(tmp_path / "state")
    nightly(settings, LAST, Options(until="train"))
    at, new = datetime(LAST.year, LAST.month, LAST.day, 12, tzinfo=UTC), [1, 2, 31]
    rated = {"user_id": [7777] * 3, "movie_id": new, "rating": pa.array([5.0, 3.0, 4.0], pa.float32())}
    ratings = pa.table(rated | {"rated_at": pa.array([at] * 3, pa.timestamp("us", "UTC"))})
    ingest.append(settings, "a new user", Catalogue(ratings), 0.0)
    nightly(settings, LAST, Options(model="champion"))
    for user in ("7777", "999"):
        told = agree(settings, user)
        assert {(movie["source"], len(movie["parts"]), len(movie["near"])) for movie in told["movies"]} == {
            ("cold_user", 0, 0)
        }
        assert "the model has nothing to go by: what is popular is listed" in show.explanation(told)
    assert {movie["source"] for movie in agree(settings, "7")["movies"]} == {"model"}
    (unknown,) = explain(settings, "7", "31")["movies"]  # rated since by the new user, so the model does not know it
    assert unknown["predicted_rating"] == pytest.approx(explain(settings, "999", "31")["movies"][0]["predicted_rating"])


def test_parts_differ_as_scores_do(night: Settings) -> None:
    movies = explain(night, "3", limit=10)["movies"]
    scores = np.array([movie["score"] for movie in movies])
    sums = np.array([sum(movie["parts"].values()) for movie in movies])
    assert scores - scores[0] == pytest.approx(sums - sums[0], abs=1e-3)


def test_a_rated_movie_is_told_with_its_rating_and_near_ones_are_rated(night: Settings) -> None:
    told = explain(night, "1", limit=1)["movies"][0]
    assert told["near"]
    other = told["near"][0]
    assert -1 <= other["cosine"] <= 1
    rated = explain(night, "1", str(other["movie_id"]))["movies"][0]
    assert (rated["why"], rated["rating"], rated["rank"]) == ("rated", other["rating"], None)
    assert "is not listed: it has been rated" in show.explanation(explain(night, "1", str(other["movie_id"])))


def test_a_movie_far_back_has_its_rank_and_one_that_is_no_candidate_a_reason(tmp_path: Path, night: Settings) -> None:
    told = explain(night, "1", limit=1000)["movies"]
    last = explain(night, "1", str(told[-1]["movie_id"]))["movies"][0]
    assert (last["why"], last["rank"], last["of"]) == ("rank", len(told), len(told))
    sentence = f"is not listed: it is number {len(told)} of {len(told)}, and lists end before."
    assert sentence in show.explanation(explain(night, "1", str(told[-1]["movie_id"])))
    strict = world_in(tmp_path / "state", candidates__min_ratings=20)
    nightly(strict, LAST)
    ratings = Counter(small_world().ratings["movie_id"].to_pylist())
    rare = min(ratings, key=lambda movie: ratings[movie])
    (closed,) = explain(strict, "2", str(rare))["movies"]
    assert closed["why"] == "no_candidate"
    assert closed["note"] == f"it has {ratings[rare]} ratings, fewer than candidates.min_ratings"
    assert explain(strict, "2", limit=1)["movies"][0]["near"]  # the article's models have vectors, too


@pytest.mark.parametrize(
    ("user", "movie"), [("998", None), ("0", None), ("01", None), ("x", None), ("1", "999"), ("1", "")]
)
def test_nobody_and_nothing_is_not_found(night: Settings, user: str, movie: str | None) -> None:
    with pytest.raises(NotFound):
        explain(night, user, movie)


def test_ratings_that_came_since_are_told(night: Settings, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    shutil.copytree(night.state_dir, tmp_path / "state", symlinks=True)
    copy, other = dataclasses.replace(night, state_dir=tmp_path / "state"), small_world(seed=2)
    explain(copy, "1", limit=1)
    assert "explain.other_ratings" not in caplog.messages
    ingest.append(copy, "later", Catalogue(other.ratings.slice(0, 5), other.movies), 0.0)
    explain(copy, "1", limit=1)
    assert "explain.other_ratings" in caplog.messages
