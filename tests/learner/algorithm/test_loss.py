import math

import pytest
import torch
from torch import Tensor

from learner.algorithm.aggregation import completion_token_weight
from learner.algorithm.corrections import Corrected
from learner.algorithm.distillation import sampled_kl, taught_advantages
from learner.algorithm.loss import SUM_NAMES, Loss, LossSums, anchor_of, means
from learner.algorithm.tokens import TokenValues
from learner.objective import ObjectiveConfig
from learner.teacher import TeacherConfig
from tests.learner.algorithm.values import tensor, token_values


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


def scene(**others: object) -> TokenValues:
    """Two completions of 2 and 1 tokens: ratios to the sampler 2, 0.5 and 1; the last token is not trained on."""
    sampler = tensor([-2.0, -1.0, -1.0, -5.0])
    policy = sampler + tensor([2.0, 0.5, 1.0, 1.0]).log()
    defaults: dict[str, object] = {
        "advantages_N": tensor([1, 1, -1, 9]),
        "token_weights_N": tensor([0.25, 0.25, 0.5, 9]),
        "mask_N": torch.tensor([True, True, True, False]),
        "entropy_N": tensor([1.0, 2.0, 4.0, math.nan]),
    }
    return token_values(policy.requires_grad_(), sampler, [2, 2], **{**defaults, **others})


def value(fields: dict[str, object], tokens: TokenValues, corrected: Corrected = Corrected()) -> tuple[float, LossSums]:  # noqa: B008
    loss, sums = Loss(ObjectiveConfig.model_validate({"kl": {"coef": 0}, **fields}))(tokens, corrected)
    return loss.item(), sums


def test_corrections_weigh_and_leave_out_the_surrogate_alone() -> None:
    # surrogates 1.2, 0.5, -1 of weights 1/4, 1/4, 1/2: loss -(0.3 + 0.125 - 0.5) = 0.075
    assert value({}, scene())[0] == pytest.approx(0.075)
    # weights 2, 1, 0.5; the second left out: -(0.6 + 0 - 0.25) = -0.35
    corrected = Corrected(weights_N=tensor([2, 1, 0.5, 7]), keep_N=torch.tensor([True, False, True, False]))
    loss, sums = value({}, scene(), corrected)
    assert loss == pytest.approx(-0.35)
    # means over three trained tokens: 3.5 / 3, and one of them left out
    assert means(sums.vector)["correction_weight"] == pytest.approx(3.5 / 3)
    assert means(sums.vector)["masked_fraction"] == pytest.approx(1 / 3)
    # KL and entropy of a token that is left out stay: - 0.1 * (1/4 + 2/4 + 4/2) = -0.275
    loss, _ = value({"entropy": {"coef": 0.1}}, scene(), corrected)
    assert loss == pytest.approx(-0.35 - 0.275)
    # d of the reference: policy - ref = 1 everywhere: k2 = 0.5, weights add up to 1: 0.2 * 0.5
    with_ref = scene(ref_N=scene().policy_N.detach() - 1)
    loss, sums = value({"kl": {"coef": 0.2, "estimator": "k2"}}, with_ref, corrected)
    assert loss == pytest.approx(-0.35 + 0.1)
    assert means(sums.vector)["kl_ref"] == pytest.approx(0.5)


def test_a_kl_in_the_reward_is_reported_and_not_in_the_loss() -> None:
    tokens = scene(ref_N=scene().policy_N.detach() - 1)
    loss, sums = value(
        {"kl": {"coef": 0.2, "estimator": "k1", "place": "reward"}, "advantage": {"kind": "group", "scale": "none"}},
        tokens,
    )
    assert loss == pytest.approx(0.075)
    assert means(sums.vector)["kl_ref"] == pytest.approx(1.0)


def test_an_exact_kl_is_taken_as_it_comes() -> None:
    # 0.2 * (0.5 / 4 + 0.3 / 4 + 1 / 2)
    tokens = scene(divergence_N=tensor([0.5, 0.3, 1.0, math.inf]))
    loss, sums = value({"kl": {"coef": 0.2, "estimator": "exact"}}, tokens)
    assert loss == pytest.approx(0.075 + 0.14)
    assert means(sums.vector)["kl_ref"] == pytest.approx(0.6)


def test_an_exact_divergence_from_a_teacher_is_a_loss_and_a_sampled_one_a_figure() -> None:
    # 2 * (0.5 / 4 + 0.3 / 4 + 1 / 2)
    tokens = scene(teacher_kl_N=tensor([0.5, 0.3, 1.0, math.inf]))
    for kind, expected in (("forward", 0.075 + 1.4), ("sampled", 0.075)):
        teacher = TeacherConfig.model_validate({"path": "t", "kind": kind, "coef": 2.0})
        loss, sums = Loss(ObjectiveConfig.model_validate({"kl": {"coef": 0.0}}), teacher)(tokens)
        assert float(loss) == pytest.approx(expected)
        assert means(sums.vector)["teacher_kl"] == pytest.approx(0.6)


def test_a_teachers_advantage_is_its_log_ratio_within_bounds() -> None:
    before_N, teacher_N = tensor([-1.0, -2.0, -1.0]), tensor([-0.5, -3.0, -math.inf])
    kl_N = sampled_kl(before_N, teacher_N)
    assert kl_N.tolist() == pytest.approx([-0.5, 1.0, 20.0])
    assert taught_advantages(tensor([1.0, 0.0, 0.0]), kl_N, 0.5).tolist() == pytest.approx([1.25, -0.5, -10.0])


