"""What a teacher's log-probabilities of the sampled tokens give: on-policy distillation.

The reverse KL of a student p and a teacher q at a prefix that the student sampled is E[log p - log q] over its next
token, and its gradient that of a policy whose advantage at each token is

    A_t = log q(y_t) - log p(y_t)

with p that of the weights before the step, as a number (Agarwal et al., GKD, arXiv 2306.13649; Gu et al., MiniLLM,
arXiv 2306.08543, without the terms of later tokens). It is added to what the rewards give, times a coefficient.

Dimension: N tokens.
"""

import torch
from torch import Tensor

from learner.metrics import MAX_LOG_RATIO


@torch.no_grad()
def sampled_kl(before_N: Tensor, teacher_N: Tensor) -> Tensor:
    """[N] log p - log q (nats): an estimate of KL(policy || teacher), negative half of the time. Held within
    +-`MAX_LOG_RATIO`: a token that a teacher rules out has log 0."""
    return (before_N.detach() - teacher_N).clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO)


@torch.no_grad()
def taught_advantages(advantages_N: Tensor, sampled_kl_N: Tensor, coef: float) -> Tensor:
    """[N] advantages of the rewards and of the teacher."""
    return advantages_N - coef * sampled_kl_N
