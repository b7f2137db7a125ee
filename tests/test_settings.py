"""Where settings come from, and what is refused."""

from datetime import UTC, date, datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import world_in

from jobs import configuration, inputs
from jobs.allowed import InvalidSettings
from jobs.init import TEMPLATE


def toml(folder: Path, text: str) -> Path:
    file = folder / "recjob.toml"
    file.write_text(text)
    return file


@pytest.mark.faults("B6.9")
def test_a_flag_beats_the_environment_beats_the_file_beats_the_default(tmp_path: Path) -> None:
    file = toml(tmp_path, "[score]\ntop_n = 20\n[candidates]\nmin_ratings = 7\n[publish]\nkeep_files = 9\n")
    environ = {"RECJOB_SCORE_TOP_N": "30", "RECJOB_CANDIDATES_MIN_RATINGS": "8"}
    found = configuration.load(file, environ, {"score.top_n": 40})
    assert (found.score.top_n, found.candidates.min_ratings, found.publish.keep_files, found.publish.keep_models) == (
        40,
        8,
        9,
        7,
    )
    assert found.origin["candidates.min_ratings"] == "environment RECJOB_CANDIDATES_MIN_RATINGS"


def test_every_column_of_movies_and_users_may_have_another_name(tmp_path: Path) -> None:
    release, joined = date(1999, 3, 31), datetime(2026, 3, 1, tzinfo=UTC)
    movies = {"movie_id": [1], "title": ["A"], "genres": [["War"]], "year": [1999], "release_date": [release]}
    users = {"user_id": [1], "age": [30], "gender": ["F"], "occupation": ["poet"], "joined_at": [joined]}
    tables = {"movies": movies | {"available": [False]}, "users": users}
    ratings = {"user_id": [1], "movie_id": [1], "rating": [4.0], "rated_at": [joined]}
    pq.write_table(pa.table(ratings), tmp_path / "ratings.parquet")
    text = "[input]\nsettle_seconds = 0\nratings = 'ratings.parquet'\nmovies = 'movies.parquet'\nusers = 'users.parquet'\n[input.columns]\n"
    for name, columns in tables.items():
        others = {ours: ours if ours.endswith("_id") else f"their {ours}" for ours in columns}
        pq.write_table(pa.table(columns).rename_columns(list(others.values())), tmp_path / f"{name}.parquet")
        text += "".join(f"{ours} = '{theirs}'\n" for ours, theirs in others.items())
    night = inputs.read(configuration.load(toml(tmp_path, text), {}), None)
    for name, found in (("movies", night.movies), ("users", night.users)):
        assert found is not None
        assert found.to_pylist() == pa.table(tables[name]).to_pylist()


def test_the_lake_has_our_names_whatever_those_of_the_files_are_that_it_collected(tmp_path: Path) -> None:
    settings = world_in(tmp_path / "state", input__columns__title="genres", input__columns__release_date="year")
    movies = inputs.read(settings, None).movies
    assert movies is not None
    assert movies["title"][0].as_py() == "Movie 1 (1911)"


@pytest.mark.faults("B5.12")
def test_an_unknown_key_names_the_nearest_one(tmp_path: Path) -> None:
    with pytest.raises(InvalidSettings, match="unknown key 'score.topn'") as caught:
        configuration.load(toml(tmp_path, "[score]\ntopn = 20\n"), {})
    assert "score.top_n" in caught.value.hint


@pytest.mark.parametrize(
    "text",
    [
        "[score]\ntop_n = 'many'",
        "[score]\ntop_n = 2.5",
        "[score]\ntop_n = true",
        "[score]\ntop_n = 1001",
        "[score]\ninclude_seen = 'perhaps'",
        "[model]\nname = 'gpt'",
        "[model]\noptimizer = 'sgd'",
        "[model]\nhidden_units = ['a']",
        "[model]\nlearning_rate = -1",
        "timezone = 'Mars/Olympus'",
        "[schedule]\ncatch_up = 'sometimes'",
        "score = 3",
        "[[broken",
    ],
)
@pytest.mark.faults("B5.12")
def test_a_value_that_cannot_be_used_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(InvalidSettings):
        configuration.load(toml(tmp_path, text), {})


def test_paths_in_a_file_count_from_the_file(tmp_path: Path) -> None:
    found = configuration.load(toml(tmp_path, "state_dir = 'here'\n[input]\nratings = 'data/*.parquet'"), {})
    assert found.state_dir == tmp_path / "here"
    assert found.input.ratings == str(tmp_path / "data/*.parquet")


def test_a_hyper_parameter_changes_the_recipe_and_nothing_else() -> None:
    tuned = configuration.load(None, {"RECJOB_MODEL_NAME": "tuned", "RECJOB_MODEL_HIDDEN_UNITS": "16,8"})
    assert tuned.recipe.train.epochs == 50
    assert tuned.recipe.model.l2 == 0.01
    assert tuned.recipe.model.hidden_units == (16, 8)


def test_the_template_says_the_defaults(tmp_path: Path) -> None:
    assert configuration.flat(configuration.load(toml(tmp_path, TEMPLATE), {})) | {
        "state_dir": 0
    } == configuration.flat(configuration.load(None, {})) | {"state_dir": 0}


@pytest.mark.parametrize("weights", ["0,0,0", "1,-1,0", "1,2", "1,0,nan", "1,0,inf"])
def test_a_blend_is_three_weights_that_are_not_all_0(weights: str) -> None:
    with pytest.raises(InvalidSettings, match="blend"):
        configuration.load(None, {"RECJOB_MODEL_BLEND": weights})
    assert configuration.load(None, {"RECJOB_MODEL_BLEND": "1,0.5,0"}).recipe.model.blend == (1.0, 0.5, 0.0)


@pytest.mark.faults("B6.9")
def test_an_unknown_variable_is_a_warning_that_names_the_nearest(caplog: pytest.LogCaptureFixture) -> None:
    known = {"RECJOB_CONFIG": "x", "RECJOB_RUN_ID": "x", "RECJOB_SCORE_TOP_N": "7", "PATH": "x"}
    assert configuration.load(None, known).score.top_n == 7
    assert not caplog.records
    assert configuration.load(None, {"RECJOB_SCORE_TOPN": "sesame", "RECJOB_XYZZY": "sesame"}).score.top_n == 50
    told = {record.variable: record.nearest for record in caplog.records}  # type: ignore[attr-defined]
    assert told["RECJOB_SCORE_TOPN"] == "RECJOB_SCORE_TOP_N"
    assert "RECJOB_XYZZY" in told
    assert "sesame" not in caplog.text
