"""What the documents say, done: every block runs and prints what they say, every command exists, the site builds."""

import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from datetime import timedelta
from pathlib import Path
from typing import Any

import documents
import duckdb
import pytest
from conftest import FAST, LAST, real_data, world_in
from test_cli import parsed

from jobs import configuration
from jobs.commands import recjob
from jobs.nightly import Options, nightly

ROOT = documents.ROOT


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    settings = world_in(tmp_path_factory.mktemp("docs") / "state")
    for days in (1, 0):
        nightly(settings, LAST - timedelta(days=days))
    return settings.database


def queries() -> list[str]:
    """The queries of the documents, as they are asked of the small world."""
    bodies = [block.body for block in all_blocks("sql") if block.reason is None]
    return [body.replace("= 42", "= 7").replace("1998-04-21", str(LAST)) for body in bodies]


def all_blocks(*kinds: str) -> list[documents.Block]:
    return [block for name in documents.documents() for block in documents.blocks(name) if block.kind in kinds]


@pytest.mark.faults("B6.10")
def test_every_query_in_the_documents_runs(published: Path) -> None:
    assert len(queries()) >= 15
    with duckdb.connect(str(published), read_only=True) as connection:
        answered = sum(len(connection.execute(query).fetchall()) > 0 for query in queries())
    assert answered >= len(queries()) - 2  # nobody has a short list here, and no night was refused


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.faults("B6.10")
def test_what_the_documents_say_is_what_is_printed(tmp_path: Path) -> None:
    wrong = [
        f"{block.document}:{block.line}\n{block.printed}"
        for block, said in documents.followed(tmp_path, real_data("ml-100k.zip").parent)
        if said is not None and not documents.same(said, block.printed or "")
    ]
    assert wrong == [], "python tests/documents.py writes what is printed into the documents"


def test_every_block_is_run_or_says_why_not() -> None:
    for block in all_blocks("sh", "sql", "python", "console"):
        assert block.reason or block.document in documents.FOLDERS, f"{block.document}:{block.line}"
        assert "recjob" in block.body or block.kind != "sh" or not block.printed or block.reason, block
    fences = re.compile(r"^```(?!text|sh|sql|python|toml|console|json|\{)(\S+)", re.MULTILINE)
    for name in documents.documents():
        assert fences.findall((ROOT / name).read_text()) == [], name


def test_every_call_of_recjob_in_the_documents_parses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    calls = [
        (block, line)
        for block in all_blocks("sh")
        for line in re.split(r"\n(?=\S)|&& (?=recjob)", block.body.replace("\\\n", ""))
        if re.match(r"(\S+/)?recjob ", line)
    ]
    assert len(calls) > 30
    for block, line in calls:
        assert parsed(line), f"{block.document}:{block.line}"


def test_every_setting_in_the_documents_exists(tmp_path: Path) -> None:
    found = [block.body for block in all_blocks("toml")]
    assert len(found) > 3
    for number, body in enumerate(found):
        tomllib.loads(body)
        file = tmp_path / f"{number}.toml"
        file.write_text(body)
        configuration.load(file, {})


