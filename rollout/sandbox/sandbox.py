"""Where a program runs that a model wrote: one sandbox for all runs of a program, each run in a fork of its own.

    owner --control socket--> driver (process 1) --fork--> program, for one run

Started when it is first needed, and built anew after a run that was cut off or left something behind.
"""

import ctypes
import importlib.util
import json
import os
import select
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from types import CodeType, TracebackType
from typing import Any, Self

from rollout.sandbox.backends import ENVIRONMENT, View, launch, python_view
from rollout.sandbox.limits import Limits
from rollout.sandbox.packages import shown_packages
from rollout.sandbox.process import Program, SandboxError

START_DEADLINE_S = 30.0
"""For the driver to say that it is ready: tens of milliseconds on an idle machine."""
_END_DEADLINE_S = 5.0
_PR_SET_CHILD_SUBREAPER, _PR_GET_CHILD_SUBREAPER = 36, 37


@lru_cache(maxsize=1)
def _view() -> View:
    return python_view()


@lru_cache(maxsize=8)
def _code(module: str) -> CodeType:
    spec = importlib.util.find_spec(module)
    assert spec is not None, module
    assert spec.origin is not None, module
    source = Path(spec.origin).read_text(encoding="utf-8")
    return compile(source, module, "exec", dont_inherit=True, optimize=2)


@dataclass(frozen=True, slots=True, kw_only=True)
class Contents:
    """What runs in a sandbox."""

    order: Mapping[str, Any]
    """What it is told, with the text of the program as `source`."""
    stage: str = "script"
    """"script" for a program that runs as a whole, or the module (of `modules`) whose `main` gets the order."""
    modules: tuple[str, ...] = ()
    """Of this project, that are sent along."""
    preloaded: tuple[str, ...] = ()
    """Modules that all runs share."""
    packages: tuple[str, ...] = ()
    """Distributions that may be imported besides the standard library."""


class Sandbox:
    """A sandbox, from `with` to its end."""

    def __init__(self, backend: str, limits: Limits, contents: Contents) -> None:
        self._backend = backend
        self._limits = limits
        self._packages = contents.packages
        self._order: dict[str, Any] = {
            **contents.order,
            "stage": contents.stage,
            "modules": [(name, _code(name)) for name in contents.modules],
            "preloaded": list(contents.preloaded),
            "limits": limits.kernel_limits(),
            "disk_bytes": limits.disk_bytes,
        }
        self._process: subprocess.Popen[bytes] | None = None
        self._control: socket.socket | None = None
        self.first_pid = 0
        """Process 1 as seen from here, once there is one."""
        self._first_fd: int | None = None
        self._cpu_s = 0.0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self.close()

    @contextmanager
    def run(self) -> Iterator[Program]:
        """A fresh process of the program, which is at its end when this is left.

        Raises:
            SandboxError: it could not be started, or does not end.
        """
        if self._process is None:
            self._start()
        assert self._control is not None
        program = Program(self._control, self.first_pid, self._limits, self._cpu_s)
        is_whole = False
        try:
            yield program
            self._cpu_s += program.cpu_s
            is_whole = program.exit_code is not None and program.left_nothing
        finally:
            program.close()
            if not is_whole:
                self.close()

    def close(self) -> None:
        """Kill everything in the sandbox and wait until it is gone. Idempotent; `run` starts another one.

        Raises:
            SandboxError: it does not end.
        """
        process, self._process = self._process, None
        control, self._control = self._control, None
        first_fd, self._first_fd = self._first_fd, None
        self._cpu_s = 0.0
        if control is not None:
            control.close()
        try:
            if process is not None:
                _kill(process, first_fd)
        finally:
            if first_fd is not None:
                os.close(first_fd)

    def _start(self) -> None:
        control, theirs = socket.socketpair()
        info_fd, info = os.pipe()
        deadline_s = time.monotonic() + START_DEADLINE_S
        # An orphan of the sandbox comes to us, who wait for it, and leaves no zombie with somebody who does not.
        set_subreaper(True)
        self._control = control
        try:
            try:
                message = self._launch(theirs, info)
            finally:
                theirs.close()
                os.close(info)
            control.settimeout(START_DEADLINE_S)
            control.sendall(message)
            self.first_pid = _process_one(info_fd, deadline_s)
            # The driver waits for a byte, so process 1 is still there to be taken hold of.
            self._first_fd = os.pidfd_open(self.first_pid)
            control.sendall(b"G")
            if control.recv(1) != b"R":
                raise ConnectionError
        except (OSError, ValueError) as error:
            raise SandboxError(f"the {self._backend} sandbox did not start ({self._why(error)})") from error
        except BaseException:
            self.close()
            raise
        finally:
            os.close(info_fd)

    def _launch(self, theirs: socket.socket, info: int) -> bytes:
        plan = launch(
            self._backend,
            _view(),
            self._order,
            control_fd=theirs.fileno(),
            info_fd=info,
            packages=shown_packages(self._packages),
        )
        self._process = subprocess.Popen(
            plan.command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            pass_fds=[info, theirs.fileno()],
            env=ENVIRONMENT,
            cwd="/",
        )
        # A pipe with an end, which the streams of programs are too: what Python finds out of it at its start holds.
        assert self._process.stdin is not None
        self._process.stdin.close()
        return plan.message

    def _why(self, error: Exception) -> str:
        """What the sandbox said of why it did not start; it is closed then."""
        process = self._process
        if process is None or isinstance(error, TimeoutError):
            self.close()
            return str(error) or f"it took longer than {START_DEADLINE_S:g} s"
        with suppress(subprocess.TimeoutExpired):
            process.wait(0.5)  # what it has to say comes before its end
        code = process.poll()
        assert process.stdout is not None
        os.set_blocking(process.stdout.fileno(), False)
        with suppress(BlockingIOError):
            said = os.read(process.stdout.fileno(), 4096)
            lines = [line.strip() for line in said.decode("utf-8", "replace").splitlines() if line.strip()]
            self.close()
            return f"exit code {code}: {lines[-1]}" if lines else f"exit code {code}"
        self.close()
        return str(error) or "it does not answer"


