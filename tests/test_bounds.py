"""Files that unpack to more than they look like are refused quickly, before they fill the memory."""

import gzip
import json
import subprocess
import sys
from datetime import date
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from storage import ratings
from storage.errors import InputLimit, InvalidInput

DAY = date(2026, 3, 1)
HEADER = "user_id,movie_id,rating,rated_at\n"
READ = """
import json, re, sys, time
from pathlib import Path
from storage import ratings
from storage.errors import InvalidInput
def peak(): return int(re.search(r"VmHWM:\\s*(\\d+) kB", Path("/proc/self/status").read_text())[1]) / 1024
ratings.read(sys.argv[1], {}, before=None)  # a good one: what reading takes anyhow
base = peak()
for path in sys.argv[2:]:
    began = time.perf_counter()
    try:
        kind, said = "read", ratings.read(path, {}, before=None).table.num_rows
    except InvalidInput as error:
        kind, said = error.kind, str(error)
    print(json.dumps([path, kind, said, time.perf_counter() - began, peak() - base]), flush=True)
"""


def outcomes(good: Path, *bombs: Path) -> dict[str, list[Any]]:
    """Kind, message, seconds and MiB more than before, by the name of the file, from a process of its own."""
    command = [sys.executable, "-c", READ, str(good), *map(str, bombs)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return {Path(path).name: said for path, *said in map(json.loads, done.stdout.splitlines())}


def columns(rows: int, **others: Any) -> pa.Table:
    usual = {"user_id": pa.repeat(pa.scalar(1, pa.int8()), rows), "movie_id": pa.repeat(pa.scalar(1, pa.int8()), rows)}
    usual |= {"rating": pa.repeat(pa.scalar(4, pa.int8()), rows), "rated_at": pa.repeat(pa.scalar(DAY), rows)}
    return pa.table(usual | others)


def good(folder: Path) -> Path:
    pq.write_table(columns(1000, movie_id=list(range(1000))), folder / "good.parquet")
    return folder / "good.parquet"


def rows(path: Path) -> None:
    million = columns(1_000_000)
    with pq.ParquetWriter(path, million.schema, compression="zstd", write_statistics=False) as writer:
        for _ in range(200):
            writer.write_table(million, row_group_size=1_000_000)


def strings(path: Path) -> None:
    texts = pa.DictionaryArray.from_arrays(pa.array([0] * 20, pa.int32()), ["a" * 50_000_000])
    pq.write_table(columns(20, user_id=texts), path, compression="zstd", write_statistics=False)
    assert path.stat().st_size < 4096


def distinct_strings(path: Path) -> None:
    texts = [chr(97 + letter) * 50_000_000 for letter in range(6)]
    table = columns(6, user_id=texts)
    pq.write_table(table, path, compression="zstd", use_dictionary=False, write_statistics=False)


def wide(path: Path) -> None:
    pq.write_table(columns(1, **{f"c{number}": [1] for number in range(10_000)}), path)


def packed_csv(path: Path) -> None:
    line = b"1,1,4,1767225600\n"
    with gzip.open(path, "wb", compresslevel=6) as packed:
        packed.write(HEADER.encode())
        for _ in range(100):
            packed.write(line * 60_000)


def forged(path: Path) -> None:
    """The footer says that there are 134 million rows where there are two, in each of ten places."""
    rows = 2_000_003
    pq.write_table(columns(rows), path, row_group_size=rows)
    content = path.read_bytes()
    footer = len(content) - 8 - int.from_bytes(content[-8:-4], "little")
    path.write_bytes(content[:footer] + content[footer:].replace(varint(rows), varint(134_000_000)))


def varint(number: int) -> bytes:
    """As Thrift's compact protocol writes a number."""
    left, written = 2 * number, bytearray()
    while left > 127:
        written.append(left & 127 | 128)
        left >>= 7
    return bytes([*written, left])


BOMBS = {
    "rows.parquet": rows,
    "strings.parquet": strings,
    "distinct.parquet": distinct_strings,
    "wide.parquet": wide,
    "forged.parquet": forged,
    "packed.csv.gz": packed_csv,
}


@pytest.mark.slow
@pytest.mark.faults("B2.13")
def test_bombs_are_refused_quickly_and_without_their_memory(tmp_path: Path) -> None:
    for name, write in BOMBS.items():
        write(tmp_path / name)
    found = outcomes(good(tmp_path), *(tmp_path / name for name in BOMBS))
    assert {name: said[0] for name, said in found.items()} == dict.fromkeys(BOMBS, "E_INPUT_LIMIT")
    for name, (_, message, seconds, more) in found.items():
        assert name in message
        assert seconds < 10, name
        assert more < 1024, name


@pytest.mark.faults("B2.13")
def test_a_schema_nested_five_hundred_deep_is_refused(tmp_path: Path) -> None:
    kind = pa.float32()
    for _ in range(500):
        kind = pa.struct([("in", kind)])
    pq.write_table(columns(1, rating=pa.nulls(1, kind)), tmp_path / "deep.parquet")
    with pytest.raises(InvalidInput, match=r"deep\.parquet cannot be read as Parquet: .*nested"):
        ratings.read(str(tmp_path / "deep.parquet"), {}, before=None)


@pytest.mark.faults("B2.13")
def test_a_footer_that_says_a_few_rows_more_than_there_are_is_damage(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    pq.write_table(columns(1000), path)
    content = path.read_bytes()
    footer = len(content) - 8 - int.from_bytes(content[-8:-4], "little")
    path.write_bytes(content[:footer] + content[footer:].replace(varint(1000), varint(1001)))
    with pytest.raises(InvalidInput, match=r"a\.parquet cannot be read as Parquet"):
        ratings.read(str(path), {}, before=None)


@pytest.mark.faults("B2.13")
def test_an_id_that_is_too_long_is_named_and_the_longest_is_not_cut(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    pq.write_table(columns(2, user_id=["b", "a" * 4097]), path)
    with pytest.raises(InvalidInput, match="column 'user_id' is an id of 4,097 bytes in row 2"):
        ratings.read(str(path), {}, before=None)
    pq.write_table(columns(2, user_id=["b", "a" * 4096]), path)
    assert sorted(ratings.read(str(path), {}, before=None).table["user_id"].to_pylist()) == ["a" * 4096, "b"]


def test_ten_thousand_columns_of_csv_are_refused(tmp_path: Path) -> None:
    names = [f"c{number}" for number in range(10_000)]
    (tmp_path / "a.csv").write_text(",".join([HEADER.strip(), *names]) + "\n1,1,4,1767225600" + ",1" * 10_000 + "\n")
    with pytest.raises(InputLimit, match="10,004 columns"):
        ratings.read(str(tmp_path / "a.csv"), {}, before=None)


def test_what_packs_well_and_is_not_much_is_read(tmp_path: Path) -> None:
    pq.write_table(columns(5_000_000), tmp_path / "a.parquet", compression="zstd")
    assert ratings.read(str(tmp_path), {}, before=None).files[0]["rows"] == 5_000_000
