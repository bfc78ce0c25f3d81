r"""Whether two parsed formulas are equal: by their values, at fixed points where they have variables.

Nothing is simplified or expanded, which takes unbounded time: two expressions that agree to 25 digits at several points
are the same, and one that differs at a point is another. Both are said in the time of a few evaluations, so that an
answer that is wrong is wrong at once. Sets, pairs, intervals and matrices are compared element by element.
"""

import itertools
from collections.abc import Iterator, Sequence
from typing import Any

import mpmath
import sympy
from latex2sympy2_extended.logic import And
from sympy import Eq, FiniteSet, Float, Interval, MatrixBase, S, Tuple, Union
from sympy.core.relational import Relational

from reward.math.evaluation import DIGITS, value_at
from reward.math.plain_numbers import DECIMAL_PLACES

_AGREEING_DIGITS = 25
"""To how many digits two values agree that are equal; they are worked out to more."""
_MAX_UNORDERED = 30
_SYMBOL_VALUES = (
    # No simple relation holds between them, so that only identities agree at all points. Some are negative, since
    # sqrt(x^2) is no x, and some large, since |x - 3| is no 3 - x.
    ("0.7312941", "1.3718253", "2.1936477", "0.3191537", "1.7531129", "0.5417283", "2.6271834", "1.1153791"),
    ("2.3819427", "0.6251873", "1.4736191", "3.1518739", "0.8371911", "1.9173547", "0.4471239", "2.8153177"),
    ("-1.2718911", "-0.4629137", "1.8317123", "-2.3719191", "0.9371173", "-1.5137129", "2.2911731", "-0.6173911"),
    ("-0.3819173", "1.6172937", "-1.1937253", "0.7715391", "-2.1371937", "0.2917113", "-1.7193751", "3.3137191"),
    ("17.2918373", "-11.3719183", "23.1739117", "-8.4417391", "13.9173713", "-29.1173911", "7.6173919", "19.3371917"),
    ("-13.1739183", "21.7391733", "-6.9173131", "15.1739117", "-18.3371931", "9.1173937", "-25.6173913", "5.9137171"),
)
_POSITIVE_RELATIONS = {
    sympy.StrictGreaterThan: (">", 1),
    sympy.GreaterThan: (">=", 1),
    sympy.StrictLessThan: (">", -1),
    sympy.LessThan: (">=", -1),
}


def is_equal(truth: Any, answer: Any) -> bool:
    """Whether two sympy objects say the same."""
    if isinstance(truth, MatrixBase) or isinstance(answer, MatrixBase):
        return _matrices_equal(truth, answer)
    if isinstance(truth, (Relational, And)) or isinstance(answer, (Relational, And)):
        return _relations_equal(truth, answer)
    if _is_collection(truth) or _is_collection(answer):
        return _collections_equal(truth, answer)
    if isinstance(truth, sympy.Expr) and isinstance(answer, sympy.Expr):
        return _expressions_equal(truth, answer)
    return bool(truth == answer)


def is_near(first: Any, second: Any) -> bool:
    """Whether `second` is `first` to its last digit or two: what stands on both sides of an approximation."""
    values = [value_at(side, {}) if isinstance(side, sympy.Expr) else None for side in (first, second)]
    if values[0] is None or values[1] is None:
        return bool(first == second)
    return bool(abs(values[0] - values[1]) <= 0.02 * max(abs(values[0]), abs(values[1]), mpmath.mpf("1e-300")))


def _is_collection(value: Any) -> bool:
    return isinstance(value, (sympy.Set, Tuple))


def _expressions_equal(truth: Any, answer: Any) -> bool:
    if truth == answer:
        return True
    if not truth.is_finite and truth in (S.Infinity, S.NegativeInfinity, S.ComplexInfinity, S.NaN):
        return False  # what is infinite equals itself alone, above
    if answer in (S.Infinity, S.NegativeInfinity, S.ComplexInfinity, S.NaN):
        return False
    if truth.atoms(sympy.core.function.AppliedUndef) or answer.atoms(sympy.core.function.AppliedUndef):
        return False
    has_decimal = bool(truth.atoms(Float) or answer.atoms(Float))
    symbols = sorted({symbol.name for symbol in truth.free_symbols | answer.free_symbols})
    if bool(truth.free_symbols - _imaginary(truth)) != bool(answer.free_symbols - _imaginary(answer)):
        return False
    num_agreeing = 0
    for point in _points(symbols):
        left, right = value_at(truth, point), value_at(answer, point)
        if left is None or right is None:
            continue
        if not _values_equal(left, right, has_decimal=has_decimal):
            if _is_real(left) != _is_real(right) and point:
                continue  # one of them is not defined there among the reals
            return False
        num_agreeing += 1
    return num_agreeing >= (2 if len(symbols) > (symbols == ["i"]) else 1)


