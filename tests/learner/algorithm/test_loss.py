import math

import pytest
import torch
from torch import Tensor

from learner.algorithm.aggregation import completion_token_weight
from learner.algorithm.loss import SUM_NAMES, Loss, LossSums, means
from learner.algorithm.tokens import TokenValues
from learner.objective import ObjectiveConfig


def loss_of(
    policy: Tensor,
    rollout: Tensor,
    *,
    ref: Tensor | None = None,
    advantages: Tensor | None = None,
    weights: Tensor | None = None,
    mask: Tensor | None = None,
    clip_eps: float = 0.2,
    clip_eps_high: float | None = None,
    kl_coef: float = 0.0,
) -> tuple[Tensor, LossSums]:
    num_tokens = len(policy)
    tokens = TokenValues(
        policy_N=policy,
        sampler_N=rollout,
        ref_N=ref,
        advantages_N=torch.ones(num_tokens) if advantages is None else advantages,
        token_weights_N=torch.full((num_tokens,), 1.0 / num_tokens) if weights is None else weights,
        mask_N=torch.ones(num_tokens, dtype=torch.bool) if mask is None else mask,
        entropy_N=torch.zeros(num_tokens),
        index_N=torch.zeros(num_tokens, dtype=torch.int64),
        num_completions=1,
    )
    objective = {"surrogate": {"kind": "ppo_clip", "eps": clip_eps, "eps_high": clip_eps_high}, "kl": {"coef": kl_coef}}
    return Loss(ObjectiveConfig.model_validate(objective))(tokens)


def test_ratio_of_one_token_is_clipped() -> None:
    # ratio 0.7 / 0.5 = 1.4, clipped to 1.2; advantage 1: loss -1.2, and no gradient through a clipped ratio
    policy = torch.tensor([0.7]).log().requires_grad_()
    loss, sums = loss_of(policy, torch.tensor([0.5]).log())
    loss.backward()
    assert loss.item() == pytest.approx(-1.2, abs=1e-6)
    assert policy.grad is not None
    assert policy.grad.item() == 0.0
    assert means(sums.vector)["clip_fraction"] == 1.0
    assert means(sums.vector)["ratio_mean"] == pytest.approx(1.4, abs=1e-6)


def test_a_negative_advantage_is_not_clipped_above() -> None:
    # min(1.4 * -1, 1.2 * -1) = -1.4: the pessimistic branch keeps its gradient, d loss / d log p = 1.4
    policy = torch.tensor([0.7]).log().requires_grad_()
    loss, sums = loss_of(policy, torch.tensor([0.5]).log(), advantages=torch.tensor([-1.0]))
    loss.backward()
    assert loss.item() == pytest.approx(1.4, abs=1e-6)
    assert policy.grad is not None
    assert policy.grad.item() == pytest.approx(1.4, abs=1e-6)
    assert means(sums.vector)["clip_fraction"] == 0.0


def test_the_two_clips_may_differ() -> None:
    # ratio 1.4 under eps_high 0.28: 1.28. Ratio 0.5 with advantage -1 under eps 0.2: min(-0.5, -0.8) = -0.8.
    high, _ = loss_of(torch.tensor([0.7]).log(), torch.tensor([0.5]).log(), clip_eps_high=0.28)
    low, _ = loss_of(
        torch.tensor([0.25]).log(), torch.tensor([0.5]).log(), advantages=torch.tensor([-1.0]), clip_eps_high=0.28
    )
    assert high.item() == pytest.approx(-1.28, abs=1e-6)
    assert low.item() == pytest.approx(0.8, abs=1e-6)


def test_loss_of_two_tokens_by_hand() -> None:
    # rollout logprob -1 for both; ratios 0.5 and 1.5; advantage +1; eps 0.2; beta 0.04; reference = rollout
    # surrogate  min(r*A, clip(r)*A)     = 0.5, 1.2           mean 0.85
    # k3 KL      exp(d) - d - 1, d=-ln r = 0.306853, 0.072132 mean 0.189492
    # loss       -(0.85 - 0.04*0.189492) = -0.842420
    rollout = torch.full((2,), -1.0)
    policy = rollout + torch.tensor([0.5, 1.5]).log()
    loss, sums = loss_of(policy, rollout, ref=rollout, kl_coef=0.04)
    assert loss.item() == pytest.approx(-0.842420, abs=1e-6)
    metrics = means(sums.vector)
    assert metrics["kl_ref"] == pytest.approx(0.189492, abs=1e-6)
    # (r - 1) - ln r: 0.193147 and 0.094535
    assert metrics["kl_rollout"] == pytest.approx((0.193147 + 0.094535) / 2, abs=1e-6)
    assert sums.max_abs_log_ratio.item() == pytest.approx(math.log(2), abs=1e-6)


