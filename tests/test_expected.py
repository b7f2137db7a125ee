"""Whether the ratings of a run are what was to be expected: as many, as new, not changed unseen, and as they were known."""

import dataclasses
import os
import subprocess
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from conftest import LAST, document, small_world, world_in

from jobs import exits, ingest, late, run
from jobs.allowed import InvalidSettings
from jobs.nightly import Options, nightly
from jobs.settings import Settings
from storage.catalogue import Catalogue
from storage.errors import InvalidInput, NotFound, UnlikelyInput

Recjob = Callable[..., subprocess.CompletedProcess[str]]
TRAIN, CHECK = Options(until="train"), Options(until="check")
NIGHT = datetime(2026, 3, 11, 3, tzinfo=UTC)
"""When the night of `LAST` begins."""


@pytest.fixture
def own(tmp_path: Path) -> Settings:
    """Settings of a world whose ratings are a file of one's own."""
    pq.write_table(small_world().ratings, tmp_path / "ratings.parquet")
    return world_in(tmp_path / "state", input__ratings=str(tmp_path / "ratings.parquet"), input__settle_seconds=0.0)


def verdicts(settings: Settings) -> dict[str, Any]:
    """What the newest run said of its input, from the journal."""
    newest = run.records(settings.journal, settings.lock)[-1]
    return {check["check_name"]: check["verdict"] for check in newest["checks"] if check["stage"] == "input"}


def changed(settings: Settings, **values: Any) -> Settings:
    return dataclasses.replace(settings, input=dataclasses.replace(settings.input, **values))


@pytest.mark.slow
@pytest.mark.faults("B2.10")
def test_a_tenth_of_the_ratings_of_the_run_before_is_refused_with_both_numbers(own: Settings) -> None:
    nightly(own, LAST - timedelta(days=1))
    live = own.database.resolve()
    had = run.records(own.journal, own.lock)[-1]["n_ratings"]
    few = small_world().ratings.slice(0, 60)
    pq.write_table(few, own.input.ratings)
    with pytest.raises(UnlikelyInput, match=f"60 ratings; the last run, for 2026-03-09, had {had}") as refused:
        nightly(own, LAST)
    assert exits.code(refused.value) == exits.INPUT
    assert "--accept-input" in refused.value.hint
    assert own.database.resolve() == live
    assert verdicts(own)["ratings_vs_last_run"] == "fail"
    nightly(own, LAST, Options(accept_input=True))
    with duckdb.connect(str(own.database), read_only=True) as connection:
        query = (
            "SELECT run_id, verdict, baseline, value FROM checks WHERE check_name = 'ratings_vs_last_run' ORDER BY 1"
        )
        shown = [row[1:] for row in connection.execute(query).fetchall()]
        written = connection.execute("SELECT count(*), count(modified_at) FROM run_inputs").fetchall()
    assert written == [(3, 3)]
    assert shown == [("skipped", None, had), ("fail", had, 60.0), ("overridden", had, 60.0)]
    assert nightly(own, LAST + timedelta(days=1), TRAIN)["status"] == "trained"  # sixty are what was the last time


@pytest.mark.faults("B2.10")
def test_a_run_for_an_earlier_date_is_not_held_against_one_for_a_later(own: Settings) -> None:
    nightly(own, LAST, TRAIN)
    nightly(own, LAST - timedelta(days=8), CHECK)
    assert verdicts(own)["ratings_vs_last_run"] == "skipped"
    own_share = changed(own, min_share=0.0)
    pq.write_table(small_world().ratings.slice(0, 20), own.input.ratings)
    nightly(own_share, LAST, CHECK)
    assert verdicts(own)["ratings_vs_last_run"] == "pass"


@pytest.mark.faults("B2.10")
def test_old_ratings_are_refused_only_where_a_limit_says_so(own: Settings) -> None:
    for days in (10, 3000, 9000):
        at = pc.subtract(small_world().ratings["rated_at"], pa.scalar(timedelta(days=days), pa.duration("us")))
        pq.write_table(small_world().ratings.set_column(3, "rated_at", at), own.input.ratings)
        assert nightly(own, LAST, CHECK)["status"] == "checked"
        strict = changed(own, max_age_days=9.5)
        with pytest.raises(UnlikelyInput, match=f"is {days:,}\\.[0-9] days older .*9.5 days are the most"):
            nightly(strict, LAST, CHECK)
        assert nightly(strict, LAST, dataclasses.replace(CHECK, accept_input=True))["status"] == "checked"
        assert verdicts(own)["newest_rating_age_days"] == "overridden"


@pytest.mark.faults("B2.10")
def test_the_command_refuses_and_accepts(recjob: Recjob, tmp_path: Path) -> None:
    refused = recjob("check", "--date", str(LAST), "--json", RECJOB_INPUT_MAX_AGE_DAYS="0")
    assert refused.returncode == exits.INPUT
    assert document(refused)["error"]["kind"] == "E_INPUT_UNLIKELY"
    accepted = recjob("check", "--date", str(LAST), "--accept-input", RECJOB_INPUT_MAX_AGE_DAYS="0")
    assert accepted.returncode == 0
    assert ["newest_rating_age_days", "overridden"] in [line.split()[:2] for line in accepted.stdout.splitlines()]


