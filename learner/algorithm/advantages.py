"""Group-relative advantages (DeepSeekMath, arXiv 2402.03300, section 4.1.2: outcome supervision).

    A_i = (r_i - mean(r)) / std(r)

The paper leaves two things open. Here the standard deviation is the sample's (divisor n - 1), and nothing is added to
it: a group whose rewards are all equal has advantages of exactly zero by a rule of its own, so that no small constant
has to stand between a rounding error and a division by zero.

Dimension: G completions of a group.
"""

import math
from collections.abc import Sequence

# Weighted sums of the same components in another order differ by a few units in the last place. A spread below this
# share of the largest reward is such rounding, not a preference, and dividing by it would make advantages of +-1.
ROUNDING_SPREAD = 1e-12


def group_advantages(
    rewards_G: Sequence[float], scored_mask_G: Sequence[bool], *, use_std: bool = True
) -> tuple[float | None, ...]:
    """Advantage of each completion against its own group, in float64.

    `rewards_G` is read only where `scored_mask_G` is True; elsewhere it may hold anything, NaN included. Mean and
    standard deviation are over the scored completions, and the others have no advantage (None) and are not trained on.

    Errors: `ValueError` when fewer than two completions were scored (nothing to compare with) or a scored reward is
    not finite.
    """
    if len(rewards_G) != len(scored_mask_G):
        raise ValueError(f"one mask entry for each reward is needed, got {len(rewards_G)} and {len(scored_mask_G)}")
    scored = [float(reward) for reward, is_scored in zip(rewards_G, scored_mask_G, strict=True) if is_scored]
    if len(scored) < 2:
        raise ValueError(f"a group needs two scored completions to compare, got {len(scored)} of {len(rewards_G)}")
    if not all(math.isfinite(reward) for reward in scored):
        raise ValueError(f"scored rewards must be finite, got {scored}")
    if max(scored) - min(scored) <= ROUNDING_SPREAD * max(abs(reward) for reward in scored):
        return tuple(0.0 if is_scored else None for is_scored in scored_mask_G)
    mean = math.fsum(scored) / len(scored)
    scale = _sample_std(scored, mean) if use_std else 1.0
    return tuple(
        (float(reward) - mean) / scale if is_scored else None
        for reward, is_scored in zip(rewards_G, scored_mask_G, strict=True)
    )


def _sample_std(values: Sequence[float], mean: float) -> float:
    return math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (len(values) - 1))
