"""Ray: join a running cluster where there is one to join, else one node of our own, on loopback, for this run alone."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from math import ceil

from cluster.errors import ClusterError

# A node's CPUs for actors that share cores, above what the machine has: sampler and learner take turns on the same
# cores, so a laptop runs what asks for more actors than it has cores.
LOCAL_MIN_CPUS = 8
LOCAL_OBJECT_STORE_BYTES = 2 * 2**30


@dataclass(frozen=True, slots=True, kw_only=True)
class RaySession:
    """A connection to Ray."""

    is_local: bool
    """True when this program started Ray, and ends it."""
    address: str


@contextmanager
def ray_session(*, num_cpus: float) -> Iterator[RaySession]:
    """Connects for the time of a run. `RAY_ADDRESS` (set inside a Ray job) names the cluster to join.

    Errors: `ClusterError` when the cluster cannot be joined or local Ray cannot start.
    """
    # Our own actors are told what they need; Ray would otherwise warn about, or change, what it finds.
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    import ray

    address = os.environ.get("RAY_ADDRESS")
    try:
        if address:
            ray.init(address=address if address != "local" else None, log_to_driver=False, logging_level="ERROR")
        else:
            ray.init(
                address="local",
                num_cpus=max(LOCAL_MIN_CPUS, ceil(num_cpus), os.cpu_count() or 1),
                include_dashboard=False,
                log_to_driver=False,
                logging_level="ERROR",
                object_store_memory=LOCAL_OBJECT_STORE_BYTES,
                # Without it a local Ray listens on the machine's outer address.
                _node_ip_address="127.0.0.1",
            )
    except (ConnectionError, RuntimeError, ValueError, OSError) as error:
        where = f"join the Ray cluster at {address} (RAY_ADDRESS)" if address else "start Ray on this machine"
        raise ClusterError(
            f"could not {where}: {type(error).__name__}: {error}; check the address and, for a cluster with "
            "token authentication, RAY_AUTH_MODE and the token"
        ) from error
    try:
        yield RaySession(is_local=not address, address=address or "local")
    finally:
        ray.shutdown()
