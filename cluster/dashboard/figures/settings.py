"""Values of a run's config.yaml, as they were written.

A run writes every value, defaults included. What an older run lacks has the default of today's `RunConfig`, which is
declared there alone; what is of another kind than it should be, in a file of anybody's, is as if it were not there.
"""

from collections.abc import Mapping
from functools import cache
from typing import Any, TypeVar

from pydantic import BaseModel
from pydantic_core import PydanticUndefined

from cluster.config import RunConfig

Setting = TypeVar("Setting", bool, int, float, str)


def written(config: Mapping[str, Any] | None, key: str, kind: type[Setting]) -> Setting | None:
    """The value at a dotted key; None where it is missing, null or of another kind. A whole number is a float too."""
    value: Any = config
    for part in key.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    return _as(value, kind)


def setting(config: Mapping[str, Any] | None, key: str, kind: type[Setting]) -> Setting:
    """The value that was written, else the field's default. Raises KeyError for a key that no configuration has."""
    value = written(config, key, kind)
    if value is not None:
        return value
    default = _as(_default_of(key), kind)
    if default is None:
        raise KeyError(f"{key} has no default of the kind {kind.__name__}")
    return default


def flattened(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """{"learner": {"lr": 1}} -> {"learner.lr": 1}. Lists are values; an empty mapping is one too."""
    flat: dict[str, Any] = {}
    for name, value in config.items():
        if isinstance(value, Mapping) and value:
            flat |= flattened(value, f"{prefix}{name}.")
        else:
            flat[f"{prefix}{name}"] = value
    return flat


def _as(value: Any, kind: type[Setting]) -> Setting | None:
    if kind is float and type(value) is int:
        return kind(value)
    return value if type(value) is kind else None


@cache
def _default_of(key: str) -> Any:
    model: type[BaseModel] = RunConfig
    *folders, name = key.split(".")
    for folder in folders:
        default = model.model_fields[folder].get_default(call_default_factory=True)
        model = type(default)
    default = model.model_fields[name].get_default(call_default_factory=True)
    return None if default is PydanticUndefined else default
