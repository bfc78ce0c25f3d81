"""One raw row of a data set -> one checked `TaskRow`.

A row that cannot be used raises `BadRow` with a short reason, by which such rows are counted, and a detail that names
the column.
"""

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from decimal import Decimal

from rollout.config import ColumnMapping
from rollout.episodes.environment import Message, ToolCall
from rollout.episodes.tool_prompt import with_calls
from rollout.prompts.raw_rows import BadRow, checked_text, encodable, json_value, kind_of

ROLES = ("system", "user", "assistant", "tool")
"""Roles that chat templates know."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskRow:
    """One question of a task.

    Example:
        TaskRow(question="What is 1 + 2?", ground_truth="3", columns={"difficulty": 1}, source="sums.jsonl:1")
    """

    question: str | tuple[Message, ...]
    """Text of the user's turn, or the turns of a conversation that ends before the assistant answers."""
    ground_truth: str | None
    """The expected answer; None when the task has none."""
    columns: Mapping[str, object] = field(default_factory=dict)
    """The row's other columns, as JSON values."""
    title: str = ""
    """What the row is called where others ask the same; else empty."""
    tools: tuple[Mapping[str, object], ...] = ()
    """JSON schemas of the tools that are offered to the model with the question."""
    source: str
    """Where the row came from: "file:line", lines and rows counted from 1."""

    @property
    def question_text(self) -> str:
        """The question as one text, which no other row has: a conversation of a single user turn is that turn, a longer
        one names its roles."""
        if self.title:
            return self.title
        if isinstance(self.question, str):
            return self.question
        if len(self.question) == 1 and self.question[0].role == "user":
            return self.question[0].content
        return "\n\n".join(f"{message.role}: {with_calls(message).content}" for message in self.question)


@dataclass(frozen=True, slots=True, kw_only=True)
class RowSchema:
    """Which columns mean what, and what else is done with them."""

    columns: ColumnMapping
    allow_no_answer: bool = False
    """A row whose ground truth is null is usable (generators that score answers themselves)."""
    keep: tuple[str, ...] = ()
    """Columns that stay in `TaskRow.columns` although they are question or ground truth."""
    title: str | None = None
    """Column with the row's title, where it has one."""
    tools: str | None = None
    """Column with the schemas of the tools, where it has some."""
    final_answer: Callable[[str], str] | None = None
    """Ground truth as written in the row -> ground truth as compared."""


def parse_row(raw: Mapping[str, object], schema: RowSchema, source: str) -> TaskRow:
    """Checks and maps the columns of one row. Raises BadRow."""
    names = schema.columns
    question = _question(column_value(raw, names.question), names.question)
    ground_truth: str | None = None
    if names.ground_truth is not None:
        ground_truth = _ground_truth(column_value(raw, names.ground_truth), names.ground_truth, schema)
    mapped = {names.question, names.ground_truth, schema.title, schema.tools} - set(schema.keep)
    kept = {encodable(str(name), str(name)): value for name, value in raw.items() if name not in mapped}
    columns = {name: json_value(value, name) for name, value in kept.items()}
    # Bytes (images, audio) have no JSON form and would swell every record of the run: they are left out.
    columns = {name: value for name, value in columns.items() if not isinstance(value, bytes)}
    title = str(raw.get(schema.title, "")) if schema.title is not None else ""
    tools: object = raw.get(schema.tools, ()) if schema.tools is not None else ()
    return TaskRow(
        question=question,
        ground_truth=ground_truth,
        columns=columns,
        title=title,
        tools=tuple(tools) if isinstance(tools, list | tuple) else (),
        source=source,
    )


def column_value(raw: Mapping[str, object], name: str) -> object:
    """The value of a column, or of what a name with dots leads to: `reward_model.ground_truth`. Raises BadRow."""
    if name in raw:
        return raw[name]
    here: object = raw
    for part in name.split("."):
        if not isinstance(here, Mapping) or part not in here:
            known = ", ".join(repr(str(column)) for column in list(raw)[:8]) or "none"
            detail = f"column {name!r} is missing; the row's columns are {known} (task.columns says which are read)"
            raise BadRow("missing column", detail)
        here = here[part]
    return here


