"""Calls that a model writes are read by vLLM's parsers, as its own template writes them."""

import json
import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pytest

from rollout.engines.vllm import tool_parser
from rollout.episodes.environment import Message, ToolCall, user
from rollout.episodes.games import ToolSums
from rollout.episodes.template_probes import TOOL_PROBES, Difference, probe_template
from rollout.episodes.tool_calls import Parsed, numbered
from rollout.episodes.tool_parsers import parse_calls
from rollout.episodes.tools import schemas_of
from rollout.errors import ModelError
from tests.rollout.episodes.families import FAMILIES, template_of

SCHEMAS = schemas_of(ToolSums)
NATIVE = FAMILIES["results of tools as a turn of the user"]
LLAMA = (
    "{% if tools %}<|head|>system<|/head|>\n\nTools: {{ tools | tojson }}<|eot|>{% endif %}"
    "{% for m in messages %}"
    "{% if m.role == 'tool' %}<|head|>ipython<|/head|>\n\n{{ m.content | tojson }}<|eot|>"
    "{% elif m.tool_calls %}<|head|>assistant<|/head|>\n\n"
    '{% for c in m.tool_calls %}{"name": "{{ c.function.name }}", "parameters": {{ c.function.arguments | tojson }}}'
    "{% endfor %}<|eot|>"
    "{% else %}<|head|>{{ m.role }}<|/head|>\n\n{{ m.content }}<|eot|>{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|head|>assistant<|/head|>\n\n{% endif %}"
)
CALL = '<tool_call>\n{"name": "calculate", "arguments": {"expression": "2 + 3"}}\n</tool_call>'
FIVE = ToolCall(name="calculate", arguments={"expression": "2 + 3"})


@pytest.mark.parametrize("source", [NATIVE, FAMILIES["a default system turn"], None, LLAMA])
def test_what_the_template_writes_is_read(source: str | None) -> None:
    template = template_of(source, tools=SCHEMAS)
    parse = parse_calls(template, SCHEMAS, tool_parser)
    assert template.describes_tools == (source not in (NATIVE, LLAMA))
    text = template.written([user("?")], Message(role="assistant", content="", tool_calls=(FIVE,)), [])
    assert parse(text).calls == (FIVE,)
    assert parse("It is 5.") == Parsed()


def test_several_calls_and_words_before_them() -> None:
    parse = parse_calls(template_of(NATIVE, tools=SCHEMAS), SCHEMAS, tool_parser)
    assert parse(f"I compute.\n{CALL}\n{CALL}").calls == (FIVE, FIVE)
    assert [call.call_id for call in numbered((FIVE, FIVE), 2)] == ["c00020000", "c00020001"]


@pytest.mark.parametrize("text", ["<tool_call>\n{", "<tool_call>five</tool_call>", '<tool_call>{"name": "calculate"}'])
def test_a_call_that_cannot_be_read_is_told(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    parse = parse_calls(template_of(NATIVE, tools=SCHEMAS), SCHEMAS, tool_parser)
    shown: list[str] = []
    logger = logging.getLogger("vllm.tool_parsers.hermes_tool_parser")
    monkeypatch.setattr(logger, "handle", lambda record: shown.append(record.getMessage()))
    logger.setLevel(logging.INFO)  # as vLLM does when an engine starts
    read = parse(text)
    assert not read.calls
    assert "could not be read" in read.problem
    assert not shown, "models write such calls until they have learned it"


def test_arguments_are_an_object() -> None:
    parse = parse_calls(template_of(NATIVE, tools=SCHEMAS), SCHEMAS, tool_parser)
    read = parse('<tool_call>{"name": "calculate", "arguments": [1]}</tool_call>')
    assert (read.calls, read.problem) == ((), "The arguments of calculate are not a JSON object.")


def test_a_parser_that_vllm_does_not_have_is_refused() -> None:
    with pytest.raises(
        ModelError, match=r"task.tool_parser is 'hermit', and vLLM has none of that name; it has .*hermes"
    ):
        parse_calls(template_of(NATIVE, tools=SCHEMAS), SCHEMAS, tool_parser, named="hermit")


def test_a_parser_of_another_model_is_refused() -> None:
    with pytest.raises(ModelError, match=r"'pythonic' does not read the calls of this model: .*<tool_call>.*no call"):
        parse_calls(template_of(NATIVE, tools=SCHEMAS), SCHEMAS, tool_parser, named="pythonic")


def test_a_template_whose_calls_nobody_knows_is_refused() -> None:
    assert NATIVE is not None
    strange = NATIVE.replace("<tool_call>\n{", "(call)\n{").replace('"name": ', '"who": ')
    with pytest.raises(ModelError, match=r"it is not known how replies of this model call tools: .*\(call\)"):
        parse_calls(template_of(strange, tools=SCHEMAS), SCHEMAS, tool_parser)


def test_a_parser_that_reads_other_arguments_is_refused() -> None:
    def make(_: str, __: Any, ___: Sequence[Mapping[str, Any]]) -> Callable[[str], Parsed]:
        return lambda _: Parsed(calls=(ToolCall(name="calculate", arguments={"expression": "some"}),))

    with pytest.raises(ModelError, match="does not read the calls"):
        parse_calls(template_of(NATIVE, tools=SCHEMAS), SCHEMAS, make)


def test_a_model_without_a_form_for_tools_is_told_of_them_in_words() -> None:
    source = FAMILIES["a default system turn"]
    template = template_of(source, tools=SCHEMAS)
    text = template.text(template.opening([user("What is 2 + 3?")]))
    assert json.dumps(SCHEMAS[0]["function"], ensure_ascii=False) in text
    assert text.endswith("What is 2 + 3?<|im_end|>\n<|im_start|>assistant\n")
    assert "You are of help." not in text, "the system's message is that of the tools"
    result = Message(role="tool", content="5", name="calculate", call_id="c00010000")
    heard = template.text(template.heard([result], calls=(FIVE,)))
    assert heard == "\n<|im_start|>user\n<tool_response>\n5\n</tool_response><|im_end|>\n<|im_start|>assistant\n"


def test_a_template_without_a_place_for_the_system_has_the_tools_in_the_question() -> None:
    refusing = "{% if messages[0].role == 'system' %}{{ raise_exception('no system') }}{% endif %}" + (
        "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    )
    template = template_of(refusing, tools=SCHEMAS)
    text = template.text(template.opening([user("What is 2 + 3?")]))
    assert text.startswith("<|im_start|>user\nYou have tools.")
    assert text.endswith("\n\nWhat is 2 + 3?<|im_end|>\n<|im_start|>assistant\n")


@pytest.mark.parametrize("name", [name for name in FAMILIES if name != "results of tools as a turn of the user"])
def test_told_in_words_a_conversation_with_tools_grows_exactly(name: str) -> None:
    found = probe_template(template_of(FAMILIES[name], tools=SCHEMAS), TOOL_PROBES)
    assert {one.difference for one in found} <= {Difference.NONE, Difference.TOKENS, Difference.NO_END}


def test_a_world_that_says_the_mark_of_a_reply_is_read_whole() -> None:
    template = template_of(FAMILIES["a default system turn"])
    heard = template.text(template.heard([user("Shoalmark <|im_end|> shoalcalled")]))
    assert heard == "\n<|im_start|>user\nShoalmark <|im_end|> shoalcalled<|im_end|>\n<|im_start|>assistant\n"
