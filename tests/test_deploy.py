"""What lies in deploy/ fits recjob and the programs that read it."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import scheduler
from jobs import exits
from jobs.settings import Schedule

ROOT = Path(__file__).resolve().parents[1]
DEPLOY = ROOT / "deploy"
AGAIN = {exits.BUSY, exits.RESOURCES}
FOR_A_PERSON = {exits.BUG, exits.USAGE, exits.INPUT, exits.GATE, exits.INTEGRITY, exits.NOT_FOUND}


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
    failed = re.findall(r"values: \[(.*)\]", text("kubernetes/cronjob.yaml"))
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
    pod = job["spec"]["jobTemplate"]["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert container["securityContext"]["readOnlyRootFilesystem"] is True
    mounted = {mount["name"] for mount in container["volumeMounts"]}
    assert mounted == {volume["name"] for volume in pod["volumes"]}
