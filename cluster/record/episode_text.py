"""What a completion of several turns has besides <-> the column `episode`."""

import json
from typing import Any

from cluster.record.append_log import json_line
from rollout.episode_types import EpisodeFacts, SpokenMessage, SpokenTurn, TurnSpan


def episode_text(episode: EpisodeFacts | None) -> str | None:
    """As JSON; None for a single answer."""
    if episode is None:
        return None
    return json_line(
        {
            "outcome": episode.outcome,
            "scores": dict(episode.scores),
            "turns": [[turn.start, turn.end, turn.fed, turn.finish] for turn in episode.turns],
            "spoken": [
                {
                    "text": turn.text,
                    "calls": turn.calls,
                    "heard": [[one.role, one.text, one.name] for one in turn.heard],
                }
                for turn in episode.spoken
            ],
            "tool_calls": episode.num_tool_calls,
            "attempts": episode.num_attempts,
            "replayed": episode.num_replayed,
            "seconds": episode.seconds,
            "world_s": episode.world_s,
        }
    )


def episode_of(text: str | None) -> EpisodeFacts | None:
    """The inverse; what an earlier version did not note is empty. Raises ValueError, KeyError or TypeError for a text
    that is none."""
    if text is None:
        return None
    told = json.loads(text)
    return EpisodeFacts(
        outcome=told["outcome"],
        scores=told["scores"],
        turns=tuple(
            TurnSpan(start=start, end=end, fed=fed, finish=rest[0] if rest else "")
            for start, end, fed, *rest in told["turns"]
        ),
        spoken=tuple(_spoken(turn) for turn in told.get("spoken", ())),
        num_tool_calls=told["tool_calls"],
        num_attempts=told["attempts"],
        num_replayed=told.get("replayed", 0),
        seconds=told.get("seconds", 0.0),
        world_s=told.get("world_s", 0.0),
    )


def _spoken(turn: dict[str, Any]) -> SpokenTurn:
    return SpokenTurn(
        text=turn["text"],
        calls=tuple((name, arguments) for name, arguments in turn["calls"]),
        heard=tuple(SpokenMessage(role=role, text=text, name=name) for role, text, name in turn["heard"]),
    )
