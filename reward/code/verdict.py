"""Whether a program passes its tests. What is expected stays here, outside of the sandbox that the program runs in.

    a whole program   stdin --> sandbox --> stdout, compared here
    a function        arguments --> sandbox --> result as data, compared here
    assertions        judge's sandbox <-- calls and results as data, passed on here --> program's sandbox

So there is no word that a program could say instead of the right answer. What remains open to it: it sees the inputs,
and a test that accepts a wrong result (an assertion that is too weak, an `except` around it) accepts it here too.
Assertions without an `entry_point` call whatever function of the program they name, helpers included.
"""

import json
import math
import re
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from reward.code.inside.values import decode, encode
from reward.code.row_tests import Assertions, CallTest, StdinTest, Tests, num_tests
from rollout.sandbox.limits import Limits, deadline_s
from rollout.sandbox.packages import preloaded_modules
from rollout.sandbox.process import Allowance, Program, ProgramError
from rollout.sandbox.sandbox import Contents, Sandbox

_PROGRAM_MODULES = ("reward.code.inside.values", "reward.code.inside.program")
_JUDGE_MODULES = (*_PROGRAM_MODULES, "reward.code.inside.judge")
_MAX_STARTS = 8
"""Of one program: one that ends itself in every call would otherwise cost a start for each test."""
# What cannot be the program's doing while it has not been called: its missing names can.
_SETUP_FAULTS = re.compile(r"(?!NameError|AttributeError)")
_TEST_FAULTS = re.compile(r"ImportError|ModuleNotFoundError")
_DECIMAL = re.compile(r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?")


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
            allowance.check()
        finally:
            self.spent_s += allowance.used_s()

    def verdict(self) -> Verdict:
        if not self.detail and self.done < self.total:
            self.detail = f"test {self.done + 1} of {self.total}: all tests took longer than {self.total_s:g} s"
        return Verdict(num_passed=self.passed, num_tests=self.total, detail=self.detail)


def judge(source: str, tests: Tests, procedure: Procedure) -> Verdict:
    """Run `source` on `tests`.

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
            _judge_runs(source, (test for test in tests if isinstance(test, StdinTest)), procedure, count)
    return count.verdict()


def _judge_runs(source: str, tests: Iterable[StdinTest], procedure: Procedure, count: _Count) -> None:
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
                    if code != 0:
                        failure = program.how_it_ended()
                    elif not same_output(test.stdout, output, procedure.tolerance):
                        failure = "wrong output"
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
                        _names(program)
                except ProgramError as error:
                    count.add(str(error))
                    return  # it would not load for the next test either
                for test in tests[count.done :]:
                    if count.is_over:
                        return
                    try:
                        with count.clock(program):
                            failure = _call(program, test, procedure)
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


def _call(process: Program, test: CallTest, procedure: Procedure) -> str | None:
    """None when the result is right, else what is wrong."""
    args = [encode(argument) for argument in test.args]
    kwargs = {name: encode(value) for name, value in test.kwargs.items()}
    process.send({"name": test.entry_point, "attribute": None, "args": args, "kwargs": kwargs})
    answer = _parsed(process.receive_bytes())
    if "value" not in answer:
        return _exception_text(answer)
    return None if same_value(test.result, answer["value"], procedure.tolerance) else "wrong result"


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


def same_output(expected: str, output: bytes, tolerance: float) -> bool:
    """Whether a program wrote what it should: white space at the end of lines and of the text aside.

    A word that is a decimal fraction in `expected` may differ by `tolerance`; text that is no UTF-8 is wrong.
    """
    wanted, written = _lines(expected), _lines(output.decode("utf-8", "replace"))
    if wanted == written:
        return True
    if len(wanted) != len(written):
        return False
    return all(_same_line(left, right, tolerance) for left, right in zip(wanted, written, strict=True))


def _lines(text: str) -> list[str]:
    return [line.rstrip() for line in text.rstrip().split("\n")]


def _same_line(expected: str, written: str, tolerance: float) -> bool:
    wanted, words = expected.split(), written.split()
    if len(wanted) != len(words):
        return False
    return all(
        left == right or _same_decimal(left, right, tolerance) for left, right in zip(wanted, words, strict=True)
    )


def _same_decimal(expected: str, written: str, tolerance: float) -> bool:
    if expected.lstrip("+-").isdigit() or not all(_DECIMAL.fullmatch(word) for word in (expected, written)):
        return False
    return math.isclose(float(expected), float(written), rel_tol=tolerance, abs_tol=tolerance)


def same_value(expected: Any, encoded: Any, tolerance: float) -> bool:
    """Whether `encoded`, which a program sent, is `expected`, which is JSON: a tuple there may be a list here.

    Compared while it is still encoded, and never deeper or wider than `expected` is: no value is too large to refuse.
    """
    tag, content = next(iter(encoded.items())) if isinstance(encoded, dict) and len(encoded) == 1 else ("", encoded)
    if isinstance(expected, (list, tuple)):
        is_sequence = isinstance(content, list) and tag in ("", "t", "g")
        if not is_sequence or len(content) != len(expected):
            return False
        return all(same_value(left, right, tolerance) for left, right in zip(expected, content, strict=True))
    if isinstance(expected, Mapping):
        return tag == "d" and isinstance(content, list) and _same_mapping(expected, content, tolerance)
    if isinstance(expected, str) or expected is None:
        return tag == "" and type(content) is type(expected) and bool(content == expected)
    try:
        value = decode(encoded) if tag in ("i", "f", "n") else encoded
    except (ValueError, OverflowError):
        return False
    if isinstance(value, (str, list, dict)) or value is None:
        return False
    if isinstance(expected, float) or isinstance(value, float):
        return _is_close(expected, value, tolerance)
    return bool(value == expected)


def _same_mapping(expected: Mapping[Any, Any], pairs: list[Any], tolerance: float) -> bool:
    # JSON's keys are text; a program may have numbers there.
    wanted = {str(key): value for key, value in expected.items()}
    if len(pairs) != len(wanted) or not all(isinstance(pair, list) and len(pair) == 2 for pair in pairs):
        return False
    found = {str(key): value for key, value in pairs if isinstance(key, (str, int, float))}
    return found.keys() == wanted.keys() and all(same_value(wanted[key], found[key], tolerance) for key in wanted)


def _is_close(expected: Any, value: Any, tolerance: float) -> bool:
    try:
        left, right = float(expected), float(value)
    except (OverflowError, ValueError):
        return False
    return (math.isnan(left) and math.isnan(right)) or math.isclose(left, right, rel_tol=tolerance, abs_tol=tolerance)
