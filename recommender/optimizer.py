"""How many steps a training takes, and how far each goes."""

from typing import Any

from recommender.config import TrainConfig
from recommender.tensorflow import tf


def steps_of_epoch(config: TrainConfig, in_pass: int) -> int:
    """Steps of an epoch, where a pass over the examples has `in_pass`."""
    if not config.steps_per_epoch:
        return in_pass
    return max(round(config.steps_per_epoch * in_pass**0.25), -(-2 * in_pass // config.epochs))


def of(config: TrainConfig, in_pass: int, steps: int) -> Any:
    """What moves the weights, at a rate that suits so many `steps` and so many batches in a pass.

    The legacy classes: their Adagrad has a fused sparse kernel, and it is the one the article used.

    Adam forgets gradients sooner than by its own default, which suits trainings of a hundred steps. The fewer of the users a
    batch has, the more chance is in its gradient, and the smaller the steps: towers are sums of many weights that move
    together, and with 150 batches in a pass the rate that suits one would not converge.
    """
    kinds = {"adagrad": tf.keras.optimizers.legacy.Adagrad, "adam": tf.keras.optimizers.legacy.Adam}
    rate = config.learning_rate * (in_pass**-0.2 if config.steps_per_epoch else 1)
    if config.schedule == "cosine":
        rising = steps // 5
        rate = tf.keras.optimizers.schedules.CosineDecay(
            rate / 10, steps - rising, warmup_target=rate, warmup_steps=rising
        )
    return kinds[config.optimizer](learning_rate=rate, **({"beta_2": 0.99} if config.optimizer == "adam" else {}))
