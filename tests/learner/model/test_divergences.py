"""Divergences against plain autograd, finite differences, sums by hand, and the expectation of what is sampled."""

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from learner.model.divergences import Comparison, Predictions, divergence, divergence_from_logits

N, H, V = 7, 6, 11
KINDS: list[Any] = ["forward", "reverse", "jsd"]


def tensors(*, bias: bool = False, dtype: torch.dtype = torch.float64) -> dict[str, Tensor | None]:
    generator = torch.Generator().manual_seed(3)

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64).to(dtype)

    return {
        "hidden_NH": draw(N, H).requires_grad_(),
        "weight_VH": draw(V, H).requires_grad_(),
        "bias_V": draw(V).requires_grad_() if bias else None,
        "other_NH": draw(N, H + 1),
        "other_VH": draw(V, H + 1),
        "other_V": draw(V) if bias else None,
    }


def others(of: dict[str, Any], *, as_logits: bool = False) -> Predictions:
    if as_logits:
        return Predictions(
            states_N=functional.linear(of["other_NH"], of["other_VH"], of["other_V"]).detach(), is_logits=True
        )
    return Predictions(states_N=of["other_NH"], weight_VH=of["other_VH"], bias_V=of["other_V"])


def plain(of: dict[str, Any], kind: str, beta: float, temperature: float) -> Tensor:
    """By torch's own kl_div, whose first argument is the log of what is compared with."""
    p = (functional.linear(of["hidden_NH"], of["weight_VH"], of["bias_V"]) / temperature).log_softmax(-1)
    q = (functional.linear(of["other_NH"], of["other_VH"], of["other_V"]) / temperature).log_softmax(-1)

    def kl(first: Tensor, second: Tensor) -> Tensor:
        return functional.kl_div(second, first, log_target=True, reduction="none").sum(-1)

    if kind == "forward":
        return kl(q, p)
    if kind == "reverse":
        return kl(p, q)
    m = (beta * q.exp() + (1 - beta) * p.exp()).log()
    return beta * kl(q, m) + (1 - beta) * kl(p, m)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("as_logits", [False, True])
