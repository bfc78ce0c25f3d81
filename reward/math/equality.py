"""Whether two answers in LaTeX are equal: exactly, where both are plain numbers, else as math-verify compares them.

math-verify's own extraction is not used: it reads several boxes as one set, takes a box that was cut off for whole,
and hands plain expressions to sympy's `parse_expr`, which is `eval`. Its timeouts are not used either: they are
signals, which exist only in the main thread and do not interrupt C code. The child process's deadline is the timeout.
"""

import logging
import re
from fractions import Fraction
from functools import lru_cache
from typing import Any

from latex2sympy2_extended.math_normalization import NormalizationConfig, normalize_latex
from math_verify import verify
from math_verify.parser import parse_latex_cached
from sympy import Basic, Eq, Interval, MatrixBase, Tuple

from reward.math.limits import is_within_limits
from reward.math.magnitude import MAX_MAGNITUDE_DIGITS, magnitude_digits

# It warns once in every process that it runs without its own timeouts.
logging.getLogger("math_verify").setLevel(logging.ERROR)

_NORMALIZATION = NormalizationConfig(
    basic_latex=True, units=False, malformed_operators=True, nits=True, boxed="none", equations=False
)
_EXACT_NUMBER = re.compile(r"(-?)(?:(\d+(?:\.\d*)?|\.\d+)|\\frac\{(-?\d+)\}\{(-?\d+)\})")


def exact_number(latex: str) -> Fraction | None:
    """A plain decimal or a fraction of integers, exactly; None for anything else, or more digits than are sane."""
    match = _EXACT_NUMBER.fullmatch(latex)
    if match is None or len(latex) > 2000:
        return None
    sign, decimal, numerator, denominator = match.groups()
    if decimal is not None:
        value = Fraction(decimal)
    elif int(denominator) == 0:
        return None
    else:
        value = Fraction(int(numerator), int(denominator))
    return -value if sign else value


def is_equal(truth: Any, reading: str) -> bool:
    """Whether a reading is the parsed truth, by math-verify; False for one that is no formula."""
    parsed = parse_formula(reading)
    if parsed is None:
        return False
    if isinstance(truth, (Interval, Tuple)) and reading.startswith("\\{"):
        return False  # (1, 2) is read as an interval and as a pair; a set in braces is neither
    value = parsed.rhs if isinstance(parsed, Eq) else parsed
    if not truth.free_symbols and value.free_symbols:
        return False  # a number is not an expression in x, and finding that out by simplification is slow
    # Decimals are compared to six places; small truths need as many behind their first digit.
    return bool(
        verify(
            truth,
            parsed,
            float_rounding=6 + _leading_zeros(truth),
            # An unordered answer is no ordered one: {1, 2} is not (1, 2).
            strict=True,
            timeout_seconds=None,
        )
    )


def _leading_zeros(truth: Any) -> int:
    if not getattr(truth, "is_Number", False) or not truth.is_finite or truth == 0:
        return 0
    value = abs(float(truth))
    zeros = 0
    while 0 < value < 0.1 and zeros < 300:
        value *= 10
        zeros += 1
    return zeros


@lru_cache(maxsize=256)
def parse_formula(latex: str) -> Any:
    """`latex` as a sympy object; None where it is over a limit or no formula."""
    if not latex or not is_within_limits(latex):
        return None
    try:
        parsed = parse_latex_cached(normalize_latex(latex, config=_NORMALIZATION))
    except Exception:  # noqa: BLE001 - boundary: the generated parser says "no formula" with a bare Exception
        return None
    if not isinstance(parsed, (Basic, MatrixBase)) or magnitude_digits(parsed) > MAX_MAGNITUDE_DIGITS:
        return None
    return parsed
