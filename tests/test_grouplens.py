"""GroupLens zips: three layouts, bad ones named down to the row, and the real files where they are at hand."""

import os
import struct
import zipfile
from collections.abc import Callable
from datetime import UTC, date, datetime
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from storage import grouplens
from storage.errors import InvalidInput, NoRatings

Members = dict[str, str | bytes]
GENRES_100K = "unknown|0\nAction|1\nChildren's|2\nComedy|3\n\n"
ML_100K: Members = {
    "u.data": "1\t2\t5\t881250949\n1\t1\t3\t881250950\n2\t1\t4\t881250948\n",
    "u.item": "1|Café de Flore (1995)|01-Jan-1995||http://x|0|1|0|1\n2|unknown||||1|0|0|0\n".encode("latin-1"),
    "u.user": "1|24|M|technician|85711\n2|53|F|other|T8H1N\n3|30|F|writer|00501\n",
    "u.genre": GENRES_100K,
}
ML_1M: Members = {
    "ratings.dat": "1::1193::5::978300760\n1::661::3::978302109\n2::1193::4::978298413\n",
    "movies.dat": '1193::Movie: "A" &amp; b (1975)::Drama|War\n661::Niña: x (2000)::Musical\n'.encode("latin-1"),
    "users.dat": "1::F::1::10::48067\n2::M::56::0::02138-1234\n",
}
ML_CSV: Members = {
    "ratings.csv": "userId,movieId,rating,timestamp\n1,1,4.0,964982703\n1,3,0.5,964981247\n",
    "movies.csv": 'movieId,title,genres\n1,"City, The — Déjà (1995) ",Comedy|IMAX\n3,Moonlight,(no genres listed)\n',
}


@pytest.fixture
def zipped(tmp_path: Path) -> Callable[..., Path]:
    def make(members: Members, folder: str = "ml-test/", **changed: str | bytes | None) -> Path:
        path = tmp_path / "ml.zip"
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
            for name, content in (members | {key.replace("_", "."): value for key, value in changed.items()}).items():
                if content is not None:
                    file.writestr(folder + name, content)
        return path

    return make


Zipped = Callable[..., Path]


def test_the_100k_layout_reads_as_what_its_files_say(zipped: Zipped) -> None:
    read = grouplens.read_zip(zipped(ML_100K))
    assert read.ratings.to_pylist()[0] == {
        "user_id": 1,
        "movie_id": 2,
        "rating": 5.0,
        "rated_at": datetime(1997, 12, 4, 15, 55, 49, tzinfo=UTC),
    }
    assert read.movies is not None
    assert read.movies.to_pylist() == [
        {
            "movie_id": 1,
            "title": "Café de Flore (1995)",
            "genres": ["Action", "Comedy"],
            "year": 1995,
            "release_date": date(1995, 1, 1),
        },
        {"movie_id": 2, "title": "unknown", "genres": ["unknown"], "year": None, "release_date": None},
    ]
    assert read.users is not None
    assert read.users.to_pylist()[1] == {
        "user_id": 2,
        "gender": "F",
        "age": 53,
        "occupation": "other",
        "zip_code": "T8H1N",
        "joined_at": datetime(1997, 12, 4, 15, 55, 48, tzinfo=UTC),
    }


def test_the_1m_layout_reads_as_what_its_files_say(zipped: Zipped) -> None:
    read = grouplens.read_zip(zipped(ML_1M))
    assert read.ratings["movie_id"].to_pylist() == [1193, 661, 1193]
    assert read.movies is not None
    assert read.movies.to_pylist() == [
        {"movie_id": 1193, "title": 'Movie: "A" &amp; b (1975)', "genres": ["Drama", "War"], "year": 1975},
        {"movie_id": 661, "title": "Niña: x (2000)", "genres": ["Musical"], "year": 2000},
    ]
    assert read.users is not None
    assert read.users.select(["gender", "age", "occupation", "zip_code"]).to_pylist() == [
        {"gender": "F", "age": 1, "occupation": "K-12 student", "zip_code": "48067"},
        {"gender": "M", "age": 56, "occupation": "other/not specified", "zip_code": "02138-1234"},
    ]


