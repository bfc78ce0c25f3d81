"""One run of a program in a sandbox: what goes in, what it says, what it uses, and how it ended.

    owner --stdin--> program              a process of its own, forked by the driver for this run alone
          <-stdout, stderr (bounded)--
          <-exit code, processor time-- driver

The time of a program is its own: processor time of all its processes, and time in which none of them has anything to
do, as when it sleeps. Time in which one of them could run and the machine is busy with something else is not counted,
so the same program has the same time on an idle machine and on a busy one. The wall clock only bounds it; what it cuts
off is a failure of the machine, and no verdict.
"""

import json
import os
import select
import socket
import struct
import time
from collections.abc import Sequence
from typing import Any

from rollout.sandbox.driver import ENDED
from rollout.sandbox.limits import Limits, usage

_WATCH_EVERY_S = 0.03
_MAX_STDERR_BYTES = 4096


class SandboxError(Exception):
    """The sandbox did not do its part. Never the program's fault, so never a reward of 0."""


class ProgramError(Exception):
    """The program ended badly or went over a limit: its text says which."""


class Program:
    """A program in its own process; `Sandbox.run` makes one.

    An `Allowance` says for how long it may run; without one nothing is waited for.
    """

    def __init__(self, control: socket.socket, first_pid: int, limits: Limits, earlier_cpu_s: float) -> None:
        """`first_pid` is process 1 of the sandbox, which has waited for `earlier_cpu_s` of processor time before."""
        self._control = control
        self._first_pid = first_pid
        self._limits = limits
        self._earlier_cpu_s = self._seen_cpu_s = earlier_cpu_s
        self._to_write = bytearray()
        self._close_stdin_when_written = False
        self._stdout = bytearray()
        self._stderr = bytearray()
        self._num_stderr_bytes = 0
        self._ending = b""
        self._watched_s = time.monotonic()
        self._open: dict[int, str] = {}
        self._allowance: Allowance | None = None
        self.exit_code: int | None = None
        """As a shell has it: 128 and more are signals. None while it runs."""
        self.cpu_s = 0.0
        """Processor time of the whole run, once it has ended."""
        self.left_nothing = False
        """Whether the sandbox is as it was before the run, once it has ended."""
        self._start()

    def _start(self) -> None:
        pairs: list[tuple[int, int]] = []
        try:
            pairs += [os.pipe() for _ in range(3)]
            theirs = [pairs[0][0], pairs[1][1], pairs[2][1]]
            try:
                socket.send_fds(self._control, [b"R"], theirs)
            except OSError as error:
                raise SandboxError(f"process 1 of the sandbox is gone: {error}") from error
        except BaseException:
            for fd in (fd for pair in pairs for fd in pair):
                os.close(fd)
            raise
        for fd in theirs:
            os.close(fd)
        self._open = {pairs[0][1]: "stdin", pairs[1][0]: "stdout", pairs[2][0]: "stderr"}
        for fd in self._open:
            os.set_blocking(fd, False)

    def close(self) -> None:
        """Let go of its streams. Idempotent."""
        for fd in self._open:
            os.close(fd)
        self._open.clear()

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

    def begin(self, allowance: "Allowance") -> float:
        """It may run for as long as that one says; `total_cpu_s` as it was last seen, so that nothing of it is lost."""
        self._allowance = allowance
        return self._seen_cpu_s

    def total_cpu_s(self) -> float:
        """Processor time that process 1 of the sandbox has seen, up to now; grows."""
        if self.exit_code is not None:
            return self._earlier_cpu_s + self.cpu_s
        self._seen_cpu_s = max(self._seen_cpu_s, usage(self._first_pid).cpu_s)
        return self._seen_cpu_s

    def look(self) -> tuple[float, bool]:
        """`total_cpu_s`, and whether it runs or could run.

        Raises:
            ProgramError: its processes are too many, or take too much memory.
        """
        if self.exit_code is not None:
            return self.total_cpu_s(), False
        found = usage(self._first_pid)
        reason = found.excess(self._limits)
        if reason is not None:
            raise ProgramError(reason)
        self._seen_cpu_s = max(self._seen_cpu_s, found.cpu_s)
        return self._seen_cpu_s, found.is_running

    def _pump(self) -> None:
        """Move bytes for a moment, and look at the limits.

        Raises:
            ProgramError: a limit.
            SandboxError: the machine is too busy.
        """
        assert self._allowance is not None, "nobody said for how long it may run"
        poll = select.poll()
        for fd, name in self._open.items():
            if name == "stdin" and not self._to_write and not self._close_stdin_when_written:
                continue
            poll.register(fd, select.POLLOUT if name == "stdin" else select.POLLIN)
        poll.register(self._control.fileno(), select.POLLIN)
        for fd, _ in poll.poll(1000 * _WATCH_EVERY_S):
            if fd == self._control.fileno():
                self._take_end()
                continue
            # An earlier one of the round may have closed it.
            role = self._open.get(fd)
            if role == "stdin":
                self._write_some(fd)
            elif role is not None:
                self._read_some(fd, role)
        now_s = time.monotonic()
        if self.exit_code is None and now_s > self._watched_s + _WATCH_EVERY_S:
            # When this process was not given a core for long, neither was the program: no more than two looks' worth.
            self._allowance.look(min(now_s - self._watched_s, 2 * _WATCH_EVERY_S))
            self._watched_s = time.monotonic()

    def _write_some(self, fd: int) -> None:
        try:
            while self._to_write:
                del self._to_write[: os.write(fd, self._to_write[: 1 << 16])]
        except BlockingIOError:
            return
        except BrokenPipeError:
            self._to_write.clear()
            self._forget(fd)
            return
        if self._close_stdin_when_written:
            self._forget(fd)

    def _read_some(self, fd: int, name: str) -> bool:
        """Whether there may be more."""
        try:
            chunk = os.read(fd, 1 << 16)
        except BlockingIOError:
            return False
        if not chunk:
            self._forget(fd)
            return False
        if name == "stdout":
            self._stdout += chunk
        else:
            self._num_stderr_bytes += len(chunk)
            self._stderr = (self._stderr + chunk)[-_MAX_STDERR_BYTES:]
        # A message's length stands in front of it, and has to fit too.
        if len(self._stdout) + self._num_stderr_bytes > self._limits.output_bytes + 4:
            raise ProgramError(f"it wrote more than {self._limits.output_bytes} bytes")
        return True

    def _take_end(self) -> None:
        try:
            chunk = self._control.recv(ENDED.size - len(self._ending), socket.MSG_DONTWAIT)
        except BlockingIOError:
            return
        except OSError:
            chunk = b""
        if not chunk:
            # Nobody but the program has run in there since it began.
            raise ProgramError("process 1 of its sandbox ended")
        self._ending += chunk
        if len(self._ending) < ENDED.size:
            return
        code, cpu_us, left_nothing = ENDED.unpack(self._ending)
        # All that it started is gone, so what is in the pipes is all there will be.
        for fd, name in list(self._open.items()):
            while name != "stdin" and self._read_some(fd, name):
                pass
        self.exit_code = code if code >= 0 else 128 - code
        self.cpu_s = cpu_us / 1e6
        self.left_nothing = bool(left_nothing)

    def _forget(self, fd: int) -> None:
        del self._open[fd]
        os.close(fd)


