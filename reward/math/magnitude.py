"""How large the numbers are that evaluating a parsed answer would make: bounds, without evaluating any."""

import math
from typing import Any

import sympy

MAX_ROOT = 1000
"""Of a root, and of the numbers in any exponent that is no integer."""
MAX_MAGNITUDE_DIGITS = 6_000
"""Decimal digits of any value inside an expression."""
_SYMBOL_DIGITS = 1.6
"""Variables are set to small numbers (`equality`): none reaches 40."""
_GROWING = (sympy.exp, sympy.sinh, sympy.cosh, sympy.tanh, sympy.coth)
_MAX_POWER_DIGITS = 12.0


def magnitude_digits(expression: object) -> float:
    """An upper bound on the decimal digits of any number that evaluating a sympy `expression` makes; inf if unknown.

    A bound for each node from those of its arguments, without evaluating any.
    """
    bound, largest = _bounds(expression)
    return max(bound, largest)


def _bounds(node: object) -> tuple[float, float]:
    """(digits of this node's value, most digits of any value below it)"""
    arguments = [_bounds(argument) for argument in getattr(node, "args", ())]
    below = max((max(pair) for pair in arguments), default=0.0)
    if isinstance(node, sympy.Rational):
        return float(max(_digits(node.p), _digits(node.q))), 0.0
    if isinstance(node, sympy.Float):
        value = abs(float(node))
        return (abs(math.log10(value)) + 1 if value else 1.0), 0.0
    if isinstance(node, sympy.Symbol):
        return _SYMBOL_DIGITS, 0.0
    if isinstance(node, sympy.Pow):
        exponent = node.args[1]
        if not exponent.is_Integer and any(abs(number) > MAX_ROOT for number in _whole_numbers(exponent)):
            return math.inf, below
        size = abs(float(exponent)) if exponent.is_Number else _size(arguments[1][0])
        return arguments[0][0] * max(size, 1.0), below
    if isinstance(node, _GROWING):
        return _size(arguments[0][0]) / 2 + 1, below  # e^x has x / 2.3 digits
    if isinstance(node, (sympy.factorial, sympy.gamma, sympy.binomial)):
        argument: Any = node.args[0]
        size = abs(float(argument)) if argument.is_Number else _size(max(pair[0] for pair in arguments))
        return size * math.log10(max(size, 2.0)), below
    if isinstance(node, (sympy.Mul, sympy.Add)):
        return sum(pair[0] for pair in arguments), below
    return max((pair[0] for pair in arguments), default=1.0), below


def _digits(number: int) -> float:
    # Counted in bits: Python refuses to write out what has more than 4,300 digits.
    return abs(int(number)).bit_length() * math.log10(2) + 1


def _size(digits: float) -> float:
    """The largest number of so many digits."""
    return math.pow(10.0, min(digits, _MAX_POWER_DIGITS))


def _whole_numbers(expression: sympy.Basic) -> list[int]:
    """All integers in `expression`, numerators and denominators among them."""
    return [part for number in expression.atoms(sympy.Rational) for part in (int(number.p), int(number.q))]
