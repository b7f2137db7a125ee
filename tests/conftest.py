"""Small worlds on disk, and recjob as a real child process."""

import dataclasses
import hashlib
import json
import logging
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # as recommender has it, before numpy is imported

os.environ.pop("PYTHONUNBUFFERED", None)  # what children print is buffered, as it is for most

import hypothesis
import numpy as np
import objectstore
import pyarrow as pa
import pytest
from objectstore import Store

from jobs import configuration, ingest, kept
from jobs import settings as configured
from jobs.settings import Settings
from storage import models, objects, runs, warehouse
from storage.catalogue import Catalogue
from storage.store import Store as Copy

FIRST, LAST = date(2026, 3, 1), date(2026, 3, 10)
FAST = {
    "model.name": "basic",
    "model.epochs": 2,
    "model.batch_size": 256,
    "model.embedding_dimension": 4,
    "model.hidden_units": (8, 4),
    "candidates.min_ratings": 1,
    "score.top_n": 5,
    "gate.max_rmse_ratio": 10.0,
    "publish.keep_reports": 0,  # drawing takes as long as all else of so small a night
}

hypothesis.settings.register_profile("any machine", deadline=None)  # how long an example takes is no promise
hypothesis.settings.load_profile("any machine")

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # a shell's background job hands that on to every child
    signal.signal(signal.SIGINT, signal.default_int_handler)


COPIES: list[str] = []
"""With --store: the URL below which every state folder has its copy."""
brought_back = pytest.mark.no_store("the store brings back what is damaged here, as test_store.py shows")
TOLD: list[str] = []
"""The `store.url` that a test has used."""


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--store", action="store_true", help="give every state folder a copy in an object store on loopback"
    )


def pytest_configure(config: pytest.Config) -> None:
    if config.getoption("--store"):
        serving = ExitStack()
        store = serving.enter_context(objectstore.serving())
        config.add_cleanup(serving.close)
        os.environ.update(store.environment)
        COPIES.append(f"s3://{store.bucket()}")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """With --store only tests of a state folder of `world_in`, but for those that say why a copy is none of theirs."""
    if not config.getoption("--store"):
        return
    left_out = [item for item in items if not _has_world(item)]
    items[:] = [item for item in items if item not in left_out]
    config.hook.pytest_deselected(items=left_out)
    for item in items:
        for mark in item.iter_markers("no_store"):
            item.add_marker(pytest.mark.skip(reason=f"--store: {mark.args[0]}"))


def _has_world(item: pytest.Item) -> bool:
    """Whether a test has a state folder, and none that it gives a store itself."""
    fixtures = set(getattr(item, "fixturenames", ()))
    made = hasattr(getattr(item, "module", None), "world_in") or fixtures & {"settings", "recjob"}
    return bool(made) and not fixtures & {"store", "serving"}


@pytest.fixture(autouse=True)
def levels_as_they_were() -> Iterator[None]:
    """A command that is run in this process, `-q` say, sets what recjob's loggers let through for good."""
    ours = [logging.getLogger(name) for name in ("jobs", "recommender", "storage", "scheduler", "__main__")]
    before = [logger.level for logger in ours]
    yield
    for logger, level in zip(ours, before, strict=True):
        logger.setLevel(level)


def pytest_itemcollected(item: pytest.Item) -> None:
    """A test of a fault can be asked for by the id of the fault."""
    item.extra_keyword_matches.update(fault for mark in item.iter_markers("faults") for fault in mark.args)


def small_world(
    users: int = 40, movies: int = 30, ratings: int = 600, seed: int = 1, text_ids: bool = False
) -> Catalogue:
    """Random ratings over ten days; user 999 has none; movie 1 is the most rated."""
    rng = np.random.default_rng(seed)
    pairs = rng.permutation(users * movies)[:ratings]
    user, movie = pairs // movies + 1, pairs % movies + 1
    at = datetime(2026, 3, 1, tzinfo=UTC) + timedelta(hours=1) * np.sort(rng.integers(0, 239, ratings))
    stars = np.clip(np.round(3 + (user % 3 - 1) + (movie % 3 - 1) * 0.5 + rng.normal(0, 0.5, ratings)), 1, 5)

    def ids(values: Any) -> pa.Array:
        return pa.array([f"id-{value}" for value in values]) if text_ids else pa.array(values, pa.int64())

    every_user = [*range(1, users + 1), 999]
    every_movie = list(range(1, movies + 1))
    return Catalogue(
        pa.table(
            {
                "user_id": ids(user),
                "movie_id": ids(movie),
                "rating": pa.array(stars, pa.float32()),
                "rated_at": pa.array(at, pa.timestamp("us", "UTC")),
            }
        ),
        pa.table(
            {
                "movie_id": ids(every_movie),
                "title": [f"Movie {number} (19{number % 90 + 10})" for number in every_movie],
                "genres": pa.array([["Drama"] if number % 2 else ["Comedy", "Crime"] for number in every_movie]),
            }
        ),
        pa.table({"user_id": ids(every_user)}),
    )


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """Settings of a fast model over a small world that is already in the lake."""
    return world_in(tmp_path / "state")


