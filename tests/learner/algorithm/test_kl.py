"""Estimates of the KL by hand, and their expectations and expected gradients, exactly, over a small vocabulary.

For a policy p = softmax(theta), an expectation over its tokens is a sum over the vocabulary; that of a gradient too:
sum_v p_v d(term_v) / d theta, with p_v a number.
"""

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from learner.algorithm.kl import estimated_kl, k3_kl
from learner.algorithm.loss import Loss
from learner.objective import ObjectiveConfig
from tests.learner.algorithm.values import tensor, token_values

THETA = tensor([0.3, -1.2, 0.9, 2.0, -0.4])
REFERENCE = torch.log_softmax(tensor([1.1, 0.2, -0.7, 0.4, 0.0]), 0)


def test_estimates_by_hand() -> None:
    # d = ln(0.5 / 0.25) = 0.693147 and ln(0.2 / 0.4) = -0.693147
    policy, ref = tensor([0.5, 0.2]).log(), tensor([0.25, 0.4]).log()
    assert estimated_kl(policy, ref, "k1").tolist() == pytest.approx([0.693147, -0.693147], abs=1e-6)
    assert estimated_kl(policy, ref, "k2").tolist() == pytest.approx([0.240227] * 2, abs=1e-6)
    # e^-d - 1 + d: 0.5 - 1 + 0.693147 and 2 - 1 - 0.693147
    assert estimated_kl(policy, ref, "k3").tolist() == pytest.approx([0.193147, 0.306853], abs=1e-6)


def test_k3_is_never_negative_and_stays_finite() -> None:
    differences = tensor([-500, -20, -1e-9, 0, 1e-9, 20, 500])
    found = k3_kl(differences, torch.zeros_like(differences))
    assert bool((found >= 0).all())
    assert found[3].item() == 0.0
    # -20 bounds: e^20 - 1 - 20, and e^-20 - 1 + 20
    assert found[0].item() == found[1].item() == pytest.approx(math.exp(20) - 21)
    assert found[6].item() == found[5].item() == pytest.approx(19 + math.exp(-20))


def logprobs() -> tuple[Tensor, Tensor]:
    theta = THETA.clone().requires_grad_()
    return theta, torch.log_softmax(theta, 0)


def gradient(value: Tensor, theta: Tensor) -> Tensor:
    return torch.autograd.grad(value, [theta], retain_graph=True)[0]


def kl(from_V: Tensor, to_V: Tensor) -> Tensor:
    return (from_V.exp() * (from_V - to_V)).sum()


def test_k1_and_k3_have_the_expectation_of_the_exact_kl() -> None:
    _, policy = logprobs()
    exact = kl(policy, REFERENCE).item()
    for estimator in ("k1", "k3"):
        expected = (policy.exp() * estimated_kl(policy, REFERENCE, estimator)).sum().item()
        assert expected == pytest.approx(exact, rel=1e-14)


def test_k2_is_biased_and_right_to_second_order() -> None:
    # close to the reference the difference vanishes with the third power of the distance
    def gap(scale: float) -> tuple[float, float]:
        policy = torch.log_softmax(REFERENCE + scale * THETA, 0)
        exact = kl(policy, REFERENCE).item()
        return (policy.exp() * estimated_kl(policy, REFERENCE, "k2")).sum().item() - exact, exact

    (far, exact), (near, _) = gap(0.02), gap(0.01)
    assert 0 < abs(far) < 0.05 * exact
    assert far / near == pytest.approx(8, rel=0.05)


def expected_gradient(term: Callable[[Tensor], Tensor]) -> Tensor:
    """E over tokens of the policy of the gradient of `term` [V]."""
    theta, policy = logprobs()
    return gradient((policy.exp().detach() * term(policy)).sum(), theta)


def test_the_expected_gradient_of_k1_in_the_loss_is_zero() -> None:
    found = expected_gradient(lambda policy: estimated_kl(policy, REFERENCE, "k1"))
    torch.testing.assert_close(found, torch.zeros_like(found), rtol=0, atol=1e-15)


def test_the_expected_gradient_of_k2_is_that_of_policy_against_reference() -> None:
    theta, policy = logprobs()
    expected = gradient(kl(policy, REFERENCE), theta)
    assert expected.abs().max() > 0.1
    found = expected_gradient(lambda policy: estimated_kl(policy, REFERENCE, "k2"))
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-15)


def test_the_expected_gradient_of_k3_is_that_of_reference_against_policy() -> None:
    theta, policy = logprobs()
    expected = gradient(kl(REFERENCE, policy), theta)
    assert expected.abs().max() > 0.1
    found = expected_gradient(lambda policy: estimated_kl(policy, REFERENCE, "k3"))
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-15)


def loss_gradient(kl_fields: dict[str, object], sampler: Tensor) -> Tensor:
    """Expected gradient of the whole loss, over tokens that `sampler` drew, with nothing in it but the KL."""
    theta, policy = logprobs()
    tokens = token_values(
        policy,
        sampler,
        [1] * len(policy),
        ref_N=REFERENCE,
        advantages_N=torch.zeros_like(policy),
        token_weights_N=sampler.exp(),
    )
    objective = ObjectiveConfig.model_validate({"kl": {"coef": 1.0, **kl_fields}})
    return gradient(Loss(objective)(tokens)[0], theta)


def test_the_unbiased_k3_has_the_gradient_of_policy_against_reference_whoever_sampled() -> None:
    theta, policy = logprobs()
    expected = gradient(kl(policy, REFERENCE), theta)
    for sampler in (policy.detach(), torch.log_softmax(tensor([0.1, 0.4, 0.2, 1.0, -1.0]), 0)):
        found = loss_gradient({"unbiased": True}, sampler)
        torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-15)


def test_the_loss_has_the_gradients_of_its_estimators() -> None:
    theta, policy = logprobs()
    forward, reverse = gradient(kl(policy, REFERENCE), theta), gradient(kl(REFERENCE, policy), theta)
    torch.testing.assert_close(loss_gradient({"estimator": "k2"}, policy.detach()), forward, rtol=1e-12, atol=1e-15)
    torch.testing.assert_close(loss_gradient({}, policy.detach()), reverse, rtol=1e-12, atol=1e-15)


def test_k1_in_the_reward_has_the_gradient_of_policy_against_reference() -> None:
    # REINFORCE with the reward -k1: sum_v p_v (-k1_v) d log p_v, to be maximised
    theta, policy = logprobs()
    expected = gradient(kl(policy, REFERENCE), theta)
    advantages = -estimated_kl(policy.detach(), REFERENCE, "k1")
    tokens = token_values(
        policy, policy.detach(), [1] * 5, advantages_N=advantages, token_weights_N=policy.detach().exp()
    )
    objective = ObjectiveConfig.model_validate({"surrogate": {"kind": "policy_gradient"}, "kl": {"coef": 0}})
    torch.testing.assert_close(gradient(Loss(objective)(tokens)[0], theta), expected, rtol=1e-12, atol=1e-15)
