"""The metrics of episodes: what each is, and how it is computed. Imports nothing heavy."""

import math
import re
from collections import Counter
from collections.abc import Sequence

from learner.metrics import Metric
from rollout.episode_types import EpisodeSummary
from rollout.episodes.environment import Outcome

MAX_SCORES = 16
"""Names of scores that become metrics: a world may give each episode names of its own."""
_UNUSUAL = re.compile(r"[^\w.-]", re.ASCII)
"""In a name of a score: not every tracker takes it in the name of a metric."""

EPISODE_METRICS = (
    Metric(
        name="episode/turns_mean",
        label="Turns of an episode",
        unit="turns",
        over="episodes",
        reduce="mean",
        help="Only in a run with episodes, as are all of these.",
    ),
    Metric(
        name="episode/tokens_mean",
        label="Length of an episode",
        unit="tokens",
        over="episodes",
        reduce="mean",
        help="What the world said included.",
    ),
    Metric(
        name="episode/tool_calls_mean", label="Tool calls of an episode", unit="calls", over="episodes", reduce="mean"
    ),
    Metric(
        name="episode/begun_again",
        label="Worlds begun again",
        unit="worlds",
        over="step",
        reduce="sum",
        better="down",
        help="In the place of one that failed.",
    ),
    Metric(
        name="episode/ended_*",
        label="Episodes that ended with",
        unit="share",
        over="episodes",
        reduce="mean",
        help="`done` is the world's own end; the others are limits, or failures.",
    ),
    Metric(
        name="episode/score_*",
        label="Score of the world:",
        over="episodes that have it",
        reduce="mean",
        help="As the world gave it, by name; of 16 names at most.",
    ),
    Metric(
        name="episode/seconds_mean",
        label="Duration of an episode",
        unit="s",
        over="episodes",
        reduce="mean",
        better="down",
        help="From the start of its world to its end; without waiting for a free process, and without worlds that "
        "failed before.",
    ),
    Metric(name="episode/seconds_max", label="Longest episode", unit="s", over="episodes", reduce="max", better="down"),
    Metric(
        name="episode/world_s_mean",
        label="Waiting for the world",
        unit="s",
        over="episodes",
        reduce="mean",
        better="down",
        help="The part of an episode in which its world was asked and had not answered. The rest is the engine's.",
    ),
    Metric(
        name="episode/world_share",
        label="Waiting for worlds",
        unit="share",
        over="time of the episodes",
        reduce="mean",
        better="down",
    ),
)


def episode_metrics(episodes: Sequence[tuple[EpisodeSummary, int]]) -> dict[str, float]:
    """Turns, ends and times of episodes, of which each comes with all its tokens. Empty where there are none."""
    if not episodes:
        return {}
    of_all, size = [episode for episode, _ in episodes], len(episodes)
    metrics = {
        "episode/turns_mean": sum(of.num_turns for of in of_all) / size,
        "episode/tokens_mean": sum(num_tokens for _, num_tokens in episodes) / size,
        "episode/tool_calls_mean": sum(of.num_tool_calls for of in of_all) / size,
        "episode/begun_again": float(sum(of.num_attempts - 1 for of in of_all)),
    }
    ends = Counter({outcome.value: 0 for outcome in Outcome})
    ends.update(of.outcome for of in of_all)
    metrics |= {f"episode/ended_{outcome}": number / size for outcome, number in ends.items()}
    for name in sorted({name for of in of_all for name in of.scores})[:MAX_SCORES]:
        values = [value for of in of_all if (value := of.scores.get(name)) is not None and math.isfinite(value)]
        if values:
            metrics[f"episode/score_{_UNUSUAL.sub('_', name)}"] = math.fsum(values) / len(values)
    # One whose world failed each time has no times, nor has one that an earlier version wrote.
    timed = [of for of in of_all if of.seconds > 0]
    if timed:
        seconds, world_s = math.fsum(of.seconds for of in timed), math.fsum(of.world_s for of in timed)
        metrics["episode/seconds_mean"] = seconds / len(timed)
        metrics["episode/seconds_max"] = max(of.seconds for of in timed)
        metrics["episode/world_s_mean"] = world_s / len(timed)
        metrics["episode/world_share"] = world_s / seconds
    return metrics
