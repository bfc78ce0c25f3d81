"""What a completion of several turns has besides <-> the column `episode`."""

import json

from cluster.record.append_log import json_line
from rollout.episode_types import EpisodeFacts, TurnSpan


def episode_text(episode: EpisodeFacts | None) -> str | None:
    """As JSON; None for a single answer."""
    if episode is None:
        return None
    return json_line(
        {
            "outcome": episode.outcome,
            "scores": dict(episode.scores),
            "turns": [[turn.start, turn.end, turn.fed] for turn in episode.turns],
            "tool_calls": episode.num_tool_calls,
            "attempts": episode.num_attempts,
            "replayed": episode.num_replayed,
        }
    )


def episode_of(text: str | None) -> EpisodeFacts | None:
    """The inverse."""
    if text is None:
        return None
    told = json.loads(text)
    return EpisodeFacts(
        outcome=told["outcome"],
        scores=told["scores"],
        turns=tuple(TurnSpan(start=start, end=end, fed=fed) for start, end, fed in told["turns"]),
        num_tool_calls=told["tool_calls"],
        num_attempts=told["attempts"],
        num_replayed=told.get("replayed", 0),
    )
