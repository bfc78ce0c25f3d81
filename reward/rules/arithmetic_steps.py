"""Scores steps by the sums in them: a step is right when every equation in it that can be computed is."""

import re
from collections.abc import Iterator
from fractions import Fraction
from itertools import pairwise

from reward.functions import register_steps
from reward.types import RewardInput

MAX_DIGITS = 30
"""Of a number: longer ones are no sum that a person writes, and cost time."""
_TOKEN = re.compile(
    r"""[ \t]*(?:
        \$?(?P<number>\d+(?:,\d{3})*(?:\.\d+)?)
      | (?P<sign>[-+*/()=\u2212\u00d7\u00f7\u00b7] | x(?=[ \t]*\$?[\d(]))
    )""",
    re.VERBOSE,
)
_BULLET = re.compile(r"\s*(?:(?:[-*+\u2022]|\d{1,3}[.)])\s+)?")
"""What marks an item of a list: no sign, and no number."""
MAX_BLANKS = 16
"""That are looked past for what stands before a formula."""
_SIGNS = {"\u2212": "-", "\u00d7": "*", "x": "*", "\u00b7": "*", "\u00f7": "/"}
_Tokens = list[tuple[str, str]]
"""(kind, text): `number`, or `sign`."""


@register_steps("arithmetic_steps")
def arithmetic_steps(item: RewardInput, right: float = 1.0, wrong: float = -1.0, without: float = 0.0) -> list[float]:
    """`right` for a step whose equations all hold, `wrong` where one does not, `without` where there is none."""
    rewards = []
    for step in item.steps:
        found = list(equations(step))
        rewards.append(without if not found else right if all(found) else wrong)
    return rewards


def equations(text: str) -> Iterator[bool]:
    """Whether each equation of a text holds: numbers with + - * / and parentheses on the left of a `=`, or of several.
    A decimal on the right may be rounded to its digits. Formulas with letters, percentages and divisions by zero are no
    equations that can be computed."""
    place = len(_BULLET.match(text)[0])  # type: ignore[index]  # it matches any text
    while place < len(text):
        tokens, end = _run(text, place)
        if tokens:
            yield from _holds(_sides(tokens, is_whole=(_begins(text, place, tokens), _ends(text, end))))
        place = max(end, place + 1)


def _run(text: str, start: int) -> tuple[_Tokens, int]:
    """The tokens that follow one another from `start`, and where they end."""
    tokens: _Tokens = []
    end = start
    while match := _TOKEN.match(text, end):
        kind = "number" if match["number"] else "sign"
        tokens.append((kind, match["number"] or _SIGNS.get(match["sign"], match["sign"])))
        end = match.end()
    return tokens, end


def _begins(text: str, start: int, tokens: _Tokens) -> bool:
    """False where the run is the rest of a formula: "x - 2 = 3" has a sign behind a word, "so: -2 + 5 = 3" that of a
    number."""
    before = text[max(0, start - MAX_BLANKS) : start].rstrip(" \t")[-1:]
    first = tokens[0][1]
    is_rest = first in "+*/)" or (first == "-" and bool(before) and before not in ":;,.<[\"'$")
    is_joined = not text[start].isspace() and _is_of_formula(text[start - 1 : start])
    return not is_rest and not is_joined


def _ends(text: str, end: int) -> bool:
    return not _is_of_formula(text[end : end + 1])


def _is_of_formula(character: str) -> bool:
    return bool(character) and (character.isalnum() or character in "_^%\\{}")


def _sides(tokens: _Tokens, *, is_whole: tuple[bool, bool]) -> list[_Tokens]:
    """What stands between the signs of equality; a first or last side that is no whole formula is empty."""
    sides: list[_Tokens] = [[]]
    for token in tokens:
        if token == ("sign", "="):
            sides.append([])
        else:
            sides[-1].append(token)
    if not is_whole[0]:
        sides[0] = []
    if not is_whole[1]:
        sides[-1] = []
    return sides


def _holds(sides: list[_Tokens]) -> Iterator[bool]:
    for left, right in pairwise(sides):
        # "of 50 = 10" compares nothing that was computed.
        values = _value(left), _value(right)
        if len(left) + len(right) > 2 and values[0] is not None and values[1] is not None:
            yield values[0] == values[1] or _is_rounded(values[0], right)


def _is_rounded(value: Fraction, written: _Tokens) -> bool:
    """Whether one decimal number is `value`, rounded to the digits that it has."""
    if len(written) != 1 or "." not in written[0][1]:
        return False
    digits = written[0][1].replace(",", "")
    unit = Fraction(1, 10 ** len(digits.partition(".")[2]))
    return abs(value - Fraction(digits)) <= unit / 2


def _value(tokens: _Tokens) -> Fraction | None:
    """Of an expression; None for what is none, or has no value."""
    rest = list(reversed(tokens))
    try:
        value = _sum(rest)
    except (IndexError, ValueError, ZeroDivisionError, RecursionError):
        return None
    return None if rest else value


def _sum(rest: _Tokens) -> Fraction:
    value = _product(rest)
    while rest and rest[-1][1] in "+-":
        sign = rest.pop()[1]
        term = _product(rest)
        value = value + term if sign == "+" else value - term
    return value


def _product(rest: _Tokens) -> Fraction:
    value = _factor(rest)
    while rest and rest[-1][1] in "*/":
        sign = rest.pop()[1]
        factor = _factor(rest)
        value = value * factor if sign == "*" else value / factor
    return value


def _factor(rest: _Tokens) -> Fraction:
    kind, text = rest.pop()
    if kind == "number":
        if len(text) > MAX_DIGITS:
            raise ValueError(text)
        return Fraction(text.replace(",", ""))
    if text == "-":
        return -_factor(rest)
    if text != "(":
        raise ValueError(text)
    value = _sum(rest)
    if rest.pop()[1] != ")":
        raise ValueError("an open parenthesis")
    return value
