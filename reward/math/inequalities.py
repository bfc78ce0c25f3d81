r"""Inequalities of one variable as intervals: "1 \le x < 2" is [1, 2), "x < 1 or x > 3" a union."""

import re
from fractions import Fraction

from reward.math.plain_numbers import plain_number

_RELATION = re.compile(r"(\\(?:leqslant|geqslant|leq|geq|le|ge|lt|gt)(?![A-Za-z])|<=|>=|<|>)")
_SYMBOL = re.compile(r"(?:[A-Za-z]|\\(?:alpha|beta|theta|lambda|mu|phi))(?:_\{?\w+\}?)?")
_SIGNS = {"<": "<", ">": ">", "<=": "<=", ">=": ">=", r"\lt": "<", r"\gt": ">"}
_FLIPPED = {"<": ">", ">": "<", "<=": ">=", ">=": "<="}
_MAX_PARTS = 8


def as_interval(latex: str, *, is_alternative: bool) -> tuple[str, str] | None:
    """(variable, interval) of an inequality; None for anything else.

    Of several inequalities either may hold where the text says "or" (`is_alternative`), else all have to, unless
    nothing would be left.
    """
    parts = re.split(r",|;|\\(?:lor|vee|land|wedge|text\{\s*(?:or|and)\s*\})(?![A-Za-z])", latex)
    if not 1 <= len(parts) <= _MAX_PARTS or _RELATION.search(latex) is None:
        return None
    found = [_single(part) for part in parts]
    intervals = [interval for interval in found if interval is not None]
    if len(intervals) != len(parts) or len({name for name, _, _ in intervals}) != 1:
        return None
    name = intervals[0][0]
    bounds = [(low, high) for _, low, high in intervals]
    if len(bounds) == 2 and not is_alternative:
        both = _intersection(bounds)
        bounds = bounds if both is None else [both]
    return name, r"\cup ".join(f"{low},{high}" for low, high in bounds)


def _single(part: str) -> tuple[str, str, str] | None:
    """(variable, its lower end with bracket, its upper end) of one inequality."""
    pieces = [piece.strip() for piece in _RELATION.split(part)]
    sides, signs = pieces[::2], [_sign(piece) for piece in pieces[1::2]]
    if len(sides) == 2:
        if _SYMBOL.fullmatch(sides[1]) and not _SYMBOL.fullmatch(sides[0]):
            sides, signs = [sides[1], sides[0]], [_FLIPPED[signs[0]]]
        name, bound, sign = sides[0], sides[1], signs[0]
        if not _is_bound(name, bound):
            return None
        closed = sign.endswith("=")
        if sign[0] == ">":
            return name, ("[" if closed else "(") + bound, r"\infty)"
        return name, r"(-\infty", bound + ("]" if closed else ")")
    if len(sides) != 3 or signs[0][0] != signs[1][0]:
        return None
    if signs[0][0] == ">":
        sides.reverse()
        signs.reverse()
    low, name, high = sides
    if not _is_bound(name, low) or not _is_bound(name, high):
        return None
    return name, ("[" if signs[0].endswith("=") else "(") + low, high + ("]" if signs[1].endswith("=") else ")")


def _sign(relation: str) -> str:
    return _SIGNS.get(relation) or ("<=" if relation.startswith(r"\l") else ">=")


def _is_bound(name: str, bound: str) -> bool:
    """Whether an end of an interval may be `bound`: it does not depend on the variable."""
    if not bound or _SYMBOL.fullmatch(name) is None:
        return False
    return re.search(rf"(?<![\\A-Za-z]){re.escape(name)}(?![A-Za-z])", bound) is None


def _intersection(bounds: list[tuple[str, str]]) -> tuple[str, str] | None:
    """What two half-lines have in common, where their ends are plain numbers and it is something."""
    (first, second) = bounds
    if first[0] == r"(-\infty":
        first, second = second, first
    if first[1] != r"\infty)" or second[0] != r"(-\infty":
        return None
    low, high = _end(first[0][1:]), _end(second[1][:-1])
    return (first[0], second[1]) if low is not None and high is not None and low < high else None


def _end(latex: str) -> Fraction | None:
    number = plain_number(latex)
    return None if number is None else number.value
