"""Rules from a configuration and files to published lists, and what is said of them."""

import csv
import re
from collections.abc import Sequence
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import LAST, Recjob, document, real_data, small_world, world_in

from jobs import configuration, doctor, ingest, rules
from jobs.explain import explain
from jobs.forget import forget
from jobs.inputs import read
from jobs.nightly import nightly
from jobs.run import watermark
from jobs.settings import Settings
from storage import grouplens
from storage.catalogue import Catalogue
from storage.errors import InvalidInput, QueryRefused

RELEASED = {3: date(2026, 3, 11), 4: LAST, 31: date(2026, 3, 8), 32: date(2026, 2, 1), 33: date(2026, 3, 11)}
"""Movies 31 to 33 have no rating."""


def with_releases() -> Catalogue:
    """The small world with release dates and three movies that nobody has rated."""
    found = small_world()
    movies = [
        *found.movies.to_pylist(),
        *({"movie_id": m, "title": f"Late {m}", "genres": ["War"]} for m in (31, 32, 33)),
    ]
    rows = [movie | {"release_date": RELEASED.get(movie["movie_id"], date(1990, 1, 1))} for movie in movies]
    return Catalogue(found.ratings, pa.Table.from_pylist(rows), found.users)


def listing(path: Path, columns: str, *rows: Sequence[Any]) -> Path:
    """A file of a rule."""
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([columns.split(), *rows])
    return path


def ask(settings: Settings, statement: str) -> list[tuple[Any, ...]]:
    with duckdb.connect(str(settings.database), read_only=True) as connection:
        return connection.execute(statement).fetchall()


