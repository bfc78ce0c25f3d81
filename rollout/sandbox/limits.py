"""What a model's program may use, and a look from outside at what all of its processes use together.

The kernel's limits are for one process each. For all together there is often no cgroup to ask for without a container
engine, so they are counted: the processes of a sandbox are the descendants of the one that was started.
"""

import os
from contextlib import suppress
from dataclasses import dataclass

_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
_MAX_OPEN_FILES = 64
_NUM_HELPERS = 4
"""Processes of a sandbox that are not the program's: the launcher, process 1, a helper of one of them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What one program may use."""

    time_s: float = 2.0
    """Wall-clock time of one test; as CPU time the same, rounded up to a second, for each process."""
    total_s: float = 4.0
    """Wall-clock time of all tests of one completion."""
    memory_bytes: int = 512 * 2**20
    """Address space of each process, and resident memory of all together."""
    processes: int = 32
    """Processes and threads at the same time."""
    output_bytes: int = 2**20
    """On stdout and stderr together; also of one returned value."""
    disk_bytes: int = 16 * 2**20
    """Of /tmp, and of one file."""

    def kernel_limits(self) -> dict[str, int]:
        """Names of the `resource` module with their values."""
        return {
            "RLIMIT_AS": self.memory_bytes,
            "RLIMIT_CPU": int(self.total_s) + 1,
            "RLIMIT_NPROC": self.processes,
            "RLIMIT_NOFILE": _MAX_OPEN_FILES,
            "RLIMIT_FSIZE": self.disk_bytes,
            "RLIMIT_CORE": 0,
            "RLIMIT_MEMLOCK": 0,
            "RLIMIT_MSGQUEUE": 0,
        }


def excess(pid: int, limits: Limits) -> str | None:
    """What `pid` and its descendants take too much of; None when all is within the limits.

    Memory is resident memory, so pages that a fork shares with its parent count twice.
    """
    pids = _descendants(pid)
    if len(pids) > limits.processes + _NUM_HELPERS:
        return f"it started more than {limits.processes} processes"
    if sum(_resident_bytes(each) for each in pids) > limits.memory_bytes:
        return f"it took more than {limits.memory_bytes >> 20} MiB of memory"
    return None


def _descendants(pid: int) -> list[int]:
    found = [pid]
    for parent in found:
        with suppress(OSError):
            for thread in os.listdir(f"/proc/{parent}/task"):
                with suppress(OSError), open(f"/proc/{parent}/task/{thread}/children", encoding="ascii") as listing:
                    found += [int(child) for child in listing.read().split()]
    return found


def _resident_bytes(pid: int) -> int:
    try:
        with open(f"/proc/{pid}/statm", encoding="ascii") as file:
            return int(file.read().split()[1]) * _PAGE_BYTES
    except (OSError, IndexError):
        return 0  # it ended in between
