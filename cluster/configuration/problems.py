"""Turns pydantic's findings into sentences: key path, what was got, what is allowed, what was probably meant."""

import difflib
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import BaseModel, ValidationError

from cluster.configuration.schema import KIND, Place, allowed_keys, follow

_MAX_SHOWN = 60
"""Characters of a wrong value that are repeated to the user."""

_WORDS = (
    ("a valid integer", "an integer"),
    ("a valid number", "a number"),
    ("a valid string", "text (quote what looks like a number)"),
    ("a valid boolean", "true or false"),
    ("a valid array", "a list"),
    ("an object", "a mapping"),
    ("String should have at least 1 character", "text that is not empty"),
)
"""pydantic speaks JSON's words; recipes are YAML."""


def describe_problems(root: type[BaseModel], error: ValidationError) -> str:
    """One line for each problem of values that should have become a `root`."""
    return "\n".join(_describe(root, problem) for problem in error.errors())


def unknown_key(path: str, allowed: Sequence[str]) -> str:
    """The sentence for a key that does not exist, with the closest one that does."""
    parent, _, key = path.rpartition(".")
    close = difflib.get_close_matches(key, allowed, n=1, cutoff=0.6)
    if close:
        return f"{path}: no such key; did you mean {f'{parent}.' if parent else ''}{close[0]}?"
    return f"{path}: no such key; allowed here: {', '.join(allowed)}"


def _describe(root: type[BaseModel], problem: Mapping[str, Any]) -> str:
    kind: str = problem["type"]
    keys, places = follow(root, problem["loc"])
    path = ".".join(keys)
    context = problem.get("ctx") or {}
    if kind == "extra_forbidden":
        _, parents = follow(root, problem["loc"][:-1])
        return unknown_key(path, allowed_keys(parents))
    if kind == "missing":
        return f"{path}: missing; this key has no default"
    if kind == "value_error":  # a relation between keys: our own validators write whole sentences
        return f"{path}: {context['error']}" if path else str(context["error"])
    if kind in ("union_tag_invalid", "union_tag_not_found"):
        return _describe_kind(path, places, problem["input"])
    allowed = str(problem["msg"]).removeprefix("Input should be ")
    for theirs, ours in _WORDS:
        allowed = allowed.replace(theirs, ours)
    return f"{path}: got {_shown(problem['input'])}, allowed: {allowed}"


def _describe_kind(path: str, places: Sequence[Place], value: Any) -> str:
    kinds = list(dict.fromkeys(kind for place in places for kind in place.kinds))
    if not isinstance(value, Mapping) or KIND not in value:
        return f"{path}.{KIND}: missing; allowed: {', '.join(kinds)}"
    close = difflib.get_close_matches(str(value[KIND]), kinds, n=1)
    hint = f" (did you mean {close[0]}?)" if close else ""
    return f"{path}.{KIND}: got {_shown(value[KIND])}, allowed: {', '.join(kinds)}{hint}"


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= _MAX_SHOWN else f"{text[:_MAX_SHOWN]}..."
