"""What may be wrong with ratings is found in a bucket as on a disk: the same words of the URL, or the same night to the last bit."""

import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from conftest import LAST, environment, small_world
from objectstore import Store
from test_remote import own_files, reading

from jobs import exits, inputs
from jobs.nightly import Options, nightly
from jobs.run import watermark
from jobs.settings import Settings
from storage.errors import StorageError, UnlikelyInput

CHECK = Options(until="check")
FIRST_FILE, SECOND_FILE = "ratings/part=1/all.parquet", "ratings/part=2/all.parquet"
Damage = Callable[[Path], object]


def bytes_of(change: Callable[[bytes], bytes]) -> Damage:
    """Other bytes in the second file of ratings."""
    return lambda folder: (folder / SECOND_FILE).write_bytes(change((folder / SECOND_FILE).read_bytes()))


def flipped(content: bytes, where: int) -> bytes:
    found = bytearray(content)
    found[where] ^= 8
    return bytes(found)


def table_of(change: Callable[[pa.Table], pa.Table]) -> Damage:
    """Another table in the second file of ratings."""
    return lambda folder: pq.write_table(change(pq.read_table(folder / SECOND_FILE)), folder / SECOND_FILE)


def column(name: str, change: Callable[[pa.ChunkedArray], Any]) -> Damage:
    return table_of(lambda table: table.set_column(table.column_names.index(name), name, change(table[name])))


def some(value: Any, rows: int = 3) -> Callable[[pa.ChunkedArray], pa.Array]:
    """The value in the first rows of a column."""
    return lambda values: pa.array([value] * rows + values.to_pylist()[rows:], values.type)


def later(days: int) -> Callable[[pa.ChunkedArray], pa.ChunkedArray]:
    return lambda at: pc.add(at, pa.scalar(timedelta(days=days), pa.duration("us")))


def shuffled(folder: Path) -> None:
    """All rows twice, those of the first file among those of the second, in any order."""
    both = pa.concat_tables([pq.read_table(folder / name) for name in (FIRST_FILE, SECOND_FILE)] * 2)
    pq.write_table(both.take(np.random.default_rng(1).permutation(both.num_rows)), folder / SECOND_FILE)


def beside(folder: Path) -> None:
    """Files that are none of ours, and a folder that begins like ours."""
    for name in ("_temporary.parquet", ".part.parquet", "notes.txt"):
        (folder / "ratings" / "part=1" / name).write_text("not finished")
    shutil.copytree(folder / "ratings", folder / "ratings-of-last-year")


def empty(folder: Path) -> None:
    for name in (FIRST_FILE, SECOND_FILE):
        pq.write_table(pq.read_table(folder / name).slice(0, 0), folder / name)


def future(folder: Path) -> None:
    for name in (FIRST_FILE, SECOND_FILE):
        table = pq.read_table(folder / name)
        pq.write_table(table.set_column(3, "rated_at", later(30)(table["rated_at"])), folder / name)


def one_pair(folder: Path) -> None:
    shutil.rmtree(folder / "ratings" / "part=1")
    table_of(lambda table: table.slice(0, 1))(folder)


def bomb(folder: Path) -> None:
    pq.write_table(pa.table({name: [1] for name in (f"column {n}" for n in range(10_001))}), folder / SECOND_FILE)


