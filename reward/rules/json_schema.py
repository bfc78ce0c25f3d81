"""Reward for an answer that is JSON of a given form."""

import json
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import jsonschema
import jsonschema.exceptions
import jsonschema.validators
import referencing
import referencing.exceptions
import referencing.jsonschema

from reward.components import column_value
from reward.functions import register
from reward.rules.final_text import fenced_text
from reward.types import ExplainedScore, RewardInput


def _check(schema: dict[str, Any] | None = None, schema_column: str | None = None, **_others: object) -> None:
    if (schema is None) == (schema_column is None):
        raise ValueError("give either schema, for all rows, or schema_column, the column that has each row's own")
    if schema is not None:
        _validator(json.dumps(schema))


def _check_row(
    item: RewardInput,
    schema: dict[str, Any] | None = None,
    schema_column: str | None = None,
    compare: bool = False,
    **_others: object,
) -> None:
    _validator(_schema_of(item, schema, schema_column))
    if compare:
        _truth(item)


@register("json_schema", check=_check, check_row=_check_row)
def json_schema(
    item: RewardInput,
    schema: dict[str, Any] | None = None,
    schema_column: str | None = None,
    compare: bool = False,
    formats: bool = False,
) -> ExplainedScore:
    """1 when the answer is JSON that fits a JSON Schema, else 0, and the record says why not.

    The schema is `schema`, or the row's, in column `schema_column`; its `$schema` says which draft it is, without one
    it is 2020-12. References lead to places in the schema itself: nothing is fetched. With `compare` the value has to
    equal that of the ground truth too (whatever the order of keys); with `formats` `format` is checked, not only noted.

    The JSON is what is marked as the answer, else the last fenced block, else the whole text. NaN, Infinity, a key that
    comes twice and text around the value are no JSON.

    Raises:
        ValueError: a schema or ground truth that is none.
    """
    validator = _validator(_schema_of(item, schema, schema_column))
    try:
        value = parse_json(json_text(item.completion))
    except ValueError as error:
        return ExplainedScore(0.0, f"no JSON: {error}")
    if formats:
        validator = validator.evolve(format_checker=type(validator).FORMAT_CHECKER)
    try:
        problem = jsonschema.exceptions.best_match(validator.iter_errors(value))
    except RecursionError:
        return ExplainedScore(0.0, "nested too deeply for the schema")
    except (OverflowError, ValueError):  # of multipleOf, which divides: 1e999 is JSON, and no float
        return ExplainedScore(0.0, "a number that is too large for the schema")
    if problem is not None:
        return ExplainedScore(0.0, f"{problem.json_path}: {problem.message}")
    if compare and not same_json(value, _truth(item)):
        return ExplainedScore(0.0, "fits the schema, and is another value than the truth")
    return ExplainedScore(1.0, "fits")


def json_text(completion: str) -> str:
    """The text that should be JSON."""
    return fenced_text(completion, ("", "json"))


def parse_json(text: str) -> Any:
    """The value of a text that is JSON as RFC 8259 has it. Raises ValueError for any other."""
    try:
        return json.loads(text, parse_constant=_refuse, object_pairs_hook=_unique)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error


def same_json(one: Any, other: Any) -> bool:
    """Whether two values are the same JSON: 1 and 1.0 are, 1 and true are not."""
    if isinstance(one, bool) or isinstance(other, bool):
        return one is other
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        return one.keys() == other.keys() and all(same_json(one[key], other[key]) for key in one)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(same_json(a, b) for a, b in zip(one, other, strict=True))
    return bool(one == other) and isinstance(one, str) == isinstance(other, str)


def _refuse(name: str) -> Any:
    raise ValueError(f"{name} is no number of JSON")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) < len(pairs):
        keys = [key for key, _ in pairs]
        raise ValueError(f"the key {next(key for key in keys if keys.count(key) > 1)!r} comes twice")
    return value


def _schema_of(item: RewardInput, schema: dict[str, Any] | None, column: str | None) -> str:
    if schema is not None:
        return json.dumps(schema)
    found = column_value(item.row, str(column))
    if isinstance(found, str):
        return found
    if isinstance(found, (Mapping, bool)):
        return json.dumps(found)
    raise ValueError(f"column {column!r} has no schema, but {type(found).__name__}")


def _truth(item: RewardInput) -> Any:
    try:
        return parse_json(item.ground_truth or "")
    except ValueError as error:
        raise ValueError(f"the ground truth is no JSON: {error}") from error


@lru_cache(maxsize=256)
def _validator(text: str) -> Any:
    try:
        schema = json.loads(text)
    except ValueError as error:
        raise ValueError(f"the schema is no JSON: {error}") from error
    if not isinstance(schema, (dict, bool)):
        raise ValueError(f"a schema is an object, true or false, got {type(schema).__name__}")
    kind: Any = jsonschema.validators.validator_for(schema, default=jsonschema.Draft202012Validator)
    try:
        kind.check_schema(schema)
    except jsonschema.SchemaError as error:
        raise ValueError(f"no schema: {error.json_path}: {error.message[:200]}") from error
    resource: Any = referencing.Resource.from_contents(schema, referencing.jsonschema.DRAFT202012)
    place = resource.id() or ""
    _check_references(resource, referencing.Registry().with_resource(place, resource).resolver(place))
    # An empty registry: a reference to another document is an error, and never a request to somebody's server.
    return kind(schema, registry=referencing.Registry())


def _check_references(resource: Any, resolver: Any) -> None:
    """Raises ValueError for a reference that leads out of the schema, or nowhere."""
    target = resource.contents.get("$ref") if isinstance(resource.contents, Mapping) else None
    if isinstance(target, str):
        try:
            resolver.lookup(target)
        except referencing.exceptions.Unresolvable as error:
            raise ValueError(f"the reference {target!r} leads to no place in the schema") from error
    for part in resource.subresources():
        _check_references(part, resolver.in_subresource(part))
