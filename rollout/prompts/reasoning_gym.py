"""Rows from reasoning-gym's generators, the same ones in every process.

Some generators walk through sets of texts, whose order changes with each process's hash seed, and some draw from
Python's global random state. A resumed run would then be asked other questions than it was started with. So rows are
drawn in a child process with a fixed hash seed, and the global state is seeded for each row. That also gives a
generator that never comes back a deadline, and keeps what it prints out of the program's output.

One generator (0.1.25) gives wrong answers: `basic_arithmetic` without parentheses computes from left to right, so that
`9 + 5 * 8` is 112, and divides by other numbers than it writes. The first is put right, the second refused.
"""

import difflib
import functools
import json
import os
import random
import subprocess
import sys
from collections.abc import Iterator, Mapping
from typing import Any

from rollout.config import ReasoningGymTask
from rollout.errors import DataError
from rollout.module_loading import SAFE_PYTHON, ours_first
from rollout.prompts.raw_rows import json_value

GENERATE_DEADLINE_S = 900.0
"""For all rows of a task; most generators give thousands a second, the slowest a few."""

# What a generator raises on parameters it cannot use: their checks are plain asserts, or accidents further in.
_GENERATOR_ERRORS = (ArithmeticError, AssertionError, AttributeError, LookupError, RuntimeError, TypeError, ValueError)


def generate(task: ReasoningGymTask, *, deadline_s: float = GENERATE_DEADLINE_S) -> Iterator[Mapping[str, object]]:
    """The entries of a generator in order: question, answer and metadata as JSON values.

    Raises DataError for an unknown generator, parameters that it refuses, or a missed deadline.
    """
    lines = _draw(task.model_dump_json(include={"kind", "generator", "params", "size", "data_seed"}), deadline_s)
    return (json.loads(line) for line in lines)


@functools.lru_cache(maxsize=2)  # the training and the evaluation split are parts of the same rows
def _draw(task_json: str, deadline_s: float) -> tuple[str, ...]:
    task = ReasoningGymTask.model_validate_json(task_json)
    command = [sys.executable, *SAFE_PYTHON, "-c", "from rollout.prompts.reasoning_gym import main; main()"]
    environment = os.environ | {"PYTHONHASHSEED": "0", "PYTHONPATH": os.pathsep.join(ours_first(sys.path))}
    try:
        child = subprocess.run(
            command, input=task_json, capture_output=True, text=True, env=environment, timeout=deadline_s
        )
    except subprocess.TimeoutExpired as error:
        raise DataError(
            f"reasoning_gym/{task.generator} did not give {task.size} rows within {deadline_s:g} s with params "
            f"{task.params}; lower task.size or make the questions smaller"
        ) from error
    lines = child.stdout.splitlines()
    if child.returncode != 0 or len(lines) != task.size:
        if lines and lines[-1].startswith('{"problem"'):
            raise DataError(json.loads(lines[-1])["problem"])
        detail = (child.stderr.strip().splitlines() or ["no message"])[-1][:200]
        raise DataError(f"reasoning_gym/{task.generator} ended with status {child.returncode}: {detail}")
    return tuple(lines)


def main() -> None:
    """The child: a task as JSON on standard input, an entry on each line of standard output, at last a problem."""
    lines, sys.stdout = sys.stdout, sys.stderr  # generators print
    task = ReasoningGymTask.model_validate_json(sys.stdin.read())
    try:
        for entry in _entries(task):
            lines.write(json.dumps(entry) + "\n")
    except DataError as error:
        lines.write(json.dumps({"problem": str(error)}) + "\n")
        lines.flush()
        sys.exit(1)


def _entries(task: ReasoningGymTask) -> Iterator[object]:
    import numpy as np
    import reasoning_gym
    from reasoning_gym.factory import DATASETS

    where = f"reasoning_gym/{task.generator}"
    if task.generator not in DATASETS:
        close = difflib.get_close_matches(task.generator, DATASETS, n=3, cutoff=0.5)
        hint = f"did you mean {' or '.join(map(repr, close))}?" if close else f"known are {', '.join(sorted(DATASETS))}"
        raise DataError(f"reasoning-gym has no generator {task.generator!r}; {hint}")
    for name, field in (("size", "size"), ("seed", "data_seed")):
        if name in task.params:
            raise DataError(f"{where}: params may not hold {name!r}; set task.{field} instead")
    if _is_left_to_right(task) and "/" in task.params.get("operators", "/"):
        raise DataError(
            f'{where} writes other divisors than it divides by where params.allow_parentheses is false; leave "/" out '
            "of params.operators, or set allow_parentheses to true"
        )
    random.seed(task.data_seed)
    np.random.seed(task.data_seed % 2**32)
    try:
        generator = reasoning_gym.create_dataset(task.generator, size=task.size, seed=task.data_seed, **task.params)
    except _GENERATOR_ERRORS as error:
        raise DataError(f"{where} refuses params {task.params}: {_first_line(error)}") from error
    for index in range(task.size):
        yield _entry(generator, index, where, task)


def _entry(generator: Any, index: int, where: str, task: ReasoningGymTask) -> object:
    random.seed(f"{task.data_seed}/{index}")
    try:
        entry = generator[index]
    except _GENERATOR_ERRORS as error:
        detail = _first_line(error)
        raise DataError(f"{where} fails on row {index + 1} with params {task.params}: {detail}") from error
    assert isinstance(entry, dict), type(entry)
    if _is_left_to_right(task):
        entry = entry | {"answer": str(value_of(entry["metadata"]["expression"]))}
    return {name: json_value(value, name) for name, value in entry.items()}


def _is_left_to_right(task: ReasoningGymTask) -> bool:
    return task.generator == "basic_arithmetic" and task.params.get("allow_parentheses", True) is False


def value_of(expression: str) -> int:
    """Of integers with `+`, `-` and `*` between them, spaces about each: products first.

    Example:
        value_of("9 + 5 * 8") == 49
    """
    first, *rest = expression.split()
    total, product = 0, int(first)
    for operator, term in zip(rest[::2], rest[1::2], strict=True):
        if operator == "*":
            product *= int(term)
        else:
            total, product = total + product, int(term) if operator == "+" else -int(term)
    return total + product


def _first_line(error: BaseException) -> str:
    return next((line.strip()[:200] for line in str(error).splitlines() if line.strip()), type(error).__name__)