@pytest.mark.parametrize("chunk_elements", [1, 3 * V, 10**6])
def test_values_and_gradients_are_those_of_the_plain_formula(
    kind: Any, bias: bool, as_logits: bool, chunk_elements: int
) -> None:
    of: dict[str, Any] = tensors(bias=bias)
    upstream_N = torch.linspace(-1, 2, N, dtype=torch.float64)
    wanted = [of["hidden_NH"], of["weight_VH"], *([of["bias_V"]] if bias else [])]
    expected_N = plain(of, kind, 0.3, 0.7)
    expected = torch.autograd.grad((expected_N * upstream_N).sum(), wanted)

    comparison = Comparison(kind=kind, beta=0.3, other=others(of, as_logits=as_logits))
    found_N = divergence(
        of["hidden_NH"],
        of["weight_VH"],
        of["bias_V"],
        comparison,
        temperature=0.7,
        dtype=torch.float64,
        chunk_elements=chunk_elements,
    )
    grads = torch.autograd.grad((found_N * upstream_N).sum(), wanted)
    torch.testing.assert_close(found_N, expected_N, rtol=1e-12, atol=1e-12)
    for grad, expected_grad in zip(grads, expected, strict=True):
        torch.testing.assert_close(grad, expected_grad, rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("as_logits", [False, True])
def test_logits_of_a_model_give_the_same(kind: Any, as_logits: bool) -> None:
    of: dict[str, Any] = tensors(bias=True)
    comparison = Comparison(kind=kind, beta=0.8, other=others(of, as_logits=as_logits))
    logits_NV = functional.linear(of["hidden_NH"], of["weight_VH"], of["bias_V"])
    found_N = divergence_from_logits(logits_NV, comparison, temperature=1.3)
    expected_N = plain(of, kind, 0.8, 1.3)
    torch.testing.assert_close(found_N, expected_N, rtol=1e-12, atol=1e-12)
    (grad,) = torch.autograd.grad(found_N.sum(), [of["hidden_NH"]])
    (expected,) = torch.autograd.grad(expected_N.sum(), [of["hidden_NH"]])
    torch.testing.assert_close(grad, expected, rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_are_those_of_finite_differences(kind: Any) -> None:
    of: dict[str, Any] = tensors(bias=True)
    comparison = Comparison(kind=kind, beta=0.25, other=others(of))

    def value(hidden_NH: Tensor, weight_VH: Tensor, bias_V: Tensor) -> Tensor:
        return divergence(
            hidden_NH, weight_VH, bias_V, comparison, temperature=0.9, dtype=torch.float64, chunk_elements=2 * V
        )

    assert torch.autograd.gradcheck(value, (of["hidden_NH"], of["weight_VH"], of["bias_V"]), eps=1e-6, atol=1e-8)


def test_one_number_by_hand() -> None:
    # p = (3/4, 1/4), q = (1/2, 1/2): KL(p || q) = 0.75 ln 1.5 + 0.25 ln 0.5, KL(q || p) = 0.5 ln(2/3) + 0.5 ln 2;
    # m = (5/8, 3/8) for beta = 1/2: 0.5 (0.5 ln 0.8 + 0.5 ln 4/3) + 0.5 (0.75 ln 1.2 + 0.25 ln 2/3)
    student, teacher = torch.tensor([[3.0, 1.0]]).log(), torch.tensor([[1.0, 1.0]]).log()
    by_hand = {"reverse": 0.1308120, "forward": 0.1438410, "jsd": 0.0338221}
    for kind, expected in by_hand.items():
        comparison: Any = Comparison(
            kind=kind,  # type: ignore[arg-type]
            other=Predictions(states_N=teacher, is_logits=True),
        )
        assert divergence_from_logits(student, comparison, temperature=1.0).item() == pytest.approx(expected, abs=1e-6)


def test_the_exact_reverse_kl_is_the_expectation_of_its_sampled_form() -> None:
    """Over every token of the vocabulary: of the value log p - log q, and of the gradient that the advantage
    log q - log p gives each sampled token's log-probability."""
    of: dict[str, Any] = tensors(bias=True)
    comparison = Comparison(kind="reverse", other=others(of))
    exact_N = divergence(
        of["hidden_NH"], of["weight_VH"], of["bias_V"], comparison, temperature=0.8, dtype=torch.float64
    )
    (exact_grad,) = torch.autograd.grad(exact_N.sum(), [of["weight_VH"]])

    p = (functional.linear(of["hidden_NH"], of["weight_VH"], of["bias_V"]) / 0.8).log_softmax(-1)
    q = (functional.linear(of["other_NH"], of["other_VH"], of["other_V"]) / 0.8).log_softmax(-1)
    expected_N, expected_grad = torch.zeros(N, dtype=torch.float64), torch.zeros_like(exact_grad)
    for token in range(V):
        probability_N, advantage_N = p[:, token].detach().exp(), (q - p)[:, token].detach()
        expected_N += probability_N * -advantage_N
        loss = -(probability_N * advantage_N * p[:, token]).sum()
        expected_grad += torch.autograd.grad(loss, [of["weight_VH"]], retain_graph=True)[0]
    torch.testing.assert_close(exact_N, expected_N, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(exact_grad, expected_grad, rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("kind", KINDS)
def test_the_students_own_matrix_stands_in_and_has_no_gradient_of_the_other_side(kind: Any) -> None:
    of: dict[str, Any] = tensors()
    states_NH = torch.roll(of["hidden_NH"].detach(), 1, 0)
    own = Comparison(kind=kind, other=Predictions(states_N=states_NH))
    given = Comparison(kind=kind, other=Predictions(states_N=states_NH, weight_VH=of["weight_VH"].detach().clone()))
    grads = []
    for comparison in (own, given):
        found_N = divergence(of["hidden_NH"], of["weight_VH"], None, comparison, temperature=1.0, dtype=torch.float64)
        assert bool((found_N > 0).all())
        grads.append(torch.autograd.grad(found_N.sum(), [of["hidden_NH"], of["weight_VH"]]))
    for ours, theirs in zip(*grads, strict=True):
        assert torch.equal(ours, theirs)


@pytest.mark.parametrize("kind", KINDS)
def test_equal_distributions_diverge_by_nothing_and_ruled_out_tokens_add_nothing(kind: Any) -> None:
    logits = torch.tensor([[0.5, -torch.inf, 1.0, -2.0]], dtype=torch.float64, requires_grad=True)
    same: Any = Comparison(kind=kind, other=Predictions(states_N=logits.detach(), is_logits=True))
    found = divergence_from_logits(logits, same, temperature=1.0)
    (grad,) = torch.autograd.grad(found.sum(), [logits])
    assert found.item() == pytest.approx(0.0, abs=1e-15)
    assert grad.abs().max().item() < 1e-15


@pytest.mark.parametrize("kind", KINDS)
def test_bfloat16_products_keep_fp32_sums(kind: Any) -> None:
    of: dict[str, Any] = tensors(dtype=torch.float32)
    comparison = Comparison(kind=kind, other=others(of))
    exact_N = divergence(of["hidden_NH"], of["weight_VH"], None, comparison, temperature=1.0, dtype=torch.float32)
    rounded_N = divergence(of["hidden_NH"], of["weight_VH"], None, comparison, temperature=1.0, dtype=torch.bfloat16)
    (grad_VH,) = torch.autograd.grad(rounded_N.sum(), [of["weight_VH"]])
    assert rounded_N.dtype is exact_N.dtype is grad_VH.dtype is torch.float32
    assert 0 < (rounded_N - exact_N).abs().max().item() < 0.1
