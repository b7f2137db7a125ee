"""What lies in deploy/ fits recjob and the programs that read it."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from test_cli import parsed

import scheduler
from jobs import exits
from jobs.settings import Schedule

ROOT = Path(__file__).resolve().parents[1]
DEPLOY = ROOT / "deploy"
AGAIN = {exits.BUSY, exits.RESOURCES}
FOR_A_PERSON = {exits.BUG, exits.USAGE, exits.INPUT, exits.GATE, exits.INTEGRITY, exits.NOT_FOUND}


class Recorded:
    """Runs commands where `recjob` and `sbatch` only write down what they are called with."""

    def __init__(self, folder: Path) -> None:
        self.folder, own = folder, folder / ".venv" / "bin"
        own.mkdir(parents=True)
        for name in ("recjob", "sbatch"):
            (own / name).write_text(f'#!/bin/sh\necho "$@" >> {folder}/{name}.calls\necho 7\n')
            (own / name).chmod(0o755)
        self.path = f"{own}:{os.environ['PATH']}"

    def __call__(self, command: list[str], **more: str) -> None:
        subprocess.run(command, check=True, cwd=self.folder, env=os.environ | more | {"PATH": self.path}, timeout=60)

    def calls(self, name: str) -> list[str]:
        return (self.folder / f"{name}.calls").read_text().splitlines()


@pytest.fixture
def recorded(tmp_path: Path) -> Recorded:
    return Recorded(tmp_path)


def text(name: str) -> str:
    return (DEPLOY / name).read_text(encoding="utf-8")


def numbers(found: str) -> set[int]:
    return {int(number) for number in re.findall(r"\d+", found)}


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="needs systemd-analyze")
def test_systemd_understands_the_service_and_its_timer(tmp_path: Path) -> None:
    for name in ("recjob.service", "recjob.timer"):
        (tmp_path / name).write_text(text(f"systemd/{name}").replace("/srv/recjob/.venv/bin/recjob", sys.executable))
    units = [str(path) for path in sorted(tmp_path.iterdir())]
    done = subprocess.run(["systemd-analyze", "verify", *units], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_nobody_tries_again_what_needs_a_person() -> None:
    prevented = re.findall("RestartPreventExitStatus=(.*)", text("systemd/recjob.service"))
    assert numbers(prevented[0]) == FOR_A_PERSON
    for name in ("cronjob.yaml", "shards.yaml"):
        failed = re.findall(r"values: \[(.*)\]", text(f"kubernetes/{name}"))
        assert numbers(failed[0]) == FOR_A_PERSON
    for name in ("airflow/recjob_dag.py", "dagster/recjob_job.py"):
        assert numbers(re.findall("AGAIN = (.*)", text(name))[0]) == AGAIN


def test_every_clock_says_when_the_default_schedule_does() -> None:
    crons = [
        *re.findall('schedule: "(.*)"', text("kubernetes/cronjob.yaml")),
        *re.findall(r'Timetable\("(.*?)"', text("airflow/recjob_dag.py")),
        re.findall(r"^([0-9* ]+) cd ", text("crontab"), re.MULTILINE)[0],
    ]
    assert set(crons) == {Schedule().cron}
    (first,) = scheduler.next_times(Schedule().cron, "UTC", 1)
    assert f"{first:%H:%M:%S}" in text("systemd/recjob.timer")
    assert f"hour_of_day={first.hour}, minute_of_hour={first.minute}" in text("dagster/recjob_job.py")


def test_the_image_is_pinned_has_all_parts_and_runs_as_nobody_in_particular() -> None:
    dockerfile = text("docker/Dockerfile")
    stages = re.findall("^FROM (\\S+)", dockerfile, re.MULTILINE)
    assert all(re.fullmatch(r"python:3\.11-slim-\w+", stage) for stage in stages)
    copied = [
        part for line in re.findall("^COPY (?!--from)(.*)", dockerfile, re.MULTILINE) for part in line.split()[:-1]
    ]
    missing = [part for part in copied if not (ROOT / part.replace("${DEVICE}", "cpu")).exists()]
    assert not missing
    packaged = {"jobs", "recommender", "storage", "sql", "scheduler.py"}
    assert packaged <= set(copied)
    assert re.findall("^USER (.*)", dockerfile, re.MULTILINE) == ["10001:10001"]
    assert dockerfile.count("pip install") == dockerfile.count("--require-hashes") + dockerfile.count("--no-deps")


@pytest.mark.parametrize("name", ["cpu", "gpu"])
def test_the_locks_of_the_image_are_those_that_are_tested(name: str) -> None:
    def pinned(lock: str) -> dict[str, str]:
        return dict(re.findall(r"^([a-z0-9.-]+)==(\S+)", lock, re.MULTILINE))

    tested, shipped = pinned((ROOT / "requirements.lock").read_text()), pinned(text(f"docker/{name}.lock"))
    assert shipped["tensorflow"] == tested["tensorflow"]
    assert {package: version for package, version in shipped.items() if tested.get(package, version) != version} == {}
    assert "pytest" not in shipped
    assert any(package.startswith("nvidia-cudnn") for package in shipped) == (name == "gpu")


def test_kubernetes_runs_one_night_at_a_time_without_rights() -> None:
    yaml = pytest.importorskip("yaml")
    _, _, job = yaml.safe_load_all(text("kubernetes/cronjob.yaml"))
    assert (job["kind"], job["spec"]["concurrencyPolicy"]) == ("CronJob", "Forbid")
    without_rights(job["spec"]["jobTemplate"]["spec"]["template"]["spec"])


def without_rights(pod: dict[str, Any]) -> None:
    (container,) = pod["containers"]
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert container["securityContext"]["readOnlyRootFilesystem"] is True
    mounted = {mount["name"] for mount in container["volumeMounts"]}
    assert mounted == {volume["name"] for volume in pod["volumes"]}


def test_kubernetes_scores_every_shard_in_a_pod_of_its_own(recorded: Recorded) -> None:
    yaml = pytest.importorskip("yaml")
    job = yaml.safe_load(text("kubernetes/shards.yaml"))
    spec = job["spec"]
    assert (job["kind"], spec["completionMode"], spec["parallelism"]) == ("Job", "Indexed", spec["completions"])
    without_rights(spec["template"]["spec"])
    (container,) = spec["template"]["spec"]["containers"]
    day = {one["name"]: one["value"] for one in container["env"]}
    for index in range(spec["completions"]):
        recorded([*container["command"], *container["args"]], **day, JOB_COMPLETION_INDEX=str(index))
    calls = recorded.calls("recjob")
    assert [re.findall(r"--shard (\S+)", call) for call in calls] == [[f"{number}/8"] for number in range(1, 9)]
    assert all(parsed(f"recjob {call}") == ("score",) for call in calls)


def test_kubernetes_runs_a_night_on_a_ray_cluster_that_ends_with_it() -> None:
    yaml = pytest.importorskip("yaml")
    spec = yaml.safe_load(text("kubernetes/ray.yaml"))["spec"]
    assert parsed(spec["entrypoint"]) == ("nightly",)
    assert spec["shutdownAfterJobFinishes"] is True
    cluster = spec["rayClusterSpec"]
    for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"]):
        without_rights(group["template"]["spec"])
    assert f'ray[default]=={cluster["rayVersion"]}"' in text("kubernetes/ray.yaml")


def test_slurm_trains_once_scores_every_shard_and_then_publishes(recorded: Recorded) -> None:
    recorded(["sh", str(DEPLOY / "slurm/night.sh"), "2026-11-23"])
    train, shards, publish = recorded.calls("sbatch")
    assert "--dependency=afterok:7 " in shards
    assert "--dependency=afterany:7 " in publish
    for call in (train, publish):
        assert parsed(call.partition("--wrap .venv/bin/")[2]) in {("train",), ("nightly",)}
    script, day = shards.split()[-2:]
    first, last = map(int, re.findall(r"--array=(\d+)-(\d+)", Path(script).read_text())[0])
    for task in range(first, last + 1):
        recorded(["sh", script, day], SLURM_ARRAY_TASK_ID=str(task))
    calls = recorded.calls("recjob")
    assert [call.split()[:5] for call in calls] == [
        ["score", "--date", "2026-11-23", "--shard", f"{number}/8"] for number in range(1, 9)
    ]
    assert all(parsed(f"recjob {call}") == ("score",) for call in calls)
    assert publish.endswith("recjob nightly --date 2026-11-23 --shards 8 --wait 600")
