"""The article's ranking model: two embeddings, concatenated, through ReLU layers to one predicted rating."""

from typing import Any

from recommender.config import ModelConfig
from recommender.known import Names
from recommender.tensorflow import tf, tfrs


class RatingMlp(tfrs.models.Model):
    """Embeddings of user and movie > Dense ... Dense > Dense(1), trained on the squared error of the rating."""

    def __init__(self, config: ModelConfig, users: int, movies: int) -> None:
        super().__init__()
        self.solved: list[Any] = []
        self.factored, self.spread = False, config.spread
        width = config.embedding_dimension
        self.user_embedding = tf.keras.layers.Embedding(users, width, name="user_embedding")
        self.movie_embedding = tf.keras.layers.Embedding(movies, width, name="movie_embedding")
        penalty = tf.keras.regularizers.L2(config.l2) if config.l2 else None
        self.hidden = [
            tf.keras.layers.Dense(units, activation="relu", kernel_regularizer=penalty, name=f"hidden_{number}")
            for number, units in enumerate(config.hidden_units, start=1)
        ]
        self.rating = tf.keras.layers.Dense(1, name="rating")
        self.task = tfrs.tasks.Ranking(
            loss=tf.keras.losses.MeanSquaredError(reduction="sum"),  # of one mean: the last axis is the only one
            metrics=[tf.keras.metrics.RootMeanSquaredError(name="rmse")],
        )

    def call(self, features: dict[str, Any]) -> Any:
        """Predicted ratings (B,) of the pairs (B,)."""
        user = self.user_embedding(features["user"])  # (B, d)
        movie = self.movie_embedding(features["movie"])  # (B, d)
        x = tf.concat([user, movie], axis=1)  # (B, 2d)
        for layer in self.hidden:
            x = layer(x)  # (B, h)
        return tf.squeeze(self.rating(x), axis=1)  # (B,)

    def compute_loss(self, features: dict[str, Any], training: bool = False) -> Any:
        """Mean squared error of the rating, plus the penalty on the hidden kernels that Keras adds."""
        return self.task(labels=features["rating"], predictions=self(features, training=training))

    def encode_users(self, users: Any) -> Any:
        """The user's half of the first layer, bias included: `W [u; m] + b = (Wu u + b) + Wm m`."""
        kernel = self.hidden[0].kernel[: self.user_embedding.output_dim]  # (d, h)
        return tf.matmul(self.user_embedding(users), kernel) + self.hidden[0].bias  # (U, h)

    def encode_movies(self, movies: Any) -> Any:
        """The movie's half of the first layer."""
        kernel = self.hidden[0].kernel[self.user_embedding.output_dim :]  # (d, h)
        return tf.matmul(self.movie_embedding(movies), kernel)  # (M, h)

    def score_grid(self, user_codes: Any, movie_codes: Any) -> Any:
        """Predicted ratings (U, M): halves the work of `call`, since the first layer is done once per user and movie."""
        x = tf.nn.relu(user_codes[:, None, :] + movie_codes[None, :, :])  # (U, M, h)
        shape = tf.shape(x)
        x = tf.reshape(x, [-1, x.shape[-1]])  # (U*M, h): one large matrix product
        for layer in self.hidden[1:]:
            x = layer(x)
        return tf.reshape(self.rating(x), shape[:2])  # (U, M)


def build(config: ModelConfig, users: int, movies: int, names: Names) -> RatingMlp:
    """An untrained model with `users` and `movies` embedding rows; it has no use for features."""
    model = RatingMlp(config, users, movies)
    model({"user": tf.zeros([1], tf.int32), "movie": tf.zeros([1], tf.int32)})
    return model
