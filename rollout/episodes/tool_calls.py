"""A reply's text as calls of tools."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from rollout.episodes.environment import ToolCall


@dataclass(frozen=True, slots=True, kw_only=True)
class Parsed:
    """A reply's text as calls."""

    calls: tuple[ToolCall, ...] = ()
    problem: str = ""
    """Of a call that could not be read, in words for the model."""


Parse = Callable[[str], Parsed]


def no_calls(_: str) -> Parsed:
    """Of worlds without tools."""
    return Parsed()


def numbered(calls: Sequence[ToolCall], turn: int) -> tuple[ToolCall, ...]:
    """With ids that are the same each time that an episode is played, of nine letters and digits, as templates of
    Mistral's want them."""
    return tuple(replace(call, call_id=f"c{turn:04d}{place:04d}") for place, call in enumerate(calls))
