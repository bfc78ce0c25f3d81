"""Episodes of a scripted world and a scripted model."""

import asyncio
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pytest

from rollout.episodes.conversation import check_spans
from rollout.episodes.environment import Done, Limits, Messages, Outcome, Reply, Task, ToolCall, user
from rollout.episodes.runner import Asked, Beginning, Episode, EpisodeRunner, ReplayError, Rules
from rollout.episodes.tool_calls import Parsed
from rollout.types import Completion, FinishReason, VersionSpan
from tests.rollout.episodes.families import FAMILIES, template_of

TEMPLATE = template_of(FAMILIES["results of tools as a turn of the user"])
TASK = Task(question="", seed=1, sample_seed=2)


@dataclass
class Scripted:
    """A world that counts to `last`, and has one tool."""

    last: int = 3
    stopped: int = 0
    heard: list[str] = field(default_factory=list)

    async def start(self, task: Task) -> Messages:
        assert task.seed == 1
        return [user("Count.")]

    async def respond(self, reply: Reply) -> Messages | Done:
        self.heard.append(reply.text)
        return Done(scores={"counted": float(self.last)}) if reply.turn >= self.last else [user(f"After {reply.text}?")]

    async def call(self, call: ToolCall) -> str:
        await asyncio.sleep(0.02 if call.name == "slow" else 0.0)
        return f"{call.name} is done"

    async def stop(self) -> None:
        self.stopped += 1


def parse(text: str) -> Parsed:
    if text.startswith("call"):
        return Parsed(calls=tuple(ToolCall(name=name, arguments={}) for name in text.split()[1:]))
    return Parsed(problem="That is no call.") if text.startswith("?") else Parsed()


def model(replies: Sequence[str], *, is_cut: bool = False, seen: list[Asked] | None = None) -> Callable[..., Any]:
    async def sample(asked: Asked) -> Completion:
        if seen is not None:
            seen.append(asked)
        text = replies[min(asked.turn, len(replies)) - 1]
        token_ids = np.array(TEMPLATE.tokens(text) + ([] if is_cut else TEMPLATE.end), np.int32)[: asked.max_tokens]
        return Completion(
            sample_index=0,
            version_spans=(VersionSpan(policy_version=asked.turn, start=0, end=len(token_ids)),),
            token_ids=token_ids,
            logprobs=np.full(len(token_ids), -1.0, np.float32),
            loss_mask=np.ones(len(token_ids), np.bool_),
            text=text,
            finish_reason=FinishReason.LENGTH if is_cut else FinishReason.STOP,
        )

    return sample


def rules(limits: Limits | None = None, *, context_tokens: int = 2000) -> Rules:
    return Rules(
        template=TEMPLATE, parse=parse, limits=limits or Limits(), max_tokens=40, context_tokens=context_tokens
    )


def played(world: Scripted, sample: Any, of: Rules | None = None, **named: Any) -> Episode:
    episode = asyncio.run(EpisodeRunner(world, sample, of or rules(), **named).play(TASK))
    assert world.stopped == 1
    token_ids, _, loss_mask = episode.conversation.arrays()
    check_spans(episode.conversation.opening, token_ids, episode.conversation.spans)
    assert sum(span.end - span.start for span in episode.conversation.spans) == np.count_nonzero(loss_mask)
    return episode


def test_an_episode_that_the_world_ends() -> None:
    world, seen = Scripted(), list[Asked]()
    episode = played(world, model(["one", "two", "three"], seen=seen))
    assert (episode.outcome, episode.scores) == (Outcome.DONE, {"counted": 3.0})
    assert world.heard == ["one", "two", "three"]
    assert [message.content for message in episode.messages] == [
        "Count.",
        "one",
        "After one?",
        "two",
        "After two?",
        "three",
    ]
    assert [[message.content for message in answer] for answer in episode.answers] == [["After one?"], ["After two?"]]
    assert [span.finish for span in episode.conversation.spans] == ["stop"] * 3
    assert [asked.turn for asked in seen] == [1, 2, 3]
    whole = TEMPLATE.text([*episode.conversation.opening, *episode.conversation.arrays()[0].tolist()])
    assert whole == TEMPLATE.render(episode.messages, asks=False).removesuffix("\n")


@pytest.mark.parametrize(
    ("limits", "replies", "outcome"),
    [
        (Limits(turns=2), ["one"], Outcome.TURNS),
        (Limits(episode_tokens=20), ["one"], Outcome.TOKENS),
        (Limits(tool_calls=3), ["call a b"], Outcome.TOOL_CALLS),
        (Limits(invalid_calls=2), ["?"], Outcome.INVALID_CALLS),
        (Limits(invalid_calls=1, turns=1), ["?"], Outcome.INVALID_CALLS),
    ],
)
def test_what_is_counted_ends_an_episode(limits: Limits, replies: list[str], outcome: Outcome) -> None:
    episode = played(Scripted(last=100), model(replies), rules(limits))
    assert (episode.outcome, dict(episode.scores)) == (outcome, {})
    if limits.episode_tokens:
        assert episode.conversation.num_tokens <= limits.episode_tokens


