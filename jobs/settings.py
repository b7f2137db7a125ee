"""Every setting with its default and meaning, as frozen values. How they are found: `jobs.configuration`."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from jobs.folder import StateFolder
from recommender.config import ModelConfig, Recipe, TrainConfig, recipe


@dataclass(frozen=True)
class Columns:
    """What the columns of your own files are called."""

    user_id: str = "user_id"
    """Of ratings and users: whole numbers or text."""
    movie_id: str = "movie_id"
    """Of ratings and movies: whole numbers or text."""
    rating: str = "rating"
    """Numbers, on any scale."""
    rated_at: str = "rated_at"
    """A timestamp, or a number since 1970."""
    title: str = "title"
    """Of movies: text."""
    genres: str = "genres"
    """Of movies: a list of texts, or one text with | between them."""
    year: str = "year"
    """Of movies: a whole number."""
    release_date: str = "release_date"
    """Of movies: a date."""
    available: str = "available"
    """Of movies: true or false."""
    age: str = "age"
    """Of users: a whole number."""
    gender: str = "gender"
    """Of users: text."""
    occupation: str = "occupation"
    """Of users: text."""
    joined_at: str = "joined_at"
    """Of users: a timestamp, or a number since 1970."""
    ingested_at: str = ""
    """When a rating reached you, for --known-at; empty: nothing says so."""


@dataclass(frozen=True)
class Input:
    """Where the ratings of a night come from."""

    ratings: str = ""
    """Parquet file, folder or glob of your own, or a URL of such (s3://, gs://, az://, abfs://); empty: the lake that
    `recjob ingest` fills."""
    movies: str = ""
    """Parquet or CSV with movie_id and, if known, title, genres, year, release_date, available, or its URL; empty: the
    lake's."""
    users: str = ""
    """Parquet or CSV with user_id, or its URL; empty: the lake's. Users without a rating get a list of popular movies."""
    part: str = ""
    """K/N: only the users of part K of N, which share nothing (docs/howto/size.md#parts); empty: all."""
    max_rejected: float = 0.0
    """Largest share of rating rows that may be unusable (null, not finite, off the scale) before the run is refused."""
    lowest_rating: float | None = None
    """Stars; ratings below are rejected. Unset: whatever is found."""
    highest_rating: float | None = None
    """Stars; ratings above are rejected."""
    min_share: float = 0.5
    """Fewest ratings, as a share of those of the last run for this date or an earlier one; with fewer a run is refused."""
    max_age_days: float | None = None
    """Most days between the newest rating and the end of the date; with more a run is refused. Unset: any."""
    settle_seconds: float = 2.0
    """How long a file must have been left alone before it is read; a younger one is waited for."""
    columns: Columns = Columns()


@dataclass(frozen=True)
class Model(ModelConfig, TrainConfig):
    """The model to retrain: a recipe by name, and any of its hyper-parameters changed."""

    name: str = "default"
    """One of the recipes: default, or those of the article, basic and tuned."""


@dataclass(frozen=True)
class Gate:
    """When a freshly trained model is good enough to be used, and when its lists are plausible enough to be published."""

    holdout: float = 0.1
    """Share of the ratings, the newest, that the model is measured on before it is trained on all."""
    max_rmse_ratio: float = 1.1
    """Largest holdout RMSE, as a multiple of the RMSE of predicting the mean rating for everything."""
    lists: Literal["warn", "block"] = "warn"
    """What it means when the lists are worse than the most rated movies for everybody."""
    min_coverage: float = 0.01
    """Smallest share of the candidates (of the places in all lists, where these are fewer) that stand in some list."""
    max_same_list: float = 0.5
    """Largest share of users who have one and the same list."""
    max_same_first: float = 1.0
    """Largest share of users whose list begins with one and the same movie; with the article's models it is close to 1."""
    max_churn: float = 0.95
    """Largest share of the movies in the lists of the newest published date that may leave them."""
    min_movies: float = 0.5
    """Fewest candidates, as a share of those of the newest published date."""
    max_cold_rise: float = 0.3
    """By how much the share of cold users may exceed that of the newest published date."""

    @property
    def of_model(self) -> dict[str, float | str]:
        """What the verdict on a model depends on; a limit of the lists alone is no reason to train again."""
        return {"holdout": self.holdout, "max_rmse_ratio": self.max_rmse_ratio, "lists": self.lists}


@dataclass(frozen=True)
class Candidates:
    """Which movies may be recommended."""

    min_ratings: int = 5
    """Fewest ratings of a movie."""


@dataclass(frozen=True)
class Rules:
    """What people decide about lists beside the model: docs/rules.md. Files are Parquet or CSV, their columns of ids called as
    `input.columns` says."""

    candidates_sql: str = ""
    """File with one SELECT of movie_id over the table `movies`: no other movie is listed. Empty: no such rule."""
    released: bool = False
    """List no movie before its release_date."""
    allow: str = ""
    """File of movie_id: no other movie is listed."""
    block: str = ""
    """File of movie_id: none of these is listed."""
    exclude: str = ""
    """File of user_id and movie_id: that movie is not listed to that user."""
    opt_out: str = ""
    """File of user_id: they get no list, and `user_status` says why."""
    pinned: str = ""
    """File of movie_id: these stand first in every list, in the order of the file, where the user has not rated them."""
    new_every: int = 0
    """Each so-manieth place of a list is for a new movie, in turn, however few its ratings; 0: none."""
    new_days: float = 30.0
    """How long a movie is new: days since its release_date, or its first rating where that is unknown."""
    genre_cap: int = 0
    """Most movies of one genre in the first `genre_places` places; 0: any number."""
    genre_places: int = 10
    """Places that `genre_cap` is on."""
    damping: float = 0.0
    """What a movie's score loses for each natural logarithm of its ratings: lists get less popular movies."""
    fill: bool = False
    """Fill a list that would be short with the most rated of the movies with fewer than `candidates.min_ratings`."""

    @property
    def files(self) -> dict[str, str]:
        """The files that are named, by the name of their setting."""
        names = ("candidates_sql", "allow", "block", "exclude", "opt_out", "pinned")
        return {name: getattr(self, name) for name in names if getattr(self, name)}


@dataclass(frozen=True)
class Score:
    """How every user is scored."""

    top_n: int = 50
    """Movies per user, 1 to 1000."""
    include_seen: bool = False
    """Recommend movies that the user has rated, too."""
    batch_size: int = 0
    """Users scored at once; 0: as many as fit, on a CPU no more than it is fastest with. It never changes a list."""
    exact: bool = True
    """Score every user against every movie. false: a model that is no product of factors, as those of the article, is screened
    where that is tried and found good on the night itself (docs/architecture.md): many times faster, and lists may differ."""
    memory_gib: float = 0.0
    """Memory for scores, GiB; 0: a quarter of the free RAM, at most 1, or half of the free GPU memory, at most 8."""
    shards: int = 1
    """Parts that the users are scored in. Each is kept once it is finished, so that a killed run goes on after it, and may be
    scored elsewhere (`recjob score --shard`). It never changes a list."""
    engine: Literal["local", "ray"] = "local"
    """What scores shards. ray: actors of the cluster of RAY_ADDRESS, or of one started here (`pip install "recjob[ray]"`)."""
    actors: int = 0
    """Ray actors, each of which loads the model once; 0: one on each machine of the cluster."""
    device: Literal["auto", "cpu", "gpu"] = "auto"
    """What trains and scores. auto: a GPU where TensorFlow finds one; gpu: or the run ends with exit code 6."""
    devices: int = 1
    """GPUs of this machine that a model is trained on together; 0: all. Several hosts: `recjob train --hosts`."""
    precision: Literal["auto", "float32", "tf32"] = "auto"
    """How factored models are multiplied. tf32: rounded as tensor cores do, and the best scored anew; lists whose bounds do not
    prove them are found in double precision, so no list changes. auto: so on a GPU only."""


@dataclass(frozen=True)
class Publish:
    """What readers see."""

    mode: Literal["copy", "attach"] = "copy"
    """copy: the published file has the lists; attach: it has views over their staged Parquet (docs/publishing.md)."""
    iceberg: str = ""
    """CATALOGUE.NAMESPACE of Iceberg tables that have the lists, too (docs/publishing.md#iceberg-tables); empty: none."""
    retention_dates: int = 14
    """Newest dates in the published file; older partitions are pruned."""
    keep_files: int = 3
    """Published files kept to roll back to, the current one included."""
    keep_models: int = 7
    """Model versions kept, and the champion."""
    similar_movies: int = 20
    """Movies published for each candidate as the most like it (table similar_movies), 0 to 1000; 0: none."""
    metrics_file: str = ""
    """File to write figures of each run into, for Prometheus (node_exporter's textfile collector); empty: none."""
    keep_reports: int = 30
    """Reports of nights kept in state/reports/nightly; 0: none are written, `recjob report` makes them when asked."""


@dataclass(frozen=True)
class Store:
    """A copy of the state folder in an object store, for machines that come and go: docs/howto/s3.md."""

    url: str = ""
    """Where it is, e.g. s3://bucket/recjob: each run takes up what is newer there, and copies what is new here. Empty: none."""


@dataclass(frozen=True)
class Schedule:
    """When `recjob schedule run` works."""

    cron: str = "30 3 * * *"
    """Minute, hour, day of month, month, day of week (0 or 7 = Sunday, or names)."""
    timezone: str = "UTC"
    """IANA zone of the cron expression."""
    as_of: Literal["yesterday", "today"] = "yesterday"
    """The date that a run at fire time is for, in the top-level `timezone`."""
    catch_up: Literal["latest", "all", "none"] = "latest"
    """Which missed dates to make up for when the scheduler starts."""
    timeout_hours: float = 12.0
    """A run is stopped after this long."""
    retries: int = 2
    """Further tries after exit codes 5 and 6 (busy, resources), with growing pauses."""


@dataclass(frozen=True)
class Hooks:
    """Programs that are told how a run ended (docs/howto/watch.md): lists of arguments, no shell; RECJOB_RUN_* has the run."""

    on_success: tuple[str, ...] = ()
    """After a run with exit code 0."""
    on_refusal: tuple[str, ...] = ()
    """After a run whose model the gate refused, whether or not the champion took its place."""
    on_failure: tuple[str, ...] = ()
    """After a run that failed or was stopped; not after one that was killed, or never began since another was busy."""
    timeout_seconds: float = 60.0
    """A program is killed after this long."""


@dataclass(frozen=True)
class Settings(StateFolder):
    """Everything a run depends on besides its date and the ratings."""

    state_dir: Path = Path("state")
    """Where recjob keeps the lake, models, runs and the published file."""
    timezone: str = "UTC"
    """IANA zone in which a date ends."""
    input: Input = Input()
    model: Model = Model()
    gate: Gate = Gate()
    candidates: Candidates = Candidates()
    rules: Rules = Rules()
    score: Score = Score()
    publish: Publish = Publish()
    store: Store = Store()
    schedule: Schedule = Schedule()
    hooks: Hooks = Hooks()
    origin: Mapping[str, str] = field(default_factory=dict, compare=False)
    """Where each value that is not a default came from, by its dotted key."""

    @property
    def recipe(self) -> Recipe:
        """The model's recipe with the configured hyper-parameters."""
        set_here = [
            key.removeprefix("model.") for key in self.origin if key.startswith("model.") and key != "model.name"
        ]
        return recipe(self.model.name, **{key: getattr(self.model, key) for key in set_here})

    def recipe_of(self, name: str) -> Recipe:
        """The recipe called `name`, with the configured hyper-parameters if it is the configured one."""
        return self.recipe if name == self.model.name else recipe(name)