DAMAGES: dict[str, Damage] = {
    "half a file": bytes_of(lambda content: content[: len(content) // 2]),
    "an empty file": bytes_of(lambda content: b""),
    "HTML": bytes_of(lambda content: b"<html>404</html>"),
    "a flipped footer": bytes_of(lambda content: flipped(content, len(content) - 30)),
    "a flipped page": bytes_of(lambda content: flipped(content, 200)),
    "no column of stars": table_of(lambda table: table.drop_columns("rating")),
    "a renamed column": table_of(lambda table: table.rename_columns(["user", *table.column_names[1:]])),
    "stars as words": column("rating", lambda stars: pa.array(["good"] * len(stars))),
    "files that disagree": column("user_id", lambda ids: ids.cast(pa.string())),
    "ids that are null": column("movie_id", some(None)),
    "stars that are no numbers": column("rating", some(float("nan"))),
    "rows after the watermark": column("rated_at", some(small_world().ratings["rated_at"][-1].as_py())),
    "a future half": column("rated_at", later(30)),
    "duplicates in any order": shuffled,
    "no file": lambda folder: shutil.rmtree(folder / "ratings"),
    "empty files": empty,
    "nothing but the future": future,
    "one user and one movie": one_pair,
    "10,001 columns": bomb,
    "files of others": beside,
    "seconds read as milliseconds": column("rated_at", lambda at: pa.array([1] * len(at), at.type)),
    "movies without ids": lambda folder: pq.write_table(pa.table({"title": ["A"]}), folder / "movies.parquet"),
    "a user twice": lambda folder: pq.write_table(
        pa.table({"user_id": pa.array([7, 7], pa.int64())}), folder / "users.parquet"
    ),
}


def put(store: Store, bucket: str, folder: Path) -> None:
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        store.put(bucket, str(path.relative_to(folder)), path)


def outcome(settings: Settings, root: str) -> Any:
    """What a night makes of its input, with the place of the files left out: digest, rows and refusals, or the error."""
    try:
        night = inputs.read(settings, watermark(LAST, "UTC"))
    except StorageError as error:
        return type(error), exits.code(error), str(error).replace(root, "")
    told = ("path", "sha256", "bytes", "rows", "rows_used", "rows_future", "rows_rejected")
    files = [[str(file[name]).replace(root, "") for name in told] for file in night.files]
    refused = [{**entry, "path": entry["path"].replace(root, "")} for entry in night.rejected]
    return night.digest, files, refused


@pytest.mark.faults("B2.1", "B2.3", "B2.4", "B2.5", "B2.6", "B2.8", "B2.9", "B2.11", "B2.13", "B2.17", "B2.18")
@pytest.mark.parametrize("name", DAMAGES)
def test_a_bucket_is_taken_or_refused_as_the_same_files_on_a_disk(store: Store, tmp_path: Path, name: str) -> None:
    folder, bucket = own_files(tmp_path / "files"), store.bucket()
    DAMAGES[name](folder)
    put(store, bucket, folder)
    here = outcome(reading(str(folder), tmp_path / "here", max_rejected=0.02), str(folder))
    there = outcome(reading(f"s3://{bucket}", tmp_path / "there", max_rejected=0.02), f"s3://{bucket}")
    assert there == here


@pytest.mark.faults("B2.15")
def test_mutations_of_a_good_file_have_the_same_outcome(store: Store, tmp_path: Path) -> None:
    folder, bucket, rng = own_files(tmp_path / "files"), store.bucket(), np.random.default_rng(5)
    put(store, bucket, folder)
    good, outcomes = (folder / SECOND_FILE).read_bytes(), set()
    for number in range(25):
        bad = bytearray(good)
        for place in rng.integers(0, len(bad), 1 + number % 3):
            bad[place] = rng.integers(256)
        (folder / SECOND_FILE).write_bytes(bad)
        store.put(bucket, SECOND_FILE, bytes(bad))
        here = outcome(reading(str(folder), tmp_path / "here"), str(folder))
        there = outcome(reading(f"s3://{bucket}", tmp_path / f"there {number}"), f"s3://{bucket}")
        assert there == here
        outcomes.add(str(here[0]))
    assert len(outcomes) > 1


@pytest.mark.faults("B2.10")
def test_a_tenth_of_the_rows_of_the_night_before_is_refused(store: Store, tmp_path: Path) -> None:
    folder, bucket = own_files(tmp_path / "files"), store.bucket()
    put(store, bucket, folder)
    settings = reading(f"s3://{bucket}", tmp_path / "state")
    nightly(settings, LAST - timedelta(days=1), Options(until="train"))
    one_pair(folder)
    store.put(bucket, SECOND_FILE, (folder / SECOND_FILE).read_bytes())
    store.client.delete_object(Bucket=bucket, Key=FIRST_FILE)
    with pytest.raises(UnlikelyInput, match="1 ratings; the last run, for 2026-03-09, had"):
        nightly(settings, LAST, CHECK)


@pytest.mark.faults("B1.1")
@pytest.mark.parametrize("skip", [0, 1, 3])
def test_a_night_that_is_killed_while_it_fetches_is_made_by_the_next_run(
    store: Store, tmp_path: Path, settings: Settings, skip: int
) -> None:
    folder, bucket = own_files(tmp_path / "files"), store.bucket()
    put(store, bucket, folder)
    named = {"ratings": "ratings/*/*.parquet", "movies": "movies.parquet", "users": "users.parquet"}
    env = environment(settings) | store.environment | {"RECJOB_INPUT_SETTLE_SECONDS": "0"}
    env |= {f"RECJOB_INPUT_{name.upper()}": f"s3://{bucket}/{path}" for name, path in named.items()}
    command = [sys.executable, "-m", "jobs.cli", "check", "--date", str(LAST), "--json"]
    hanging = store.fails("hang", "GET .*parquet$", skip=skip)
    with subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as child:
        patience = time.monotonic() + 60
        while hanging.times == 1_000_000 and time.monotonic() < patience:
            time.sleep(0.02)
        child.kill()
    assert hanging.times < 1_000_000
    store.faults.clear()
    assert subprocess.run(command, env=env, capture_output=True).returncode == 0
    assert outcome(reading(f"s3://{bucket}", settings.state_dir), f"s3://{bucket}") == outcome(
        reading(str(folder), tmp_path / "here"), str(folder)
    )
    assert not list(settings.cache.rglob(".draft*"))
