"""What the loss sees of a micro-batch: values of tokens, laid end to end, and which completion each belongs to.

Dimensions: N tokens, S completions of a micro-batch.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from learner.metrics import MAX_LOG_RATIO


@dataclass(frozen=True, slots=True, kw_only=True)
class Completions:
    """Which completion each token belongs to, with sums and means over the trained tokens of each."""

    index_N: Tensor
    """int64, 0 to S - 1."""
    num: int
    """S."""
    mask_N: Tensor
    """bool; True where a token is trained on. The others have no part in any sum."""

    def sums(self, values_N: Tensor) -> Tensor:
        """[S] sum of the values of each completion's trained tokens; 0 for one without."""
        values_N = torch.where(self.mask_N, values_N, torch.zeros_like(values_N))
        return values_N.new_zeros(self.num).index_add(0, self.index_N, values_N)

    def means(self, values_N: Tensor) -> Tensor:
        """[S] their mean; 0 for one without."""
        counts_S = self.sums(torch.ones_like(values_N))
        return self.sums(values_N) / counts_S.clamp(min=1.0)

    def spread(self, values_S: Tensor) -> Tensor:
        """[N] the value of its completion at each token."""
        return values_S.index_select(0, self.index_N)


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenValues:
    """Everything that the loss of one micro-batch is made of. [N] each; where `mask_N` is False a value may be
    anything, NaN and infinities included."""

    policy_N: Tensor
    """Log-probabilities (nats) under the current weights; the only ones with a gradient, with `entropy_N`,
    `divergence_N` and `teacher_kl_N` where those have one."""
    sampler_N: Tensor
    """Log-probabilities that the sampler gave."""
    before_N: Tensor | None = None
    """Under the weights before the step's first update; None where these are the current ones."""
    ref_N: Tensor | None = None
    """Under the reference; None without one."""
    advantages_N: Tensor
    token_weights_N: Tensor
    """Weight of each token in the loss: see `learner.algorithm.aggregation`."""
    mask_N: Tensor
    """bool; True where trained on."""
    entropy_N: Tensor
    """Entropy (nats) of the distribution that the token was drawn from, by the learner."""
    index_N: Tensor
    """int64; which completion of the micro-batch."""
    num_completions: int
    lag_N: Tensor | None = None
    """Policy versions between sampling and this step; None reads as 0."""
    divergence_N: Tensor | None = None
    """Exact KL over the vocabulary, policy to reference; None where it is estimated from the sampled token."""
    teacher_kl_N: Tensor | None = None
    """Divergence from the teacher: exact, with a gradient, or the sampled one, without. None without a teacher."""

    @property
    def completions(self) -> Completions:
        """Sums over each completion."""
        return Completions(index_N=self.index_N, num=self.num_completions, mask_N=self.mask_N)

    def known(self, values_N: Tensor) -> Tensor:
        """The values where the mask is True, else 0: replaced *before* any exp, so that a token that is not trained on
        adds exactly nothing to loss and gradient (masking after exp would give 0 * inf = NaN in the gradient)."""
        return torch.where(self.mask_N, values_N, torch.zeros_like(values_N))


def bounded_exp(log_ratio: Tensor) -> Tensor:
    """exp within +-`MAX_LOG_RATIO`; beyond it constant, without a gradient."""
    return log_ratio.clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO).exp()