def test_the_csv_layout_reads_as_what_its_files_say(zipped: Zipped) -> None:
    read = grouplens.read_zip(zipped(ML_CSV))
    assert read.ratings["rating"].to_pylist() == [4.0, 0.5]
    assert read.users is None
    assert read.movies is not None
    assert read.movies.to_pylist() == [
        {"movie_id": 1, "title": "City, The — Déjà (1995) ", "genres": ["Comedy", "IMAX"], "year": 1995},
        {"movie_id": 3, "title": "Moonlight", "genres": [], "year": None},
    ]


@pytest.mark.parametrize("members", [ML_100K, ML_1M, ML_CSV], ids=["100k", "1m", "csv"])
def test_every_layout_has_the_same_types(zipped: Zipped, members: Members) -> None:
    read = grouplens.read_zip(zipped(members))
    at = pa.timestamp("us", tz="UTC")
    assert read.ratings.schema.types == [pa.int64(), pa.int64(), pa.float32(), at]
    assert read.movies is not None
    assert read.movies.schema.types[:4] == [pa.int64(), pa.string(), pa.list_(pa.string()), pa.int16()]
    if read.users is not None:
        assert read.users.schema.types == [pa.int64(), pa.string(), pa.int16(), pa.string(), pa.string(), at]


def test_a_user_joins_with_their_first_rating_and_never_without_one(zipped: Zipped) -> None:
    users = grouplens.read_zip(zipped(ML_100K)).users
    assert users is not None
    joined = [at and int(at.timestamp()) for at in users["joined_at"].to_pylist()]
    assert joined == [881250949, 881250948, None]


@pytest.mark.parametrize("folder", ["", "ml-1m/", "my downloads/ml/"])
def test_the_name_of_the_folder_in_the_zip_does_not_matter(zipped: Zipped, folder: str) -> None:
    assert grouplens.read_zip(zipped(ML_1M, folder)).ratings.num_rows == 3


@pytest.mark.parametrize(
    ("members", "changed", "member", "column", "row"),
    [
        (ML_100K, {"u_data": "1\t2\t5\t881250949\n1\t1\tgood\t881250950\n"}, "u.data", "rating", 2),
        (ML_100K, {"u_data": "1\t2\t5\t881250949\n1\t1\tnan\t881250950\n"}, "u.data", "rating", 2),
        (ML_100K, {"u_data": "\t2\t5\t881250949\n"}, "u.data", "user_id", 1),
        (ML_100K, {"u_item": "1|A (1995)|31-Feb-1995||x|0|1|0|1\n"}, "u.item", "release_date", 1),
        (ML_100K, {"u_item": "1|A (1995)|||x|0|1|0|1\n2|B|||x|0|2|0|1\n"}, "u.item", "genres", 2),
        (ML_100K, {"u_user": "1|24|M|writer|1\n1|25|M|writer|1\n"}, "u.user", "user_id", 2),
        (ML_1M, {"ratings_dat": "1::1::5::978300760\n1::2::5\n"}, "ratings.dat", None, 2),
        (ML_1M, {"ratings_dat": "1::1::5::978300760000\n"}, "ratings.dat", "rated_at", 1),
        (ML_1M, {"users_dat": "1::F::1::10::48067\n2::M::1::21::x\n"}, "users.dat", "code", 2),
        (
            ML_CSV,
            {"ratings_csv": "userId,movieId,rating,timestamp\n1,1,4.0,9\n1,1.5,4.0,9\n"},
            "ratings.csv",
            "movieId",
            3,
        ),
        (ML_CSV, {"ratings_csv": "userId,movieId,rating,timestamp\n1,1,inf,9\n"}, "ratings.csv", "rating", 2),
        (ML_CSV, {"ratings_csv": "userId,movieId,stars,timestamp\n1,1,4.0,9\n"}, "ratings.csv", None, 1),
        (ML_CSV, {"ratings_csv": 'userId,movieId,rat"ing,timestamp\n1,1,4.0,9\n'}, "ratings.csv", None, 1),
    ],
)
def test_a_bad_line_is_refused_by_member_column_and_row(
    zipped: Zipped, members: Members, changed: dict[str, str], member: str, column: str | None, row: int
) -> None:
    path = zipped(members, **changed)
    with pytest.raises(InvalidInput, match=f"row {row}") as caught:
        grouplens.read_zip(path)
    assert caught.value.where == {
        "path": str(path),
        "member": f"ml-test/{member}",
        "row": row,
        **({"column": column} if column else {}),
    }
    assert str(path) in str(caught.value)
    assert caught.value.hint


