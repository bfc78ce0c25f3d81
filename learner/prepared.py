"""What the passes over a micro-batch leave for the passes that follow.

Dimensions: N tokens of a micro-batch.
"""

from dataclasses import dataclass

from torch import Tensor

from learner.algorithm.batching import MicroBatch
from learner.algorithm.corrections import Corrected
from learner.algorithm.distillation import sampled_kl, taught_advantages
from learner.algorithm.tokens import TokenValues


@dataclass(slots=True, kw_only=True, eq=False)
class Prepared:
    """A micro-batch with what is known before the first update, and what the first pass over it computed."""

    tokens: MicroBatch
    has_gradient: bool = True
    """False: computed for the figures of the step alone."""
    ref_N: Tensor | None = None
    before_N: Tensor | None = None
    """Log-probabilities of the policy before the step's first update."""
    entropy_N: Tensor | None = None
    """Its entropies."""
    teacher_N: Tensor | None = None
    """Log-probabilities of the teacher, where its advantages are of the sampled tokens."""
    teacher_coef: float = 0.0
    """What those advantages are multiplied by."""
    corrected: Corrected | None = None
    """What is fixed before the first update; None: all of it is made in each pass, from its own values."""
    num_left_out: int = 0
    """Trained tokens that are none in the loss, since a mask leaves them out and only what is kept counts."""

    def values(
        self,
        policy_N: Tensor,
        entropy_N: Tensor,
        *,
        divergence_N: Tensor | None = None,
        teacher_kl_N: Tensor | None = None,
    ) -> TokenValues:
        """What the loss sees of one pass; the exact divergences of that pass from reference and teacher."""
        tokens, advantages_N = self.tokens, self.tokens.advantages_N
        if self.teacher_N is not None:
            teacher_kl_N = sampled_kl(policy_N if self.before_N is None else self.before_N, self.teacher_N)
            advantages_N = taught_advantages(advantages_N, teacher_kl_N, self.teacher_coef)
        return TokenValues(
            policy_N=policy_N,
            sampler_N=tokens.rollout_logprobs_N,
            before_N=self.before_N,
            ref_N=self.ref_N,
            advantages_N=advantages_N,
            token_weights_N=tokens.token_weights_N,
            mask_N=tokens.mask_N,
            entropy_N=entropy_N,
            index_N=tokens.index_N,
            num_completions=max(1, len(tokens.sequences)),
            lag_N=tokens.lag_N,
            divergence_N=divergence_N,
            teacher_kl_N=teacher_kl_N,
        )
