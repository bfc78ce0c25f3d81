"""What a person writes to train on an episode of several turns: a class whose instance is one episode.

    class GuessNumber(Environment):
        async def start(self, task):
            self.number = random.Random(task.seed).randint(1, 100)
            return [user("Guess my number from 1 to 100.")]

        async def respond(self, reply):
            guess = int(reply.text)
            if guess == self.number:
                return Done(scores={"won": 1.0})
            return [user("higher" if guess < self.number else "lower")]

Methods may be plain functions too: these run in a thread.
"""

import inspect
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from enum import StrEnum
from typing import Any, ClassVar, TypeAlias, TypeVar

from rollout.types import FinishReason

F = TypeVar("F", bound=Callable[..., Any])
_IS_TOOL = "_shoal_is_tool"


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolCall:
    """A call that the model wrote, as it was parsed."""

    name: str
    arguments: Mapping[str, Any]
    call_id: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """One message of a conversation."""

    role: str
    """`system`, `user`, `assistant` or `tool`."""
    content: str
    tool_calls: tuple[ToolCall, ...] = ()
    """Of an assistant's message."""
    name: str = ""
    """Of a tool's message: whose result it is."""
    call_id: str = ""
    """Of a tool's message: which call it answers."""

    def as_template_input(self) -> dict[str, Any]:
        """What chat templates read."""
        shown: dict[str, Any] = {"role": self.role, "content": self.content}
        if self.tool_calls:
            shown["tool_calls"] = [
                {"type": "function", "id": call.call_id, "function": {"name": call.name, "arguments": call.arguments}}
                for call in self.tool_calls
            ]
        named = {"name": self.name, "tool_call_id": self.call_id}
        return shown | {key: value for key, value in named.items() if value}


Messages: TypeAlias = Sequence[Message]


def system(content: str) -> Message:
    """A message of the system."""
    return Message(role="system", content=content)


def user(content: str) -> Message:
    """A message of the user: what the world says."""
    return Message(role="user", content=content)


def assistant(content: str, *calls: ToolCall) -> Message:
    """A message of the model's, as one that was written for it: an example before the first turn."""
    return Message(role="assistant", content=content, tool_calls=calls)


def result(call: ToolCall, content: str) -> Message:
    """What a tool answered: for an example before the first turn."""
    return Message(role="tool", content=content, name=call.name, call_id=call.call_id)


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """What an episode is about."""

    question: str
    ground_truth: str | None = None
    row: Mapping[str, Any] = field(default_factory=dict)
    """The row's other columns."""
    seed: int
    """The same for all episodes of a group: they begin in one world."""
    sample_seed: int
    """Another one for each episode of a group, for worlds that draw by lot."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """What the model said in one turn."""

    text: str
    """Without what ended it."""
    turn: int
    """From 1."""
    finish_reason: FinishReason
    tool_calls: tuple[ToolCall, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Done:
    """The episode is over."""

    scores: Mapping[str, float] = field(default_factory=dict)
    """Numbers by name, which the reward function `environment` reads."""


class Outcome(StrEnum):
    """How an episode ended."""

    DONE = "done"
    """The world said so."""
    TURNS = "turns"
    TOOL_CALLS = "tool_calls"
    TOKENS = "tokens"
    """The tokens of the episode, or of the model's context, are used up."""
    SECONDS = "seconds"
    FAILED = "failed"
    """The world failed each time that it was begun. Of evaluations alone: in training the group is rejected."""
    ENGINE = "engine"
    """The engine could not finish a reply: nothing of the episode is trained on."""
    INVALID_CALLS = "invalid_calls"
    """Too many calls in a row that could not be read."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What ends an episode that the world does not end, each with an outcome of its own."""

    turns: int = 8
    """Replies of the model."""
    tool_calls: int = 32
    turn_tokens: int | None = None
    """Of one reply; null takes `rollout.sampling.max_tokens`."""
    episode_tokens: int | None = None
    """Of the whole episode behind its opening, what the world says included; null takes what the context holds."""
    call_s: float = 30.0
    """Of one answer of the world, or of a tool."""
    episode_s: float = 120.0
    invalid_calls: int = 3
    """In a row."""

    def __post_init__(self) -> None:
        for limit in fields(self):
            value = getattr(self, limit.name)
            if value is not None and value < 1 and (not limit.name.endswith("_s") or value <= 0):
                raise ValueError(f"Limits.{limit.name} is {value}, and an episode has at least one reply")


def tool(function: F) -> F:
    """Marks a method that the model may call: its name, docstring and parameters are what the model is told of it."""
    setattr(function, _IS_TOOL, True)
    return function


class Environment:
    """A world. An instance is one episode, and is used for no other."""

    limits: ClassVar[Limits] = Limits()
    replayable: ClassVar[bool] = True
    """Whether the same task and the same replies have the same answers. Then an episode whose process died goes on
    where it was, in a fresh process that is told what the model said; else it is begun anew."""

    def start(self, task: Task) -> Messages | Awaitable[Messages]:
        """The opening messages, which end before the model speaks."""
        raise NotImplementedError(f"{type(self).__name__} has no method `start`")

    def respond(self, reply: Reply) -> Messages | Done | Awaitable[Messages | Done]:
        """What the world says to a reply without tool calls. A world of tools alone ends there."""
        assert reply.turn > 0
        return Done()

    def stop(self) -> Awaitable[None] | None:
        """Gives back what the episode holds. May be called twice, and after a start that failed."""


def tools_of(kind: type[Environment]) -> dict[str, Callable[..., Any]]:
    """Name -> method of each tool of a world, in the order of their names."""
    methods = inspect.getmembers(kind, inspect.isfunction)
    return {name: method for name, method in methods if getattr(method, _IS_TOOL, False)}
