r"""Plain numbers, exactly and without a parser: decimals, fractions, mixed numbers, powers of ten, with a scale word.

"plain" is what nobody would compute any further. `8/2` is a plain fraction, `3+5` and `\sqrt{16}` are formulas.
"""

import re
from dataclasses import dataclass
from fractions import Fraction

MAX_CHARS = 200
"""A longer number is none."""
MAX_POWER_OF_TEN = 400
DECIMAL_PLACES = 6
"""A decimal is right when it agrees with the truth to so many places; see `is_same_number`."""

_DECIMAL = r"(?:\d+(?:\.\d*)?|\.\d+)"
_PLAIN = re.compile(
    rf"(?P<sign>[-+]?)\s*(?:\((?P<whole>\d+)\+\\frac\{{(?P<part>\d+)\}}\{{(?P<of>\d+)\}}\)"
    rf"|\\frac\{{\s*(?P<top>[-+]?{_DECIMAL})\s*\}}\{{\s*(?P<bottom>[-+]?{_DECIMAL})\s*\}}"
    rf"|(?P<decimal>{_DECIMAL})"
    r"|(?=10\s*\^))"  # a power of ten alone
    r"(?:(?:\s*\\(?:times|cdot)\s*|(?<![\d.}]))10\s*\^\s*(?:\{\s*(?P<braced>[-+]?\d{1,4})\s*\}|(?P<digit>\d)))?"
)
_SCALES = {
    "hundred": 10**2,
    "thousand": 10**3,
    "million": 10**6,
    "billion": 10**9,
    "trillion": 10**12,
}
SCALE_WORDS = frozenset(_SCALES)
"""Words behind a number that multiply it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PlainNumber:
    """A number and how it was written.

    Example:
        PlainNumber(value=Fraction(1, 2), is_decimal=True, is_quotient=False)
    """

    value: Fraction
    is_decimal: bool
    """Written with a decimal point, so that it may be a rounded one."""
    is_quotient: bool
    """A fraction that is a whole number when it is worked out, as 14/2."""


def plain_number(latex: str) -> PlainNumber | None:
    """The number in an answer in normal form; None for anything else, or more digits than are sane."""
    if len(latex) > MAX_CHARS:
        return None
    match = _PLAIN.fullmatch(latex.strip())
    if match is None:
        return None
    is_quotient = False
    if match["decimal"] is not None:
        value = Fraction(match["decimal"])
    elif match["top"] is None and match["part"] is None:
        value = Fraction(1)
    else:
        top, bottom = Fraction(match["top"] or match["part"]), Fraction(match["bottom"] or match["of"])
        if not bottom:
            return None
        value = top / bottom + int(match["whole"] or 0)
        is_quotient = match["top"] is not None and value.denominator == 1 and bottom != 1
    power = int(match["braced"] or match["digit"] or 0)
    if abs(power) > MAX_POWER_OF_TEN:
        return None
    value *= Fraction(10) ** power
    is_decimal = "." in match.group()
    return PlainNumber(value=-value if match["sign"] == "-" else value, is_decimal=is_decimal, is_quotient=is_quotient)


def scaled(number: PlainNumber, scale_words: list[str]) -> PlainNumber:
    """`number` with the words behind it multiplied in: 1.5 million."""
    value = number.value
    for word in scale_words:
        value *= _SCALES[word]
    return PlainNumber(value=value, is_decimal=number.is_decimal, is_quotient=number.is_quotient)


def latex_of(number: PlainNumber) -> str:
    """The number as an answer in normal form."""
    value = number.value
    sign = "-" if value < 0 else ""
    top = abs(value.numerator)
    return f"{sign}{top}" if value.denominator == 1 else rf"{sign}\frac{{{top}}}{{{value.denominator}}}"


def is_same_number(answer: PlainNumber, truth: PlainNumber) -> bool:
    """Whether two numbers are equal: exactly, or to the digits of a decimal where one of them is written as one."""
    if answer.value == truth.value:
        return True
    return (answer.is_decimal or truth.is_decimal) and abs(answer.value - truth.value) <= tolerance(truth.value)


def tolerance(truth: Fraction) -> Fraction:
    """How far a decimal may be from `truth`: half of the last of its six places.

    Zeros behind the point are no places: everything below 5e-7 would be 0 otherwise.
    """
    return Fraction(f"5e-{DECIMAL_PLACES + 1 + leading_zeros(truth)}")


def leading_zeros(value: Fraction) -> int:
    """Zeros between the point of a decimal and its first other digit: 2 of 0.0031, none of 0.31, 31 and 0."""
    zeros, value = 0, abs(value)
    if not value:
        return 0
    # The lengths of numerator and denominator tell all but one of them.
    zeros = max(0, len(str(value.denominator)) - len(str(value.numerator)) - 1)
    while value * 10 ** (zeros + 1) < 1:
        zeros += 1
    return zeros
