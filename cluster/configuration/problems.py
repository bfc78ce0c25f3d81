"""Turns pydantic's findings into sentences: key path, what was got, what is allowed, what was probably meant."""

import difflib
from collections.abc import Iterator, Mapping, Sequence
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError

from cluster.config import RunConfig

_MAX_SHOWN = 60
"""Characters of a wrong value that are repeated to the user."""

_WORDS = (
    ("a valid integer", "an integer"),
    ("a valid number", "a number"),
    ("a valid string", "text (quote what looks like a number)"),
    ("a valid boolean", "true or false"),
    ("a valid array", "a list"),
    ("an object", "a mapping"),
)
"""pydantic speaks JSON's words; recipes are YAML."""


def describe_problems(error: ValidationError) -> str:
    """One line for each problem of a RunConfig."""
    return "\n".join(_describe(problem) for problem in error.errors())


def unknown_key(path: str, allowed: Sequence[str]) -> str:
    """The sentence for a key that does not exist, with the closest one that does."""
    parent, _, key = path.rpartition(".")
    close = difflib.get_close_matches(key, allowed, n=1, cutoff=0.6)
    if close:
        return f"{path}: no such key; did you mean {f'{parent}.' if parent else ''}{close[0]}?"
    return f"{path}: no such key; allowed here: {', '.join(allowed)}"


def allowed_keys(location: Sequence[str | int]) -> tuple[str, ...]:
    """Keys of the configuration at a place such as ("rollout", "sampling"); empty where any key is allowed.

    A tagged union counts the tag as part of the place, as pydantic does: ("task", "gsm8k").
    """
    models: list[type[BaseModel]] = [RunConfig]
    for part in location:
        found: list[type[BaseModel]] = []
        for model in models:
            if isinstance(part, int) or part in _kinds_of(model):
                found.append(model)
            elif part in model.model_fields:
                found.extend(_models_in(model.model_fields[part].annotation))
        models = _of_kind(found, part)
        if not models:
            return ()
    return tuple(sorted({name for model in models for name in model.model_fields}))


def _of_kind(models: list[type[BaseModel]], part: str | int) -> list[type[BaseModel]]:
    tagged = [model for model in models if part in _kinds_of(model)]
    return tagged or models


def _kinds_of(model: type[BaseModel]) -> tuple[Any, ...]:
    field = model.model_fields.get("kind")
    return get_args(field.annotation) if field is not None else ()


def _models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    """The configuration classes inside an annotation such as `tuple[A, ...]` or `A | B | None`."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    elif get_origin(annotation) is Annotated:
        yield from _models_in(get_args(annotation)[0])
    elif get_origin(annotation) in (Union, UnionType, tuple):
        for argument in get_args(annotation):
            yield from _models_in(argument)


def _describe(problem: Mapping[str, Any]) -> str:
    kind: str = problem["type"]
    location: tuple[str | int, ...] = problem["loc"]
    path = _dotted(location)
    context = problem.get("ctx") or {}
    if kind == "extra_forbidden":
        return unknown_key(path, allowed_keys(location[:-1]))
    if kind == "missing":
        return f"{path}: missing; this key has no default"
    if kind == "value_error":  # a relation between keys: our own validators write whole sentences
        return f"{path}: {context['error']}" if path else str(context["error"])
    if kind in ("union_tag_invalid", "union_tag_not_found"):
        return _describe_kind(path, problem["input"])
    allowed = str(problem["msg"]).removeprefix("Input should be ")
    for theirs, ours in _WORDS:
        allowed = allowed.replace(theirs, ours)
    return f"{path}: got {_shown(problem['input'])}, allowed: {allowed}"


def _describe_kind(path: str, value: Any) -> str:
    kinds = [kind for model in _models_in(RunConfig.model_fields["task"].annotation) for kind in _kinds_of(model)]
    if not isinstance(value, Mapping) or "kind" not in value:
        return f"{path}.kind: missing; allowed: {', '.join(kinds)}"
    close = difflib.get_close_matches(str(value["kind"]), kinds, n=1)
    hint = f" (did you mean {close[0]}?)" if close else ""
    return f"{path}.kind: got {_shown(value['kind'])}, allowed: {', '.join(kinds)}{hint}"


def _dotted(location: Sequence[str | int]) -> str:
    """("task", "gsm8k", "path") -> "task.path": the tag of a union is no key."""
    parts: list[str] = []
    for index, part in enumerate(location):
        if index == 1 and location[0] in ("task", "eval_task") and part in _task_kinds():
            continue
        parts.append(str(part))
    return ".".join(parts)


def _task_kinds() -> tuple[str, ...]:
    return tuple(k for model in _models_in(RunConfig.model_fields["task"].annotation) for k in _kinds_of(model))


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= _MAX_SHOWN else f"{text[:_MAX_SHOWN]}..."
