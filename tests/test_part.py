"""Parts of the users: every user is in one of them, and a night of a part is a night of its users."""

import dataclasses
import subprocess
import sys
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.csv as pc_csv
import pyarrow.parquet as pq
import pytest
from conftest import LAST, document, environment, small_world
from hypothesis import given
from hypothesis import strategies as st

from jobs import configuration, exits, publish
from jobs.allowed import InvalidSettings
from jobs.nightly import nightly
from jobs.settings import Settings
from storage import ratings
from storage.errors import NoRatings
from storage.part import Part, number_of
from storage.ratings import Limits

ROWS = ["user_id", "movie_id", "rating", "rated_at"]


def test_the_part_of_an_id_never_changes() -> None:
    ids = ["1", "2", "-7", "9223372036854775807", "", "007", "u-000123", "Zoë", "a\x00b", "x" * 300]
    assert number_of(pa.array(ids), 16).tolist() == [11, 16, 8, 9, 1, 14, 5, 8, 1, 13]


@given(st.lists(st.integers(-(2**63), 2**63 - 1), min_size=1), st.integers(1, 1000), st.integers(0, 3))
def test_whole_numbers_are_where_they_are_as_text(ids: list[int], of: int, cut: int) -> None:
    numbers = number_of(pa.array(ids, pa.int64())[cut:], of)
    assert number_of(pa.array(list(map(str, ids)))[cut:], of).tolist() == numbers.tolist()
    assert ((numbers >= 1) & (numbers <= of)).all()


@given(st.lists(st.text(max_size=20), min_size=1), st.integers(2, 7))
def test_an_id_is_where_it_is_by_itself(ids: list[str], of: int) -> None:
    assert number_of(pa.array(ids), of).tolist() == [Part(1, of).of_user(one).number for one in ids]


@pytest.mark.parametrize("kind", ["{}", "u-{:08}", "{:x}"])
def test_parts_are_alike_in_size(kind: str) -> None:
    ids = pa.array([kind.format(number) for number in range(100_000)])
    counts = np.bincount(number_of(ids, 16), minlength=17)[1:]
    assert abs(counts / counts.mean() - 1).max() < 0.05


@pytest.mark.parametrize("text_ids", [False, True])
def test_the_parts_of_the_ratings_are_the_ratings(tmp_path: Path, text_ids: bool) -> None:
    world = small_world(text_ids=text_ids).ratings
    pq.write_table(world[:300], tmp_path / "a.parquet")
    pc_csv.write_csv(
        world[300:].set_column(3, "rated_at", world[300:]["rated_at"].cast(pa.timestamp("s", "UTC"))),
        tmp_path / "b.csv",
    )
    whole = ratings.read(str(tmp_path), {}, before=None)
    found = [ratings.read(str(tmp_path), {}, before=None, limits=Limits(part=Part(number, 3))) for number in (1, 2, 3)]
    assert pa.concat_tables([one.table for one in found]).sort_by(
        [(name, "ascending") for name in ROWS]
    ) == whole.table.sort_by([(name, "ascending") for name in ROWS])
    users = [set(one.table["user_id"].to_pylist()) for one in found]
    assert sum(map(len, users)) == len(set.union(*users))
    for number, file in enumerate(whole.files):
        assert sum(one.files[number]["rows_used"] for one in found) == file["rows_used"]
        assert {one.files[number]["rows_future"] for one in found} == {file["rows_future"]}
    with pytest.raises(NoRatings, match="no ratings of part 999/1000 of the users"):
        ratings.read(str(tmp_path), {}, before=None, limits=Limits(part=Part(999, 1000)))


def test_a_part_holds_no_ids_of_others() -> None:
    texts = pa.array(["a", "b", "c", "b", "d", "a"]).dictionary_encode()
    table = pa.table({"rating": range(6), "user_id": pa.chunked_array([texts[:4], texts[4:]])})
    for number in (1, 2):
        found = Part(number, 2).within(table)
        plain = found["user_id"].to_pylist()
        assert plain == [one for one in texts.to_pylist() if Part(1, 2).of_user(one).number == number]
        assert set(found["user_id"].combine_chunks().dictionary.to_pylist()) == set(plain)
        assert [texts.to_pylist()[row] for row in found["rating"].to_pylist()] == plain


def part_of(settings: Settings, text: str) -> Settings:
    """The same input, and a state folder for a part of the users."""
    input = dataclasses.replace(settings.input, part=text, ratings=str(settings.lake / "ratings"))
    beside = {name: str(settings.lake / f"{name}.parquet") for name in ("movies", "users")}
    folder = settings.state_dir.parent / text.replace("/", " of ")
    return dataclasses.replace(settings, state_dir=folder, input=dataclasses.replace(input, **beside))


def test_nights_of_all_parts_list_for_everybody_once(settings: Settings) -> None:
    nightly(settings, LAST)
    parts = [part_of(settings, f"{number}/3") for number in (1, 2, 3)]
    with duckdb.connect() as connection:
        for number, one in enumerate(parts):
            nightly(one, LAST)
            connection.execute(f"ATTACH '{one.database}' AS part_{number} (READ_ONLY)")
        connection.execute(f"ATTACH '{settings.database}' AS whole (READ_ONLY)")
        union = " UNION ALL ".join(f"FROM part_{number}.user_status" for number in range(3))
        listed = " UNION ALL ".join(
            f"FROM part_{number}.current_recommendations" for number in range(3)
        )  # their runs differ
        connection.execute(f"CREATE VIEW recommendations AS {listed}")
        rows = connection.execute("SELECT run_id, count(*) FROM recommendations GROUP BY 1 ORDER BY 1").fetchall()
        assert [run_id for run_id, _ in rows] == [publish.visible(one)[str(LAST)]["run_id"] for one in parts]
        assert [count for _, count in rows] == [
            publish.newest_before(one, LAST).record["rows"]["recommendations"]
            for one in parts  # type: ignore[union-attr]
        ]
        asked = "SELECT user_id, n_ratings, segment, n_recommendations FROM ({}) ORDER BY user_id"
        found = connection.execute(asked.format(union)).fetchall()
        assert found == connection.execute(asked.format("FROM whole.user_status")).fetchall()
        assert len(found) == 41


def test_who_is_in_another_part_is_said_to_be(settings: Settings, tmp_path: Path) -> None:
    one = part_of(settings, "1/2")
    nightly(one, LAST)
    other = next(user for user in map(str, range(1, 41)) if Part(1, 2).of_user(user).number == 2)
    env = environment(one) | {"RECJOB_INPUT_PART": "1/2"}
    command = [sys.executable, "-m", "jobs.cli", "recommend", "--user", other, "--json"]
    done = subprocess.run(command, env=env, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == exits.NOT_FOUND
    assert "such an id is in part 2/2, and this is 1/2" in document(done)["error"]["hint"]


@pytest.mark.parametrize("text", ["3", "0/3", "4/3", "1/0", "1/03", "a/b", "1/2/3"])
def test_a_part_that_cannot_be_is_refused(text: str) -> None:
    with pytest.raises(InvalidSettings, match="expected K/N"):
        configuration.load(None, {}, {"input.part": text})
