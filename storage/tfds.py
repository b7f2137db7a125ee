"""MovieLens by name, through TensorFlow Datasets: download, checksum and preparation are TFDS's, the tables are ours.

TFDS keeps its files in the folder it is given and prepares a data set once, at some 6,000 ratings a second; a second
call only reads.
"""

import contextlib
import http.client
import io
import os
import sys
import tempfile
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from storage.catalogue import Catalogue
from storage.errors import DiskFailed, InvalidInput
from storage.grouplens import NO_GENRES, UTC_TIME, title_year, with_joined_at

NAMES = ("100k", "1m", "latest-small", "20m", "25m")
NETWORK_WAIT = 6.0
"""Seconds in which GroupLens must answer at all; TFDS alone would try for over three minutes."""

_SITE = "https://grouplens.org/datasets/movielens/"
_FILES = "https://files.grouplens.org/datasets/movielens/"
_BATCH = 16_384
_ZIP_GENRES = {
    "100k": {"Children": "Children's", "Unknown": "unknown"},
    "1m": {"Children": "Children's"},
}
"""TFDS renames these genres; the zips, and so `grouplens.read_zip`, call them this."""


def read_movielens(name: str, data_dir: Path) -> Catalogue:
    """Read `movielens/100k`, `1m`, `latest-small`, `20m` or `25m`; downloads it unless `data_dir` holds it or its zip.

    Ratings are ordered by time, user and movie, the other tables by id. Equal to `grouplens.read_zip` of the same zip,
    but for what TFDS leaves out: release dates, and users without ratings.
    Raises `InvalidInput` for an unknown name or a zip that is not the original, and `DiskFailed` when the network does
    not answer or the data cannot be prepared in `data_dir`: both can pass.
    """
    version = name.removeprefix("movielens/")
    if version not in NAMES:
        known = ", ".join(f"movielens/{known}" for known in NAMES)
        raise InvalidInput(f"there is no data set {name!r}", hint=f"known are {known}")
    with _native_stderr_held():
        import tensorflow_datasets as tfds

        tf = tfds.core.utils.lazy_imports_utils.tensorflow
        tf.config.list_physical_devices()  # the first use imports TensorFlow, and its devices report
        builders = [tfds.builder(f"movielens/{version}-{part}", data_dir=data_dir) for part in ("ratings", "movies")]
    path = _zip(data_dir, f"ml-{version}.zip")
    if not path.is_file() and not all(builder.data_path.exists() for builder in builders) and not _answers():
        raise DiskFailed(f"cannot download movielens/{version}: {_FILES} does not answer", hint=_by_hand(version))
    with _translated(tfds, tf, path, version):
        for builder in builders:
            _prepare(tfds, builder, path.parent if path.is_file() else None)
        ratings, users = _ratings(tf, builders[0])
        return Catalogue(ratings, _movies(tf, builders[1], _ZIP_GENRES.get(version, {})), users)


def _zip(data_dir: Path, name: str) -> Path:
    """The zip where somebody may have left it; `data_dir / name` if it is nowhere."""
    places = [data_dir / place / name for place in (".", "manual", "downloads", "downloads/manual")]
    return next((path for path in places if path.is_file()), data_dir / name)


def _prepare(tfds: Any, builder: Any, zip_folder: Path | None) -> None:
    (tfds.enable_progress_bar if sys.stderr.isatty() else tfds.disable_progress_bar)()
    config = tfds.download.DownloadConfig(manual_dir=zip_folder, try_download_gcs=False)
    with contextlib.redirect_stdout(io.StringIO()):  # stdout belongs to the result
        builder.download_and_prepare(download_config=config)


def _ratings(tf: Any, builder: Any) -> tuple[pa.Table, pa.Table | None]:
    """The ratings, and the users in them where the data set describes users."""
    known = builder.info.features
    about = [name for name in ("user_gender", "user_occupation_text", "user_zip_code") if name in known]
    ages = [name for name in ("raw_user_age", "bucketized_user_age") if name in known][:1]
    read = _read(tf, builder, ["user_id", "movie_id", "user_rating", "timestamp", *about, *ages])
    columns = {
        "user_id": read["user_id"].cast(pa.int64()),
        "movie_id": read["movie_id"].cast(pa.int64()),
        "rating": read["user_rating"],
        "rated_at": read["timestamp"].cast(pa.timestamp("s", tz="UTC")).cast(UTC_TIME),
    }
    users = _users(columns["user_id"], read, ages[0]) if ages else None
    ratings = pa.table(columns).sort_by([(name, "ascending") for name in ("rated_at", "user_id", "movie_id")])
    return ratings, None if users is None else with_joined_at(users, ratings)