def test_the_row_is_right_far_into_a_large_member(zipped: Zipped) -> None:
    lines = [f"{number}::1::5::978300760" for number in range(200_000)]
    lines[150_000] = "x::1::5::978300760"
    with pytest.raises(InvalidInput, match=r"ratings\.dat, column user_id, row 150001"):
        grouplens.read_zip(zipped(ML_1M, ratings_dat="\n".join(lines)))


@pytest.mark.parametrize(
    ("members", "gone"),
    [(ML_100K, "u_item"), (ML_100K, "u_genre"), (ML_100K, "u_user"), (ML_1M, "users_dat"), (ML_CSV, "movies_csv")],
)
def test_a_missing_member_is_named(zipped: Zipped, members: Members, gone: str) -> None:
    with pytest.raises(InvalidInput, match=gone.replace("_", r"\.")):
        grouplens.read_zip(zipped(members, **{gone: None}))


def test_a_zip_of_something_else_and_a_zip_of_two_data_sets_are_refused(zipped: Zipped) -> None:
    with pytest.raises(InvalidInput, match="not a MovieLens zip"):
        grouplens.read_zip(zipped({"holiday.jpg": "x"}))
    with pytest.raises(InvalidInput, match="more than one data set"):
        grouplens.read_zip(zipped(ML_1M | ML_CSV))


def test_no_ratings_is_its_own_error(zipped: Zipped) -> None:
    with pytest.raises(NoRatings, match="no ratings"):
        grouplens.read_zip(zipped(ML_CSV, ratings_csv="userId,movieId,rating,timestamp\n"))


def test_a_file_that_is_no_zip_or_is_not_there_is_refused(tmp_path: Path) -> None:
    (tmp_path / "ml.zip").write_text("<html>not found</html>")
    with pytest.raises(InvalidInput, match="not a whole zip"):
        grouplens.read_zip(tmp_path / "ml.zip")
    with pytest.raises(InvalidInput, match="no such file"):
        grouplens.read_zip(tmp_path / "other.zip")


@given(keep=st.floats(0, 0.999))
def test_a_truncated_zip_is_refused_wherever_it_ends(tmp_path_factory: pytest.TempPathFactory, keep: float) -> None:
    path = tmp_path_factory.mktemp("cut") / "ml.zip"
    with zipfile.ZipFile(path, "w") as file:
        for name, content in ML_1M.items():
            file.writestr(name, content)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(keep * len(whole))])
    with pytest.raises(InvalidInput, match="not a whole zip"):
        grouplens.read_zip(path)


def test_one_changed_byte_in_a_member_is_noticed(zipped: Zipped) -> None:
    path = zipped({})
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as file:
        for name, content in ML_1M.items():
            file.writestr(name, content)
    path.write_bytes(path.read_bytes().replace(b"1193::5", b"1193::4"))
    with pytest.raises(InvalidInput, match="CRC"):
        grouplens.read_zip(path)


@pytest.mark.faults("B5.10")
def test_a_zip_bomb_is_refused_before_it_is_read(zipped: Zipped) -> None:
    with pytest.raises(InvalidInput, match="200 times"):
        grouplens.read_zip(zipped(ML_1M, ratings_dat="1::1::5::978300760\n" * 100_000))


