"""The loss of a step: pure functions, tensors in, (loss, sums) out.

With the defaults of the configuration it is GRPO (DeepSeekMath, arXiv 2402.03300, section 4.1.1):

    J = E[ 1/G sum_i 1/L_i sum_t { min(r_t A_i, clip(r_t, 1 - eps, 1 + eps_high) A_i) - beta k3_t } ]     (eq. 3)
    k3_t = exp(ref_t - policy_t) - (ref_t - policy_t) - 1                                                  (eq. 4)

and in general, with w_t and m_t the weight and the mask of the corrections, H_t the entropy:

    J = sum_t weight_t { m_t w_t surrogate_t - beta KL_t - d D_t + c H_t }

where D_t is the exact divergence from a teacher (`learner/model/divergences.py`); a sampled one is in the advantages.

Deviations from the paper:
- r_t is the ratio to the probability that the *sampler* gave (its own log-probabilities, rounding of another program
  included), not to a recomputation by the learner: it corrects what really happened. `proximal` has the other choices.
- Mean over completions: over all completions of the optimizer step that have a token to train on, in one sum with one
  denominator (`aggregation`). So any split into micro-batches and ranks adds up to the same loss.

Dimension: N tokens, of any number of completions, laid end to end. Padding never comes here.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from learner.algorithm.corrections import NOT_CORRECTED, Corrected
from learner.algorithm.kl import estimated_kl
from learner.algorithm.surrogates import Objective, Ratios, Surrogate, surrogate_of
from learner.algorithm.tokens import TokenValues, bounded_exp
from learner.objective import ObjectiveConfig
from learner.surrogate_config import OwnSurrogate
from learner.teacher import TeacherConfig

SUM_NAMES = (
    "num_tokens",
    "ratio_mean",
    "ratio_square",
    "clip_fraction_low",
    "clip_fraction_high",
    "kl_ref",
    "kl_rollout",
    "entropy",
    "correction_weight",
    "masked_fraction",
    "teacher_kl",
)
"""What `LossSums.vector` sums; `means` gives the mean over tokens of all but the first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LossSums:
    """Sums over trained tokens, without gradient; add them up over micro-batches and ranks, then call `means`."""

    vector: Tensor
    """[11] float64, in the order of `SUM_NAMES`."""
    max_abs_log_ratio: Tensor
    """0-dimensional float64: a maximum, not a sum."""


def means(sums: Tensor) -> Mapping[str, float]:
    """Token means from a sum of `LossSums.vector` over any number of micro-batches and ranks.

    `effective_sample_size` is (sum r)^2 / (n sum r^2) for r = p(policy) / p(sampler): the share of the tokens that are
    left of them as evidence on the policy; 1 where sampler and learner agree.
    """
    num_tokens = float(sums[0])
    if num_tokens == 0:
        return {}
    found = {name: float(total) / num_tokens for name, total in zip(SUM_NAMES[1:], sums[1:], strict=True)}
    square = found.pop("ratio_square")
    return {
        **found,
        "clip_fraction": found["clip_fraction_low"] + found["clip_fraction_high"],
        "ratio_std": max(square - found["ratio_mean"] ** 2, 0.0) ** 0.5,
        "effective_sample_size": found["ratio_mean"] ** 2 / square if square else 0.0,
    }


