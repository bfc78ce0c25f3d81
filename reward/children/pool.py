"""Run reward functions in child processes that can be killed.

    owner (reward worker, threads) --control socket--> template (one thread) --fork--> child, child, ...
          \\____________________ one request socket for each child ______________________/

A thread cannot be stopped in Python, and a signal handler does not run while C code holds the interpreter: the only
deadline that always holds is SIGKILL from another process. So each call waits for its child until the deadline; a
child that misses it is killed with its process group, and the next call gets a fresh one. Nothing is retried.

This isolates time and crashes. It is no security boundary: children have the user's files and network. A program that
a model wrote runs in a sandbox of its own below a child, which ends with it (rollout/sandbox/process.py).
"""

import itertools
import json
import os
import select
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from reward.children.child import one_line
from reward.children.messages import PeerClosedError, receive_json, send_pickle
from reward.children.template import FORK, PID, REAP
from reward.config import RewardFunctionConfig
from reward.errors import RewardError
from reward.types import RewardInput, RewardOutcome
from rollout.errors import ConfigError

CONTROL_DEADLINE_S = 30.0
"""A fork takes milliseconds; a template that needs longer than this is stuck, and is replaced."""
_CLOSE_DEADLINE_S = 5.0

# The path is handed over as it is: the template has to find the modules that its owner finds.
_BOOTSTRAP = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[3]); from reward.children.template import main; "
    "main(int(sys.argv[1]), int(sys.argv[2]))"
)
# Libraries that start a thread for each core at import would make the template multi-threaded, and each child slow.
_ONE_THREAD = {
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "NUMEXPR_NUM_THREADS": "1",
    "TOKENIZERS_PARALLELISM": "false",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class ComponentAnswer:
    """What one function said of one completion."""

    outcome: RewardOutcome
    value: float | None
    """None unless the outcome is `ok`."""
    detail: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Child:
    pid: int
    requests: socket.socket


class _Template:
    """One template process: start it, fork children from it, kill and reap them, end it."""

    def __init__(self, functions: Sequence[RewardFunctionConfig], start_deadline_s: float) -> None:
        self._lock = threading.Lock()
        self._control, theirs = socket.socketpair()
        self._ended = threading.Event()
        try:
            self._process = self._start(theirs)
        finally:
            theirs.close()
        try:
            send_pickle(self._control, list(functions), time.monotonic() + start_deadline_s)
            answer = receive_json(self._control, time.monotonic() + start_deadline_s)
        except (PeerClosedError, TimeoutError) as error:
            self.close()
            late = isinstance(error, TimeoutError)
            what = f"were not imported within {start_deadline_s:g} s" if late else "could not be imported"
            raise RewardError(
                f"the reward functions {[function.function for function in functions]} {what} by the process that "
                f"runs them (exit code {self._process.returncode}); its error output says why"
            ) from error
        if "config_error" in answer:
            self.close()
            raise ConfigError(answer["config_error"])
        self.is_batched: tuple[bool, ...] = tuple(answer["is_batched"])
        """For each function, whether it takes a whole group."""

    def _start(self, theirs: socket.socket) -> subprocess.Popen[bytes]:
        """Start the process from a thread that lives as long as it: PR_SET_PDEATHSIG fires when that thread ends."""
        started: list[subprocess.Popen[bytes] | OSError] = []
        is_started = threading.Event()
        # Absolute, because "" means the working directory and that may change; strings, because tools add others.
        path = [os.path.abspath(entry) for entry in sys.path if isinstance(entry, str)]
        command = [sys.executable, "-c", _BOOTSTRAP, str(theirs.fileno()), str(os.getpid()), json.dumps(path)]

        def keep() -> None:
            try:
                started.append(
                    subprocess.Popen(
                        command,
                        stdin=subprocess.DEVNULL,
                        pass_fds=[theirs.fileno()],
                        env={**os.environ, **_ONE_THREAD},
                        start_new_session=True,
                    )
                )
            except OSError as error:
                started.append(error)
            is_started.set()
            self._ended.wait()

        threading.Thread(target=keep, name="reward-template-parent", daemon=True).start()
        if not is_started.wait(CONTROL_DEADLINE_S):
            raise RewardError(f"the process for reward functions did not start within {CONTROL_DEADLINE_S:g} s")
        if isinstance(started[0], OSError):
            raise RewardError(f"the process for reward functions could not be started: {started[0]}") from started[0]
        return started[0]

    @property
    def pid(self) -> int:
        return self._process.pid

    def fork(self) -> _Child:
        """A fresh child.

        Raises:
            PeerClosedError, TimeoutError: the template is gone or stuck.
        """
        ours, theirs = socket.socketpair()
        try:
            with theirs, self._lock:
                self._control.settimeout(CONTROL_DEADLINE_S)
                socket.send_fds(self._control, [FORK], [theirs.fileno()])
                pid = receive_json(self._control, time.monotonic() + CONTROL_DEADLINE_S)["pid"]
        except OSError as error:
            ours.close()
            raise _as_gone(error) from error
        except PeerClosedError:
            ours.close()
            raise
        return _Child(pid=pid, requests=ours)

    def reap(self, child: _Child) -> int:
        """Kill `child` with its process group; its exit code, or minus the signal that ended it.

        Raises:
            PeerClosedError, TimeoutError: the template is gone or stuck; the child dies with it.
        """
        child.requests.close()
        try:
            with self._lock:
                self._control.settimeout(CONTROL_DEADLINE_S)
                self._control.sendall(REAP + PID.pack(child.pid))
                return int(receive_json(self._control, time.monotonic() + CONTROL_DEADLINE_S)["exit_code"])
        except OSError as error:
            raise _as_gone(error) from error

    def close(self) -> None:
        """End the template and all children; idempotent."""
        # Shut down, not only closed: a thread that waits in `fork` or `reap` wakes up, and the template reads the end.
        with suppress(OSError):
            self._control.shutdown(socket.SHUT_RDWR)
        try:
            self._process.wait(_CLOSE_DEADLINE_S)
        except subprocess.TimeoutExpired:
            self._process.kill()  # the children die with it: PR_SET_PDEATHSIG
            self._process.wait(_CLOSE_DEADLINE_S)
        self._ended.set()
        self._control.close()


def _as_gone(error: OSError) -> Exception:
    return error if isinstance(error, TimeoutError) else PeerClosedError(f"the template is gone: {error}")


class ScoringChildren:
    """The processes that score: a template and up to `num_children` children.

    Thread-safe: each call takes a free child, or forks one.
    """

    def __init__(
        self, functions: Sequence[RewardFunctionConfig], *, num_children: int, start_deadline_s: float = 120.0
    ) -> None:
        self._functions = tuple(functions)
        self._num_children = num_children
        self._start_deadline_s = start_deadline_s
        self._lock = threading.Lock()
        self._template: _Template | None = None
        self._free: list[tuple[_Template, _Child]] = []
        self._is_closed = False

    def start(self) -> tuple[bool, ...]:
        """Import the functions and fork the children, so that the first completion does not pay for it.

        Returns for each function whether it is batched. They are imported there and not here: a module of the user
        may start threads, take memory, or hang.

        Raises:
            ConfigError: a function cannot be loaded.
            RewardError: the functions were not imported in time, or the process ended.
        """
        template = self._running_template()
        while len(self._free) < self._num_children:
            try:
                self._give_back(template, template.fork())
            except (PeerClosedError, TimeoutError) as error:
                self._replace(template)
                raise RewardError(f"no process for reward functions could be forked: {error}") from error
        return template.is_batched

    def call(
        self, numbers: Sequence[int], items: Sequence[RewardInput], timeout_s: float
    ) -> list[list[ComponentAnswer]]:
        """Functions `numbers` on `items`, one after the other in one child, within `timeout_s` altogether.

        Returns one list for each function with one answer for each item. A function that did not answer in time, and
        those behind it, are `timeout`; one whose process died is `error`.

        Raises:
            RewardError: they were closed, or the template does not start again.
        """
        template, child = self._take()
        deadline_s = time.monotonic() + timeout_s
        answers: list[list[ComponentAnswer]] = []
        try:
            send_pickle(child.requests, (list(numbers), list(items)), deadline_s)
            while len(answers) < len(numbers):  # what came before an error is kept
                answers.append(_checked(receive_json(child.requests, deadline_s), len(items)))
        except TimeoutError:
            self._kill(template, child)
            name = self._functions[numbers[len(answers)]].component
            failure = _failure(RewardOutcome.TIMEOUT, f"{name} did not answer within {timeout_s:g} s")
        except (PeerClosedError, ValueError, OSError) as error:
            name = self._functions[numbers[len(answers)]].component
            failure = _failure(RewardOutcome.ERROR, f"{name}: {self._cause(template, child, error)}")
        else:
            self._give_back(template, child)
            return answers
        num_missing = len(numbers) - len(answers)
        return answers + list(itertools.repeat([failure] * len(items), num_missing))

    def close(self) -> None:
        """Kill all children and the template; calls that run get an `error` answer. Idempotent."""
        with self._lock:
            self._is_closed = True
            template, self._template = self._template, None
            free, self._free = self._free, []
        for _, child in free:
            child.requests.close()
        if template is not None:
            template.close()

    def process_ids(self) -> list[int]:
        """Template and idle children, for a look from outside."""
        with self._lock:
            template = [self._template.pid] if self._template is not None else []
            return template + [child.pid for _, child in self._free]

    def _running_template(self) -> _Template:
        with self._lock:
            if self._is_closed:
                raise RewardError("this reward worker is closed")
            if self._template is None:
                self._template = _Template(self._functions, self._start_deadline_s)
            return self._template

    def _take(self) -> tuple[_Template, _Child]:
        while True:
            with self._lock:
                if not self._free:
                    break
                template, child = self._free.pop()
            if not _is_readable(child.requests):
                return template, child
            # An idle child has nothing to say: it died, or wrote more than it was asked for. Not this item's fault.
            self._kill(template, child)
        template = self._running_template()
        try:
            return template, template.fork()
        except (PeerClosedError, TimeoutError):
            # The template itself died, for example taken by the kernel when memory ran out. No request has been sent
            # to this child yet, so a new template repeats nothing.
            self._replace(template)
        template = self._running_template()
        try:
            return template, template.fork()
        except (PeerClosedError, TimeoutError) as error:
            raise RewardError(f"no process for reward functions could be forked, twice in a row: {error}") from error

    def _replace(self, template: _Template) -> None:
        with self._lock:
            if self._template is template:
                self._template = None
                dead = [child for owner, child in self._free if owner is template]
                self._free = [(owner, child) for owner, child in self._free if owner is not template]
                for child in dead:
                    child.requests.close()
        template.close()

    def _give_back(self, template: _Template, child: _Child) -> None:
        with self._lock:
            if template is self._template and len(self._free) < self._num_children:
                self._free.append((template, child))
                return
        self._kill(template, child)

    def _kill(self, template: _Template, child: _Child) -> int | None:
        """Kill `child`; its exit code, None when the template is gone (and the child with it)."""
        try:
            return template.reap(child)
        except (PeerClosedError, TimeoutError):
            self._replace(template)
            return None

    def _cause(self, template: _Template, child: _Child, error: Exception) -> str:
        exit_code = self._kill(template, child)
        if not isinstance(error, PeerClosedError):
            return f"the process answered with something that is no answer: {error}"
        if exit_code is None:
            return "the process that runs reward functions ended"
        how = f"killed by signal {-exit_code}" if exit_code < 0 else f"exit code {exit_code}"
        return f"the process died while it was scoring ({how})"


def _is_readable(peer: socket.socket) -> bool:
    poll = select.poll()
    poll.register(peer, select.POLLIN)
    return bool(poll.poll(0))


def _failure(outcome: RewardOutcome, detail: str) -> ComponentAnswer:
    return ComponentAnswer(outcome=outcome, value=None, detail=one_line(detail))


def _checked(message: Any, num_items: int) -> list[ComponentAnswer]:
    """The answers of a child, which has run user code and is not believed blindly.

    Raises:
        ValueError: not a list of answers.
    """
    try:
        answers = [
            ComponentAnswer(
                outcome=RewardOutcome(outcome),
                value=float(value) if outcome == RewardOutcome.OK else None,
                detail=one_line(str(detail)),
            )
            for outcome, value, detail in message
        ]
    except TypeError as error:
        raise ValueError(f"malformed answer: {error}") from error
    if len(answers) != num_items:
        raise ValueError(f"{len(answers)} answers for {num_items} completions")
    return answers