@pytest.fixture(scope="module")
def night(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """A night with every rule; lists of 6."""
    folder = tmp_path_factory.mktemp("rules")
    (folder / "rules.sql").write_text(
        "SELECT movie_id FROM movies WHERE release_date <= as_of_date() + 7 AND title <> 'Movie 6 (1916)'"
    )
    files = {
        "block": listing(folder / "block.csv", "movie_id", [5], [777]),
        "allow": listing(folder / "allow.csv", "movie_id", *([movie] for movie in range(1, 34) if movie != 7)),
        "exclude": listing(
            folder / "exclude.csv", "user_id movie_id", *([1, movie] for movie in range(10, 15)), [4711, 1]
        ),
        "opt_out": listing(folder / "out.csv", "user_id", [2], [4711]),
        "pinned": listing(folder / "pinned.csv", "movie_id", [9], [4712], [32], [5]),
        "candidates_sql": folder / "rules.sql",
    }
    changes = {f"rules__{name}": str(path) for name, path in files.items()} | {
        "rules__new_days": 14,
        "rules__genre_places": 4,
    }
    settings = world_in(
        folder / "state", with_releases(), rules__released=True, rules__new_every=3, rules__genre_cap=1, rules__damping=0.2,
        rules__fill=True, score__top_n=6, candidates__min_ratings=12, input__settle_seconds=0, **changes,
    )  # fmt: skip
    assert nightly(settings, LAST)["status"] == "published"
    return settings


def test_no_movie_that_a_rule_keeps_out_is_listed(night: Settings) -> None:
    listed = {movie for (movie,) in ask(night, "SELECT DISTINCT movie_id FROM recommendations")}
    assert not listed & {3, 5, 6, 7, 33}
    assert not {movie for (movie,) in ask(night, "SELECT movie_id FROM recommendations WHERE user_id = 1")} & set(
        range(10, 15)
    )


def test_each_row_says_what_put_it_there(night: Settings) -> None:
    pinned = ask(
        night, "SELECT rank, movie_id FROM recommendations WHERE source = 'pinned' AND user_id = 999 ORDER BY rank"
    )
    assert pinned == [(1, 9), (2, 32)]
    new = ask(night, "SELECT DISTINCT rank, movie_id FROM recommendations WHERE source = 'new_movie' ORDER BY ALL")
    assert {movie for _, movie in new} <= {4, 31}
    assert {rank for rank, movie in new if movie == 31} <= {3, 6}
    assert ask(night, "SELECT count(*) FROM recommendations WHERE reason = 'genre_cap'")[0][0] > 0
    assert ask(night, "SELECT count(*) FROM recommendations WHERE user_id = 2")[0][0] == 0
    assert ask(night, "SELECT n_recommendations, short_reason FROM user_status WHERE user_id = 2") == [(0, "opted_out")]


def test_the_files_of_rules_are_lineage_and_what_they_come_to_is_a_check(night: Settings) -> None:
    names = {
        Path(path).name: (rows, used) for path, rows, used in ask(night, "SELECT path, rows, rows_used FROM run_inputs")
    }
    assert names["block.csv"] == (2, 2)
    assert names["rules.sql"] == (33, 32)
    said = {
        name: (verdict, message)
        for name, verdict, message in ask(night, "SELECT check_name, verdict, message FROM checks")
    }
    assert said["rules.block"] == ("warn", "rules.block keeps 1 of 33 movies out; 1 of its 2 movies are not known")
    assert said["rules.released"] == ("pass", "rules.released keeps 2 of 33 movies out")
    assert said["rules.allow"][0] == "pass"
    assert said["rules.pinned"] == (
        "warn",
        "rules.pinned names 4 rows; 1 of its 4 movies are not known; 1 are kept out by other rules or not available",
    )
    assert said["rules.genre_cap"][0] in ("pass", "warn")


def test_a_changed_rule_replaces_the_date_without_a_training(night: Settings, tmp_path: Path) -> None:
    assert nightly(night, LAST)["status"] == "unchanged"
    out = str(listing(tmp_path / "out.csv", "user_id", [3]))
    record = nightly(replace(night, rules=replace(night.rules, opt_out=out)), LAST)
    assert record["status"] == "published"
    assert [row[0] for row in ask(night, "SELECT user_id FROM user_status WHERE short_reason = 'opted_out'")] == [3]
    assert ask(night, "SELECT count(*) FROM models")[0][0] == 1
    nightly(night, LAST)


def test_explain_names_the_rule_and_agrees_with_the_list(night: Settings) -> None:
    assert explain(night, "1", "5")["movies"][0]["rule"] == "rules.block"
    assert explain(night, "1", "7")["movies"][0]["rule"] == "rules.allow"
    assert explain(night, "1", "6")["movies"][0]["rule"] == "rules.candidates_sql"
    assert explain(night, "1", "33")["movies"][0]["rule"] in ("rules.released", "rules.candidates_sql")
    assert {movie["rule"] for movie in explain(night, "2")["movies"]} == {"rules.opt_out"}
    kept = [explain(night, "1", str(movie))["movies"][0] for movie in range(10, 15)]
    assert {(movie["why"], movie.get("rule")) for movie in kept} <= {
        ("rated", None),
        ("rule", "rules.exclude"),
        ("no_candidate", None),
    }
    assert "rules.exclude" in {movie.get("rule") for movie in kept}
    for user in (1, 17):
        query = f"SELECT movie_id, source, reason, round(score, 3) FROM recommendations WHERE user_id = {user} ORDER BY rank"
        told = [movie for movie in explain(night, str(user))["movies"] if movie["why"] == "listed"]
        assert [(m["movie_id"], m["source"], m["reason"]) for m in told] == [row[:3] for row in ask(night, query)]
        assert [m["score"] for m in told] == pytest.approx([row[3] for row in ask(night, query)], abs=2e-3)


def applied(settings: Settings, **own: Any) -> Any:
    """The night with other rules, read only."""
    ruled = replace(settings, rules=replace(type(settings.rules)(), **own))
    return rules.applied(read(ruled, watermark(LAST, "UTC")), ruled, LAST)


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("block", "movie\n1\n", "'movie_id' is missing"),
        ("block", "movie_id\n1\nx\n", "string there and int64 in the ratings"),
        ("exclude", "user_id,movie_id\n1,\n", "movie_id is null in row 1"),
        ("opt_out", "user_id\n007\n", "string there"),
    ],
)
def test_a_file_that_cannot_be_used_is_named_with_the_column(
    settings: Settings, tmp_path: Path, name: str, text: str, said: str
) -> None:
    file = tmp_path / "listed.csv"
    file.write_text(text)
    settings = replace(settings, input=replace(settings.input, settle_seconds=0))
    with pytest.raises(InvalidInput, match=said) as caught:
        applied(settings, **{name: str(file)})
    assert "listed.csv" in str(caught.value)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("SELECT title FROM movies", "expected movie_id alone"),
        ("SELECT movie_id FROM films", "films"),
        ("SELECT movie_id FROM movies; SELECT 1", "only one SELECT"),
        ("DELETE FROM movies", "only one SELECT"),
        ("SELECT movie_id FROM read_csv('/etc/passwd')", "disabled"),
        ("SELECT 'x' AS movie_id", "Could not convert 'x'"),
        ("", "only one SELECT"),
    ],
)
def test_sql_that_is_not_one_select_of_movies_is_refused_with_the_file(
    settings: Settings, tmp_path: Path, text: str, said: str
) -> None:
    (tmp_path / "rules.sql").write_text(text)
    settings = replace(settings, input=replace(settings.input, settle_seconds=0))
    with pytest.raises(QueryRefused, match=said) as caught:
        applied(settings, candidates_sql=str(tmp_path / "rules.sql"))
    assert "rules.sql" in str(caught.value)
    assert "docs/rules.md" in caught.value.hint


