"""The two towers: what they learn of a world with a known answer, and who is scored by what."""

from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from recommender.config import recipe
from recommender.known import Attributes, Known, Names, known
from recommender.models import towers
from recommender.models.towers import Towers, build
from recommender.tensorflow import tf
from recommender.vocabulary import Vocabulary
from tests import small

CONFIG = recipe("default", stars_dimension=4, choice_dimension=8, taste_dimension=8, blend=(1.0, 0.0, 0.0)).model


def two_camps(users: int = 60, movies: int = 40, seed: int = 0) -> pa.Table:
    """Even users like even movies and only those; each has rated 14 movies over a month, both kinds."""
    rng = np.random.default_rng(seed)
    user = np.repeat(np.arange(1, users + 1), 14)
    movie = np.concatenate([rng.choice(np.arange(1, movies + 1), 14, replace=False) for _ in range(users)])
    stars = np.where(user % 2 == movie % 2, 5, 2)
    return small.ratings(list(user), list(movie), list(stars), days=rng.uniform(0, 30, len(user)))


def facts_of(ratings: pa.Table, users: Vocabulary | None = None, movies: Vocabulary | None = None) -> Known:
    return known(ratings, users or Vocabulary.of(ratings["user_id"]), movies or Vocabulary.of(ratings["movie_id"]))


def remembered(model: Towers, facts: Known, users: Any = None) -> None:
    """Look users up in `facts`, which has the movies of the training; `users` are the rows they had there."""
    rows = np.arange(facts.users.rows, dtype=np.int32) if users is None else users
    model.remember(facts, rows, np.arange(facts.movies.rows, dtype=np.int32))
    model.settle()


def fresh(facts: Known) -> Towers:
    names = Names(facts.user_features.names, facts.movie_features.names)
    model = build(CONFIG, facts.users.rows, facts.movies.rows, names)
    model.remember(facts, *(np.arange(v.rows, dtype=np.int32) for v in (facts.users, facts.movies)))
    model.solve(facts, 1)
    return model


def learned(facts: Known, steps: int = 120) -> Towers:
    tf.keras.utils.set_random_seed(1)
    model = fresh(facts)
    model.compile(optimizer=tf.keras.optimizers.legacy.Adam(0.03))
    step = tf.function(model.train_step)
    everyone = tf.range(1, facts.users.rows)
    for number in range(steps):
        step({"users": everyone, "seed": tf.constant([1, number])})
    return model


@pytest.fixture(scope="module")
def trained() -> tuple[Towers, Known]:
    facts = facts_of(two_camps())
    return learned(facts), facts


@pytest.fixture
def model(trained: tuple[Towers, Known]) -> Towers:
    """The trained towers, with what they were trained on in mind."""
    towers, facts = trained
    remembered(towers, facts)
    return towers


def scores(model: Towers, users: list[int], movies: int) -> Any:
    codes = model.encode_users(tf.constant(users, tf.int32)), model.encode_movies(tf.range(1, movies + 1))
    return model.score_grid(*codes).numpy()


def test_camps_are_told_apart_by_choice_and_by_stars(model: Towers) -> None:
    grid = scores(model, [1, 2], 40)  # movies 1..40
    odd, even = grid[:, 0::2].mean(axis=1), grid[:, 1::2].mean(axis=1)
    assert odd[0] > even[0] + 1
    assert even[1] > odd[1] + 1
    pairs = {"user": tf.constant([1, 1, 2, 2]), "movie": tf.constant([3, 4, 3, 4])}
    assert model.call(pairs).numpy() == pytest.approx([5, 2, 2, 5], abs=1.0)


def test_a_user_who_came_after_training_is_scored_by_what_they_rated(trained: tuple[Towers, Known]) -> None:
    model, facts = trained
    late = small.ratings([99] * 4, [2, 4, 6, 7], [5, 5, 5, 2], days=[31, 31, 31, 31])
    users = Vocabulary(small.ids([*range(1, 61), 99]))
    trained_rows = np.concatenate([[0], facts.users.encode(users.ids)]).astype(np.int32)
    remembered(model, facts_of(pa.concat_tables([two_camps(), late]), users, facts.movies), trained_rows)
    row = int(users.encode(pa.array([99]))[0])
    grid = scores(model, [row], 40)[0]
    assert grid[1::2].mean() > grid[0::2].mean() + 1
    liked = model.call({"user": tf.constant([row] * 2), "movie": tf.constant([10, 11])}).numpy()
    assert liked[0] > liked[1] + 1


def test_new_ratings_change_the_codes_of_their_user_only(trained: tuple[Towers, Known]) -> None:
    model, facts = trained
    remembered(model, facts)
    before = model.encode_users(tf.range(1, 61)).numpy()
    more = small.ratings([7], [1], [5], days=[31])
    both = pa.concat_tables([two_camps(), more])
    remembered(model, facts_of(both, facts.users, facts.movies))
    after = model.encode_users(tf.range(1, 61)).numpy()
    changed = np.abs(before - after).max(axis=1) > 1e-6
    assert np.flatnonzero(changed).tolist() == [6]


