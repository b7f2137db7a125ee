"""Programs that are told how a run ended: the right one, with the data as data, and never to the harm of the run."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import LAST, document

Recjob = Callable[..., subprocess.CompletedProcess[str]]
NOTE = (
    "import json, os, sys; told = {k: v for k, v in os.environ.items() if k.startswith('RECJOB_RUN_')}; "
    "print('from the hook'); open(sys.argv[1], 'a').write(json.dumps(told) + '\\n')"
)


def configured(folder: Path, **more: Any) -> list[str]:
    """A configuration whose hooks write what they are told into a file of their name."""
    hooks = {name: [sys.executable, "-c", NOTE, f"{name}.jsonl"] for name in ("on_success", "on_refusal", "on_failure")}
    lines = [f"{name} = {json.dumps(value)}" for name, value in (hooks | more).items()]
    (folder / "recjob.toml").write_text("\n".join(["[hooks]", *lines]) + "\n")
    return ["--config", "recjob.toml"]


def told(folder: Path) -> dict[str, list[dict[str, str]]]:
    return {
        path.stem: [json.loads(line) for line in path.read_text().splitlines()] for path in folder.glob("on_*.jsonl")
    }


def test_each_end_of_a_run_calls_its_own_hook(recjob: Recjob, tmp_path: Path) -> None:
    options = configured(tmp_path)
    done = recjob("check", "--date", str(LAST), "--json", *options)
    record = document(done)  # nothing of the hook is on stdout
    assert "from the hook" in done.stderr
    (success,) = told(tmp_path)["on_success"]
    assert success["RECJOB_RUN_ID"] == record["run_id"]
    assert (success["RECJOB_RUN_STATUS"], success["RECJOB_RUN_EXIT_CODE"]) == ("checked", "0")
    assert success["RECJOB_RUN_AS_OF_DATE"] == str(LAST)
    assert recjob("check", "--date", "2020-01-01", *options).returncode == 3
    (failure,) = told(tmp_path)["on_failure"]
    assert (failure["RECJOB_RUN_ERROR_KIND"], failure["RECJOB_RUN_EXIT_CODE"]) == ("E_NO_RATINGS", "3")
    assert recjob("nightly", "--date", str(LAST), *options, RECJOB_GATE_MAX_RMSE_RATIO="0.01").returncode == 4
    assert {name: len(runs) for name, runs in told(tmp_path).items()} == {
        "on_success": 1, "on_failure": 1, "on_refusal": 1,
    }  # fmt: skip


@pytest.mark.faults("B5.8")
def test_shell_code_in_the_data_of_a_run_is_data(recjob: Recjob, tmp_path: Path) -> None:
    code = "$(touch x); touch x `touch x` | touch x"  # of what a file holds, errors quote nothing: its name is left
    (tmp_path / f"{code}.csv").write_text("user_id,movie_id,rating,rated_at\n1,1,3,2026-03-02,too many\n")
    done = recjob("check", "--date", str(LAST), *configured(tmp_path), RECJOB_INPUT_RATINGS=f"{code}.csv")
    assert done.returncode == 3
    (failure,) = told(tmp_path)["on_failure"]
    assert code in failure["RECJOB_RUN_ERROR_MESSAGE"]
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize(
    ("hook", "why"),
    [
        ([sys.executable, "-c", "import sys; sys.exit(3)"], "exit code 3"),
        ([sys.executable, "-c", "import time; time.sleep(60)"], "still there after 0.5 s"),
        (["/no/such/program", "sesame-4711"], "cannot be started: No such file or directory"),
        (["$(touch x)"], "cannot be started"),
    ],
)
@pytest.mark.faults("B5.8")
def test_a_hook_that_fails_is_a_warning(recjob: Recjob, tmp_path: Path, hook: list[str], why: str) -> None:
    options = configured(tmp_path, on_success=hook, timeout_seconds=0.5)
    done = recjob("check", "--date", str(LAST), "--json", *options)
    assert (done.returncode, document(done)["status"]) == (0, "checked")
    (warning,) = (line for line in map(json.loads, done.stderr.splitlines()) if line["event"] == "hook.failed")
    assert (warning["level"], warning["hook"]) == ("warning", "on_success")
    assert why in warning["why"]
    assert "sesame" not in done.stderr
    assert not (tmp_path / "x").exists()


@pytest.mark.faults("B5.7")
def test_arguments_of_hooks_are_shown_nowhere(recjob: Recjob, tmp_path: Path) -> None:
    options = configured(tmp_path, on_success=["curl", "https://alert.example/sesame-4711"])
    for arguments in (
        ["config", "show"],
        ["config", "show", "--json"],
        ["check", "--date", str(LAST), "--debug", "-v"],
    ):
        done = recjob(*arguments, *options)
        assert "sesame" not in done.stdout + done.stderr
    (tmp_path / "recjob.toml").write_text("[hooks]\non_success = 'curl https://alert.example/sesame-4711 --loud'\n[[")
    done = recjob("config", "show", *options, "--debug")
    assert (done.returncode, "sesame" in done.stdout + done.stderr) == (2, False)
    (tmp_path / "recjob.toml").write_text("[hooks]\non_success = 4711\n")
    done = recjob("config", "show", *options, "--json")
    assert (done.returncode, "4711" in done.stdout) == (2, False)
