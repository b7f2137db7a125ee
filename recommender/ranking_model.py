"""A trained model's scores for a ranking task: what its lists are measured by."""

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from recommender.ranking import Scorer
from recommender.score import Grid, groups_of
from recommender.train import Trained
from recommender.vocabulary import UNKNOWN


def scorer(trained: Trained, keys: pa.Array) -> Scorer:
    """Scores by the grid that nights are scored with.

    `keys` are the task's movies in its order, as the model knows them: ids or titles, shape (M,). A movie unknown to the
    model is never listed; a user unknown to it has 0 for all others, so gets the most rated.
    """
    rows = trained.movies.encode(keys)
    grid = Grid(trained.model, rows)

    def score(users: pa.Array) -> NDArray[np.float32]:
        known = trained.users.encode(users)
        found = np.array(grid.scores(groups_of(known))[: len(users)], np.float32)
        found[known == UNKNOWN] = 0
        found[:, rows == UNKNOWN] = -np.inf
        return found

    return score
