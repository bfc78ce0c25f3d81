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


@dataclass(frozen=True, slots=True, kw_only=True)
class EpisodeFacts:
    """What a completion of several turns has besides."""

    outcome: str
    """How it ended: `rollout.episodes.environment.Outcome`."""
    turns: tuple[TurnSpan, ...]
    """The model's replies; what stands between them is what the world said, with `loss_mask` False."""
    scores: Mapping[str, float] = field(default_factory=dict)
    """By name, as the world gave them."""
    num_tool_calls: int = 0
    num_attempts: int = 1
    """Worlds that were begun for it: more than one where some failed."""
    num_replayed: int = 0
    """Replies that were sampled before, for a world that failed, and told to the next one again."""