class Loss:
    """The loss that a configuration describes. Errors: `ConfigError` for a function of one's own that cannot be
    loaded."""

    def __init__(self, objective: ObjectiveConfig, teacher: TeacherConfig | None = None) -> None:
        self.objective = objective
        self._divergence_coef = teacher.coef if teacher is not None and teacher.is_exact else 0.0
        self._surrogate: Surrogate = surrogate_of(objective.surrogate)

    def __call__(
        self, tokens: TokenValues, corrected: Corrected = NOT_CORRECTED, *, entropy_coef: float | None = None
    ) -> tuple[Tensor, LossSums]:
        """This part's share of the loss of the optimizer step, and its sums. `entropy_coef` is that of this update;
        None takes the configuration's."""
        objective = self.objective
        policy_N, sampler_N = tokens.known(tokens.policy_N), tokens.known(tokens.sampler_N)
        anchor_N = tokens.known(anchor_of(tokens, objective))
        log_ratio_N = policy_N - anchor_N
        ratios = Ratios(
            policy_N=policy_N,
            anchor_N=anchor_N,
            log_ratio_N=log_ratio_N,
            ratio_N=bounded_exp(log_ratio_N),
            advantages_N=tokens.known(tokens.advantages_N),
            completions=tokens.completions,
        )
        found = self._surrogate_of(ratios)
        objective_N = found.objective_N
        if corrected.weights_N is not None:
            objective_N = objective_N * corrected.weights_N
        if corrected.keep_N is not None:
            objective_N = torch.where(corrected.keep_N, objective_N, torch.zeros_like(objective_N))
        kl_N = self._kl(tokens, policy_N, ratios)
        if kl_N is not None and objective.kl.place == "loss" and objective.kl.coef:
            objective_N = objective_N - objective.kl.coef * kl_N
        if self._divergence_coef:
            assert tokens.teacher_kl_N is not None, "an exact divergence comes with the tokens"
            objective_N = objective_N - self._divergence_coef * tokens.known(tokens.teacher_kl_N)
        coef = objective.entropy.coef if entropy_coef is None else entropy_coef
        if coef:
            objective_N = objective_N + coef * tokens.known(tokens.entropy_N)
        loss = -(objective_N * tokens.known(tokens.token_weights_N)).sum()
        with torch.no_grad():
            gap_N = policy_N - sampler_N
            largest = gap_N.abs().max().double() if len(gap_N) else loss.new_zeros(()).double()
            return loss, LossSums(vector=_sums(tokens, gap_N, found, kl_N, corrected), max_abs_log_ratio=largest)

    def _surrogate_of(self, ratios: Ratios) -> Objective:
        """A function of the user's is not called where nothing is trained: it may divide by the number of tokens, and
        the pass is there for the other ranks' sake."""
        mask_N = ratios.completions.mask_N
        if isinstance(self.objective.surrogate, OwnSurrogate) and not bool(mask_N.any()):
            never_N = torch.zeros_like(mask_N)
            return Objective(objective_N=ratios.policy_N * 0.0, low_N=never_N, high_N=never_N)
        return self._surrogate(ratios)

    def _kl(self, tokens: TokenValues, policy_N: Tensor, ratios: Ratios) -> Tensor | None:
        kl = self.objective.kl
        if tokens.divergence_N is not None:
            return tokens.known(tokens.divergence_N)
        if tokens.ref_N is None:
            return None
        assert kl.estimator != "exact", "an exact KL comes with the tokens"
        kl_N = estimated_kl(policy_N, tokens.known(tokens.ref_N), kl.estimator)
        return kl_N * ratios.ratio_N if kl.unbiased else kl_N


def anchor_of(tokens: TokenValues, objective: ObjectiveConfig) -> Tensor:
    """[N] log-probabilities that the surrogate's ratio is against, without a gradient.

    Interpolated (A-3PO, arXiv 2512.06547): log p(proximal) = a log p(sampler) + (1 - a) log p(policy) with a = 1 / lag,
    so that the ratio is p(policy) / p(sampler) to the power of a; fresh tokens have a = 1.
    """
    if objective.proximal == "sampler":
        return tokens.sampler_N
    policy_N = tokens.policy_N.detach()
    if objective.proximal == "recomputed":
        return policy_N if tokens.before_N is None else tokens.before_N
    if tokens.lag_N is None:
        return tokens.sampler_N
    share_N = 1.0 / tokens.lag_N.to(policy_N.dtype).clamp(min=1.0)
    return share_N * tokens.sampler_N + (1.0 - share_N) * policy_N


def _sums(  # one argument for each thing that is summed
    tokens: TokenValues, gap_N: Tensor, found: Objective, kl_N: Tensor | None, corrected: Corrected
) -> Tensor:
    mask_N = tokens.mask_N
    ratio_N = bounded_exp(gap_N)
    zeros_N = torch.zeros_like(gap_N)
    weights_N = torch.ones_like(gap_N) if corrected.weights_N is None else corrected.weights_N
    left_out_N = zeros_N if corrected.keep_N is None else ~corrected.keep_N
    values = (
        ratio_N,
        ratio_N.double().square(),
        found.low_N,
        found.high_N,
        zeros_N if kl_N is None else kl_N,
        ratio_N - 1.0 - gap_N,
        tokens.entropy_N,
        weights_N,
        left_out_N,
        zeros_N if tokens.teacher_kl_N is None else tokens.teacher_kl_N,
    )
    return torch.stack([mask_N.sum().double(), *(_masked_sum(values_N, mask_N) for values_N in values)])


def _masked_sum(values_N: Tensor, mask_N: Tensor) -> Tensor:
    values_N = values_N.detach().double()
    return torch.where(mask_N, values_N, torch.zeros_like(values_N)).sum()
