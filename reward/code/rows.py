"""A row of any form that is known -> what a program is judged by; what cannot judge is refused before a run starts."""

import ast
from collections.abc import Iterable
from dataclasses import dataclass

from reward.code.data_sets import own_columns
from reward.code.row_tests import Assertions, StdinTest, Tests, read_tests
from reward.types import RewardInput
from rollout.sandbox.packages import importable_modules


@dataclass(frozen=True, slots=True, kw_only=True)
class RowTests:
    """How a row judges programs."""

    tests: Tests
    program_setup: str
    """In front of every program."""
    program_head: str
    """The question, where it is the beginning of a program: a function without its body. Empty where it is none."""
    checker: str | None
    """Python that decides on outputs; None compares them with the expected ones."""

    def source(self, program: str) -> str:
        """The whole program for what a completion gives, which may be the body of the question's function alone."""
        is_body = program[:1] in (" ", "\t")
        head = self.program_head + ("" if is_body else "\n") if self.program_head else ""
        setup = f"{self.program_setup}\n" if self.program_setup else ""
        return f"{setup}{head}{program}"


def row_tests(item: RewardInput, packages: tuple[str, ...] = ()) -> RowTests:
    """The tests of `item`'s row, of which the completion is not looked at; `packages` may be imported by them.

    Raises:
        ValueError: none, or not in one of the forms. The row is at fault and no completion can be judged by it.
    """
    columns = own_columns(item.row, item.ground_truth, item.question)
    tests = read_tests(columns)
    if isinstance(tests, Assertions):
        _check_imports((tests.setup, *tests.tests), packages)
    checker = columns.get("checker")
    if checker is not None:
        if not isinstance(checker, str) or not isinstance(tests[0] if isinstance(tests, tuple) else None, StdinTest):
            raise ValueError("a checker is Python, and for the output of whole programs")
        _check_imports((checker,), packages)
    return RowTests(
        tests=tests,
        program_setup=_text(columns.get("program_setup"), "program_setup"),
        program_head=_text(columns.get("program_head"), "program_head"),
        checker=checker,
    )


def _text(value: object, column: str) -> str:
    if value is not None and not isinstance(value, str):
        raise ValueError(f"the column {column} has to be text, got a {type(value).__name__}")
    return value or ""


def _check_imports(texts: Iterable[str], packages: tuple[str, ...]) -> None:
    """Raises ValueError for a module that is not there when the tests run."""
    there = importable_modules(packages)
    for text in texts:
        try:
            tree = ast.parse(text)
        except (SyntaxError, ValueError, RecursionError) as error:
            raise ValueError(f"the tests of the row are no Python: {error}") from error
        for node in ast.walk(tree):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and node.level == 0 and node.module is not None:
                names = [node.module]
            for name in names:
                if name.partition(".")[0] not in there:
                    raise ValueError(
                        f"the tests of the row import {name}, which is not in the sandbox: name its package in the "
                        "function's `packages`, or leave the row out"
                    )
