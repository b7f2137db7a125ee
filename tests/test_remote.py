"""Ratings in an object store make the lists that they make as local files, and whatever the store does is told or passes."""

import dataclasses
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from conftest import FAST, LAST, document, environment, small_world
from objectstore import SECRET, Store

from jobs import configuration, doctor, exits, forget, inputs, late, run
from jobs.allowed import InvalidSettings
from jobs.nightly import Options, nightly
from jobs.settings import Settings
from storage import objects, remote
from storage.errors import (
    InputChanging,
    InvalidInput,
    NoRatings,
    StorageError,
    StoreFailed,
    StoreForbidden,
    StoreMissing,
    UnlikelyInput,
)


def own_files(folder: Path) -> Path:
    """The small world as files that somebody may have: ratings in two folders, movies and users."""
    made = small_world()
    for number in (1, 2):
        (folder / "ratings" / f"part={number}").mkdir(parents=True)
        half = made.ratings.slice(300 * (number - 1), 300)
        pq.write_table(half, folder / "ratings" / f"part={number}" / "all.parquet")
    pq.write_table(made.movies, folder / "movies.parquet")
    pq.write_table(made.users, folder / "users.parquet")
    return folder


def uploaded(store: Store, folder: Path) -> str:
    """Those files in a new bucket; its URL."""
    bucket = store.bucket()
    for path in sorted(folder.rglob("*.parquet")):
        store.put(bucket, str(path.relative_to(folder)), path)
    return f"s3://{bucket}"


def reading(root: str, state: Path, **more: Any) -> Settings:
    """Settings of a state folder without a lake, with the ratings, movies and users below `root`."""
    settings = configuration.load(None, {}, FAST | {"state_dir": state})
    source = {
        "ratings": f"{root}/ratings/*/*.parquet",
        "movies": f"{root}/movies.parquet",
        "users": f"{root}/users.parquet",
    }
    own = dataclasses.replace(settings.input, **source, settle_seconds=0.0, **more)
    return dataclasses.replace(settings, input=own)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return own_files(tmp_path_factory.mktemp("files"))


@pytest.fixture
def bucket(store: Store, files: Path) -> str:
    return uploaded(store, files).removeprefix("s3://")


def cached(cache: Path) -> dict[str, bytes]:
    found = [path for path in cache.rglob("*") if path.is_file() and path.parent != cache]
    return {str(path.relative_to(cache)): path.read_bytes() for path in found}


@pytest.mark.slow
def test_ratings_in_a_bucket_make_the_lists_of_the_same_local_files(bucket: str, files: Path, tmp_path: Path) -> None:
    here = nightly(reading(str(files), tmp_path / "here"), LAST)
    settings = reading(f"s3://{bucket}", tmp_path / "there")
    there = nightly(settings, LAST)
    assert there["output_digest"] == here["output_digest"]
    assert [file["path"] for file in there["inputs"]] == [
        f"s3://{bucket}/ratings/part={number}/all.parquet" for number in (1, 2)
    ]
    told = ("sha256", "bytes", "rows", "rows_used")
    assert [[one[name] for name in told] for one in there["inputs"]] == [
        [one[name] for name in told] for one in here["inputs"]
    ]
    assert nightly(settings, LAST)["status"] == "unchanged"
    assert [date["late"] for date in late.late(settings)["dates"]] == [0]
    path = settings.cache / "s3" / bucket / "ratings" / "part=1" / "all.parquet"
    found = path.stat()
    path.write_bytes(path.read_bytes().replace(b"parquet-cpp", b"parquet-CPP"))
    os.utime(path, ns=(found.st_atime_ns, found.st_mtime_ns))
    with pytest.raises(UnlikelyInput, match=f"s3://{bucket}/ratings"):
        nightly(settings, LAST)


