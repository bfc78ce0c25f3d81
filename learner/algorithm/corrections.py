"""Corrections for the gap between the policy that sampled and the policy that learns: weights and masks, kept apart.

A weight multiplies a token's surrogate; a mask leaves the token out of it. Both are numbers, without a gradient.
Several of them all apply: weights are multiplied, and a token is kept where every mask keeps it.

Dimensions: N tokens, S completions.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

import torch
from torch import Tensor

from learner.algorithm.tokens import TokenValues, bounded_exp
from learner.objective import CorrectionConfig, ObjectiveConfig, OffPolicySequenceMask, RatioMask, TruncateWeight


@dataclass(frozen=True, slots=True, kw_only=True)
class Corrected:
    """What all corrections together say of each token. None: of every token 1, or True."""

    weights_N: Tensor | None = None
    keep_N: Tensor | None = None

    def also(self, other: "Corrected") -> "Corrected":
        """What both say: the product of the weights, and what both keep."""
        weights_N, keep_N = self.weights_N, self.keep_N
        if other.weights_N is not None:
            weights_N = other.weights_N if weights_N is None else weights_N * other.weights_N
        if other.keep_N is not None:
            keep_N = other.keep_N if keep_N is None else keep_N & other.keep_N
        return Corrected(weights_N=weights_N, keep_N=keep_N)


NOT_CORRECTED = Corrected()
SAME_ENTROPY = 1e-5
"""Nats, and at most a thousandth of the threshold, or all tokens of a policy that is certain everywhere would be kept.
The first tokens of a group's completions follow the same prompt and have one entropy, but for rounding, which differs
with the micro-batch: where the threshold falls on them, all of them are kept."""


def moving_corrections(objective: ObjectiveConfig) -> tuple[CorrectionConfig, ...]:
    """Those that follow the policy from update to update. With `count: kept` there are none: the denominators of a step
    need to know its masks."""
    moves = objective.aggregation.count == "trained"
    return tuple(one for one in objective.corrections if moves and isinstance(one, OffPolicySequenceMask))


def fixed_corrections(objective: ObjectiveConfig) -> tuple[CorrectionConfig, ...]:
    """The others: those of the policy before the step's first update."""
    moving = moving_corrections(objective)
    return tuple(one for one in objective.corrections if one not in moving)


def correct(
    tokens: TokenValues,
    anchor_N: Tensor,
    corrections: Sequence[CorrectionConfig],
    *,
    entropy_threshold: float | None,
) -> Corrected:
    """Weights and masks of all corrections.

    `anchor_N` [N]: log-probabilities of the proximal policy, or of the policy before the step where that is the
    sampler's. `entropy_threshold` (nats): see `entropy_threshold`; of use for `top_entropy` alone.
    """
    with torch.no_grad():
        return _correct(tokens, anchor_N, corrections, entropy_threshold)


def _correct(
    tokens: TokenValues, anchor_N: Tensor, corrections: Sequence[CorrectionConfig], threshold: float | None
) -> Corrected:
    gap_N = tokens.known(anchor_N) - tokens.known(tokens.sampler_N)
    found = NOT_CORRECTED
    for correction in corrections:
        if isinstance(correction, TruncateWeight):
            weights_N = _ratio(tokens, gap_N, correction.level).clamp(correction.min, correction.max)
            found = found.also(Corrected(weights_N=weights_N))
        elif isinstance(correction, RatioMask):
            ratio_N = _ratio(tokens, gap_N, correction.level)
            found = found.also(Corrected(keep_N=(ratio_N >= correction.min) & (ratio_N <= correction.max)))
        elif isinstance(correction, OffPolicySequenceMask):
            found = found.also(Corrected(keep_N=_not_moved_away(tokens, correction.threshold)))
        else:
            assert threshold is not None, "the threshold of the batch is computed before"
            found = found.also(Corrected(keep_N=tokens.entropy_N >= threshold - min(SAME_ENTROPY, 1e-3 * threshold)))
    return found


def entropy_threshold(entropies_M: Tensor, share: float) -> float:
    """Entropy (nats) that the `share` of least certain tokens has or exceeds: the ceil(share M)-th highest of the M
    trained tokens of the whole batch. Infinite without tokens."""
    if not len(entropies_M):
        return float("inf")
    # Of the decimal number that was written: in binary 0.07 * 100 is above 7, and would keep 8.
    num_kept = math.ceil(Fraction(str(share)) * len(entropies_M))
    return float(torch.kthvalue(entropies_M, len(entropies_M) - num_kept + 1).values)


def _not_moved_away(tokens: TokenValues, threshold: float) -> Tensor:
    """[N] False for completions of negative advantage from which the policy, as it is now, moved too far."""
    moved_N = tokens.known(tokens.sampler_N) - tokens.known(tokens.policy_N.detach())
    completions = tokens.completions
    is_far_N = completions.spread(completions.means(moved_N)) > threshold
    return (tokens.advantages_N >= 0) | ~is_far_N


def _ratio(tokens: TokenValues, gap_N: Tensor, level: str) -> Tensor:
    """[N] exp of the gap of each token, or of its completion: their sum (`sequence`) or mean (`geometric`)."""
    if level == "token":
        return bounded_exp(gap_N)
    completions = tokens.completions
    gap_S = completions.sums(gap_N) if level == "sequence" else completions.means(gap_N)
    return completions.spread(bounded_exp(gap_S))
