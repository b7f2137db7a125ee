"""Programs of the user's own that are told how a run ended. No shell: a list of arguments, and the run in the environment."""

import json
import logging
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from jobs.settings import Hooks

logger = logging.getLogger(__name__)
PREFIX = "RECJOB_RUN_"
"""What the variables of a hook begin with."""
_TOLD = (
    *("run_id", "as_of_date", "status", "trigger", "exit_code", "model_version", "n_users", "n_ratings"),
    *("started_at", "finished_at", "error_kind", "error_message"),
)
_LONGEST = 4096
"""Characters of a value: an error may quote its input."""


def after(hooks: Hooks, record: Path) -> None:
    """Call the hooks for a run by its record in the journal; whatever they do is at most a warning. No record, no call."""
    if not record.is_file():
        return
    run = json.loads(record.read_text(encoding="utf-8"))
    refused = run["status"] == "refused" or any(check.get("verdict") == "fail" for check in run.get("checks", []))
    if refused:
        _call("on_refusal", hooks.on_refusal, run, hooks.timeout_seconds)
    if run.get("exit_code") == 0:
        _call("on_success", hooks.on_success, run, hooks.timeout_seconds)
    elif run["status"] != "refused":
        _call("on_failure", hooks.on_failure, run, hooks.timeout_seconds)


def _call(name: str, command: tuple[str, ...], run: dict[str, Any], timeout: float) -> None:
    """Run one program; what it prints goes to stderr, since stdout is the result. Its arguments are never logged."""
    if not command:
        return
    told = {PREFIX + key.removeprefix("run_").upper(): run[key] for key in _TOLD if run.get(key) is not None}
    environ = os.environ | {key: str(value).replace("\0", " ")[:_LONGEST] for key, value in told.items()}
    try:
        done = subprocess.run(
            command, env=environ, stdin=subprocess.DEVNULL, stdout=sys.stderr.fileno(), timeout=timeout
        )
        problem = f"exit code {done.returncode}" if done.returncode else ""
    except subprocess.TimeoutExpired:
        problem = f"still there after {timeout:g} s"
    except OSError as error:
        problem = f"cannot be started: {error.strerror}"
    if problem:
        logger.warning("hook.failed", extra={"hook": name, "why": problem})
    else:
        logger.info("hook.done", extra={"hook": name})
