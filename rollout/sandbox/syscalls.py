"""Which system calls a program may make: a filter for the kernel, as the bytes that seccomp takes.

Refused is what no solution needs and what gets round a limit (memory that belongs to no process: memfd, System V; time
of children that the kernel itself waits for, where SIGCHLD is ignored), reaches another process (ptrace, another's
limits, priority or pages) or widens the way into the kernel: io_uring, bpf, mounts, keys, perf, other namespaces,
message queues, and every family of sockets but AF_UNIX, whose names are the sandbox's own.
"""

import struct
from dataclasses import dataclass

_NEW_NAMESPACES = 0x7E020080
"""CLONE_NEW* of clone's flags: user, pid, net, ipc, uts, cgroup, mount, time."""
_AF_UNIX = 1
_SIGCHLD = 17

# The same number on every machine: pidfd_getfd, io_uring, mounts by file descriptor, memfd_secret, landlock's like.
_EVERYWHERE = (425, 426, 427, 428, 429, 430, 431, 432, 433, 438, 440, 442, 447, 448)
_REFUSED_X86_64 = (
    *(29, 30, 64, 68, 101, 103, 135, 141, 142, 144, 154, 155, 161, 163, 165, 166, 167, 168, 169, 172, 173, 175, 179),
    *(203, 240, 246, 248, 249, 250, 251, 256, 272, 279, 298, 300, 303, 304, 308, 310, 311, 312, 313, 314, 319, 320),
    *(321, 323, *_EVERYWHERE),
)
_REFUSED_AARCH64 = (
    *(30, 39, 40, 41, 51, 60, 89, 92, 97, 104, 105, 116, 118, 119, 122, 140, 142, 180, 117, 186, 190, 194, 196, 217),
    *(218, 219, 224, 225, 238, 239, 241, 262, 264, 265, 268, 270, 271, 272, 273, 274, 279, 280, 282, 294),
    *_EVERYWHERE,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Machine:
    """Numbers of system calls."""

    architecture: int
    """As seccomp tells it."""
    refused: tuple[int, ...]
    clone: int
    clone3: int
    socket: int
    socketpair: int
    prlimit64: int
    rt_sigaction: int


_MACHINES = {
    "x86_64": _Machine(
        architecture=0xC000003E,
        refused=_REFUSED_X86_64,
        clone=56,
        clone3=435,
        socket=41,
        socketpair=53,
        prlimit64=302,
        rt_sigaction=13,
    ),
    "aarch64": _Machine(
        architecture=0xC00000B7,
        refused=_REFUSED_AARCH64,
        clone=220,
        clone3=435,
        socket=198,
        socketpair=199,
        prlimit64=261,
        rt_sigaction=134,
    ),
}
_LOAD, _IF_EQUAL, _IF_ANY_BIT, _IF_FROM, _ANSWER = 0x20, 0x15, 0x45, 0x35, 0x06
_ALLOW, _KILL, _NOT_PERMITTED, _NO_SUCH_CALL = 0x7FFF0000, 0x80000000, 0x00050001, 0x00050026
# struct seccomp_data: int nr at 0, u32 arch at 4, u64 args[0] at 16, of which the lower half comes first.
_NUMBER, _ARCHITECTURE, _FIRST_ARGUMENT = 0, 4, 16

_Line = tuple[int, int, int, int]
"""(operation, lines to skip if so, lines to skip if not, operand)"""


def system_call_filter(machine: str) -> bytes:
    """An array of `struct sock_filter` for `machine` (as `os.uname` names it); what is refused gets EPERM.

    Raises:
        ValueError: the numbers of its system calls are not known here.
    """
    if machine not in _MACHINES:
        raise ValueError(f"no list of system calls for {machine}: programs run on {' and '.join(_MACHINES)} alone")
    calls = _MACHINES[machine]
    lines: list[_Line] = [(_LOAD, 0, 0, _ARCHITECTURE), (_IF_EQUAL, 1, 0, calls.architecture), (_ANSWER, 0, 0, _KILL)]
    # From the bit on that marks the x32 table beside x86_64's.
    lines += [(_LOAD, 0, 0, _NUMBER), (_IF_FROM, 0, 1, 0x40000000), (_ANSWER, 0, 0, _NOT_PERMITTED)]
    # Its flags lie in memory, where no filter looks; libc takes clone then.
    lines += [(_IF_EQUAL, 0, 1, calls.clone3), (_ANSWER, 0, 0, _NO_SUCH_CALL)]
    for number in calls.refused:
        lines += [(_IF_EQUAL, 0, 1, number), (_ANSWER, 0, 0, _NOT_PERMITTED)]
    lines += _by_argument(calls.socket, (_IF_EQUAL, 1, 0, _AF_UNIX))
    lines += _by_argument(calls.socketpair, (_IF_EQUAL, 1, 0, _AF_UNIX))
    # Limits of the process that asks, and of no other: 0 is itself.
    lines += _by_argument(calls.prlimit64, (_IF_EQUAL, 1, 0, 0))
    lines += _by_argument(calls.clone, (_IF_ANY_BIT, 0, 1, _NEW_NAMESPACES))
    # What becomes of children stays as it is: those that nobody waits for would take time that nobody counts.
    lines += _by_argument(calls.rt_sigaction, (_IF_EQUAL, 0, 1, _SIGCHLD))
    lines.append((_ANSWER, 0, 0, _ALLOW))
    return b"".join(struct.pack("HBBI", *line) for line in lines)


def _by_argument(number: int, allowed: _Line) -> list[_Line]:
    """`allowed` compares the first argument, and skips one line if the call is allowed."""
    look: list[_Line] = [(_IF_EQUAL, 0, 4, number), (_LOAD, 0, 0, _FIRST_ARGUMENT), allowed]
    return [*look, (_ANSWER, 0, 0, _NOT_PERMITTED), (_ANSWER, 0, 0, _ALLOW)]
