"""One raw row of a data set -> one checked `TaskRow`.

A row that cannot be used raises `BadRow` with a short reason, by which such rows are counted, and a detail that names
the column. Nothing is repaired silently: a question that the tokenizer or a run's UTF-8 files could not hold is
refused here, where file and line are still known, instead of hours later.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import date, datetime, time
from decimal import Decimal

from rollout.config import ColumnMapping

ROLES = ("system", "user", "assistant", "tool")
"""Roles that chat templates know."""


class BadRow(Exception):
    """A malformed row: `reason` is counted, `detail` is shown."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason
        self.detail = detail


@dataclass(frozen=True, slots=True, kw_only=True)
class ChatMessage:
    """One turn of a question that is a conversation."""

    role: str
    content: str


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskRow:
    """One question of a task.

    Example:
        TaskRow(question="What is 1 + 2?", ground_truth="3", columns={"difficulty": 1}, source="sums.jsonl:1")
    """

    question: str | tuple[ChatMessage, ...]
    """Text of the user's turn, or the turns of a conversation that ends before the assistant answers."""
    ground_truth: str | None
    """The expected answer; None when the task has none."""
    columns: Mapping[str, object] = field(default_factory=dict)
    """The row's other columns, as JSON values."""
    source: str
    """Where the row came from: "file:line", lines and rows counted from 1."""

    @property
    def question_text(self) -> str:
        """The question as one text: a conversation of a single user turn is that turn, a longer one names its roles."""
        if isinstance(self.question, str):
            return self.question
        if len(self.question) == 1 and self.question[0].role == "user":
            return self.question[0].content
        return "\n\n".join(f"{message.role}: {message.content}" for message in self.question)


@dataclass(frozen=True, slots=True, kw_only=True)
class RowSchema:
    """Which columns mean what, and what else is done with them."""

    columns: ColumnMapping
    allow_no_answer: bool = False
    """A row whose ground truth is null is usable (generators that score answers themselves)."""
    keep: tuple[str, ...] = ()
    """Columns that stay in `TaskRow.columns` although they are question or ground truth."""
    final_answer: Callable[[str], str] | None = None
    """Ground truth as written in the row -> ground truth as compared."""


def parse_row(raw: Mapping[str, object], schema: RowSchema, source: str) -> TaskRow:
    """Checks and maps the columns of one row. Raises BadRow."""
    names = schema.columns
    question = _question(_column(raw, names.question), names.question)
    ground_truth: str | None = None
    if names.ground_truth is not None:
        ground_truth = _ground_truth(_column(raw, names.ground_truth), names.ground_truth, schema)
    mapped = {names.question, names.ground_truth} - set(schema.keep)
    columns = {str(name): json_value(value, str(name)) for name, value in raw.items() if name not in mapped}
    # Bytes (images, audio) have no JSON form and would swell every record of the run: they are left out.
    columns = {name: value for name, value in columns.items() if not isinstance(value, bytes)}
    return TaskRow(question=question, ground_truth=ground_truth, columns=columns, source=source)


def _column(raw: Mapping[str, object], name: str) -> object:
    if name not in raw:
        known = ", ".join(repr(str(column)) for column in list(raw)[:8]) or "none"
        raise BadRow("missing column", f"column {name!r} is missing; the row's columns are {known}")
    return raw[name]


def _question(value: object, column: str) -> str | tuple[ChatMessage, ...]:
    if isinstance(value, str):
        return _text(value, column, "question")
    if not isinstance(value, list | tuple):
        raise BadRow("wrong type", f"column {column!r} holds {_kind(value)}, expected text or a list of chat messages")
    if not value:
        raise BadRow("empty question", f"column {column!r} is an empty list of chat messages")
    messages = tuple(_message(item, column) for item in value)
    if messages[-1].role not in ("user", "tool"):
        raise BadRow("wrong type", f"column {column!r} ends with a turn of {messages[-1].role!r}: nothing is asked")
    return messages


def _message(item: object, column: str) -> ChatMessage:
    if not isinstance(item, Mapping) or not isinstance(item.get("role"), str):
        raise BadRow("wrong type", f"column {column!r} holds a chat message without a role, got {_kind(item)}")
    role, content = item["role"], item.get("content")
    if role not in ROLES:
        raise BadRow("wrong type", f"column {column!r} holds a chat message of role {role!r}; roles are {list(ROLES)}")
    if not isinstance(content, str):
        raise BadRow("wrong type", f"column {column!r} holds a chat message with content {_kind(content)}, not text")
    return ChatMessage(role=role, content=_text(content, column, "question"))


def _ground_truth(value: object, column: str, schema: RowSchema) -> str | None:
    if value is None and schema.allow_no_answer:
        return None
    # bool is an int to Python, but "True" or "true" is the model's guess to make, not ours.
    if isinstance(value, bool) or not isinstance(value, str | int | float | Decimal):
        raise BadRow("wrong type", f"column {column!r} holds {_kind(value)}, expected text or a number")
    if isinstance(value, float) and not math.isfinite(value):
        raise BadRow("wrong type", f"column {column!r} holds {value}, expected a finite number")
    text = _text(value if isinstance(value, str) else str(value), column, "answer")
    if schema.final_answer is None:
        return text
    try:
        return schema.final_answer(text)
    except ValueError as error:
        raise BadRow("no final answer", f"column {column!r}: {error}") from error


def _text(value: str, column: str, what: str) -> str:
    """`value` itself, once it is sure that a tokenizer and a UTF-8 file can hold it."""
    if not value.strip():
        raise BadRow(f"empty {what}", f"column {column!r} is empty")
    if "\0" in value:
        raise BadRow("NUL character", f"column {column!r} holds a NUL character at offset {value.index(chr(0))}")
    return _encodable(value, column)


def _encodable(value: str, column: str) -> str:
    try:
        value.encode()
    except UnicodeEncodeError as error:
        code = f"U+{ord(value[error.start]):04X}"
        raise BadRow("lone surrogate", f"column {column!r} holds half a character, {code}") from error
    return value


def json_value(value: object, column: str) -> object:
    """`value` in JSON's types: dates as ISO text, decimals as text, NaN as null. Bytes stay, for the caller to drop."""
    if value is None or isinstance(value, bool | int | bytes):
        return value
    if isinstance(value, str):
        return _encodable(value, column)
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        items = {_encodable(str(key), column): json_value(item, column) for key, item in value.items()}
        return {key: item for key, item in items.items() if not isinstance(item, bytes)}
    if isinstance(value, set | frozenset):
        value = sorted(value, key=str)  # a set of texts has another order in every process
    if isinstance(value, list | tuple):
        return [item for item in (json_value(item, column) for item in value) if not isinstance(item, bytes)]
    if isinstance(value, datetime | date | time):
        return value.isoformat()
    if hasattr(value, "tolist"):  # numpy scalars and arrays, which generators put into their metadata
        return json_value(value.tolist(), column)
    return _encodable(str(value), column)


def _kind(value: object) -> str:
    """How a value is named in a message about it."""
    if value is None:
        return "null"
    text = repr(value)
    return f"{type(value).__name__} {text if len(text) <= 40 else text[:37] + '...'}"