def _users(user_id: pa.ChunkedArray, read: pa.Table, age: str) -> pa.Table:
    """One row per user, by id; a user is described alike in all of their ratings."""
    ids, first = np.unique(user_id.to_numpy(), return_index=True)
    rows = read.take(pa.array(first))
    columns = {
        "user_id": pa.array(ids),
        "gender": pa.array(np.where(rows["user_gender"].to_numpy() == 1, "M", "F")),
        "age": rows[age].cast(pa.int16()),
        "occupation": rows["user_occupation_text"],
        "zip_code": rows["user_zip_code"],
    }
    return pa.table(columns)


def _movies(tf: Any, builder: Any, zip_genres: Mapping[str, str]) -> pa.Table:
    read = _read(tf, builder, ["movie_id", "movie_title", "movie_genres"])
    labels = builder.info.features["movie_genres"].feature.names
    names = pa.array([zip_genres.get(label, label) for label in labels])
    genres = read["movie_genres"].combine_chunks()
    label = genres.flatten().to_numpy()
    kept = label != labels.index(NO_GENRES)
    offsets = np.concatenate([[0], np.cumsum(kept)])[genres.offsets.to_numpy()]
    named = pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), names.take(pa.array(label[kept])))
    columns = [read["movie_id"].cast(pa.int64()), read["movie_title"], named, title_year(read["movie_title"])]
    return pa.table(columns, names=["movie_id", "title", "genres", "year"]).sort_by("movie_id")


def _read(tf: Any, builder: Any, names: Sequence[str]) -> pa.Table:
    """The named features of all examples, parsed a batch at a time.

    `builder.as_dataset(batch_size=...)` parses one example at a time, over ten times slower, and pads genres with
    zeros, which is the label of Action.
    """
    features = builder.info.features
    spec = {name: _spec(tf, features[name]) for name in names}
    paths = [str(path) for path in builder.info.splits["train"].filepaths]
    records = tf.data.TFRecordDataset(paths).batch(_BATCH)
    batches = records.map(lambda record: tf.io.parse_example(record, spec))
    return pa.concat_tables(pa.table({name: _column(batch[name]) for name in names}) for batch in batches)


def _spec(tf: Any, feature: Any) -> Any:
    if hasattr(feature, "feature"):  # a sequence
        return tf.io.RaggedFeature(tf.int64)
    kind = np.dtype(feature.np_dtype).kind
    return tf.io.FixedLenFeature((), {"f": tf.float32, "O": tf.string, "U": tf.string}.get(kind, tf.int64))


def _column(batch: Any) -> pa.Array:
    if hasattr(batch, "row_splits"):
        offsets = pa.array(batch.row_splits.numpy(), pa.int32())
        return pa.ListArray.from_arrays(offsets, pa.array(batch.flat_values.numpy()))
    values = batch.numpy()
    return pa.array(values, pa.binary()).cast(pa.string()) if values.dtype == object else pa.array(values)


def _answers() -> bool:
    """Whether GroupLens answers within `NETWORK_WAIT`; in a thread, because looking up a name knows no timeout."""
    answers = []

    def ask() -> None:
        with contextlib.suppress(OSError, http.client.HTTPException):
            try:
                urllib.request.urlopen(_FILES, timeout=NETWORK_WAIT).close()
            except urllib.error.HTTPError as error:  # an answer too
                error.close()
            answers.append(True)

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(NETWORK_WAIT)
    return bool(answers)


def _by_hand(version: str) -> str:
    return f"download ml-{version}.zip from {_SITE} and use: recjob ingest ml-{version}.zip"


@contextlib.contextmanager
def _translated(tfds: Any, tf: Any, path: Path, version: str) -> Iterator[None]:
    try:
        yield
    except tfds.core.download.download_manager.NonMatchingChecksumError as error:
        message = f"{path.name} is not the file that TensorFlow Datasets knows: its checksum differs"
        raise InvalidInput(message, hint=f"read it as it is: recjob ingest {path}", path=str(path)) from error
    except tfds.core.download.util.DownloadError as error:
        raise DiskFailed(f"cannot download movielens/{version}: {error}", hint=_by_hand(version)) from error
    except (OSError, tf.errors.OpError) as error:
        message = f"cannot prepare movielens/{version} in {path.parent}: {error}"
        raise DiskFailed(message, hint=_by_hand(version)) from error


@contextlib.contextmanager
def _native_stderr_held() -> Iterator[None]:
    """Keep TensorFlow's start-up lines, which native code writes to file descriptor 2, off the screen unless it fails."""
    # As in recommender/tensorflow.py, which storage may not import.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("TF_USE_LEGACY_KERAS", "1")  # training in this process needs Keras 2, and asks only once
    sys.stderr.flush()
    screen = os.dup(2)
    with tempfile.TemporaryFile() as held:
        os.dup2(held.fileno(), 2)
        try:
            yield
        except BaseException:
            held.seek(0)
            os.write(screen, held.read())
            raise
        finally:
            os.dup2(screen, 2)
            os.close(screen)