def _process_one(info_fd: int, deadline_s: float) -> int:
    """Its process id as seen from here.

    Raises:
        ValueError: the sandbox ended first.
        TimeoutError: it did not say in time.
    """
    text = b""
    while is_readable(info_fd, max(deadline_s - time.monotonic(), 0.0)):
        chunk = os.read(info_fd, 4096)
        if not chunk:
            raise ValueError("it ended before it had a process")
        text += chunk
        # Not until end of file: the one who writes it keeps the pipe open in one of the two backends.
        with suppress(ValueError, KeyError):
            return int(json.loads(text)["child-pid"])
    raise TimeoutError(f"it had no process within {START_DEADLINE_S:g} s")


def _kill(process: subprocess.Popen[bytes], first_fd: int | None) -> None:
    if first_fd is not None:
        # Process 1 of the namespace: the kernel kills the others before its end is reported.
        with suppress(ProcessLookupError):
            signal.pidfd_send_signal(first_fd, signal.SIGKILL)
        if not is_readable(first_fd, _END_DEADLINE_S):
            raise SandboxError(f"process 1 of the sandbox does not end within {_END_DEADLINE_S:g} s of its kill")
    with suppress(subprocess.TimeoutExpired):
        process.wait(0.2)  # it leaves by itself when its child is gone
    process.kill()
    process.wait(_END_DEADLINE_S)
    assert process.stdout is not None
    process.stdout.close()
    if first_fd is not None:
        # Bubblewrap's own process does not wait for process 1, which becomes our child then.
        with suppress(ChildProcessError):
            os.waitid(os.P_PIDFD, first_fd, os.WEXITED | os.WNOHANG)


def set_subreaper(is_one: bool) -> bool:
    """Whether orphans among this process's descendants become its children; what it was before."""
    libc, was = ctypes.CDLL(None), ctypes.c_int()
    libc.prctl(_PR_GET_CHILD_SUBREAPER, ctypes.byref(was), 0, 0, 0)
    libc.prctl(_PR_SET_CHILD_SUBREAPER, ctypes.c_ulong(is_one), 0, 0, 0)
    return bool(was.value)


def is_readable(fd: int, timeout_s: float) -> bool:
    """Whether `fd` has something to say, or its other end is gone, within `timeout_s`."""
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    return bool(poll.poll(1000 * timeout_s))
