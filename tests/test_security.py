"""Hostile data, names and surroundings: data stays data, nothing leaves the state folder, nothing asks the network."""

import csv
import io
import json
import re
import shutil
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import straced
from conftest import LAST, document, environment, small_world
from worlds import publish, staged

from jobs import card, registry, show
from jobs.nightly import nightly
from jobs.settings import Settings
from storage import answers, models, warehouse
from storage.catalogue import Catalogue
from storage.errors import NotFound, QueryRefused

ROOT = Path(__file__).resolve().parents[1]
Recjob = Callable[..., subprocess.CompletedProcess[str]]
SQL_ID = "x'; DROP TABLE runs;--"
SQL_TITLE = '"; DROP TABLE movies; -- \x1b[31mred\x1b]0;owned\x07\n=HYPERLINK("http://x") <script>alert(1)</script>'
SECRET = "sesame-4711-canary"


def hostile() -> Catalogue:
    """The small world with SQL for user 7 and in every title."""
    made = small_world(text_ids=True)
    assert made.movies is not None
    users = pa.array([SQL_ID if one == "id-7" else one for one in made.ratings["user_id"].to_pylist()])
    titles = pa.array([f"{SQL_TITLE} {number}" for number in range(made.movies.num_rows)])
    return Catalogue(made.ratings.set_column(0, "user_id", users), made.movies.set_column(1, "title", titles))


@pytest.mark.faults("B5.1", "B5.11")
def test_sql_in_ids_titles_columns_and_names_is_data_for_a_whole_night(tmp_path: Path, recjob: Recjob) -> None:
    made, column = hostile(), 'u"; DROP TABLE runs;--'
    pq.write_table(made.ratings.rename_columns([column, *made.ratings.column_names[1:]]), tmp_path / "own.parquet")
    pq.write_table(made.movies, tmp_path / "movies.parquet")
    lines = ["[input]", 'ratings = "own.parquet"', 'movies = "movies.parquet"', "[input.columns]"]
    (tmp_path / "recjob.toml").write_text("\n".join([*lines, f"user_id = {json.dumps(column)}"]))
    done = recjob("nightly", "--date", str(LAST), "--json")
    assert done.returncode == 0, done.stderr
    found = document(recjob("recommend", "--user", SQL_ID, "--json"))
    assert (found["user_id"], len(found["recommendations"])) == (SQL_ID, 5)
    for name in ("x' OR 1=1 --", "'; DROP TABLE runs;--"):
        assert recjob("runs", "show", name).returncode == 8
        assert recjob("rollback", "--to", name).returncode == 8
        assert recjob("models", "show", name).returncode == 8
        assert recjob("recommend", "--user", name).returncode == 8
    tables = document(recjob("query", "SELECT count(*) FROM duckdb_tables()", "--json"))["rows"]
    wanted = len(re.findall("CREATE TABLE", (ROOT / "sql" / "tables.sql").read_text()))
    assert tables == [[wanted]]
    shown = recjob("recommend", "--user", SQL_ID).stdout
    assert len(shown.splitlines()) == 3 + 5
    assert "\x1b" not in shown
    assert "\x07" not in shown
    (tmp_path / "recjob.toml").write_text("\n".join([*lines, 'user_id = "nobody\'s"']))
    missing = document(recjob("check", "--date", str(LAST), "--json"))
    assert (missing["exit_code"], missing["error"]["column"]) == (3, "nobody's")


@pytest.mark.faults("B5.11")
def test_text_that_would_run_somewhere_is_shown_as_text() -> None:
    rows = {"columns": ["=a", "title"], "rows": [["=HYPERLINK(1)", "line\nbreak"], ["@SUM(1)", "\x1b[31m"], [-5, "+1"]]}
    plain = list(csv.reader(io.StringIO(show.rows(rows, "csv"))))
    assert plain == [["'=a", "title"], ["'=HYPERLINK(1)", "line\nbreak"], ["'@SUM(1)", "\x1b[31m"], ["-5", "'+1"]]
    lines = show.rows(rows, "jsonl").split("\n")
    assert [json.loads(line)["title"] for line in lines] == ["line\nbreak", "\x1b[31m", "+1"]
    assert "\x1b" not in show.rows(rows, "jsonl") + show.rows(rows, "table")
    assert len(show.rows(rows, "table").splitlines()) == 1 + 3


@pytest.mark.faults("B5.11")
def test_html_in_a_reason_is_text_in_the_model_card(settings: Settings) -> None:
    nightly(settings, LAST)
    champion = models.champion(settings.models)
    assert champion is not None
    models.amend(settings.models, champion.version, status="forced", note=f"{SQL_TITLE} | x")
    page = card.markdown(card.card(registry.shown(settings, "champion")))
    assert "<script" not in page
    assert "&lt;script" in page
    assert "\x1b" not in page
    assert all(line.endswith("|") for line in page.splitlines() if line.startswith("|"))


