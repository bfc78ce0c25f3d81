"""LaTeX -> a sympy object, by the grammar of math-verify (latex2sympy2_extended), within limits.

math-verify's own extraction is not used: it reads several boxes as one set, takes a box that was cut off for whole,
and hands plain expressions to sympy's `parse_expr`, which is `eval`. Its timeouts are not used either: they are
signals, which exist only in the main thread and do not interrupt C code. The child process's deadline is the timeout.
"""

import logging
from functools import lru_cache
from typing import Any

from latex2sympy2_extended.math_normalization import NormalizationConfig, normalize_latex
from math_verify.parser import parse_latex_cached
from sympy import Basic, MatrixBase

from reward.math.limits import is_within_limits
from reward.math.magnitude import MAX_MAGNITUDE_DIGITS, magnitude_digits

# It warns once in every process that it runs without its own timeouts.
logging.getLogger("math_verify").setLevel(logging.ERROR)

_NORMALIZATION = NormalizationConfig(
    basic_latex=True, units=False, malformed_operators=True, nits=True, boxed="none", equations=False
)


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
