"""MovieLens through TensorFlow Datasets: the same tables as from the zip, quietly, and no waiting without a network."""

import io
import os
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from storage import grouplens, tfds
from storage.catalogue import Catalogue
from storage.errors import DiskFailed, InvalidInput

ROOT = Path(__file__).resolve().parents[1]
NAMES_100K = "unknown Action Adventure Animation Children's Comedy Crime Documentary Drama Fantasy Film-Noir Horror"
GENRES_100K = [*NAMES_100K.split(), "Musical", "Mystery", "Romance", "Sci-Fi", "Thriller", "War", "Western"]
MOVIES = 30


def flags(*names: str) -> str:
    return "|".join("01"[name in names] for name in GENRES_100K)


def ratings(delimiter: str, step: float = 1) -> str:
    """Eight users who rate eight movies each, 0 to 4 steps and a star."""
    pairs = [(user, movie) for user in range(1, 9) for movie in range(1, 9)]
    rows = [(user, movie, (user + movie) % 5 * step + 1, 10**9 + user * movie) for user, movie in pairs]
    return "".join(delimiter.join(map(str, row)) + "\n" for row in rows)


WORLDS: dict[str, dict[str, str]] = {
    "100k": {
        "u.data": ratings("\t"),
        "u.item": "".join(f"{m}|Café {m} (1995)|01-Jan-1995||x|{flags('Action', 'War')}\n" for m in range(2, MOVIES))
        + f"1|unknown||||{flags('unknown')}\n{MOVIES}|Kids & Co (1990)|||x|{flags(GENRES_100K[4])}\n",
        "u.user": "".join(f"{user}|{user + 20}|{'MF'[user % 2]}|writer|0{user}501\n" for user in range(1, 9)),
        "u.genre": "".join(f"{name}|{number}\n" for number, name in enumerate(GENRES_100K)),
    },
    "1m": {
        "ratings.dat": ratings("::"),
        "movies.dat": "".join(f"{m}::Niña: {m} (1999)::Animation|Children's\n" for m in range(1, MOVIES)),
        "users.dat": "".join(f"{user}::{'MF'[user % 2]}::25::{user}::9410{user}-1\n" for user in range(1, 9)),
    },
    "latest-small": {
        "ratings.csv": "userId,movieId,rating,timestamp\n" + ratings(",", 0.5),
        "movies.csv": 'movieId,title,genres\n1,"City, Thé (1995) ",IMAX|Action\n'
        + "".join(f"{movie},Film {movie},(no genres listed)\n" for movie in range(2, MOVIES)),
    },
}
"""What TFDS carries of a data set, in a small one: every user rates, and no release date is asked for."""


@pytest.fixture
def folder_with_zip(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], Path]:
    """A folder for TFDS with a small zip in it that TFDS takes for the original."""

    def make(version: str, place: str = ".") -> Path:
        import tensorflow_datasets
        from tensorflow_datasets.core.download import checksums

        path = tmp_path / place / f"ml-{version}.zip"
        path.parent.mkdir(parents=True, exist_ok=True)
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
            for name, content in WORLDS[version].items():
                file.writestr(f"ml-{version}/{name}", content.encode("utf-8" if name.endswith(".csv") else "latin-1"))
        builder = tensorflow_datasets.builder(f"movielens/{version}-ratings", data_dir=tmp_path)
        url = builder.builder_config.download_url
        monkeypatch.setitem(type(builder).url_infos, url, checksums.compute_url_info(path))
        return tmp_path

    return make


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tfds, "_answers", lambda: False)


def assert_equal(read: Catalogue, whole: Catalogue) -> None:
    order = [(name, "ascending") for name in ("rated_at", "user_id", "movie_id")]
    assert read.ratings.equals(whole.ratings.sort_by(order))
    assert read.movies is not None
    assert whole.movies is not None
    assert read.movies.equals(whole.movies.select(["movie_id", "title", "genres", "year"]).sort_by("movie_id"))
    assert (read.users is None) == (whole.users is None)
    if read.users is not None and whole.users is not None:
        assert read.users.equals(whole.users.sort_by("user_id"))


