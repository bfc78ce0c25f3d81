"""Group-relative advantages (DeepSeekMath, arXiv 2402.03300, section 4.1.2: outcome supervision).

    A_i = (r_i - mean(r)) / std(r)

The paper leaves two things open. Here the standard deviation is the sample's (divisor n - 1), and nothing is added to
it: a group whose rewards are all equal has advantages of exactly zero by a rule of its own, so that no small constant
has to stand between a rounding error and a division by zero.

Dimension: G completions of a group.
"""

import math
from collections.abc import Sequence

from reward.types import all_rewards_equal

MAX_SQUARED_EXPONENT = 400
"""Squares of numbers below 2**-537 are zero and above 2**511 too large: such rewards are scaled by a power of two."""


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
    if all_rewards_equal(scored):
        return tuple(0.0 if is_scored else None for is_scored in scored_mask_G)
    mean = math.fsum(scored) / len(scored)
    scale = _sample_std(scored, mean) if use_std else 1.0
    return tuple(
        (float(reward) - mean) / scale if is_scored else None
        for reward, is_scored in zip(rewards_G, scored_mask_G, strict=True)
    )


def _sample_std(values: Sequence[float], mean: float) -> float:
    deviations = [value - mean for value in values]
    _, exponent = math.frexp(max(abs(deviation) for deviation in deviations))
    if abs(exponent) < MAX_SQUARED_EXPONENT:
        exponent = 0  # as nearly always: the squares are in range as they are
    squares = math.fsum(math.ldexp(deviation, -exponent) ** 2 for deviation in deviations)
    return math.ldexp(math.sqrt(squares / (len(values) - 1)), exponent)
