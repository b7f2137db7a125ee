"""The default model on its whole way: trained, stored, scored for strangers, cut off and gone on with, and deaf to the future."""

import dataclasses
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
import small
from conftest import LAST, small_world, world_in
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from test_train import Kept, same_bytes

from jobs import inputs, train
from jobs.nightly import Options, nightly
from jobs.settings import Settings
from recommender import blend, candidates, history, ranking, removal, score, split
from recommender import train as training
from recommender.config import Recipe, recipe
from recommender.known import NO_ATTRIBUTES, Attributes
from recommender.train import Trained
from storage import models, runs
from storage.catalogue import Catalogue

TINY = {"stars_dimension": 4, "choice_dimension": 8, "taste_dimension": 8, "epochs": 3, "batch_size": 16}
WORLD = small_world()
KNOWN = Attributes(WORLD.users, WORLD.movies)


def tiny(**changes: Any) -> Recipe:
    return recipe("default", **(TINY | changes))


@pytest.fixture(scope="module")
def trained() -> Trained:
    return training.train(WORLD.ratings, tiny(), attributes=KNOWN)


def lists(trained: Trained, ratings: pa.Table, attributes: Attributes, size: int = 64) -> tuple[pa.Table, pa.Table]:
    """Recommendations and status of everybody in the ratings and the users table."""
    allowed = candidates.select(ratings, attributes.movies, min_ratings=1)
    seen = history.of(ratings, attributes.users, allowed)
    blocks = list(score.top_n(trained.ready(ratings, attributes), allowed, seen, 5, users_per_block=size))
    found = (
        pa.Table.from_batches([getattr(block, part) for block in blocks]) for part in ("recommendations", "status")
    )
    return next(found), next(found)


def night(folder: Any, world: Catalogue = WORLD) -> Settings:
    """Settings of the default model, made small, over a world that is in the lake."""
    return world_in(folder / "state", world, model__name="default", **{f"model__{key}": v for key, v in TINY.items()})


@pytest.mark.faults("B3.8")
def test_the_size_of_a_block_changes_nothing(trained: Trained) -> None:
    whole, parts = (lists(trained, WORLD.ratings, KNOWN, size) for size in (64, 16))
    assert whole[0].equals(parts[0])
    assert whole[1].equals(parts[1])


def test_a_user_without_ratings_gets_a_list_and_is_called_cold(trained: Trained) -> None:
    found, status = lists(trained, WORLD.ratings, KNOWN)
    mine = found.filter(pc.equal(found["user_id"], 999))
    assert mine["source"].to_pylist() == ["cold_user"] * 5
    assert np.isfinite(mine["score"].to_numpy()).all()
    assert status.filter(pc.equal(status["user_id"], 999))["segment"].to_pylist() == ["cold"]


@pytest.mark.faults("B3.11")
def test_a_user_who_joined_after_training_is_scored_by_what_they_rated(trained: Trained) -> None:
    one = WORLD.ratings.filter(pc.equal(WORLD.ratings["user_id"], 7))
    twin = one.set_column(0, "user_id", pa.array([5000] * one.num_rows, pa.int64()))
    found, status = lists(trained, pa.concat_tables([WORLD.ratings, twin]), KNOWN)
    late = found.filter(pc.equal(found["user_id"], 5000))
    assert set(late["source"].to_pylist()) == {"model"}
    assert not set(late["movie_id"].to_pylist()) & set(one["movie_id"].to_pylist())
    assert status.filter(pc.equal(status["user_id"], 5000))["segment"].to_pylist() == ["warm"]
    same = found.filter(pc.equal(found["user_id"], 7))
    assert len(set(same["movie_id"].to_pylist()) & set(late["movie_id"].to_pylist())) >= 4


def test_a_model_that_was_stored_without_a_row_for_no_features_still_scores() -> None:
    made = training.train(WORLD.ratings, tiny())
    empty = {name: w[:0] for name, w in made.weights.items() if w.shape == (1, TINY["stars_dimension"] + 1)}
    assert len(empty) == 2
    older = dataclasses.replace(made, weights=made.weights | empty)
    for new, old in zip(
        lists(made, WORLD.ratings, NO_ATTRIBUTES), lists(older, WORLD.ratings, NO_ATTRIBUTES), strict=True
    ):
        assert new.equals(old)


def test_users_who_share_rows_are_still_told_apart_and_one_of_them_can_be_forgotten() -> None:
    shared = training.train(WORLD.ratings, tiny(user_rows=7), attributes=KNOWN)
    assert {weight.shape[0] for weight in shared.weights.values() if weight.ndim} >= {8}
    found, _ = lists(shared, WORLD.ratings, KNOWN)
    rows = found.group_by("user_id").aggregate([("movie_id", "list")])["movie_id_list"].to_pylist()
    assert len({tuple(row) for row in rows}) > 7
    gone = pa.array([7], pa.int64())
    left = WORLD.ratings.filter(pc.not_equal(WORLD.ratings["user_id"], 7))
    others = removal.without_users(shared, gone)
    assert others.parameters == shared.parameters
    again, _ = lists(others, left, KNOWN)
    both = (table.filter(pc.not_equal(table["user_id"], 7)) for table in (lists(shared, left, KNOWN)[0], again))
    assert next(both).equals(next(both))


