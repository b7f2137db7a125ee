"""Ids of every kind go through a whole night, from the source to the published table, byte for byte; or they are refused.

And where they are refused, nothing says them.
"""

import dataclasses
import random
import traceback
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import LAST, small_world, world_in
from test_fuzz import mutated

from jobs import ingest, query
from jobs.nightly import Options, nightly
from jobs.settings import Settings
from storage import ratings
from storage.errors import InvalidInput, StorageError

START = datetime(2026, 3, 1, tzinfo=UTC)
TEXTS = [
    *("", " ", "7", "007", "+7", "7.0", "-1", "nan", "NaN", "null", "NULL", "None", "true", "inf", "1e3"),
    *(
        "a\0",
        "a",
        "\0",
        "a\n",
        "a\t",
        "\\",
        "'",
        '"',
        "'; DROP TABLE runs; --",
        'u"; DROP TABLE runs;--',
        "%s",
        "{0}",
        "$user_id",
    ),
    *(
        "é",
        "e\u0301",
        "🎬",
        "👩‍👩‍👧",
        "שלום",
        "\u202e\u05d0",
        "ﬁ",
        "fi",
        "K",
        "\u212a",
        "\u0131",
        "i",
        "I",
        "\ufeffa",
        "\uffff",
        "a" * 4096,
    ),
    *("9223372036854775807", "9223372036854775808", "-9223372036854775808"),
]
NUMBERS = [-(2**63), -(2**63) + 1, -(2**53) - 1, -(2**53), -1, 0, 1, 7, 2**31, 2**53, 2**53 + 1, 2**63 - 2, 2**63 - 1]


def table(ids: list[Any], kind: pa.DataType) -> pa.Table:
    """Every id is of a user and of a movie; each user has rated a third of the movies."""
    pairs = [(user, movie) for user in range(len(ids)) for movie in range(len(ids)) if (user + movie) % 3 == 0]
    columns = [pa.array([ids[pair[place]] for pair in pairs], kind) for place in (0, 1)]
    stars = pa.array([float(1 + (user * movie) % 5) for user, movie in pairs], pa.float32())
    at = pa.array([START + timedelta(seconds=second) for second in range(len(pairs))], pa.timestamp("us", "UTC"))
    return pa.table([*columns, stars, at], names=["user_id", "movie_id", "rating", "rated_at"])


def through(settings: Settings, ids: list[Any]) -> None:
    """A night leads to every id once, and to what each had in the source."""
    assert nightly(settings, LAST)["status"] == "published"
    with duckdb.connect(str(settings.database), read_only=True) as connection:
        users = connection.execute("SELECT user_id, n_ratings FROM user_status").fetchall()
        movies = connection.execute("SELECT movie_id, n_ratings FROM movies").fetchall()
        listed = connection.execute("SELECT user_id, movie_id FROM current_recommendations").fetchall()
    number = {identity: place for place, identity in enumerate(ids)}
    expected = {
        identity: sum((place + other) % 3 == 0 for other in range(len(ids))) for identity, place in number.items()
    }
    assert len(users) == len(movies) == len(ids)
    assert dict(users) == dict(movies) == expected
    assert {user for user, _ in listed} == set(ids)
    assert all((number[user] + number[movie]) % 3 for user, movie in listed)  # unseen, as the source has it
    for identity in ids:
        shown = query.recommend(settings, str(identity), 5)
        assert [row["movie_id"] for row in shown["recommendations"]] == [m for u, m in listed if u == identity]


@pytest.mark.slow
@pytest.mark.parametrize(("ids", "kind"), [(TEXTS, pa.string()), (NUMBERS, pa.int64())])
@pytest.mark.faults("B2.12")
def test_ids_come_through_a_night_byte_for_byte(tmp_path: Path, ids: list[Any], kind: pa.DataType) -> None:
    pq.write_table(table(ids, kind), tmp_path / "ratings.parquet")
    through(
        world_in(tmp_path / "state", input__ratings=str(tmp_path / "ratings.parquet"), input__settle_seconds=0.0), ids
    )


