"""Where hosts that train together wait for each other. TensorFlow would do so in native code, which no signal and no time ends.

The first one listens where TF_CONFIG has it, until it has heard of each of the others; then it lets all of them go on.
"""

import logging
import select
import socket
import time
from collections.abc import Sequence
from contextlib import ExitStack

from recommender.errors import HostsFailed

logger = logging.getLogger(__name__)
_NAME, _ALL = b"recjob host %d\n", b"recjob: all are there\n"
_PAUSE = 0.5
"""Seconds between two tries, and the most that who comes may take to say who it is."""


def wait(addresses: Sequence[str], number: int) -> None:
    """Return when all hosts have come: `addresses` of all of them, of which this is `number`. Raises `HostsFailed`."""
    host, _, port = addresses[0].rpartition(":")
    if number == 0:
        _gather(int(port), len(addresses))
    while number and not _let_in(host.strip("[]"), int(port), number):
        time.sleep(_PAUSE)


def _let_in(host: str, port: int, number: int) -> bool:
    """Tell the first host of this one, and wait for its answer; False where there is none, or it went away."""
    try:
        with socket.create_connection((host, port), timeout=10 * _PAUSE) as line:
            line.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            line.settimeout(None)
            line.sendall(_NAME % number)
            return line.makefile("rb").readline(len(_ALL)) == _ALL
    except OSError as error:
        logger.debug("hosts.no_answer", extra={"of": f"{host}:{port}", "why": str(error)})
        return False


def _gather(port: int, of: int) -> None:
    """Wait for all others, and answer them."""
    six = socket.has_dualstack_ipv6()
    try:
        door = socket.create_server(("", port), family=socket.AF_INET6 if six else socket.AF_INET, dualstack_ipv6=six)
    except OSError as error:
        why = f"this one cannot listen on port {port}: {error.strerror}"
        hint = "is another training at work here? TF_CONFIG may name another port"
        raise HostsFailed(f"the hosts of TF_CONFIG cannot meet: {why}", hint=hint) from error
    there: dict[int, socket.socket] = {}
    with ExitStack() as lines, door:
        while len(there) < of - 1:
            line = lines.enter_context(door.accept()[0])
            if (number := _named(line)) in range(1, of):
                there[number] = line
            gone, _, _ = select.select(list(there.values()), [], [], 0)  # they say nothing more: it is the end of them
            there = {number: line for number, line in there.items() if line not in gone}
            missing = [number + 1 for number in range(1, of) if number not in there]
            logger.info("hosts.came", extra={"host": number + 1, "missing": missing})
        for line in there.values():
            line.sendall(_ALL)


def _named(line: socket.socket) -> int:
    """Which host has come; 0 for anybody else."""
    line.settimeout(_PAUSE)
    try:
        said = line.makefile("rb").readline(64)
        return int(said.removeprefix(_NAME[:-3])) if said.startswith(_NAME[:-3]) else 0
    except (OSError, ValueError):
        return 0
