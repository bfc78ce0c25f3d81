"""Methods as tools: what the model is told of them, and calls with what it wrote."""

import json
from collections.abc import Callable, Mapping
from typing import Any

from pydantic import ConfigDict, ValidationError, validate_call

from rollout.episodes.environment import Environment, ToolCall, tools_of
from rollout.errors import ConfigError

CUT = "\n[... {left_out:,} of {total:,} characters left out]"


class ToolError(Exception):
    """A call that gave no result. What it says is for the model to read."""


def schemas_of(kind: type[Environment]) -> list[dict[str, Any]]:
    """JSON schemas of a world's tools, as chat templates read them. Errors: `ConfigError` for a tool without types or
    without a description of each parameter."""
    return [_schema(kind, name, method) for name, method in tools_of(kind).items()]


def _schema(kind: type[Environment], name: str, method: Callable[..., Any]) -> dict[str, Any]:
    from transformers.utils.chat_template_utils import DocstringParsingException, TypeHintParsingException
    from transformers.utils.chat_template_utils import get_json_schema as schema_of

    try:
        schema: dict[str, Any] = schema_of(method.__get__(object.__new__(kind)))
    except (DocstringParsingException, TypeHintParsingException) as error:
        raise ConfigError(
            f"tool {kind.__name__}.{name}: {' '.join(str(error).split())}; give each parameter a type, and a line "
            "under `Args:` in the docstring"
        ) from error
    return schema


def checked_call(environment: Environment, call: ToolCall) -> Callable[[], Any]:
    """The call, with arguments of the types that the method asks for: it raises ValidationError for others. Errors:
    `ToolError` for a tool that there is not, or arguments that it does not have."""
    tools = tools_of(type(environment))
    if call.name not in tools:
        raise ToolError(f"there is no tool {call.name!r}; there is {', '.join(tools) or 'none'}")
    method = validate_call(config=ConfigDict(arbitrary_types_allowed=True))(tools[call.name].__get__(environment))
    _check_arguments(method, call.arguments)
    return lambda: method(**call.arguments)


def _check_arguments(method: Callable[..., Any], arguments: Mapping[str, Any]) -> None:
    """Before the call, since a tool may raise ValidationError too, of what it reads itself."""
    import inspect

    try:
        inspect.signature(method).bind(**arguments)
    except TypeError as error:
        raise ToolError(str(error)) from error


def as_text(result: Any, *, max_chars: int) -> str:
    """A result as the model reads it: text as it is, all else as JSON, cut where it is longer than allowed."""
    text = result if isinstance(result, str) else json.dumps(result, ensure_ascii=False, default=str)
    if len(text) <= max_chars:
        return text
    note = CUT.format(left_out=len(text) - max_chars, total=len(text))
    return text[:max_chars] + note


def in_words(error: BaseException) -> str:
    """What the model reads of a call that raised."""
    if isinstance(error, ValidationError):
        return "; ".join(f"{'.'.join(map(str, of['loc']))}: {of['msg']}" for of in error.errors(include_url=False))
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
