"""Gradients of the loss against central differences of its value, in float64 and away from kinks.

What has a stop-gradient has no value whose difference is its gradient: CISPO and GSPO-token are compared with the
gradient that they are defined by, written out.
"""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from learner.algorithm.corrections import Corrected
from learner.algorithm.loss import Loss
from learner.algorithm.tokens import TokenValues
from learner.model.logprobs import logprobs_from_logits, token_logprobs
from learner.objective import ObjectiveConfig
from tests.learner.algorithm.values import index_of, tensor, token_values

LENGTHS = [3, 1, 4]
NUM = sum(LENGTHS)
STEP = 1e-6
POLICY = tensor([-1.0, -0.7, -2.0, -0.4, -1.5, -0.9, -0.2, -3.0])
GAPS = tensor([0.31, -0.43, 0.05, 0.52, -0.07, -0.61, 0.11, 0.38])
"""Log-ratios to the sampler: ratios 1.36, 0.65, 1.05, 1.68, 0.93, 0.54, 1.12, 1.46; none is near a bound of a clip."""
MASK = torch.tensor([True, True, True, True, True, False, True, True])
CORRECTED = Corrected(
    weights_N=tensor([1.0, 0.5, 2.0, 1.5, 0.7, 1.0, 1.2, 0.9]),
    keep_N=torch.tensor([True, True, True, True, False, True, True, True]),
)


def values(policy_N: Tensor, **others: Any) -> TokenValues:
    defaults: dict[str, Any] = {
        "ref_N": POLICY - tensor([0.4, -0.3, 0.2, 0.9, -0.8, 0.1, 0.6, -0.5]),
        "advantages_N": tensor([1.3, 1.3, 1.3, -0.8, 0.6, 0.6, 0.6, 0.6]),
        "token_weights_N": tensor([1 / 9] * 3 + [1 / 3] + [1 / 9] * 4),
        "mask_N": MASK,
        "entropy_N": tensor([0.5, 1.0, 1.5, 2.0, 0.1, 0.2, 0.3, 0.4]),
        "before_N": POLICY - 0.5 * GAPS,
        "lag_N": tensor([0, 1, 2, 3, 0, 1, 2, 3]),
    }
    return token_values(policy_N, POLICY - GAPS, LENGTHS, **{**defaults, **others})


def differences(value: Callable[[Tensor], Tensor], at_N: Tensor) -> Tensor:
    """[N] central differences."""
    steps = STEP * torch.eye(len(at_N), dtype=at_N.dtype)
    return torch.stack([(value(at_N + step) - value(at_N - step)) / (2 * STEP) for step in steps]).detach()


def check(value: Callable[[Tensor], Tensor], at_N: Tensor) -> Tensor:
    """The gradient, which is that of the differences."""
    leaf = at_N.clone().requires_grad_()
    (grad_N,) = torch.autograd.grad(value(leaf), [leaf])
    torch.testing.assert_close(grad_N, differences(value, at_N), rtol=1e-6, atol=1e-8)
    return grad_N


SURROGATES: list[dict[str, Any]] = [
    {"kind": "ppo_clip"},
    {"kind": "ppo_clip", "eps": 0.3, "eps_high": 0.5},
    {"kind": "ppo_clip", "dual_clip": 1.5},
    {"kind": "ppo_clip", "delta": 1.6},
    {"kind": "ppo_clip", "level": "sequence"},
    {"kind": "ppo_clip", "level": "sequence", "eps": 0.01},
    {"kind": "gmpo"},
    {"kind": "gmpo", "eps": 0.1, "eps_high": 0.35},
    {"kind": "sapo"},
    {"kind": "sapo", "tau": 2.0, "tau_negative": 0.5},
    {"kind": "dppo", "threshold": 0.1},
    {"kind": "dppo", "divergence": "kl", "threshold": 0.02},
    {"kind": "policy_gradient"},
]


