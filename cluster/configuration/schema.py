"""The configuration classes seen as a tree: what may stand at a place, whichever class has it.

A field whose annotation is a union of classes, each with a literal field `kind`, is a union by kind: the value's `kind`
says which class it is. Such a field may stand at any depth, be optional, or be what a list or mapping holds.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

KIND = "kind"


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """What may stand at one place of a configuration."""

    annotation: Any
    default_kind: str | None = None
    """Of a union by kind: the kind of the field's default, which is meant where a value names none."""

    @property
    def models(self) -> tuple[type[BaseModel], ...]:
        """The configuration classes that may stand here; none for a plain value, list or mapping."""
        return tuple(_models_in(self.annotation))

    @property
    def kinds(self) -> dict[str, type[BaseModel]]:
        """The class of each kind; empty where this is no union by kind."""
        models = self.models
        if len(models) < 2 or not all(kinds_of(model) for model in models):
            return {}
        return {kind: model for model in models for kind in kinds_of(model)}

    def kind_of(self, value: Mapping[str, Any]) -> str | None:
        """The kind that a value here has or means; None for one that is left open, or is no text."""
        kind = value.get(KIND, self.default_kind)
        return kind if isinstance(kind, str) else None

    def below(self, part: str | int) -> tuple["Place", ...]:
        """The places under a key, or a number for a list; several where classes of a union share the key, none where
        there is no such key or anything may stand."""
        fields = (model.model_fields.get(str(part)) for model in self.models)
        found = [place_of(field) for field in fields if field is not None]
        is_number = isinstance(part, int) or part.isdigit()
        found.extend(item for item, is_list in self.items(int(part) if is_number else 0) if is_number or not is_list)
        return tuple(found)

    def items(self, index: int = 0) -> Iterator[tuple["Place", bool]]:
        """What a mapping or list holds that may stand here (at this index, where that matters), and whether it is a
        list."""
        for member in alternatives(self.annotation):
            origin, arguments = get_origin(member), get_args(member)
            if origin is dict:
                yield Place(annotation=arguments[1]), False
            elif origin is list or (origin is tuple and arguments[1:] == (...,)):
                yield Place(annotation=arguments[0]), True
            elif origin is tuple and index < len(arguments):
                yield Place(annotation=arguments[index]), True


def place_of(field: FieldInfo) -> Place:
    """The place that a field of a class is."""
    # A default that is built anew each time is built here once; configurations are cheap and have no side effects.
    default = None if field.is_required() else field.get_default(call_default_factory=True, validated_data={})
    return Place(annotation=field.annotation, default_kind=getattr(default, KIND, None))


def places_at(root: type[BaseModel], path: Sequence[str | int]) -> tuple[Place, ...]:
    """The places that a dotted key may mean, whatever the kinds on the way."""
    places: tuple[Place, ...] = (Place(annotation=root),)
    for part in path:
        places = tuple(below for place in places for below in place.below(part))
    return places


def allowed_keys(places: Sequence[Place]) -> tuple[str, ...]:
    """Keys of what may stand at these places, sorted; empty where any key is allowed."""
    return tuple(sorted({name for place in places for model in place.models for name in model.model_fields}))


def follow(root: type[BaseModel], location: Sequence[str | int]) -> tuple[tuple[str, ...], tuple[Place, ...]]:
    """The key and the places of a location as pydantic writes it, where the kind that was chosen at a union is a part
    of its own: ("task", "gsm8k", "path") is task.path."""
    keys: list[str] = []
    places: tuple[Place, ...] = (Place(annotation=root),)
    is_chosen = False
    for part in location:
        chosen = [place.kinds[part] for place in places if isinstance(part, str) and part in place.kinds]
        if chosen and not is_chosen:
            places = tuple(Place(annotation=model) for model in chosen)
            is_chosen = True
            continue
        keys.append(str(part))
        places = tuple(below for place in places for below in place.below(part))
        is_chosen = False
    return tuple(keys), places


def with_default_kinds(places: Sequence[Place], value: Any) -> Any:
    """A copy of plain data in which a union's value that names no kind has that of the field's default."""
    if isinstance(value, list):
        return [with_default_kinds([b for p in places for b in p.below(i)], item) for i, item in enumerate(value)]
    if not isinstance(value, Mapping):
        return value
    kinds = {kind: model for place in places for kind, model in place.kinds.items()}
    default_kind = next((place.default_kind for place in places if place.kinds and place.default_kind), None)
    filled = {KIND: default_kind, **value} if default_kind is not None else dict(value)
    kind = filled.get(KIND)
    if kinds and isinstance(kind, str) and kind in kinds:
        places = [Place(annotation=kinds[kind])]
    return {key: with_default_kinds([b for p in places for b in p.below(key)], item) for key, item in filled.items()}


def kinds_of(model: type[BaseModel]) -> tuple[str, ...]:
    """The kinds that values of this class have; none for a class that is not told apart by kind."""
    field = model.model_fields.get(KIND)
    return get_args(field.annotation) if field is not None and get_origin(field.annotation) is Literal else ()


def alternatives(annotation: Any) -> Iterator[Any]:
    """The members of a union, without what annotates them; anything else is its own only one."""
    if get_origin(annotation) is Annotated:
        yield from alternatives(get_args(annotation)[0])
    elif get_origin(annotation) in (Union, UnionType):
        for argument in get_args(annotation):
            yield from alternatives(argument)
    else:
        yield annotation


def _models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    for member in alternatives(annotation):
        if isinstance(member, type) and issubclass(member, BaseModel):
            yield member