def _question(value: object, column: str) -> str | tuple[Message, ...]:
    if isinstance(value, str):
        return checked_text(value, column, "question")
    if not isinstance(value, list | tuple):
        raise BadRow(
            "wrong type", f"column {column!r} holds {kind_of(value)}, expected text or a list of chat messages"
        )
    if not value:
        raise BadRow("empty question", f"column {column!r} is an empty list of chat messages")
    messages = tuple(_message(item, column) for item in value)
    if messages[-1].role not in ("user", "tool"):
        raise BadRow("wrong type", f"column {column!r} ends with a turn of {messages[-1].role!r}: nothing is asked")
    return messages


def _message(item: object, column: str) -> Message:
    if not isinstance(item, Mapping) or not isinstance(item.get("role"), str):
        raise BadRow("wrong type", f"column {column!r} holds a chat message without a role, got {kind_of(item)}")
    role, content = item["role"], _text_of_parts(item.get("content"))
    written = item.get("tool_calls") or () if role == "assistant" else ()
    if not isinstance(written, list | tuple):
        raise BadRow("wrong type", f"column {column!r} holds tool calls that are {kind_of(written)}, not a list")
    calls = tuple(_call(call, column) for call in written)
    if calls and (content is None or not str(content).strip()):
        return Message(role=role, content="", tool_calls=calls)
    if role not in ROLES:
        raise BadRow("wrong type", f"column {column!r} holds a chat message of role {role!r}; roles are {list(ROLES)}")
    if not isinstance(content, str):
        raise BadRow("wrong type", f"column {column!r} holds a chat message with content {kind_of(content)}, not text")
    return Message(
        role=role,
        content=content if role == "tool" and not content else checked_text(content, column, "question"),
        tool_calls=calls,
        name=str(item.get("name") or "") if role == "tool" else "",
        call_id=str(item.get("tool_call_id") or "") if role == "tool" else "",
    )


def _call(item: object, column: str) -> ToolCall:
    """A call as chat data has it: within `function` or by itself, its arguments as an object or as the JSON of one."""
    found = item.get("function", item) if isinstance(item, Mapping) else None
    if not isinstance(found, Mapping) or not isinstance(found.get("name"), str):
        raise BadRow("wrong type", f"column {column!r} holds a tool call without a name, got {kind_of(item)}")
    arguments = found.get("arguments", {})
    try:
        arguments = json.loads(arguments) if isinstance(arguments, str) else arguments
    except ValueError:
        arguments = None
    if not isinstance(arguments, Mapping):
        raise BadRow(
            "wrong type",
            f"column {column!r} holds a call of {found['name']!r} with arguments {kind_of(found['arguments'])}, not an "
            "object",
        )
    call_id = item.get("id") if isinstance(item, Mapping) else None
    return ToolCall(name=found["name"], arguments=dict(arguments), call_id=str(call_id or ""))


def _text_of_parts(content: object) -> object:
    """Content that is a list of texts (`{"type": "text", "text": ...}`) as one text; any other as it is."""
    if not isinstance(content, list | tuple) or not content:
        return content
    texts = [part.get("text") for part in content if isinstance(part, Mapping) and part.get("type") == "text"]
    whole = all(isinstance(text, str) for text in texts) and len(texts) == len(content)
    return "".join(str(text) for text in texts) if whole else content


def _ground_truth(value: object, column: str, schema: RowSchema) -> str | None:
    if value is None and schema.allow_no_answer:
        return None
    # bool is an int to Python, but "True" or "true" is the model's guess to make, not ours.
    if isinstance(value, bool) or not isinstance(value, str | int | float | Decimal):
        raise BadRow("wrong type", f"column {column!r} holds {kind_of(value)}, expected text or a number")
    if isinstance(value, float) and not math.isfinite(value):
        raise BadRow("wrong type", f"column {column!r} holds {value}, expected a finite number")
    text = checked_text(value if isinstance(value, str) else str(value), column, "answer")
    if schema.final_answer is None:
        return text
    try:
        return schema.final_answer(text)
    except ValueError as error:
        raise BadRow("no final answer", f"column {column!r}: {error}") from error
