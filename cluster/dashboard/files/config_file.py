"""config.yaml of anybody's run, as the run wrote it: by the reader of `cluster/configuration/recipe_yaml.py`."""

from typing import Any

from cluster.configuration.recipe_yaml import parse_yaml
from cluster.configuration.renamed import upgraded
from rollout.errors import ConfigError

MAX_CHARS = 1 << 17
"""Of a configuration; ours have a few KB, and reading one takes a second for 50 KB."""


MAX_BRACKETS = 10_000
"""Ours are written without any; the parser needs seconds for a hundred thousand."""


def read_config(text: str) -> Any:
    """The value of a configuration's text. Raises ValueError for what is none: no YAML, too long, or with an alias, by
    which a few lines stand for gigabytes of JSON."""
    if len(text) > MAX_CHARS:
        raise ValueError(f"{len(text)} characters, allowed: {MAX_CHARS}")
    if (brackets := text.count("[") + text.count("{")) > MAX_BRACKETS:
        raise ValueError(f"{brackets} opening brackets, allowed: {MAX_BRACKETS}")
    try:
        value = parse_yaml(text, "config.yaml")
    except ConfigError as error:
        raise ValueError(str(error).removeprefix("config.yaml: ").removeprefix("config.yaml, ")) from error
    if _has_alias(value, set()):
        raise ValueError("it has an alias, which no configuration of a run has")
    return upgraded(value)


def _has_alias(value: Any, seen: set[int]) -> bool:
    """Whether a mapping or a list stands in more than one place; one may even stand in itself."""
    if not isinstance(value, (dict, list)):
        return False
    if id(value) in seen:
        return True
    seen.add(id(value))
    return any(_has_alias(child, seen) for child in (value.values() if isinstance(value, dict) else value))
