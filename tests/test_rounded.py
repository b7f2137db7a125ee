"""Products rounded to few bits, as tensor cores have them: bounds that hold, and lists that are those of no rounding."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from numpy.typing import NDArray
from small import ids

from recommender import score
from recommender.candidates import Candidates
from recommender.errors import NonFiniteScores
from recommender.grid import Grid
from recommender.history import History
from recommender.ranking import Rows
from recommender.ready import Ready
from recommender.rounded import BF16, FLOAT32, TF32, Rounded, round_to
from recommender.score import Block
from recommender.tensorflow import tf
from recommender.vocabulary import Vocabulary

USERS, MOVIES, FACTORS, N = 48, 700, 40, 10
Vectors = NDArray[np.float32]


def vectors(seed: int = 0) -> tuple[Vectors, Vectors]:
    """Users and movies, some of them a thousand times as long as others."""
    rng = np.random.default_rng(seed)
    scales = (np.exp(rng.normal(0, 2, (count, 1))) for count in (USERS, MOVIES))
    return tuple((s * rng.normal(size=(len(s), FACTORS))).astype(np.float32) for s in scales)  # type: ignore[return-value]


def as_model(users: Vectors, movies: Vectors) -> Any:
    """A factored model; row 0 is the unknown one."""
    tables = [tf.constant(np.vstack([np.zeros_like(part[:1]), part])) for part in (users, movies)]
    return SimpleNamespace(
        factored=True,
        spread=0.0,
        encode_users=lambda rows: tf.gather(tables[0], rows),
        encode_movies=lambda rows: tf.gather(tables[1], rows),
        score_grid=lambda left, right: tf.matmul(left, right, transpose_b=True),
        call=lambda pairs: tf.reduce_sum(tf.gather(tables[0], pairs["user"]) * tf.gather(tables[1], pairs["movie"]), 1),
    )


def rounded(users: Vectors, movies: Vectors, bits: int, bias: Vectors | None = None) -> Rounded:
    return Rounded(Grid(as_model(users, movies), np.arange(1, len(movies) + 1, dtype=np.int32), bias), N, bits)


@pytest.mark.parametrize("bits", [TF32, BF16])
def test_factors_are_rounded_to_the_nearest_of_so_many_bits(bits: int) -> None:
    values = np.concatenate([vectors()[0].ravel(), np.float32([0, 1, -1, 1e-30, 3e38, 1 + 2.0**-bits])])
    found = round_to(tf.constant(values), bits).numpy()
    mantissa, power = np.frexp(values.astype(np.float64))
    np.testing.assert_array_equal(found, np.ldexp(np.round(np.ldexp(mantissa, bits)), power - bits).astype(np.float32))
    if bits == BF16:
        np.testing.assert_array_equal(found, tf.cast(tf.cast(values, tf.bfloat16), tf.float32).numpy())


@pytest.mark.parametrize("bits", [FLOAT32, TF32, BF16])
@pytest.mark.parametrize("seed", range(3))
def test_no_score_exceeds_its_bound_and_bounds_are_near(bits: int, seed: int) -> None:
    users, movies = vectors(seed)
    bias = np.random.default_rng(seed).normal(size=MOVIES).astype(np.float32)  # damping of what is popular
    bounds = rounded(users, movies, bits, bias).bounds(tf.constant(users)).numpy()[:, :MOVIES].astype(np.float64)
    scores = users.astype(np.float64) @ movies.T.astype(np.float64) + bias.astype(np.float64)
    assert (bounds >= scores).all()
    lengths = np.linalg.norm(users, axis=1)[:, None] * np.linalg.norm(movies, axis=1) + np.abs(bias)
    assert ((bounds - scores) / lengths).max() < 4 * 2.0**-bits + 2 * (FACTORS + 4) * 2.0**-23


@pytest.mark.parametrize("bits", [FLOAT32, TF32, BF16])
def test_whoever_is_sure_has_the_list_of_double_precision(bits: int) -> None:
    users, movies = vectors()
    movies[100:104] = movies[99]  # five movies that are one to everybody
    bias = np.linspace(1, -1, MOVIES).astype(np.float32)
    bias[100:104] = bias[99]
    found = rounded(users, movies, bits, bias)
    highest, at, sure = (p.numpy() for p in found.best(found.bounds(tf.constant(users)), tf.constant(users)))
    scores = (users.astype(np.float64) @ movies.T.astype(np.float64) + bias).astype(np.float32)
    expected = np.argsort(-scores, axis=1, kind="stable")[:, :N]
    assert sure.mean() > 0.9
    np.testing.assert_array_equal(at[sure], expected[sure])
    np.testing.assert_array_equal(highest[sure], np.take_along_axis(scores, expected, axis=1)[sure])


def lists(users: Vectors, movies: Vectors, size: int = 32, **more: Any) -> list[Block]:
    """Of `top_n`; user u has seen movie u."""
    known = Vocabulary(ids(range(1, len(users) + 1))), Vocabulary(ids(range(1, len(movies) + 1)))
    ready = Ready(as_model(users, movies), *known, "movie_id", (1.0, 5.0), None)
    counts = np.arange(len(movies), 0, -1)
    allowed = Candidates(known[1].ids, counts, np.full(len(movies), 3.0, np.float32))
    place = np.arange(len(users))
    seen = History(known[0].ids, np.ones(len(users), np.int32), Rows.of(place, place, len(users)))
    return list(score.top_n(ready, allowed, seen, N, users_per_block=size, **more))


def as_table(blocks: list[Block]) -> pa.Table:
    return pa.Table.from_batches([block.recommendations for block in blocks])


@pytest.mark.faults("B3.8")
@pytest.mark.parametrize("rounded", [False, True])
@pytest.mark.parametrize("size", [16, 48])
def test_neither_rounding_nor_the_size_of_a_block_changes_a_bit(size: int, rounded: bool) -> None:
    users, movies = vectors()
    plain, found = as_table(lists(users, movies)), as_table(lists(users, movies, size, rounded=rounded))
    assert found.equals(plain)


def test_scores_too_close_to_tell_by_few_bits_are_found_without_rounding(monkeypatch: pytest.MonkeyPatch) -> None:
    users, movies = vectors()
    movies[:] = movies[0] * (
        1 + np.arange(MOVIES)[:, None] * 1e-7
    )  # the last bits differ, for more than are scored anew
    bounds, asked = Rounded.bounds, []
    monkeypatch.setattr(Rounded, "bounds", lambda self, codes: (asked.append(len(codes)), bounds(self, codes))[1])
    plain, found = lists(users, movies, 16), lists(users, movies, 16, rounded=True)
    assert as_table(found).equals(as_table(plain))
    assert asked == [16, 16]  # then it is given up: it only costs


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("rounded", [False, True])
def test_a_vector_that_is_not_finite_stops_the_night(value: float, rounded: bool) -> None:
    users, movies = vectors()
    users[3, 5] = value
    with pytest.raises(NonFiniteScores):
        lists(users, movies, rounded=rounded)
