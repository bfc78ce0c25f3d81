"""Growing a conversation against rendering it as a whole, for templates with the habits of several families."""

import random
from dataclasses import replace

import pytest

from rollout.episodes.environment import Message, ToolCall, user
from rollout.episodes.template_probes import PROBES, TOOL_PROBES, Difference, Probe, Turn, difference_of, probe_template
from rollout.errors import ModelError
from tests.rollout.episodes.families import FAMILIES, REFUSED, template_of

NUM_CONVERSATIONS = 1000
SCHEMA = {
    "type": "function",
    "function": {
        "name": "look_up",
        "description": "Of a word.",
        "parameters": {"type": "object", "properties": {"word": {"type": "string"}}, "required": ["word"]},
    },
}
PIECES = ("water", " salt", "\n", "\n\n", "  ", "\t", "\u4f60\u597d", "\U0001f30a", "{x}", "<b>", "a.b,", "17", "'s")
HARMLESS = {
    "a default system turn": {Difference.NONE, Difference.TOKENS},
    "blanks are stripped, a start of its own": {Difference.NONE, Difference.TOKENS, Difference.BLANKS},
    "thinking is left out": {Difference.NONE, Difference.TOKENS, Difference.THINKING},
    "the system's message in the first turn, other names of roles": {
        Difference.NONE,
        Difference.TOKENS,
        Difference.BLANKS,
    },
    "results of tools as a turn of the user": {Difference.NONE, Difference.TOKENS},
    "no template": {Difference.NONE, Difference.TOKENS, Difference.NO_END},
}


@pytest.mark.parametrize("family", FAMILIES)
def test_the_probes_find_what_a_family_does(family: str) -> None:
    found = {probed.probe: probed.difference for probed in probe_template(template_of(FAMILIES[family]))}
    assert set(found) == {probe.name for probe in PROBES}
    assert set(found.values()) <= HARMLESS[family], found
    if family == "thinking is left out":
        assert found["thinking"] is Difference.THINKING
    if family.startswith("blanks are stripped"):
        assert found["blanks before and behind"] is Difference.BLANKS


@pytest.mark.parametrize("family", REFUSED)
def test_a_template_with_which_nothing_can_grow_is_refused(family: str) -> None:
    with pytest.raises(ModelError, match="cannot be used for several turns") as raised:
        probe_template(template_of(REFUSED[family]))
    assert "\n" not in str(raised.value)


def test_calls_and_their_results_grow() -> None:
    template = template_of(FAMILIES["results of tools as a turn of the user"], [SCHEMA])
    found = probe_template(template, TOOL_PROBES)
    assert {probed.difference for probed in found} == {Difference.NONE}


@pytest.mark.parametrize("family", FAMILIES)
def test_conversations_at_random_grow_as_they_are_rendered(family: str) -> None:
    rng, template = random.Random(family), template_of(FAMILIES[family])
    has_system = family != "no template"
    found = {
        difference_of(template, conversation(rng, has_system)) for _ in range(NUM_CONVERSATIONS // len(FAMILIES) + 1)
    }
    assert found <= HARMLESS[family] | ({Difference.BLANKS_AND_THINKING} if "left out" in family else set())
    assert len(found) > 0


def test_conversations_with_tools_at_random_grow_as_they_are_rendered() -> None:
    rng, template = random.Random(1), template_of(FAMILIES["results of tools as a turn of the user"], [SCHEMA])
    for _ in range(100):
        plain = conversation(rng, has_system=False)
        calls = tuple(
            ToolCall(name="look_up", arguments={"word": text_of(rng)}, call_id=f"call{i:05d}")
            for i in range(rng.randint(1, 3))
        )
        results = tuple(
            Message(role="tool", content=text_of(rng), name=call.name, call_id=call.call_id) for call in calls
        )
        called = Turn(reply="", calls=calls, heard=results)
        probe = replace(plain, turns=(called, *plain.turns))
        assert difference_of(template, probe) in (Difference.NONE, Difference.TOKENS), probe


def conversation(rng: random.Random, has_system: bool) -> Probe:
    opening = [user(text_of(rng))]
    if has_system and rng.random() < 0.3:
        opening.insert(0, Message(role="system", content=text_of(rng)))
    turns = [
        Turn(reply=reply_of(rng), heard=(user(text_of(rng)),), is_cut=rng.random() < 0.2)
        for _ in range(rng.randint(0, 4))
    ]
    return Probe(name="at random", opening=tuple(opening), turns=(*turns, Turn(reply=text_of(rng))))


def text_of(rng: random.Random) -> str:
    return "".join(rng.choice(PIECES) for _ in range(rng.randint(0, 8)))


def reply_of(rng: random.Random) -> str:
    thought = f"<think>\n{text_of(rng).strip()}\n</think>\n\n" if rng.random() < 0.2 else ""
    return thought + text_of(rng)
