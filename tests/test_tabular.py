"""Anybody's files: what CSV leaves open is decided without loss, and what cannot be read is named down to the row."""

import gzip
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyarrow import parquet

from storage import grouplens, ratings, sources, tabular
from storage.errors import InvalidInput, NoRatings

HEADER = "user_id,movie_id,rating,rated_at\n"
NEW_YEAR = datetime(2026, 1, 1, tzinfo=UTC)


def written(folder: Path, text: str, name: str = "ratings.csv") -> Path:
    path = folder / name
    path.write_bytes(gzip.compress(text.encode()) if name.endswith(".gz") else text.encode())
    return path


def times(path: Path) -> list[datetime]:
    read: list[datetime] = ratings.read(str(path), {}, before=None).table["rated_at"].to_pylist()
    return read


@pytest.mark.parametrize(
    "text",
    [
        *("2026-01-01", "2026-01-01 00:00", "2026-01-01T00:00:00", "2026-01-01T00:00:00.000", "2026-01-01T00:00:00Z"),
        *("2026-01-01T02:00:00+02:00", "2025-12-31T19:00:00-0500", "2026-01-01T00:00:00.000000000Z"),
        *("1767225600", "1767225600000", "1767225600000000", "1767225600000000000"),
    ],
)
def test_a_time_in_csv_may_be_iso_8601_or_a_number(tmp_path: Path, text: str) -> None:
    assert times(written(tmp_path, f"{HEADER}1,1,4,{text}\n")) == [NEW_YEAR]


def test_times_with_and_without_a_zone_may_stand_in_one_column(tmp_path: Path) -> None:
    rows = "1,1,4,2026-01-01\n1,2,4,2026-01-01T02:00:00+02:00\n1,3,4,2026-01-01 00:00:00\n"
    assert times(written(tmp_path, HEADER + rows)) == [NEW_YEAR] * 3


def test_iso_text_in_parquet_is_a_time_too(tmp_path: Path) -> None:
    table = pa.table({"user_id": [1], "movie_id": [1], "rating": [4.0], "rated_at": ["2026-01-01T01:00:00+01:00"]})
    parquet.write_table(table, tmp_path / "ratings.parquet")
    assert times(tmp_path / "ratings.parquet") == [NEW_YEAR]


@pytest.mark.faults("B2.18")
def test_seconds_and_milliseconds_in_one_column_are_refused(tmp_path: Path) -> None:
    path = written(tmp_path, f"{HEADER}1,1,4,1767225600\n1,2,4,1767225600000\n")
    with pytest.raises(InvalidInput, match="times in s and in ms"):
        ratings.read(str(path), {}, before=None)


@given(st.lists(st.integers(10**8, 4 * 10**9), min_size=1, max_size=5, unique=True), st.sampled_from([1, 10**3, 10**6]))
@settings(max_examples=40)
def test_numbers_become_the_instant_they_stand_for(seconds: list[int], per_second: int) -> None:
    column = pa.chunked_array([[second * per_second for second in seconds]])
    table, problems = tabular.typed(pa.table({"rated_at": column}), {"rated_at": "time"}, [], Path("x"))
    assert not problems
    assert [at.timestamp() for at in table["rated_at"].to_pylist()] == seconds


@given(st.lists(st.integers(-(10**17), 10**17), min_size=1, max_size=6))
@settings(deadline=None)
def test_a_column_of_printed_numbers_becomes_those_numbers(
    tmp_path_factory: pytest.TempPathFactory, ids: list[int]
) -> None:
    rows = "".join(f"{number},{place},4,1767225600\n" for place, number in enumerate(ids))
    path = written(tmp_path_factory.mktemp("ids"), HEADER + rows)
    read = ratings.read(str(path), {}, before=None).table["user_id"]
    assert read.type == pa.int64()
    assert sorted(read.to_pylist()) == sorted(ids)


@pytest.mark.parametrize("text", ["007", "+7", "-0", " 7", "7.0", "1e3", "NA", "null", "12345678901234567890"])
def test_one_id_that_is_no_printed_number_keeps_the_whole_column_as_text(tmp_path: Path, text: str) -> None:
    path = written(tmp_path, f"{HEADER}{text},1,4,1767225600\n8,2,4,1767225601\n")
    assert ratings.read(str(path), {}, before=None).table["user_id"].to_pylist() == [text, "8"]