@pytest.mark.faults("B2.3")
def test_a_file_whose_bytes_changed_without_being_written_is_refused(own: Settings) -> None:
    path = Path(own.input.ratings)
    pq.write_table(small_world().ratings, path, compression="none")  # as from a writer without checksums
    nightly(own, LAST, TRAIN)
    before, content = path.stat(), bytearray(path.read_bytes())
    where = content.index(pa.array([4.0], pa.float32()).buffers()[1].to_pybytes())
    content[where + 2] ^= 32
    path.write_bytes(content)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    with pytest.raises(UnlikelyInput, match=r"ratings\.parquet has other bytes than before, although nothing wrote"):
        nightly(own, LAST, CHECK)
    os.utime(path)  # somebody wrote it: a new delivery
    assert nightly(own, LAST, CHECK)["status"] == "checked"


def known(path: Path, table: pa.Table, ingested: list[datetime]) -> None:
    column = pa.array(ingested, pa.timestamp("us", "UTC"))
    pq.write_table(table.append_column("arrived", column), path)


@pytest.mark.faults("B2.7")
def test_a_night_as_it_was_known_then_is_the_night_that_was_made_then(own: Settings) -> None:
    clocked = changed(own, columns=dataclasses.replace(own.input.columns, ingested_at="arrived"))
    ratings = small_world().ratings
    path, prompt = Path(own.input.ratings), [at + timedelta(minutes=5) for at in ratings["rated_at"].to_pylist()]
    split = ratings.num_rows // 2
    known(path, ratings, prompt)
    first = nightly(clocked, LAST)
    tardy = small_world(seed=2).ratings.slice(split, 40)
    known(path, pa.concat_tables([ratings, tardy]), [*prompt, *[NIGHT + timedelta(hours=5)] * 40])
    with_late = nightly(clocked, LAST, CHECK)
    assert sum(file["rows_used"] for file in with_late["inputs"]) == ratings.num_rows + 40
    then = nightly(clocked, LAST, Options(known_at=NIGHT))
    assert (then["status"], then["input_digest"]) == ("unchanged", first["input_digest"])
    assert sum(file["rows_future"] for file in then["inputs"]) == 40
    forced = nightly(clocked, LAST, Options(known_at=NIGHT, force="is it the same?"))
    assert forced["output_digest"] == first["output_digest"]
    assert [(day["late"], day["now"] - day["then"]) for day in late.late(clocked)["dates"]] == [(40, 40)]


@pytest.mark.faults("B2.7")
def test_nothing_at_or_after_the_second_clock_matters_and_no_arrival_is_no_rating(own: Settings) -> None:
    clocked = changed(own, columns=dataclasses.replace(own.input.columns, ingested_at="arrived"), max_rejected=0.5)
    table = small_world().ratings.slice(0, 3)
    known(Path(own.input.ratings), table, [NIGHT, NIGHT - timedelta(microseconds=1), None])  # type: ignore[list-item]
    record = nightly(clocked, LAST, dataclasses.replace(CHECK, known_at=NIGHT))
    (file,) = record["inputs"]
    assert (file["rows_used"], file["rows_future"], file["rows_rejected"]) == (1, 1, 1)
    assert record["rejected"][0]["reason"] == "ingested_at is null"
    known(Path(own.input.ratings), table, [datetime(1970, 1, 21, tzinfo=UTC)] * 3)
    with pytest.raises(InvalidInput, match="column 'ingested_at' is before 1980 in 3 of 3 rows"):
        nightly(clocked, LAST, dataclasses.replace(CHECK, known_at=NIGHT))
    with pytest.raises(InvalidSettings, match="ingested_at"):
        nightly(own, LAST, dataclasses.replace(CHECK, known_at=NIGHT))


@pytest.mark.slow
@pytest.mark.faults("B2.7")
def test_late_counts_what_came_for_each_published_date(settings: Settings, recjob: Recjob) -> None:
    with pytest.raises(NotFound):
        late.late(settings)
    for days in (1, 0):
        nightly(settings, LAST - timedelta(days=days))
    assert [day["late"] for day in late.late(settings)["dates"]] == [0, 0]
    days = [datetime(2026, 3, day, 12, tzinfo=UTC) for day in (9, 10, 10, 11)]
    columns = {"user_id": [1, 1, 2, 1], "movie_id": [2, 3, 3, 4], "rating": pa.array([5.0] * 4, pa.float32())}
    table = pa.table({**columns, "rated_at": pa.array(days, pa.timestamp("us", "UTC"))})
    ingest.append(settings, "late ones", Catalogue(table), 0.0)
    told = document(recjob("late", "--json"))
    assert [(day["as_of_date"], day["late"]) for day in told["dates"]] == [("2026-03-09", 1), ("2026-03-10", 3)]
    assert recjob("late").stdout.splitlines()[0].split() == ["as", "of", "run", "then", "now", "late"]


@pytest.mark.faults("B2.7")
def test_rows_of_the_files_of_rules_are_no_ratings_that_came_or_went(own: Settings, tmp_path: Path) -> None:
    for name, columns in {"block": "movie_id", "opt_out": "user_id", "exclude": "user_id,movie_id"}.items():
        (tmp_path / f"{name}.csv").write_text(
            f"{columns}\n{columns.replace('user_id', '7').replace('movie_id', '3')}\n"
        )
    files = {name: str(tmp_path / f"{name}.csv") for name in ("block", "opt_out", "exclude")}
    ruled = dataclasses.replace(own, rules=dataclasses.replace(own.rules, **files))
    used = sum(file["rows_used"] for file in nightly(ruled, LAST)["inputs"])
    (day,) = late.late(ruled)["dates"]
    assert (day["then"], day["late"]) == (used - 3, 0)