def test_only_what_is_new_or_changed_is_fetched_and_what_vanished_goes(
    store: Store, bucket: str, tmp_path: Path
) -> None:
    cache, url = tmp_path / "cache", f"s3://{bucket}/ratings"
    store.put(bucket, "ratings/_hidden.parquet", b"x")
    store.put(bucket, "ratings/notes.txt", b"x")
    remote.fetch([url, f"s3://{bucket}/movies.parquet"], cache, 0)
    first = cached(cache)
    names = ["movies.parquet", *(f"ratings/part={number}/all.parquet" for number in (1, 2))]
    assert sorted(first) == [f"s3/{bucket}/{name}" for name in names]
    assert first[f"s3/{bucket}/movies.parquet"] == store.read(bucket, "movies.parquet")
    store.client.delete_object(Bucket=bucket, Key="ratings/part=1/all.parquet")
    store.put(bucket, "ratings/part=3/all.parquet", b"new")
    store.put(bucket, "movies.parquet", b"changed")
    (cache / "s3" / bucket / ".draft-0-of-a-fetch-that-was-killed").write_bytes(b"x")
    store.asked.clear()
    remote.fetch([url, f"s3://{bucket}/movies.parquet"], cache, 0)
    gets = [request for request in store.asked if request.startswith("GET") and "list-type" not in request]
    assert sorted(gets) == [f"GET /{bucket}/movies.parquet", f"GET /{bucket}/ratings/part%3D3/all.parquet"]
    left = {"ratings/part=2/all.parquet": first[f"s3/{bucket}/{names[2]}"], "ratings/part=3/all.parquet": b"new"}
    assert cached(cache) == {
        f"s3/{bucket}/{name}": held for name, held in {**left, "movies.parquet": b"changed"}.items()
    }


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("a", ["a/b/two.parquet", "a/one.parquet"]),
        ("a/", ["a/b/two.parquet", "a/one.parquet"]),
        ("a/*.parquet", ["a/one.parquet"]),
        ("a/**/*.parquet", ["a/b/two.parquet", "a/one.parquet"]),
        ("a/*/*", ["a/b/two.parquet"]),
        ("?/[no]*.parquet", ["a/one.parquet"]),
        ("a/notes", ["a/notes"]),
        ("", ["a/b/two.parquet", "a/one.parquet", "b%2E/three.parquet"]),
        ("b%2E/", ["b%2E/three.parquet"]),
    ],
)
def test_files_folders_and_globs_mean_what_they_mean_on_a_disk(
    store: Store, tmp_path: Path, pattern: str, expected: list[str]
) -> None:
    bucket = store.bucket()
    for key in (
        "a/one.parquet",
        "a/b/two.parquet",
        "a/notes",
        "a/_no.parquet",
        "a/.b/no.parquet",
        "x/../../up.parquet",
        "b%2E/three.parquet",
    ):
        store.put(bucket, key, b"x")
    url = f"s3://{bucket}/{pattern}"
    assert [one.key for one in remote.objects_of(url)] == expected
    remote.fetch([url], tmp_path / "cache", 0)
    assert len(cached(tmp_path / "cache")) == len(expected)
    assert not list(tmp_path.glob("*.parquet"))


@pytest.mark.faults("B5.2")
@pytest.mark.parametrize("key", ["../up.parquet", "a/../../../../up.parquet", "a//up.parquet", "a/./up.parquet"])
def test_keys_that_are_no_paths_lead_nowhere(store: Store, tmp_path: Path, key: str) -> None:
    bucket = store.bucket()
    store.put(bucket, key, b"x")
    with pytest.raises(InvalidInput, match="up.parquet"):
        remote.fetch([f"s3://{bucket}/{key}"], tmp_path / "cache", 0)
    with pytest.raises(InvalidInput):
        remote.fetch([f"s3://{bucket}"], tmp_path / "cache", 0)
    assert not list(tmp_path.parent.rglob("up.parquet"))


@pytest.mark.faults("B7.1", "B7.2", "B7.3")
@pytest.mark.parametrize(
    "fault",
    [
        {"kind": "503", "times": 3},
        {"kind": "429", "times": 3},
        {"kind": "500", "times": 3},
        {"kind": "cut", "match": r"GET \S*all.parquet", "after": 100, "times": 3},
        {"kind": "cut", "match": "list-type", "after": 10, "times": 2},
        {"kind": "hang", "match": r"GET \S*movies.parquet", "times": 1},
    ],
    ids=lambda fault: fault["kind"],
)
def test_a_store_that_fails_for_a_while_is_asked_again(
    store: Store, bucket: str, files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: dict[str, Any]
) -> None:
    monkeypatch.setattr(objects, "SILENCE", 1)
    broken = store.fails(**fault)
    remote.fetch([f"s3://{bucket}/ratings", f"s3://{bucket}/movies.parquet"], tmp_path / "cache", 0)
    assert broken.times == 0
    held = cached(tmp_path / "cache")
    assert held[f"s3/{bucket}/movies.parquet"] == (files / "movies.parquet").read_bytes()
    assert len(held) == 3


NOWHERE = "http://127.0.0.1:9"


def unreachable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", NOWHERE)


def nowhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", NOWHERE)  # which goes before the other


def nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", "/nonexistent")


