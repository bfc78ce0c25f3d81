"""Whether a chat template can be grown: conversations, each grown turn by turn and rendered as a whole, must agree.

Where they do not, the reason is found by trying what templates are known to do to earlier replies. Some of it is
harmless, since what was sampled stays what it is: the model reads its own blanks and thoughts where the template would
have taken them out. Everything else would have the model read what no conversation of its template looks like.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

from rollout.episodes.chat_template import ChatTemplate
from rollout.episodes.environment import Message, Messages, ToolCall, assistant, user
from rollout.errors import ModelError

THINKING_ENDS = "</think>"


class Difference(StrEnum):
    """How a conversation that is grown differs from the same one rendered as a whole."""

    NONE = "none"
    TOKENS = "other tokens of the same text"
    """Where a reply meets what stands before it, a tokenizer may join characters that were sampled apart."""
    BLANKS = "the template takes blanks off the ends of a reply"
    THINKING = "the template takes the thinking out of earlier replies"
    BLANKS_AND_THINKING = "the template takes blanks and thinking out of earlier replies"
    NO_END = "the template writes no end behind a reply, and the model samples one"


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """A reply, and what the world says to it."""

    reply: str
    heard: tuple[Message, ...] = ()
    """Empty behind the last reply."""
    calls: tuple[ToolCall, ...] = ()
    is_cut: bool = False
    """Whether the reply ran out of tokens."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Probe:
    """A conversation."""

    name: str
    opening: tuple[Message, ...]
    turns: tuple[Turn, ...]


def _of(name: str, *replies: str) -> Probe:
    turns = [Turn(reply=reply, heard=(user("And what else?"),)) for reply in replies]
    return Probe(name=name, opening=(user("What is it?"),), turns=(*turns, Turn(reply="That is all.")))


_CALL = ToolCall(name="look_up", arguments={"word": "tide"}, call_id="call00001")
_OTHER_CALL = ToolCall(name="look_up", arguments={"word": "ebb", "times": 2}, call_id="call00002")


def _result(call: ToolCall, content: str) -> Message:
    return Message(role="tool", content=content, name=call.name, call_id=call.call_id)


PROBES = (
    _of("a word", "Water."),
    _of("three replies", "Water.", "Salt.", "Sand."),
    _of("several lines", "It is:\n\n- water\n- salt\n"),
    _of("an empty reply", ""),
    _of("blanks before and behind", "  water ", "\n\nsalt\n"),
    _of("other scripts", "Ŭonta \u4f60\u597d \U0001f30a e\u0301"),
    _of("braces and tags", '{"a": [1, 2]} <b>{{ x }}</b> {% if %}'),
    _of("thinking", "<think>\nWhat may it be?\n</think>\n\nWater."),
    Probe(
        name="a reply that was cut off",
        opening=(user("What is it?"),),
        turns=(Turn(reply="It is wat", heard=(user("Go on."),), is_cut=True), Turn(reply="er.")),
    ),
    Probe(
        name="a system's message",
        opening=(Message(role="system", content="Be brief."), user("What is it?")),
        turns=(Turn(reply="Water.", heard=(user("And?"),)), Turn(reply="Salt.")),
    ),
)
"""What every conversation may hold."""
TOOL_PROBES = (
    Probe(
        name="a call",
        opening=(user("What is a tide?"),),
        turns=(
            Turn(reply="", calls=(_CALL,), heard=(_result(_CALL, "It rises\nand falls."),)),
            Turn(reply="Water that moves."),
        ),
    ),
    Probe(
        name="two calls in one reply",
        opening=(user("What is a tide?"),),
        turns=(
            Turn(
                reply="",
                calls=(_CALL, _OTHER_CALL),
                heard=(_result(_CALL, "It rises."), _result(_OTHER_CALL, "")),
            ),
            Turn(reply="Water.", heard=(user("Thank you."),)),
            Turn(reply="Not at all."),
        ),
    ),
)
"""What conversations with tools may hold besides."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Probed:
    """What a probe found."""

    probe: str
    difference: Difference


def probe_template(template: ChatTemplate, probes: Sequence[Probe] = PROBES) -> list[Probed]:
    """All probes, in their order. Errors: `ModelError` for one whose difference has no known and harmless reason."""
    return [Probed(probe=probe.name, difference=difference_of(template, probe)) for probe in probes]


def difference_of(template: ChatTemplate, probe: Probe) -> Difference:
    """How the two readings of a conversation differ. Errors: as `probe_template`."""
    try:
        grown, whole = _grown(template, probe), _whole(template, probe)
    except Exception as error:  # a template is a program that came with the model: it may raise anything
        if isinstance(error, ModelError):
            raise
        detail = " ".join(str(error).split())[:200] or type(error).__name__
        raise ModelError(
            f"the model's chat template cannot be used for several turns: of the probe {probe.name!r} it says {detail}"
        ) from error
    if grown == whole:
        return Difference.NONE
    if template.text(grown) == template.text(whole):
        return Difference.TOKENS
    for difference, change in _KNOWN.items():
        if template.text(_grown(template, _changed(probe, change))) == template.text(whole):
            return difference
    without_ends = [[token for token in of if not template.is_end(token)] for of in (grown, whole)]
    if template.text(without_ends[0]) == template.text(without_ends[1]):
        return Difference.NO_END
    raise ModelError(
        f"the model's chat template cannot be used for several turns: the probe {probe.name!r} is {whole} as a whole "
        f"and {grown} turn by turn, which reads {template.text(whole)!r} and {template.text(grown)!r}"
    )


def _grown(template: ChatTemplate, probe: Probe) -> list[int]:
    token_ids = template.opening(probe.opening)
    said: list[Message] = list(probe.opening)
    for turn in probe.turns:
        token_ids += _sampled(template, said, turn)
        said += [_message(turn), *turn.heard]
        if turn.heard:
            token_ids += template.heard(turn.heard, calls=turn.calls, ended=not turn.is_cut)
    return token_ids


def _whole(template: ChatTemplate, probe: Probe) -> list[int]:
    """Up to the last reply, which nothing is behind."""
    *earlier, last = probe.turns
    said = [*probe.opening, *(message for turn in earlier for message in (_message(turn), *turn.heard))]
    return template.opening(said) + _sampled(template, said, last)


def _message(turn: Turn) -> Message:
    return replace(assistant(turn.reply), tool_calls=turn.calls)


def _sampled(template: ChatTemplate, said: Messages, turn: Turn) -> list[int]:
    """The reply as a model would have sampled it: calls as the template writes them."""
    text = template.written(said, _message(turn), turn.heard) if turn.calls else turn.reply
    return template.tokens(text) + ([] if turn.is_cut else template.end)


def _without_thinking(reply: str) -> str:
    thought, mark, rest = reply.rpartition(THINKING_ENDS)
    return rest.lstrip("\n") if mark else thought + rest


_KNOWN: dict[Difference, Callable[[str], str]] = {
    Difference.BLANKS: str.strip,
    Difference.THINKING: _without_thinking,
    Difference.BLANKS_AND_THINKING: lambda reply: _without_thinking(reply).strip(),
}


def _changed(probe: Probe, change: Callable[[str], str]) -> Probe:
    """Earlier replies as such a template shows them; the last is always shown whole."""
    *earlier, last = probe.turns
    return replace(probe, turns=(*(replace(turn, reply=change(turn.reply)) for turn in earlier), last))
