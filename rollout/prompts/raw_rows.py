"""A row as a source has it, why it may be no use, and its values: checked text, or plain JSON.

Nothing is repaired silently: what the tokenizer or a run's UTF-8 files could not hold is refused here, where file and
line are still known, instead of hours later.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime, time


class BadRow(Exception):
    """A malformed row: `reason` is counted, `detail` is shown."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason
        self.detail = detail


@dataclass(frozen=True, slots=True, kw_only=True)
class RawRow:
    """A row as it was read; exactly one of `columns` and `problem` is given."""

    source: str
    columns: Mapping[str, object] | None = None
    problem: BadRow | None = None


def checked_text(value: str, column: str, what: str) -> str:
    """`value` itself, once it is sure that a tokenizer and a UTF-8 file can hold it."""
    if not value.strip():
        raise BadRow(f"empty {what}", f"column {column!r} is empty")
    if "\0" in value:
        raise BadRow("NUL character", f"column {column!r} holds a NUL character at offset {value.index(chr(0))}")
    return encodable(value, column)


def encodable(value: str, column: str) -> str:
    """`value` itself, once it is sure that it can be written as UTF-8. Raises BadRow."""
    try:
        value.encode()
    except UnicodeEncodeError as error:
        code = f"U+{ord(value[error.start]):04X}"
        raise BadRow("lone surrogate", f"column {column!r} holds half a character, {code}") from error
    return value


MAX_DEPTH = 100
"""Lists and objects within one another; what is written and sent later goes into each of them by a call."""


def json_value(value: object, column: str, depth: int = 0) -> object:
    """`value` in JSON's types: dates as ISO text, decimals as text, NaN as null. Bytes stay, for the caller to drop."""
    if depth > MAX_DEPTH:
        raise BadRow("nested too deeply", f"column {column!r} is nested more than {MAX_DEPTH} deep")
    if value is None or isinstance(value, bool | int | bytes):
        return value
    if isinstance(value, str):
        return encodable(value, column)
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        items = {encodable(str(key), column): json_value(item, column, depth + 1) for key, item in value.items()}
        return {key: item for key, item in items.items() if not isinstance(item, bytes)}
    if isinstance(value, set | frozenset):
        value = sorted(value, key=str)  # a set of texts has another order in every process
    if isinstance(value, list | tuple):
        values = (json_value(item, column, depth + 1) for item in value)
        return [item for item in values if not isinstance(item, bytes)]
    if isinstance(value, datetime | date | time):
        return value.isoformat()
    tolist = getattr(value, "tolist", None)
    if tolist is not None:  # numpy scalars and arrays, which generators put into their metadata
        return json_value(tolist(), column, depth + 1)
    return encodable(str(value), column)


def kind_of(value: object) -> str:
    """How a value is named in a message about it."""
    if value is None:
        return "null"
    try:
        text = repr(value)
    except RecursionError:
        return f"{type(value).__name__} nested more than {MAX_DEPTH} deep"
    return f"{type(value).__name__} {text if len(text) <= 40 else text[:37] + '...'}"
