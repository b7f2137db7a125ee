"""After `recjob forget` nothing of a person is left, in no file of the state folder, and nothing comes back."""

import dataclasses
import json
import re
import shutil
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import straced
from conftest import LAST, brought_back, copied, document, environment, small_world, world_in

from jobs import backfill, explain, forget, ingest, query, run
from jobs import publish as publishing
from jobs.nightly import Options, nightly
from jobs.settings import Settings
from storage import atomic, forgotten, models, warehouse
from storage.catalogue import Catalogue
from storage.errors import Busy, CorruptState, InvalidInput, NoRatings, NotFound

PERSON, NUMBER = "zz-person-4711", 7_000_000_004_711


def world(numbers: bool = False, seed: int = 1) -> Catalogue:
    """The small world, its user 7 under the name of the person."""
    made = small_world(text_ids=not numbers, seed=seed)
    own, named = (7, NUMBER) if numbers else ("id-7", PERSON)
    assert made.users is not None

    def renamed(table: pa.Table) -> pa.Table:
        ids = pa.array([named if one == own else one for one in table["user_id"].to_pylist()], table["user_id"].type)
        return table.set_column(table.column_names.index("user_id"), "user_id", ids)

    return Catalogue(renamed(made.ratings), made.movies, renamed(made.users))


def nights(state: Path, numbers: bool = False, **changes: Any) -> Settings:
    """A state folder with the person in everything: two nights, a failed one that quotes them, a cut-off training."""
    settings = world_in(state, world(numbers), **changes)
    nightly(settings, LAST - timedelta(days=1))
    bad = state.parent / "bad.csv"
    bad.write_text(f"user_id,movie_id,rating,rated_at\n{NUMBER if numbers else PERSON},1,3,2026-03-02,what else\n")
    with pytest.raises(InvalidInput):
        nightly(dataclasses.replace(settings, input=dataclasses.replace(settings.input, ratings=str(bad))), LAST)
    bad.unlink()
    failed = run.records(settings.journal, settings.lock)[-1]
    told = f"an older recjob quoted {NUMBER if numbers else PERSON},1,3"
    run.amend(settings.journal, failed["run_id"], error_message=told)
    nightly(settings, LAST)
    checkpoint = models.CheckpointFile(settings.models, "f" * 64, apart=0)
    checkpoint.save({"weight/000": np.zeros(3)})
    atomic.write_json(settings.state_dir / "downloads" / "ratings.json", {"user_id": NUMBER if numbers else PERSON})
    damaged = settings.published / "recommendations-1.duckdb.aside-20260309T000000000000Z"
    damaged.write_text(str(NUMBER if numbers else PERSON))
    return settings


def contents(path: Path) -> Iterator[bytes]:
    """The bytes of a file, and what they unpack to."""
    yield path.read_bytes()
    if path.suffix == ".parquet":
        table = pq.read_table(path)
        yield str(pq.read_metadata(path).to_dict()).encode()
        yield "\n".join(str(value) for column in table.columns for value in column.to_pylist()).encode()
    elif path.suffix == ".npz":
        with np.load(path) as arrays:
            yield from (array.tobytes() for array in arrays.values())
    elif path.suffix == ".duckdb":
        with duckdb.connect(str(path), read_only=True) as connection:
            for (table,) in connection.execute("SELECT table_name FROM duckdb_tables()").fetchall():
                yield str(connection.execute(f'FROM "{table}"').fetchall()).encode()


def holding(root: Path, *needles: bytes) -> set[str]:
    """The files under `root` in which one of the needles is found, packed or unpacked."""
    files = [path for path in root.rglob("*") if path.is_file() and not path.is_symlink()]
    found = [path for path in files if any(needle in held for held in contents(path) for needle in needles)]
    return {str(path.relative_to(root)) for path in found}


def places(names: set[str]) -> set[str]:
    return {name.partition("/")[0] for name in names}


