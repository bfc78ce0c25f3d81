"""Answers that are JSON of a given form."""

import json
from typing import Any

import pytest

from reward.config import RewardConfig, RewardFunctionConfig
from reward.function_loading import load_function
from reward.row_checks import bad_rows
from reward.rules.json_schema import json_schema, json_text, parse_json, same_json
from rollout.errors import ConfigError
from tests.reward.samples import item, prompt

PERSON = {
    "type": "object",
    "properties": {"name": {"type": "string"}, "age": {"type": "integer", "minimum": 0}, "friend": {"$ref": "#"}},
    "required": ["name"],
    "additionalProperties": False,
}


@pytest.mark.parametrize(
    ("completion", "reward", "detail"),
    [
        ('{"name": "Ann", "age": 3}', 1.0, "fits"),
        ('Here:\n```json\n{"name": "Ann"}\n```\nDone.', 1.0, "fits"),
        ('```\n[]\n```\nno:\n```json\n{"name": "Ann"}\n```', 1.0, "fits"),
        ('<answer>{"name": "Ann"}</answer>', 1.0, "fits"),
        ('<answer>\n```json\n{"name": "Ann"}\n```\n</answer>', 1.0, "fits"),
        ('<think>{"a": 1}</think>{"name": "Ann"}', 1.0, "fits"),
        ('{"name": "Ann", "friend": {"name": "Bo"}}', 1.0, "fits"),
        ('{"name": "Ann", "friend": {"name": 1}}', 0.0, "$.friend.name: 1 is not of type 'string'"),
        ('{"age": 3}', 0.0, "$: 'name' is a required property"),
        ('{"name": "Ann", "age": 3.5}', 0.0, "$.age: 3.5 is not of type 'integer'"),
        ('{"name": "Ann", "age": true}', 0.0, "$.age: True is not of type 'integer'"),
        ('{"name": "Ann", "x": 1}', 0.0, "$: Additional properties are not allowed ('x' was unexpected)"),
        ('{"name": "Ann"} I hope this helps', 0.0, "no JSON: Extra data: line 1 column 17 (char 16)"),
        (
            "{'name': 'Ann'}",
            0.0,
            "no JSON: Expecting property name enclosed in double quotes: line 1 column 2 (char 1)",
        ),
        ('{"name": "Ann", "name": "Bo"}', 0.0, "no JSON: the key 'name' comes twice"),
        ('{"name": "Ann", "age": NaN}', 0.0, "no JSON: NaN is no number of JSON"),
        ("", 0.0, "no JSON: Expecting value: line 1 column 1 (char 0)"),
    ],
)
def test_a_schema_for_all_rows(completion: str, reward: float, detail: str) -> None:
    got = json_schema(item(completion), schema=PERSON)
    assert (got, got.detail) == (reward, detail)


def test_a_schema_of_the_row_as_text_or_as_it_is() -> None:
    for schema in ({"type": "integer"}, '{"type": "integer"}'):
        row = {"extra": {"schema": schema}}
        assert json_schema(item("3", row=row), schema_column="extra.schema") == 1.0
        assert json_schema(item('"3"', row=row), schema_column="extra.schema") == 0.0


def test_the_value_is_compared_with_the_truth() -> None:
    truth = '{"b": [1, 2.0], "a": "x"}'
    answers = {'{"a": "x", "b": [1.0, 2]}': 1.0, '{"a": "x", "b": [2, 1]}': 0.0, '{"a": "x"}': 0.0}
    for answer, reward in answers.items():
        assert json_schema(item(answer, truth), schema={"type": "object"}, compare=True) == reward
    assert not same_json(True, 1)
    assert not same_json("1", 1)
    assert not same_json(None, False)
    assert same_json([None, {"a": True}], [None, {"a": True}])


def test_formats_are_checked_where_that_is_asked_for() -> None:
    schema = {"type": "string", "format": "date"}
    assert json_schema(item('"2024-13-45"'), schema=schema) == 1.0
    assert json_schema(item('"2024-13-45"'), schema=schema, formats=True) == 0.0
    assert json_schema(item('"2024-12-31"'), schema=schema, formats=True) == 1.0


def test_the_draft_is_the_one_that_the_schema_names() -> None:
    # In draft 4 exclusiveMinimum is a truth value beside minimum, from draft 6 on a number.
    old = {"$schema": "http://json-schema.org/draft-04/schema#", "minimum": 3, "exclusiveMinimum": True}
    assert [json_schema(item(text), schema=old) for text in ("3", "4")] == [0.0, 1.0]
    assert [json_schema(item(text), schema={"exclusiveMinimum": 3}) for text in ("3", "4")] == [0.0, 1.0]


def test_what_is_nested_deeply_is_0_and_quick() -> None:
    deep = "[" * 100_000 + "]" * 100_000
    assert json_schema(item(deep), schema={"items": {"$ref": "#"}}) == 0.0
    nested = "[" * 900 + "]" * 900
    assert json_schema(item(nested), schema={"items": {"$ref": "#"}}) in (0.0, 1.0)
    with pytest.raises(ValueError, match="nested too deeply"):
        parse_json(deep)
    assert json_text("x" * 5 + "```json" * 10_000) == "x" * 5 + "```json" * 10_000


@pytest.mark.parametrize("number", ["1e999", "-1e999", "1" * 401])
def test_a_number_that_is_too_large_to_be_divided_is_0(number: str) -> None:
    schema = {"properties": {"price": {"type": "number", "multipleOf": 0.01}}}
    got = json_schema(item(f'{{"price": {number}}}'), schema=schema)
    assert (got, got.detail) == (0.0, "a number that is too large for the schema")
    assert json_schema(item('{"price": 12.5}'), schema=schema) == 1.0


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({}, "give either schema, for all rows, or schema_column"),
        ({"schema": {}, "schema_column": "a"}, "give either schema, for all rows, or schema_column"),
        ({"schema": {"type": "int"}}, "no schema: $.type: 'int' is not valid under any of the given schemas"),
        ({"schema": {"$ref": "#/$defs/a"}}, "the reference '#/$defs/a' leads to no place in the schema"),
        ({"schema": {"items": {"$ref": "http://127.0.0.1:1/a"}}}, "the reference 'http://127.0.0.1:1/a' leads to no"),
        ({"schema": "a"}, "params.schema: got 'a', allowed: a mapping"),
    ],
)
def test_wrong_schemas_are_refused(params: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as raised:
        load_function(RewardFunctionConfig(function="json_schema", params=params))
    assert message in str(raised.value)


def test_rows_that_cannot_be_scored() -> None:
    params = {"schema_column": "schema", "compare": True}
    config = RewardConfig.model_validate({"functions": [{"function": "json_schema", "params": params}]})
    rows = [
        prompt("1", {"schema": json.dumps({"type": "integer"})}), prompt("1", {}), prompt("1", {"schema": "{"}),
        prompt("{", {"schema": {}}), prompt("1", {"schema": '"a"'}),
    ]  # fmt: skip
    found = bad_rows(config, rows)
    assert sorted(found) == [1, 2, 3, 4]
    assert found[1] == "json_schema: column 'schema' has no schema, but NoneType"
    assert found[2].startswith("json_schema: the schema is no JSON: ")
    assert found[3].startswith("json_schema: the ground truth is no JSON: ")
    assert found[4] == "json_schema: a schema is an object, true or false, got str"
