"""The contract of every model file: training and scoring rely on no more than this."""

from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import small

from recommender import models
from recommender.config import RECIPES, ModelConfig, recipe
from recommender.errors import UnknownName
from recommender.known import Attributes, Known, Names, known
from recommender.tensorflow import tf
from recommender.vocabulary import Vocabulary

USERS, MOVIES = 6, 9
every_recipe = pytest.mark.parametrize("name", RECIPES)
by_pairs = pytest.mark.parametrize("name", [name for name, made in RECIPES.items() if not made.model.by_history])


def facts() -> Known:
    """Each of the users has rated four of the movies; there are features of both."""
    user, place = np.divmod(np.arange((USERS - 1) * 4), 4)
    table = small.ratings(list(user + 1), list((user + 2 * place) % (MOVIES - 1) + 1), list(1 + (user + place) % 5))
    users, movies = (Vocabulary(small.ids(range(1, count))) for count in (USERS, MOVIES))
    attributes = Attributes(
        pa.table({"user_id": users.ids, "gender": ["F", "M", "F", "M", "F"]}),
        pa.table({"movie_id": movies.ids, "genres": [["A"], ["B"]] * 4}),
    )
    return known(table, users, movies, attributes)


def made(name: str, seed: int = 0) -> Any:
    """The model of a recipe at its real width, with random weights: no bias and no embedding is 0.

    One by history ranks by stars alone, so that its grid can be compared with its stars.
    """
    config, now = RECIPES[name].changed(blend=(0.0, 0.0, 1.0)).model, facts()
    model = models.build(config, USERS, MOVIES, Names(now.user_features.names, now.movie_features.names))
    rng = np.random.default_rng(seed)
    for variable in model.trainable_variables:
        variable.assign(rng.normal(0, 0.2, variable.shape))
    if config.by_history:
        model.remember(now, np.arange(USERS, dtype=np.int32), np.arange(MOVIES, dtype=np.int32))
        model.solve(now, seed)
        model.settle()
    return model


def examples(name: str, model: Any) -> dict[str, Any]:
    """A batch to learn from: all pairs with stars, or all users."""
    if RECIPES[name].model.by_history:
        return {"users": tf.range(1, USERS), "seed": tf.constant([1, 2])}
    stars = tf.constant(np.random.default_rng(1).uniform(1, 5, USERS * MOVIES), tf.float32)
    return {**every_pair(), "rating": stars}


def every_pair() -> dict[str, Any]:
    """All users with all movies, row 0 of both among them, shape (USERS * MOVIES,)."""
    user, movie = np.divmod(np.arange(USERS * MOVIES, dtype=np.int32), MOVIES)
    return {"user": tf.constant(user), "movie": tf.constant(movie)}


@every_recipe
def test_call_rates_each_pair_by_itself(name: str) -> None:
    model, pairs = made(name), every_pair()
    stars = model.call(pairs).numpy()
    assert stars.shape == (USERS * MOVIES,)
    assert len(np.unique(stars)) == USERS * MOVIES
    alone = [float(model.call({key: rows[at : at + 1] for key, rows in pairs.items()})[0]) for at in (0, 20, 53)]
    np.testing.assert_allclose(alone, stars[[0, 20, 53]], atol=1e-5)


@every_recipe
def test_the_grid_equals_call_on_every_pair(name: str) -> None:
    model = made(name)
    codes = model.encode_users(tf.range(USERS)), model.encode_movies(tf.range(MOVIES))
    grid = model.score_grid(*codes).numpy()
    assert grid.shape == (USERS, MOVIES)
    stars = model.call(every_pair()).numpy().reshape(USERS, MOVIES)
    if RECIPES[name].model.by_history:  # what is the same for all movies of a user does not matter to a list
        grid, stars = grid[1:], stars[1:]  # and a stranger is not listed by stars
        grid, stars = grid - grid[:, :1], stars - stars[:, :1]
    np.testing.assert_allclose(grid, stars, atol=1e-5)


@every_recipe
def test_codes_are_one_row_each_in_the_order_asked_for(name: str) -> None:
    model, order = made(name), [4, 0, 4]
    for encode, count in ((model.encode_users, USERS), (model.encode_movies, MOVIES)):
        codes = encode(tf.range(count)).numpy()
        assert (codes.ndim, len(codes)) == (2, count)
        np.testing.assert_allclose(encode(tf.constant(order)).numpy(), codes[order], atol=1e-6)


@every_recipe
def test_the_loss_is_one_finite_number_and_moves_every_weight(name: str) -> None:
    model = made(name)
    with tf.GradientTape() as tape:
        loss = model.compute_loss(examples(name, model), training=True)
    assert loss.shape == ()
    assert np.isfinite(float(loss))
    for variable, gradient in zip(
        model.trainable_variables, tape.gradient(loss, model.trainable_variables), strict=True
    ):
        assert np.abs(tf.convert_to_tensor(gradient).numpy()).max() > 0, variable.name


@by_pairs
def test_the_loss_is_least_for_the_ratings_the_model_predicts(name: str) -> None:
    model, pairs = made(name), every_pair()
    right = model.call(pairs)
    losses = [float(model.compute_loss({**pairs, "rating": right + off})) for off in (0.0, 0.5, 2.0)]
    assert losses == sorted(losses)
    assert losses[2] > losses[0]


@every_recipe
def test_the_unknown_row_is_scored_like_any_other(name: str) -> None:
    model = made(name)
    grid = model.score_grid(model.encode_users(tf.zeros([1], tf.int32)), model.encode_movies(tf.range(MOVIES))).numpy()
    assert np.isfinite(grid).all()
    assert np.isfinite(model.call({"user": tf.zeros([2], tf.int32), "movie": tf.zeros([2], tf.int32)}).numpy()).all()


@every_recipe
def test_weights_come_from_the_seed_alone(name: str) -> None:
    def start(seed: int) -> list[Any]:
        tf.keras.utils.set_random_seed(seed)
        return [v.numpy() for v in models.build(RECIPES[name].model, USERS, MOVIES).trainable_variables]

    first, same, other = start(3), start(3), start(4)
    assert all(np.array_equal(one, two) for one, two in zip(first, same, strict=True))
    assert not all(np.array_equal(one, two) for one, two in zip(first, other, strict=True))


def test_parameters_of_a_small_mlp_are_counted_as_by_hand() -> None:
    model = models.build(recipe("basic", embedding_dimension=3, hidden_units=(5, 2)).model, users=4, movies=7)
    assert sum(int(v.shape.num_elements()) for v in model.trainable_variables) == 4 * 3 + 7 * 3 + 35 + 12 + 3


def test_the_mlp_at_the_articles_size_has_the_articles_parameters() -> None:
    model = models.build(RECIPES["basic"].model, users=943 + 1, movies=1_664 + 1)
    assert sum(int(v.shape.num_elements()) for v in model.trainable_variables) == 116_641


def test_the_penalty_is_on_the_hidden_kernels_and_only_there() -> None:
    config = ModelConfig(embedding_dimension=3, hidden_units=(5, 2), l2=0.5)
    model = models.build(config, 4, 7)
    expected = 0.5 * sum(float(tf.reduce_sum(layer.kernel**2)) for layer in model.hidden)
    assert float(tf.add_n(model.losses)) == pytest.approx(expected, rel=1e-5)
    assert models.build(ModelConfig(hidden_units=(5,)), 4, 7).losses == []


def test_an_unknown_architecture_is_named() -> None:
    with pytest.raises(UnknownName, match=r"models/oracle\.py"):
        models.build(ModelConfig(architecture="oracle"), 1, 1)