def test_on_policy_gradient_is_the_advantage_and_the_kl_term() -> None:
    # DeepSeekMath, eq. 21: gradient coefficient A + beta (pi_ref / pi - 1); here 2 + 0.5 (0.25 - 1) = 1.625
    policy = torch.tensor([0.8]).log().requires_grad_()
    loss, _ = loss_of(
        policy,
        policy.detach(),
        ref=torch.tensor([0.2]).log(),
        advantages=torch.tensor([2.0]),
        kl_coef=0.5,
    )
    loss.backward()
    assert policy.grad is not None
    assert policy.grad.item() == pytest.approx(-1.625, abs=1e-6)


def test_a_kl_that_is_only_measured_is_reported_and_has_no_part_in_the_loss() -> None:
    rollout = torch.full((2,), -1.0)
    policy = (rollout + torch.tensor([0.5, 1.5]).log()).requires_grad_()
    loss, sums = loss_of(policy, rollout, ref=rollout, kl_coef=0.0)
    assert loss.item() == pytest.approx(-0.85, abs=1e-6)
    assert means(sums.vector)["kl_ref"] == pytest.approx(0.189492, abs=1e-6)
    assert ObjectiveConfig.model_validate({"kl": {"coef": 0.0, "measure": True}}).needs_reference


@pytest.mark.parametrize("bad", [500.0, -500.0, math.nan, math.inf, -math.inf])
def test_masked_tokens_add_exactly_nothing(bad: float) -> None:
    mask = torch.tensor([True, False])
    rollout = torch.tensor([-1.0, -1.0])
    policy = torch.tensor([-0.9, bad], requires_grad=True)
    loss, sums = loss_of(policy, rollout, ref=torch.tensor([-1.2, bad]), mask=mask, kl_coef=0.1)
    loss.backward()
    alone = torch.tensor([-0.9], requires_grad=True)
    loss_alone, sums_alone = loss_of(
        alone, rollout[:1], ref=torch.tensor([-1.2]), weights=torch.tensor([0.5]), kl_coef=0.1
    )
    loss_alone.backward()
    assert policy.grad is not None
    assert alone.grad is not None
    assert loss.item() == loss_alone.item()
    assert policy.grad.tolist() == [alone.grad.item(), 0.0]
    assert sums.vector.tolist() == sums_alone.vector.tolist()


@pytest.mark.parametrize("log_ratio", [500.0, -500.0])
@pytest.mark.parametrize("advantage", [1.0, -1.0])
def test_extreme_log_ratios_keep_loss_and_gradient_finite(log_ratio: float, advantage: float) -> None:
    policy = torch.tensor([log_ratio], requires_grad=True)
    loss, sums = loss_of(policy, torch.zeros(1), ref=torch.zeros(1), advantages=torch.tensor([advantage]), kl_coef=0.04)
    loss.backward()
    assert policy.grad is not None
    assert math.isfinite(loss.item())
    assert math.isfinite(policy.grad.item())
    assert sums.max_abs_log_ratio.item() == 500.0


def test_an_unmasked_nan_reaches_the_loss() -> None:
    loss, _ = loss_of(torch.tensor([math.nan]), torch.zeros(1))
    assert math.isnan(loss.item())


def test_token_weights_make_the_mean_over_completions() -> None:
    # completions of 1 and 3 trained tokens, N = 2: weights 1/2 and 1/6 each, together 1
    weights = [completion_token_weight(1, 2)] + [completion_token_weight(3, 2)] * 3
    assert sum(weights) == pytest.approx(1.0)
    # advantages 1 and -2, ratio 1: loss = -(1 + -2) / 2 = 0.5, though three of four tokens have -2
    logprobs = torch.full((4,), -1.0)
    loss, _ = loss_of(
        logprobs, logprobs, advantages=torch.tensor([1.0, -2.0, -2.0, -2.0]), weights=torch.tensor(weights)
    )
    assert loss.item() == pytest.approx(0.5, abs=1e-6)


def test_parts_add_up_to_the_whole() -> None:
    generator = torch.Generator().manual_seed(0)
    policy, rollout, ref = (torch.randn(10, generator=generator) - 2 for _ in range(3))
    weights = torch.full((10,), 0.1)
    whole, sums = loss_of(policy, rollout, ref=ref, weights=weights, kl_coef=0.1)
    parts = [
        loss_of(policy[cut], rollout[cut], ref=ref[cut], weights=weights[cut], kl_coef=0.1)
        for cut in (slice(0, 3), slice(3, 4), slice(4, 10))
    ]
    assert sum(loss.item() for loss, _ in parts) == pytest.approx(whole.item(), abs=1e-6)
    added = means(sum((part.vector for _, part in parts), torch.zeros(len(SUM_NAMES), dtype=torch.float64)))
    assert added == pytest.approx(means(sums.vector), rel=1e-12)