def test_a_missing_file_of_a_rule_is_bad_input(recjob: Recjob, tmp_path: Path) -> None:
    done = recjob("--json", "nightly", "--date", str(LAST), RECJOB_RULES_BLOCK="nowhere.csv")
    assert done.returncode == 3
    assert "nowhere.csv cannot be read" in document(done)["error"]["message"]


def test_paths_of_rules_count_from_the_configuration(tmp_path: Path) -> None:
    (tmp_path / "recjob.toml").write_text('[rules]\nblock = "lists/block.csv"\n')
    assert configuration.load(tmp_path / "recjob.toml", {}).rules.block == str(tmp_path / "lists" / "block.csv")


def test_the_example_in_the_documents_is_a_night(tmp_path: Path) -> None:
    text = (Path(__file__).parents[1] / "docs" / "rules.md").read_text()
    toml, sql = (text.split(f"```{kind}\n")[1].split("```")[0] for kind in ("toml", "sql"))
    (tmp_path / "recjob.toml").write_text(toml + '[input]\nsettle_seconds = 0\nmovies = "movies.parquet"\n')
    (tmp_path / "rules.sql").write_text(sql)
    (tmp_path / "rules").mkdir()
    listing(tmp_path / "rules" / "block.csv", "movie_id", [1])
    listing(tmp_path / "rules" / "opt_out.csv", "user_id", [2])
    listing(tmp_path / "rules" / "pinned.csv", "movie_id", [4])
    pq.write_table(pa.table({"user_id": [1], "movie_id": [2]}), tmp_path / "rules" / "exclude.parquet")
    made = world_in(tmp_path / "state", with_releases())
    pq.write_table(with_releases().movies, tmp_path / "movies.parquet")
    settings = configuration.load(tmp_path / "recjob.toml", {})
    found = rules.applied(
        read(replace(settings, state_dir=made.state_dir), watermark(LAST, "UTC")), settings, LAST
    ).rules
    assert found.closed["block"].to_pylist() == [1]
    assert found.closed["released"].to_pylist() == [3, 33]
    assert found.closed["candidates_sql"].to_pylist() == []
    assert found.new.to_pylist() == [4, 31]
    assert set(re.findall(r"`rules\.(\w+)`", text)) - {*vars(settings.rules)} == {"sql"}