@pytest.mark.parametrize("surrogate", SURROGATES)
@pytest.mark.parametrize("proximal", ["sampler", "recomputed"])
@pytest.mark.parametrize("corrected", [Corrected(), CORRECTED])
@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_surrogates(surrogate: dict[str, Any], proximal: str, corrected: Corrected, sign: float) -> None:
    loss = Loss(ObjectiveConfig.model_validate({"surrogate": surrogate, "proximal": proximal, "kl": {"coef": 0}}))
    advantages = sign * values(POLICY).advantages_N
    grad_N = check(lambda policy_N: loss(values(policy_N, advantages_N=advantages), corrected)[0], POLICY)
    assert grad_N[~MASK].tolist() == [0.0]
    assert grad_N.abs().max() > 0


@pytest.mark.parametrize(
    "kl",
    [
        {"estimator": "k2"},
        {"estimator": "k3"},
        {"estimator": "k3", "unbiased": True},
    ],
)
@pytest.mark.parametrize("surrogate", [{"kind": "ppo_clip"}, {"kind": "sapo"}])
def test_estimates_of_the_kl(kl: dict[str, Any], surrogate: dict[str, Any]) -> None:
    loss = Loss(ObjectiveConfig.model_validate({"surrogate": surrogate, "kl": {"coef": 0.7, **kl}}))
    with_kl = check(lambda policy_N: loss(values(policy_N))[0], POLICY)
    without = Loss(ObjectiveConfig.model_validate({"surrogate": surrogate, "kl": {"coef": 0}}))
    assert (with_kl - check(lambda policy_N: without(values(policy_N))[0], POLICY)).abs().max() > 1e-3


def test_the_unbiased_k3_by_its_definition() -> None:
    # d (r k3) / d log p = r k3 + r (1 - e^-d), with r the ratio to the sampler; weighted, to be minimised
    objective = {"surrogate": {"kind": "policy_gradient"}, "kl": {"coef": 1.0, "unbiased": True}}
    tokens = values(POLICY.clone().requires_grad_(), advantages_N=torch.zeros(NUM, dtype=torch.float64))
    (grad_N,) = torch.autograd.grad(Loss(ObjectiveConfig.model_validate(objective))(tokens)[0], [tokens.policy_N])
    assert tokens.ref_N is not None
    d = POLICY - tokens.ref_N
    expected = GAPS.exp() * ((torch.exp(-d) - 1 + d) + 1 - torch.exp(-d)) * tokens.token_weights_N * MASK
    torch.testing.assert_close(grad_N, expected, rtol=1e-12, atol=1e-15)


def test_an_exact_kl_and_the_entropy_are_weighted_like_the_surrogate() -> None:
    loss = Loss(ObjectiveConfig.model_validate({"kl": {"coef": 0.3, "estimator": "exact"}, "entropy": {"coef": 0.2}}))
    divergence_N = tensor([0.1, 0.4, 0.2, 0.0, 0.3, 0.9, 0.5, 0.6])
    grad_N = check(lambda of_N: loss(values(POLICY, divergence_N=of_N))[0], divergence_N)
    weights_N = values(POLICY).token_weights_N * MASK
    torch.testing.assert_close(grad_N, 0.3 * weights_N, rtol=1e-12, atol=1e-15)
    grad_N = check(lambda of_N: loss(values(POLICY, divergence_N=divergence_N, entropy_N=of_N))[0], divergence_N)
    torch.testing.assert_close(grad_N, -0.2 * weights_N, rtol=1e-12, atol=1e-15)

    # the coefficient of an update stands before that of the configuration, 0 included
    def with_coef(of_N: Tensor, coef: float) -> Tensor:
        return loss(values(POLICY, divergence_N=divergence_N, entropy_N=of_N), entropy_coef=coef)[0]

    grad_N = check(lambda of_N: with_coef(of_N, 0.5), divergence_N)
    torch.testing.assert_close(grad_N, -0.5 * weights_N, rtol=1e-12, atol=1e-15)
    assert not with_coef(divergence_N.clone().requires_grad_(), 0.0).requires_grad


