"""Ratios of whole completions under the aggregations, by hand."""

import math

import pytest
import torch

from learner.algorithm.aggregation import token_weights
from learner.algorithm.loss import Loss
from learner.algorithm.tokens import TokenValues
from learner.objective import ObjectiveConfig

LOG_RATIOS = ((0.1, 0.3), (-0.2, 0.0, -0.1, -0.3))
ADVANTAGES = (1.0, -2.0)


def loss_and_gradient(surrogate: dict[str, object], aggregation: str) -> tuple[float, list[float]]:
    """Of two completions, of two tokens and of four."""
    objective = ObjectiveConfig.model_validate(
        {"surrogate": surrogate, "aggregation": {"kind": aggregation}, "kl": {"coef": 0.0}}
    )
    lengths = [len(of) for of in LOG_RATIOS]
    index_N = torch.repeat_interleave(torch.arange(2), torch.tensor(lengths))
    sampler_N = torch.full((sum(lengths),), -1.0, dtype=torch.float64)
    log_ratio_N = torch.tensor([x for of in LOG_RATIOS for x in of], dtype=torch.float64, requires_grad=True)
    weights = token_weights(lengths, ["a", "a"], objective.aggregation, max_tokens=8)
    tokens = TokenValues(
        policy_N=sampler_N + log_ratio_N,
        sampler_N=sampler_N,
        advantages_N=torch.tensor(ADVANTAGES, dtype=torch.float64)[index_N],
        token_weights_N=torch.tensor(weights, dtype=torch.float64)[index_N],
        mask_N=torch.ones(sum(lengths), dtype=torch.bool),
        entropy_N=torch.zeros(sum(lengths), dtype=torch.float64),
        index_N=index_N,
        num_completions=2,
    )
    loss, _ = Loss(objective)(tokens)
    loss.backward()
    assert log_ratio_N.grad is not None
    return loss.item(), log_ratio_N.grad.tolist()


def test_a_product_of_ratios_is_one_ratio_of_the_completion() -> None:
    # exp(0.4) = 1.4918 with advantage 1 is clipped to 1.2, without a gradient; exp(-0.6) = 0.5488 with advantage -2
    # gives min(-1.0976, -1.6) = -1.6, clipped as well. Loss -(1.2 - 1.6) / 2.
    loss, gradient = loss_and_gradient({"kind": "ppo_clip", "level": "product"}, "sequence_mean")
    assert loss == pytest.approx(0.2, abs=1e-12)
    assert gradient == [0.0] * 6
    # With wider bounds both have theirs: of each token, ratio times advantage over 2 completions.
    loss, gradient = loss_and_gradient(
        {"kind": "ppo_clip", "level": "product", "eps": 0.9, "eps_high": 0.9}, "sequence_mean"
    )
    high, low = math.exp(0.4), math.exp(-0.6)
    assert loss == pytest.approx(-(high - 2.0 * low) / 2.0, abs=1e-12)
    assert gradient == pytest.approx([-high / 2.0] * 2 + [low] * 4, abs=1e-12)


def test_a_sum_over_tokens_counts_a_completion_once_for_each_of_them() -> None:
    # LUSPO: geometric means exp(0.2) = 1.2214 and exp(-0.15) = 0.8607, clipped to 1.2 and not below 0.8; times length
    # and advantage: 2 * 1.2 - 4 * 2 * 0.8607, over 2 completions.
    mean = math.exp(-0.15)
    loss, gradient = loss_and_gradient({"kind": "ppo_clip", "level": "sequence"}, "sequence_sum")
    assert loss == pytest.approx(-(2.4 - 8.0 * mean) / 2.0, abs=1e-12)
    # The ratio's derivative by each of four tokens is a fourth of it: 4 * 2 * mean / 4 / 2.
    assert gradient == pytest.approx([0.0, 0.0] + [mean] * 4, abs=1e-12)


def test_the_geometric_mean_of_gmpo_is_counted_once_alone() -> None:
    with pytest.raises(ValueError, match="sequence_mean"):
        ObjectiveConfig.model_validate({"surrogate": {"kind": "gmpo"}, "aggregation": {"kind": "token_mean"}})
