"""The doctor finds what would keep a night from working, says what to do, and changes nothing."""

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import LAST, document, world_in

from jobs import doctor
from jobs.forget import forget
from jobs.nightly import nightly
from jobs.settings import Settings
from storage import forgotten, models, warehouse

Recjob = Callable[..., subprocess.CompletedProcess[str]]


def states(settings: Settings) -> dict[str, str]:
    """The worst state of each thing that was looked at."""
    found: dict[str, str] = {}
    for one in doctor.examine(settings)["findings"]:
        found[one["check"]] = max(found.get(one["check"], ""), one["state"], key=["", "good", "warn", "bad"].index)
    return found


def everything(root: Path) -> list[tuple[str, int, int]]:
    return sorted((str(path), path.lstat().st_mtime_ns, path.lstat().st_size) for path in root.rglob("*"))


def test_a_healthy_state_is_good_and_untouched(tmp_path: Path) -> None:
    settings = world_in(tmp_path / "state")
    nightly(settings, LAST)
    before = everything(settings.state_dir)
    found = states(settings)
    assert everything(settings.state_dir) == before
    assert {name for name, kind in found.items() if kind != "good"} <= {"user"}
    assert {
        "state folder",
        "disk",
        "input",
        "published",
        "models",
        "staged lists",
        "last run",
        "schedule",
        "device",
    } <= set(found)


def test_each_damage_is_found_at_its_place(tmp_path: Path) -> None:
    settings = world_in(tmp_path / "state")
    assert states(settings)["published"] == "warn"
    nightly(settings, LAST)
    champion = models.champion(settings.models)
    assert champion is not None
    weights = champion.folder / "weights.npz"
    weights.write_bytes(weights.read_bytes()[:-7])
    file = warehouse.current(settings.database)
    assert file is not None
    file.chmod(0o640)
    os.truncate(file, file.stat().st_size // 2)
    (settings.published / "recommendations-x.duckdb.wal").write_bytes(b"x")
    staged = next(settings.runs.glob("*/*/user_status.parquet"))
    staged.write_bytes(staged.read_bytes() + b"x")
    for part in (settings.lake / "ratings").rglob("*.parquet"):
        part.unlink()
    found = doctor.examine(settings)
    bad = {one["check"] for one in found["findings"] if one["state"] == "bad"}
    assert bad == {"published", "registry", "staged", "input"}
    assert found["state"] == "bad"
    assert all(one["hint"] for one in found["findings"] if one["state"] == "bad")


def test_people_of_whom_something_may_still_be_held_are_a_warning_until_they_are_gone(tmp_path: Path) -> None:
    settings = world_in(tmp_path / "state")
    forgotten.save(settings.state_dir, forgotten.Forgotten().adding(["7"]))  # where a forget is killed after that
    (told,) = (one for one in doctor.examine(settings)["findings"] if one["check"] == "forgotten")
    assert told["state"] == "warn"
    assert "may still be held" in told["message"]
    assert told["hint"].startswith("the next night finishes that")
    forget(settings, ["7"])
    assert states(settings)["forgotten"] == "good"


def test_a_hook_that_cannot_be_started_and_a_metrics_file_that_cannot_be_written_are_found_beforehand(
    tmp_path: Path,
) -> None:
    (tmp_path / "file").write_text("")
    told = {"hooks__on_failure": ("no-such-program", "secret"), "hooks__on_success": ("true",)}
    settings = world_in(tmp_path / "state", publish__metrics_file=str(tmp_path / "file" / "recjob.prom"), **told)
    found = states(settings)
    assert (found["hooks"], found["metrics"]) == ("warn", "bad")
    assert "secret" not in str(doctor.examine(settings))


def test_the_command_exits_7_where_something_is_bad(recjob: Recjob, settings: Settings, tmp_path: Path) -> None:
    assert recjob("doctor", "--json").returncode == 0
    (tmp_path / "file").write_text("")
    done = recjob("doctor", "--json", RECJOB_PUBLISH_METRICS_FILE=str(tmp_path / "file" / "recjob.prom"))
    assert done.returncode == 7
    assert [one["check"] for one in document(done)["findings"] if one["state"] == "bad"] == ["metrics"]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_is_a_script_of_the_shell(recjob: Recjob, shell: str) -> None:
    done = recjob("completion", shell)
    assert done.returncode == 0
    assert "_RECJOB_COMPLETE" in done.stdout