@pytest.mark.slow
@pytest.mark.faults("B2.12")
def test_ids_of_csv_come_through_the_lake_and_a_night(tmp_path: Path) -> None:
    ids = [text for text in TEXTS if text and "\0" not in text and "\n" not in text]  # "" is null in CSV
    rows = table(ids, pa.string()).to_pylist()
    quoted = ['"' + row[name].replace('"', '""') + '"' for row in rows for name in ("user_id", "movie_id")]
    pairs = zip(quoted[::2], quoted[1::2], rows, strict=True)
    lines = [f"{user},{movie},{row['rating']},{row['rated_at'].isoformat()}" for user, movie, row in pairs]
    path = tmp_path / "ratings.csv"
    path.write_text("\n".join(["user_id,movie_id,rating,rated_at", *lines]), encoding="utf-8", newline="\n")
    settings = world_in(tmp_path / "state")
    for part in settings.lake.rglob("*.parquet"):  # another world's ids are whole numbers
        part.unlink()
    ingest.ingest(settings, str(path), {})
    through(settings, ids)


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (b"\xff\xfe", "UTF8"),
        (b"\xed\xa0\x80", "UTF8"),
        (b"a" * 1_000_000, "an id of 1,000,000 bytes in row 2"),
    ],
)
@pytest.mark.parametrize("column", ["user_id", "movie_id"])
@pytest.mark.faults("B2.12")
def test_an_id_that_cannot_be_kept_whole_is_refused(tmp_path: Path, value: bytes, said: str, column: str) -> None:
    good = table(TEXTS, pa.string())
    values = [good[column][0].as_py().encode(), value, *[text.as_py().encode() for text in good[column][2:]]]
    bad = good.set_column(
        good.column_names.index(column), column, pa.array(values, pa.binary()).cast(pa.string(), safe=False)
    )
    pq.write_table(bad, tmp_path / "a.parquet")
    with pytest.raises(InvalidInput, match=f"column '{column}' is .*{said}"):
        ratings.read(str(tmp_path / "a.parquet"), {}, before=None)
    (tmp_path / "a.csv").write_bytes(b"user_id,movie_id,rating,rated_at\nb,c,4,2026-03-01\n%s,c,4,2026-03-01\n" % value)
    with pytest.raises(InvalidInput, match=r"a\.csv"):
        ratings.read(str(tmp_path / "a.csv"), {}, before=None)


PERSON = "zz-person-4711"
HEADER = "user_id,movie_id,rating,rated_at"
LINES = [HEADER, f"{PERSON},1,3,2026-03-02", "other,2,4,2026-03-03"]
SPOILED: dict[str, bytes] = {
    "a value too many": "\n".join([*LINES, f"{PERSON},1,3,2026-03-02,what else"]).encode(),
    "values shifted": "\n".join([*LINES, f"1,3,{PERSON},2026-03-02"]).encode(),
    "a time shifted": "\n".join([*LINES, f"1,3,4,{PERSON}"]).encode(),
    "a missing rating": "\n".join([*LINES, f"{PERSON},3,,2026-03-02"]).encode(),
    "no header": "\n".join(LINES[1:]).encode(),
    "a column twice": "\n".join([f"{HEADER},user_id", f"{LINES[1]},{PERSON}"]).encode(),
    "an endless id": "\n".join([*LINES, f"{PERSON * 400},3,4,2026-03-02"]).encode(),
    "no text": "\n".join([*LINES, f"{PERSON},3,4,2026-03-02"]).encode() + b"\xff\xfe,1,1,1",
    "a quote without end": "\n".join([*LINES, f'"{PERSON},3,4,2026-03-02']).encode(),
}


@pytest.mark.faults("B5.7")
def test_a_night_that_fails_says_nobodys_id_in_its_error_log_journal_or_traceback(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    own, users, chance, said = tmp_path / "own.csv", tmp_path / "users.csv", random.Random(1), []
    settings = world_in(
        tmp_path / "state",
        small_world(text_ids=True),
        input__ratings=str(own),
        input__settle_seconds=0,
        publish__keep_reports=30,
    )
    twice = dataclasses.replace(settings.input, users=str(users))
    users.write_text(f"user_id\n{PERSON}\nother\n{PERSON}\n")
    good = "\n".join([HEADER, *LINES[1:] * 20]).encode()
    cases = [(settings, spoiled) for spoiled in SPOILED.values()]
    cases += [(dataclasses.replace(settings, input=twice), good)]
    cases += [(settings, mutated(good, chance)) for _ in range(100)]
    for spoiled, content in cases:
        own.write_bytes(content)
        try:
            nightly(spoiled, LAST, Options(until="check"))
        except StorageError as error:
            said.append("".join(traceback.format_exception(error)))
    assert len(said) > 20
    written = [path.read_text() for folder in (settings.journal, settings.pages) for path in folder.glob("*")]
    assert PERSON[:9] not in "\n".join([*said, *written, caplog.text])
