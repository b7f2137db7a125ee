"""A state folder and its copy in an object store: whole or absent there, taken up by empty machines, and never mixed."""

import dataclasses
import json
import logging
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import boto3
import duckdb
import pytest
import test_forget
from conftest import LAST, document, environment, world_in
from moto import settings as moto_settings
from objectstore import Store

from jobs import doctor, exits, forget, kept, prune, publish, query, run, state
from jobs import settings as configured
from jobs.allowed import InvalidSettings
from jobs.nightly import Options, nightly
from jobs.settings import Settings
from storage import atomic, digest, forgotten, mending, models, objects, runs
from storage.errors import CorruptState, StateVersion, StoreConflict, StoreFailed, StoreForbidden
from storage.held import Held
from storage.held import of as held

CHECK = Options(until="check")
MOMENTS = [("PUT", 0), ("PUT .*/commits/0", 0), ("current", 0), ("DELETE", 1)]
"""Requests of a push during which it is killed: the how-manieth that match."""


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """Two nights that no store has."""
    made = world_in(tmp_path_factory.mktemp("store") / "state", test_forget.world())
    for days in (1, 0):
        nightly(made, LAST - timedelta(days=days))
    return made


@pytest.fixture
def url(store: Store) -> str:
    return f"s3://{store.bucket()}/recjob"


def machine(template: Settings, folder: Path, url: str, *, empty: bool = True) -> Settings:
    """Another machine, with an empty state folder or one with both nights."""
    if not empty:
        shutil.copytree(template.state_dir, folder, symlinks=True)
    return dataclasses.replace(template, state_dir=folder, store=configured.Store(url))


@pytest.fixture
def first(template: Settings, tmp_path: Path, url: str) -> Settings:
    """The machine whose two nights the store has."""
    made = machine(template, tmp_path / "first", url, empty=False)
    kept.sync(made)
    return made


def in_store(store: Store, url: str) -> dict[str, bytes]:
    """Every object below a URL."""
    bucket, _, prefix = url.removeprefix("s3://").partition("/")
    return {key.removeprefix(f"{prefix}/"): store.read(bucket, key) for key in store.objects(bucket, prefix)}


def whole(store: Store, settings: Settings, left: int = 0) -> None:
    """The store has exactly what the folder has: one commit, its objects, and where the published file is; and `left` objects."""
    found, here = in_store(store, settings.store.url), held(settings.state_dir, Held())
    (commit,) = [name for name in found if name.startswith("commits/")]
    named = {path: tuple(file) for path, file in json.loads(found.pop(commit))["files"].items()}
    assert named == {path: (file.sha256, file.size) for path, file in here.files.items()}
    current = json.loads(found.pop("current.json"))
    assert found[current["key"]] == settings.database.read_bytes()
    assert len(found) == len({file.key for file in here.files.values()} & found.keys()) + left
    assert {file.key for file in here.files.values()} <= found.keys()


