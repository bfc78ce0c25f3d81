"""One Python process that a model's program runs in: what it may use, what it says, and its certain end.

    reward child --stdin--> driver + program, alone in their namespaces
                 <-stdout, stderr (bounded)--
                 watches: time, memory and number of all processes in there; at a limit it kills process 1

The limits that the kernel keeps for one process (address space, CPU, files) are set inside by the driver. Those for
all processes together are watched from here: without a container engine there is often no cgroup to ask for.
"""

import ctypes
import importlib.util
import json
import os
import select
import signal
import struct
import subprocess
import time
from collections.abc import Mapping
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from rollout.sandbox.backends import View, launch, python_view
from rollout.sandbox.limits import Limits, excess

START_DEADLINE_S = 10.0
"""For the driver to say that it is ready: tens of milliseconds on an idle machine."""
_END_DEADLINE_S = 5.0
_PR_SET_CHILD_SUBREAPER, _PR_GET_CHILD_SUBREAPER = 36, 37
_WATCH_EVERY_S = 0.03
_MAX_STDERR_BYTES = 4096


class SandboxError(Exception):
    """The sandbox did not do its part. Never the program's fault, so never a reward of 0."""


class ProgramError(Exception):
    """The program ended badly or went over a limit: its text says which."""


@lru_cache(maxsize=1)
def _view() -> View:
    return python_view()


@lru_cache(maxsize=8)
def _source(module: str) -> str:
    spec = importlib.util.find_spec(module)
    assert spec is not None, module
    assert spec.origin is not None, module
    return Path(spec.origin).read_text(encoding="utf-8")


