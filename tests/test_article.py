"""The figures of the article, on its own data and split."""

import pyarrow as pa
import pytest
from conftest import real_data

from recommender import evaluate, split, train
from recommender.config import recipe
from storage import grouplens


def article(name: str) -> dict[str, float]:
    """RMSE of an article's model on its own split: movies by title, vocabularies over the whole file."""
    world = grouplens.read_zip(real_data("ml-100k.zip"))
    assert world.movies is not None
    titles = dict(zip(world.movies["movie_id"].to_pylist(), world.movies["title"].to_pylist(), strict=True))
    rated = world.ratings.append_column(
        "title", pa.array([titles[movie] for movie in world.ratings["movie_id"].to_pylist()])
    )
    cut = split.time_range(rated)
    assert [part.num_rows for part in (cut.train, cut.validation, cut.test)] == [65_336, 15_778, 18_886]
    trained = train.train(
        cut.train, recipe(name, movie_key="title"), vocabularies=train.vocabularies_of(rated, "title")
    )
    assert trained.parameters == 116_641
    parts = {"validation": cut.validation, "test": cut.test}
    measured = {
        key: evaluate.rating_error(trained.ready(cut.train).predict(part), part, cut.train)[0].value
        for key, part in parts.items()
    }
    return {"train": trained.history[-1].train_rmse, **measured}


def test_basic_reproduces_the_article() -> None:
    assert article("basic") == pytest.approx({"train": 1.11, "validation": 1.13, "test": 1.12}, abs=0.02)


@pytest.mark.slow
def test_tuned_reproduces_the_article() -> None:
    assert article("tuned") == pytest.approx({"train": 0.92, "validation": 1.05, "test": 1.04}, abs=0.03)
