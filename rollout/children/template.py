"""The template process: imports once what children need, then forks them in milliseconds.

It is started as a fresh interpreter, not forked from its owner: the owner is a Ray actor with threads, and a child
forked from a process with threads can inherit a lock that nobody will ever release. It stays single-threaded itself.

Commands on its control socket are one byte each: F (with a file descriptor) forks a child that serves it, R and a
process id kills and reaps that child. End of file kills everything.
"""

import ctypes
import dis
import gc
import importlib
import inspect
import os
import resource
import signal
import socket
import struct
import sys
import traceback
from collections.abc import Callable
from contextlib import suppress
from typing import Any, NoReturn, Protocol

from rollout.children.messages import PeerClosedError, receive_pickle, send_json
from rollout.errors import ConfigError

FORK = b"F"
REAP = b"R"
PID = struct.Struct("!I")

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36


class Body(Protocol):
    """What children do."""

    greeting: Any
    """What the owner is told when it is loaded, as JSON."""

    def serve(self, requests: socket.socket) -> None:
        """Answers requests until the owner closes its end. Runs in a child."""


def main(control_fd: int, owner_pid: int) -> None:
    """Run the template on the socket `control_fd` until its owner closes the other end or dies."""
    # First of all: an owner that is killed while the body is being imported must not leave this process behind.
    # The default action of SIGTERM ends even an import that is stuck in C code.
    _die_with(owner_pid, signal.SIGTERM)
    # A grandchild whose parent has died becomes our child, so that `_reap_orphans` can find it.
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)
    control = socket.socket(fileno=control_fd)
    try:
        path, payload = receive_pickle(control)
        module, _, name = path.partition(":")
        body: Body = getattr(importlib.import_module(module), name)(payload)
    except ConfigError as error:
        send_json(control, {"config_error": str(error)})
        return
    # What exists now is never collected: a collection in a child would write to, and so copy, every shared page.
    gc.collect()
    gc.freeze()
    children: set[int] = set()
    signal.signal(signal.SIGTERM, lambda *_: _end(children))
    send_json(control, {"greeting": body.greeting})
    try:
        while True:
            command, fds, _, _ = socket.recv_fds(control, 1, 1)
            if command == FORK:
                pid = _fork(control, fds[0], body)
                children.add(pid)
                send_json(control, {"pid": pid})
            elif command == REAP:
                (pid,) = PID.unpack(control.recv(PID.size, socket.MSG_WAITALL))
                assert pid in children, pid
                children.remove(pid)
                status = _kill_and_wait(pid)
                _reap_orphans(children)
                send_json(control, {"exit_code": os.waitstatus_to_exitcode(status)})
            else:
                assert command == b"", command
                break
    except (PeerClosedError, ConnectionResetError):
        pass  # the owner died between a command and its answer: the same as end of file
    _end(children)


def import_what_it_imports(function: Callable[..., object]) -> None:
    """Import the modules that stand in `import` statements inside a function. Left to its calls, an import that takes
    longer than a call may would be begun anew by each child, killed each time, and never be done."""
    code = getattr(inspect.unwrap(function), "__code__", None)
    scope = getattr(inspect.unwrap(function), "__globals__", {})
    constants: list[Any] = []
    for step in dis.get_instructions(code) if code is not None else ():
        if step.opname == "IMPORT_NAME":
            # The two constants before it: the level (0 is absolute) and the names that `from ... import` asks for.
            level, names = constants[-2:]
            # What fails here fails in the call, where the function may expect it and the outcome says why.
            with suppress(Exception):
                __import__(step.argval, scope, None, names or (), level)
        elif step.opname == "LOAD_CONST":
            constants.append(step.argval)


def _fork(control: socket.socket, requests_fd: int, body: Body) -> int:
    template_pid = os.getpid()
    pid = os.fork()
    if pid:
        # Closed here at once, so that no later child inherits it: then the owner sees end of file when this one dies.
        os.close(requests_fd)
        # In both processes, whichever runs first: the group exists before anybody can be told to kill it.
        with suppress(ProcessLookupError, PermissionError):
            os.setpgid(pid, pid)
        return pid
    exit_code = 1
    try:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        with suppress(PermissionError):
            os.setpgid(0, 0)
        _die_with(template_pid, signal.SIGKILL)
        # What it leaves in the background stays its own while it lives: the template ends all that is nobody's.
        _prctl(_PR_SET_CHILD_SUBREAPER, 1)
        control.close()
        # Not inheritable: a program that a child starts must not hold the socket open after our death.
        os.set_inheritable(requests_fd, False)
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        _volunteer_for_oom_kill()
        body.serve(socket.socket(fileno=requests_fd))
        exit_code = 0
    except BaseException:  # noqa: BLE001 - boundary: the process ends here, and must not run on as a second template
        traceback.print_exc()
    finally:
        # Not sys.exit: the exit handlers and buffers that were inherited belong to the template.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(exit_code)


def _kill_and_wait(pid: int) -> int:
    """Kill the child's process group and reap the child; a child that had already ended keeps its own status."""
    with suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
    _, status = os.waitpid(pid, 0)
    return status


def _reap_orphans(children: set[int]) -> None:
    """Kill what a dead child left behind outside its process group: as subreaper we are its parent now."""
    try:
        with open(f"/proc/self/task/{os.getpid()}/children", encoding="ascii") as listing:
            orphans = [int(pid) for pid in listing.read().split() if int(pid) not in children]
    except FileNotFoundError:
        return  # a kernel built without this listing: process groups and PR_SET_PDEATHSIG are what is left
    for pid in orphans:
        _kill_and_wait(pid)


def _end(children: set[int]) -> NoReturn:
    for pid in children:
        with suppress(ProcessLookupError):
            os.killpg(pid, signal.SIGKILL)
    # Twice: killing a child turns its own children into ours.
    for _ in range(2):
        with suppress(OSError, ChildProcessError):
            _reap_orphans(set())
    os._exit(0)


def _die_with(parent_pid: int, signal_number: signal.Signals) -> None:
    """Ask the kernel for a signal when the parent's thread that started us ends, and end now if it already has."""
    _prctl(_PR_SET_PDEATHSIG, signal_number)
    if os.getppid() != parent_pid:
        os._exit(1)


def _prctl(option: int, value: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(option, ctypes.c_ulong(value), 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), f"prctl({option}) failed")


def _volunteer_for_oom_kill() -> None:
    """When memory runs out, the kernel takes this child first and not the learner beside it."""
    with suppress(OSError), open("/proc/self/oom_score_adj", "w", encoding="ascii") as score:
        score.write("1000")
