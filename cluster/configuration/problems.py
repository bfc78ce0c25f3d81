"""Turns pydantic's findings into sentences: key path, what was got, what is allowed, what was probably meant."""

import difflib
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import BaseModel, ValidationError

from cluster.configuration.schema import KIND, Place, allowed_keys, follow
from rollout.value_problems import shown, unknown_key, wrong_value


def describe_problems(root: type[BaseModel], error: ValidationError) -> str:
    """One line for each problem of values that should have become a `root`."""
    return "\n".join(_describe(root, problem) for problem in error.errors())


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
    return wrong_value(path, problem)


def _describe_kind(path: str, places: Sequence[Place], value: Any) -> str:
    kinds = list(dict.fromkeys(kind for place in places for kind in place.kinds))
    if not isinstance(value, Mapping) or KIND not in value:
        return f"{path}.{KIND}: missing; allowed: {', '.join(kinds)}"
    close = difflib.get_close_matches(str(value[KIND]), kinds, n=1)
    hint = f" (did you mean {close[0]}?)" if close else ""
    return f"{path}.{KIND}: got {shown(value[KIND])}, allowed: {', '.join(kinds)}{hint}"
