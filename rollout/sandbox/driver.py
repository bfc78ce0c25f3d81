"""The first thing that runs inside the code sandbox: takes its limits, says that it is ready, and runs what it is told.

Its text is handed to `python -I -S -c`: standard library only, nothing of this project can be imported in there. The
namespaces exist already (rollout/sandbox/backends.py); what is done here is the same for each of them:

    read the order from stdin -> become another user -> limits -> no new system calls -> "ready" -> run

Until "ready" no line of the program has run, so a failure before it is the sandbox's and one after it the program's.
"""

import ctypes
import json
import os
import platform
import resource
import struct
import sys
import types
from itertools import accumulate
from typing import Any

_PR_SET_NO_NEW_PRIVS = 38
_PR_SET_SECCOMP = 22
_SECCOMP_MODE_FILTER = 2
_NEW_NAMESPACES = 0x7E020080
"""CLONE_NEW* of clone's flags: user, pid, net, ipc, uts, cgroup, mount, time."""

# What no solution needs, and what gets round a limit (memory that belongs to no process: memfd, System V) or widens
# the way into the kernel: ptrace, io_uring, bpf, mounts, keys, perf, other namespaces, System V and POSIX queues.
# For each machine: (audit architecture, clone, clone3, the refused).
_EVERYWHERE = (425, 426, 427, 428, 429, 430, 431, 432, 433, 438, 442, 447)
_REFUSED_X86_64 = (
    *(29, 30, 64, 68, 101, 103, 135, 154, 155, 161, 163, 165, 166, 167, 168, 169, 172, 173, 175, 179, 240, 246, 248),
    *(249, 250, 272, 298, 300, 303, 304, 308, 310, 311, 312, 313, 319, 320, 321, 323, *_EVERYWHERE),
)
_REFUSED_AARCH64 = (
    *(39, 40, 41, 51, 60, 89, 92, 97, 104, 105, 116, 142, 180, 117, 186, 190, 194, 196, 217, 218, 219, 224, 225, 241),
    *(262, 264, 265, 268, 270, 271, 272, 273, 279, 280, 282, 294, *_EVERYWHERE),
)
_MACHINES = {
    "x86_64": (0xC000003E, 56, 435, _REFUSED_X86_64),
    "aarch64": (0xC00000B7, 220, 435, _REFUSED_AARCH64),
}


def main() -> None:
    """Reads the order, gives up rights, sets limits, says that it is ready and runs the stage."""
    ready_fd = int(sys.argv[1])
    order = json.loads(_read_exactly(struct.unpack("!I", _read_exactly(4))[0]))
    os.umask(0o077)
    if order["uid"] is not None:
        os.setgroups([])
        os.setresgid(order["uid"], order["uid"], order["uid"])
        os.setresuid(order["uid"], order["uid"], order["uid"])
    _limit(order["limits"])
    _refuse_system_calls()
    if os.getuid() == 0 or os.geteuid() == 0:
        raise SystemExit("the program would run as root")
    os.environ.clear()
    os.environ.update(HOME="/tmp", TMPDIR="/tmp", PATH="/usr/bin:/bin", LANG="C.UTF-8")
    os.chdir("/tmp")
    os.write(ready_fd, b"R")
    os.closerange(3, 1024)
    _install(order["modules"])
    sys.argv[:] = ["main.py"]
    if order["stage"] == "script":
        _run_script(order["source"])
    else:
        __import__(order["stage"])
        sys.modules[order["stage"]].main(order)


def _read_exactly(num_bytes: int) -> bytes:
    received = b""
    while len(received) < num_bytes:
        # Not sys.stdin: its buffer would swallow what belongs to the program.
        chunk = os.read(0, num_bytes - len(received))
        if not chunk:
            raise SystemExit("the order ended early")
        received += chunk
    return received


def _limit(limits: dict[str, int]) -> None:
    for name, value in limits.items():
        kind = getattr(resource, name)
        _, most = resource.getrlimit(kind)
        value = value if most == resource.RLIM_INFINITY else min(value, most)
        resource.setrlimit(kind, (value, value))


def _refuse_system_calls() -> None:
    """A seccomp filter that answers EPERM, for this process and all that come from it."""
    machine = platform.machine()
    if machine not in _MACHINES:
        raise SystemExit(f"no list of system calls for {machine}")
    architecture, clone, clone3, refused = _MACHINES[machine]
    load, jump_equal, jump_set, jump_from, answer = 0x20, 0x15, 0x45, 0x35, 0x06
    allow, kill, no_permission, no_such_call = 0x7FFF0000, 0x80000000, 0x00050001, 0x00050026
    # struct seccomp_data: int nr at 0, u32 arch at 4, u64 args[0] at 16.
    filters = [(load, 0, 0, 4), (jump_equal, 1, 0, architecture), (answer, 0, 0, kill), (load, 0, 0, 0)]
    filters += [(jump_from, 0, 1, 0x40000000), (answer, 0, 0, no_permission)]  # the x32 table beside x86_64's
    filters += [(jump_equal, 0, 1, clone3), (answer, 0, 0, no_such_call)]  # its flags lie in memory; libc uses clone
    for number in refused:
        filters += [(jump_equal, 0, 1, number), (answer, 0, 0, no_permission)]
    filters += [(jump_equal, 0, 3, clone), (load, 0, 0, 16), (jump_set, 0, 1, _NEW_NAMESPACES)]
    filters += [(answer, 0, 0, no_permission), (answer, 0, 0, allow)]
    code = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *line) for line in filters))
    program = struct.pack("HxxxxxxQ", len(filters), ctypes.addressof(code))
    libc = ctypes.CDLL(None, use_errno=True)
    unsigned = ctypes.c_ulong
    if libc.prctl(_PR_SET_NO_NEW_PRIVS, unsigned(1), unsigned(0), unsigned(0), unsigned(0)) != 0:
        raise OSError(ctypes.get_errno(), "PR_SET_NO_NEW_PRIVS failed")
    if libc.prctl(_PR_SET_SECCOMP, unsigned(_SECCOMP_MODE_FILTER), ctypes.c_char_p(program), 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "PR_SET_SECCOMP failed")


def _install(modules: dict[str, str]) -> None:
    """Make modules of the project importable that came as text."""
    for name, source in modules.items():
        for package in accumulate(name.split(".")[:-1], "{}.{}".format):
            sys.modules.setdefault(package, types.ModuleType(package)).__path__ = []
        module = types.ModuleType(name)
        sys.modules[name] = module
        exec(compile(source, name, "exec"), module.__dict__)


def _run_script(source: str) -> None:
    """The program as `python main.py`: its exit code, its traceback and its exit handlers are Python's own."""
    # Tracebacks show lines of the program, not of this file.
    import linecache

    linecache.cache["main.py"] = (len(source), None, source.splitlines(keepends=True), "main.py")
    module: Any = types.ModuleType("__main__")
    module.__file__ = "main.py"
    sys.modules["__main__"] = module
    exec(compile(source, "main.py", "exec"), module.__dict__)


if __name__ == "__main__":
    main()
