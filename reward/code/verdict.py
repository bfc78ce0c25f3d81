"""Whether a program passes its tests. What is expected stays here, outside of the sandbox that the program runs in.

    a whole program   stdin --> sandbox --> stdout, compared here
    a function        arguments --> sandbox --> result as data, compared here
    assertions        judge's sandbox <-- calls and results as data, passed on here --> program's sandbox

So there is no word that a program could say instead of the right answer. What remains open to it: it sees the inputs,
and a test that accepts a wrong result (an assertion that is too weak, an `except` around it) accepts it here too.
Assertions without an `entry_point` call whatever function of the program they name, helpers included.
"""

import ast
import json
import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

from reward.code.comparison import same_output, same_value
from reward.code.inside.values import encode
from reward.code.row_tests import Assertions, CallTest, StdinTest, Tests, num_tests
from rollout.sandbox.limits import Limits, deadline_s
from rollout.sandbox.packages import preloaded_modules
from rollout.sandbox.process import Allowance, Program, ProgramError
from rollout.sandbox.sandbox import Contents, Sandbox

_PROGRAM_MODULES = ("reward.code.inside.values", "reward.code.inside.program")
_JUDGE_MODULES = (*_PROGRAM_MODULES, "reward.code.inside.judge")
_CHECKER_MODULES = (*_PROGRAM_MODULES, "reward.code.inside.checker")
_MAX_STARTS = 8
"""Of one program: one that ends itself in every call would otherwise cost a start for each test."""
# What cannot be the program's doing while it has not been called: its missing names can, and names that stand in the
# program for something else than the row takes them for, as the `List` that it imported for itself.
_SETUP_FAULTS = re.compile(r"(?!NameError|AttributeError|TypeError)")
_TEST_FAULTS = re.compile(r"ImportError|ModuleNotFoundError")


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """How a program did."""

    num_passed: int
    num_tests: int
    detail: str
    """What was wrong with the first test that failed; empty when all passed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Procedure:
    """How programs are judged."""

    backend: str
    limits: Limits
    tolerance: float
    """Of floating-point numbers, relative and absolute; 0 compares exactly."""
    stops_at_failure: bool
    """Whether the tests behind the first one that failed are left out."""
    packages: tuple[str, ...] = ()
    """What programs may import besides the standard library."""


class _Count:
    """Results so far, and the time that is left for all tests together."""

    def __init__(self, procedure: Procedure, total: int) -> None:
        self.stops_at_failure = procedure.stops_at_failure
        self.total = total
        self.passed = 0
        self.done = 0
        self.detail = ""
        self.spent_s = 0.0
        """Of the programs' own time: the start of a sandbox is not their fault."""
        self.time_s = procedure.limits.time_s
        self.total_s = min(procedure.limits.total_s, procedure.limits.time_s * total)
        self.until_s = time.monotonic() + deadline_s(self.total_s)

    def add(self, failure: str | None) -> None:
        self.done += 1
        self.passed += failure is None
        if failure is not None and not self.detail:
            self.detail = f"test {self.done} of {self.total}: {failure}"

    @property
    def is_over(self) -> bool:
        failed = self.stops_at_failure and self.passed < self.done
        return failed or self.done == self.total or self.spent_s >= self.total_s

    @contextmanager
    def clock(self, *programs: Program) -> Iterator[None]:
        """Let `programs` run for what is left, and count it.

        Raises:
            ProgramError: they took longer, also where they came to their end.
        """
        # A millisecond at least, because no time at all is no time to be judged by.
        own_s = max(min(self.time_s, self.total_s - self.spent_s), 0.001)
        allowance = Allowance(programs, own_s=own_s, until_s=self.until_s)
        try:
            yield
        except BaseException:
            self.spent_s += allowance.used_s()
            raise
        used_s = allowance.used_s()
        self.spent_s += used_s
        allowance.check(used_s)

    def verdict(self) -> Verdict:
        if not self.detail and self.done < self.total:
            self.detail = f"test {self.done + 1} of {self.total}: all tests took longer than {self.total_s:g} s"
        return Verdict(num_passed=self.passed, num_tests=self.total, detail=self.detail)