def test_zip_codes_and_occupation_codes_keep_their_zeros(tmp_path: Path) -> None:
    path = written(tmp_path, "user_id,zip_code,occupation,age\n1,00501,01,30\n2,90210,10,\n")
    users = ratings.read_users(path, {}, before=None)
    assert users.to_pylist() == [
        {"user_id": 1, "age": 30, "occupation": "01", "zip_code": "00501"},
        {"user_id": 2, "age": None, "occupation": "10", "zip_code": "90210"},
    ]


def test_movies_csv_reads_as_it_does_inside_a_grouplens_zip(tmp_path: Path) -> None:
    path = written(tmp_path, f"movieId,title,genres\n1,007 (1990),Comedy|Drama\n2,NA,{grouplens.NO_GENRES}\n")
    movies = ratings.read_movies(path, {"movie_id": "movieId"})
    assert movies.to_pylist() == [
        {"movie_id": 1, "title": "007 (1990)", "genres": ["Comedy", "Drama"]},
        {"movie_id": 2, "title": "NA", "genres": []},
    ]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ("1,1,4,1767225600\n1,2,four,1767225600\n", "column 'rating' is text like 'xxxx' in row 2"),
        ("1,1,4,2026-01-01\n1,2,4,yesterday\n", "column 'rated_at' is text like 'xxxxxxxxx' in row 2"),
        ("1,1,4,2026-01-01Z\n", "column 'rated_at' is text like '9999-99-99x' in row 1"),
        ("1,1,4,1767225600\n1,2,,1767225600\n", "rating is null in 1 rows, the first is row 2"),
        ("1,1,4,1767225600\n,2,4,1767225600\n", "user_id is null in 1 rows, the first is row 2"),
    ],
)
def test_the_first_value_in_the_way_is_named(tmp_path: Path, rows: str, message: str) -> None:
    path = written(tmp_path, HEADER + rows)
    with pytest.raises(InvalidInput) as caught:
        ratings.read(str(path), {}, before=None)
    assert str(caught.value).startswith(f"{path}: {message}")


def test_a_line_with_too_few_columns_is_named(tmp_path: Path) -> None:
    lines = ["1,1,4,1767225600"] * 5 + ["1,2,4"]
    with pytest.raises(InvalidInput, match="Expected 4 columns, got 3") as caught:
        ratings.read(str(written(tmp_path, HEADER + "\n".join(lines))), {}, before=None)
    assert caught.value.where["row"] == 6


def test_a_column_that_stands_twice_is_refused(tmp_path: Path) -> None:
    path = written(tmp_path, "user_id,user_id,movie_id,rating,rated_at\n1,2,1,4,1767225600\n")
    with pytest.raises(InvalidInput, match="more than one column 'user_id'"):
        ratings.read(str(path), {}, before=None)


def test_a_header_alone_is_no_ratings(tmp_path: Path) -> None:
    with pytest.raises(NoRatings, match="no ratings"):
        ratings.read(str(written(tmp_path, HEADER)), {}, before=None)


@pytest.mark.parametrize("name", ["a.csv", "a.csv.gz", "a.tsv", "a.tsv.gz", "a[1].csv", "_named.csv"])
def test_a_file_that_is_named_is_read_whatever_its_name(tmp_path: Path, name: str) -> None:
    text = HEADER + "1,1,4,1767225600\n"
    path = written(tmp_path, text.replace(",", "\t") if ".tsv" in name else text, name)
    assert times(path) == [NEW_YEAR]


@pytest.mark.faults("B2.17")
def test_a_glob_leaves_out_hidden_and_underscored_files(tmp_path: Path) -> None:
    for name in ("a.csv", "b.csv", "_c.csv", ".d.csv"):
        written(tmp_path, HEADER, name)
    assert tabular.files_of(f"{tmp_path}/*.csv") == [tmp_path / "a.csv", tmp_path / "b.csv"]


@pytest.mark.parametrize("source", ["missing.csv", "missing.zip", "missing", "movielens/2m", "missing/*.parquet"])
def test_a_source_that_is_not_there_is_refused_with_a_hint(tmp_path: Path, source: str) -> None:
    named = source if source.startswith("movielens/") else str(tmp_path / source)
    with pytest.raises(InvalidInput) as caught:
        sources.read(named, {}, tmp_path / "downloads")
    assert caught.value.hint