def test_who_is_forgotten_and_still_in_a_rule_is_told(tmp_path: Path, settings: Settings) -> None:
    files = {
        "exclude": listing(tmp_path / "exclude.csv", "user_id movie_id", [1, 2], [1, 3]),
        "opt_out": listing(tmp_path / "out.csv", "user_id", [2]),
    }
    ruled = replace(settings, rules=replace(settings.rules, **{name: str(path) for name, path in files.items()}))
    assert forget(ruled, ["1"])["still_contain"] == [{"path": str(files["exclude"]), "rows": 2}]
    assert {found.state for found in doctor._input(ruled)} == {"good"}
    files["opt_out"].unlink()
    assert {found.state for found in doctor._input(ruled)} == {"bad"}


def test_text_ids_are_listed_as_they_are_written(tmp_path: Path) -> None:
    settings = world_in(tmp_path / "state", small_world(text_ids=True), input__settle_seconds=0)
    file = str(listing(tmp_path / "block.csv", "movie_id", ["id-1"], ["1"]))
    found = applied(settings, block=file)
    assert found.rules.closed["block"].to_pylist() == ["id-1"]


@pytest.mark.slow
def test_a_real_night_with_every_rule_holds_them_all(tmp_path: Path) -> None:
    made = grouplens.read_zip(real_data("ml-latest-small.zip"))
    (tmp_path / "rules.sql").write_text("SELECT movie_id FROM movies WHERE NOT list_contains(genres, 'Horror')")
    rated = (
        made.ratings.slice(0, 400)
        .select(["user_id"])
        .append_column("movie_id", made.ratings["movie_id"].slice(400, 400))
    )
    pq.write_table(rated, tmp_path / "exclude.parquet")
    flags = {
        "state_dir": tmp_path / "state", "model.name": "basic", "model.epochs": 2, "score.top_n": 30, "input.settle_seconds": 0.0,
        "rules.candidates_sql": str(tmp_path / "rules.sql"), "rules.exclude": str(tmp_path / "exclude.parquet"),
        "rules.block": str(listing(tmp_path / "block.csv", "movie_id", [318], [296])),
        "rules.opt_out": str(listing(tmp_path / "out.csv", "user_id", [3], [4])),
        "rules.pinned": str(listing(tmp_path / "pinned.csv", "movie_id", [1203], [593])),
        "rules.released": True, "rules.new_every": 10, "rules.new_days": 60.0, "rules.genre_cap": 3, "rules.damping": 0.05, "rules.fill": True,
    }  # fmt: skip
    settings = configuration.load(None, {}, flags)
    ingest.append(settings, "ml-latest-small", made, 0.0)
    record = nightly(settings, date(2018, 9, 23))
    assert record["status"] == "published"
    assert not ask(
        settings,
        "SELECT * FROM recommendations JOIN movies USING (movie_id) WHERE list_contains(genres, 'Horror') OR movie_id IN (318, 296)",
    )
    assert ask(
        settings, "SELECT n_recommendations, short_reason, count(*) FROM user_status GROUP BY ALL ORDER BY ALL"
    ) == [(0, "opted_out", 2), (30, None, 608)]
    capped = """SELECT user_id FROM (SELECT user_id, unnest(genres) AS genre FROM current_recommendations WHERE rank <= 10)
                GROUP BY user_id, genre HAVING count(*) > 3"""
    assert not ask(settings, capped)
    assert dict(
        ask(settings, "SELECT rank, count(*) FROM recommendations WHERE source = 'new_movie' GROUP BY rank")
    ) == dict.fromkeys((10, 20, 30), 608)
    with duckdb.connect(str(settings.database), read_only=True) as connection:
        connection.register("kept", rated)
        assert connection.execute(
            "SELECT count(*) FROM recommendations SEMI JOIN kept USING (user_id, movie_id)"
        ).fetchone() == (0,)
