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
import select
import socket
import threading
import time
from collections.abc import Sequence
from typing import Any

from reward.config import StepsConfig
from reward.errors import RewardError
from reward.function_loading import CalledFunction
from reward.functions import CallForm
from reward.types import ComponentAnswer, RewardInput, RewardOutcome, one_line
from rollout.children.messages import PeerClosedError, receive_json, send_pickle
from rollout.children.owned_template import Child, Kind, Template

_TOGETHER_MARGIN_S = 1.0
"""A child ends coroutines at their deadline by itself; one that has not said so after this is stuck."""


class ScoringChildren:
    """The processes that score: a template and up to `num_children` children.

    Thread-safe: each call takes a free child, or forks one.
    """

    def __init__(
        self, functions: Sequence[CalledFunction], *, num_children: int, start_deadline_s: float = 120.0
    ) -> None:
        self._functions = tuple(functions)
        self._kind = Kind(
            body="reward.children.child:ScoringBody",
            error=RewardError,
            what=f"the reward functions {', '.join(function.function for function in functions)}",
            setting="reward.import_timeout_s",
        )
        self._num_children = num_children
        self._start_deadline_s = start_deadline_s
        self._lock = threading.Lock()
        self._template: Template | None = None
        self._free: list[tuple[Template, Child]] = []
        self._is_closed = False

    def start(self) -> tuple[CallForm, ...]:
        """Import the functions and fork the children, so that the first completion does not pay for it.

        Returns the form of each function. They are imported there and not here: a module of the user
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
        return tuple(CallForm(form) for form in template.greeting)

    def call(
        self, numbers: Sequence[int], items: Sequence[RewardInput], timeout_s: float
    ) -> list[list[ComponentAnswer]]:
        """Functions `numbers` on `items`, one after the other in one child, within `timeout_s` altogether and what some
        of them have for each item besides (`own_time_s`).

        Returns one list for each function with one answer for each item. A function that did not answer in time, and
        those behind it, are `timeout`; one whose process died is `error`.

        Raises:
            RewardError: they were closed, or the template does not start again.
        """
        template, child = self._take()
        deadline_s = time.monotonic() + timeout_s
        answers: list[list[ComponentAnswer]] = []
        try:
            send_pickle(child.requests, (list(numbers), list(items), timeout_s), deadline_s)
            while len(answers) < len(numbers):  # what came before an error is kept
                own_s = len(items) * self._functions[numbers[len(answers)]].own_time_s
                deadline_s, timeout_s = deadline_s + own_s, timeout_s + own_s
                message = receive_json(child.requests, deadline_s)
                answers.append(_checked(message, len(items), of_steps=self._scores_steps(numbers[len(answers)])))
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

    def call_together(
        self, number: int, items: Sequence[RewardInput], timeout_s: float
    ) -> list[tuple[ComponentAnswer, float]]:
        """A coroutine function on all items side by side in one child, each within `timeout_s`: its answer, and the
        seconds until it came. One that blocks the event loop keeps the others waiting: then they may have
        `longest_together_s`, like items that are scored in turn.

        Raises:
            RewardError: as `call`.
        """
        template, child = self._take()
        started_s = time.monotonic()
        deadline_s = started_s + longest_together_s(timeout_s, len(items))
        name = self._functions[number].component
        answers: dict[int, tuple[ComponentAnswer, float]] = {}
        try:
            send_pickle(child.requests, ([number], list(items), timeout_s), deadline_s)
            while len(answers) < len(items):
                message = receive_json(child.requests, deadline_s)
                index, answer = _checked_place(message, len(items), of_steps=self._scores_steps(number))
                answers[index] = (answer, time.monotonic() - started_s)
        except TimeoutError:
            self._kill(template, child)
            detail = f"{name} did not answer within {deadline_s - started_s:g} s: something in it blocks the event loop"
            failure = _failure(RewardOutcome.TIMEOUT, detail)
        except (PeerClosedError, ValueError, OSError) as error:
            failure = _failure(RewardOutcome.ERROR, f"{name}: {self._cause(template, child, error)}")
        else:
            self._give_back(template, child)
            return [answers[index] for index in range(len(items))]
        duration_s = time.monotonic() - started_s
        return [answers.get(index, (failure, duration_s)) for index in range(len(items))]

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

    def _scores_steps(self, number: int) -> bool:
        return isinstance(self._functions[number], StepsConfig)

    def _running_template(self) -> Template:
        with self._lock:
            if self._is_closed:
                raise RewardError("this reward worker is closed")
            if self._template is None:
                self._template = Template(self._kind, self._functions, self._start_deadline_s)
            return self._template

    def _take(self) -> tuple[Template, Child]:
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

    def _replace(self, template: Template) -> None:
        with self._lock:
            if self._template is template:
                self._template = None
                dead = [child for owner, child in self._free if owner is template]
                self._free = [(owner, child) for owner, child in self._free if owner is not template]
                for child in dead:
                    child.requests.close()
        template.close()

    def _give_back(self, template: Template, child: Child) -> None:
        with self._lock:
            if template is self._template and len(self._free) < self._num_children:
                self._free.append((template, child))
                return
        self._kill(template, child)

    def _kill(self, template: Template, child: Child) -> int | None:
        """Kill `child`; its exit code, None when the template is gone (and the child with it)."""
        try:
            return template.reap(child)
        except (PeerClosedError, TimeoutError):
            self._replace(template)
            return None

    def _cause(self, template: Template, child: Child, error: Exception) -> str:
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


def longest_together_s(timeout_s: float, num_items: int) -> float:
    """Seconds until a child that runs so many coroutines is killed: each may have its full time before the others."""
    return timeout_s * num_items + _TOGETHER_MARGIN_S


def _checked_place(message: Any, num_items: int, *, of_steps: bool) -> tuple[int, ComponentAnswer]:
    """[index, answer] of a child. Raises ValueError for anything else."""
    if not isinstance(message, list) or len(message) != 2 or message[0] not in range(num_items):
        raise ValueError("malformed answer: not [index, answer]")
    return int(message[0]), _checked([message[1]], 1, of_steps=of_steps)[0]


def _failure(outcome: RewardOutcome, detail: str) -> ComponentAnswer:
    return ComponentAnswer(outcome=outcome, value=None, detail=one_line(detail))


def _checked(message: Any, num_items: int, *, of_steps: bool) -> list[ComponentAnswer]:
    """The answers of a child, which has run user code and is not believed blindly: a number each, or a list of them.

    Raises:
        ValueError: not a list of answers.
    """
    try:
        answers = [
            ComponentAnswer(
                outcome=RewardOutcome(outcome),
                value=float(value) if outcome == RewardOutcome.OK and not of_steps else None,
                steps=tuple(map(float, value)) if outcome == RewardOutcome.OK and of_steps else (),
                detail=one_line(str(detail)),
            )
            for outcome, value, detail in message
        ]
    except TypeError as error:
        raise ValueError(f"malformed answer: {error}") from error
    if len(answers) != num_items:
        raise ValueError(f"{len(answers)} answers for {num_items} completions")
    return answers
