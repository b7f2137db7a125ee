"""A trained model without some of its users."""

import dataclasses

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from recommender import models
from recommender.train import Trained
from recommender.vocabulary import Vocabulary


def without_users(trained: Trained, gone: pa.Array) -> Trained:
    """The model without the ids in `gone` and the rows of weights that are theirs; all others score as before.

    What the other weights learned from them stays: it is of everybody at once, and the next training is without them.
    """
    kept = pc.invert(pc.is_in(trained.users.ids, value_set=gone))
    rows = np.flatnonzero(np.concatenate([[True], kept.to_numpy(zero_copy_only=False)]))
    # Which weights have a row for each user is seen in a model with one user more.
    larger = models.build(trained.recipe.model, trained.users.rows + 1, trained.movies.rows, trained.names)
    variables = [*larger.trainable_variables, *larger.solved]
    weights = {
        name: trained.weights[name][rows]
        if trained.weights[name].shape != tuple(variable.shape)
        else trained.weights[name]
        for name, variable in zip(sorted(trained.weights), variables, strict=True)
    }
    return dataclasses.replace(trained, users=Vocabulary(trained.users.ids.filter(kept)), weights=weights)
