"""A judge's reply -> its verdict, or why it is none. Nothing is guessed, mended or cut into range.

A verdict is one JSON object at the end of the reply, which begins with the code of the request:

    {"id": "5f2c...", "score": 7, "reason": "..."}

It is the judge's own where it carries that code (`reward.judging.fence`), stands there once, ends the reply, and says
each thing once. What a judge quotes of a completion can then not be a verdict: the completion does not know the code;
what follows the end of a verdict makes it none; and a quote that is not escaped says things twice, or ends it early.
"""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from reward.thought import THOUGHT_END

_CLOSING = re.compile(r"\s*(?:```)?\s*\Z")
"""May stand behind a verdict: judges like to put JSON into a block."""


class MalformedVerdictError(ValueError):
    """A reply that is no verdict: one sentence says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What the judge says."""

    values: dict[str, Any]
    """As the reply has them, without the code and the reason."""
    reason: str


def read_verdict(reply: str, code: str, keys: Sequence[str]) -> Verdict:
    """The verdict with this code, which says `keys` and maybe a reason.

    Errors: `MalformedVerdictError`.
    """
    text = reply.rpartition(THOUGHT_END)[2]
    begins = [found.start() for found in re.finditer(r'\{\s*"id"\s*:\s*"' + re.escape(code) + '"', text)]
    if not begins:
        raise MalformedVerdictError("the reply has no verdict with the request's code")
    if len(begins) > 1:
        raise MalformedVerdictError(f"the reply has {len(begins)} verdicts")
    try:
        found, end = _DECODER.raw_decode(text, begins[0])
    except (ValueError, RecursionError) as error:
        raise MalformedVerdictError(f"the verdict is no JSON: {error}") from error
    if _CLOSING.match(text, end) is None:
        raise MalformedVerdictError("the verdict does not end the reply")
    values = {key: value for key, value in found.items() if key not in ("id", "reason")}
    if values.keys() != set(keys):
        raise MalformedVerdictError(f"the verdict says {_names(values)}, asked was {_names(keys)}")
    reason = found.get("reason", "")
    if not isinstance(reason, str):
        raise MalformedVerdictError("the reason is no text")
    return Verdict(values=values, reason=" ".join(reason.split()))


def number_of(value: Any, low: float, high: float, what: str) -> float:
    """Errors: `MalformedVerdictError` for what is no number from `low` to `high`."""
    # An integer may be too large to be a float.
    if isinstance(value, bool) or not isinstance(value, int | float) or value != value:
        raise MalformedVerdictError(f"{what} is {_shown(value)}, which is no number")
    if not low <= value <= high:
        raise MalformedVerdictError(f"{what} is {_shown(value)}, which is not from {low:g} to {high:g}")
    return float(value)


def share_of(value: Any, low: float, high: float, what: str) -> float:
    """Its place between `low` (0) and `high` (1). Errors: `MalformedVerdictError`."""
    return (number_of(value, low, high, what) - low) / (high - low)


def truth_of(value: Any, what: str) -> bool:
    """Errors: `MalformedVerdictError` for what is neither true nor false."""
    if not isinstance(value, bool):
        raise MalformedVerdictError(f"{what} is {_shown(value)}, which is neither true nor false")
    return value


def choice_of(value: Any, choices: Sequence[str], what: str) -> str:
    """Errors: `MalformedVerdictError` for what is none of the choices."""
    if value not in choices:
        raise MalformedVerdictError(f"{what} is {_shown(value)}, which is none of {', '.join(choices)}")
    return str(value)


def places_of(ranking: Any, num: int) -> list[float]:
    """[num] the place of each of the numbers 1 to `num`, 0 for the best; those that stand in a list of their own share
    a place, the middle of theirs. Errors: `MalformedVerdictError` where one is missing, or there twice."""
    if not isinstance(ranking, list):
        raise MalformedVerdictError("the ranking is no list")
    places: dict[int, float] = {}
    for entry in ranking:
        tied = entry if isinstance(entry, list) else [entry]
        begin = len(places)
        for one in tied:
            if isinstance(one, bool) or not isinstance(one, int) or not 1 <= one <= num or one in places:
                raise MalformedVerdictError(f"the ranking has {_shown(one)}, expected each number from 1 to {num} once")
            places[one] = begin + (len(tied) - 1) / 2
    if len(places) != num:
        raise MalformedVerdictError(f"the ranking has {len(places)} of {num} completions")
    return [places[number] for number in range(1, num + 1)]


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("it says a thing twice")
    return found


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is no number of JSON")


_DECODER = json.JSONDecoder(object_pairs_hook=_once, parse_constant=_no_constant)


def _names(keys: Any) -> str:
    return ", ".join(map(_shown, keys)) or "nothing"


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 40 else f"{text[:40]}..."