def judge(source: str, tests: Tests, procedure: Procedure, checker: str | None = None) -> Verdict:
    """Run `source` on `tests`; a `checker` decides on the outputs of a whole program.

    Raises:
        SandboxError: the sandbox failed.
        ValueError: the tests themselves cannot be run.
    """
    count = _Count(procedure, num_tests(tests))
    if isinstance(tests, Assertions):
        _judge_assertions(source, tests, procedure, count)
    else:
        calls = [test for test in tests if isinstance(test, CallTest)]
        if calls:
            _judge_calls(source, calls, procedure, count)
        else:
            runs = [test for test in tests if isinstance(test, StdinTest)]
            with ExitStack() as stack:
                decide = _comparing(procedure) if checker is None else _checking(checker, procedure, count, stack)
                _judge_runs(source, runs, procedure, count, decide)
    return count.verdict()


_Decide = Callable[[StdinTest, bytes], str | None]
"""A test and the output -> None when it is right, else what is wrong."""


def _comparing(procedure: Procedure) -> _Decide:
    def decide(test: StdinTest, output: bytes) -> str | None:
        is_right = any(same_output(expected, output, procedure.tolerance) for expected in test.stdouts)
        return None if is_right else "wrong output"

    return decide


def _checking(checker: str, procedure: Procedure, count: _Count, stack: ExitStack) -> _Decide:
    """The row's checker in a sandbox of its own, which `stack` ends: one process for all outputs, and a fresh one
    behind an output that it did not survive."""
    has_check = any(isinstance(node, ast.FunctionDef) and node.name == "check" for node in ast.parse(checker).body)
    sandbox = stack.enter_context(_sandbox({"checker": checker, "has_check": has_check}, _CHECKER_MODULES, procedure))
    run = stack.enter_context(ExitStack())
    started: list[Program] = []

    def decide(test: StdinTest, output: bytes) -> str | None:
        if not started:
            started.append(run.enter_context(sandbox.run()))
        (program,) = started
        # Not the program's time: it has as much for each output as that has for each test.
        allowance = Allowance([program], own_s=procedure.limits.time_s, until_s=count.until_s)
        text = output.decode("utf-8", "replace")
        try:
            program.send({"input": test.stdin, "output": text, "expected": test.stdouts[0]})
            answer = _parsed(program.receive_bytes())
            allowance.check(allowance.used_s())
        except ProgramError:
            # What it says later would be read as its answer to the next output.
            started.clear()
            run.close()
            raise
        return None if answer.get("right") is True else f"wrong output {answer.get('detail', '')}".rstrip()

    return decide


def _judge_runs(source: str, tests: Iterable[StdinTest], procedure: Procedure, count: _Count, decide: _Decide) -> None:
    """A process for each test: a program leaves nothing behind for the next one."""
    with _sandbox({"source": source}, (), procedure) as sandbox:
        for test in tests:
            if count.is_over:
                return
            with sandbox.run() as program:
                failure: str | None = None
                try:
                    with count.clock(program):
                        output, code = program.run_to_end(test.stdin.encode("utf-8", "surrogatepass"))
                    failure = program.how_it_ended() if code != 0 else decide(test, output)
                except ProgramError as error:
                    failure = str(error)
            count.add(failure)


def _judge_calls(source: str, tests: list[CallTest], procedure: Procedure, count: _Count) -> None:
    """One process for all tests, and a fresh one behind a test that it did not survive."""
    with _sandbox({"source": source}, _PROGRAM_MODULES, procedure) as sandbox:
        for _ in range(_MAX_STARTS):
            if count.is_over:
                return
            with sandbox.run() as program:
                try:
                    with count.clock(program):
                        names = _names(program)
                except ProgramError as error:
                    count.add(str(error))
                    return  # it would not load for the next test either
                for test in tests[count.done :]:
                    if count.is_over:
                        return
                    try:
                        with count.clock(program):
                            failure = _call(program, test, names, procedure)
                    except ProgramError as error:
                        count.add(str(error))
                        break
                    count.add(failure)


