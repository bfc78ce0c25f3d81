"""Values as data, in both directions through the wall of the code sandbox. It runs inside too: standard library only.

What a program returns is never unpickled: it arrives as JSON and can only become plain data, whose `==` is Python's
own. JSON's own types are themselves; each other one is an object with one key:

    {"t": [...]} tuple    {"s": [...]} set       {"z": [...]} frozenset   {"d": [[k, v], ...]} dict
    {"i": "ff"}  big int  {"f": "nan"} float     {"c": [1.0, 2.0]} complex   {"b": "00ff"} bytes
    {"g": [...]} iterator, read to its end       {"n": ["Fraction", "1/2"]} Fraction or Decimal
    {"r": 3}     anything else: a handle of an object that stays where it is
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from itertools import islice

# Each run of a sandbox pays for these imports: `typing` alone would be a fifth of them.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

MAX_ITERATED = 100_000
"""Elements that are read from an iterator; an endless one is cut here."""
_MAX_PLAIN_INT = 2**53


def encode(value: Any, handle_of: Callable[[Any], int] | None = None) -> Any:
    """`value` as what `json.dumps` takes.

    Raises:
        TypeError: something that is no plain data, where `handle_of` is None.
        RecursionError: nested too deeply, or in itself.
    """
    if value is None or isinstance(value, (bool, str, int, float)):
        return _scalar(value)
    if isinstance(value, list):
        return [encode(element, handle_of) for element in value]
    if isinstance(value, dict):
        return {"d": [[encode(key, handle_of), encode(element, handle_of)] for key, element in value.items()]}
    for kind, tag in ((tuple, "t"), (set, "s"), (frozenset, "z")):
        if isinstance(value, kind):
            return {tag: [encode(element, handle_of) for element in value]}
    if isinstance(value, (bytes, bytearray)):
        return {"b": bytes(value).hex()}
    if isinstance(value, complex):
        return {"c": [encode(value.real), encode(value.imag)]}
    if type(value).__name__ in ("Fraction", "Decimal") and type(value).__module__ in ("fractions", "decimal"):
        return {"n": [type(value).__name__, str(value)]}
    if isinstance(value, (Iterator, range)) or type(value).__name__ in ("dict_keys", "dict_values", "dict_items"):
        return {"g": [encode(element, handle_of) for element in islice(value, MAX_ITERATED)]}
    if handle_of is None:
        raise TypeError(f"a {type(value).__name__} is no plain data")
    return {"r": handle_of(value)}


def _scalar(value: bool | str | int | float | None) -> Any:
    """Plain also where it was of a subclass, whose methods are the program's."""
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        return str(value)
    if isinstance(value, int):
        number = int(value)
        return number if abs(number) <= _MAX_PLAIN_INT else {"i": format(number, "x")}
    return float(value) if math.isfinite(value) else {"f": str(float(value))}


def decode(value: Any, object_of: Callable[[int], Any] | None = None) -> Any:
    """The value that `encode` wrote; iterators come back as iterators over a list.

    Raises:
        ValueError: not what `encode` writes, a handle where `object_of` is None, or an unhashable key.
    """
    if isinstance(value, list):
        return [decode(element, object_of) for element in value]
    if not isinstance(value, dict):
        return value
    if len(value) != 1:
        raise ValueError(f"no encoded value: an object of {len(value)} keys")
    ((tag, content),) = value.items()
    try:
        if tag == "r" and object_of is not None:
            return object_of(int(content))
        return _DECODERS[tag](content, object_of)
    except (LookupError, TypeError, AttributeError, ArithmeticError) as error:
        raise ValueError(f"no encoded value: {type(error).__name__}: {error}") from error


def _decode_all(content: Any, object_of: Any) -> list[Any]:
    return [decode(element, object_of) for element in content]


def _decode_number(content: Any, _: Any) -> Any:
    name, text = content
    # Imported here: a program that does not use them does not pay for them.
    if name == "Fraction":
        from fractions import Fraction

        return Fraction(text)
    from decimal import Decimal

    return Decimal(text)


def _decode_int(content: Any, _: Any) -> int:
    return int(content, 16)


_DECODERS: dict[str, Callable[[Any, Any], Any]] = {
    "t": lambda content, object_of: tuple(_decode_all(content, object_of)),
    "s": lambda content, object_of: set(_decode_all(content, object_of)),
    "z": lambda content, object_of: frozenset(_decode_all(content, object_of)),
    "g": lambda content, object_of: iter(_decode_all(content, object_of)),
    "d": lambda content, object_of: {decode(pair[0], object_of): decode(pair[1], object_of) for pair in content},
    "i": _decode_int,
    "f": lambda content, _: float(content),
    "b": lambda content, _: bytes.fromhex(content),
    "c": lambda content, _: complex(decode(content[0]), decode(content[1])),
    "n": _decode_number,
}
