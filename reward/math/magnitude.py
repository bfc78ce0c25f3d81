"""How large the numbers are that evaluating a parsed answer would make: bounds, without evaluating any."""

import math
from typing import Any

import sympy

MAX_TERM_POWER = 40
"""Exponent of a sum: (x+y)^n is expanded when it is compared."""
MAX_ROOT = 50
"""Of a root, and of the numbers in any exponent that is no integer: sympy searches for minimal polynomials."""
MAX_MAGNITUDE_DIGITS = 6_000
"""Decimal digits of any value inside an expression."""


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
        return float(max(len(str(abs(node.p))), len(str(node.q)))), 0.0
    if isinstance(node, sympy.Float):
        value = abs(float(node))
        return (abs(math.log10(value)) + 1 if value else 1.0), 0.0
    if isinstance(node, sympy.Pow):
        base, exponent = node.args
        if exponent.is_Number and abs(float(exponent)) > MAX_TERM_POWER and isinstance(base, sympy.Add):
            return math.inf, below
        if not exponent.is_Integer and any(abs(number) > MAX_ROOT for number in _whole_numbers(exponent)):
            return math.inf, below
        if exponent.is_Number or exponent.is_number:
            # d digits of the exponent make it less than 10^d.
            size = 10.0 ** min(arguments[1][0], 12.0) if not exponent.is_Number else abs(float(exponent))
            return arguments[0][0] * max(size, 1.0), below
        return arguments[0][0], below
    if isinstance(node, sympy.factorial):
        argument: Any = node.args[0]
        size = float(argument) if argument.is_Number else 10.0 ** min(arguments[0][0], 12.0)
        return size * math.log10(max(size, 2.0)) if argument.is_number else 1.0, below
    if isinstance(node, (sympy.Mul, sympy.Add)):
        return sum(pair[0] for pair in arguments), below
    return max((pair[0] for pair in arguments), default=1.0), below


def _whole_numbers(expression: sympy.Basic) -> list[int]:
    """All integers in `expression`, numerators and denominators among them."""
    return [part for number in expression.atoms(sympy.Rational) for part in (int(number.p), int(number.q))]
