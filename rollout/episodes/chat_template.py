"""What a chat template makes of an opening, and of messages that come behind a reply, in tokens.

Templates render whole conversations. What new messages add is found by difference, generically: a conversation of one
reply is rendered with the new messages behind it, and what stands behind the reply's end is what they add. That this is
what the template would have made of the whole is no law: `rollout.episodes.template_probes` tries it at the start.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any

from rollout.episodes.environment import Message, Messages, ToolCall, assistant, user
from rollout.episodes.tool_prompt import described, knows_tools, takes_system, with_calls
from rollout.errors import ModelError

_MARK = "Shoalmark"
"""Stands for a reply: letters alone, which no template and no tokenizer takes apart or writes by itself."""
_CALLED = "shoalcalled"
"""Stands for what a reply calls with."""


class ChatTemplate:
    """The chat template of a tokenizer, with the tools that are offered to the model."""

    def __init__(self, tokenizer: Any, *, end_ids: Collection[int], tools: Sequence[Mapping[str, Any]] = ()) -> None:
        """`end_ids` are the tokens that end a reply, `tools` their JSON schemas."""
        self.tokenizer = tokenizer
        self._tools = [dict(schema) for schema in tools] or None
        self.describes_tools = bool(tools) and not knows_tools(tokenizer, tools)
        """Whether the template has no place for the tools, so that they are told in words."""
        self._has_system = self.describes_tools and takes_system(tokenizer)
        self._ends = {token: tokenizer.convert_ids_to_tokens(token) for token in sorted(end_ids)}

    def render(self, messages: Messages, *, asks: bool) -> str:
        """The conversation as text; `asks` ends it with the beginning of a reply. Errors: whatever a template
        raises."""
        tools = self._tools
        if tools is not None and self.describes_tools:
            messages, tools = described(messages, tools, has_system=self._has_system), None
        if not self.tokenizer.chat_template:
            return _plain(messages)
        turns = [message.as_template_input() for message in messages]
        rendered: str = self.tokenizer.apply_chat_template(
            turns, tools=tools, add_generation_prompt=asks, tokenize=False
        )
        return rendered

    def tokens(self, text: str) -> list[int]:
        """Of a text in which special tokens are written out."""
        token_ids: list[int] = self.tokenizer(text, add_special_tokens=False)["input_ids"]
        return token_ids

    def text(self, token_ids: Sequence[int]) -> str:
        """The other way round."""
        decoded: str = self.tokenizer.decode(list(token_ids), skip_special_tokens=False)
        return decoded

    def opening(self, messages: Messages) -> list[int]:
        """What stands before the first reply."""
        text = self.render(messages, asks=True)
        if self.tokenizer.chat_template:
            return self.tokens(text)
        whole: list[int] = self.tokenizer(text)["input_ids"]  # a base model expects its beginning-of-text token
        ends_with = whole[-1:] if whole and whole[-1] in self._ends else []
        return whole[: len(whole) - len(ends_with)]

    def heard(self, messages: Messages, *, calls: Sequence[ToolCall] = (), ended: bool = True) -> list[int]:
        """What new messages add behind a reply that had `calls`. `ended` is whether its last token ended it: what was
        cut off gets the end that the template writes.

        Errors: `ModelError` where the template does not show the reply; whatever a template raises.
        """
        marked, called = (_unlike(mark, messages) for mark in (_MARK, _CALLED))
        # A call that is told in words is part of the reply's text, and ends where that does.
        named = () if self.describes_tools else (replace(call, arguments={called: called}) for call in calls)
        reply = replace(assistant(marked), tool_calls=tuple(named))
        rendered = self.render([user("?"), reply, *messages], asks=True)
        marks = [(place, mark) for mark in (marked, called) if (place := rendered.rfind(mark)) >= 0]
        if not marks:
            raise ModelError(
                "the model's chat template leaves a reply out, so that it cannot be used for several turns"
            )
        place, mark = max(marks)
        behind, end = place + len(mark), None
        ends = [(at, token) for token, text in self._ends.items() if (at := rendered.find(text, behind)) >= 0]
        if ends:
            at, end = min(ends)
            behind = at + len(self._ends[end])
        ids = self.tokens(rendered[behind:])
        return ids if ended or end is None else [end, *ids]

    def is_end(self, token: int) -> bool:
        """Whether a reply ends with it."""
        return token in self._ends

    @property
    def end(self) -> list[int]:
        """The token with which the template ends a reply; where it writes none, one with which a model may."""
        rendered = self.render([user("?"), assistant(_MARK), user("?")], asks=True)
        behind = rendered.rfind(_MARK) + len(_MARK)
        ends = [(at, token) for token, text in self._ends.items() if (at := rendered.find(text, behind)) >= 0]
        return [min(ends)[1]] if ends else list(self._ends)[:1]

    def written(self, said: Messages, reply: Message, heard: Messages) -> str:
        """The text of a reply with calls as a model samples it, without its end. `heard` are the results of the calls,
        without which some templates do not write them. Errors: `ModelError` for a template that does not write them
        behind what it asks for a reply with; whatever a template raises."""
        if self.describes_tools:
            return with_calls(reply).content
        before = self.render(said, asks=True)
        whole = self.render([*said, reply, *heard], asks=False)
        if not whole.startswith(before) or any(call.name not in whole[len(before) :] for call in reply.tool_calls):
            raise ModelError(
                "the model's chat template cannot be used with tools: it does not write a reply with a call behind "
                f"what it asks for a reply with, and gives {whole!r}"
            )
        behind = whole[len(before) :]
        ends = [at for text in self._ends.values() if (at := behind.find(text)) >= 0]
        return behind[: min(ends, default=len(behind))]


def _unlike(mark: str, messages: Messages) -> str:
    """A mark that the messages do not hold: what a world says may be anything."""
    while any(mark in message.content for message in messages):
        mark += "x"
    return mark


def _plain(messages: Messages) -> str:
    """Without a chat template: a reply follows what it answers, all else is set off by an empty line. The blank that a
    base model puts before an answer is sampled with it."""
    text = ""
    for message in messages:
        if text and message.role != "assistant":
            text += "\n\n"
        text += message.content
    return text
