"""One episode from its opening to its end: who speaks when, what is bounded, and how it ended.

The runner knows neither the engine nor where the world runs: it is given a coroutine that samples a reply, and a
`World`. It holds the limits that are counted; deadlines of single answers are the world's.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol, TypeVar

from rollout.episodes.chat_template import ChatTemplate
from rollout.episodes.conversation import Conversation, digest_of
from rollout.episodes.environment import Done, Limits, Message, Messages, Outcome, Reply, Task, ToolCall
from rollout.episodes.tool_calls import Parse, Parsed, numbered
from rollout.episodes.tool_prompt import with_calls
from rollout.errors import WorldError
from rollout.types import Completion


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What a reply is asked for with."""

    token_ids: tuple[int, ...]
    """All that the model reads."""
    turn: int
    """From 1: a reply's seed is derived from it."""
    max_tokens: int


Sample = Callable[[Asked], Awaitable[Completion]]
"""A reply: a completion of what was asked, of which the text is without what ended it."""


T = TypeVar("T")


class World(Protocol):
    """An environment, wherever it runs. Errors of all: `WorldError`."""

    async def start(self, task: Task) -> Messages:
        """The opening messages."""
        ...

    async def respond(self, reply: Reply) -> Messages | Done:
        """What it says to a reply without calls."""
        ...

    async def call(self, call: ToolCall) -> str:
        """The result of a call as the model reads it; one that failed says so."""
        ...

    async def stop(self) -> None:
        """Ends it."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Episode:
    """One that ended."""

    outcome: Outcome
    scores: Mapping[str, float] = field(default_factory=dict)
    conversation: Conversation
    messages: tuple[Message, ...]
    """The opening, replies and answers in their order."""
    replies: tuple[Reply, ...]
    answers: tuple[Messages, ...] = ()
    """[reply] what was said to it; the reply that ended the episode has none."""
    num_tool_calls: int
    num_replayed: int = 0
    """Replies that were sampled for a world before this one."""
    seconds: float = 0.0
    """From the start of its world to its end."""
    world_s: float = 0.0
    """The part of it in which the world was waited for."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Recorded:
    """What was said in an episode whose world failed: a fresh world is played up to there without the engine."""

    replies: tuple[Completion, ...] = ()
    answers: tuple[Messages | Done, ...] = ()
    """To the replies in their order; the last reply may have none."""


class ReplayError(WorldError):
    """A world that was asked the same again gave another answer."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Beginning:
    """What an episode begins with; without it the world may begin with anything."""

    opening: Sequence[int] = ()
    """The tokens of a prompt that was made of what the world begins with."""
    said: str | None = None
    """That, as `opening_text` has it."""
    recorded: Recorded = Recorded()
    """Whose replies are not sampled again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """What holds for all episodes of a task."""

    template: ChatTemplate
    parse: Parse
    limits: Limits
    max_tokens: int
    """Of a reply, where `limits.turn_tokens` is None."""
    context_tokens: int
    """What the model can read, the opening included."""


def opening_text(messages: Messages) -> str:
    """What a world begins with, as one text."""
    return "\n\n".join(f"{message.role}: {with_calls(message).content}" for message in messages)


