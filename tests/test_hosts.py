"""Training on several devices and hosts: as good as on one, alike on all, and nothing lost where one of them dies."""

import dataclasses
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from conftest import LAST, environment, small_world, world_in

from jobs import configuration, hosts, meeting, show
from jobs.allowed import InvalidSettings
from jobs.settings import Settings
from recommender import split
from recommender import train as training
from recommender.config import Recipe, recipe
from recommender.errors import HostsFailed
from recommender.known import Attributes
from storage import models

TINY = {
    "model.name": "default", "model.stars_dimension": 4, "model.choice_dimension": 8, "model.taste_dimension": 8,
    "model.epochs": 8, "model.batch_size": 64,
}  # fmt: skip
RECIPES = (
    recipe("basic", epochs=3, batch_size=256),
    recipe("default", stars_dimension=4, choice_dimension=8, taste_dimension=8, epochs=8, batch_size=64),
)
ON_TWO = """
import json
import tensorflow as tf
two = [tf.config.LogicalDeviceConfiguration()] * 2
tf.config.set_logical_device_configuration(tf.config.list_physical_devices("CPU")[0], two)
from test_hosts import RECIPES, errors
print(json.dumps([errors(one, 0) for one in RECIPES] + [len(tf.config.list_logical_devices("CPU"))]))
"""


def errors(chosen: Recipe, devices: int) -> list[float | None]:
    """RMSE of the holdout, epoch by epoch."""
    world = small_world()
    cut, known = split.random(world.ratings, seed=0), Attributes(world.users, world.movies)
    made = training.train(cut.train, chosen, attributes=known, holdout=cut.test, devices=devices)
    return [epoch.holdout_rmse for epoch in made.history]


def ports(count: int) -> list[int]:
    """Free ones, for now."""
    held = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    with closing(held[0]):
        found = [one.getsockname()[1] for one in held]
    for one in held[1:]:
        one.close()
    return found


def cluster(count: int) -> list[str]:
    """TF_CONFIG of each host."""
    workers = [f"127.0.0.1:{port}" for port in ports(count)]
    return [
        json.dumps({"cluster": {"worker": workers}, "task": {"type": "worker", "index": index}})
        for index in range(count)
    ]


STARTED: list[subprocess.Popen[str]] = []


@pytest.fixture(autouse=True)
def none_is_left() -> Iterator[None]:
    """Whatever a test was told: a host that waits for others outlives it."""
    yield
    while STARTED:
        STARTED.pop().kill()


