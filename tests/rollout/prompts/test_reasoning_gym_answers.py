"""Answers that reasoning-gym gives wrong."""

import pytest

from rollout.config import ReasoningGymTask
from rollout.errors import DataError
from rollout.prompts.reasoning_gym import generate, value_of


def task(**params: object) -> ReasoningGymTask:
    return ReasoningGymTask(generator="basic_arithmetic", params={"allow_parentheses": False, **params}, size=200)


@pytest.mark.parametrize("operators", [["+"], ["+", "-"], ["+", "*"], ["-", "*"], ["+", "-", "*"]])
def test_products_come_first(operators: list[str]) -> None:
    entries = list(generate(task(operators=operators, min_terms=2, max_terms=5)))
    for entry in entries:
        metadata = entry["metadata"]
        assert isinstance(metadata, dict)
        # By Python's own rules, which are those of arithmetic.
        assert entry["answer"] == str(eval(metadata["expression"], {"__builtins__": {}})), entry


def test_by_hand() -> None:
    assert value_of("9 + 5 * 8") == 49
    assert value_of("2 * 3 - 4 * 5 * 2 + 1") == 6 - 40 + 1
    assert value_of("7") == 7


@pytest.mark.parametrize("operators", [{}, {"operators": ["+", "/"]}])
def test_division_is_refused_where_another_is_written(operators: dict[str, object]) -> None:
    with pytest.raises(DataError, match="writes other divisors than it divides by"):
        list(generate(task(**operators)))