class EpisodeRunner:
    """Plays one episode."""

    def __init__(
        self,
        world: World,
        sample: Sample,
        rules: Rules,
        *,
        beginning: Beginning | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        beginning = beginning or Beginning()
        self._opening = tuple(beginning.opening)
        self._said = beginning.said
        self._recorded = beginning.recorded
        self._world = world
        self._sample = sample
        self._rules = rules
        self._clock = clock
        self._replies: list[Reply] = []
        self._messages: list[Message] = []
        self._sampled: list[Completion] = []
        self._told: list[Messages | Done] = []
        self._answers: list[Messages] = []
        self._world_s = 0.0
        self._num_calls = 0
        self._num_invalid = 0

    @property
    def recorded(self) -> Recorded:
        """What was said so far, and what was to be played again if it did not get there."""
        if len(self._sampled) < len(self._recorded.replies):
            return self._recorded
        return Recorded(replies=tuple(self._sampled), answers=tuple(self._told))

    async def play(self, task: Task) -> Episode:
        """From start to stop. Errors: `WorldError`, of which `ReplayError` is one; those of `sample`."""
        began_s = self._clock()
        try:
            opening = await self._waited(self._world.start(task))
            self._messages += opening
            conversation = Conversation(self._opened(opening))
            while True:
                ended = self._before_reply(conversation, began_s) or await self._turn(conversation)
                if ended is not None:
                    scores = ended.scores if isinstance(ended, Done) else {}
                    outcome = Outcome.DONE if isinstance(ended, Done) else ended
                    return Episode(
                        outcome=outcome,
                        scores=scores,
                        conversation=conversation,
                        messages=tuple(self._messages),
                        replies=tuple(self._replies),
                        answers=tuple(self._answers),
                        num_tool_calls=self._num_calls,
                        num_replayed=min(len(self._recorded.replies), len(self._replies)),
                        seconds=self._clock() - began_s,
                        world_s=self._world_s,
                    )
        finally:
            await self._world.stop()

    async def _waited(self, answer: Awaitable[T]) -> T:
        began_s = self._clock()
        try:
            return await answer
        finally:
            self._world_s += self._clock() - began_s

    def _opened(self, messages: Messages) -> Sequence[int]:
        """The tokens of the opening. Errors: `WorldError` where it is another one than the prompt's."""
        # What is said is compared, and not its tokens: a template may write the date.
        if self._said is not None and opening_text(messages) != self._said:
            raise WorldError(
                "the environment failed: start gave another opening than when the prompts were made; let it depend on "
                "`task.seed` and the row alone"
            )
        return self._opening or self._rules.template.opening(messages)

    def _room(self, conversation: Conversation) -> int:
        """Tokens that may still be added."""
        most = self._rules.context_tokens - len(conversation.opening)
        if self._rules.limits.episode_tokens is not None:
            most = min(most, self._rules.limits.episode_tokens)
        return most - conversation.num_tokens

    def _before_reply(self, conversation: Conversation, began_s: float) -> Outcome | None:
        """In an order that never changes: of two limits that are reached at once the first one is told."""
        limits = self._rules.limits
        if self._num_invalid >= limits.invalid_calls:
            return Outcome.INVALID_CALLS
        if self._num_calls >= limits.tool_calls:
            return Outcome.TOOL_CALLS
        if len(self._replies) >= limits.turns:
            return Outcome.TURNS
        if self._room(conversation) < 1:
            return Outcome.TOKENS
        if self._replies and self._clock() - began_s >= limits.episode_s:
            return Outcome.SECONDS
        return None

    async def _turn(self, conversation: Conversation) -> Outcome | Done | None:
        """A reply and what is said to it; what ends the episode, if it does."""
        longest = self._rules.limits.turn_tokens or self._rules.max_tokens
        fed = conversation.fed()
        turn = len(self._replies) + 1
        asked = Asked(token_ids=fed, turn=turn, max_tokens=min(longest, self._room(conversation)))
        is_replayed = turn <= len(self._recorded.replies)
        sampled = self._recorded.replies[turn - 1] if is_replayed else await self._sample(asked)
        self._sampled.append(sampled)
        conversation.sampled(sampled, fed=digest_of(fed))
        if not sampled.finish_reason.is_trainable:
            return Outcome.ENGINE
        parsed = self._rules.parse(sampled.text)
        parsed = replace(parsed, calls=numbered(parsed.calls, turn))
        reply = Reply(text=sampled.text, turn=turn, finish_reason=sampled.finish_reason, tool_calls=parsed.calls)
        self._replies.append(reply)
        self._messages.append(Message(role="assistant", content=sampled.text, tool_calls=parsed.calls))
        answer = await self._waited(self._answer(reply, parsed))
        if turn <= len(self._recorded.answers) and answer != self._recorded.answers[turn - 1]:
            raise ReplayError(
                f"the environment failed: asked the same again, it gave another answer to reply {turn}; set "
                "`replayable = False` in a class that draws by the clock"
            )
        self._told.append(answer)
        if isinstance(answer, Done):
            return answer
        is_ended = len(sampled.token_ids) > 0 and self._rules.template.is_end(int(sampled.token_ids[-1]))
        heard = self._rules.template.heard(answer, calls=parsed.calls, ended=is_ended)
        if len(heard) >= self._room(conversation):
            return Outcome.TOKENS  # nothing could be said to it
        conversation.heard(heard)
        self._messages += answer
        self._answers.append(tuple(answer))
        return None

    async def _answer(self, reply: Reply, parsed: Parsed) -> Messages | Done:
        if parsed.problem:
            self._num_invalid += 1
            return [Message(role="user", content=parsed.problem)]
        self._num_invalid = 0
        if not reply.tool_calls:
            return await self._world.respond(reply)
        return await self._results(reply.tool_calls)

    async def _results(self, calls: Sequence[ToolCall]) -> Messages:
        """Of calls that run side by side, in the order in which they were written. Those beyond the limit are not
        made, and say so."""
        left = self._rules.limits.tool_calls - self._num_calls
        self._num_calls += min(len(calls), left)
        results = list(await asyncio.gather(*(self._world.call(call) for call in calls[:left])))
        results += [f"Error: the limit of {self._rules.limits.tool_calls} calls is reached"] * len(calls[left:])
        return [
            Message(role="tool", content=result, name=call.name, call_id=call.call_id)
            for call, result in zip(calls, results, strict=True)
        ]