@pytest.mark.faults("B5.2")
def test_names_do_not_lead_out_of_the_state_folder(settings: Settings, tmp_path: Path) -> None:
    nightly(settings, LAST)
    champion = models.champion(settings.models)
    assert champion is not None
    shutil.copytree(champion.folder, tmp_path / "outside" / "20260310-aaaaaaaa")
    (settings.models / "20260310-bbbbbbbb").symlink_to(tmp_path / "outside" / "20260310-aaaaaaaa")
    before = sorted(str(path) for path in tmp_path.rglob("*"))
    for arguments in (
        ["models", "show", "../../outside/20260310-aaaaaaaa"],
        ["models", "show", "20260310-bbbbbbbb"],
        ["models", "list"],
        ["nightly", "--date", str(LAST), "--model", "../../outside/20260310-aaaaaaaa", "--force", "--reason", "why"],
        ["runs", "show", "../../outside/20260310-aaaaaaaa/manifest"],
        ["rollback", "--to", "../../outside/x"],
        ["status"],
    ):
        log = tmp_path / "log"
        done = straced.recjob(["-e", "trace=openat,open,creat"], arguments, environment(settings), log)
        assert done.returncode == (0 if arguments[-1] in ("list", "status") else 8), done.stderr
        assert "outside" not in re.sub(r"execve.*", "", log.read_text())
        log.unlink()
    told = {str(path) for folder in (settings.journal, settings.pages) for path in folder.glob("*")}  # of a night
    assert {str(path) for path in tmp_path.rglob("*")} - told == set(before) - told
    assert [model.version for model in models.versions(settings.models)] == [champion.version]
    with pytest.raises(NotFound):
        models.load(settings.models, "20260310-bbbbbbbb")


@pytest.mark.faults("B5.9")
@pytest.mark.parametrize("name", ["lock", "lock.json", "version.json", "forgotten.json", "recommendations.duckdb"])
def test_a_planted_link_is_not_written_through(settings: Settings, tmp_path: Path, name: str) -> None:
    victim = tmp_path / "victim"
    victim.write_text('{"state_version": 0, "key": "00", "hashes": [], "pending": false}')
    planted = settings.state_dir / name
    planted.unlink(missing_ok=True)
    planted.symlink_to(victim)
    before = victim.read_bytes()
    subprocess.run(
        [sys.executable, "-m", "jobs.cli", "forget", "--user", "7"], env=environment(settings), capture_output=True
    )
    assert victim.read_bytes() == before


@pytest.mark.slow
@pytest.mark.faults("B5.6")
@pytest.mark.no_store("a copy asks the network by design")
def test_a_night_asks_no_network(settings: Settings, tmp_path: Path) -> None:
    if subprocess.run(["unshare", "-rn", "true"], capture_output=True).returncode:
        pytest.skip("needs unshare -rn")
    arguments = ["nightly", "--date", str(LAST), "--json"]
    log, offline = tmp_path / "log", ["unshare", "-rn"]
    done = straced.recjob(["-e", "trace=connect,sendto"], arguments, environment(settings), log, before=offline)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["status"] == "published"
    assert "AF_INET" not in log.read_text()


@pytest.mark.faults("B5.6")
def test_no_connection_installs_an_extension(tmp_path: Path) -> None:
    publish(tmp_path, "r1", [staged(tmp_path, "r1")])
    assert "autoinstall_known_extensions" in warehouse.OFFLINE
    with warehouse.reader(tmp_path / "recs.duckdb") as connection:
        found = connection.execute("SELECT current_setting('autoinstall_known_extensions')").fetchall()
        assert found == [(False,)]
        with pytest.raises(QueryRefused):
            answers.select(connection, "SELECT * FROM st_read('x')", 10, 5)
    for path in (ROOT / "storage").glob("*.py"):
        for call in re.findall(r"duckdb\.connect\((.*)\)", path.read_text()):
            assert "OFFLINE" in call, (path, call)