def world_in(state: Path, catalogue: Catalogue | None = None, **changes: Any) -> Settings:
    """Ingest a world into a state folder; `changes` are dotted keys with __ for the dot."""
    flags = (
        FAST
        | {"state_dir": state, "store.url": copy_of(state)}
        | {key.replace("__", "."): value for key, value in changes.items()}
    )
    made = configuration.load(None, {}, flags)
    ingest.append(made, "a small world", catalogue or small_world(), 0.0)
    return made


def copied(settings: Settings, state: Path) -> Settings:
    """The same world in another folder, to do with as a test likes."""
    shutil.copytree(settings.state_dir, state, symlinks=True)
    made = dataclasses.replace(settings, state_dir=state, store=configured.Store(copy_of(state)))
    if COPIES:
        kept.sync(made)
    return made


def copy_of(state: Path) -> str:
    """The `store.url` of a state folder: each has one of its own with --store, and none without."""
    if not COPIES:
        return ""
    TOLD.append(f"{COPIES[0]}/{hashlib.sha256(bytes(state.absolute())).hexdigest()[:16]}")
    return TOLD[-1]


@pytest.fixture(autouse=True)
def copies_are_whole(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """With --store: after a test an empty machine takes up each copy, and nothing in it is damaged, whatever was done here."""
    TOLD.clear()
    yield
    for url in dict.fromkeys(TOLD):
        taken = tmp_path_factory.mktemp("taken") / "state"
        Copy(url, taken).follow()
        for version in models.versions(taken / "models"):
            models.contents(version)
        assert runs.unrecorded(taken / "runs") == []
        for partition in runs.every(taken / "runs"):
            runs.verify(partition)
        for path in warehouse.versions(taken / "published"):
            warehouse.check(path)
        assert not [path for path in taken.rglob("*") if path.is_symlink() and not path.exists()]


def environment(settings: Settings) -> dict[str, str]:
    """The environment in which a child process has the same settings."""
    values = {
        configuration.variable(key): ",".join(map(str, value)) if isinstance(value, tuple) else str(value)
        for key, value in FAST.items()
    }
    values["RECJOB_PUBLISH_KEEP_REPORTS"] = str(settings.publish.keep_reports)
    values["RECJOB_PUBLISH_MODE"] = settings.publish.mode
    values |= {"RECJOB_STORE_URL": settings.store.url} if settings.store.url else {}
    return os.environ | values | {"RECJOB_STATE_DIR": str(settings.state_dir)}


@pytest.fixture
def recjob(settings: Settings, tmp_path: Path) -> "Recjob":
    """Run `recjob ARGUMENTS` in a child process on the small world."""

    def call(*arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "jobs.cli", *arguments],
            env=environment(settings) | more,
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=120,
        )

    return call


Recjob = Callable[..., subprocess.CompletedProcess[str]]
"""`recjob ARGUMENTS` on the small world, more environment by name."""


def document(done: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    """The one JSON document on stdout."""
    loaded: dict[str, Any] = json.loads(done.stdout)
    return loaded


def real_data(name: str) -> Path:
    """A GroupLens zip from RECJOB_TEST_DATA; skips the test where it is not at hand."""
    folder = os.environ.get("RECJOB_TEST_DATA")
    if not folder or not (Path(folder) / name).is_file():
        pytest.skip(f"needs {name}: set RECJOB_TEST_DATA to a folder that has it")
    return Path(folder) / name


@pytest.fixture(scope="session")
def serving() -> Iterator[Store]:
    """One object store for all tests of a process; each takes a bucket of its own."""
    with objectstore.serving() as store:
        yield store


@pytest.fixture
def store(serving: Store, monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    """The store, found by this process, which waits only a little before it asks again."""
    for name, value in serving.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(objects, "PAUSE", 0.01)
    yield serving
    serving.faults.clear()
    serving.asked.clear()
