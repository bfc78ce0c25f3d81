"""Values -> JSON that any reader takes, and text -> what a terminal can show without obeying it."""

import json
import math
import re
import unicodedata
from collections.abc import Mapping
from typing import Any

UNSHOWN = ("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp")
"""Unicode categories that a terminal would act upon, reorder text by, or show as nothing."""

_FORMULA = re.compile(r"[=@\t\r]|[+\-](?![\d.,]*\d%?$)")
"""Begins of a cell that a spreadsheet would compute; a signed number is none."""


def encode(value: Any) -> bytes:
    """JSON in ASCII: lone surrogates and NUL are escaped. Numbers that JSON cannot hold become null."""
    try:
        return _dumps(value)
    except ValueError:
        return _dumps(_finite(value))


def visible(text: str) -> str:
    """The text with control, bidirectional and other unseen characters as escapes, as in `\\n` and `\\u202e`."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(_escape(char) if unicodedata.category(char) in UNSHOWN else char for char in text)


def no_formula(text: str) -> str:
    """The text with a ' before what a spreadsheet would compute."""
    return "'" + text if _FORMULA.match(text) else text


def piped(text: str) -> str:
    """Text for a pipe, behind which there may be a terminal: control characters but line ends and tabs as escapes."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(_escape(char) if _is_control(char) else char for char in text)


def width(text: str) -> int:
    """Columns of a terminal that visible text takes."""
    if text.isascii():
        return len(text)
    return sum(
        0 if unicodedata.combining(char) else 2 if unicodedata.east_asian_width(char) in "WF" else 1 for char in text
    )


def _dumps(value: Any) -> bytes:
    return json.dumps(value, allow_nan=False, separators=(",", ":"), default=_plain).encode()


def _plain(value: Any) -> Any:
    """A mapping that is no dict, as a frozen record has."""
    if isinstance(value, Mapping):
        return dict(value)
    raise TypeError(f"{type(value).__name__} {value!r} is no JSON value")


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: _finite(child) for key, child in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(child) for child in value]
    return value


def _is_control(char: str) -> bool:
    return char not in "\n\t" and unicodedata.category(char) in ("Cc", "Cs")


def _escape(char: str) -> str:
    return char.encode("unicode_escape").decode("ascii")
