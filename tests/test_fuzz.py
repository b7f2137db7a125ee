"""Damage and nonsense of every kind, by the hundred: a refusal or a result, never a traceback nor a dead process."""

import gzip
import json
import os
import random
import subprocess
import sys
from datetime import datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from jobs import exits

MUTATIONS, SEED = 500, 20_261
READ = """
import json, sys
from pathlib import Path
from storage import ratings
from storage.errors import InvalidInput
for path in sorted(Path(sys.argv[1]).iterdir()):
    print(json.dumps([path.name, "begun"]), flush=True)
    try:
        end = ratings.read(str(path), {}, before=None).table.num_rows
    except InvalidInput as error:
        end = error.kind if str(path) in str(error) else f"no path in: {error}"
    print(json.dumps([path.name, end]), flush=True)
"""
CLI = """
import io, json, logging, os, sys, warnings
from contextlib import redirect_stderr, redirect_stdout
from hypothesis import HealthCheck, given, settings, strategies as st
from jobs import cli
from jobs.commands import recjob
import click

SKIPPED = {("demo",), ("schedule", "run")}  # they would do what they are for
def leaves(command, path=()):
    if not isinstance(command, click.Group):
        return [] if path in SKIPPED else [(path, command)]
    return [leaf for name, inner in command.commands.items() for leaf in leaves(inner, (*path, name))]
COMMANDS = leaves(recjob)
WORDS = st.sampled_from(["", "-", "--", "-1", "0", "1e309", "nan", "2026-03-10", "2026-13-01", "today", "../..", "\\u202e", "a b",
    "'; DROP TABLE runs; --", "SELECT 1", "champion", "x=y", "=", "*", "[", "a" * 5000, "\\udcff", "1" * 400, "-c", "/dev/null",
    "2026-03-10T00:00Z", "9999-12-31T23:59-23:59", "0001-01-01T00:00+23:59", "28h", "/proc/self/mem", "nowhere/x.csv"])
TEXT = WORDS | st.text(st.characters(exclude_characters="\\0", exclude_categories=["Cs"]), max_size=20).filter(lambda t: not t.startswith("movielens"))

@st.composite
def lines(draw):
    path, command = draw(st.sampled_from(COMMANDS))
    names = [name for p in command.params for name in p.opts if name.startswith("-") and name != "--debug"]
    option = st.tuples(st.sampled_from(names), TEXT) | st.sampled_from(names).map(lambda n: (n,)) | TEXT.map(lambda t: (t,))
    given = [word for part in draw(st.lists(option, max_size=4)) for word in part]
    return [*draw(st.lists(TEXT, max_size=1)), *path, *given] if draw(st.integers(0, 9)) == 0 else [*path, *given]

@settings(max_examples=int(sys.argv[1]), deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck))
@given(lines())
def fuzz(line):
    sys.argv = ["recjob", *line]
    out, err = io.TextIOWrapper(io.BytesIO(), "utf-8"), io.TextIOWrapper(io.BytesIO(), "utf-8", "backslashreplace")
    with redirect_stdout(out), redirect_stderr(err):
        try:
            cli.main()
        except SystemExit as stop:
            code = stop.code or 0
    err.flush()
    said = err.buffer.getvalue().decode()
    assert code in CODES and "Traceback" not in said, (code, line, said)
    seen[code] = seen.get(code, 0) + 1

seen, CODES = {}, json.loads(sys.argv[2])
real = sys.stdout
fuzz()
print(json.dumps(seen), file=real)
"""


def good(folder: Path) -> dict[str, bytes]:
    """Files as others write them: several row groups, dictionaries, text and numbers; CSV plain and packed."""
    users = [f"user-{number % 97}" for number in range(2000)]
    stars = pa.array([float(1 + number % 5) for number in range(2000)], pa.float32())
    at = [datetime(2026, 3, 1) + timedelta(minutes=number) for number in range(2000)]
    columns = {
        "user_id": users,
        "movie_id": [number * 7 % 301 for number in range(2000)],
        "rating": stars,
        "rated_at": at,
    }
    for codec in ("zstd", "snappy", "none"):
        pq.write_table(pa.table(columns), folder / codec, compression=codec, row_group_size=700)
    rows = [f"{user},{movie},{4},{time}" for user, movie, time in zip(users, columns["movie_id"], at, strict=True)]
    text = "\n".join(["user_id,movie_id,rating,rated_at", *rows]).encode()
    packed = {f"{codec}.parquet": (folder / codec).read_bytes() for codec in ("zstd", "snappy", "none")}
    return packed | {"text.csv": text, "packed.csv.gz": gzip.compress(text, mtime=0)}


def mutated(content: bytes, chance: random.Random) -> bytes:
    """The content with one to four places flipped, cut out, doubled, replaced or swapped; footers, at the end, most often."""
    damaged = bytearray(content)
    for _ in range(chance.randint(1, 4)):
        near_end = chance.random() < 0.5
        at = max(0, len(damaged) - 1 - int(chance.expovariate(1 / 300))) if near_end else chance.randrange(len(damaged))
        size = chance.choice([1, 1, 1, 4, 64, 1000])
        kind = chance.randrange(5)
        if kind == 0:
            damaged[at] ^= 1 << chance.randrange(8)
        elif kind == 1:
            damaged[at : at + size] = chance.randbytes(min(size, len(damaged) - at))
        elif kind == 2:
            del damaged[at : at + size]
        elif kind == 3:
            damaged[at:at] = damaged[chance.randrange(len(damaged)) :][:size]
        else:
            damaged[at : at + size] = bytes([chance.choice([0, 255, 127])]) * size
        damaged = damaged or bytearray(b"\0")
    return bytes(damaged)


@pytest.mark.slow
@pytest.mark.parametrize("suffix", ["parquet", "csv"])
@pytest.mark.faults("B2.15")
def test_five_hundred_mutations_are_refused_or_read(tmp_path: Path, suffix: str) -> None:
    chance, folder = random.Random(SEED), tmp_path / "mutations"
    folder.mkdir()
    files = {name: content for name, content in good(tmp_path).items() if f".{suffix}" in name}
    for number in range(MUTATIONS):
        name = chance.choice(sorted(files))
        (folder / f"{number:03}-{name}").write_bytes(mutated(files[name], chance))
    done = subprocess.run([sys.executable, "-c", READ, str(folder)], capture_output=True, text=True, timeout=280)
    ends = dict(json.loads(line) for line in done.stdout.splitlines())
    assert done.returncode == 0, f"{list(ends)[-1:]}: {done.stderr[-2000:]}"
    assert len(ends) == MUTATIONS
    kinds = {end if isinstance(end, str) else "read" for end in ends.values()}
    assert kinds <= {"read", "E_INPUT", "E_INPUT_LIMIT", "E_NO_RATINGS"}, kinds
    assert sum(end == "E_INPUT" for end in ends.values()) > MUTATIONS / 4


@pytest.mark.slow
@pytest.mark.faults("B2.15")
def test_no_command_line_ends_in_a_traceback_or_an_unknown_code(tmp_path: Path) -> None:
    known = sorted({*exits.CODES.values(), exits.DONE, exits.STALE, exits.PARTIAL} - {exits.BUG})
    command = [sys.executable, "-W", "ignore", "-c", CLI, "400", json.dumps(known)]
    environment = os.environ | {"RECJOB_STATE_DIR": str(tmp_path / "state")}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stderr[-4000:]
    codes = json.loads(done.stdout.splitlines()[-1])
    assert codes[str(exits.USAGE)] > 20
    assert {str(exits.DONE), str(exits.INPUT), str(exits.NOT_FOUND)} <= codes.keys()
