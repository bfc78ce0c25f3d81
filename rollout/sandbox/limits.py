"""What a model's program may use, and a look from outside at what all of its processes use together.

The kernel's limits are for one process each. For all together there is often no cgroup to ask for without a container
engine, so they are counted: the processes of a program are the descendants of process 1 of its sandbox.
"""

import os
from contextlib import suppress
from dataclasses import dataclass

_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
_TICK_S = 1 / os.sysconf("SC_CLK_TCK")
_MAX_OPEN_FILES = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What one program may use."""

    time_s: float = 2.0
    """Of one test: processor time of all its processes, and time in which none of them has anything to do."""
    total_s: float = 60.0
    """The same of all tests of one completion."""
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
            "RLIMIT_NPROC": self.processes + 1,  # process 1 of the sandbox is the same user's
            "RLIMIT_NOFILE": _MAX_OPEN_FILES,
            "RLIMIT_FSIZE": self.disk_bytes,
            "RLIMIT_CORE": 0,
            "RLIMIT_MEMLOCK": 0,
            "RLIMIT_MSGQUEUE": 0,
        }


def deadline_s(total_s: float) -> float:
    """Wall-clock time within which a program gets `total_s` of processor time, unless the machine is too busy to judge
    it: with a tenth of a core to itself, and half a minute for its sandboxes to start."""
    return 30.0 + 10.0 * total_s


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """What the processes below one process use."""

    cpu_s: float
    """Processor time of those that live and of those that were waited for, since process 1 started."""
    num_processes: int
    """That live."""
    resident_bytes: int
    """Pages that a fork shares with its parent count twice."""
    is_running: bool
    """Whether one of their threads runs, or would if it were given a core."""

    def excess(self, limits: Limits) -> str | None:
        """What there is too much of; None when all is within the limits."""
        if self.num_processes > limits.processes:
            return f"it started more than {limits.processes} processes"
        if self.resident_bytes > limits.memory_bytes:
            return f"it took more than {limits.memory_bytes >> 20} MiB of memory"
        return None


def usage(first_pid: int) -> Usage:
    """A look at the descendants of `first_pid`, which is process 1 of a sandbox."""
    own = _stat(first_pid)
    ticks = own.waited_ticks if own is not None else 0
    num_processes = num_pages = 0
    # Process 1 works between the program's end and its word of it.
    is_running = own is not None and own.state == "R"
    for pid in descendants(first_pid)[1:]:
        found = _stat(pid)
        if found is None:
            continue  # it ended in between
        num_processes += 1
        num_pages += found.pages
        ticks += found.ticks + found.waited_ticks
        # One that waits for a disk, or for a child of vfork, counts as idle: a program could stay there for good.
        is_running = is_running or found.state == "R" or (found.num_threads > 1 and _has_running_thread(pid))
    return Usage(
        cpu_s=ticks * _TICK_S,
        num_processes=num_processes,
        resident_bytes=num_pages * _PAGE_BYTES,
        is_running=is_running,
    )


def descendants(pid: int) -> list[int]:
    """`pid` and all below it."""
    found = [pid]
    for parent in found:
        with suppress(OSError):
            for thread in os.listdir(f"/proc/{parent}/task"):
                with suppress(OSError), open(f"/proc/{parent}/task/{thread}/children", encoding="ascii") as listing:
                    found += [int(child) for child in listing.read().split()]
    return found


@dataclass(frozen=True, slots=True)
class _Stat:
    state: str
    """Of the main thread."""
    ticks: int
    waited_ticks: int
    """Of children that were waited for."""
    num_threads: int
    pages: int


def _stat(pid: int | str) -> _Stat | None:
    try:
        with open(f"/proc/{pid}/stat", encoding="ascii", errors="replace") as file:
            words = file.read().rpartition(")")[2].split()
    except OSError:
        return None
    # proc(5) counts from 1, and what stands behind the name begins with 3.
    utime, stime, cutime, cstime = (int(words[number - 3]) for number in (14, 15, 16, 17))
    return _Stat(words[0], utime + stime, cutime + cstime, int(words[20 - 3]), int(words[24 - 3]))


def _has_running_thread(pid: int) -> bool:
    with suppress(OSError):
        for thread in os.listdir(f"/proc/{pid}/task"):
            found = _stat(f"{pid}/task/{thread}")
            if found is not None and found.state == "R":
                return True
    return False