def _imaginary(expression: Any) -> set[Any]:
    return {symbol for symbol in expression.free_symbols if symbol.name == "i"}


def _points(symbols: Sequence[str]) -> Iterator[dict[str, Any]]:
    """What the variables are set to; a single point where there are none. `i` is the imaginary unit."""
    variables = [name for name in symbols if name != "i"]
    for values in _SYMBOL_VALUES if variables else _SYMBOL_VALUES[:1]:
        point: dict[str, Any] = {
            name: mpmath.mpf(values[number % len(values)]) + number // len(values)
            for number, name in enumerate(variables)
        }
        yield {**point, "i": mpmath.mpc(0, 1)} if "i" in symbols else point


def _is_real(value: Any) -> bool:
    return bool(abs(value.imag) <= abs(value.real) * mpmath.mpf(10) ** -_AGREEING_DIGITS)


def _values_equal(truth: Any, answer: Any, *, has_decimal: bool) -> bool:
    with mpmath.workdps(DIGITS):
        difference, size = abs(truth - answer), max(abs(truth), abs(answer))
        if difference <= size * mpmath.mpf(10) ** -_AGREEING_DIGITS:
            return True
        if not has_decimal or not truth:
            return False
        # Decimals to six places, zeros behind the point left out (`plain_numbers.tolerance`).
        zeros = max(0, -1 - int(mpmath.floor(mpmath.log10(abs(truth)))))
        return bool(difference <= mpmath.mpf(10) ** -(DECIMAL_PLACES + zeros) / 2)


def _matrices_equal(truth: Any, answer: Any) -> bool:
    if not isinstance(truth, MatrixBase) or not isinstance(answer, MatrixBase):
        column, other = (truth, answer) if isinstance(truth, MatrixBase) else (answer, truth)
        # A vector may be written as a column or in a row of brackets.
        elements = _elements(other) if isinstance(other, Tuple) or _is_pair(other) else None
        if elements is None or min(column.shape) != 1:
            return False
        return _ordered_equal(list(column.flat()), elements)
    return truth.shape == answer.shape and _ordered_equal(list(truth.flat()), list(answer.flat()))


def _ordered_equal(truth: Sequence[Any], answer: Sequence[Any]) -> bool:
    return len(truth) == len(answer) and all(map(is_equal, truth, answer))


def _unordered_equal(truth: Sequence[Any], answer: Sequence[Any]) -> bool:
    """Whether each element has a partner. Equality is nearly transitive, so the first that fits is as good as any."""
    if len(truth) != len(answer) or len(truth) > _MAX_UNORDERED:
        return False
    left = list(answer)
    for element in truth:
        partner = next((index for index, other in enumerate(left) if is_equal(element, other)), None)
        if partner is None:
            return False
        del left[partner]
    return True


def _is_pair(value: Any) -> bool:
    """An open interval (1, 2) may be a pair as well: the text is the same."""
    return isinstance(value, Interval) and bool(value.is_open)


def _elements(value: Any) -> list[Any]:
    if isinstance(value, Interval):
        return [value.start, value.end]
    # The parser's lists keep the order in which they were written.
    return list(getattr(value, "_unsorted_args", None) or value.args)


def _collections_equal(truth: Any, answer: Any) -> bool:
    if isinstance(truth, Interval) and isinstance(answer, Interval):
        return (truth.left_open, truth.right_open) == (answer.left_open, answer.right_open) and _ordered_equal(
            _elements(truth), _elements(answer)
        )
    if isinstance(truth, (Tuple, Interval)) and isinstance(answer, (Tuple, Interval)):
        is_ordered = all(isinstance(side, Tuple) or _is_pair(side) for side in (truth, answer))
        return is_ordered and _ordered_equal(_elements(truth), _elements(answer))
    if isinstance(truth, FiniteSet) and isinstance(answer, FiniteSet):
        return _unordered_equal(_distinct(truth), _distinct(answer))
    if isinstance(truth, Union) and isinstance(answer, Union):
        return _unordered_equal(_parts(truth), _parts(answer)) or _are_same_set(truth, answer)
    if not isinstance(truth, sympy.Set) or not isinstance(answer, sympy.Set):
        # A set of one is its element: {5} for 5.
        for one, other in ((truth, answer), (answer, truth)):
            if isinstance(one, FiniteSet) and len(one.args) == 1 and not _is_collection(other):
                return is_equal(*((one.args[0], other) if one is truth else (other, one.args[0])))
        return False
    return _are_same_set(truth, answer)


def _distinct(value: Any) -> list[Any]:
    return list(value.args)


def _parts(union: Any) -> list[Any]:
    return [
        part for argument in union.args for part in (_parts(argument) if isinstance(argument, Union) else [argument])
    ]