@pytest.mark.faults("B5.7")
def test_a_secret_of_the_environment_is_written_nowhere(settings: Settings, recjob: Recjob, tmp_path: Path) -> None:
    secrets = {
        "AWS_SECRET_ACCESS_KEY": SECRET,
        "RECJOB_PASSWORD": SECRET,
        "RECJOB_PUBLISH_KEEP_REPORTS": "30",
        "RECJOB_HOOKS_ON_FAILURE": f"/bin/false,{SECRET}",
    }
    (tmp_path / "bad.csv").write_text("user_id,movie_id\n1,2,3\n")
    said = ""
    for arguments, code in (
        (["nightly", "--date", str(LAST), "--json", "-v"], 0),
        (["nightly", "--date", "2020-01-01", "--debug", "-v"], 1),
        (["ingest", "bad.csv", "--debug"], 1),
        (["nightly", "--date", str(LAST), "--top-n", "0", "--debug"], 1),
        (["config", "show", "--origin", "--json"], 0),
        (["status"], 0),
        (["models", "card", "champion"], 0),
    ):
        done = recjob(*arguments, **secrets)
        assert (done.returncode == 0) == (code == 0), done.stderr
        said += done.stdout + done.stderr
    assert "Traceback" in said
    assert "config.unknown_variable" in said
    assert SECRET not in said
    held = [path for path in settings.state_dir.rglob("*") if path.is_file() and SECRET.encode() in path.read_bytes()]
    assert held == []
    with duckdb.connect(str(settings.database), read_only=True) as connection:
        for (table,) in connection.execute("SELECT table_name FROM duckdb_tables()").fetchall():
            assert SECRET not in str(connection.execute(f'FROM "{table}"').fetchall())


@pytest.mark.faults("B5.5")
def test_a_query_without_end_is_ended_and_fits_in_memory(settings: Settings, recjob: Recjob) -> None:
    nightly(settings, LAST)
    endless = "SELECT count(*) FROM range(1000000) a, range(1000000) b WHERE a.range * b.range % 7 = 3"
    began = time.monotonic()
    done = recjob("query", endless, "--timeout", "1", "--json")
    assert (done.returncode, document(done)["error"]["kind"]) == (2, "E_QUERY")
    assert "longer than 1 s" in document(done)["error"]["message"]
    assert time.monotonic() - began < 20
    greedy = "SELECT a.range FROM range(30000) a, range(30000) b ORDER BY hash(a.range + b.range) LIMIT 100000000"
    folder = sorted(path.name for path in settings.published.iterdir())
    done = recjob("query", greedy, "--timeout", "60", "--json")
    assert (done.returncode, document(done)["error"]["kind"]) == (2, "E_QUERY")
    assert "memory" in document(done)["error"]["message"].lower()
    assert sorted(path.name for path in settings.published.iterdir()) == folder
    assert recjob("query", "SELECT * FROM range(10000000)", "--json").returncode == 2


@pytest.mark.faults("B5.12")
def test_a_configuration_of_100_mb_or_without_end_is_not_read(recjob: Recjob, tmp_path: Path) -> None:
    with (tmp_path / "large.toml").open("wb") as file:
        file.write(b"# ")
        file.truncate(100 * 2**20)
    for path, what in (("large.toml", "104,857,600 bytes"), ("/dev/zero", "is no file")):
        began = time.monotonic()
        done = recjob("config", "show", "--config", path, "--json")
        assert (done.returncode, document(done)["error"]["kind"]) == (2, "E_CONFIG")
        assert what in document(done)["error"]["message"]
        assert time.monotonic() - began < 5
    (tmp_path / "tags.toml").write_text("state_dir: !!python/object/apply:os.system ['touch x']\n")
    assert recjob("config", "show", "--config", "tags.toml").returncode == 2
    assert not (tmp_path / "x").exists()


@pytest.mark.faults("B5.13")
def test_every_locked_package_has_hashes_and_a_changed_one_is_refused(tmp_path: Path) -> None:
    lock = (ROOT / "requirements.lock").read_text()
    pins = [line for line in lock.splitlines() if line and line[0] not in " #"]
    assert len(pins) > 50
    assert all(re.fullmatch(r"[\w.\[\],-]+==\S+( ; .+)? \\", line) for line in pins)
    entries = re.split(r"\n(?=[A-Za-z0-9])", lock)
    assert all("--hash=sha256:" in entry for entry in entries if "==" in entry)
    wheel = tmp_path / "tiny_wheel-1.0-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as file:
        file.writestr("tiny_wheel.py", "")
        file.writestr("tiny_wheel-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: tiny-wheel\nVersion: 1.0\n")
        file.writestr(
            "tiny_wheel-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        file.writestr("tiny_wheel-1.0.dist-info/RECORD", "tiny_wheel.py,,\n")
    from storage.digest import of_file

    right = of_file(wheel)
    wrong = ("0" if right[0] != "0" else "1") + right[1:]
    options = ["--no-index", "--find-links", str(tmp_path), "--require-hashes", "--no-deps", "--quiet"]
    for sha, code in ((right, 0), (wrong, 1)):
        own = tmp_path / "own.lock"
        own.write_text(f"tiny-wheel==1.0 \\\n    --hash=sha256:{sha}\n")
        command = [sys.executable, "-m", "pip", "download", *options, "-d", str(tmp_path / "got"), "-r", str(own)]
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == code, done.stderr
    assert "DO NOT MATCH THE HASHES" in done.stderr