def start(settings: Settings, config: str, *more: str) -> subprocess.Popen[str]:
    """`recjob train --hosts` in a process of its own."""
    named = {configuration.variable(key): str(value) for key, value in TINY.items()} | {"TF_CONFIG": config}
    command = [sys.executable, "-m", "jobs.cli", "train", "--date", str(LAST), "--hosts", "--json"]
    STARTED.append(
        subprocess.Popen(
            [*command, "--log-format", "json", *more],
            env=environment(settings) | named,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
    )
    return STARTED[-1]


def ended(process: subprocess.Popen[str]) -> tuple[int, dict[str, Any]]:
    """The exit code and the document; hosts that wait for one that is not there would never end."""
    out, _ = process.communicate(timeout=100)
    return process.returncode, json.loads(out) if out else {}


def until_epoch(process: subprocess.Popen[str], number: int) -> None:
    """Wait for a line of the log."""
    assert process.stderr is not None
    for line in process.stderr:
        event = json.loads(line)
        if event["event"] == "train.epoch" and event["epoch"] >= number:
            return
    raise AssertionError("it ended before")


@pytest.mark.slow
def test_two_devices_learn_what_one_does() -> None:
    path = os.pathsep.join([str(Path(__file__).parent), str(Path(__file__).parents[1])])
    environ = os.environ | {"PYTHONPATH": path, "TF_USE_LEGACY_KERAS": "1"}
    done = subprocess.run([sys.executable, "-c", ON_TWO], env=environ, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    basic, default, devices = json.loads(done.stdout)
    assert devices == 2
    assert basic == pytest.approx(errors(RECIPES[0], 1), abs=1e-4)
    assert default == pytest.approx(errors(RECIPES[1], 0), abs=0.02)
    assert default != errors(RECIPES[1], 1)  # each device leaves out others by chance


@pytest.mark.slow
@pytest.mark.faults("B4.15")
def test_two_hosts_make_one_model_and_go_on_after_one_was_killed(tmp_path: Path) -> None:
    world = small_world()
    settings = world_in(tmp_path / "state", dataclasses.replace(world, users=world.users.select(["user_id"])))
    first, second = (start(settings, config) for config in cluster(2))
    until_epoch(first, 2)
    second.send_signal(signal.SIGKILL)
    code, answer = ended(first)
    assert (code, answer["error"]["kind"]) == (6, "E_HOSTS")
    assert second.wait() == -signal.SIGKILL
    assert len(list((settings.models / "unfinished").glob("*.npz"))) == 1
    again = [start(settings, config) for config in cluster(2)]
    records = [ended(process) for process in again]
    assert [(code, record["status"]) for code, record in records] == [(0, "trained"), (0, "trained")]
    assert [record.get("model_version") is not None for _, record in records] == [True, False]
    (made,) = models.versions(settings.models)
    assert made.version == records[0][1]["model_version"]
    assert not list((settings.models / "unfinished").glob("*.npz"))
    journal = [json.loads(path.read_text()) for path in settings.journal.glob("*.json")]
    assert sorted(record["status"] for record in journal) == ["failed", "trained"]  # the first host's, and no others


@pytest.mark.slow
@pytest.mark.faults("B4.16")
def test_hosts_that_do_not_train_the_same_do_not_train(tmp_path: Path) -> None:
    settings = world_in(tmp_path / "state", small_world())
    first, second = cluster(2)
    both = [start(settings, first), start(settings, second, "--seed", "5")]
    found = [ended(process) for process in both]
    assert [(code, answer["error"]["kind"]) for code, answer in found] == [(6, "E_HOSTS")] * 2
    assert {answer["error"]["message"] for _, answer in found} == {"the hosts do not train the same: [model] differs"}
    assert models.versions(settings.models) == []


@pytest.mark.faults("B4.16")
@pytest.mark.parametrize("number", [0, 1])
def test_a_host_that_waits_for_others_ends_at_a_signal_or_in_time_and_holds_no_lock(
    tmp_path: Path, number: int
) -> None:
    settings = world_in(tmp_path / "state", small_world())
    ways = {signal.SIGINT: (130, "E_SIGNAL"), signal.SIGTERM: (143, "E_SIGNAL"), None: (124, "E_TIMEOUT")}
    for sent, expected in ways.items():
        process = start(settings, cluster(2)[number], *([] if sent else ["--timeout", "2s"]))
        assert process.stderr is not None
        assert any(json.loads(line)["event"] == "hosts.waiting" for line in process.stderr)
        if sent:
            process.send_signal(sent)
        code, answer = ended(process)
        assert (code, answer["error"]["kind"]) == expected
    assert not list(settings.journal.glob("*.json"))


@pytest.mark.faults("B4.16")
def test_all_hosts_go_on_at_once_and_strangers_and_who_has_left_do_not_count(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    addresses = [f"localhost:{port}" for port in ports(1)] + ["b:1", "c:1"]
    with ThreadPoolExecutor(3) as pool:
        first = pool.submit(meeting.wait, addresses, 0)
        for said in (
            b"GET / HTTP/1.1\n",
            b"recjob host 7\n",
            b"recjob host 1\n",
        ):  # the last is gone before all are there
            with knock(addresses[0]) as line:
                line.sendall(said)
                time.sleep(0.1)
        second = pool.submit(meeting.wait, addresses, 2)
        assert wait([first, second], timeout=1).done == set()
        third = pool.submit(meeting.wait, addresses, 1)
        assert [one.result(timeout=10) for one in (first, second, third)] == [None] * 3
    assert [record.missing for record in caplog.records][-1] == []  # type: ignore[attr-defined]


def knock(address: str) -> socket.socket:
    """A connection, as soon as there is somebody to answer."""
    host, port = address.split(":")
    for _ in range(50):
        try:
            return socket.create_connection((host, int(port)))
        except ConnectionRefusedError:
            time.sleep(0.1)
    raise AssertionError("nobody listens")


def test_a_first_host_whose_port_is_taken_says_so() -> None:
    with socket.create_server(("", 0)) as taken, pytest.raises(HostsFailed, match="Address already in use"):
        meeting.wait([f"localhost:{taken.getsockname()[1]}", "b:1"], 0)


@pytest.mark.parametrize(
    "config",
    [
        "", "{}", "[]", '{"cluster": {"worker": ["a:1"]}}',
        '{"cluster": {"worker": ["a:1"]}, "task": {"type": "worker", "index": 1}}',
        '{"cluster": {"worker": ["a:1"]}, "task": {"type": "ps", "index": 0}}',
    ],
)  # fmt: skip
def test_a_config_that_does_not_say_who_this_is_is_an_error(config: str) -> None:
    with pytest.raises(InvalidSettings, match="TF_CONFIG"):
        hosts.place({"TF_CONFIG": config} if config else {})


def test_a_chief_is_the_first_of_the_hosts() -> None:
    config = {"cluster": {"chief": ["a:1"], "worker": ["b:1", "c:1"]}, "task": {"type": "worker", "index": 1}}
    assert hosts.place({"TF_CONFIG": json.dumps(config)}) == (2, ["a:1", "b:1", "c:1"])
    assert hosts.place({"TF_CONFIG": json.dumps(config | {"task": {"type": "chief", "index": 0}})})[0] == 0


def test_what_another_host_than_the_first_prints_is_short() -> None:
    record = {
        "run_id": "r",
        "as_of_date": "2026-03-10",
        "status": "trained",
        "host": {"number": 2, "of": 2},
        "steps": [1],
    }
    assert show.run(record).splitlines()[-1] == "host    2 of 2; the first one keeps the model and the record"


def test_a_host_by_itself_is_told_that_it_is(tmp_path: Path) -> None:
    settings = world_in(tmp_path / "state", small_world())
    process = start(settings, cluster(1)[0])
    assert process.stderr is not None
    assert any(json.loads(line)["event"] == "hosts.alone" for line in process.stderr)