def _sandbox(order: Mapping[str, Any], modules: tuple[str, ...], procedure: Procedure) -> Sandbox:
    """For the last one of `modules`, or without any for a program as a whole."""
    contents = Contents(
        order=order,
        stage=modules[-1] if modules else "script",
        modules=modules,
        preloaded=preloaded_modules(order.get("source", ""), procedure.packages),
        packages=procedure.packages,
    )
    return Sandbox(procedure.backend, procedure.limits, contents)


def _names(process: Program) -> list[str]:
    """The names that the program defines.

    Raises:
        ProgramError: it cannot be loaded.
    """
    answer = _parsed(process.receive_bytes())
    names = answer.get("names")
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise ProgramError(f"it cannot be loaded ({_exception_text(answer)})")
    return names


def _call(process: Program, test: CallTest, names: list[str], procedure: Procedure) -> str | None:
    """None when the result is right, else what is wrong. `names` are what the program defines."""
    name = test.entry_point
    if name.isidentifier() and name not in names and "Solution" in names:
        name = f"Solution().{name}"
    args = [encode(argument) for argument in test.args]
    kwargs = {name: encode(value) for name, value in test.kwargs.items()}
    process.send({"name": name, "attribute": None, "args": args, "kwargs": kwargs})
    answer = _parsed(process.receive_bytes())
    if "value" not in answer:
        return _exception_text(answer)
    is_right = any(same_value(result, answer["value"], procedure.tolerance) for result in test.results)
    return None if is_right else "wrong result"


def _judge_assertions(source: str, tests: Assertions, procedure: Procedure, count: _Count) -> None:
    order = {"entry_point": tests.entry_point, "setup": tests.setup, "tests": list(tests.tests)}
    with (
        _sandbox({"source": source}, _PROGRAM_MODULES, procedure) as far,
        _sandbox(order, _JUDGE_MODULES, procedure) as near,
        far.run() as program,
        near.run() as judge,
    ):
        try:
            with count.clock(program):
                names = _names(program)
            judge.send({"names": names})
            with count.clock(program, judge):
                failure = _judge_one(judge, program, _SETUP_FAULTS)
            while failure is None and not count.is_over:
                with count.clock(program, judge):
                    failed = _judge_one(judge, program, _TEST_FAULTS)
                count.add(failed)
        except ProgramError as error:
            failure = str(error)  # the assertions behind it have lost what they would call
        if failure is not None:
            count.add(failure)


def _judge_one(judge: Program, program: Program, faults: re.Pattern[str]) -> str | None:
    """Pass calls and results between the two until the judge has a result: None, or what is wrong.

    Raises:
        ValueError: it failed by one of `faults` before it had called the program: the row is at fault.
    """
    num_calls = 0
    while True:
        message = _parsed(judge.receive_bytes())
        if "call" not in message:
            break
        num_calls += 1
        program.send(message["call"])
        # Not looked into: the judge reads it as data, in a sandbox of its own.
        judge.send_bytes(program.receive_bytes())
    if message["passed"] is True:
        return None
    detail = str(message["detail"])
    if num_calls == 0 and faults.match(detail):
        raise ValueError(f"the tests of the row cannot be run: {detail}")
    return detail


def _parsed(message: bytes) -> dict[str, Any]:
    """A message of a program, which may be anything.

    Raises:
        ProgramError: no JSON object.
    """
    try:
        value = json.loads(message)
    except (ValueError, RecursionError) as error:
        raise ProgramError("it answered with something that is no data") from error
    if not isinstance(value, dict):
        raise ProgramError("it answered with something that is no answer")
    return value


def _exception_text(answer: Mapping[str, Any]) -> str:
    message = f"{answer.get('raised', 'no exception')}: {answer.get('message', '')}"
    return message[:200]
