"""Words for a value that is not what it should be, the same wherever a configuration is checked."""

import difflib
from collections.abc import Mapping, Sequence
from typing import Any

_MAX_SHOWN = 60
"""Characters of a wrong value that are repeated to the user."""

_WORDS = (
    ("a valid integer", "an integer"),
    ("a valid number", "a number"),
    ("a valid string", "text (quote what looks like a number)"),
    ("a valid boolean", "true or false"),
    ("a valid array", "a list"),
    ("a valid list", "a list"),
    ("a valid dictionary", "a mapping"),
    ("an object", "a mapping"),
    ("String should have at least 1 character", "text that is not empty"),
)
"""pydantic speaks JSON's words; recipes are YAML."""


def wrong_value(path: str, problem: Mapping[str, Any]) -> str:
    """The sentence for one of pydantic's findings: what was got at `path`, and what is allowed."""
    allowed = str(problem["msg"]).removeprefix("Input should be ")
    for theirs, ours in _WORDS:
        allowed = allowed.replace(theirs, ours)
    return f"{path}: got {shown(problem['input'])}, allowed: {allowed}"


def unknown_key(path: str, allowed: Sequence[str]) -> str:
    """The sentence for a key that does not exist, with the closest one that does."""
    parent, _, key = path.rpartition(".")
    close = difflib.get_close_matches(key, allowed, n=1, cutoff=0.6)
    if close:
        return f"{path}: no such key; did you mean {f'{parent}.' if parent else ''}{close[0]}?"
    return f"{path}: no such key; allowed here: {', '.join(allowed) or 'none'}"


def shown(value: Any) -> str:
    """A value as it is repeated to the user: not all of a long one."""
    text = repr(value)
    return text if len(text) <= _MAX_SHOWN else f"{text[:_MAX_SHOWN]}..."
