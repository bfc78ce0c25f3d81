"""Every key of the configuration with its type, range, default and help, from the classes themselves."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from types import NoneType
from typing import Any, Literal, get_args, get_origin

import annotated_types
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from cluster.config import RunConfig
from cluster.configuration.schema import KIND, Place, alternatives, kinds_of, place_of
from rollout.errors import ConfigError
from rollout.value_problems import unknown_key

_TYPES = {int: "integer", float: "number", str: "text", bool: "true or false", NoneType: "null", Any: "any value"}
_RANGES = (
    (annotated_types.Ge, "ge", "at least"),
    (annotated_types.Gt, "gt", "above"),
    (annotated_types.Le, "le", "at most"),
    (annotated_types.Lt, "lt", "below"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Key:
    """One key of the configuration."""

    path: str
    """Dotted; `N` stands for a place in a list, `NAME` for a key of a mapping."""
    kind: str | None
    """The kind of what stands above, where only that kind has this key."""
    type: str
    """What may stand there, range included, in words."""
    default: str | None
    """As JSON, which is YAML too; "required" where there is none; None for a section whose keys each have their own."""
    help: str
    is_section: bool
    """There are keys below it."""


def list_keys(root: type[BaseModel] = RunConfig) -> tuple[Key, ...]:
    """All keys of a configuration class, in the order of its fields, each section before what is in it."""
    return tuple(_keys_below(Place(annotation=root), ""))


def find_keys(path: str, keys: Sequence[Key]) -> tuple[Key, ...]:
    """The key `path` and all below it; a place in a list may be written as a number. Raises ConfigError for none."""
    wanted = path.split(".")
    found = tuple(keys)
    for depth in range(1, len(wanted) + 1):
        above, found = found, tuple(key for key in keys if _stands_at(key.path.split("."), wanted[:depth]))
        if not found and all(key.type.startswith("mapping") for key in above):
            return above  # anything may stand below: their own help says what
        if not found:
            allowed = sorted({key.path.split(".")[depth - 1] for key in above if key.path.count(".") >= depth - 1})
            if not allowed:
                raise ConfigError(f"{above[0].path}: this is one value, it has no key {wanted[depth - 1]!r}")
            raise ConfigError(unknown_key(".".join(wanted[:depth]), allowed))
    return found


def help_of(field: FieldInfo) -> str:
    """The text under a field; without one, that of the configuration class that stands there, or of the one whose kind
    the field says. Empty where there is none."""
    text = field.description or ""
    models = place_of(field).models
    if not text and len(models) == 1:
        text = models[0].__doc__ or ""
    return " ".join(text.split())


def _stands_at(parts: Sequence[str], wanted: Sequence[str]) -> bool:
    pairs = zip(parts, wanted, strict=False)
    return len(parts) >= len(wanted) and all(
        part in (one, "NAME") or (part == "N" and one.isdigit()) for part, one in pairs
    )


def _keys_below(place: Place, prefix: str) -> Iterator[Key]:
    """Keys of the classes that may stand at a place: first those that all kinds have alike, then each kind's own."""
    models = place.models
    shared = [name for name in models[0].model_fields if len({_identity(model, name) for model in models}) == 1]
    if place.kinds:
        text = f"one of {', '.join(place.kinds)}"
        yield Key(
            path=f"{prefix}{KIND}",
            kind=None,
            type=text,
            default=place.default_kind or "required",
            help="Which kind it is: other keys may follow from it.",
            is_section=False,
        )
    for name in shared:
        yield from _keys_of_field(models[0].model_fields[name], f"{prefix}{name}", None)
    for name in dict.fromkeys(name for model in models for name in model.model_fields):
        if name in shared or (name == KIND and place.kinds):
            continue
        alike: dict[str | None, list[type[BaseModel]]] = {}
        for model in models:
            alike.setdefault(_identity(model, name), []).append(model)
        for identity, group in alike.items():
            if identity is not None:
                kinds = ", ".join(kind for model in group for kind in kinds_of(model))
                yield from _keys_of_field(group[0].model_fields[name], f"{prefix}{name}", kinds)


def _keys_of_field(field: FieldInfo, path: str, kind: str | None) -> Iterator[Key]:
    place = place_of(field)
    below = [("", place), *((".N" if is_list else ".NAME", item) for item, is_list in place.items())]
    sections = [(suffix, inner) for suffix, inner in below if inner.models]
    yield Key(
        path=path,
        kind=kind,
        type=_type_of(place) + _range_of(field),
        default=_default_of(field),
        help=help_of(field),
        is_section=bool(sections),
    )
    for suffix, inner in sections:
        yield from _keys_below(inner, f"{path}{suffix}.")


def _identity(model: type[BaseModel], name: str) -> str | None:
    """Equal for fields that mean the same in several classes; differs from every other where a class lacks it."""
    field = model.model_fields.get(name)
    if field is None:
        return None
    return repr((_type_of(place_of(field)), _range_of(field), _default_of(field), help_of(field)))


def _type_of(place: Place) -> str:
    if place.kinds:
        words = [f"mapping with a {KIND}: {', '.join(place.kinds)}"]
        if NoneType in alternatives(place.annotation):
            words.append("null")
        return " or ".join(words)
    return " or ".join(_type_name(member) for member in alternatives(place.annotation))


def _type_name(member: Any) -> str:
    origin, arguments = get_origin(member), get_args(member)
    if origin is Literal:
        return f"one of {', '.join(str(argument) for argument in arguments)}"
    if origin is list or (origin is tuple and arguments[1:] == (...,)):
        return f"list of {_type_of(Place(annotation=arguments[0]))}"
    if origin is tuple:
        return f"list of {len(arguments)}: {', '.join(_type_of(Place(annotation=argument)) for argument in arguments)}"
    return _TYPES.get(member, "mapping")


def _range_of(field: FieldInfo) -> str:
    limits = [
        f"{words} {getattr(limit, name)}"
        for limit in field.metadata
        for cls, name, words in _RANGES
        if isinstance(limit, cls)
    ]
    return f", {' and '.join(limits)}" if limits else ""


def _default_of(field: FieldInfo) -> str | None:
    if field.is_required():
        return "required"
    default = field.get_default(call_default_factory=True, validated_data={})
    return None if isinstance(default, BaseModel) else json.dumps(_plain(default), ensure_ascii=False)


def _plain(value: Any) -> Any:
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json", exclude_defaults=True)
    return [_plain(item) for item in value] if isinstance(value, (list, tuple)) else value