def gradient(surrogate: dict[str, Any], **others: Any) -> Tensor:
    tokens = values(POLICY.clone().requires_grad_(), **others)
    loss = Loss(ObjectiveConfig.model_validate({"surrogate": surrogate, "kl": {"coef": 0}}))
    return torch.autograd.grad(loss(tokens)[0], [tokens.policy_N])[0]


def test_cispo_by_its_definition() -> None:
    # - weight sg[clip(r, 0.6, 1.4)] A: also where the ratio is outside
    weights_N, advantages_N = values(POLICY).token_weights_N, values(POLICY).advantages_N
    expected = -weights_N * GAPS.exp().clamp(0.6, 1.4) * advantages_N * MASK
    found = gradient({"kind": "cispo", "floor": 0.6, "cap": 1.4})
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-15)


def test_gspo_token_by_its_definition() -> None:
    # - weight s A_t of each token, s the geometric mean of the trained ratios; 0 where s A is above its clip.
    # Log-means -0.0233, 0.52 and (-0.07 + 0.11 + 0.38) / 3 = 0.14: s = 0.977, 1.682, 1.150 within 1 +- 0.2 but for the
    # second, whose advantage is negative: it is not held above.
    advantages_N = tensor([1.3, 0.2, -0.4, -0.8, 0.6, 0.6, -0.6, 0.9])
    means = tensor([(0.31 - 0.43 + 0.05) / 3, 0.52, (-0.07 + 0.11 + 0.38) / 3])
    s_N = means.exp()[index_of(LENGTHS)]
    expected = -values(POLICY).token_weights_N * s_N * advantages_N * MASK
    found = gradient({"kind": "ppo_clip", "level": "sequence_token"}, advantages_N=advantages_N)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-15)


def test_gspo_and_its_token_form_agree_where_a_completion_has_one_advantage() -> None:
    sequence = gradient({"kind": "ppo_clip", "level": "sequence"}, mask_N=torch.ones(NUM, dtype=torch.bool))
    token = gradient({"kind": "ppo_clip", "level": "sequence_token"}, mask_N=torch.ones(NUM, dtype=torch.bool))
    torch.testing.assert_close(sequence, token, rtol=1e-12, atol=1e-15)


def test_an_interpolated_anchor_has_no_gradient() -> None:
    # log r = (policy - sampler) / lag, and d loss / d log p = - weight r A: the anchor counts as a number
    lag = tensor([1, 1, 2, 3, 1, 1, 2, 4])
    tokens = values(POLICY.clone().requires_grad_(), lag_N=lag)
    objective = {"surrogate": {"kind": "policy_gradient"}, "proximal": "interpolated", "kl": {"coef": 0}}
    (grad_N,) = torch.autograd.grad(Loss(ObjectiveConfig.model_validate(objective))(tokens)[0], [tokens.policy_N])
    expected = -tokens.token_weights_N * (GAPS / lag).exp() * tokens.advantages_N * MASK
    torch.testing.assert_close(grad_N, expected, rtol=1e-12, atol=1e-15)


VOCABULARY, WIDTH = 7, 5
TARGETS = torch.tensor([0, 3, 6, 2, 1, 1, 5, 4])


def parameters() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(3)
    hidden = torch.randn(NUM, WIDTH, generator=generator, dtype=torch.float64)
    # 0.3: near enough to the references that no e^d of k3 is so large that its rounding is all of a difference
    return hidden, 0.3 * torch.randn(VOCABULARY, WIDTH, generator=generator, dtype=torch.float64)


def whole_loss(policy_N: Tensor, entropy_N: Tensor) -> Tensor:
    """Everything at once: a clip, k3 and an entropy bonus."""
    loss = Loss(ObjectiveConfig.model_validate({"kl": {"coef": 0.3}, "entropy": {"coef": 0.2}}))
    dtype = policy_N.dtype
    tokens = token_values(
        policy_N,
        (POLICY - 1.0).to(dtype),
        LENGTHS,
        ref_N=(POLICY - 0.8).to(dtype),
        advantages_N=values(POLICY).advantages_N.to(dtype),
        token_weights_N=values(POLICY).token_weights_N.to(dtype),
        mask_N=MASK,
        entropy_N=entropy_N,
    )
    return loss(tokens, Corrected())[0]