def test_the_context_of_the_model_is_never_exceeded() -> None:
    seen: list[Asked] = []
    episode = played(Scripted(last=100), model(["one two three four five"], seen=seen), rules(context_tokens=100))
    assert episode.outcome is Outcome.TOKENS
    assert all(len(asked.token_ids) + asked.max_tokens <= 100 for asked in seen)
    assert len(episode.conversation.fed()) <= 100


def test_seconds_end_an_episode_and_those_of_the_world_are_told() -> None:
    """A start of 5 s, then 10 s for each reply and 10 s for each answer: after three of both it is 65 s old."""
    now = [0.0]

    class Slow(Scripted):
        async def start(self, task: Task) -> Messages:
            now[0] += 5
            return await super().start(task)

        async def respond(self, reply: Reply) -> Messages | Done:
            now[0] += 10
            return await super().respond(reply)

    says = model(["one"])

    async def sample(asked: Asked) -> Completion:
        now[0] += 10
        return await says(asked)  # type: ignore[no-any-return]

    episode = played(Slow(last=100), sample, rules(Limits(turns=99, episode_s=50)), clock=lambda: now[0])
    assert (episode.outcome, len(episode.replies)) == (Outcome.SECONDS, 3)
    assert (episode.seconds, episode.world_s) == (65.0, 35.0)


def test_calls_of_a_reply_run_side_by_side_and_keep_their_order() -> None:
    world = Scripted(last=2)
    episode = played(world, model(["call slow fast", "done"]))
    results = [message for message in episode.messages if message.role == "tool"]
    assert [(message.name, message.content) for message in results] == [
        ("slow", "slow is done"),
        ("fast", "fast is done"),
    ]
    assert episode.num_tool_calls == 2
    assert world.heard == ["done"]


def test_calls_beyond_the_limit_are_not_made() -> None:
    episode = played(Scripted(last=9), model(["call a", "call b c d"]), rules(Limits(tool_calls=3)))
    assert (episode.outcome, episode.num_tool_calls) == (Outcome.TOOL_CALLS, 3)
    told = [message.content for message in episode.messages if message.role == "tool"]
    assert told == ["a is done", "b is done", "c is done", "Error: the limit of 3 calls is reached"]


def test_valid_calls_in_between_begin_the_count_of_invalid_ones_anew() -> None:
    episode = played(Scripted(last=4), model(["?", "call a", "?", "one"]), rules(Limits(invalid_calls=2)))
    assert episode.outcome is Outcome.DONE
    assert [m.content for m in episode.messages if re.match("That", m.content)] == ["That is no call."] * 2


def test_a_reply_that_was_cut_off_gets_the_end_that_the_template_writes() -> None:
    episode = played(Scripted(last=2), model(["one"], is_cut=True))
    token_ids, _, loss_mask = episode.conversation.arrays()
    (first, _) = episode.conversation.spans
    assert token_ids[first.end] == TEMPLATE.end[0]
    assert not loss_mask[first.end]


def test_what_was_said_is_not_sampled_again() -> None:
    whole = EpisodeRunner(Scripted(), model(["one", "two", "three"]), rules())
    asyncio.run(whole.play(TASK))
    seen: list[Asked] = []
    recorded = replace(whole.recorded, replies=whole.recorded.replies[:2], answers=whole.recorded.answers[:1])
    world = Scripted()
    again = played(world, model(["?", "?", "three"], seen=seen), beginning=Beginning(recorded=recorded))
    assert [asked.turn for asked in seen] == [3]
    assert world.heard == ["one", "two", "three"]
    assert again.num_replayed == 2


def test_another_answer_to_the_same_reply_is_an_error() -> None:
    first = EpisodeRunner(Scripted(), model(["one", "two", "three"]), rules())
    asyncio.run(first.play(TASK))
    runner = EpisodeRunner(Scripted(last=1), model(["one"]), rules(), beginning=Beginning(recorded=first.recorded))
    with pytest.raises(ReplayError, match="it gave another answer to reply 1"):
        asyncio.run(runner.play(TASK))
    assert len(runner.recorded.replies) == 3, "what was to be played again is kept where it was not reached"


def test_a_world_that_fails_is_stopped_and_the_error_is_told() -> None:
    world = Scripted()

    async def fails(asked: Asked) -> Completion:
        raise RuntimeError("the engine is gone")

    with pytest.raises(RuntimeError, match="the engine is gone"):
        asyncio.run(EpisodeRunner(world, fails, rules()).play(TASK))
    assert world.stopped == 1
