"""KL(policy || reference) at each token: estimates from the sampled token, and which gradient each gives.

With d = log p(policy) - log p(reference) at a token that the policy drew (Schulman, "Approximating KL divergence",
2020):

    k1 = d              unbiased; negative half of the time; as a loss its expected gradient is 0
    k2 = d^2 / 2        biased; as a loss its expected gradient is that of KL(policy || reference)
    k3 = e^-d - 1 + d   unbiased, never negative; as a loss its expected gradient is that of KL(reference || policy)

k3 times the ratio r = p(policy) / p(proximal), whose gradient goes through both, has the gradient of KL(policy ||
reference) (DeepSeek-V3.2, arXiv 2512.02556, section 3.1).

The exact KL (`learner/model/divergences.py`, `reverse`) sums over the whole vocabulary, p log p/q: no noise of the
sampled token, and as a loss exactly the gradient of KL(policy || reference) behind the tokens that were sampled.

Dimension: N tokens.
"""

from typing import Literal

import torch
from torch import Tensor

from learner.metrics import MAX_LOG_RATIO

Estimator = Literal["k1", "k2", "k3"]


def estimated_kl(policy_N: Tensor, ref_N: Tensor, estimator: Estimator) -> Tensor:
    """[N] estimate of KL(policy || reference) (nats)."""
    if estimator == "k3":
        return k3_kl(policy_N, ref_N)
    difference_N = policy_N - ref_N
    return difference_N if estimator == "k1" else 0.5 * difference_N.square()


def k3_kl(policy_logprobs_N: Tensor, ref_logprobs_N: Tensor) -> Tensor:
    """[N] estimate of KL(policy || reference) for tokens of the policy; never negative (DeepSeekMath, eq. 4)."""
    difference = (ref_logprobs_N - policy_logprobs_N).clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO)
    return torch.expm1(difference) - difference