def plain(hidden: Tensor, weight: Tensor, temperature: float) -> Tensor:
    """By autograd through a softmax over all logits, in float64."""
    logprobs_NV = torch.log_softmax(hidden @ weight.T / temperature, dim=-1)
    entropy_N = -(logprobs_NV.exp() * logprobs_NV).sum(-1)
    return whole_loss(logprobs_NV[torch.arange(NUM), TARGETS], entropy_N)


def test_the_whole_loss_by_its_parameters() -> None:
    hidden, weight = parameters()
    value: Callable[[Tensor], Tensor] = lambda flat: plain(hidden, flat.view(VOCABULARY, WIDTH), 0.7)  # noqa: E731
    check(value, weight.flatten())


@pytest.mark.parametrize("chunk_elements", [1, 3 * VOCABULARY, 10**6])
def test_log_probabilities_in_chunks_give_the_loss_the_same_gradient(chunk_elements: int) -> None:
    hidden, weight = (part.requires_grad_() for part in parameters())
    expected = torch.autograd.grad(plain(hidden, weight, 0.7), [hidden, weight])
    found_N = token_logprobs(
        hidden.float(),
        weight.float(),
        None,
        TARGETS,
        temperature=0.7,
        dtype=torch.float32,
        entropy_grad=True,
        chunk_elements=chunk_elements,
    )
    found = torch.autograd.grad(whole_loss(*found_N), [hidden, weight])
    for grad, wanted in zip(found, expected, strict=True):
        torch.testing.assert_close(grad, wanted, rtol=1e-4, atol=2e-6)


def test_log_probabilities_from_logits_give_the_loss_the_same_gradient() -> None:
    hidden, weight = (part.requires_grad_() for part in parameters())
    expected = torch.autograd.grad(plain(hidden, weight, 0.7), [hidden, weight])
    found_N = logprobs_from_logits(hidden @ weight.T, TARGETS, temperature=0.7, entropy_grad=True)
    found = torch.autograd.grad(whole_loss(*found_N), [hidden, weight])
    for grad, wanted in zip(found, expected, strict=True):
        torch.testing.assert_close(grad, wanted, rtol=1e-4, atol=2e-6)


def test_the_entropy_alone_has_the_gradient_of_the_softmax() -> None:
    # d H / d z_v = - p_v (log p_v + H), over temperature
    hidden, weight = parameters()
    logits = (hidden @ weight.T).float().requires_grad_()
    logprobs = torch.log_softmax(logits.detach() / 0.7, dim=-1)
    entropy = -(logprobs.exp() * logprobs).sum(-1, keepdim=True)
    expected = -logprobs.exp() * (logprobs + entropy) / 0.7
    entropy_N = logprobs_from_logits(logits, TARGETS, temperature=0.7, entropy_grad=True)[1]
    torch.testing.assert_close(torch.autograd.grad(entropy_N.sum(), [logits])[0], expected, rtol=1e-4, atol=1e-6)
    eye = torch.eye(VOCABULARY)
    entropy_N = token_logprobs(logits, eye, None, TARGETS, temperature=0.7, dtype=torch.float32, entropy_grad=True)[1]
    torch.testing.assert_close(torch.autograd.grad(entropy_N.sum(), [logits])[0], expected, rtol=1e-4, atol=1e-6)


def test_without_being_asked_the_entropy_has_no_gradient() -> None:
    hidden, weight = (part.float().requires_grad_() for part in parameters())
    assert not logprobs_from_logits(hidden @ weight.T, TARGETS, temperature=1.0)[1].requires_grad
    assert not token_logprobs(hidden, weight, None, TARGETS, temperature=1.0, dtype=torch.float32)[1].requires_grad
