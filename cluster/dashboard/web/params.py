"""What a request says, checked: every value is a number within its range or a bounded text, or the answer is 400."""

import math
import re
from collections.abc import Collection, Mapping, Sequence
from typing import TypeVar, cast
from urllib.parse import parse_qsl

from cluster.run_files import Phase
from rollout.errors import ShoalError

Word = TypeVar("Word", bound=str)
MAX_TEXT = 4000
"""Characters of a parameter: a filter that a person writes is shorter."""
MAX_FIELDS = 16
MAX_STEP = 10**12
MAX_ID = 200


class RequestError(ShoalError):
    """A request that cannot be answered; its text is for the person who made it."""

    def __init__(self, status: int, sentence: str) -> None:
        super().__init__(sentence)
        self.status = status


def bad(sentence: str) -> RequestError:
    """400."""
    return RequestError(400, sentence)


def parse_query(query: str, allowed: Collection[str]) -> dict[str, str]:
    """The parameters of an address. Raises RequestError for one that is unknown, given twice, or too long."""
    try:
        pairs = parse_qsl(query, keep_blank_values=True, max_num_fields=MAX_FIELDS, errors="strict")
    except ValueError as error:  # too many fields, or bytes that are no UTF-8 (UnicodeDecodeError is a ValueError)
        raise bad(f"the parameters cannot be read: {error}") from error
    values: dict[str, str] = {}
    for name, value in pairs:
        if name not in allowed:
            known = ", ".join(sorted(allowed)) or "none"
            raise bad(f"there is no parameter {shown(name)} here; there are: {known}")
        if name in values:
            raise bad(f"the parameter {name} was given twice")
        if len(value) > MAX_TEXT:
            raise bad(f"the parameter {name} has {len(value)} characters, allowed: {MAX_TEXT}")
        values[name] = value
    return values


def whole(values: Mapping[str, str], name: str, default: int, low: int, high: int) -> int:
    """A whole number within [low, high]; the default when it is absent or empty."""
    text = values.get(name, "")
    if text == "":
        return default
    return _whole(name, text, low, high)


def one_of(values: Mapping[str, str], name: str, allowed: Sequence[Word]) -> Word:
    """One of some words; the first of them when it is absent or empty."""
    text = values.get(name, "") or allowed[0]
    for word in allowed:
        if word == text:
            return word
    raise bad(f"{name} is {shown(text)}, allowed: {', '.join(allowed)}")


def optional_whole(values: Mapping[str, str], name: str, low: int = 0, high: int = MAX_STEP) -> int | None:
    """The same without a default."""
    text = values.get(name, "")
    return _whole(name, text, low, high) if text != "" else None


def optional_seconds(values: Mapping[str, str], name: str) -> float | None:
    """A time in seconds; None when it is absent."""
    text = values.get(name, "")
    if text == "":
        return None
    try:
        value = float(text) if len(text) <= 40 else math.nan
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise bad(f"{name} is {shown(text)}, allowed: a time in seconds")
    return value


def path_step(text: str) -> int:
    """A training step in a path."""
    return _whole("the step", text, 0, MAX_STEP)


def path_whole(name: str, text: str, high: int = MAX_STEP) -> int:
    """A number in a path."""
    return _whole(name, text, 0, high)


def path_phase(text: str) -> Phase:
    """A phase in a path."""
    if text not in ("train", "eval"):
        raise bad(f"the phase is {shown(text)}, allowed: train, eval")
    return cast(Phase, text)


def path_id(text: str) -> str:
    """A group's or a prompt's id: looked up as it is, so that only its length matters."""
    if not 0 < len(text) <= MAX_ID:
        raise bad(f"an id has {len(text)} characters, allowed: 1 to {MAX_ID}")
    return text


def names(values: Mapping[str, str], name: str, most: int) -> list[str]:
    """A list with commas between, each once; empty when absent."""
    listed = [part for part in values.get(name, "").split(",") if part]
    if len(set(listed)) != len(listed):
        raise bad(f"{name} has an entry twice")
    if len(listed) > most:
        raise bad(f"{name} has {len(listed)} entries, allowed: {most}")
    return listed


def shown(text: str) -> str:
    """Quoted, escaped and bounded: it comes from outside."""
    return ascii(text if len(text) <= 80 else text[:80] + "...")


def _whole(name: str, text: str, low: int, high: int) -> int:
    # A pattern first: int() takes underscores, spaces and other scripts' digits, and is slow for a million of them.
    value = int(text) if re.fullmatch(r"-?[0-9]{1,15}", text, re.ASCII) else None
    if value is None or not low <= value <= high:
        raise bad(f"{name} is {shown(text)}, allowed: a whole number from {low} to {high}")
    return value
