"""The YAML of recipes: where it differs from YAML 1.1, and what it refuses."""

import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cluster.configuration.recipe_yaml import dump_yaml, parse_scalar, parse_yaml
from rollout.errors import ConfigError

PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(st.characters(codec="utf-8")),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("abc:#1e-5", max_size=4), inner, max_size=3),
    max_leaves=8,
)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-5", 1e-5),
        ("1E5", 1e5),
        ("-2.5e+3", -2500.0),
        (".5", 0.5),
        ("010", 10),
        ("-7", -7),
        ("5e-05", 5e-5),
        ("1e-06", 1e-6),
        ("1.", 1.0),
        ("+12", 12),
        ("1:30", "1:30"),
        ("12:30", "12:30"),
        ("12:30:45.5", "12:30:45.5"),
        ("yes", "yes"),
        ("y", "y"),
        ("off", "off"),
        ("0o17", "0o17"),
        ("0b1", "0b1"),
        ("=", "="),
        ("on", "on"),
        ("no", "no"),
        ("true", True),
        ("FALSE", False),
        ("null", None),
        ("~", None),
        ("2024-01-01", "2024-01-01"),
        ("1_000", "1_000"),
        ("0x10", "0x10"),
        (".inf", math.inf),
        ("-.inf", -math.inf),
        ("1.2.3", "1.2.3"),
    ],
)
def test_scalars_read_the_same_in_a_file_and_on_the_command_line(text: str, value: object) -> None:
    in_file = parse_yaml(f"key: {text}", "recipe.yaml")["key"]
    on_command_line = parse_scalar(text, "the override")
    assert (in_file, type(in_file)) == (value, type(value))
    assert (on_command_line, type(on_command_line)) == (value, type(value))


@pytest.mark.parametrize("text", ["Q: {question}", "a #b", "- x", "*x", "&x", "What is {question}?", "100%", "a, b"])
def test_command_line_text_needs_no_quoting_against_yaml(text: str) -> None:
    assert parse_scalar(text, "the override") == text


def test_command_line_collections_and_quotes_are_yaml() -> None:
    assert parse_scalar('["\\n", "##"]', "x") == ["\n", "##"]
    assert parse_scalar("{a: 1e-3, b: [true]}", "x") == {"a": 0.001, "b": [True]}
    assert parse_scalar('"3"', "x") == "3"
    assert parse_scalar("", "x") is None


def test_equal_keys_are_refused_with_both_lines() -> None:
    with pytest.raises(
        ConfigError, match=r"recipe.yaml, line 4, column 1: .*'steps' stands here again, first in line 1"
    ):
        parse_yaml("steps: 1\nlearner:\n  lr: 1\nsteps: 2\n", "recipe.yaml")
    with pytest.raises(ConfigError, match="line 3, column 3"):
        parse_yaml("learner:\n  lr: 1\n  lr: 2\n", "recipe.yaml")


def test_an_error_does_not_repeat_the_values_of_equal_keys() -> None:
    with pytest.raises(ConfigError) as caught:
        parse_yaml("api_key: swordfish\napi_key: swordfish2\n", "recipe.yaml")
    assert "swordfish" not in str(caught.value)


def test_a_file_cannot_ask_for_yaml_1_1() -> None:
    assert parse_yaml("%YAML 1.1\n---\na: yes\nb: 010\nc: 12:30\n", "recipe.yaml") == {
        "a": "yes",
        "b": 10,
        "c": "12:30",
    }


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("a: [1, 2\nb: 3\n", "line 2, column 2"),
        ("a: 1\n b: 2\n", "line 2, column 3"),
        ("a: !!python/object/apply:os.system [ls]\n", "line 1, column 4"),
        ("a: \x07\n", "recipe.yaml: this is no valid YAML"),
        ("a: 1\n---\nb: 2\n", "line 2, column 1: .*another document"),
        ("a: !!timestamp 2024-01-01\n", "line 1, column 4"),
        ("a: !!int x\n", "line 1, column 4: .*'x' is no int"),
        ("a: 1\nb: " + "9" * 5000, "line 2, column 4: .*a number of 5000 digits is too long"),
        ("a: &a [*a]\n", "line 1, column 4: .*this value contains itself"),
        ("&a [1, {b: *a}]\n", "line 1, column 1: .*this value contains itself"),
        ("a: " + "[" * 3000, "line 1: lists and mappings stand more than 64 deep"),
        ("? [a]\n: 1\n", "line 1, column 3: .*a list or mapping cannot be a key"),
    ],
)
def test_a_syntax_error_names_file_and_line(text: str, place: str) -> None:
    with pytest.raises(ConfigError, match=place) as caught:
        parse_yaml(text, "recipe.yaml")
    assert "\n" not in str(caught.value)


@settings(deadline=None)
@given(value=st.dictionaries(st.text("abcdef", min_size=1), PLAIN, max_size=4))
def test_dump_is_read_back_equal(value: dict[str, Any]) -> None:
    assert parse_yaml(dump_yaml(value), "dump") == value


@settings(deadline=None)
@given(
    text=st.text(st.sampled_from(" \n#:-ab'\"\t\x00\x85\ufeff\u2028\u2060\U000e0041,[]{}"), min_size=100, max_size=400)
)
def test_long_text_with_escapes_is_read_back_equal(text: str) -> None:
    assert parse_yaml(dump_yaml({"a": text}), "dump") == {"a": text}


def test_dump_keeps_the_type_of_floats() -> None:
    assert dump_yaml({"lr": 1e-6, "x": 1.0, "name": "1e-6"}) == "lr: 1e-06\nx: 1.0\nname: '1e-6'\n"