@pytest.mark.faults("B5.10")
def test_a_zip_that_claims_to_unpack_to_too_much_is_refused(zipped: Zipped) -> None:
    path = zipped(ML_1M)
    content = bytearray(path.read_bytes())
    at = -1
    while (at := content.find(b"PK\x01\x02", at + 1)) >= 0:
        content[at + 24 : at + 28] = struct.pack("<I", 0xFFFFFFF0)  # nearly 4 GiB each, three members
    path.write_bytes(content)
    with pytest.raises(InvalidInput, match="the limit is"):
        grouplens.read_zip(path)


@pytest.mark.faults("B5.10")
@pytest.mark.parametrize("folder", ["../", "/", "a/../../../"])
def test_members_that_would_climb_out_are_read_where_they_are(zipped: Zipped, tmp_path: Path, folder: str) -> None:
    path = zipped(ML_1M, folder=folder)
    link = zipfile.ZipInfo(f"{folder}planted")
    link.external_attr = 0o120777 << 16
    with zipfile.ZipFile(path, "a") as file:
        file.writestr(link, "/etc/passwd")
    before = sorted(tmp_path.parent.rglob("*"))
    assert grouplens.read_zip(path).ratings.num_rows == 3
    with zipfile.ZipFile(path, "a") as file:
        file.writestr(f"{folder}elsewhere/ratings.dat", "")
    with pytest.raises(InvalidInput, match="more than one data set"):
        grouplens.read_zip(path)
    assert sorted(tmp_path.parent.rglob("*")) == before


@pytest.mark.faults("B5.11")
def test_control_characters_of_the_input_do_not_reach_the_message(zipped: Zipped) -> None:
    with pytest.raises(InvalidInput) as caught:
        grouplens.read_zip(zipped(ML_CSV, ratings_csv="userId,movieId,rating,timestamp\n\x1b[31m1,1,4,9\n"))
    assert str(caught.value).isprintable()


@given(st.lists(st.text(st.characters(exclude_characters="|", exclude_categories=["Cs"]), min_size=1)))
def test_genres_come_back_from_their_text(names: list[str]) -> None:
    (read,) = grouplens.split_genres(pa.chunked_array([["|".join(names)]])).to_pylist()
    assert read == [name for name in names if name != grouplens.NO_GENRES]


@pytest.mark.parametrize(
    ("title", "year"),
    [
        ("A (1995)", 1995),
        ("A (1995) ", 1995),
        ("(500) Days of Summer (2009)", 2009),
        ("A (2006-2007)", None),
        ("Babylon 5", None),
        ("A (1995) Extended", None),
        ("2001", None),
        (None, None),
    ],
)
def test_the_year_is_what_stands_at_the_end_in_parentheses(title: str | None, year: int | None) -> None:
    assert grouplens.title_year(pa.chunked_array([pa.array([title], pa.string())])).to_pylist() == [year]


def _real(name: str) -> Path:
    folder = os.environ.get("RECJOB_TEST_DATA")
    if folder is None:
        pytest.skip("RECJOB_TEST_DATA names no folder with the GroupLens zips")
    return Path(folder) / name


@pytest.mark.parametrize(
    ("name", "ratings", "users", "movies", "titles"),
    [
        ("ml-100k.zip", 100_000, 943, 1_682, 1_664),
        ("ml-1m.zip", 1_000_209, 6_040, 3_883, 3_883),
        ("ml-latest-small.zip", 100_836, 610, 9_742, 9_737),
    ],
)
def test_the_real_zip_holds_what_its_readme_says(name: str, ratings: int, users: int, movies: int, titles: int) -> None:
    read = grouplens.read_zip(_real(name))
    assert read.ratings.num_rows == ratings
    assert len(read.ratings["user_id"].unique()) == users
    assert read.movies is not None
    assert (read.movies.num_rows, len(read.movies["title"].unique())) == (movies, titles)
    assert read.users is None or (read.users.num_rows, read.users["joined_at"].null_count) == (users, 0)
