"""The GRPO loss (DeepSeekMath, arXiv 2402.03300, section 4.1.1): pure functions, tensors in, (loss, sums) out.

    J = E[ 1/G sum_i 1/L_i sum_t { min(r_t A_i, clip(r_t, 1 - eps, 1 + eps_high) A_i) - beta k3_t } ]     (eq. 3)
    k3_t = exp(ref_t - policy_t) - (ref_t - policy_t) - 1                                                  (eq. 4)

Deviations from the paper:
- r_t is the ratio to the probability that the *sampler* gave (its own log-probabilities, rounding of another program
  included), not to a recomputation by the learner: it corrects what really happened.
- The two clips may differ (`eps_high`), as in DAPO (arXiv 2503.14476, eq. 8).
- Mean over completions: over all completions of the optimizer step that have a token to train on, in one sum with one
  denominator (`token_weights`). So any split into micro-batches and ranks adds up to the same loss.

Dimension: N tokens, of any number of completions, laid end to end. Padding never comes here.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from learner.metrics import MAX_LOG_RATIO

SUM_NAMES = ("num_tokens", "ratio_mean", "clip_fraction", "kl_ref", "kl_rollout", "entropy")
"""What `LossSums.as_vector` sums; `means` gives the mean over tokens of all but the first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LossSums:
    """Sums over trained tokens, without gradient; add them up over micro-batches and ranks, then call `means`.

    All fields are 0-dimensional float64 tensors.
    """

    num_tokens: Tensor
    ratio: Tensor
    clipped: Tensor
    """Tokens where the clipped branch is the smaller one: their surrogate has no gradient."""
    kl_ref: Tensor
    """k3 estimates of KL(policy || reference); 0 without a reference."""
    kl_rollout: Tensor
    """(r - 1) - log r: estimates KL(sampler || policy), since the tokens are the sampler's."""
    entropy: Tensor
    max_abs_log_ratio: Tensor
    """A maximum, not a sum."""

    def as_vector(self) -> Tensor:
        """[6] what is reduced by summing, in the order of `SUM_NAMES`."""
        return torch.stack([self.num_tokens, self.ratio, self.clipped, self.kl_ref, self.kl_rollout, self.entropy])


def means(sums: Tensor) -> Mapping[str, float]:
    """Token means from a sum of `LossSums.as_vector` over any number of micro-batches and ranks."""
    num_tokens = float(sums[0])
    if num_tokens == 0:
        return {}
    return {name: float(total) / num_tokens for name, total in zip(SUM_NAMES[1:], sums[1:], strict=True)}


def k3_kl(policy_logprobs_N: Tensor, ref_logprobs_N: Tensor) -> Tensor:
    """[N] estimate of KL(policy || reference) for tokens of the policy; never negative (eq. 4)."""
    difference = (ref_logprobs_N - policy_logprobs_N).clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO)
    return torch.expm1(difference) - difference


def grpo_loss(  # noqa: PLR0913  # the symbols of the equation, each by its name
    *,
    policy_logprobs_N: Tensor,
    rollout_logprobs_N: Tensor,
    ref_logprobs_N: Tensor | None,
    advantages_N: Tensor,
    token_weights_N: Tensor,
    mask_N: Tensor,
    entropy_N: Tensor,
    clip_eps: float,
    clip_eps_high: float,
    kl_coef: float,
) -> tuple[Tensor, LossSums]:
    """This part's share of the loss of the optimizer step, and its sums.

    All tensors are [N]; `mask_N` is True where a token is trained on. Where it is False every other tensor may hold
    anything, NaN and infinities included: such tokens are replaced *before* exp, so that they add exactly nothing to
    loss and gradient (masking after exp would give 0 * inf = NaN in the gradient).
    """
    zeros_N = torch.zeros_like(policy_logprobs_N)
    policy_N = torch.where(mask_N, policy_logprobs_N, zeros_N)
    log_ratio_N = policy_N - torch.where(mask_N, rollout_logprobs_N, zeros_N)
    ratio_N = log_ratio_N.clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO).exp()
    advantages_N = torch.where(mask_N, advantages_N, zeros_N)
    unclipped_N = ratio_N * advantages_N
    clipped_N = ratio_N.clamp(1.0 - clip_eps, 1.0 + clip_eps_high) * advantages_N
    objective_N = torch.minimum(unclipped_N, clipped_N)
    kl_ref_N = zeros_N
    if ref_logprobs_N is not None:
        kl_ref_N = k3_kl(policy_N, torch.where(mask_N, ref_logprobs_N, zeros_N))
        objective_N = objective_N - kl_coef * kl_ref_N
    loss = -(objective_N * torch.where(mask_N, token_weights_N, zeros_N)).sum()
    with torch.no_grad():
        sums = LossSums(
            num_tokens=mask_N.sum().double(),
            ratio=_masked_sum(ratio_N, mask_N),
            clipped=_masked_sum(clipped_N < unclipped_N, mask_N),
            kl_ref=_masked_sum(kl_ref_N, mask_N),
            kl_rollout=_masked_sum(ratio_N - 1.0 - log_ratio_N, mask_N),
            entropy=_masked_sum(entropy_N, mask_N),
            max_abs_log_ratio=log_ratio_N.abs().max().double() if len(log_ratio_N) else loss.new_zeros(()).double(),
        )
    return loss, sums


def _masked_sum(values_N: Tensor, mask_N: Tensor) -> Tensor:
    values_N = values_N.detach().double()
    return torch.where(mask_N, values_N, torch.zeros_like(values_N)).sum()
