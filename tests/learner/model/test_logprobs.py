import pytest
import torch

from learner.model.logprobs import logprobs_from_logits, token_logprobs

N, H, V = 13, 8, 11


def inputs(*, bias: bool) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    hidden_NH = torch.randn(N, H, generator=generator).requires_grad_()
    weight_VH = torch.randn(V, H, generator=generator).requires_grad_()
    bias_V = torch.randn(V, generator=generator).requires_grad_() if bias else None
    return hidden_NH, weight_VH, bias_V, torch.randint(V, (N,), generator=generator)


@pytest.mark.parametrize("temperature", [1.0, 0.7])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("chunk_elements", [1, 4 * V, 10**6])
def test_values_and_gradients_equal_plain_log_softmax(temperature: float, bias: bool, chunk_elements: int) -> None:
    hidden_NH, weight_VH, bias_V, targets_N = inputs(bias=bias)
    upstream_N = torch.linspace(-1, 2, N)
    wanted = [hidden_NH, weight_VH] + ([bias_V] if bias_V is not None else [])

    plain_NV = torch.log_softmax(torch.nn.functional.linear(hidden_NH, weight_VH, bias_V) / temperature, dim=-1)
    plain_N = plain_NV.gather(1, targets_N[:, None]).squeeze(1)
    plain_grads = torch.autograd.grad((plain_N * upstream_N).sum(), wanted)

    logprobs_N, entropy_N = token_logprobs(
        hidden_NH,
        weight_VH,
        bias_V,
        targets_N,
        temperature=temperature,
        dtype=torch.float32,
        chunk_elements=chunk_elements,
    )
    grads = torch.autograd.grad((logprobs_N * upstream_N).sum(), wanted)

    torch.testing.assert_close(logprobs_N, plain_N, rtol=2e-6, atol=4e-6)
    torch.testing.assert_close(entropy_N, -(plain_NV.exp() * plain_NV).sum(-1), rtol=2e-6, atol=4e-6)
    assert not entropy_N.requires_grad
    for grad, plain_grad in zip(grads, plain_grads, strict=True):
        torch.testing.assert_close(grad, plain_grad, rtol=1e-5, atol=4e-6)


@pytest.mark.parametrize("bias", [False, True])
def test_where_nothing_hangs_on_them_gradients_are_zeros(bias: bool) -> None:
    """There all the same: ranks meet in the backward pass."""
    hidden_NH, weight_VH, bias_V, targets_N = inputs(bias=bias)
    wanted = [hidden_NH, weight_VH] + ([bias_V] if bias_V is not None else [])
    logprobs_N, _ = token_logprobs(hidden_NH, weight_VH, bias_V, targets_N, temperature=1.0, dtype=torch.float32)
    for grad, of in zip(torch.autograd.grad((0.0 * logprobs_N).sum(), wanted), wanted, strict=True):
        assert torch.equal(grad, torch.zeros_like(of))
    logprobs_N, _ = token_logprobs(hidden_NH, weight_VH, bias_V, targets_N, temperature=1.0, dtype=torch.float32)
    (grad,) = torch.autograd.grad((float("nan") * logprobs_N).sum(), wanted[:1])
    assert bool(grad.isnan().any()), "what is not finite is no zero"


def test_one_number_by_hand() -> None:
    # logits 2, 0 at temperature 2: 1, 0; log p_0 = 1 - ln(e + 1) = -0.313262; entropy of (0.731059, 0.268941) 0.582203
    logprobs_N, entropy_N = token_logprobs(
        torch.tensor([[1.0]]),
        torch.tensor([[2.0], [0.0]]),
        None,
        torch.tensor([0]),
        temperature=2.0,
        dtype=torch.float32,
    )
    assert logprobs_N.item() == pytest.approx(-0.313262, abs=1e-6)
    assert entropy_N.item() == pytest.approx(0.582203, abs=1e-6)


def test_bfloat16_products_keep_fp32_statistics_and_gradients() -> None:
    hidden_NH, weight_VH, _, targets_N = inputs(bias=False)
    exact_N, _ = token_logprobs(hidden_NH, weight_VH, None, targets_N, temperature=1.0, dtype=torch.float32)
    logprobs_N, _ = token_logprobs(hidden_NH, weight_VH, None, targets_N, temperature=1.0, dtype=torch.bfloat16)
    (grad_VH,) = torch.autograd.grad(logprobs_N.sum(), [weight_VH])
    assert logprobs_N.dtype is grad_VH.dtype is torch.float32
    assert 0 < (logprobs_N - exact_N).abs().max().item() < 0.15


def test_logits_of_a_model_give_the_same() -> None:
    hidden_NH, weight_VH, _, targets_N = inputs(bias=False)
    expected = token_logprobs(hidden_NH, weight_VH, None, targets_N, temperature=0.7, dtype=torch.float32)
    got = logprobs_from_logits(hidden_NH @ weight_VH.T, targets_N, temperature=0.7)
    torch.testing.assert_close(got, expected, rtol=2e-6, atol=4e-6)
