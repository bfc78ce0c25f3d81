"""Judgements of reasoning-gym that cannot tell right from wrong, mended; and which generators have one that cannot be.

Every judgement of the version in the lock is tried with right, wrong and odd answers by
tests/reward/rules/test_reasoning_gym_generators.py. These are what it found.
"""

import ast
import math
import operator
import re
from collections.abc import Callable, Mapping
from fractions import Fraction
from typing import Any

Judge = Callable[[str, Mapping[str, Any]], float]
"""(answer, entry) -> score"""

_OPERATIONS: Mapping[type[ast.operator], Callable[[Fraction, Fraction], Fraction]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
}
_NOTHING = re.compile(r"(?:there (?:is|are) )?(?:no|none|empty)\b[\w ,]*|∅|\{\}|\[\]|\\emptyset", re.IGNORECASE)


def _game_of_life_halting(answer: str, entry: Mapping[str, Any]) -> float:
    """The library compares `bool(answer)` with `bool("False")`: both are true, whatever was answered."""
    return float(answer.strip().strip(".").lower() == str(entry["answer"]).lower())


def _puzzle24(answer: str, entry: Mapping[str, Any]) -> float:
    """The library takes any four numbers within its default range, and cuts 24.9 to 24."""
    if answer == entry["answer"]:
        return 1.0
    value = arithmetic_value(answer)
    numbers = sorted(int(number) for number in re.findall(r"\d+", answer))
    return 1.0 if value == 24 and numbers == sorted(entry["metadata"]["numbers"]) else 0.01


def _coin_flip(answer: str, entry: Mapping[str, Any]) -> float:
    """The library gives all to any number that begins with the digits of the truth, as to 0.51 for 0.5."""
    try:
        given, truth = float(Fraction(answer.replace(",", ""))), float(Fraction(entry["answer"].replace(",", "")))
    except (ValueError, ZeroDivisionError, OverflowError):
        return 0.0
    if abs(given - truth) <= 1e-4:
        return 1.0
    ours, theirs = f"{given:.10g}", f"{truth:.10g}"
    same = next((place for place, (a, b) in enumerate(zip(ours, theirs, strict=False)) if a != b), None)
    return (min(len(ours), len(theirs)) if same is None else same) / max(len(ours), len(theirs))


MENDED: Mapping[str, Judge] = {
    "coin_flip": _coin_flip,
    "game_of_life_halting": _game_of_life_halting,
    "puzzle24": _puzzle24,
}
"""Generator -> the judgement that stands in for the library's."""

REFUSED: Mapping[str, str] = {}
"""Generator -> why its questions cannot be scored."""


def is_no_answer(generator: str, answer: str, entry: Mapping[str, Any]) -> bool:
    """Whether an answer is refused before it is judged: the library would give all to it."""
    if generator == "complex_arithmetic":
        # The distance to NaN is NaN, and min(1.0, NaN) is 1.0.
        return re.search(r"nan|inf", answer, re.IGNORECASE) is not None
    if generator == "polynomial_equations" and not entry["answer"]:
        # An equation without real solutions: all that holds no number was right.
        return answer.strip() != "" and _NOTHING.fullmatch(answer.strip().strip(".")) is None
    if generator in ("rubiks_cube", "rush_hour"):
        # A number is how often a move is made, one by one: "A+99999999999" would never end.
        return re.search(r"\d{4}", answer) is not None
    return False


def arithmetic_value(text: str) -> Fraction | None:
    """The exact value of whole numbers joined by + - * / and brackets; None for anything else."""
    try:
        return _value(ast.parse(text.strip(), mode="eval").body)
    except (SyntaxError, ValueError, MemoryError, RecursionError, ZeroDivisionError):
        return None


def _value(node: ast.expr) -> Fraction:
    if isinstance(node, ast.Constant) and type(node.value) is int and math.log10(abs(node.value) + 1) < 100:
        return Fraction(node.value)
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        return -_value(node.operand)
    if isinstance(node, ast.BinOp) and type(node.op) in _OPERATIONS:
        return _OPERATIONS[type(node.op)](_value(node.left), _value(node.right))
    raise ValueError(f"{type(node).__name__} is no arithmetic on whole numbers")