def _are_same_set(truth: Any, answer: Any) -> bool:
    """Whether two sets of intervals, points and the reals are the same, worked out on the line."""
    lines = [_line(side) for side in (truth, answer)]
    return bool(truth == answer) if None in lines else lines[0] == lines[1]


def _line(value: Any) -> list[tuple[Any, ...]] | None:
    """A set of reals as its boundaries in order: (point, whether the point and what is behind it are in)."""
    points = _boundaries(value)
    if points is None:
        return None
    ordered = sorted({*points, S.NegativeInfinity, S.Infinity})
    line: list[tuple[Any, ...]] = []
    was_in = False
    for place, point in enumerate(ordered):
        behind = ordered[place + 1] if place + 1 < len(ordered) else None
        holds = point.is_finite and _holds(value, point)
        middle = _between(point, behind) if behind is not None else None
        is_in = middle is not None and _holds(value, middle)
        if not (holds == is_in == was_in):
            line.append((point, bool(holds), bool(is_in)))
        was_in = is_in
    return line


def _between(low: Any, high: Any) -> Any:
    if low is S.NegativeInfinity:
        return S.Zero if high is S.Infinity else high - 1
    return low + 1 if high is S.Infinity else (low + high) / 2


def _boundaries(value: Any) -> set[Any] | None:
    """All ends and points of a set; None where one of them is no rational number, or it is another kind of set."""
    if isinstance(value, Interval):
        found = {value.start, value.end}
    elif isinstance(value, FiniteSet):
        found = set(value.args)
    elif value in (S.Reals, S.EmptySet):
        found = set()
    elif isinstance(value, (Union, sympy.Complement, sympy.Intersection)):
        parts = [_boundaries(argument) for argument in value.args]
        if any(part is None for part in parts):
            return None
        found = set().union(*(part for part in parts if part is not None))
    else:
        return None
    values = {sympy.nsimplify(point) if isinstance(point, Float) else point for point in found}
    return values if all(point.is_Rational or point.is_infinite for point in values) else None


def _holds(value: Any, point: Any) -> bool:
    if isinstance(value, Union):
        return any(_holds(argument, point) for argument in value.args)
    if isinstance(value, sympy.Intersection):
        return all(_holds(argument, point) for argument in value.args)
    if isinstance(value, sympy.Complement):
        return _holds(value.args[0], point) and not _holds(value.args[1], point)
    return bool(value.contains(point) is S.true)


def _relations_equal(truth: Any, answer: Any) -> bool:
    if isinstance(truth, And) and isinstance(answer, And):
        return _unordered_equal(_elements(truth), _elements(answer))
    if not isinstance(truth, Relational) or not isinstance(answer, Relational):
        return False
    if any(not isinstance(side, sympy.Expr) for side in (*truth.args, *answer.args)):
        # f(x) = a set, a matrix: side by side, in either order.
        sides = [tuple(answer.args), tuple(reversed(answer.args))] if isinstance(truth, Eq) else [tuple(answer.args)]
        return type(truth) is type(answer) and any(_ordered_equal(truth.args, pair) for pair in sides)
    ours: Any = truth
    theirs: Any = answer
    left, right = ours.lhs - ours.rhs, theirs.lhs - theirs.rhs
    if type(truth) in _POSITIVE_RELATIONS and type(answer) in _POSITIVE_RELATIONS:
        (kind, sign), (other_kind, other_sign) = _POSITIVE_RELATIONS[type(truth)], _POSITIVE_RELATIONS[type(answer)]
        return kind == other_kind and _are_proportional(sign * left, other_sign * right, needs_positive=True)
    return type(truth) is type(answer) and _are_proportional(left, right, needs_positive=False)


def _are_proportional(truth: Any, answer: Any, *, needs_positive: bool) -> bool:
    """Whether one is a constant times the other: the same equation, or inequality, of zero."""
    symbols = sorted({symbol.name for symbol in truth.free_symbols | answer.free_symbols})
    if {symbol.name for symbol in truth.free_symbols} != {symbol.name for symbol in answer.free_symbols}:
        return False
    if truth.atoms(sympy.core.function.AppliedUndef) or answer.atoms(sympy.core.function.AppliedUndef):
        return bool(truth == answer or truth == -answer)
    has_decimal = bool(truth.atoms(Float) or answer.atoms(Float))
    values = [(value_at(truth, point), value_at(answer, point)) for point in _points(symbols)]
    pairs = [(left, right) for left, right in values if left is not None and right is not None]
    if len(pairs) < 2 or any(not left or not right for left, right in pairs):
        return False
    ratios = [left / right for left, right in pairs]
    if needs_positive and any(ratio.real <= 0 for ratio in ratios):
        return False
    return all(_values_equal(a, b, has_decimal=has_decimal) for a, b in itertools.pairwise(ratios))