def test_an_unbiased_k3_is_multiplied_by_the_ratio() -> None:
    # d = 1: k3 = e^-1; ratios 2, 0.5, 1 of weights 1/4, 1/4, 1/2: 1.125 e^-1 = 0.413864
    tokens = scene(ref_N=scene().policy_N.detach() - 1)
    loss, _ = value({"kl": {"coef": 1.0, "unbiased": True}}, tokens)
    assert loss == pytest.approx(0.075 + 0.413864, abs=1e-6)


def test_sums_by_hand() -> None:
    _, sums = value({}, scene())
    found = dict(zip(SUM_NAMES, sums.vector.tolist(), strict=True))
    assert found == pytest.approx(
        {
            "num_tokens": 3,
            "ratio_mean": 3.5,  # 2 + 0.5 + 1
            "ratio_square": 5.25,  # 4 + 0.25 + 1
            "clip_fraction_low": 0,
            "clip_fraction_high": 1,
            "kl_ref": 0,
            "kl_rollout": 0.5,  # (1 - ln 2) + (-0.5 + ln 2) + 0
            "entropy": 7,
            "correction_weight": 3,
            "masked_fraction": 0,
            "teacher_kl": 0,
        }
    )
    assert sums.max_abs_log_ratio.item() == pytest.approx(math.log(2))
    assert not sums.vector.requires_grad
    metrics = means(sums.vector)
    assert metrics["ratio_std"] == pytest.approx(math.sqrt(5.25 / 3 - (3.5 / 3) ** 2))
    assert metrics["effective_sample_size"] == pytest.approx(3.5**2 / (3 * 5.25))
    assert metrics["clip_fraction"] == pytest.approx(1 / 3)
    assert "ratio_square" not in metrics
    assert "num_tokens" not in metrics


def test_both_clips_are_counted() -> None:
    # ratios 2 and 1 as before, and 0.5 held below by a negative advantage
    _, sums = value({}, scene(advantages_N=tensor([1, -1, -1, 9])))
    metrics = means(sums.vector)
    assert metrics["clip_fraction_low"] == metrics["clip_fraction_high"] == pytest.approx(1 / 3)
    assert metrics["clip_fraction"] == pytest.approx(2 / 3)


def test_sums_of_nothing() -> None:
    assert means(torch.zeros(len(SUM_NAMES), dtype=torch.float64)) == {}
    nothing = tensor([])
    tokens = token_values(nothing, nothing, [])
    loss, sums = value({}, tokens)
    assert loss == 0.0
    assert sums.max_abs_log_ratio.item() == 0.0
    # a ratio of exactly one everywhere has no spread, whatever rounding says of a difference of squares
    ones = torch.zeros(len(SUM_NAMES), dtype=torch.float64)
    ones[:3] = tensor([3, 3, 3 - 1e-12])
    assert means(ones)["ratio_std"] == 0.0
    ones[1:3] = 0.0
    assert means(ones)["effective_sample_size"] == 0.0


SAMPLER, BEFORE = tensor([-1.0, -2.0, -3.0]), tensor([-1.1, -2.1, -3.1])
NOW = tensor([-1.5, -2.6, -3.9])


@pytest.mark.parametrize(
    ("proximal", "others", "expected"),
    [
        ("sampler", {}, SAMPLER),
        ("recomputed", {"before_N": BEFORE}, BEFORE),
        ("recomputed", {}, NOW),
        # lags 0 and 1 take the sampler, lag 4 a quarter of it: -3 / 4 - 3.9 * 3 / 4 = -3.675
        ("interpolated", {"lag_N": tensor([0, 1, 4])}, tensor([-1.0, -2.0, -3.675])),
        ("interpolated", {"lag_N": tensor([2, 2, 2]), "before_N": BEFORE}, tensor([-1.25, -2.3, -3.45])),
        ("interpolated", {}, SAMPLER),
    ],
)
def test_what_a_ratio_is_against(proximal: str, others: dict[str, object], expected: Tensor) -> None:
    tokens = token_values(NOW.clone().requires_grad_(), SAMPLER, [3], **others)
    found = anchor_of(tokens, ObjectiveConfig.model_validate({"proximal": proximal}))
    assert found.tolist() == pytest.approx(expected.tolist(), rel=1e-15)
    assert not found.requires_grad


def test_gap_and_maximum_are_to_the_sampler_whatever_the_ratio_is_against() -> None:
    tokens = token_values(NOW.clone().requires_grad_(), SAMPLER, [3], before_N=BEFORE)
    _, sums = value({"proximal": "recomputed", "surrogate": {"kind": "policy_gradient"}}, tokens)
    assert sums.max_abs_log_ratio.item() == pytest.approx(0.9)
    assert means(sums.vector)["ratio_mean"] == pytest.approx((NOW - SAMPLER).exp().mean().item())


def test_sums_of_another_length_are_refused() -> None:
    with pytest.raises(ValueError, match="zip"):
        means(torch.ones(len(SUM_NAMES) - 1, dtype=torch.float64))