class Allowance:
    """Time for programs that run together from now on, and what they used of it."""

    def __init__(self, programs: Sequence[Program], *, own_s: float, until_s: float) -> None:
        """`own_s` is of the programs' own time; `until_s` is the wall-clock bound, as `time.monotonic` tells it."""
        self._programs = programs
        self._own_s = own_s
        self._until_s = until_s
        self._started_s = time.monotonic()
        self._idle_s = 0.0
        self._before_s = sum(program.begin(self) for program in programs)

    def look(self, since_last_s: float) -> None:
        """Look at what the programs use; `since_last_s` is idle time if none of them could run.

        Raises:
            ProgramError: too much time, memory or processes.
            SandboxError: the machine is too busy.
        """
        looks = [program.look() for program in self._programs]
        if not any(is_running for _, is_running in looks):
            self._idle_s += since_last_s
        self.check(sum(cpu_s for cpu_s, _ in looks) - self._before_s + self._idle_s)
        if time.monotonic() > self._until_s:
            waited_s = time.monotonic() - self._started_s
            raise SandboxError(
                f"this machine is too busy to judge the program: within {waited_s:.3g} s it was given "
                f"{self.used_s():.2g} s of processor time"
            )

    def used_s(self) -> float:
        """Up to now."""
        return self._idle_s + max(sum(program.total_cpu_s() for program in self._programs) - self._before_s, 0.0)

    def check(self, used_s: float) -> None:
        """Raises ProgramError when `used_s` is more than is allowed; the end of a run may come before a look at it."""
        if used_s > self._own_s:
            raise ProgramError(f"it took longer than {self._own_s:.3g} s")
