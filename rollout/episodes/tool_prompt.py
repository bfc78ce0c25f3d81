"""Tools for models whose chat template has no place for them: told in words, called and answered as text.

Templates that know tools write them, calls and results in the form that the model was trained on. One that does not
passes over them without a word, and the model would never hear of its tools. There the form is that of Hermes models,
which many families share: calls are JSON within `<tool_call>`, results stand within `<tool_response>`.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from rollout.episodes.environment import Message, Messages, ToolCall, system, user

PARSER = "hermes"
"""vLLM's name for what reads this form."""
_TOLD = (
    "You have tools. Each line is one:\n{tools}\n"
    "To use one, write its name and arguments in this form, and wait for the result:\n"
    '<tool_call>\n{{"name": "...", "arguments": {{...}}}}\n</tool_call>'
)


def knows_tools(tokenizer: Any, schemas: Sequence[Mapping[str, Any]]) -> bool:
    """Whether the chat template tells the model of its tools."""
    if not tokenizer.chat_template:
        return False
    asked = [user("?").as_template_input()]
    with_tools, without = (
        tokenizer.apply_chat_template(asked, tools=tools, add_generation_prompt=True, tokenize=False)
        for tools in ([dict(schema) for schema in schemas], None)
    )
    return bool(with_tools != without)


def takes_system(tokenizer: Any) -> bool:
    """Whether the chat template shows a message of the system; without a template everything is shown."""
    if not tokenizer.chat_template:
        return True
    asked = [system("shoalsystem").as_template_input(), user("?").as_template_input()]
    try:
        return "shoalsystem" in tokenizer.apply_chat_template(asked, tokenize=False)
    except Exception:  # noqa: BLE001  # some refuse it, by raising whatever they like, and this is only a question
        return False


def described(messages: Messages, schemas: Sequence[Mapping[str, Any]], *, has_system: bool) -> list[Message]:
    """The conversation as it is said to a model without a form for tools of its own: what there is stands in the
    system's message, or before the user's first where there is none; calls stand in the reply, results in a turn of the
    user, one below the other."""
    told = _TOLD.format(tools="\n".join(json.dumps(schema["function"], ensure_ascii=False) for schema in schemas))
    said = _with_results([with_calls(message) for message in messages])
    if said and said[0].role == "system":
        return [replace(said[0], content=f"{said[0].content}\n\n{told}"), *said[1:]]
    if has_system:
        return [system(told), *said]
    if said and said[0].role == "user":
        return [replace(said[0], content=f"{told}\n\n{said[0].content}"), *said[1:]]
    return [user(told), *said]


def with_calls(message: Message) -> Message:
    """A reply with its calls in its text."""
    if not message.tool_calls:
        return message
    parts = [message.content] if message.content else []
    parts += [_call(call) for call in message.tool_calls]
    return replace(message, content="\n".join(parts), tool_calls=())


def _call(call: ToolCall) -> str:
    body = json.dumps({"name": call.name, "arguments": dict(call.arguments)}, ensure_ascii=False)
    return f"<tool_call>\n{body}\n</tool_call>"


def _with_results(messages: Messages) -> list[Message]:
    said: list[Message] = []
    of_tool = False
    for message in messages:
        if message.role != "tool":
            said.append(message)
        elif of_tool:
            said[-1] = replace(said[-1], content=f"{said[-1].content}\n{_result(message)}")
        else:
            said.append(user(_result(message)))
        of_tool = message.role == "tool"
    return said


def _result(message: Message) -> str:
    return f"<tool_response>\n{message.content}\n</tool_response>"
