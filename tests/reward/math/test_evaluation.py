"""What has no value has none, and is no defect of the grader."""

import pytest
import sympy

from reward.math.evaluation import value_at

X = sympy.Symbol("x")


@pytest.mark.parametrize("expression", [1 / X, sympy.log(X), X**-2, sympy.gamma(X), sympy.Mod(1, X)])
def test_not_defined_at_a_point(expression: sympy.Expr) -> None:
    assert value_at(expression, {"x": 0}) is None


def test_defined_at_another() -> None:
    assert value_at(1 / X + sympy.gamma(X), {"x": 4}) == 6.25
