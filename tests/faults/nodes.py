"""A Ray cluster of several nodes on this machine: its head has the machine's address, others loopback addresses of
their own. Ray listens on all addresses then, and asks who connects for the token of this user."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import ray.util

from tests.faults.faults import HEAD, NODE

BIN = Path(sys.executable).parent
START_DEADLINE_S = 60.0
STORE_BYTES = str(200 * 2**20)


@contextmanager
def cluster(folder: Path, *, num_nodes: int, cpus: int) -> Iterator[str]:
    """The address of a cluster with as many nodes, of as many CPUs each. A process can tell its node by the environment
    variable `NODE`."""
    port = str(_free_port())
    own_address: Callable[[], str] = ray.util.get_node_ip_address
    address = f"{own_address()}:{port}"
    generate = [str(BIN / "ray"), "get-auth-token", "--generate"]
    subprocess.run(generate, env=_environment(), capture_output=True, timeout=START_DEADLINE_S, check=False)
    with ExitStack() as ended:
        here = ("--head", "--port", port, "--include-dashboard", "false")
        log = ended.enter_context(_node(folder, HEAD, cpus, *here))
        _wait_for_nodes(address, 1, log)
        for number in range(2, num_nodes + 1):
            there = ("--address", address, "--node-ip-address", f"127.0.0.{number}")
            log = ended.enter_context(_node(folder, f"node-{number}", cpus, *there))
            # One after the other: two that start at once on a machine would take the same name for a socket.
            _wait_for_nodes(address, number, log)
        yield address


def _environment(**more: str) -> dict[str, str]:
    environment = {k: v for k, v in os.environ.items() if k != "RAY_ADDRESS"}
    # Ray sends what is smaller than 100 kB along with an answer: groups of short completions would lie on no node.
    kept = {"RAY_max_direct_call_object_size": "100"}
    return environment | {"RAY_AUTH_MODE": "token", "HF_HUB_OFFLINE": "1"} | kept | more


@contextmanager
def _node(folder: Path, name: str, cpus: int, *words: str) -> Iterator[Path]:
    """A node, ended with all its processes; the file is its log."""
    log = folder / f"{name}.log"
    place = ["--num-cpus", str(cpus), "--object-store-memory", STORE_BYTES, "--disable-usage-stats", "--block"]
    with log.open("w") as out:
        process = subprocess.Popen(
            [str(BIN / "ray"), "start", *place, *words],
            env=_environment(**{NODE: name}),
            stdout=out,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        yield log
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(timeout=30)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait(timeout=30)


def _wait_for_nodes(address: str, count: int, log: Path) -> None:
    deadline = time.monotonic() + START_DEADLINE_S
    ask = [str(BIN / "ray"), "status", "--address", address]
    while True:
        asked = subprocess.run(
            ask, env=_environment(), text=True, capture_output=True, timeout=START_DEADLINE_S, check=False
        )
        if asked.stdout.count(" node_") >= count:
            return
        assert time.monotonic() < deadline, f"{asked.stdout}\n{asked.stderr}\n{log.read_text()}"
        time.sleep(0.5)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
