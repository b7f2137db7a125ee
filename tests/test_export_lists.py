"""Lists as files: what is published, in each format, and nothing a spreadsheet would run."""

import csv
import json
import os
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import LAST, small_world, world_in

from jobs.allowed import InvalidSettings
from jobs.export import export
from jobs.nightly import nightly
from jobs.settings import Settings
from storage import warehouse
from storage.catalogue import Catalogue
from storage.errors import NotFound

HOSTILE = ['=HYPERLINK("http://x")', "+1", "-1", "@SUM(A1)", "a\nb, \"c\"; 'd'"]


@pytest.fixture(scope="module")
def night(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    world = small_world()
    titles = pa.array([*HOSTILE, *world.movies["title"].to_pylist()[len(HOSTILE) :]])
    movies = world.movies.set_column(world.movies.column_names.index("title"), "title", titles)
    settings = world_in(
        tmp_path_factory.mktemp("export") / "state", Catalogue(world.ratings, movies, world.users), score__top_n=30
    )
    nightly(settings, LAST)
    return settings


def published(settings: Settings) -> list[dict[str, Any]]:
    with warehouse.reader(settings.database) as connection:
        query = "SELECT user_id, rank, movie_id, title, score FROM current_recommendations ORDER BY user_id, rank"
        return connection.sql(query).to_arrow_table().to_pylist()


def test_parquet_has_the_rows_that_are_published(night: Settings, tmp_path: Path) -> None:
    done = export(night, tmp_path / "lists.parquet")
    found = pq.read_table(tmp_path / "lists.parquet")
    assert found.select(["user_id", "rank", "movie_id", "title", "score"]).to_pylist() == published(night)
    assert (done["rows"], done["as_of_date"]) == (found.num_rows, str(LAST))


def test_json_lines_have_a_user_each(night: Settings, tmp_path: Path) -> None:
    done = export(night, tmp_path / "lists.jsonl")
    lines = [json.loads(line) for line in (tmp_path / "lists.jsonl").read_text().splitlines()]
    rows = [
        (line["user_id"], place["rank"], place["movie_id"], place["title"])
        for line in lines
        for place in line["movies"]
    ]
    assert rows == [(row["user_id"], row["rank"], row["movie_id"], row["title"]) for row in published(night)]
    assert done["lines"] == len(lines) == 41


@pytest.mark.faults("B5.11")
def test_no_cell_of_csv_is_a_formula_and_all_comes_back(night: Settings, tmp_path: Path) -> None:
    export(night, tmp_path / "lists.txt", "csv")
    with (tmp_path / "lists.txt").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert not [cell for row in rows for cell in row.values() if cell[:1] in ("=", "+", "-", "@", "\t", "\r")]
    titles = [row["title"].removeprefix("'") for row in rows]
    assert titles == [row["title"] for row in published(night)]
    assert set(HOSTILE) <= set(titles)


def test_what_cannot_be_exported_is_told_and_leaves_nothing(night: Settings, tmp_path: Path) -> None:
    with pytest.raises(InvalidSettings, match="format"):
        export(night, tmp_path / "lists")
    with pytest.raises(NotFound, match="2020-01-01"):
        export(night, tmp_path / "lists.csv", as_of="2020-01-01")
    assert list(tmp_path.iterdir()) == []


def test_a_file_is_written_through_a_link_and_nothing_else_is_replaced(night: Settings, tmp_path: Path) -> None:
    target, link, pipe = (tmp_path / name for name in ("target.csv", "link.csv", "pipe.csv"))
    link.symlink_to(target)
    os.mkfifo(pipe)
    export(night, link)
    assert link.is_symlink()
    assert target.read_text().count("\n") > 1
    before = night.database.readlink()
    for wrong, why in (
        (pipe, "no plain file"),
        (Path("/dev/null"), "no plain file"),
        (Path("-"), "no plain file"),
        (night.database, "in the state folder"),
        (tmp_path / "no" / "such" / "lists.csv", "does not exist"),
    ):
        with pytest.raises(InvalidSettings, match=why):
            export(night, wrong, "csv")
    assert pipe.is_fifo()
    assert night.database.readlink() == before
    assert not (tmp_path / "no").exists()