def test_a_movie_that_came_after_training_can_be_predicted_and_listed(trained: Trained) -> None:
    new = small.ratings([1, 2, 3, 4, 5, 6], [77] * 6, [5] * 6, days=[20_530] * 6)
    now = pa.concat_tables([WORLD.ratings, new.cast(WORLD.ratings.schema)])
    ready = trained.ready(now, KNOWN)
    scores = ready.scorer(pa.array([77, 1], pa.int64()))(pa.array([9, 10], pa.int64()))
    assert np.isfinite(scores).all()
    assert 1 <= ready.predict(new)[0] <= 5


@pytest.mark.faults("B3.15")
def test_training_cut_off_and_gone_on_with_gives_the_same_bytes(trained: Trained) -> None:
    every = Kept()
    whole = training.train(WORLD.ratings, tiny(), attributes=KNOWN, checkpoints=every)
    assert same_bytes(whole, trained)
    resumed = training.train(WORLD.ratings, tiny(), attributes=KNOWN, checkpoints=Kept(every.states[0]))
    assert same_bytes(resumed, whole)


def test_what_is_stored_scores_as_what_was_trained(tmp_path: Any) -> None:
    made = night(tmp_path)
    record = nightly(made, LAST, Options(until="stage"))
    model = models.load(made.models, record["model_version"])
    again = train.load(model)
    assert again.names.users == ()
    assert "genre Drama" in again.names.movies
    assert again.recipe.model.blend in blend.BLENDS
    (partition,) = runs.partitions(made.runs)
    read = inputs.read(made, datetime(2026, 3, 11, tzinfo=UTC))
    found, _ = lists(again, read.ratings, read.attributes)
    staged = pq.read_table(partition.folder / "recommendations.parquet")
    assert staged["movie_id"].to_pylist() == found["movie_id"].to_pylist()
    np.testing.assert_allclose(staged["score"].to_numpy(), found["score"].to_numpy(), atol=1e-5)


WATERMARK = datetime(2026, 3, 9, tzinfo=UTC)


def made_by_a_night(folder: Any, world: Catalogue) -> tuple[Any, ...]:
    record = nightly(night(folder, world), WATERMARK.date() - timedelta(days=1), Options(until="stage"))
    return record["output_digest"], record["model_version"], record["metrics"]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, ...]:
    return made_by_a_night(tmp_path_factory.mktemp("undisturbed"), WORLD)


@pytest.mark.slow
@given(
    st.lists(
        st.tuples(st.integers(1, 45), st.integers(1, 35), st.sampled_from([1, 3, 5]), st.integers(0, 400)),
        min_size=1,
        max_size=20,
    )
)
@settings(max_examples=3, deadline=None, suppress_health_check=list(HealthCheck))
@pytest.mark.faults("B2.6")
def test_no_rating_after_the_watermark_changes_a_model_a_list_or_a_figure(
    undisturbed: tuple[Any, ...], tmp_path_factory: Any, later: list[tuple[int, int, int, int]]
) -> None:
    """Whatever is rated from the watermark on, by users and of movies new and old: the night of the watermark is the same."""
    users, movies, stars, hours = zip(*later, strict=True)
    more = pa.table(
        [
            pa.array(users, pa.int64()),
            pa.array(movies, pa.int64()),
            pa.array(stars, pa.float32()),
            pa.array([WATERMARK + timedelta(hours=hour) for hour in hours], pa.timestamp("us", "UTC")),
        ],
        schema=WORLD.ratings.schema,
    )
    world = type(WORLD)(pa.concat_tables([WORLD.ratings, more]), WORLD.movies, WORLD.users)
    assert made_by_a_night(tmp_path_factory.mktemp("night"), world) == undisturbed


def test_the_blend_that_is_clearly_best_is_chosen_and_without_anybody_to_ask_the_usual_one() -> None:
    """A large and a small camp: the closed form knows them at once, one step of the tower teaches it no more than shares."""
    rng = np.random.default_rng(0)
    camp = {user: int(user > 140) for user in range(1, 201)}
    pairs = [(u, int(m)) for u in camp for m in rng.choice(np.arange(1 + camp[u], 61, 2), 14, replace=False)]
    pairs += [(u, int(m)) for u in camp for m in rng.choice(np.arange(2 - camp[u], 61, 2), 4, replace=False)]
    stars = [5 if camp[u] != m % 2 else 1 for u, m in pairs]
    world = small.ratings([u for u, _ in pairs], [m for _, m in pairs], stars, days=rng.uniform(0, 9, len(pairs)))
    cut = split.random(world, seed=1)
    made = training.train(cut.train, tiny(epochs=1, steps_per_epoch=0, batch_size=512))
    chosen = blend.choose(made.ready(cut.train), cut.train, cut.test)
    assert chosen in blend.BLENDS
    assert chosen[1] > blend.USUAL[1]
    task = ranking.task(cut.train, cut.test, 4.0)

    def ndcg(weights: tuple[float, float, float]) -> float:
        scorer = made.changed(blend=weights).ready(cut.train).scorer(task.movies)
        return float(ranking.per_user(task, ranking.lists(task, scorer), 10)["ndcg"].mean())

    assert ndcg(chosen) > ndcg(blend.USUAL)
    assert blend.choose(made.ready(cut.train), cut.train, cut.test.slice(0, 0)) == blend.USUAL
