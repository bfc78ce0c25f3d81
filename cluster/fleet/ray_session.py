"""Ray: join a running cluster where there is one to join, else one node of our own, on loopback, for this run alone."""

import logging
import os
import re
import socket
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from math import ceil
from typing import Any

from cluster.errors import ClusterError

# A node's CPUs for actors that share cores, above what the machine has: sampler and learner take turns on the same
# cores, so a laptop runs what asks for more actors than it has cores.
LOCAL_MIN_CPUS = 8
LOCAL_RECONNECT_S = 5
"""How long processes of a local Ray wait for its head; Ray's default is 60."""
JOIN_RECONNECT_S = 180
"""The same for a cluster that is joined. Ray ends the process then, without our sentence; that a listener is no Ray is
found out in 40 s, and in more than Ray's 60 where the machine is busy."""
LOCAL_NICENESS = 0
"""Ray's own is 15: beside two programs that compute, its workers get a twentieth of the cores, and the threads of a
matrix product wait for the one of them that was put aside."""
GLOO_INTERFACE = "GLOO_SOCKET_IFNAME"
LOCAL_OBJECT_STORE_BYTES = 2 * 2**30
# How many times its cores a machine may be asked for: each actor is a process with a model of its own.
LOCAL_MAX_SHARE = 4

SOCKET_PATH_BYTES = 107
"""Longest path of a Unix socket on Linux."""
CONNECT_DEADLINE_S = 10.0
"""Time for something to listen at RAY_ADDRESS. Ray itself would try for a quarter of an hour."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RaySession:
    """A connection to Ray."""

    is_local: bool
    """True when this program started Ray, and ends it."""
    address: str


@contextmanager
def ray_session(*, num_cpus: float) -> Iterator[RaySession]:
    """Connects for the time of a run. `RAY_ADDRESS` (set inside a Ray job) names the cluster to join.

    Errors: `ClusterError` when the cluster cannot be joined, or local Ray cannot start or has too few cores.
    """
    address = os.environ.get("RAY_ADDRESS")
    if address == "local":
        address = None
    if address:
        _require_listener(address)
    else:
        _refuse_overload(num_cpus)
        _refuse_long_folder()
    # Our own actors are told what they need; Ray would otherwise warn about, or change, what it finds.
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    # An answer that nobody waits for any more, as when a run is stopped, is no error of the run, for which Ray would
    # print a trace. Every answer that is waited for is awaited, and its error is ours to report.
    os.environ.setdefault("RAY_IGNORE_UNHANDLED_ERRORS", "1")
    if not address:
        # When this process is killed, all of a local Ray goes with it, at the same time. Ray's agents then try to
        # report that to its head, and stay for as long as they would wait for one that comes back.
        os.environ.setdefault("RAY_gcs_rpc_server_reconnect_timeout_s", str(LOCAL_RECONNECT_S))
    else:
        os.environ.setdefault("RAY_gcs_rpc_server_reconnect_timeout_s", str(JOIN_RECONNECT_S))
    import ray

    with _settings(is_local=not address):
        try:
            if address:
                # A client's server adds no folder to the path of workers.
                job = {} if "://" in address else {"job_config": _job_config()}
                ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR, **job)
            else:
                ray.init(
                    address="local",
                    job_config=_job_config(),
                    num_cpus=max(LOCAL_MIN_CPUS, ceil(num_cpus), os.cpu_count() or 1),
                    include_dashboard=False,
                    log_to_driver=False,
                    logging_level=logging.ERROR,
                    object_store_memory=LOCAL_OBJECT_STORE_BYTES,
                    _system_config={
                        # Workers that nobody would use: each actor has an environment, and so a process, of its own.
                        "prestart_worker_first_driver": False,
                        "worker_niceness": LOCAL_NICENESS,
                    },
                )
        except Exception as error:  # Ray's boundary: a node that is not up in time is a plain Exception
            where = f"join the Ray cluster at {address} (RAY_ADDRESS)" if address else "start Ray on this machine"
            raise ClusterError(
                f"could not {where}: {type(error).__name__}: {' '.join(str(error).split())}; "
                f"{_what_to_do(address, error)}"
            ) from error
        try:
            yield RaySession(is_local=not address, address=address or "local")
        finally:
            ray.shutdown()


@contextmanager
def _settings(*, is_local: bool) -> Iterator[None]:
    """What Ray reads from the environment when it is imported, which may have happened already."""
    from ray._private import ray_constants

    tries, can_have_cluster = ray_constants.NUM_REDIS_GET_RETRIES, ray_constants.ENABLE_RAY_CLUSTER
    interface = os.environ.get(GLOO_INTERFACE)
    if is_local:
        # Ray takes loopback, wherever it is named, for the machine's outer address, and then listens on every address;
        # but for a system that can have no cluster, which it is told that this one is.
        ray_constants.ENABLE_RAY_CLUSTER = False
        # The groups of torch's processes listen where the name of the machine leads, unless they are told otherwise.
        # Workers have the environment of Ray's node, which has that of this process.
        if sys.platform == "linux":
            os.environ.setdefault(GLOO_INTERFACE, "lo")
    else:
        # Of a listener that turns out to be no Ray: one round of waiting, about 40 s, not twenty.
        ray_constants.NUM_REDIS_GET_RETRIES = 1
    try:
        yield
    finally:
        ray_constants.NUM_REDIS_GET_RETRIES, ray_constants.ENABLE_RAY_CLUSTER = tries, can_have_cluster
        if interface is None:
            os.environ.pop(GLOO_INTERFACE, None)


def _job_config() -> Any:
    """Workers find modules where their environment says (`with_ours`). Left alone, Ray puts the folder in which this
    program was started first on their path, where a reward.py or a types.py takes the place of the package of that
    name. It does not do that for a job with a working directory, which is where it can be told."""
    from ray.job_config import JobConfig

    class NoFolders(JobConfig):
        def _runtime_env_has_working_dir(self) -> bool:
            return True

    return NoFolders()


def _what_to_do(address: str | None, error: Exception) -> str:
    if address:
        return "check the address and, for a cluster with token authentication, RAY_AUTH_MODE and the token"
    if "timed out" in str(error) or isinstance(error, TimeoutError):
        return "Ray waits half a minute for its own processes, so end other programs on this machine and try again"
    return "make room on the disk of the temporary folder and in memory, or join a cluster with RAY_ADDRESS"


def _refuse_overload(num_cpus: float) -> None:
    """Actors may share this machine's cores, up to a bound: a typing error must not start a thousand processes."""
    cores = os.cpu_count() or 1
    most = max(LOCAL_MIN_CPUS, LOCAL_MAX_SHARE * cores)
    if num_cpus > most:
        raise ClusterError(
            f"the run asks for {num_cpus:g} CPUs, but this machine has {cores}, which actors may share up to {most}; "
            "use fewer or smaller actors (rollout.num_engines, rollout.cpus_per_engine, learner.num_ranks, "
            "learner.cpus_per_rank), or join a cluster with RAY_ADDRESS"
        )