def test_outputs_are_compared_but_for_what_is_new_each_time() -> None:
    run = "run  20261125T153052614Z-c694a7  1998-04-21  {}  4.24\n"
    other = "run         20261126T010203004Z-aaaaaa  1998-04-21  {}  4.25\n"
    assert documents.same(run.format("model"), other.format("model"))
    assert not documents.same(run.format("model"), other.format("cold_user"))
    assert not documents.same("rank 4.24\n", "rank 4.74\n")
    assert not documents.same("rows 940\n", "rows 943\n")
    assert not documents.same("as of 1998-04-21\n", "as of 1998-04-22\n")
    assert documents.same("check    done      2.014  99464  176\n", "check done 1.1 99464 215\n")
    listed = "20261125T153052614Z-c694a7  1998-04-21  published  manual   19980421-c7c879bd      940  {}\n"
    assert documents.same(listed.format(983), listed.format(977))
    table = "rank  title\n   1  {}\n   2  {}\n   3  c\n   4  d\n"
    assert documents.same(table.format("a", "b"), table.format("b", "a"))
    assert not documents.same(table.format("a", "b"), table.format("b", "a").replace("c", "e"))
    assert documents.same("a\n...\nd\n", "a\nb\nc\nd\n")
    assert not documents.same("a\n...\nd\n", "a\nb\nc\n")
    assert not documents.same("a\n", "a\nb\n")
    assert documents.shortened("x\n...\ny\n", "a\nb\nc\nd\n") == "a\n...\nd\n"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site, built with every warning an error: links to pages and headings that are not there, pages out of reach."""
    target = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", "-d", str(target / "doctrees"), "docs"]
    done = subprocess.run([*command, str(target / "html")], cwd=ROOT, capture_output=True, text=True, env=os.environ)
    assert done.returncode == 0, done.stderr
    return target / "html"


def test_the_reference_has_every_command_setting_table_and_code(site: Path) -> None:
    def page(name: str) -> str:
        return re.sub(r"<[^>]+>", "", (site / "reference" / f"{name}.html").read_text())

    assert all(f"recjob {name}" in page("commands") for name in recjob.commands)
    assert all(key.rpartition(".")[2] in page("settings") for key in configuration.known_keys())
    assert "Movies per user, 1 to 1000." in page("settings")
    assert "The newest published date, with titles. Most users only need this." in page("tables")
    assert "another run holds the lock" in page("exit-codes")
    assert "E_INPUT_UNLIKELY" in page("exit-codes")
    assert "model.registered" in page("log-events")


def test_a_page_that_is_filled_in_says_what_prints_it_where_it_is_not() -> None:
    parts = set()
    for page in sorted((ROOT / "docs").rglob("*.md")):
        text = page.read_text()
        found = re.findall(r"<!-- generated: (\w+) -->", text)
        assert not found or f"`python docs/generated.py {' '.join(found)}`" in text, page
        parts.update(found)
    assert len(parts) >= 7
    command = [sys.executable, "docs/generated.py", "exit_codes", "settings"]
    printed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert "another run holds the lock" in printed
    assert "`keep_files`" in printed


def test_every_setting_has_a_meaning() -> None:
    sys.path.insert(0, str(ROOT / "docs"))
    import generated

    rows: list[Any] = [line for line in generated.settings().splitlines() if line.startswith("| `")]
    assert len(rows) == len(configuration.known_keys())
    assert [row for row in rows if row.rstrip(" |").endswith("`")] == []


def test_pages_ask_the_network_for_nothing(site: Path) -> None:
    for page in site.rglob("*.html"):
        assert re.findall(r"<(?:script|link|img)[^>]+(?:src|href)=\"(?:https?:)?//", page.read_text()) == [], page


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

    shutil.copytree(published.parent, tmp_path / "state", symlinks=True)
    shown = configuration.load(None, {}, FAST | {"state_dir": tmp_path / "state", "publish.mode": "attach"})
    nightly(shown, LAST, Options(force="to show the lists where they are staged"))

    def ask(database: Path, **environ: str) -> list[Any]:
        asked = json.dumps(queries())
        child = [sys.executable, "-c", ASK, str(database)]
        done = subprocess.run(child, input=asked, env=os.environ | environ, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stderr
        return list(json.loads(done.stdout))

    for database in (published, shown.database):
        older, newer = ask(database, PYTHONPATH=str(tmp_path)), ask(database)
        assert older[0] == OLDER
        assert newer[0] == duckdb.__version__ != OLDER
        assert older[1:] == newer[1:]


def test_every_command_in_the_readme_exists() -> None:
    named = set(re.findall(r"(?:[`/]|^)recjob ([a-z]+)", (ROOT / "README.md").read_text(), re.MULTILINE))
    assert named - set(recjob.commands) == set()
    assert set(recjob.commands) - named == set()
