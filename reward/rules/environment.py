"""What the world of an episode said of it."""

from reward.functions import register
from reward.types import ExplainedScore, RewardInput


@register("environment")
def environment(item: RewardInput, score: str, otherwise: float = 0.0) -> float:
    """The score of this name that the world gave; `otherwise` for an episode that a limit ended.

    Raises:
        ValueError: a world that ended its episode without such a score, or a completion that is no episode.
    """
    if score in item.scores:
        return float(item.scores[score])
    if item.episode_outcome in ("failed", "engine"):
        raise ValueError(item.completion or "the engine did not finish a reply of the episode")
    if item.episode_outcome in ("", "done"):
        known = ", ".join(sorted(item.scores)) or "none"
        raise ValueError(f"the episode has no score {score!r}; it has {known}")
    return ExplainedScore(otherwise, f"ended by {item.episode_outcome}")