def _refuse_long_folder() -> None:
    """Ray's processes meet at sockets below the temporary folder, whose paths the system keeps short."""
    variable = next((name for name in ("RAY_TMPDIR", "TMPDIR") if name in os.environ), None)
    folder = os.environ[variable] if variable else "/tmp"
    below = len(f"/ray/session_2026-01-01_00-00-00_000000_{os.getpid()}/sockets/plasma_store")
    most, num_bytes = SOCKET_PATH_BYTES - below, len(os.fsencode(folder))
    if num_bytes > most:
        raise ClusterError(
            f"the temporary folder {folder} ({variable}) has {num_bytes} bytes, allowed: {most}, since paths of "
            f"sockets below it may have {SOCKET_PATH_BYTES}; set RAY_TMPDIR to a shorter folder, such as /tmp"
        )


def _require_listener(address: str) -> None:
    """Returns once something accepts connections at `host:port`; other forms ("auto") are Ray's to judge.

    Errors: `ClusterError` when nothing does within the deadline.
    """
    match = re.fullmatch(r"(?:ray://)?\[?([^/\[\]]+?)\]?:(\d{1,5})", address)
    if match is None:
        return
    deadline_s = time.monotonic() + CONNECT_DEADLINE_S
    while True:
        error = _connect(match[1], int(match[2]))
        if error is None:
            return
        if time.monotonic() + 0.5 > deadline_s:
            raise ClusterError(
                f"no Ray cluster answers at {address} (RAY_ADDRESS) within {CONNECT_DEADLINE_S:g} s: {error}; start "
                "it, correct the address, or unset RAY_ADDRESS to run on this machine"
            ) from error
        time.sleep(0.5)  # A cluster that is being started refuses for a moment.


def _connect(host: str, port: int) -> OSError | OverflowError | None:
    """None when a connection was accepted. Ray takes loopback for the machine's outer address, so that counts too."""
    import ray.util

    own_address: Callable[[], str] = ray.util.get_node_ip_address
    hosts = [host, own_address()] if host in ("127.0.0.1", "localhost", "::1") else [host]
    failure: OSError | OverflowError | None = None
    for name in hosts:
        try:
            with socket.create_connection((name, port), timeout=2.0):
                return None
        except (OSError, OverflowError) as error:  # OverflowError: a port above 65535
            failure = failure or error
    return failure