@pytest.mark.faults("B7.1", "B7.2", "B7.3", "B7.5")
@pytest.mark.parametrize(
    ("fault", "break_it", "url", "expected", "told", "hint"),
    [
        ({"kind": "503"}, None, "movies.parquet", StoreFailed, "503", "again"),
        ({"kind": "500"}, None, "ratings", StoreFailed, "500", "again"),
        ({"kind": "cut", "match": "GET .*movies", "after": 9}, None, "movies.parquet", StoreFailed, "partial", "again"),
        ({"kind": "hang"}, None, "movies.parquet", StoreFailed, "too slow", "network"),
        ({"kind": "301"}, None, "ratings/", StoreFailed, "another region", "AWS_REGION"),
        ({"kind": "403", "match": "HEAD"}, None, "movies.parquet", StoreForbidden, "forbidden", "s3:GetObject"),
        ({"kind": "403", "match": "list"}, None, "ratings/", StoreForbidden, "forbidden", "s3:ListBucket"),
        ({"kind": "403"}, nobody, "movies.parquet", StoreForbidden, "no credentials", "AWS_ACCESS_KEY_ID"),
        (
            None,
            unreachable,
            "movies.parquet",
            StoreFailed,
            "cannot be reached",
            f"{NOWHERE} was asked: is AWS_ENDPOINT_URL r",
        ),
        (
            None,
            nowhere,
            "movies.parquet",
            StoreFailed,
            "cannot be reached",
            f"{NOWHERE} was asked: is AWS_ENDPOINT_URL_S3 r",
        ),
        (None, None, "nothing.parquet", NoRatings, "no data files", "key"),
        (None, None, "../no-such-bucket/ratings", StoreMissing, "no bucket", "name"),
    ],
)
def test_a_store_that_goes_on_failing_is_given_up_with_what_to_do(
    store: Store,
    bucket: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    fault: dict[str, Any] | None,
    break_it: Callable[[pytest.MonkeyPatch], None] | None,
    url: str,
    expected: type[StorageError],
    told: str,
    hint: str,
) -> None:
    monkeypatch.setattr(objects, "SILENCE", 1)
    monkeypatch.setattr(objects, "TRIES", 2)
    if fault:
        store.fails(**fault)
    if break_it:
        break_it(monkeypatch)
    place = url.removeprefix("../") if url.startswith("..") else f"{bucket}/{url}"
    with pytest.raises(expected) as caught:
        remote.fetch([f"s3://{place}"], tmp_path / "cache", 0)
    assert type(caught.value) is expected
    assert told in str(caught.value)
    assert hint in caught.value.hint
    assert "s3://" in str(caught.value)
    assert exits.code(caught.value) == {StoreMissing: 2, NoRatings: 3}.get(expected, 6)
    assert cached(tmp_path / "cache") == {}


@pytest.mark.faults("B7.6")
def test_an_object_that_is_replaced_while_it_is_fetched_is_fetched_again_or_refused(
    store: Store, tmp_path: Path
) -> None:
    bucket, old, new = store.bucket(), b"o" * 5000, b"n" * 5000
    store.put(bucket, "one.parquet", old)
    store.fails("call", "GET .*one", times=1, call=lambda: store.put(bucket, "one.parquet", new))
    remote.fetch([f"s3://{bucket}/one.parquet"], tmp_path / "cache", 0)
    assert cached(tmp_path / "cache") == {f"s3/{bucket}/one.parquet": new}
    turns = iter(range(100))
    store.put(bucket, "one.parquet", b"again")
    store.fails("call", "GET .*one", call=lambda: store.put(bucket, "one.parquet", f"{next(turns):09}".encode()))
    with pytest.raises(InputChanging, match=f"s3://{bucket}/one.parquet changed"):
        remote.fetch([f"s3://{bucket}/one.parquet"], tmp_path / "cache", 0)


@pytest.mark.faults("B7.6")
def test_an_object_that_was_just_written_is_waited_for(store: Store, tmp_path: Path) -> None:
    bucket = store.bucket()
    store.put(bucket, "one.parquet", b"x")
    began = time.time()
    remote.fetch([f"s3://{bucket}/one.parquet"], tmp_path / "cache", 1.5)
    assert time.time() - began > 0.4  # a store counts in whole seconds
    store.fails("call", "HEAD", times=1, skip=1, call=lambda: store.put(bucket, "one.parquet", b"other"))
    store.put(bucket, "one.parquet", b"y")
    with pytest.raises(InputChanging, match="just now"):
        remote.fetch([f"s3://{bucket}/one.parquet"], tmp_path / "cache", 1.5)


