"""A trained model as a SavedModel that takes ids as text: what TensorFlow Serving loads. recjob itself never reads one."""

from pathlib import Path
from typing import Any

import pyarrow as pa

from recommender.ready import Ready
from recommender.tensorflow import tf
from recommender.vocabulary import Vocabulary


def saved_model(ready: Ready, folder: Path) -> list[str]:
    """Write `serving_default(user_id, movie_id or movie_title) -> predicted_rating` into `folder`; returns the inputs.

    All are strings and float32 of shape (B,). Ratings are clipped to the scale, as in the published tables; an unknown
    id is scored by embedding row 0.
    """
    module = _Serving(ready)
    tf.saved_model.save(module, str(folder), signatures={"serving_default": module.score})
    return ["user_id", module.movie_input]


class _Serving(tf.Module):
    """Lookups, model and clipping in one graph."""

    def __init__(self, ready: Ready) -> None:
        super().__init__()
        self.model = ready.model
        self.users, self.movies = _lookup(ready.users), _lookup(ready.movies)
        self.movie_input = "movie_title" if ready.movie_key == "title" else "movie_id"
        low, high = ready.rating_scale

        def score(user_id: Any, movie: Any) -> dict[str, Any]:
            rows = {"user": self.users.lookup(user_id), "movie": self.movies.lookup(movie)}
            return {"predicted_rating": tf.clip_by_value(self.model.call(rows), low, high)}

        text = {name: tf.TensorSpec([None], tf.string, name=name) for name in ("user_id", self.movie_input)}
        self.score = tf.function(score, input_signature=list(text.values()))


def _lookup(vocabulary: Vocabulary) -> Any:
    """A table in the graph from id as text to embedding row, 0 where it is not known."""
    keys = tf.constant(vocabulary.ids.cast(pa.string()).to_pylist(), tf.string)
    rows = tf.range(1, vocabulary.rows, dtype=tf.int32)
    return tf.lookup.StaticHashTable(tf.lookup.KeyValueTensorInitializer(keys, rows), default_value=0)