def by_command(settings: Settings, store: Store, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run recjob in a process of its own."""
    env = environment(settings) | store.environment | {"RECJOB_STORE_URL": settings.store.url}
    command = [sys.executable, "-m", "jobs.cli", *arguments]
    return subprocess.run(command, env=env, capture_output=True, text=True, timeout=120)


@pytest.mark.slow
@pytest.mark.faults("B7.9")
def test_an_empty_machine_takes_up_where_the_last_one_stopped(
    store: Store, first: Settings, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    other = machine(first, tmp_path / "other", first.store.url)
    caplog.set_level(logging.INFO)
    record = nightly(other, LAST)
    assert record["status"] == "unchanged"
    assert "train.epoch" not in caplog.text
    champion, before = models.champion(other.models), models.champion(first.models)
    assert champion is not None
    assert before is not None
    assert champion.manifest == before.manifest
    models.contents(champion)
    assert [one.record for one in runs.every(other.runs)] == [one.record for one in runs.every(first.runs)]
    for partition in runs.every(other.runs):
        runs.verify(partition)
    assert query.recommend(other, "id-8", 5) == query.recommend(first, "id-8", 5)
    whole(store, other)
    newest = query.status(other)["as_of_date"]
    with state.held(other, 0, "rollback"):
        publish.rollback(other)
    third = machine(first, tmp_path / "third", first.store.url)
    state.take_up(third, 0)
    assert str(LAST) == newest != query.status(third)["as_of_date"]
    few = dataclasses.replace(third, publish=dataclasses.replace(third.publish, retention_dates=1, keep_files=1))
    assert prune.by_hand(few)["removed"]
    whole(store, few)
    assert sum(name.startswith("objects/") for name in in_store(store, first.store.url)) < len(
        held(first.state_dir, Held()).files
    )


def test_a_machine_that_is_behind_follows_and_what_was_removed_elsewhere_goes(
    store: Store, first: Settings, tmp_path: Path
) -> None:
    other = machine(first, tmp_path / "other", first.store.url)
    state.take_up(other, 0)
    few = dataclasses.replace(first, publish=dataclasses.replace(first.publish, keep_files=1, keep_models=1))
    prune.by_hand(few)
    nightly(first, LAST, CHECK)
    kept.sync(other)
    assert held(other.state_dir, Held()) == held(first.state_dir, Held())
    assert len(list(other.published.iterdir())) == 1
    assert len(models.versions(other.models)) == len(models.versions(first.models))


@pytest.mark.faults("B7.1", "B7.2", "B7.3", "B7.4")
@pytest.mark.parametrize(
    "fault",
    [
        {"kind": "503", "times": 4},
        {"kind": "429", "times": 4},
        {"kind": "500", "match": "PUT", "times": 4},
        {"kind": "half", "match": "PUT", "after": 30, "times": 3},
        {"kind": "lost", "match": "PUT", "times": 3},
        {"kind": "lost", "match": "PUT .*commits/0", "times": 1},
        {"kind": "lost", "match": "DELETE", "times": 1},
        {"kind": "hang", "match": "PUT", "times": 1, "skip": 5},
    ],
    ids=lambda fault: fault["kind"],
)
def test_a_push_that_fails_for_a_while_is_completed(
    store: Store, first: Settings, monkeypatch: pytest.MonkeyPatch, fault: dict[str, Any]
) -> None:
    monkeypatch.setattr(objects, "SILENCE", 1)
    (first.lake / "users.parquet").write_bytes(b"another" * 1000)
    prune.by_hand(dataclasses.replace(first, store=configured.Store(), publish=configured.Publish(retention_dates=1)))
    broken = store.fails(**fault)
    kept.sync(first)
    assert broken.times == 0
    whole(store, first)


@pytest.mark.faults("B7.1", "B7.7")
def test_a_push_that_fails_leaves_the_night_as_it_is_says_so_and_is_completed_by_the_next(
    store: Store, first: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = in_store(store, first.store.url)
    told = tmp_path / "told"
    hooks = configured.Hooks(on_failure=("sh", "-c", f'echo "$RECJOB_RUN_EXIT_CODE $RECJOB_RUN_ERROR_KIND" > {told}'))
    first = dataclasses.replace(first, hooks=hooks)
    monkeypatch.setattr(objects, "TRIES", 2)
    store.fails("503", "PUT .*commits")
    with pytest.raises(StoreFailed, match="what was done here stands") as caught:
        nightly(first, LAST)
    assert exits.code(caught.value) == 6
    assert first.store.url in str(caught.value)
    record = run.records(first.journal, first.lock)[-1]
    assert (record["status"], record["exit_code"], record["error_kind"]) == ("unchanged", 6, "E_STORE")
    assert told.read_text() == "6 E_STORE\n"
    after = in_store(store, first.store.url)
    assert {name: after[name] for name in before} == before
    assert query.recommend(first, "id-8", 5)["recommendations"]
    other = machine(first, tmp_path / "other", first.store.url)
    state.take_up(other, 0)
    assert record["run_id"] not in {one["run_id"] for one in run.records(other.journal, other.lock)}
    store.faults.clear()
    nightly(first, LAST, CHECK)
    whole(store, first)


@pytest.mark.slow
@pytest.mark.faults("B7.7")
def test_an_object_that_is_lost_or_not_whole_never_counts_and_is_copied_again(
    store: Store, first: Settings, tmp_path: Path
) -> None:
    bucket = first.store.url.split("/")[2]
    champion = held(first.state_dir, Held()).files["models/champion.json"]
    spoiled = {"half": b"{", "other": b"x" * champion.size, "gone": None}
    for name, content in spoiled.items():
        key = f"recjob/{champion.key}"
        store.client.delete_object(Bucket=bucket, Key=key)
        if content is not None:
            store.put(bucket, key, content)
        other = machine(first, tmp_path / name, first.store.url)
        with pytest.raises(CorruptState, match="not there"):
            nightly(other, LAST)
        assert not (other.models / "champion.json").exists()
        if name == "half":  # in what is "other" a listing sees nothing
            found = {one["check"]: one["state"] for one in doctor.examine(first)["findings"]}
            assert found["store"] == "bad"
        if name == "other":
            store.client.delete_object(Bucket=bucket, Key=key)
        assert kept.sync(first)["pushed"]["files"] == 1
        state.take_up(other, 0)
        assert held(other.state_dir, Held()) == held(first.state_dir, Held())


@pytest.mark.slow
@pytest.mark.faults("B7.8")
def test_a_push_that_is_killed_at_any_request_leaves_the_old_or_the_new_and_the_next_completes_it(
    store: Store, template: Settings, url: str, tmp_path: Path
) -> None:
    old = dataclasses.replace(template, state_dir=tmp_path / "old")
    shutil.copytree(template.state_dir, old.state_dir, symlinks=True)
    prune.by_hand(dataclasses.replace(old, publish=dataclasses.replace(old.publish, keep_files=1)))
    seen = set()
    for number, (request, skip) in enumerate(MOMENTS):
        settings = dataclasses.replace(
            template, state_dir=tmp_path / f"{number}", store=configured.Store(f"{url}-{number}")
        )
        shutil.copytree(old.state_dir, settings.state_dir, symlinks=True)
        kept.sync(settings)
        before = held(settings.state_dir, Held())
        for name in ("runs", "models", "published"):
            shutil.rmtree(settings.state_dir / name)
            shutil.copytree(template.state_dir / name, settings.state_dir / name, symlinks=True)
        shutil.rmtree(settings.lake)
        after = held(settings.state_dir, Held())
        env = environment(settings) | store.environment | {"RECJOB_STORE_URL": settings.store.url}
        command = [sys.executable, "-m", "jobs.cli", "sync", "-q"]
        stopped, dead = threading.Event(), threading.Event()
        store.fails("call", request, times=1, skip=skip, call=lambda s=stopped, d=dead: (s.set(), d.wait(60)))
        with subprocess.Popen(command, env=env, stdout=subprocess.DEVNULL) as child:
            assert stopped.wait(60), request
            child.kill()
            assert child.wait(60) == -signal.SIGKILL
            dead.set()
        taken = machine(template, tmp_path / f"taken-{number}", settings.store.url)
        state.take_up(taken, 0)
        found = held(taken.state_dir, Held())
        assert found in (before, after), request
        seen.add(found == after)
        kept.sync(settings)
        whole(store, settings)
        store.faults.clear()
    assert seen == {False, True}


@pytest.mark.slow
@pytest.mark.faults("B7.10")
def test_of_two_machines_the_second_is_told_and_nothing_is_lost_or_mixed(
    store: Store, first: Settings, tmp_path: Path
) -> None:
    other = machine(first, tmp_path / "other", first.store.url)
    state.take_up(other, 0)
    raced = []

    def meanwhile() -> None:
        if not raced:
            raced.append(by_command(other, store, "check", "--date", str(LAST)).returncode)

    store.fails("call", "PUT .*/objects/", times=1, call=meanwhile)
    with pytest.raises(StoreConflict, match="of another machine") as caught:
        nightly(first, LAST, CHECK)
    assert exits.code(caught.value) == 7
    store.faults.clear()
    assert raced == [0]
    whole(store, other, left=1)  # what was to be committed, until the next push
    mine = run.records(first.journal, first.lock)[-1]["run_id"]
    with pytest.raises(StoreConflict):
        nightly(first, LAST, CHECK)
    assert {one["check"]: one["state"] for one in doctor.examine(first)["findings"]}["store"] == "bad"
    done = by_command(first, store, "sync", "--discard", "--json")
    assert done.returncode == 0, done.stderr
    assert document(done)["taken"]["files"] == 1
    assert held(first.state_dir, Held()) == held(other.state_dir, Held())
    assert mine not in {path.stem for path in first.journal.iterdir()}
    nightly(first, LAST, CHECK)
    whole(store, first)


@pytest.mark.faults("B7.10")
def test_of_two_commits_on_one_the_first_counts_and_the_other_goes(
    store: Store, first: Settings, tmp_path: Path
) -> None:
    bucket = first.store.url.split("/")[2]
    (key,) = store.objects(bucket, "recjob/commits/")
    late = json.loads(store.read(bucket, key)) | {
        "files": {},
        "links": {},
    }  # whose writer was killed before withdrawing it
    time.sleep(1.1)  # a store counts in seconds
    for name in ("00000001-1", "00000001-3"):
        store.put(bucket, f"recjob/commits/{name}.json", json.dumps(late).encode())
    other = machine(first, tmp_path / "other", first.store.url)
    state.take_up(other, 0)
    assert held(other.state_dir, Held()) == held(first.state_dir, Held())
    nightly(first, LAST, CHECK)
    whole(store, first)


def test_a_machine_that_only_reads_follows_whatever_reports_it_made_and_discards_the_rest(
    store: Store, first: Settings, tmp_path: Path
) -> None:
    reader = machine(first, tmp_path / "reader", first.store.url)
    kept.sync(reader)
    reader.pages.mkdir(parents=True)
    (reader.pages / "20260101T000000000Z-000000.html").write_text("made here")
    nightly(first, LAST, CHECK)
    assert kept.sync(reader)["taken"]["files"] == 1
    assert held(reader.state_dir, Held()) == held(first.state_dir, Held())
    (reader.lake / "movies.parquet").unlink()
    (reader.journal / "20260101T000000000Z-000000.json").write_text("{}")
    assert kept.sync(reader, discard=True)["taken"]["files"] == 1
    assert held(reader.state_dir, Held()) == held(first.state_dir, Held())
    whole(store, first)


@pytest.mark.faults("B7.10")
def test_a_folder_with_nights_of_its_own_does_not_take_up_a_store_with_others(
    store: Store, first: Settings, template: Settings, tmp_path: Path
) -> None:
    stranger = machine(template, tmp_path / "stranger", first.store.url, empty=False)
    before = in_store(store, first.store.url)
    with pytest.raises(StoreConflict):
        nightly(stranger, LAST, CHECK)
    assert in_store(store, first.store.url) == before


@pytest.mark.faults("B7.5")
def test_a_store_that_cannot_be_reached_stops_an_empty_machine_and_no_other(
    store: Store, first: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(objects, "TRIES", 1)
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    other = machine(first, tmp_path / "other", first.store.url)
    with pytest.raises(StoreFailed, match="cannot be reached"):
        nightly(other, LAST)
    assert not other.journal.exists()
    with pytest.raises(StoreFailed, match="stands"):
        nightly(first, LAST)
    assert "store.not_followed" in caplog.text
    assert run.records(first.journal, first.lock)[-1]["status"] == "unchanged"


@pytest.mark.slow
@pytest.mark.faults("B7.11")
def test_a_forgotten_person_is_erased_from_all_of_the_store(
    store: Store, first: Settings, url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def holding() -> list[str]:
        """Where the bytes of the person are, among all objects by the names that commits have for them."""
        copy = tmp_path / "objects"
        shutil.rmtree(copy, ignore_errors=True)
        found = in_store(store, url)
        for commit in [name for name in found if name.startswith("commits/")]:
            for path, (sha256, _) in json.loads(found[commit])["files"].items():
                (copy / path).parent.mkdir(parents=True, exist_ok=True)
                (copy / path).write_bytes(found.get(f"objects/{sha256}", b""))
        for name, content in found.items():
            (copy / name.replace("/", "-")).write_bytes(content)
        return sorted(test_forget.places(test_forget.holding(copy, test_forget.PERSON.encode())))

    assert {"lake", "models", "published", "runs"} <= set(holding())
    monkeypatch.setattr(objects, "TRIES", 1)
    store.fails("503", "PUT .*commits")
    with pytest.raises(StoreFailed, match="does not have it"):
        forget.forget(first, [test_forget.PERSON])
    assert holding()
    store.faults.clear()
    assert forget.forget(first, [test_forget.PERSON])["held"] is False
    assert holding() == []
    whole(store, first)
    other = machine(first, tmp_path / "other", url)
    state.take_up(other, 0)
    name = "forgotten.json"
    assert (other.state_dir / name).stat().st_mode & 0o777 == 0o600
    assert (other.state_dir / name).read_bytes() == (first.state_dir / name).read_bytes()


@pytest.mark.faults("B5.2")
@pytest.mark.parametrize("path", ["../up.json", "lake/../../up.json", "/tmp/up.json", "lock", ".ssh/id"])
def test_a_commit_that_names_other_paths_is_refused(store: Store, first: Settings, tmp_path: Path, path: str) -> None:
    bucket = first.store.url.split("/")[2]
    (key,) = store.objects(bucket, "recjob/commits/")
    named = json.loads(store.read(bucket, key))
    for where in ("files", "links"):
        planted = {**named, where: {**named[where], path: ["0" * 64, 1] if where == "files" else "x"}}
        store.put(bucket, key, json.dumps(planted).encode())
        with pytest.raises(CorruptState, match="no state folder has"):
            nightly(machine(first, tmp_path / "other", first.store.url), LAST)
    store.put(bucket, key, json.dumps({**named, "links": {"recommendations.duckdb": "/etc/passwd"}}).encode())
    with pytest.raises(CorruptState, match="no state folder has"):
        nightly(machine(first, tmp_path / "other", first.store.url), LAST)
    assert not [one for one in tmp_path.rglob("*") if one.name in ("up.json", ".ssh")]


@pytest.mark.faults("B6.6")
def test_a_store_that_a_newer_recjob_wrote_is_refused_and_left(store: Store, first: Settings, tmp_path: Path) -> None:
    bucket = first.store.url.split("/")[2]
    (key,) = store.objects(bucket, "recjob/commits/")
    store.put(bucket, key, store.read(bucket, key).replace(b'"state_version": 1', b'"state_version": 99'))
    with pytest.raises(StateVersion):
        nightly(machine(first, tmp_path / "other", first.store.url), LAST)


def test_sync_needs_a_store_and_a_store_is_no_folder(tmp_path: Path) -> None:
    from jobs import configuration

    with pytest.raises(InvalidSettings, match="no store"):
        kept.sync(configuration.load(None, {}, {"state_dir": tmp_path / "state"}))
    for wrong in ("file:///backup", "/backup", "s3://"):
        with pytest.raises(InvalidSettings, match=r"store\.url"):
            configuration.load(None, {"RECJOB_STORE_URL": wrong})


def policies() -> dict[str, dict[str, Any]]:
    """The policies of the document, by the heading or line that stands before each."""
    text = (Path(__file__).parents[1] / "docs" / "howto" / "s3.md").read_text()
    found = re.findall(r"\*\*(\w+)\*\*[^\n]*\n\n```json\n(.*?)```", text, re.DOTALL)
    return {name: json.loads(body) for name, body in found}


@pytest.fixture
def policed(store: Store, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[dict[str, Any]], None]]:
    """Let a policy be all that this process may do."""
    facts = {"aws_access_key_id": "nobody", "aws_secret_access_key": "x", "region_name": "us-east-1"}
    iam = boto3.client("iam", endpoint_url="http://{}:{}".format(*store.backend), **facts)

    def allow(policy: dict[str, Any]) -> None:
        monkeypatch.setattr(moto_settings, "INITIAL_NO_AUTH_ACTION_COUNT", float("inf"))
        user = f"user-{next(store.names)}"
        iam.create_user(UserName=user)
        iam.put_user_policy(UserName=user, PolicyName="p", PolicyDocument=json.dumps(policy))
        key = iam.create_access_key(UserName=user)["AccessKey"]
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", key["AccessKeyId"])
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", key["SecretAccessKey"])
        monkeypatch.setattr(moto_settings, "INITIAL_NO_AUTH_ACTION_COUNT", 0)

    yield allow
    monkeypatch.setattr(moto_settings, "INITIAL_NO_AUTH_ACTION_COUNT", float("inf"))


@pytest.mark.slow
@pytest.mark.faults("B7.12")
def test_the_policies_of_the_document_are_enough_and_no_more(
    store: Store, first: Settings, tmp_path: Path, policed: Callable[[dict[str, Any]], None]
) -> None:
    bucket = first.store.url.split("/")[2]
    ours = {name: json.loads(json.dumps(found).replace("my-state", bucket)) for name, found in policies().items()}
    policed(ours["job"])
    nightly(first, LAST, CHECK)
    other = machine(first, tmp_path / "other", first.store.url)
    state.take_up(other, 0)
    nightly(other, LAST, CHECK)
    policed(ours["readers"])
    reader = machine(first, tmp_path / "reader", first.store.url)
    assert kept.sync(reader)["taken"]["files"] > 10
    with pytest.raises(StoreForbidden) as caught:
        nightly(reader, LAST, CHECK)
    assert "s3:PutObject" in caught.value.hint
    for action in ("s3:ListBucket", "s3:GetObject", "s3:PutObject", "s3:DeleteObject"):
        less = json.loads(json.dumps(ours["job"]).replace(f'"{action}"', '"s3:GetBucketLocation"'))
        policed(less)
        with pytest.raises(StoreForbidden) as caught:
            state.take_up(machine(first, tmp_path / f"no-{action[3:]}", first.store.url), 0)
            nightly(other, LAST, CHECK)
        assert action in caught.value.hint


def cut(path: Path) -> None:
    content = path.read_bytes()
    path.chmod(0o640)
    path.write_bytes(content[: len(content) // 2])


def flipped(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.chmod(0o640)
    path.write_bytes(content)


COMMITTED = ("PUT .*/commits", "current")
"""Requests that are done although whoever made them is killed: after them the store has the night."""


def edited(path: Path) -> None:
    """Other arrays, which the list of files vouches for."""
    flipped(path.parent / "weights.npz")
    document = json.loads(path.read_text())
    document["files"]["weights.npz"] = digest.of_file(path.parent / "weights.npz")
    path.write_text(json.dumps(document))


DAMAGED = [
    *((f"runs/as_of={LAST}/*/recommendations.parquet", damage) for damage in (cut, flipped, Path.unlink)),
    *((f"runs/as_of={LAST}/*/run.json", damage) for damage in (cut, Path.unlink)),
    *(("models/*/weights.npz", damage) for damage in (flipped, Path.unlink)),
    *(("models/*/manifest.json", damage) for damage in (cut, edited, Path.unlink)),
    *(("published/*.duckdb", damage) for damage in (flipped, Path.unlink)),
    *(("lake/ratings/*/*.parquet", cut), ("lake/movies.parquet", flipped)),
    *(("models/champion.json", cut), ("journal/*.json", cut), ("forgotten.json", cut), ("forgotten.json", Path.unlink)),
]


@pytest.mark.faults("B7.13", "B1.11", "B1.18", "B3.14")
@pytest.mark.parametrize(("pattern", "damage"), DAMAGED, ids=[f"{name}-{how.__name__}" for name, how in DAMAGED])
def test_damage_here_never_replaces_what_the_store_has_and_the_next_run_brings_that_back(
    store: Store,
    first: Settings,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    pattern: str,
    damage: Callable[[Path], None],
) -> None:
    with state.held(first, 0, "forget"):
        forgotten.save(first.state_dir, forgotten.load(first.state_dir).adding(["nobody"]))
    before, there = held(first.state_dir, Held()), in_store(store, first.store.url)
    path = max(first.state_dir.glob(pattern))
    with pytest.raises(CorruptState, match="keeps its copy"), state.held(first, 0, "a run"):
        damage(path)
    assert in_store(store, first.store.url) == there
    other = machine(first, tmp_path / "other", first.store.url)
    state.take_up(other, 0)
    assert held(other.state_dir, Held()) == before
    with state.held(first, 0, "the next"):
        assert held(first.state_dir, Held()) == before
    assert "store.restored" in caplog.text
    assert not mending.edited(first.database)
    assert in_store(store, first.store.url) == there


@pytest.mark.faults("B6.1", "B7.11", "B7.13")
def test_people_are_erased_from_what_was_damaged_and_all_else_in_it_stays(store: Store, first: Settings) -> None:
    cut(max(first.runs.glob(f"as_of={LAST}/*/recommendations.parquet")))
    cut(max(first.published.glob("*.duckdb")))
    flipped(max(first.models.glob("*/weights.npz")))
    receipt = forget.forget(first, [test_forget.PERSON])
    assert (receipt["held"], receipt["damaged"]) == (True, [])
    assert test_forget.holding(first.state_dir, test_forget.PERSON.encode()) == set()
    assert len(runs.every(first.runs)) == 2
    assert query.recommend(first, "id-8", 5)["as_of_date"] == str(LAST)
    whole(store, first)


@pytest.mark.faults("B7.11", "B7.13")
def test_nobody_comes_back_with_what_is_brought_back(
    store: Store, first: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(objects, "TRIES", 1)
    store.fails("503", "PUT .*commits")
    with pytest.raises(StoreFailed, match="does not have it"):
        forget.forget(first, [test_forget.PERSON])
    store.faults.clear()
    cut(max(first.runs.glob(f"as_of={LAST}/*/run.json")))
    for _ in range(2):
        with pytest.raises(CorruptState, match="keeps its copy"):
            kept.sync(first)
        assert test_forget.holding(first.state_dir, test_forget.PERSON.encode()) == set()


def test_a_machine_that_is_behind_follows_whatever_was_damaged_in_it(
    store: Store, first: Settings, tmp_path: Path
) -> None:
    other = machine(first, tmp_path / "other", first.store.url)
    state.take_up(other, 0)
    nightly(first, LAST, CHECK)
    for pattern in ("published/*.duckdb", "models/*/weights.npz", "lake/movies.parquet"):
        flipped(max(other.state_dir.glob(pattern)))
    kept.sync(other)
    assert held(other.state_dir, Held()) == held(first.state_dir, Held())


def shown(settings: Settings) -> tuple[list[Any], str]:
    """What readers see of the lists, but for the ids of runs, and the digest of the newest."""
    with duckdb.connect(str(settings.database), read_only=True) as connection:
        rows = connection.execute("SELECT * EXCLUDE run_id FROM recommendations ORDER BY ALL").fetchall()
    return rows, runs.partitions(settings.runs)[-1].record["output_digest"]


@pytest.fixture(scope="module")
def one_night(tmp_path_factory: pytest.TempPathFactory) -> tuple[Settings, tuple[list[Any], str]]:
    """One night that no store has, and what readers are to see after the next."""
    root = tmp_path_factory.mktemp("one")
    made = world_in(root / "state", test_forget.world())
    nightly(made, LAST - timedelta(days=1))
    undisturbed = machine(made, root / "undisturbed", "", empty=False)
    nightly(undisturbed, LAST)
    return made, shown(undisturbed)


@pytest.mark.slow
@pytest.mark.faults("B1.1", "B7.8", "B7.9")
@pytest.mark.parametrize(
    "moment",
    ["train.epoch", "score.done", "publish.done", "PUT .*/objects", "PUT .*/commits", "current"],
)
def test_a_night_that_is_killed_is_made_by_this_machine_and_by_an_empty_one_with_the_same_lists(
    store: Store, one_night: tuple[Settings, tuple[list[Any], str]], url: str, tmp_path: Path, moment: str
) -> None:
    template, expected = one_night
    settings = machine(template, tmp_path / "state", url, empty=False)
    kept.sync(settings)
    dead = killed_at(store, settings, moment)
    bucket = store.bucket()
    for key, content in in_store(store, url).items():
        store.put(bucket, f"recjob/{key}", content)
    empty = machine(template, tmp_path / "empty", f"s3://{bucket}/recjob")
    assert nightly(empty, LAST)["status"] == ("unchanged" if moment in COMMITTED else "published")
    assert shown(empty) == expected
    whole(store, empty)
    assert dead == -signal.SIGKILL
    nightly(settings, LAST)
    assert shown(settings) == expected
    whole(store, settings)
    taken = machine(template, tmp_path / "taken", url)
    state.take_up(taken, 0)
    assert held(taken.state_dir, Held()) == held(settings.state_dir, Held())
    assert shown(taken) == expected


def night_of(settings: Settings, store: Store) -> subprocess.Popen[str]:
    """The night in a process of its own."""
    env = environment(settings) | store.environment | {"RECJOB_STORE_URL": settings.store.url}
    command = [sys.executable, "-m", "jobs.cli", "nightly", "--date", str(LAST), "--log-format", "json"]
    return subprocess.Popen(command, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)


def killed_at(store: Store, settings: Settings, moment: str) -> int:
    """Kill the night at an event of its log, or while it waits for the reply to a request; returns how it ended."""
    stopped, dead = threading.Event(), threading.Event()
    if by_log := "." in moment and " " not in moment:
        dead.set()
    else:
        store.fails("call", moment, times=1, call=lambda: (stopped.set(), dead.wait(60)))
    with night_of(settings, store) as child:
        assert child.stderr is not None
        if by_log:
            assert any(f'"{moment}"' in line for line in child.stderr)
        else:
            assert stopped.wait(120)
        child.kill()
        ended = child.wait(60)
    dead.set()
    store.faults.clear()
    return ended


@pytest.mark.slow
@pytest.mark.faults("B4.5")
@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_during_a_push_leaves_the_store_as_it_was_and_the_next_run_completes_it(
    store: Store,
    one_night: tuple[Settings, tuple[list[Any], str]],
    url: str,
    tmp_path: Path,
    number: int,
    code: int,
) -> None:
    template, expected = one_night
    settings = machine(template, tmp_path / "state", url, empty=False)
    kept.sync(settings)
    before = in_store(store, url)
    asked, told = threading.Event(), threading.Event()
    store.fails("call", "PUT .*/objects", times=1, call=lambda: (asked.set(), told.wait(60)))
    with night_of(settings, store) as child:
        assert asked.wait(120)
        child.send_signal(number)
        time.sleep(0.5)
        told.set()
        assert child.wait(60) == code
    after = in_store(store, url)
    assert {name: after[name] for name in before} == before
    assert shown(settings) == expected
    nightly(settings, LAST)
    whole(store, settings)


def test_a_push_asks_as_often_as_the_document_says(store: Store, first: Settings) -> None:
    before = {file.key for file in held(first.state_dir, Held()).files.values()}
    prune.by_hand(dataclasses.replace(first, store=configured.Store(), publish=configured.Publish(retention_dates=1)))
    atomic.write_json(first.journal / "20260101T000000000Z-000000.json", {"new": True})
    after = {file.key for file in held(first.state_dir, Held()).files.values()}
    new, old = len(after - before), len(before - after)
    assert min(new, old) > 0
    store.asked.clear()
    kept.sync(first)
    assert len(store.asked) == 5 + new + 3 * (old + 1)
    store.asked.clear()
    with state.held(first, 0, "nothing to do"):
        pass
    assert len(store.asked) == 1
