"""What a user types and sees: options, output, errors, exit codes, in real child processes."""

import itertools
import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner
from conftest import LAST, document, environment

from jobs import cli, examples, exits, options
from jobs.commands import recjob as group
from jobs.nightly import nightly
from jobs.settings import Settings
from recommender import errors as recommender_errors
from recommender import split as splits
from storage import errors as storage_errors

Recjob = Callable[..., subprocess.CompletedProcess[str]]


def leaves(command: click.Command, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    if isinstance(command, click.Group):
        for name, inner in command.commands.items():
            yield from leaves(inner, (*path, name))
    else:
        yield path, command


@pytest.mark.faults("B6.7")
def test_every_command_has_help_json_and_a_config() -> None:
    for path, command in leaves(group):
        options = {name for parameter in command.params for name in parameter.opts}
        assert command.help, path
        assert {"--json", "--config", "--state-dir", "--debug"} <= options, path


def parsed(line: str) -> tuple[str, ...]:
    """The path of the command that a line calls, once click has taken its arguments; raises `click.UsageError`."""
    _, _, call = line.partition("recjob ")
    words = shlex.split(call.split(')"  ')[0], comments=True)
    words = list(itertools.takewhile(lambda word: not re.match(r"\d?>|\||&&", word), words))
    command, context, path = group, click.Context(group, info_name="recjob"), ()
    while isinstance(command, click.Group):
        name, command, words = command.resolve_command(context, words)
        path = (*path, name)
    command.make_context(path[-1], words, parent=context)
    return path


def test_every_command_has_examples_that_parse(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("top.sql").touch()
    assert {" ".join(("recjob", *path)) for path, _ in leaves(group)} == set(examples.EXAMPLES) - {"recjob"}
    for name in examples.EXAMPLES:
        lines = examples.of(name)
        assert lines, name
        for line in lines:
            assert name == "recjob" or " ".join(("recjob", *parsed(line))) == name, line


@pytest.mark.parametrize("name", examples.EXAMPLES)
def test_help_shows_the_examples(name: str) -> None:
    shown = CliRunner().invoke(group, [*name.split()[1:], "--help"], prog_name="recjob").output
    for line in examples.of(name):
        assert f"  {line}\n" in shown
        assert len(line) <= 100
    if name == "recjob":
        assert all(f"\n  {code} " in shown for code in {*exits.CODES.values(), *exits.MEANINGS})


@pytest.mark.parametrize(
    ("text", "gib"), [("512MiB", 0.5), ("8GiB", 8), ("1.5 GiB", 1.5), ("8G", None), ("0GiB", None), ("5000GiB", None)]
)
def test_memory_is_an_amount_with_its_unit(text: str, gib: float | None) -> None:
    if gib is None:
        with pytest.raises(click.BadParameter, match="up to 4096GiB with its unit: 512MiB or 8GiB"):
            options.Memory().convert(text, None, None)
    else:
        assert options.Memory().convert(text, None, None) == gib


def test_every_error_has_an_exit_code() -> None:
    for module in (storage_errors, recommender_errors):
        for name, error in vars(module).items():
            if isinstance(error, type) and issubclass(error, Exception):
                assert error in exits.CODES, name


def test_a_night_by_command_ends_in_a_list(recjob: Recjob) -> None:
    done = recjob("nightly", "--date", str(LAST), "--memory", "64MiB", "--device", "cpu", "--json", "-v")
    assert done.returncode == 0, done.stderr
    events = {json.loads(line)["event"] for line in done.stderr.splitlines()}
    assert events >= {"input.file", "train.fitted", "train.judged", "score.block"}
    record = document(done)
    assert (record["schema"], record["status"], record["n_users"]) == ("recjob.nightly/1", "published", 41)
    listed = recjob("recommend", "--user", "7", "-n", "3")
    assert listed.stdout.splitlines()[0] == f"user 7, as of {LAST}"
    assert len(listed.stdout.splitlines()) == 6
    assert document(recjob("query", "SELECT count(*) AS n FROM recommendations", "--json"))["rows"] == [[205]]
    assert recjob("query", "SELECT 1 AS a, 'x,y' AS b", "--format", "csv").stdout == 'a,b\n1,"x,y"\n'
    assert document(recjob("status", "--json", "--max-age", "28h"))["stale"] is False
    assert [run["status"] for run in document(recjob("runs", "list", "--json"))["runs"]] == ["published"]
    assert document(recjob("runs", "show", record["run_id"], "--json"))["run_id"] == record["run_id"]
    (model,) = document(recjob("models", "list", "--json"))["models"]
    assert document(recjob("models", "show", "champion", "--json"))["version"] == model["version"]


def test_tensorflow_says_nothing_on_either_stream(recjob: Recjob) -> None:
    done = recjob("train", "--date", str(LAST), "--json", "--log-format", "json")
    assert done.returncode == 0
    events = [json.loads(line) for line in done.stderr.splitlines()]
    assert {event["event"] for event in events} <= {
        "run.start", "check.done", "train.epoch", "train.blend", "gate.pass", "gate.verdict", "model.registered",
        "train.done",
    }  # fmt: skip
    assert len({event["run_id"] for event in events}) == 1


@pytest.mark.parametrize(
    ("arguments", "code", "kind"),
    [
        (["nightly", "--date", "2026-3-1"], 2, "E_USAGE"),
        (["nightly", "--date", "2026-02-30"], 2, "E_USAGE"),
        (["nightly", "--date", "9999-12-31"], 2, "E_USAGE"),
        (["nightly", "--date", "2026-03-01T00"], 2, "E_USAGE"),
        (["nightly", "--date", ""], 2, "E_USAGE"),
        (["nightly", "--force"], 2, "E_USAGE"),
        (["score", "--shard", "9/8"], 2, "E_USAGE"),
        (["score", "--shard", "1/8", "--shards", "8"], 2, "E_USAGE"),
        (["nightly", "--date", "2020-01-01"], 3, "E_NO_RATINGS"),
        (["nightly", "--top-n", "0"], 2, "E_CONFIG"),
        (["nightly", "--date", str(LAST), "--model", "../../etc"], 8, "E_NOT_FOUND"),
        (["backfill", "--from", "2026-03-05", "--to", "2026-03-01"], 2, "E_USAGE"),
        (["ingest", "nowhere.zip"], 3, "E_INPUT"),
        (["ingest", "movielens/17"], 3, "E_INPUT"),
        (["ingest", "no/such/*.parquet"], 3, "E_NO_RATINGS"),
        (["recommend", "--user", "1"], 8, "E_NOT_FOUND"),
        (["query", "SELECT 1"], 8, "E_NOT_FOUND"),
        (["runs", "show", "../x"], 8, "E_NOT_FOUND"),
        (["models", "show", "champion"], 8, "E_NOT_FOUND"),
        (["rollback"], 8, "E_NOT_FOUND"),
        (["evaluate", "--model", "gpt"], 2, "E_USAGE"),
        (["tune", "--model", "gpt"], 2, "E_USAGE"),
        (["tune", "--only", "seed"], 2, "E_CONFIG"),
        (["nonsense"], 2, "E_USAGE"),
    ],
)
@pytest.mark.faults("B4.14", "B5.2")
def test_a_mistake_gets_a_code_a_kind_and_a_hint(recjob: Recjob, arguments: list[str], code: int, kind: str) -> None:
    done = recjob(*arguments, "--json")
    assert done.returncode == code, done.stderr
    failure = document(done)
    assert failure["error"]["kind"] == kind
    assert failure["error"]["hint"]
    assert "Traceback" not in done.stderr


def test_an_error_for_people_is_one_block_on_stderr(recjob: Recjob) -> None:
    done = recjob("nightly", "--date", "2020-01-01", "-q")
    assert done.stdout == ""
    assert done.stderr.startswith("error[E_NO_RATINGS]: ")
    assert done.stderr.splitlines()[-1].startswith("hint: ")


def test_a_bad_row_is_named_with_file_column_and_row(recjob: Recjob, tmp_path: Path, settings: Settings) -> None:
    before = sorted(settings.lake.rglob("*"))
    source = tmp_path / "bad.csv"
    source.write_text("user_id,movie_id,rating,rated_at\n1,2,3.5,2026-03-01 10:00:00\n1,3,,2026-03-01 10:00:00\n")
    failure = document(recjob("ingest", str(source), "--json"))
    assert (failure["exit_code"], failure["error"]["column"], failure["error"]["row"]) == (3, "rating", 2)
    assert failure["error"]["path"] == str(source)
    assert sorted(settings.lake.rglob("*")) == before


@pytest.mark.faults("B5.4")
def test_query_can_reach_nothing_but_the_tables(recjob: Recjob, settings: Settings) -> None:
    nightly(settings, LAST)
    for statement in (
        "DROP TABLE runs",
        "SELECT 1; SELECT 2",
        "COPY runs TO 'x.csv'",
        "SELECT * FROM read_text('/etc/passwd')",
    ):
        done = recjob("query", statement, "--json")
        assert (done.returncode, document(done)["error"]["kind"]) == (2, "E_QUERY"), statement
    assert (
        document(recjob("query", "SELECT * FROM range(10)", "--max-rows", "5", "--json"))["error"]["kind"] == "E_QUERY"
    )


@pytest.mark.faults("B4.13")
def test_status_of_nothing_is_stale_and_says_how_there_will_be_something(recjob: Recjob) -> None:
    done = recjob("status", "--max-age", "28h", "--json")
    assert (done.returncode, document(done)["as_of_date"]) == (9, None)
    asked = recjob("recommend", "--user", "7")
    assert asked.returncode == 8
    for told in (recjob("status").stdout, asked.stderr):
        assert "recjob nightly" in told
        assert "recjob sync" in told


@pytest.mark.faults("B1.17")
def test_a_closed_pipe_is_no_error_and_a_full_disk_is_one(settings: Settings, recjob: Recjob) -> None:
    environment = os.environ | {"RECJOB_STATE_DIR": str(settings.state_dir)}
    command = f"{sys.executable} -m jobs.cli config show"
    piped = subprocess.run(f"{command} | head -1", shell=True, env=environment, capture_output=True, text=True)
    assert piped.stderr == ""
    full = subprocess.run(f"{command} > /dev/full", shell=True, env=environment, capture_output=True, text=True)
    assert full.returncode == exits.RESOURCES
    assert "Traceback" not in full.stderr


def test_init_writes_a_configuration_that_loads(recjob: Recjob, tmp_path: Path) -> None:
    assert recjob("init", "fresh").returncode == 0
    assert recjob("init", "fresh").returncode == 2
    shown = document(recjob("config", "show", "-c", "fresh/recjob.toml", "--origin", "--json"))["settings"]
    assert shown["schedule.cron"]["value"] == "30 3 * * *"
    assert shown["schedule.cron"]["origin"] == "fresh/recjob.toml"


@pytest.mark.slow
def test_evaluate_prints_figures_and_draws_the_history(recjob: Recjob, tmp_path: Path) -> None:
    figures = document(
        recjob("evaluate", "--split", "time-range", "--model", "basic", "--plot", "history.png", "--json")
    )
    assert set(figures["rmse"]) == {"train", "validation", "test"}
    assert sum(figures["rows"].values()) == 600
    assert figures["movie_key"] == "title"
    assert (tmp_path / "history.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.slow
def test_evaluate_leaves_lists_out_where_asked(recjob: Recjob) -> None:
    measured, skipped = (
        json.loads(recjob("evaluate", "--model", "basic", *flags, "--json").stdout) for flags in ([], ["--no-lists"])
    )
    assert "model" in measured["lists"]
    assert "lists" not in skipped


def test_evaluate_offers_every_named_split() -> None:
    (split,) = (parameter for parameter in group.commands["evaluate"].params if parameter.name == "split")
    assert isinstance(split.type, click.Choice)
    assert set(split.type.choices) == set(splits.NAMES)


@pytest.mark.slow
def test_tune_goes_on_with_its_study_and_ends_in_lines_for_the_configuration(recjob: Recjob, tmp_path: Path) -> None:
    arguments = ["tune", "--model", "basic", "--only", "learning_rate", "--plot", "trials.png"]
    first = document(recjob(*arguments, "--trials", "1", "--json"))
    assert (first["schema"], first["study"], len(first["trials"])) == ("recjob.tune/1", "basic-newest", 1)
    assert (tmp_path / "trials.png").read_bytes().startswith(b"\x89PNG")
    done = recjob(*arguments, "--trials", "2")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"study basic-newest, {first['file']}\n")
    assert '\n[model]\nname = "basic"\n' in done.stdout


@pytest.mark.faults("B1.17")
def test_closed_streams_are_no_error_and_no_file_takes_their_numbers(settings: Settings, tmp_path: Path) -> None:
    command = [
        "sh",
        "-c",
        'exec "$@" <&- >&- 2>&-',
        "sh",
        sys.executable,
        "-m",
        "jobs.cli",
        "check",
        "--date",
        str(LAST),
    ]
    environ = environment(settings) | {"RECJOB_HOOKS_ON_SUCCESS": f"/bin/sh,-c,ls -l /proc/$PPID/fd > {tmp_path}/files"}
    assert subprocess.run(command, env=environ).returncode == 0
    files = [line.split()[-3:] for line in (tmp_path / "files").read_text().splitlines() if "->" in line]
    assert {number: target for number, _, target in files if int(number) < 3} == dict.fromkeys("012", "/dev/null")


LIGHT = {
    ("status",): [], ("late",): [], ("runs", "list"): [], ("runs", "show"): ["RUN"], ("models", "list"): [],
    ("models", "show"): ["champion"], ("models", "card"): ["champion"], ("recommend",): ["--user", "7"],
    ("explain",): ["--user", "7", "--movie", "1"], ("query",): ["SELECT 1"], ("export",): ["--to", "lists.parquet"],
    ("config", "show"): [], ("schedule", "next"): [], ("doctor",): [], ("init",): [], ("check",): ["--date", str(LAST)],
    ("nightly",): ["--date", str(LAST)], ("report",): [], ("forget",): ["--user", "nobody"], ("rollback",): [],
}  # fmt: skip
"""Commands that take no training; RUN is the newest run."""


@pytest.mark.faults("B6.7")
def test_every_command_prints_one_document_on_success_and_on_failure(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    nightly(settings, LAST.replace(day=9))
    run_id = nightly(settings, LAST)["run_id"]
    monkeypatch.chdir(tmp_path)
    for name, value in environment(settings).items():
        monkeypatch.setenv(name, value)

    def printed(*arguments: str) -> tuple[int, dict[str, Any]]:
        monkeypatch.setattr(sys, "argv", ["recjob", *arguments, "--json"])
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            cli.main()
        return int(ended.value.code or 0), json.loads(capsys.readouterr().out)

    for path, arguments in LIGHT.items():
        code, told = printed(*path, *(run_id if word == "RUN" else word for word in arguments))
        assert (code, told["schema"]) == (0, f"recjob.{'-'.join(path)}/1"), told
    for path, command in leaves(group):
        if path in {("demo",), ("init",), ("completion",)}:  # they read no configuration
            continue
        needed = [
            (p, "2026-03-01" if "--from" in p.opts or "--to" in p.opts else "x") for p in command.params if p.required
        ]
        words = [word for p, value in needed for word in ([p.opts[0], value] if p.opts[0][0] == "-" else [value])]
        code, told = printed(*path, *words, "--config", "/dev/zero")
        assert (code, told["schema"], told["exit_code"]) == (2, "recjob.error/1", 2), (path, told)
