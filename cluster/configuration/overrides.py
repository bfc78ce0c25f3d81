"""Plain values of a configuration laid over each other: a recipe over its base, `dotted.key=value` over a recipe.

Where a field is one of several classes told apart by `kind`, another kind replaces the value: it does not inherit the
old kind's keys.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import BaseModel

from cluster.configuration.recipe_yaml import parse_scalar
from cluster.configuration.schema import KIND, Place, allowed_keys, places_at
from rollout.errors import ConfigError
from rollout.value_problems import unknown_key


def merge(root: type[BaseModel], base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """`over` laid over `base`, key by key; lists and values replace, a value of another kind replaces as a whole."""
    return _merge([Place(annotation=root)], base, over)


def apply_overrides(root: type[BaseModel], values: Mapping[str, Any], overrides: Sequence[str]) -> dict[str, Any]:
    """A copy of `values` with `dotted.key=value` applied; a number in the path is a place in a list.

    Where an override names another kind, that comes before those of the keys below, whatever the order: it clears the
    old kind's keys. Raises ConfigError.
    """
    result: dict[str, Any] = json.loads(json.dumps(values))
    for path, value in _in_order(root, [_split(override) for override in overrides]):
        if _names_kind(root, path):
            _clear_other_kind(root, result, path[:-1], value)
        _set(root, result, path, value)
    return result


def _merge(places: Sequence[Place], base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in over.items():
        old, below = merged.get(key), [child for place in places for child in place.below(key)]
        if isinstance(old, dict) and isinstance(value, dict) and not _is_other_kind(below, old, value.get(KIND)):
            merged[key] = _merge(below, old, value)
        else:
            merged[key] = value
    return merged


def _is_other_kind(places: Sequence[Place], old: Mapping[str, Any], kind: object) -> bool:
    """Whether a value that names `kind` (None: names none) is of another kind than the old one."""
    return kind is not None and any(place.kinds and place.kind_of(old) != kind for place in places)


def _names_kind(root: type[BaseModel], path: Sequence[str]) -> bool:
    return path[-1] == KIND and any(place.kinds for place in places_at(root, path[:-1]))


def _in_order(root: type[BaseModel], pairs: Sequence[tuple[list[str], Any]]) -> list[tuple[list[str], Any]]:
    """The overrides with each kind as early as it can stand: after what sets the whole value, or a kind above it."""
    ordered: list[tuple[list[str], Any]] = []
    for path, value in pairs:
        index = len(ordered)
        if _names_kind(root, path):
            above = [p[:-1] if _names_kind(root, p) else p for p, _ in ordered]
            index = max((n + 1 for n, p in enumerate(above) if path[:-1][: len(p)] == p), default=0)
        ordered.insert(index, (path, value))
    return ordered


def _clear_other_kind(root: type[BaseModel], values: Any, path: Sequence[str], kind: object) -> None:
    """Empties the mapping at `path` where it is of another kind."""
    node = values
    for part in path:
        if isinstance(node, Mapping):
            node = node.get(part)
        elif isinstance(node, list) and part.isdigit() and int(part) < len(node):
            node = node[int(part)]
        else:
            return  # there is nothing to clear; a path that cannot be is told where the value is set
    if isinstance(node, dict) and _is_other_kind(places_at(root, path), node, kind):
        node.clear()


def _split(override: str) -> tuple[list[str], Any]:
    key, equals, text = override.partition("=")
    path = key.split(".")
    if not equals or not all(path):
        raise ConfigError(
            f"got {override!r} as an override, allowed: key=value with a dotted key, as in learner.lr=1e-5"
        )
    return path, parse_scalar(text, f"the override of {key}")


def _set(root: type[BaseModel], target: dict[str, Any], path: Sequence[str], value: Any) -> None:
    node: Any = target
    for depth, part in enumerate(path):
        is_last = depth == len(path) - 1
        if isinstance(node, list):
            if not part.isdigit() or int(part) >= len(node):
                where = ".".join(path[:depth])
                raise ConfigError(
                    f"{where} is a list of {len(node)}: got place {part!r}, allowed: 0 to {len(node) - 1}"
                )
            key: Any = int(part)
        elif isinstance(node, dict):
            key = part
        else:
            where, allowed = ".".join(path[:depth]), allowed_keys(places_at(root, path[: depth - 1]))
            if allowed and path[depth - 1] not in allowed:
                raise ConfigError(unknown_key(where, allowed))
            raise ConfigError(f"{where}: this is one value ({node!r}), it has no key {part!r}")
        if is_last:
            node[key] = value
        elif isinstance(node, dict) and node.get(key) is None:
            node[key] = {}
        node = node[key]
