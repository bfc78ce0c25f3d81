"""What a completion of several turns has besides. Imports nothing."""

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True, kw_only=True)
class TurnSpan:
    """One reply of an episode: tokens `start` (included) to `end` (excluded) of the completion."""

    start: int
    end: int
    fed: str
    """Digest of all tokens that the engine read for it, the prompt included (`rollout.episodes.conversation`)."""
    finish: str = ""
    """`rollout.types.FinishReason` of the reply; empty where it was not noted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SpokenMessage:
    """What the world said, as it said it."""

    role: str
    text: str
    name: str = ""
    """Of a tool's result: the tool."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SpokenTurn:
    """A turn in words; its tokens are those of a `TurnSpan`."""

    text: str
    """Of the model, without what ended it."""
    calls: tuple[tuple[str, str], ...] = ()
    """(name, arguments as JSON) of the calls that were read in it."""
    heard: tuple[SpokenMessage, ...] = ()
    """What the world said to it; empty where the episode ended there."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EpisodeFacts:
    """What a completion of several turns has besides."""

    outcome: str
    """How it ended: `rollout.episodes.environment.Outcome`."""
    turns: tuple[TurnSpan, ...]
    """The model's replies; what stands between them is what the world said, with `loss_mask` False."""
    spoken: tuple[SpokenTurn, ...] = ()
    """The same in words, for people; empty where an earlier version sampled it."""
    scores: Mapping[str, float] = field(default_factory=dict)
    """By name, as the world gave them."""
    num_tool_calls: int = 0
    num_attempts: int = 1
    """Worlds that were begun for it: more than one where some failed."""
    num_replayed: int = 0
    """Replies that were sampled before, for a world that failed, and told to the next one again."""
    seconds: float = field(default=0.0, compare=False)
    """From the start of its world to its end; of the last of several worlds. No two runs have the same."""
    world_s: float = field(default=0.0, compare=False)
    """The part of it in which the world was waited for."""

    @property
    def num_sampled_tokens(self) -> int:
        """Of all replies."""
        return sum(turn.end - turn.start for turn in self.turns)


@dataclass(frozen=True, slots=True, kw_only=True)
class EpisodeSummary:
    """What is known of an episode without opening its completion."""

    outcome: str
    num_turns: int
    num_sampled_tokens: int
    num_tool_calls: int
    num_attempts: int
    scores: Mapping[str, float]
    seconds: float = field(compare=False)
    world_s: float = field(compare=False)
    """As in `EpisodeFacts`."""


def summary_of(episode: EpisodeFacts) -> EpisodeSummary:
    """The summary of an episode."""
    return EpisodeSummary(
        outcome=episode.outcome,
        num_turns=len(episode.turns),
        num_sampled_tokens=episode.num_sampled_tokens,
        num_tool_calls=episode.num_tool_calls,
        num_attempts=episode.num_attempts,
        scores=episode.scores,
        seconds=episode.seconds,
        world_s=episode.world_s,
    )
