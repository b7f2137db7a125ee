"""What the documents say, done: every SQL block runs, every command exists, every exit code is in the table."""

import re
from pathlib import Path

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


def test_every_command_in_the_readme_exists() -> None:
    named = set(re.findall(r"(?:[`/]|^)recjob ([a-z]+)", (ROOT / "README.md").read_text(), re.MULTILINE))
    assert named - set(recjob.commands) == set()
    assert set(recjob.commands) - named == set()


def test_the_exit_codes_are_documented() -> None:
    table = (ROOT / "docs" / "operations.md").read_text()
    for code in {*exits.CODES.values(), exits.STALE, exits.PARTIAL}:
        assert f"| {code} |" in table
