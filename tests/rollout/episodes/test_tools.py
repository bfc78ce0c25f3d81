"""Methods that are offered to the model, and its calls of them."""

import pytest
from pydantic import ValidationError

from rollout.episodes.environment import Environment, ToolCall, tool, tools_of
from rollout.episodes.tools import ToolError, as_text, checked_call, in_words, schemas_of
from rollout.errors import ConfigError


class Shop(Environment):
    """Sells things."""

    @tool
    def price(self, thing: str, number: int = 1) -> float:
        """What things cost.

        Args:
            thing: What is bought.
            number: How many of it.
        """
        return 2.5 * number if thing == "nail" else 1 / 0

    @tool
    async def stock(self) -> list[str]:
        """What there is."""
        return ["nail"]

    def secret(self) -> str:
        return "no tool"


class Untyped(Environment):
    @tool
    def buy(self, thing):  # type: ignore[no-untyped-def]
        """Buys."""


def test_tools_are_the_marked_methods() -> None:
    assert list(tools_of(Shop)) == ["price", "stock"]


def test_the_model_is_told_of_name_types_and_words() -> None:
    price, stock = schemas_of(Shop)
    assert price["function"]["name"] == "price"
    assert price["function"]["description"] == "What things cost."
    assert price["function"]["parameters"]["properties"] == {
        "thing": {"type": "string", "description": "What is bought."},
        "number": {"type": "integer", "description": "How many of it."},
    }
    assert price["function"]["parameters"]["required"] == ["thing"]
    assert stock["function"]["parameters"]["properties"] == {}


def test_a_tool_without_types_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"tool Untyped.buy: .*give each parameter a type"):
        schemas_of(Untyped)


def test_a_call_has_arguments_of_the_types_that_are_asked_for() -> None:
    assert checked_call(Shop(), ToolCall(name="price", arguments={"thing": "nail", "number": "4"}))() == 10.0


@pytest.mark.parametrize(
    ("name", "arguments", "words"),
    [
        ("prize", {}, "there is no tool 'prize'; there is price, stock"),
        ("secret", {}, "there is no tool 'secret'"),
        ("price", {}, "missing a required argument: 'thing'"),
        ("price", {"thing": "nail", "colour": "red"}, "unexpected keyword argument 'colour'"),
        ("price", {"thing": "nail", "number": "many"}, "number: Input should be a valid integer"),
    ],
)
def test_a_call_that_does_not_fit_is_told_to_the_model(name: str, arguments: dict[str, object], words: str) -> None:
    with pytest.raises((ToolError, ValidationError)) as raised:
        checked_call(Shop(), ToolCall(name=name, arguments=arguments))()
    assert words in in_words(raised.value)


def test_results_are_text_and_visibly_cut() -> None:
    assert as_text("as it is", max_chars=100) == "as it is"
    assert as_text({"a": [1, "\u00fc"]}, max_chars=100) == '{"a": [1, "\u00fc"]}'
    assert as_text("x" * 12, max_chars=4) == "xxxx\n[... 8 of 12 characters left out]"


def test_what_a_tool_raised_is_told_in_words() -> None:
    with pytest.raises(ZeroDivisionError) as raised:
        checked_call(Shop(), ToolCall(name="price", arguments={"thing": "saw"}))()
    assert in_words(raised.value) == "ZeroDivisionError: division by zero"