class SandboxedPython:
    """A process in a sandbox, from `with` to its end.

    `stage` is "script", or the module (of `modules`, which are sent along as text) whose `main` gets the order. The
    limits of `beside` are watched too whenever this one is waited for.

    Raises:
        SandboxError: from `with`, when it could not be started.
    """

    def __init__(
        self,
        backend: str,
        limits: Limits,
        stage: str,
        order: Mapping[str, Any],
        modules: tuple[str, ...] = (),
        beside: "SandboxedPython | None" = None,
    ) -> None:
        self._backend = backend
        self._limits = limits
        self._beside = beside
        self._order = {**order, "stage": stage, "modules": {name: _source(name) for name in modules}}
        self._order["limits"] = limits.kernel_limits()
        self._to_write = bytearray()
        self._close_stdin_when_written = False
        self._stdout = bytearray()
        self._stderr = bytearray()
        self._num_stderr_bytes = 0
        self._deadline_s = 0.0
        self._allowed_s = 0.0
        self._watched_s = 0.0
        self._init_fd: int | None = None
        self._open: dict[int, str] = {}
        self._process: subprocess.Popen[bytes] | None = None
        self.exit_code: int | None = None

    def __enter__(self) -> Self:
        try:
            self._start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self.close()

    def allow(self, seconds: float) -> None:
        """Let the program run for so long from now."""
        self._allowed_s = seconds
        self._deadline_s = time.monotonic() + seconds

    def run_to_end(self, stdin: bytes) -> tuple[bytes, int]:
        """Give the program `stdin`, wait for its end; its output and its exit code.

        Raises:
            ProgramError: it went over a limit.
        """
        self._to_write += stdin
        self._close_stdin_when_written = True
        while self.exit_code is None:
            self._pump()
        return bytes(self._stdout), self.exit_code

    def send(self, message: Any) -> None:
        """Send one JSON message; `send_bytes` one that came from another sandbox and is not looked into."""
        self.send_bytes(json.dumps(message).encode("ascii"))

    def send_bytes(self, payload: bytes) -> None:
        """Send one message as it is; it is written while something is waited for."""
        self._to_write += struct.pack("!I", len(payload)) + payload

    def receive_bytes(self) -> bytes:
        """The next message.

        Raises:
            ProgramError: the process ended, or went over a limit, or announced a message beyond `output_bytes`.
        """
        while True:
            if len(self._stdout) >= 4:
                (length,) = struct.unpack("!I", self._stdout[:4])
                if length > self._limits.output_bytes:
                    raise ProgramError(f"it returned more than {self._limits.output_bytes} bytes")
                if len(self._stdout) >= 4 + length:
                    message = bytes(self._stdout[4 : 4 + length])
                    del self._stdout[: 4 + length]
                    return message
            if self.exit_code is not None:
                raise ProgramError(f"it ended early ({self.how_it_ended()})")
            self._pump()

    def how_it_ended(self) -> str:
        """Exit code or signal, with the last line of its error output."""
        assert self.exit_code is not None
        code = self.exit_code
        how = f"signal {code - 128}" if code > 128 else f"exit code {code}"
        lines = self._stderr.decode("utf-8", "replace").split("\n")
        last = next((line.strip() for line in reversed(lines) if line.strip()), "")
        return f"{how}: {last}" if last else how

    def close(self) -> None:
        """Kill everything in the sandbox and wait until it is gone. Idempotent.

        Raises:
            SandboxError: it does not end.
        """
        process, self._process = self._process, None
        if process is None:
            return
        try:
            self._kill(process)
        finally:
            for fd in self._open:
                os.close(fd)
            self._open.clear()
            if self._init_fd is not None:
                os.close(self._init_fd)
                self._init_fd = None

    def _kill(self, process: subprocess.Popen[bytes]) -> None:
        if self._init_fd is not None:
            # Process 1 of the namespace: the kernel kills the others before its end is reported.
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._init_fd, signal.SIGKILL)
            if not _is_readable(self._init_fd, _END_DEADLINE_S):
                raise SandboxError(f"process 1 of the sandbox does not end within {_END_DEADLINE_S:g} s of its kill")
        with suppress(subprocess.TimeoutExpired):
            process.wait(0.2)  # it leaves by itself when its child is gone
        process.kill()
        process.wait(_END_DEADLINE_S)
        if self._init_fd is not None:
            # Bubblewrap's own process does not wait for process 1, which becomes our child then.
            with suppress(ChildProcessError):
                os.waitid(os.P_PIDFD, self._init_fd, os.WEXITED | os.WNOHANG)

    def _start(self) -> None:
        info_fd, info = os.pipe()
        ready_fd, ready = os.pipe()
        # An orphan of the sandbox comes to us, who wait for it, and leaves no zombie with somebody who does not.
        set_subreaper(True)
        try:
            plan = launch(
                self._backend,
                _view(),
                _source("rollout.sandbox.driver"),
                info_fd=info,
                ready_fd=ready,
                disk_bytes=self._limits.disk_bytes,
            )
            try:
                self._process = subprocess.Popen(
                    plan.command,
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.PIPE,
                    pass_fds=[info, ready],
                    env={},
                    cwd="/",
                )
            except OSError as error:
                raise SandboxError(f"{plan.command[0]} could not be started: {error}") from error
            finally:
                os.close(info)
                os.close(ready)
            self._take_pipes(self._process)
            self.allow(START_DEADLINE_S)
            self._init_fd = self._process_one(info_fd)
            # Only now: without its order the driver waits, so process 1 was still there to be taken hold of.
            self.send({**self._order, "uid": plan.driver_uid})
            if self._read_while_starting(ready_fd) != b"R":
                raise self._start_failure()
        finally:
            os.close(info_fd)
            os.close(ready_fd)

    def _take_pipes(self, process: subprocess.Popen[bytes]) -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        for pipe, name in ((process.stdin, "stdin"), (process.stdout, "stdout"), (process.stderr, "stderr")):
            fd = os.dup(pipe.fileno())
            pipe.close()
            os.set_blocking(fd, False)
            self._open[fd] = name
        # Readable when the process that we started has ended, whoever still holds its pipes.
        self._open[os.pidfd_open(process.pid)] = "ended"

    def _process_one(self, info_fd: int) -> int:
        text = b""
        while chunk := self._read_while_starting(info_fd):
            text += chunk
            # Not until end of file: the one who writes it keeps the pipe open in one of the two backends.
            with suppress(ValueError, KeyError):
                return os.pidfd_open(int(json.loads(text)["child-pid"]))
        raise self._start_failure()

    def _read_while_starting(self, fd: int) -> bytes:
        """What `fd` has to say, b"" when the process ended first."""
        try:
            while not _is_readable(fd, 0.0):
                if self.exit_code is not None:
                    return b""
                self._pump(fd)
        except ProgramError as error:
            raise SandboxError(f"the {self._backend} sandbox did not start: {error}") from error
        return os.read(fd, 4096)

    def _start_failure(self) -> SandboxError:
        with suppress(ProgramError):
            while self.exit_code is None:
                self._pump()
        how = "it does not answer" if self.exit_code is None else self.how_it_ended()
        return SandboxError(f"the {self._backend} sandbox did not start ({how})")

    def _pump(self, other_fd: int | None = None) -> None:
        """Move bytes for a moment and look at the limits; returns early when `other_fd` is readable.

        Raises:
            ProgramError: a limit.
        """
        poll = select.poll()
        for fd, name in self._open.items():
            if name == "stdin" and not self._to_write and not self._close_stdin_when_written:
                continue
            poll.register(fd, select.POLLOUT if name == "stdin" else select.POLLIN)
        if other_fd is not None:
            poll.register(other_fd, select.POLLIN)
        left_s = self._deadline_s - time.monotonic()
        if left_s <= 0:
            raise ProgramError(f"it took longer than {self._allowed_s:.3g} s")
        for fd, _ in poll.poll(1000 * min(left_s, _WATCH_EVERY_S) + 1):
            # An earlier one of the round may have closed it.
            role = self._open.get(fd)
            if role == "stdin":
                self._write_some(fd)
            elif role == "ended":
                self._take_end(fd)
            elif role is not None:
                self._read_some(fd, role)
        if self.exit_code is None and self._init_fd is not None and time.monotonic() > self._watched_s + _WATCH_EVERY_S:
            self.watch()
            self._watched_s = time.monotonic()

    def _write_some(self, fd: int) -> None:
        try:
            if self._to_write:
                del self._to_write[: os.write(fd, self._to_write[: 1 << 16])]
        except BlockingIOError:
            return
        except BrokenPipeError:
            self._to_write.clear()
            self._forget(fd)
            return
        if not self._to_write and self._close_stdin_when_written:
            self._forget(fd)

    def _read_some(self, fd: int, name: str) -> None:
        try:
            chunk = os.read(fd, 1 << 16)
        except BlockingIOError:
            return
        if not chunk:
            self._forget(fd)
        elif name == "stdout":
            self._stdout += chunk
        else:
            self._num_stderr_bytes += len(chunk)
            self._stderr = (self._stderr + chunk)[-_MAX_STDERR_BYTES:]
        # A message's length stands in front of it, and has to fit too.
        if len(self._stdout) + self._num_stderr_bytes > self._limits.output_bytes + 4:
            raise ProgramError(f"it wrote more than {self._limits.output_bytes} bytes")

    def _take_end(self, fd: int) -> None:
        self._forget(fd)
        assert self._process is not None
        code = self._process.wait()
        if self._init_fd is not None:
            # Daemons that the program left hold the pipes; they die with process 1, and then the pipes have an end.
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._init_fd, signal.SIGKILL)
            _is_readable(self._init_fd, _END_DEADLINE_S)
        while readable := [fd for fd, name in self._open.items() if name != "stdin" and _is_readable(fd, 0.0)]:
            for pipe in readable:
                self._read_some(pipe, self._open[pipe])
        self.exit_code = code if code >= 0 else 128 - code

    def _forget(self, fd: int) -> None:
        del self._open[fd]
        os.close(fd)

    def watch(self) -> None:
        """Look at what the program uses, here and beside. Raises ProgramError above a limit."""
        if self._beside is not None:
            self._beside.watch()
        if self._process is None or self.exit_code is not None:
            return
        reason = excess(self._process.pid, self._limits)
        if reason is not None:
            raise ProgramError(reason)


def set_subreaper(is_one: bool) -> bool:
    """Whether orphans among this process's descendants become its children; what it was before."""
    libc, was = ctypes.CDLL(None), ctypes.c_int()
    libc.prctl(_PR_GET_CHILD_SUBREAPER, ctypes.byref(was), 0, 0, 0)
    libc.prctl(_PR_SET_CHILD_SUBREAPER, ctypes.c_ulong(is_one), 0, 0, 0)
    return bool(was.value)


def _is_readable(fd: int, timeout_s: float) -> bool:
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    return bool(poll.poll(1000 * timeout_s))