def test_a_stranger_without_ratings_gets_finite_scores_by_popularity(trained: tuple[Towers, Known]) -> None:
    model, facts = trained
    remembered(model, facts)
    grid = scores(model, [0], 40)[0]
    own = model.encode_movies(tf.range(1, 41)).numpy()[:, CONFIG.choice_dimension]
    assert np.corrcoef(grid, own)[0, 1] > 0.5
    assert np.isfinite(grid).all()


def test_codes_do_not_depend_on_who_else_is_asked_for(model: Towers) -> None:
    together = model.encode_users(tf.constant([5, 0, 9, 5])).numpy()
    alone = model.encode_users(tf.constant([9])).numpy()
    np.testing.assert_allclose(together[2], alone[0], atol=1e-6)
    np.testing.assert_allclose(together[0], together[3], atol=1e-6)
    pairs = {"user": tf.constant([5, 9, 5]), "movie": tf.constant([1, 2, 3])}
    one = model.call({"user": tf.constant([9]), "movie": tf.constant([2])}).numpy()[0]
    assert model.call(pairs).numpy()[1] == pytest.approx(one, abs=1e-5)


def test_the_loss_is_one_finite_number_and_moves_every_weight() -> None:
    facts = known(
        two_camps(),
        Vocabulary(small.ids(range(1, 61))),
        Vocabulary(small.ids(range(1, 41))),
        Attributes(
            pa.table({"user_id": list(range(1, 61)), "gender": ["F", "M"] * 30}),
            pa.table({"movie_id": list(range(1, 41)), "genres": [["A"], ["B"]] * 20}),
        ),
    )
    model = fresh(facts)
    with tf.GradientTape() as tape:
        loss = model.compute_loss({"users": tf.range(1, 61), "seed": tf.constant([0, 0])}, training=True)
    assert np.isfinite(float(loss))
    for variable, gradient in zip(
        model.trainable_variables, tape.gradient(loss, model.trainable_variables), strict=True
    ):
        assert np.abs(tf.convert_to_tensor(gradient).numpy()).max() > 0, variable.name


def test_a_rating_is_predicted_without_itself_while_training() -> None:
    """One user, one rating: with the rating left out there is no history, so its weights get no gradient from it."""
    facts = facts_of(small.ratings([1, 2], [1, 2], [5, 1]))
    model = fresh(facts)
    model.stars["rated"].assign(tf.zeros_like(model.stars["rated"]))
    with tf.GradientTape() as tape:
        loss = model.compute_loss({"users": tf.constant([1, 2]), "seed": tf.constant([0, 0])})
    gradient = tf.convert_to_tensor(tape.gradient(loss, model.stars["rated"])).numpy()
    np.testing.assert_allclose(gradient, 0, atol=1e-6)


def test_some_users_choices_are_learned_out_of_order_where_that_is_asked_for() -> None:
    facts = facts_of(two_camps())
    model, users = fresh(facts), tf.range(1, 61)
    at, row = (column.numpy() for column in model._ratings_of(users))
    in_order, _, now = (column.numpy() for column in model._cut(users, at, row, tf.constant([1, 1])))
    model.config = recipe("default", timely=0.5).model
    past, fade, then = (column.numpy() for column in model._cut(users, at, row, tf.constant([1, 1])))
    timely = then >= 0
    np.testing.assert_array_equal(row, np.repeat(np.arange(60), 14))
    assert 15 < timely.sum() < 45
    np.testing.assert_array_equal(then[timely], now[timely])
    np.testing.assert_array_equal(past[timely[row]], in_order[timely[row]])
    assert (np.diff(in_order.reshape(60, 14)) <= 0).all()
    assert (np.diff(past.reshape(60, 14)[~timely]) > 0).any()
    assert (fade[~timely[row]] == 0).all()


def test_choices_told_from_those_of_the_batch_are_learned_as_from_the_whole_catalogue(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Everybody is in the batch, so that nearly all movies are chosen by someone: the two losses are nearly one."""
    facts = facts_of(two_camps())
    model, users = fresh(facts), tf.range(1, 61)
    ratings = model._ratings_of(users)
    whole = float(model._choice_loss(users, *ratings, tf.constant([1, 1])))
    monkeypatch.setattr(towers, "_WHOLE", 10)
    among = float(model._choice_loss(users, *ratings, tf.constant([1, 1])))
    assert among == pytest.approx(whole, rel=0.02)
    assert among != whole
    camps = learned(facts)
    remembered(camps, facts)
    grid = scores(camps, [1, 2], 40)
    odd, even = grid[:, 0::2].mean(axis=1), grid[:, 1::2].mean(axis=1)
    assert odd[0] > even[0] + 1
    assert even[1] > odd[1] + 1
