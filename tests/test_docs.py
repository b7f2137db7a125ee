"""What the documents say, done: every SQL block runs, every command exists, every exit code is in the table."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import duckdb
import pytest
from conftest import LAST, world_in

from jobs import exits
from jobs.commands import recjob
from jobs.nightly import nightly

ROOT = Path(__file__).resolve().parents[1]
SQL = re.compile(r"```sql\n(.*?)```", re.DOTALL)


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from datetime import timedelta

    settings = world_in(tmp_path_factory.mktemp("docs") / "state")
    for days in (1, 0):
        nightly(settings, LAST - timedelta(days=days))
    return settings.database


def blocks() -> list[str]:
    return [block for name in ("README.md", "docs/sql.md") for block in SQL.findall((ROOT / name).read_text())]


@pytest.mark.faults("B6.10")
def test_every_query_in_the_documents_runs(published: Path) -> None:
    assert len(blocks()) >= 15
    answered = 0
    with duckdb.connect(str(published), read_only=True) as connection:
        for block in blocks():
            answered += len(connection.execute(block.replace("= 42", "= 7")).fetchall()) > 0
    assert answered >= len(blocks()) - 2  # nobody has a short list here, and no night was refused


OLDER = "1.5.6"
ASK = """
import json, sys
import duckdb
with duckdb.connect(sys.argv[1], read_only=True) as connection:
    print(json.dumps([duckdb.__version__, *(len(connection.execute(block).fetchall()) for block in json.load(sys.stdin))]))
"""


@pytest.mark.slow
def test_duckdb_1_5_answers_every_query_in_the_documents_alike(published: Path, tmp_path: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "--quiet",
        "--no-deps",
        "--target",
        str(tmp_path),
        f"duckdb=={OLDER}",
    ]
    installed = subprocess.run(command, capture_output=True, text=True, timeout=200)
    if installed.returncode:
        pytest.skip(f"DUCKDB {OLDER} WAS NOT TRIED, as pip could not install it: {installed.stderr.strip()[-200:]}")

    def ask(**environ: str) -> list[Any]:
        asked = json.dumps([block.replace("= 42", "= 7") for block in blocks()])
        child = [sys.executable, "-c", ASK, str(published)]
        done = subprocess.run(child, input=asked, env=os.environ | environ, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stderr
        return list(json.loads(done.stdout))

    older, newer = ask(PYTHONPATH=str(tmp_path)), ask()
    assert older[0] == OLDER
    assert newer[0] == duckdb.__version__ != OLDER
    assert older[1:] == newer[1:]


def test_every_command_in_the_readme_exists() -> None:
    named = set(re.findall(r"(?:[`/]|^)recjob ([a-z]+)", (ROOT / "README.md").read_text(), re.MULTILINE))
    assert named - set(recjob.commands) == set()
    assert set(recjob.commands) - named == set()


def test_the_exit_codes_are_documented() -> None:
    table = (ROOT / "docs" / "operations.md").read_text()
    for code in {*exits.CODES.values(), exits.STALE, exits.PARTIAL}:
        assert f"| {code} |" in table