@pytest.mark.slow
@pytest.mark.usefixtures("no_network")
@pytest.mark.parametrize("version", WORLDS)
def test_tfds_and_the_zip_give_equal_tables(folder_with_zip: Callable[..., Path], version: str) -> None:
    folder = folder_with_zip(version)
    whole = grouplens.read_zip(folder / f"ml-{version}.zip")
    assert_equal(tfds.read_movielens(f"movielens/{version}", folder), whole)


@pytest.mark.slow
@pytest.mark.usefixtures("no_network")
@pytest.mark.parametrize("place", ["manual", "downloads", "downloads/manual"])
def test_a_zip_left_in_a_folder_of_downloads_saves_the_download(
    folder_with_zip: Callable[..., Path], place: str
) -> None:
    assert tfds.read_movielens("movielens/latest-small", folder_with_zip("latest-small", place)).ratings.num_rows == 64


@pytest.mark.slow
@pytest.mark.usefixtures("no_network")
def test_what_was_prepared_once_is_read_again_without_the_zip(folder_with_zip: Callable[..., Path]) -> None:
    folder = folder_with_zip("latest-small")
    first = tfds.read_movielens("movielens/latest-small", folder)
    (folder / "ml-latest-small.zip").unlink()
    assert_equal(tfds.read_movielens("movielens/latest-small", folder), first)


@pytest.mark.slow
@pytest.mark.usefixtures("no_network")
def test_nothing_reaches_stdout_or_a_stderr_that_is_no_terminal(
    folder_with_zip: Callable[..., Path], capfd: pytest.CaptureFixture[str]
) -> None:
    tfds.read_movielens("movielens/latest-small", folder_with_zip("latest-small"))
    assert capfd.readouterr() == ("", "")


@pytest.mark.slow
def test_the_first_import_of_tensorflow_is_quiet_too(folder_with_zip: Callable[..., Path]) -> None:
    folder = folder_with_zip("latest-small")
    tfds.read_movielens("movielens/latest-small", folder)
    code = (
        "from pathlib import Path; from storage import tfds; tfds.read_movielens('movielens/latest-small', Path('.'))"
    )
    environment = {key: value for key, value in os.environ.items() if not key.startswith("TF_")}
    environment["PYTHONPATH"] = str(ROOT)
    done = subprocess.run([sys.executable, "-c", code], cwd=folder, env=environment, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.slow
def test_a_zip_that_is_not_the_original_is_refused_with_the_command_that_reads_it(tmp_path: Path) -> None:
    (tmp_path / "ml-100k.zip").write_bytes(b"not the original")
    with pytest.raises(InvalidInput, match="checksum differs") as caught:
        tfds.read_movielens("movielens/100k", tmp_path)
    assert f"recjob ingest {tmp_path / 'ml-100k.zip'}" in caught.value.hint


def test_without_a_network_the_hint_names_the_zip_to_download(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise OSError("Name or service not known")

    monkeypatch.setattr("urllib.request.urlopen", refuse)
    with pytest.raises(DiskFailed, match="does not answer") as caught:
        tfds.read_movielens("movielens/1m", tmp_path)
    assert "https://grouplens.org/datasets/movielens/" in caught.value.hint
    assert "recjob ingest ml-1m.zip" in caught.value.hint


def test_a_network_that_never_answers_is_given_up_in_seconds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("urllib.request.urlopen", lambda *_, **__: time.sleep(60) or io.BytesIO())
    monkeypatch.setattr(tfds, "NETWORK_WAIT", 0.2)
    began = time.monotonic()
    with pytest.raises(DiskFailed):
        tfds.read_movielens("movielens/1m", tmp_path)
    assert time.monotonic() - began < 10


@pytest.mark.parametrize("name", ["movielens/2m", "movielens/", "movielens/100k-movies", "iris"])
def test_an_unknown_name_is_answered_with_the_known_ones(tmp_path: Path, name: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        tfds.read_movielens(name, tmp_path)
    assert all(f"movielens/{known}" in caught.value.hint for known in ("100k", "1m", "latest-small", "20m", "25m"))
