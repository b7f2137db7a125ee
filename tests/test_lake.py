"""The ratings lake: appending twice changes nothing, and what was written can be trusted."""

import random
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import small_world

from storage import lake, parquet, ratings
from storage.catalogue import Catalogue
from storage.errors import InvalidInput


def content(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*.parquet"))}


def rows(folder: Path) -> pa.Table:
    return ratings.read(str(folder / "ratings"), {}, before=None).table


def test_appending_twice_changes_nothing(tmp_path: Path) -> None:
    assert lake.append(tmp_path, small_world()).added == 600
    before = content(tmp_path)
    assert lake.append(tmp_path, small_world()).added == 0
    assert content(tmp_path) == before


def test_an_increment_is_a_small_append(tmp_path: Path) -> None:
    world = small_world()
    lake.append(tmp_path, Catalogue(world.ratings.slice(0, 590)))
    before = content(tmp_path)
    done = lake.append(tmp_path, world)
    assert (done.added, len(done.files)) == (10, 1)
    assert {name: content(tmp_path)[name] for name in before} == before


@pytest.mark.parametrize("seed", range(5))
def test_neither_order_nor_the_number_of_appends_matters(tmp_path: Path, seed: int) -> None:
    world = small_world()
    lake.append(tmp_path / "whole", world)
    shuffled = list(range(600))
    random.Random(seed).shuffle(shuffled)
    mixed = world.ratings.take(pa.array(shuffled))
    for start in range(0, 600, 200):
        lake.append(tmp_path / "parts", Catalogue(mixed.slice(start, 250)))
    assert rows(tmp_path / "parts").equals(rows(tmp_path / "whole"))


def test_months_are_counted_in_utc(tmp_path: Path) -> None:
    at = pa.array(
        [datetime(2026, 1, 31, 23, 59, 59, tzinfo=UTC), datetime(2026, 2, 1, tzinfo=UTC)], pa.timestamp("us", "UTC")
    )
    columns = {"user_id": [1, 1], "movie_id": [1, 2], "rating": pa.array([1, 2], pa.float32()), "rated_at": at}
    lake.append(tmp_path, Catalogue(pa.table(columns)))
    assert [path.name for path in sorted((tmp_path / "ratings").iterdir())] == ["month=2026-01", "month=2026-02"]


def test_files_are_zstd_and_a_flipped_bit_is_found(tmp_path: Path) -> None:
    (file,) = lake.append(tmp_path, small_world()).files
    chunk = pq.ParquetFile(file).metadata.row_group(0).column(2)
    assert chunk.compression == "ZSTD"
    content = bytearray(file.read_bytes())
    content[chunk.data_page_offset + chunk.total_compressed_size // 2 + 10] ^= 1
    file.write_bytes(content)
    with pytest.raises(InvalidInput, match=file.name):
        parquet.read(file)


def test_ids_keep_their_type_and_are_not_mixed(tmp_path: Path) -> None:
    lake.append(tmp_path, small_world(text_ids=True))
    assert rows(tmp_path).schema.field("user_id").type == pa.string()
    with pytest.raises(InvalidInput, match="user_id is int64 in the source and string in the lake"):
        lake.append(tmp_path, small_world())


def test_movies_and_users_are_merged_by_id_and_the_earlier_joining_stays(tmp_path: Path) -> None:
    def users(day: int, ages: dict[int, int]) -> Catalogue:
        at = pa.array([datetime(2026, 3, day, tzinfo=UTC)] * len(ages), pa.timestamp("us", "UTC"))
        table = pa.table({"user_id": list(ages), "age": pa.array(ages.values(), pa.int16()), "joined_at": at})
        return Catalogue(small_world().ratings, None, table)

    lake.append(tmp_path, users(5, {1: 30, 2: 40}))
    assert lake.append(tmp_path, users(7, {2: 41, 3: 50})).users == 3
    kept = parquet.read(tmp_path / "users.parquet").to_pylist()
    assert [(user["user_id"], user["age"], user["joined_at"].day) for user in kept] == [
        (1, 30, 5),
        (2, 41, 5),
        (3, 50, 7),
    ]
