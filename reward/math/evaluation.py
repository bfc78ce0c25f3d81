"""The number that an expression of sympy is where its variables have values: each node once, at one precision.

sympy's own `evalf` looks for more digits where terms cancel, and evaluates the arguments of nested functions again and
again: its time is not bounded by the size of the expression. Here what cancels to less than the precision is 0.
"""

from collections.abc import Callable, Mapping
from typing import Any

import mpmath
import sympy
from mpmath.libmp import NoConvergence

DIGITS = 60
"""Working precision, in decimal digits."""
_CANCELLED = mpmath.mpf(10) ** -45
"""A sum of so small a part of its terms is 0."""

_FUNCTIONS: dict[Any, Callable[..., Any]] = {
    sympy.sin: mpmath.sin, sympy.cos: mpmath.cos, sympy.tan: mpmath.tan, sympy.cot: mpmath.cot, sympy.sec: mpmath.sec,
    sympy.csc: mpmath.csc, sympy.asin: mpmath.asin, sympy.acos: mpmath.acos, sympy.atan: mpmath.atan,
    sympy.acot: mpmath.acot, sympy.asec: mpmath.asec, sympy.acsc: mpmath.acsc, sympy.sinh: mpmath.sinh,
    sympy.cosh: mpmath.cosh, sympy.tanh: mpmath.tanh, sympy.coth: mpmath.coth, sympy.asinh: mpmath.asinh,
    sympy.acosh: mpmath.acosh, sympy.atanh: mpmath.atanh, sympy.exp: mpmath.exp, sympy.log: mpmath.log,
    sympy.Abs: abs, sympy.floor: mpmath.floor, sympy.ceiling: mpmath.ceil, sympy.factorial: mpmath.factorial,
    sympy.gamma: mpmath.gamma, sympy.binomial: mpmath.binomial, sympy.re: mpmath.re, sympy.im: mpmath.im,
    sympy.conjugate: mpmath.conj, sympy.arg: mpmath.arg, sympy.sign: mpmath.sign, sympy.Pow: mpmath.power,
    sympy.UnevaluatedExpr: lambda value: value, sympy.Mod: mpmath.fmod, sympy.Min: min, sympy.Max: max,
}  # fmt: skip


def value_at(expression: Any, point: Mapping[str, Any]) -> Any:
    """The value of `expression` as a complex number of mpmath; None where it has none. `point`: name -> value."""
    with mpmath.workdps(DIGITS):
        try:
            value = mpmath.mpc(_value(expression, point))
        except (ArithmeticError, ValueError, TypeError, NotImplementedError, NoConvergence):
            return None  # not defined there, or nothing that has a number
        return value if mpmath.isfinite(value) else None


def _value(node: Any, point: Mapping[str, Any]) -> Any:
    if isinstance(node, sympy.Symbol):
        if node.name not in point:
            raise ValueError(f"{node.name} has no value")
        return point[node.name]
    if isinstance(node, sympy.Rational):
        return mpmath.mpf(int(node.p)) / int(node.q)
    if node is sympy.I:
        return mpmath.mpc(0, 1)
    if isinstance(node, (sympy.Float, sympy.NumberSymbol)):
        return mpmath.mpf(str(node)) if isinstance(node, sympy.Float) else mpmath.mpf(str(node.evalf(DIGITS)))
    arguments = [_value(argument, point) for argument in node.args]
    if isinstance(node, sympy.Add):
        total = mpmath.fsum(arguments)
        return total if abs(total) > _CANCELLED * max(map(abs, arguments)) else mpmath.mpf(0)
    if isinstance(node, sympy.Mul):
        return mpmath.fprod(arguments)
    function = _FUNCTIONS.get(node.func)
    if function is None:
        raise NotImplementedError(f"{node.func} has no value")
    return function(*arguments)
