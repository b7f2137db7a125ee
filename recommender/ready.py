"""A trained model with what is known at a moment in mind: what predicts and ranks."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from recommender import ranking, spread
from recommender.grid import Grid, whole_groups
from recommender.ranking import Scorer, Task
from recommender.tensorflow import tf, traced
from recommender.vocabulary import UNKNOWN, Vocabulary


@dataclass(frozen=True)
class Ready:
    """Users and movies are rows of these vocabularies, which may have more of both than training had."""

    model: Any
    """`models.Model`."""
    users: Vocabulary
    movies: Vocabulary
    movie_key: str
    """The column that movies are known by: movie_id or title."""
    rating_scale: tuple[float, float]
    """Lowest and highest rating in stars; predictions are clipped to it."""
    n_ratings: NDArray[np.int64] | None
    """What a model by history has to go by: ratings of each row of `users`, shape (users.rows,). None for other models."""

    def predict(self, pairs: pa.Table, batch: int = 65536) -> NDArray[np.float32]:
        """Predicted stars for the pairs of a ratings table, clipped to the scale, shape (rows,)."""
        user, movie = self.users.encode(pairs["user_id"]), self.movies.encode(pairs[self.movie_key])
        return np.clip(stars_of(traced(self.model.call, reduce_retracing=True), user, movie, batch), *self.rating_scale)

    def scorer(self, keys: pa.Array) -> Scorer:
        """Scores by the grid that nights are scored with.

        `keys` are the movies to rank as the model knows them: ids or titles, shape (M,). A movie unknown to the model is
        never listed; a user whom it cannot score has 0 for all others, so gets the most rated.
        """
        rows = self.movies.encode(keys)
        grid = Grid(self.model, rows)

        def score(users: pa.Array) -> NDArray[np.float32]:
            known = self.users.encode(users)
            scores, broken = grid.scores(self.model.encode_users(tf.constant(whole_groups(known))))
            found = np.array(scores[: len(users), : len(rows)], np.float32)
            found[broken.numpy()[: len(users)]] = np.nan
            strange = ~self.scores(known)
            found[strange] = np.where(rows == UNKNOWN, -np.inf, 0)
            return found

        return score

    def lists(self, task: Task, keys: pa.Array, train: pa.Table, n: int = 50) -> NDArray[np.int32]:
        """Lists of `n` for the users of `task`, shape (U, n), as a night makes them: `ranking.lists`, with the model's spread.

        `keys` are the task's movies as the model knows them, `train` the ratings that it knows.
        """
        scorer, prices = self.scorer(keys), None
        if self.model.spread:
            some = ranking.sampled(ranking.everybody(train, task.movies), spread.USERS)
            prices = spread.prices(ranking.lists(some, scorer, n), len(task.movies), self.model.spread)
        return ranking.lists(task, scorer, n, prices=prices)

    def scores(self, users: NDArray[np.int32]) -> NDArray[np.bool_]:
        """Whether the model can score these rows of `users`, shape (len(users),); one by history can score strangers."""
        return np.full(len(users), True) if self.n_ratings is not None else users != UNKNOWN

    def cold(self, users: NDArray[np.int32]) -> NDArray[np.bool_]:
        """Whether the model has no rating of these rows of `users` to go by, shape (len(users),)."""
        return users == UNKNOWN if self.n_ratings is None else self.n_ratings[users] == 0


def stars_of(call: Any, user: NDArray[np.int32], movie: NDArray[np.int32], batch: int = 65536) -> NDArray[np.float32]:
    """What a model's `call` gives for pairs of rows, shape (len(user),), not clipped."""
    parts = [
        call({"user": tf.constant(user[at : at + batch]), "movie": tf.constant(movie[at : at + batch])}).numpy()
        for at in range(0, len(user), batch)
    ]
    return np.concatenate(parts or [np.zeros(0, np.float32)])
