"""The tests of a row, in Shoal's own form; reward/code/data_sets.py brings the forms of public data sets into it.

tests          a list (or its JSON text), all of one form:
                 {"input": "3 4\\n", "output": "7\\n"}   a whole program: stdin and the stdout that is expected
                 {"input": [3, 4], "output": 7}         with `entry_point`: arguments (an object: by name), result;
                                                        texts instead are JSON, one argument a line
                 "assert add(3, 4) == 7"                a line of Python
               in place of "output", "outputs" is a list of which any one is right
test_code      Python with `assert`s, with `def check(candidate)`, which is then called, or with functions `test_...`
entry_point    the function that is tested: "add", or "Solution().add"
test_setup     Python that runs before the assertions, such as imports and helpers of theirs
program_setup  Python that is put in front of the program, such as imports that the question gives
checker        Python that decides on the output of a whole program (reward/code/inside/checker.py)
"""

import ast
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from reward.code.inside.values import encode


@dataclass(frozen=True, slots=True, kw_only=True)
class StdinTest:
    """A run of the whole program."""

    stdin: str
    stdouts: tuple[str, ...]
    """Any one of them is right."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CallTest:
    """A call of one function."""

    entry_point: str
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    results: tuple[Any, ...]
    """Any one of them is right."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Assertions:
    """Python that raises nothing when the program is right."""

    entry_point: str | None
    """None: every function of the program that the tests name is taken from it."""
    setup: str
    tests: tuple[str, ...]
    """Run in this order, in one namespace."""


Tests = tuple[StdinTest, ...] | tuple[CallTest, ...] | Assertions


def read_tests(row: Mapping[str, Any]) -> Tests:
    """The tests of a row.

    Raises:
        ValueError: none, or not in one of the forms. The row is at fault and no completion can be judged by it.
    """
    entry_point = row.get("entry_point")
    if entry_point is not None and not _is_entry_point(entry_point):
        raise ValueError(f'entry_point has to be a name such as "add" or "Solution().add", got {entry_point!r}')
    if row.get("test_code") is not None:
        return _assertions([*_split(_text(row, "test_code"))], entry_point, row)
    tests = row.get("tests")
    if isinstance(tests, str):
        try:
            tests = json.loads(tests)
        except ValueError as error:
            raise ValueError(f"the column tests is text, but no JSON: {error}") from error
    if not isinstance(tests, (list, tuple)) or not tests:
        raise ValueError(f"the row has no tests: it needs a column tests or test_code, and has {sorted(row)}")
    if all(isinstance(test, str) for test in tests):
        return _assertions(list(tests), entry_point, row)
    if not all(
        isinstance(test, Mapping) and "input" in test and ("output" in test or "outputs" in test) for test in tests
    ):
        raise ValueError('every one of tests has to be {"input": ..., "output": ...}, or every one a line of Python')
    pairs = [(test["input"], _right(test)) for test in tests]
    if entry_point is not None:
        return tuple(_call_test(entry_point, given, right) for given, right in pairs)
    if not all(isinstance(text, str) for given, right in pairs for text in (given, *right)):
        raise ValueError("tests of a whole program are texts; tests of a function need the column entry_point")
    return tuple(StdinTest(stdin=given, stdouts=right) for given, right in pairs)


def _right(test: Mapping[str, Any]) -> tuple[Any, ...]:
    if "output" in test:
        return (test["output"],)
    outputs = test["outputs"]
    if not isinstance(outputs, (list, tuple)) or not outputs:
        raise ValueError(f"outputs of a test is a list of right ones, got {outputs!r}")
    return tuple(outputs)


def num_tests(tests: Tests) -> int:
    """How many tests a program can pass."""
    return len(tests.tests) if isinstance(tests, Assertions) else len(tests)


def _call_test(entry_point: str, arguments: Any, results: tuple[Any, ...]) -> CallTest:
    if isinstance(arguments, str):
        try:
            arguments = [json.loads(line) for line in arguments.splitlines() if line.strip()]
            results = tuple(json.loads(result) for result in results)
        except (TypeError, ValueError) as error:
            raise ValueError(f"input and output of a function's test are JSON when they are text: {error}") from error
    if isinstance(arguments, Mapping):
        test = CallTest(entry_point=entry_point, args=(), kwargs=arguments, results=results)
    elif isinstance(arguments, (list, tuple)):
        test = CallTest(entry_point=entry_point, args=tuple(arguments), kwargs={}, results=results)
    else:
        raise ValueError(f"input of a function's test is a list of arguments or an object, got {arguments!r}")
    try:
        encode([list(test.args), dict(test.kwargs), list(results)])
    except (TypeError, RecursionError) as error:
        raise ValueError(f"a test of {entry_point} has something that is no plain data: {error}") from error
    return test


def _assertions(tests: Sequence[str], entry_point: str | None, row: Mapping[str, Any]) -> Assertions:
    setup = _text(row, "test_setup")
    *before, last = tests
    if last == _CHECK:
        if entry_point is None:
            raise ValueError("test_code defines check(candidate): it needs the column entry_point")
        setup, tests = "\n".join([setup, *before]), [last]
    for text in (setup, *tests):
        try:
            ast.parse(text)
        except (SyntaxError, ValueError, RecursionError) as error:
            raise ValueError(f"the tests of the row are no Python: {error}") from error
    return Assertions(entry_point=entry_point, setup=setup, tests=tuple(tests))


_CHECK = "check(candidate)"


def _split(code: str) -> list[str]:
    """One text for each top-level assertion, with what stands in front of it; or the whole, and a call of `check`; or a
    call of each function `test_...`, with the whole in front of the first."""
    try:
        tree = ast.parse(code)
    except (SyntaxError, ValueError, RecursionError) as error:
        raise ValueError(f"test_code is no Python: {error}") from error
    functions = [node.name for node in tree.body if isinstance(node, ast.FunctionDef)]
    if "check" in functions:
        return [code, _CHECK]
    lines = code.splitlines(keepends=True)
    ends = [node.end_lineno or 0 for node in tree.body if isinstance(node, ast.Assert)]
    named = [name for name in functions if name.startswith("test")]
    if not ends and named:
        return [f"{_without_solution(code, tree)}\n{named[0]}()", *(f"{name}()" for name in named[1:])]
    if not ends:
        raise ValueError(
            "test_code has neither an assertion at its top level nor a function check(candidate) or test_...()"
        )
    # Assertions that share a line stay together; what follows the last one belongs to it.
    ends = sorted(set(ends))
    ends[-1] = len(lines)
    return ["".join(lines[start:end]) for start, end in zip([0, *ends[:-1]], ends, strict=True)]


def _without_solution(code: str, tree: ast.Module) -> str:
    """Tests for pytest import the program as a module; here its names are there already."""
    lines = code.splitlines(keepends=True)
    for node in tree.body:
        if isinstance(node, ast.ImportFrom) and node.module == "solution":
            for number in range(node.lineno - 1, node.end_lineno or node.lineno):
                lines[number] = "\n"
    return "".join(lines)


def _text(row: Mapping[str, Any], column: str) -> str:
    value = row.get(column)
    if value is not None and not isinstance(value, str):
        raise ValueError(f"the column {column} has to be text, got a {type(value).__name__}")
    return value or ""


def _is_entry_point(value: Any) -> bool:
    parts = value.split(".") if isinstance(value, str) else [""]
    return all(part.removesuffix("()").isidentifier() for part in parts)
