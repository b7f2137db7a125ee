"""What can go wrong in the recommender. Each error says what, and its hint what to do next.

RecommenderError
├── UnknownName          no model or split of that name
├── NothingToRecommend   no movie may be recommended to anybody
├── TrainingDiverged     the loss or a weight became infinite or not a number
├── GateRefused          the model is not good enough to be used
│   ├── ListsRefused       the lists are not plausible enough to be published
│   └── RolledBack         lists of this date were taken back by hand
├── InvalidModel         stored weights do not fit the model they claim to be
├── NonFiniteScores      a score is infinite or not a number: nothing of this run can be used
├── OutOfMemory          scoring does not fit, however small the blocks
└── EngineFailed         what is to score shards is out of reach, or is lost again and again
"""


class RecommenderError(Exception):
    """Base of everything `recommender` raises on purpose. `kind` is its stable name, `hint` the next step."""

    kind = "E_RECOMMENDER"

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint


class UnknownName(RecommenderError):
    """No model or split of that name."""

    kind = "E_USAGE"


class NothingToRecommend(RecommenderError):
    """No movie passes the candidate rules."""

    kind = "E_NO_CANDIDATES"


class TrainingDiverged(RecommenderError):
    """The loss or a weight left the finite numbers."""

    kind = "E_TRAIN_DIVERGED"

    def __init__(self, epoch: int, step: int, learning_rate: float) -> None:
        super().__init__(
            f"loss or weights are not finite in epoch {epoch}, step {step}",
            hint=f"lower model.learning_rate (now {learning_rate:g})",
        )


class GateRefused(RecommenderError):
    """The model's error on the holdout is over its limit."""

    kind = "E_GATE_MODEL"

    def __init__(self, reason: str) -> None:
        super().__init__(
            f"the model was refused: {reason}",
            hint="more model.epochs may help; --force --reason TEXT uses it all the same, and is recorded",
        )


class ListsRefused(GateRefused):
    """The lists as a whole break a limit of the gate."""

    kind = "E_GATE_LISTS"

    def __init__(self, reason: str) -> None:
        RecommenderError.__init__(
            self,
            f"the lists were refused: {reason}",
            hint="nothing was published; if it is meant to be so, --force --reason TEXT publishes it, and is recorded",
        )


class RolledBack(GateRefused):
    """The newest lists of a date were taken back by hand."""

    kind = "E_ROLLED_BACK"

    def __init__(self, day: str) -> None:
        RecommenderError.__init__(
            self,
            f"the lists of {day} were rolled back, and a night does not publish the date again by itself",
            hint="--force --reason TEXT makes it anew; recjob publish RUN shows lists that are staged",
        )


class InvalidModel(RecommenderError):
    """Weights, vocabularies and configuration do not belong together."""

    kind = "E_MODEL_CORRUPT"


class NonFiniteScores(RecommenderError):
    """At least one user has an infinite or undefined score."""

    kind = "E_SCORE_NONFINITE"

    def __init__(self, users: int) -> None:
        super().__init__(
            f"{users} users in one block have scores that are not finite",
            hint="nothing was published; retrain, or score with an earlier model: --model VERSION",
        )


class NoDevice(RecommenderError):
    """There is no GPU, and one was demanded."""

    kind = "E_DEVICE"

    def __init__(self) -> None:
        super().__init__(
            "score.device is gpu, and TensorFlow finds no GPU",
            hint='pip install "recjob[gpu]", and see that nvidia-smi lists one; or --device auto',
        )


class EngineFailed(RecommenderError):
    """What is to score shards cannot be reached, or its processes are lost again and again."""

    kind = "E_ENGINE"


class HostsFailed(EngineFailed):
    """Hosts that train a model together have lost one of them, or do not train the same."""

    kind = "E_HOSTS"


class OutOfMemory(RecommenderError):
    """The smallest block of users does not fit in memory."""

    kind = "E_MEMORY"

    def __init__(self, users: int, movies: int) -> None:
        super().__init__(
            f"scoring {users} users against {movies} movies at once does not fit in memory",
            hint="free memory; --memory makes blocks smaller from the start, down to this one",
        )
