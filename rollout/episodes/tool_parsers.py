"""Which parser reads a model's calls, and whether it does: a call that its template writes must be read as that call.

Parsers are vLLM's, and come from a `MakeParser`: this module knows their names alone.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from rollout.episodes.chat_template import ChatTemplate
from rollout.episodes.environment import Message, ToolCall, user
from rollout.episodes.tool_calls import Parse, Parsed
from rollout.episodes.tool_prompt import PARSER
from rollout.errors import ModelError

MakeParser = Callable[[str, Any, Sequence[Mapping[str, Any]]], Parse]
"""Name of a parser, tokenizer, schemas of the tools -> what reads a reply. Errors: `ModelError` for an unknown name."""

MARKS = (
    ("<|tool_calls_section_begin|>", "kimi_k2"),
    ("<minimax:tool_call>", "minimax_m2"),
    ("<seed:tool_call>", "seed_oss"),
    ("<start_function_call>", "functiongemma"),
    ("<\uff5ctool\u2581calls\u2581begin\uff5c>", "deepseek_v3"),
    ("[TOOL_CALLS]", "mistral"),
    ("<|tool_call_start|>", "lfm2"),
    ("<|action_start|>", "internlm"),
    ("<function_calls>", "olmo3"),
    ("<function=", "qwen3_coder"),
    ("<arg_key>", "glm45"),
    ("functools[", "phi4_mini_json"),
    ("<|tool_call|>", "granite"),
    ("<tool_call>", PARSER),
    ('{"name": "', "llama3_json"),
)
"""What stands where a reply calls a tool -> vLLM's parser for it. Of several the first one holds."""
EXAMPLES: Mapping[str, Any] = {"integer": 3, "number": 2.5, "boolean": True, "array": [], "object": {}}
"""JSON type -> an argument of it; all else is text."""


def parse_calls(
    template: ChatTemplate, schemas: Sequence[Mapping[str, Any]], make: MakeParser, *, named: str | None = None
) -> Parse:
    """What reads the calls in a model's replies. `named` is the parser that the user asks for.

    Errors: `ModelError` where none is known for the template, or its own calls are not read.
    """
    call = _example(schemas)
    reply = Message(role="assistant", content="", tool_calls=(call,))
    result = Message(role="tool", content="!", name=call.name, call_id=call.call_id)
    written = template.written([user("?")], reply, [result])
    mark, known = next(((mark, parser) for mark, parser in MARKS if mark in written), ("", None))
    name = named or known
    if name is None:
        raise ModelError(
            f"it is not known how replies of this model call tools: its chat template writes a call as {written!r}; "
            "set task.tool_parser to the name of a parser of vLLM's"
        )
    parse = make(name, template.tokenizer, schemas)
    read = parse(written)
    found = [(one.name, dict(one.arguments)) for one in read.calls]
    if found != [(call.name, dict(call.arguments))]:
        raise ModelError(
            f"parser {name!r} does not read the calls of this model: its chat template writes one as {written!r}, and "
            f"what is read is {found or read.problem or 'no call'}; set task.tool_parser to another"
        )
    return lambda text: _with_problem(parse(text), text, mark)


def _with_problem(read: Parsed, text: str, mark: str) -> Parsed:
    """A parser takes a call that it cannot read for words, and the model would wait for a result."""
    if read.calls or read.problem or not mark or mark not in text:
        return read
    return Parsed(problem="The call of a tool could not be read; write it in the form that was told.")


def _example(schemas: Sequence[Mapping[str, Any]]) -> ToolCall:
    """A call of the first tool, which parsers may look up."""
    function = schemas[0]["function"]
    parameters: Mapping[str, Any] = function.get("parameters", {}).get("properties", {})
    arguments = {name: EXAMPLES.get(str(of.get("type")), "some words") for name, of in parameters.items()}
    return ToolCall(name=str(function["name"]), arguments=arguments, call_id="call00001")