def test_what_is_wrong_with_a_fetched_file_is_told_of_its_url(store: Store, bucket: str, tmp_path: Path) -> None:
    store.put(bucket, "ratings/part=3/all.parquet", b"PAR1 no more")
    settings = reading(f"s3://{bucket}", tmp_path / "state")
    with pytest.raises(InvalidInput) as caught:
        nightly(settings, LAST, Options(until="check"))
    url = f"s3://{bucket}/ratings/part=3/all.parquet"
    assert url in str(caught.value)
    assert caught.value.where["path"] == url
    (record,) = run.records(settings.journal, settings.lock)
    assert str(settings.cache) not in json.dumps(record)


@pytest.mark.faults("B2.3")
def test_a_cached_file_that_was_cut_is_fetched_again(store: Store, bucket: str, tmp_path: Path) -> None:
    settings = reading(f"s3://{bucket}", tmp_path / "state")
    check = Options(until="check")
    nightly(settings, LAST, check)
    path = settings.cache / "s3" / bucket / "ratings" / "part=1" / "all.parquet"
    whole = path.read_bytes()
    path.write_bytes(whole[:-9])
    nightly(settings, LAST, check)
    assert path.read_bytes() == whole


@pytest.mark.faults("B6.1", "B6.2")
def test_the_cache_holds_nobody_who_was_forgotten(bucket: str, tmp_path: Path) -> None:
    settings = reading(f"s3://{bucket}", tmp_path / "state")
    nightly(settings, LAST, Options(until="check"))
    assert cached(settings.cache)
    receipt = forget.forget(settings, ["7"])
    assert cached(settings.cache) == {}
    paths = [one["path"] for one in receipt["still_contain"]]
    assert paths == [f"s3://{bucket}/ratings/part={n}/all.parquet" for n in (1, 2)] + [f"s3://{bucket}/users.parquet"]
    assert all(one["rows"] for one in receipt["still_contain"])
    nightly(settings, LAST, Options(until="check"))
    assert cached(settings.cache) == {}


def test_doctor_asks_the_store_and_fetches_nothing(store: Store, bucket: str, tmp_path: Path) -> None:
    settings = reading(f"s3://{bucket}", tmp_path / "state")
    settings.state_dir.mkdir(mode=0o750)
    found = [one for one in doctor.examine(settings)["findings"] if one["check"] == "input"]
    assert [one["state"] for one in found] == ["good"] * 3
    assert f"ratings: 2 files, 0 MiB, at s3://{bucket}/ratings/*/*.parquet" in found[0]["message"]
    store.fails("403", "list-type")
    found = [one for one in doctor.examine(settings)["findings"] if one["check"] == "input"]
    assert [(one["state"], "s3:ListBucket" in one["hint"]) for one in found] == [("bad", True)]
    assert not settings.cache.exists()


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("http://host/ratings", "expected one of s3://"),
        ("s3://key:hunter22hunter@bucket/ratings", "credentials come from the environment"),
        ("s3:///ratings", "names no bucket"),
        ("file://host/ratings", "file:///"),
    ],
)
def test_a_url_that_cannot_be_used_is_a_setting_to_mend_and_no_password_is_quoted(url: str, told: str) -> None:
    with pytest.raises(InvalidSettings) as caught:
        configuration.load(None, {"RECJOB_INPUT_RATINGS": url})
    assert told in str(caught.value)
    assert "hunter22" not in str(caught.value)


def test_urls_do_not_count_from_the_folder_of_the_file_and_a_file_url_is_a_path(tmp_path: Path) -> None:
    file = tmp_path / "recjob.toml"
    file.write_text(
        '[input]\nratings = "s3://bucket/r?tings"\nmovies = "file:///data/my%20movies.csv"\nusers = "u.csv"\n'
    )
    settings = configuration.load(file, {})
    found = settings.input
    assert (found.ratings, found.movies, found.users) == (
        "s3://bucket/r?tings",
        "/data/my movies.csv",
        str(tmp_path / "u.csv"),
    )
    assert inputs.remote_sources(settings) == {"ratings": "s3://bucket/r?tings"}


@pytest.mark.faults("B5.7", "B7.5")
def test_the_command_says_what_to_do_and_no_secret(
    store: Store, bucket: str, settings: Settings, tmp_path: Path
) -> None:
    store.fails("403")
    env = environment(settings) | store.environment | {"RECJOB_INPUT_RATINGS": f"s3://{bucket}/ratings"}
    command = [sys.executable, "-m", "jobs.cli", "check", "--date", str(LAST), "--json", "--debug"]
    done = subprocess.run(command, env=env, capture_output=True, text=True)
    assert done.returncode == 6, done.stderr
    assert document(done)["error"]["kind"] == "E_STORE_FORBIDDEN"
    assert SECRET not in done.stdout + done.stderr
    assert all(SECRET not in path.read_text(errors="replace") for path in settings.state_dir.rglob("*.json"))
