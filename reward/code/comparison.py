"""Whether what a program wrote or returned is what was expected."""

import math
import re
from collections.abc import Mapping
from typing import Any

from reward.code.inside.values import decode

_PLAIN_NUMBER = re.compile(r"-?\d{1,400}(?:/\d{1,400}|(?:\.\d{0,400})?(?:E[-+]?\d{1,3})?)")
"""A Fraction or Decimal that is no infinity, no NaN, and nothing that takes long to make or to compare."""
_DECIMAL = re.compile(r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?")


def same_output(expected: str, output: bytes, tolerance: float) -> bool:
    """Whether a program wrote what it should: white space at the end of lines and of the text aside.

    A word that is a decimal fraction in `expected` may differ by `tolerance`; text that is no UTF-8 is wrong.
    """
    wanted, written = _lines(expected), _lines(output.decode("utf-8", "replace"))
    if wanted == written:
        return True
    if len(wanted) != len(written):
        return False
    return all(_same_line(left, right, tolerance) for left, right in zip(wanted, written, strict=True))


def _lines(text: str) -> list[str]:
    return [line.rstrip() for line in text.rstrip().split("\n")]


def _same_line(expected: str, written: str, tolerance: float) -> bool:
    wanted, words = expected.split(), written.split()
    if len(wanted) != len(words):
        return False
    return all(
        left == right or _same_decimal(left, right, tolerance) for left, right in zip(wanted, words, strict=True)
    )


def _same_decimal(expected: str, written: str, tolerance: float) -> bool:
    if expected.lstrip("+-").isdigit() or not all(_DECIMAL.fullmatch(word) for word in (expected, written)):
        return False
    return math.isclose(float(expected), float(written), rel_tol=tolerance, abs_tol=tolerance)


def same_value(expected: Any, encoded: Any, tolerance: float) -> bool:
    """Whether `encoded`, which a program sent, is `expected`, which is JSON: a tuple there may be a list here.

    Compared while it is still encoded, and never deeper or wider than `expected` is: no value is too large to refuse.
    """
    tag, content = next(iter(encoded.items())) if isinstance(encoded, dict) and len(encoded) == 1 else ("", encoded)
    if isinstance(expected, (list, tuple)):
        is_sequence = isinstance(content, list) and tag in ("", "t", "g")
        if not is_sequence or len(content) != len(expected):
            return False
        return all(same_value(left, right, tolerance) for left, right in zip(expected, content, strict=True))
    if isinstance(expected, Mapping):
        return tag == "d" and isinstance(content, list) and _same_mapping(expected, content, tolerance)
    if isinstance(expected, str) or expected is None:
        return tag == "" and type(content) is type(expected) and bool(content == expected)
    if tag == "n" and not _is_plain_number(content):
        return False
    try:
        value = decode(encoded) if tag in ("i", "f", "n") else encoded
        if isinstance(value, (str, list, dict)) or value is None:
            return False
        if isinstance(expected, float) or isinstance(value, float):
            return _is_close(expected, value, tolerance)
        return bool(value == expected)
    except (ValueError, ArithmeticError):
        return False


def _is_plain_number(content: Any) -> bool:
    """Whether the content of a Fraction or Decimal is what one of them says of itself."""
    if not isinstance(content, list) or len(content) != 2 or not isinstance(content[1], str):
        return False
    return _PLAIN_NUMBER.fullmatch(content[1]) is not None


def _same_mapping(expected: Mapping[Any, Any], pairs: list[Any], tolerance: float) -> bool:
    # JSON's keys are text; a program may have numbers there.
    wanted = {str(key): value for key, value in expected.items()}
    if len(pairs) != len(wanted) or not all(isinstance(pair, list) and len(pair) == 2 for pair in pairs):
        return False
    found = {str(key): value for key, value in pairs if isinstance(key, (str, int, float))}
    return found.keys() == wanted.keys() and all(same_value(wanted[key], found[key], tolerance) for key in wanted)


def _is_close(expected: Any, value: Any, tolerance: float) -> bool:
    try:
        left, right = float(expected), float(value)
    except (OverflowError, ValueError):
        return False
    return (math.isnan(left) and math.isnan(right)) or math.isclose(left, right, rel_tol=tolerance, abs_tol=tolerance)