def whole(settings: Settings) -> None:
    """Readers see lists that pass every audit, of a run that is known."""
    with warehouse.reader(settings.database) as connection:
        for rule in (Path(__file__).parents[1] / "sql" / "audit").glob("*.sql"):
            if settings.publish.mode == "copy" or "rowid" not in rule.read_text():  # a view has none
                assert connection.execute(rule.read_text()).fetchall() == [], rule.stem
        assert len(connection.execute("SELECT DISTINCT as_of_date FROM current_recommendations").fetchall()) == 1


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """Two nights with the person, which tests copy."""
    return nights(tmp_path_factory.mktemp("forget") / "state")


@pytest.fixture
def copy(kept: Settings, tmp_path: Path) -> Settings:
    return copied(kept, tmp_path / "state")


def by_command(settings: Settings, *arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
    """Run recjob in a process of its own."""
    command = [sys.executable, "-m", "jobs.cli", *arguments]
    return subprocess.run(command, env=environment(settings), input=stdin, capture_output=True, text=True)


@pytest.mark.faults("B6.1")
@pytest.mark.parametrize(("numbers", "mode"), [(False, "copy"), (True, "attach")])
def test_no_byte_of_a_forgotten_person_is_left(tmp_path: Path, numbers: bool, mode: str) -> None:
    settings = nights(tmp_path / "state", numbers, publish__keep_reports=30, publish__mode=mode)
    person = str(NUMBER if numbers else PERSON)
    needles = [person.encode(), *([NUMBER.to_bytes(8, "little")] if numbers else [])]
    everywhere = {"lake", "models", "runs", "published", "journal", "downloads"}
    assert places(holding(settings.state_dir, *needles)) == everywhere
    receipt = forget.forget(settings, [person])
    assert holding(settings.state_dir, *needles) == set()
    assert receipt["held"]
    assert all(place["files"] for place in receipt["erased"].values())
    assert receipt["damaged"] == []
    assert receipt["erased"]["runs"]["rows"] == 2 * (5 + 1)
    held = 3 * (5 + 1)  # one date in the first published file, both in the second
    assert receipt["erased"]["published"]["rows"] == (held if mode == "copy" else 0)
    assert person not in json.dumps(receipt)
    whole(settings)
    for ask in (query.recommend, explain.explain):
        with pytest.raises(NotFound) as told:
            ask(settings, person)
        assert "were forgotten" in told.value.hint


@pytest.mark.faults("B6.1")
def test_everybody_else_keeps_their_lists_and_the_champion_scores_them_as_before(copy: Settings) -> None:
    others = [f"id-{number}" for number in (1, 2, 40)]
    before = [query.recommend(copy, other, 5) for other in others]
    champion = models.champion(copy.models)
    forget.forget(copy, [PERSON])
    assert [query.recommend(copy, other, 5) for other in others] == before
    lesser = models.champion(copy.models)
    assert champion is not None
    assert lesser is not None
    assert lesser.manifest["lineage"]["rewritten_from"] == [champion.version]
    assert lesser.manifest["lineage"]["users"] == champion.manifest["lineage"]["users"] - 1
    nightly(copy, LAST, Options(model="champion", force="to compare"))
    assert [query.recommend(copy, other, 5)["recommendations"] for other in others] == [
        found["recommendations"] for found in before
    ]


@pytest.mark.faults("B6.1", "B1.15")
def test_a_rollback_finds_the_model_of_the_lists_by_the_name_that_it_had(copy: Settings) -> None:
    made = {day: shown["model_version"] for day, shown in publishing.visible(copy).items()}
    for one in (PERSON, "id-3"):
        forget.forget(copy, [one])
    bad = models.champion(copy.models)
    assert bad is not None
    assert bad.manifest["lineage"]["rewritten_from"][0] == made[str(LAST)]
    publishing.rollback(copy)
    good = models.champion(copy.models)
    assert good is not None
    assert good.manifest["lineage"]["rewritten_from"][0] == made[str(LAST - timedelta(days=1))]
    assert publishing.models_taken_back(copy) == {bad.version}


@pytest.mark.faults("B6.1")
def test_the_digests_of_rewritten_lists_are_those_of_what_is_left(copy: Settings) -> None:
    def digests() -> dict[str, Any]:
        with warehouse.reader(copy.database) as connection:
            found = connection.execute("SELECT run_id, output_digest FROM runs WHERE output_digest IS NOT NULL")
            return dict(found.fetchall())

    before = digests()
    forget.forget(copy, [PERSON])
    journal = {record["run_id"]: record.get("output_digest") for record in run.records(copy.journal, copy.lock)}
    assert digests() == {run_id: digest for run_id, digest in journal.items() if digest}
    assert set(before.values()).isdisjoint(digests().values())


@pytest.mark.faults("B6.1")
def test_a_reader_that_is_there_reads_on_and_a_new_one_sees_the_rebuilt_file(copy: Settings) -> None:
    count = f"SELECT count(*) FROM current_recommendations WHERE user_id = '{PERSON}'"
    with duckdb.connect(str(copy.database.resolve()), read_only=True) as old:
        assert by_command(copy, "forget", "--user", PERSON).returncode == 0
        assert old.execute(count).fetchall() == [(5,)]
        with duckdb.connect(str(copy.database.resolve()), read_only=True) as new:
            assert new.execute(count).fetchall() == [(0,)]
    assert all(stat.S_IMODE(path.stat().st_mode) == 0o440 for path in copy.published.iterdir())


@pytest.mark.faults("B6.2")
def test_a_forgotten_person_who_is_still_in_the_source_stays_out(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    made = world()
    assert made.users is not None
    own = {"ratings": tmp_path / "own.parquet", "users": tmp_path / "users.parquet"}
    pq.write_table(made.ratings, own["ratings"])
    pq.write_table(made.users, own["users"])
    settings = world_in(tmp_path / "state", small_world(text_ids=True, seed=2))
    source = dataclasses.replace(settings.input, **{name: str(path) for name, path in own.items()})
    settings = dataclasses.replace(settings, input=source)
    nightly(settings, LAST)
    receipt = forget.forget(settings, [PERSON])
    rows = made.ratings["user_id"].to_pylist().count(PERSON)
    assert receipt["still_contain"] == [
        {"path": str(own["ratings"]), "rows": rows},
        {"path": str(own["users"]), "rows": 1},
    ]
    assert nightly(settings, LAST)["status"] == "published"
    (said,) = (record for record in caplog.records if record.getMessage() == "forgotten.kept_out")
    assert said.ratings == rows  # type: ignore[attr-defined]
    assert PERSON not in caplog.text
    assert holding(settings.state_dir, PERSON.encode()) == set()
    champion = models.champion(settings.models)
    assert champion is not None
    assert champion.manifest["lineage"]["users"] == 39
    ingest.append(settings, "the same again", made, 0.0)
    assert holding(settings.state_dir, PERSON.encode()) == set()
    assert forget.let_in(settings, [PERSON])["let_in"] == 1
    nightly(settings, LAST)
    assert len(query.recommend(settings, PERSON, 5)["recommendations"]) == 5


@pytest.mark.faults("B6.2")
def test_a_night_on_nobody_but_the_forgotten_has_no_ratings(tmp_path: Path) -> None:
    one = small_world(users=1, movies=4, ratings=4)
    settings = world_in(tmp_path / "state", Catalogue(one.ratings, one.movies))
    forget.forget(settings, ["1"])
    ingest.append(settings, "the same again", Catalogue(one.ratings, one.movies), 0.0)
    with pytest.raises(NoRatings):
        nightly(settings, LAST)


@pytest.mark.slow
@pytest.mark.faults("B6.3")
def test_forget_killed_again_and_again_goes_on_where_it_was(copy: Settings, tmp_path: Path) -> None:
    inject = ["-e", f"trace={straced.RENAMES}", "-e", f"inject={straced.RENAMES}:signal=KILL:when=7"]
    left: list[set[str]] = []
    while not left or left[-1]:
        done = straced.recjob(inject, ["forget", "--user", PERSON, "--json"], environment(copy), tmp_path / "log")
        whole(copy)
        assert done.returncode == (-9 if len(left) < 3 else done.returncode), done.stderr
        left.append(places(holding(copy.state_dir, PERSON.encode())))
        assert len(left) < 12
    assert len(set(map(frozenset, left))) >= 3
    done = by_command(copy, "forget", "--user", PERSON)
    assert done.returncode == 0, done.stderr
    assert not forgotten.load(copy.state_dir).pending
    assert holding(copy.state_dir, PERSON.encode()) == set()
    assert nightly(copy, LAST)["status"] == "published"
    assert not list(copy.state_dir.rglob(".draft-*"))


@pytest.mark.slow
@pytest.mark.faults("B6.3")
def test_a_night_finishes_what_a_killed_forget_began(copy: Settings, tmp_path: Path) -> None:
    kill = [
        "-e",
        f"trace={straced.RENAMES}",
        "-e",
        f"inject={straced.RENAMES}:signal=KILL:when=4",
    ]  # the list is written, and all else to do
    done = straced.recjob(kill, ["forget", "--user", PERSON], environment(copy), tmp_path / "log")
    assert done.returncode == -9, done.stderr
    assert holding(copy.state_dir, PERSON.encode())
    assert "something of theirs may still be held" in by_command(copy, "doctor").stdout
    assert nightly(copy, LAST)["status"] == "published"
    assert holding(copy.state_dir, PERSON.encode()) == set()
    whole(copy)


@pytest.mark.faults("B6.3")
def test_forget_during_a_run_is_busy_and_changes_nothing(copy: Settings) -> None:
    with atomic.lock(copy.lock, 0, "a night"), pytest.raises(Busy):
        forget.forget(copy, [PERSON])
    assert not (copy.state_dir / "forgotten.json").exists()
    with atomic.lock(copy.lock, 0, "a night"):
        done = by_command(copy, "forget", "--user", PERSON, "--json")
    assert (done.returncode, document(done)["error"]["kind"]) == (5, "E_BUSY")


@pytest.mark.faults("B6.4")
def test_of_a_person_nobody_knows_nothing_is_held(copy: Settings) -> None:
    shutil.rmtree(copy.state_dir / "downloads")
    shutil.rmtree(copy.models / "unfinished")
    before = {path: path.read_bytes() for path in copy.state_dir.rglob("*") if path.is_file()}
    done = by_command(copy, "forget", "--user", "nobody-4711")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[0] == "1 asked for; nothing held"
    after = {path: path.read_bytes() for path in copy.state_dir.rglob("*") if path.is_file()}
    changed = {path.name for path in after if after[path] != before.get(path)}
    assert changed - {"store.json"} == {"forgotten.json", "lock.json"}
    assert holding(copy.state_dir, b"nobody-4711") == set()


@pytest.mark.faults("B6.4", "B5.7")
def test_ids_from_a_file_are_in_no_command_line_and_no_log(copy: Settings) -> None:
    done = by_command(copy, "forget", "--file", "-", "--json", "-v", stdin=f"{PERSON}\r\n\nid-3\n")
    assert done.returncode == 0, done.stderr
    receipt = document(done)
    assert (receipt["schema"], receipt["asked"], receipt["held"]) == ("recjob.forget/1", 2, True)
    assert PERSON not in done.stdout + done.stderr
    assert holding(copy.state_dir, PERSON.encode()) == set()
    with pytest.raises(NotFound):
        query.recommend(copy, "id-3", 5)
    assert query.recommend(copy, "id-30", 5)["recommendations"]
    path = copy.state_dir / "forgotten.json"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


@pytest.mark.faults("B6.4")
def test_without_an_id_there_is_nobody_to_forget(recjob: Callable[..., Any]) -> None:
    done = recjob("forget", "--json")
    assert (done.returncode, document(done)["error"]["kind"]) == (2, "E_USAGE")


@pytest.mark.faults("B6.2")
@pytest.mark.parametrize("content", ["{", "[]", '{"key": "00", "hashes": []}'])
def test_a_damaged_list_lets_nobody_back_in(settings: Settings, content: str) -> None:
    (settings.state_dir / "forgotten.json").write_text(content)
    with pytest.raises(CorruptState, match=r"forgotten\.json"):
        nightly(settings, LAST)


@pytest.mark.faults("B6.1")
@brought_back
def test_what_cannot_be_read_is_told_and_not_taken_for_cleared(copy: Settings) -> None:
    part = next(copy.lake.glob("ratings/*/part-*.parquet"))
    content = part.read_bytes()
    part.write_bytes(content[:-1])
    with pytest.raises(CorruptState, match=re.escape(str(part))) as caught:
        forget.forget(copy, [PERSON])
    assert f"restore {part} from a backup" in caught.value.hint
    assert "recjob forget again" in caught.value.hint
    assert forgotten.load(copy.state_dir).pending
    part.write_bytes(content)
    forget.forget(copy, [PERSON])
    assert holding(copy.state_dir, PERSON.encode()) == set()


@pytest.mark.faults("B6.1", "B1.18")
@brought_back
def test_what_is_damaged_and_can_be_made_again_is_removed_with_the_person_in_it(copy: Settings) -> None:
    (staged,) = copy.runs.glob(f"as_of={LAST}/*/recommendations.parquet")
    published = [*warehouse.versions(copy.published)]
    champion = models.champion(copy.models)
    assert champion is not None
    for path in (staged, published[-1], champion.folder / "weights.npz"):
        path.chmod(0o640)
        path.write_bytes(path.read_bytes()[:-100])
    receipt = forget.forget(copy, [PERSON])
    gone = [champion.folder, copy.models / "champion.json", published[-1], staged.parent]
    assert {one["path"] for one in receipt["damaged"]} == set(map(str, gone))
    assert f"recjob backfill --from {LAST} --to {LAST} --only all" in str(receipt["damaged"])
    assert holding(copy.state_dir, PERSON.encode()) == set()
    assert query.status(copy)["damaged"] is None, "readers have what is left"
    assert backfill.wanted(copy, LAST - timedelta(days=1), LAST, "missing") == [LAST]
    assert backfill.backfill(copy, LAST - timedelta(days=1), LAST)["failed"] == 0
    assert len(query.recommend(copy, "id-3", 5)["recommendations"]) == 5
    whole(copy)


def test_equal_ids_have_equal_hashes_in_one_list_and_other_hashes_in_another() -> None:
    one, other = (forgotten.Forgotten().adding(["7"]) for _ in range(2))
    assert one.hashes != other.hashes
    assert one.among(pa.array([1, 7, 7])).to_pylist() == [7]
    assert one.among(pa.array(["7", "07"])).to_pylist() == ["7"]
    assert one.letting_in(["7"]).hashes == frozenset()


@pytest.mark.faults("B6.1")
@brought_back
def test_a_damaged_record_stops_forget_and_nobody_comes_back_meanwhile(settings: Settings) -> None:
    nightly(settings, LAST, Options(until="check"))
    record = next(settings.journal.glob("*.json"))
    record.write_text("{")
    with pytest.raises(CorruptState) as caught:
        forget.forget(settings, ["7"])
    assert "with the same ids" in caught.value.hint
    assert forgotten.load(settings.state_dir).pending
    record.unlink()
    nightly(settings, LAST, Options(until="check"))
    assert not forgotten.load(settings.state_dir).pending
    lake = pq.read_table(settings.lake / "ratings")
    assert lake.num_rows
    assert 7 not in lake["user_id"].to_pylist()
