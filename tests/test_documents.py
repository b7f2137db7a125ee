"""What every command prints with --json, on one small published world, is what its schema says: on success and on failure."""

import json
import logging
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import fastjsonschema
import pytest
from conftest import LAST, environment, small_world, world_in
from objectstore import Store
from test_by_hand import EVE
from test_cli import leaves

import scheduler
from jobs import cli, documents
from jobs.commands import recjob as group
from jobs.nightly import Options, nightly
from jobs.settings import Settings
from storage import synthetic
from storage.runs import partitions

Call = Callable[..., tuple[int, dict[str, Any]]]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> tuple[Settings, list[str]]:
    """Two published dates, and the ids of their runs."""
    settings = world_in(tmp_path_factory.mktemp("documents") / "state")
    return settings, [nightly(settings, day, Options(until="publish"))["run_id"] for day in (EVE, LAST)]


@pytest.fixture
def call(
    world: tuple[Settings, list[str]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Iterator[Call]:
    """Run `recjob ARGUMENTS --json` in this process; its exit code and document."""
    handlers, heeded = logging.root.handlers[:], [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)]
    monkeypatch.chdir(tmp_path)
    for name, value in environment(world[0]).items():
        monkeypatch.setenv(name, value)

    def run(*arguments: str) -> tuple[int, dict[str, Any]]:
        monkeypatch.setattr("sys.argv", ["recjob", *arguments, "--json", "-q"])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        return int(ended.value.code or 0), json.loads(capsys.readouterr().out, parse_constant=pytest.fail)

    yield run
    logging.root.handlers = handlers
    for number, handler in zip((signal.SIGINT, signal.SIGTERM), heeded, strict=True):
        signal.signal(number, handler)


def valid(command: str, document: dict[str, Any]) -> None:
    """Fields that the schema does not name are none of it; users may meet them, tests may not."""
    fastjsonschema.validate(documents.schema(command), document)
    fastjsonschema.validate(documents.schema(command, closed=True), document)


COMMANDS = [" ".join(path) for path, _ in leaves(group)]
DATE = ["--date", str(LAST)]
SLOW = ("demo", "evaluate", "tune", "backtest", "models export")
ARGUMENTS: dict[str, list[str]] = {
    "init": ["fresh"],
    "ingest": ["more.csv"],
    **dict.fromkeys(("check", "train", "nightly"), DATE),
    "score": [*DATE, "--no-publish", "--model", "champion"],
    "plan": [*DATE, "--model", "champion"],
    "backfill": ["--from", str(EVE), "--to", str(LAST), "--only", "all"],
    "evaluate": ["--model", "basic", "--split", "random"],
    "tune": ["--model", "basic", "--only", "learning_rate", "--trials", "1"],
    "backtest": ["--from", str(EVE), "--to", str(EVE), "--model", "basic"],
    "explain": ["--user", "7"],
    "recommend": ["--user", "7"],
    "export": ["--to", "lists.jsonl"],
    "query": ["SELECT as_of_date, rank, genres, score FROM current_recommendations LIMIT 2"],
    "forget": ["--user", "3"],
    "completion": ["bash"],
    "schema": ["runs", "show"],
    "status": ["--max-age", "28h"],
    "config show": ["--origin"],
    **{key: ["champion"] for key in ("models show", "models card", "models promote", "models pin")},
    "models export": ["champion", "--to", "served"],
}


def test_every_command_has_a_schema() -> None:
    assert set(documents.DOCUMENTS) == {"error", *COMMANDS}


@pytest.mark.parametrize(
    "command", [pytest.param(name, marks=[pytest.mark.slow] if name in SLOW else []) for name in COMMANDS]
)
@pytest.mark.faults("B6.7")
def test_what_a_command_prints_is_what_its_schema_says(
    command: str,
    call: Call,
    world: tuple[Settings, list[str]],
    store: Store,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if command == "sync":
        monkeypatch.setenv("RECJOB_STORE_URL", f"s3://{store.bucket()}/recjob")
    (tmp_path / "more.csv").write_text("user_id,movie_id,rating,rated_at\n1,2,3.5,2026-03-01 10:00:00\n")
    monkeypatch.setattr(scheduler, "run", lambda *_, **__: signal.SIGTERM)  # tests/test_schedule.py lets it run
    monkeypatch.setattr(synthetic, "generate", lambda last: small_world())
    staged = [partition.run_id for partition in partitions(world[0].runs)]
    runs = {"runs show": staged[:1], "runs diff": staged, "report": world[1][:1]}
    code, document = call(*command.split(), *ARGUMENTS.get(command, runs.get(command, [])))
    assert code == {"schedule run": 143}.get(command, 0), document
    valid(command, document)


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.faults("B6.7")
def test_a_command_that_fails_says_so_as_its_schema_says(command: str, call: Call, tmp_path: Path) -> None:
    code, document = call(*command.split(), "--no-such-option")
    assert (code, document["error"]["kind"]) == (2, "E_USAGE")
    valid("error", document)
    (tmp_path / "bad.toml").write_text("[score]\ntop = 3\n")
    if command not in ("demo", "init", "completion", "schema"):  # they read no settings
        needed = {"runs show": ["2"], "runs diff": ["2", "2"]}
        code, document = call(*command.split(), *ARGUMENTS.get(command, needed.get(command, [])), "-c", "bad.toml")
        assert (code, document["error"]["kind"]) == (2, "E_CONFIG")
        assert document["error"]["hint"] == "did you mean 'score.top_n'?"
        valid("error", document)


def test_what_other_options_print_fits_as_well(call: Call, tmp_path: Path) -> None:
    for command, *rest in (
        ["backfill", "--from", str(EVE), "--to", str(LAST), "--dry-run"],
        ["score", *DATE, "--model", "champion", "--shard", "1/2"],
        ["query", "SELECT * FROM runs", "--format", "parquet", "--to", "runs.parquet"],
        ["explain", "--user", "7", "--movie", "1"],
        ["export", "--to", "lists.csv"],
        ["forget", "--user", "nobody", "--let-in"],
        ["models card", "champion", "--to", "card.md"],
        ["config show"],
    ):
        code, document = call(*command.split(), *rest)
        assert code == 0, document
        valid(command, document)
    code, document = call("ingest", str(tmp_path / "none.zip"))
    assert code == 3
    valid("error", document)


def test_a_number_that_json_has_not_is_null(monkeypatch: pytest.MonkeyPatch) -> None:
    assert json.loads(cli._document({"a": float("nan"), "b": [float("inf"), 1.5], "c": {"d": -float("inf")}})) == {
        "a": None,
        "b": [None, 1.5],
        "c": {"d": None},
    }
