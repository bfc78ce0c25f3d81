"""Divergences between two distributions over the whole vocabulary, exactly, at each predicted token.

With p the student's distribution at a token and q the other's (a teacher's, or the reference's), in nats:

    reverse  KL(p || q) = sum_v p_v (log p_v - log q_v)
    forward  KL(q || p) = sum_v q_v (log q_v - log p_v)
    jsd      beta KL(q || m) + (1 - beta) KL(p || m),  m = beta q + (1 - beta) p

(GKD, arXiv 2306.13649, section 2.2; its P is the teacher, its Q the student.) Only the student has a gradient. With
z_v its logits over temperature and D the divergence, d D / d z_v is

    reverse  p_v (log p_v - log q_v - D)
    forward  p_v - q_v
    jsd      p_v (f_v - sum_u p_u f_u),  f_v = (1 - beta) (log p_v - log m_v)

Rows are taken in chunks, and the backward pass computes the logits of both sides again, as in
`learner/model/logprobs.py`: the logits of a whole batch are never held.

Dimensions: N rows (one for each predicted token), H hidden, V vocabulary, C rows of one chunk.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional

from learner.model.logprobs import HeadGradients

CHUNK_ELEMENTS = 2**23
"""32 MiB of fp32 logits: about six such buffers live at once, three of each side."""

Divergence = Literal["forward", "reverse", "jsd"]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Predictions:
    """What a model says of the next token at N places: hidden states and output matrix, or logits. No gradient."""

    states_N: Tensor
    """[N, H] last hidden states; or [N, V] logits where the head is more than a matrix product."""
    weight_VH: Tensor | None = None
    bias_V: Tensor | None = None
    is_logits: bool = False
    """Whether the states are logits. If not, and without a matrix, the student's own is meant."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Comparison:
    """A divergence that is wanted, and what the student is compared with."""

    kind: Divergence
    beta: float = 0.5
    """Share of the other's distribution in the mixture; of use for `jsd` alone."""
    other: Predictions


def divergence(  # noqa: PLR0913  # the symbols of one formula, and how it is computed
    hidden_NH: Tensor,
    weight_VH: Tensor,
    bias_V: Tensor | None,
    comparison: Comparison,
    *,
    temperature: float,
    dtype: torch.dtype,
    chunk_elements: int = CHUNK_ELEMENTS,
) -> Tensor:
    """[N] fp32 (fp64 where `dtype` is): the divergence at each row, with the gradient of the student's hidden states,
    matrix and bias.

    Both sides' logits are divided by `temperature`. The matrix products run in `dtype`; all else is in fp32.
    """
    found_N: Tensor = _Divergence.apply(  # type: ignore[no-untyped-call]  # torch gives its Function no types
        hidden_NH,
        weight_VH,
        bias_V,
        comparison.other.states_N,
        comparison.other.weight_VH,
        comparison.other.bias_V,
        comparison,
        temperature,
        dtype,
        max(1, chunk_elements // weight_VH.shape[0]),
    )
    return found_N


def divergence_from_logits(logits_NV: Tensor, comparison: Comparison, *, temperature: float) -> Tensor:
    """[N] the same from logits that the student already made: for heads that are more than a matrix product."""
    other = comparison.other
    assert other.is_logits or other.weight_VH is not None, "such a student has no matrix of its own"
    logprobs_NV = (_wide(logits_NV) / temperature).log_softmax(dim=-1)
    with torch.no_grad():
        other_NV = _other_logprobs(other, slice(None), temperature, other.weight_VH, other.bias_V)
    return _values(logprobs_NV, other_NV, comparison)


def _values(logprobs_CV: Tensor, other_CV: Tensor, comparison: Comparison) -> Tensor:
    """[C] from log-probabilities of both sides. A token that has none of a side's probability adds nothing to that
    side's sum."""
    if comparison.kind == "reverse":
        return _expected(logprobs_CV, logprobs_CV, other_CV)
    if comparison.kind == "forward":
        return _expected(other_CV, other_CV, logprobs_CV)
    mixture_CV = _mixture(logprobs_CV, other_CV, comparison.beta)
    of_other_C = _expected(other_CV, other_CV, mixture_CV)
    return comparison.beta * of_other_C + (1.0 - comparison.beta) * _expected(logprobs_CV, logprobs_CV, mixture_CV)


def _expected(under_CV: Tensor, first_CV: Tensor, second_CV: Tensor) -> Tensor:
    """[C] sum over v of exp(under) (first - second), with 0 where exp(under) is."""
    probs_CV = under_CV.exp()
    is_possible_CV = probs_CV > 0
    # Replaced before the difference, so that infinities have no gradient either.
    zeros_CV = torch.zeros_like(probs_CV)
    first_CV = torch.where(is_possible_CV, first_CV, zeros_CV)
    second_CV = torch.where(is_possible_CV, second_CV, zeros_CV)
    return (probs_CV * (first_CV - second_CV)).sum(dim=-1)


def _mixture(logprobs_CV: Tensor, other_CV: Tensor, beta: float) -> Tensor:
    """[C, V] log of beta q + (1 - beta) p."""
    # exp is 0 long before; of two infinities logaddexp has no gradient.
    logprobs_CV, other_CV = logprobs_CV.clamp(min=-1e4), other_CV.clamp(min=-1e4)
    return torch.logaddexp(other_CV + math.log(beta), logprobs_CV + math.log1p(-beta))


def _logit_gradient(logprobs_CV: Tensor, other_CV: Tensor, comparison: Comparison) -> Tensor:
    """[C, V] d divergence / d logits over temperature of the student."""
    probs_CV = logprobs_CV.exp()
    if comparison.kind == "forward":
        return probs_CV - other_CV.exp()
    if comparison.kind == "reverse":
        scores_CV = logprobs_CV - other_CV
    else:
        mixture_CV = _mixture(logprobs_CV, other_CV, comparison.beta)
        scores_CV = (1.0 - comparison.beta) * (logprobs_CV - mixture_CV)
    scores_CV = scores_CV.masked_fill(probs_CV == 0, 0.0)
    return probs_CV * (scores_CV - (probs_CV * scores_CV).sum(dim=-1, keepdim=True))


def _wide(values: Tensor) -> Tensor:
    """In fp32 at least."""
    return values if values.dtype == torch.float64 else values.float()


def _logprobs(states_CH: Tensor, weight_VH: Tensor, bias_V: Tensor | None, temperature: float) -> Tensor:
    """[C, V] of hidden states; both operands have the dtype of the product."""
    return _wide(functional.linear(states_CH, weight_VH, bias_V)).div_(temperature).log_softmax(dim=-1)


def _other_logprobs(
    other: Predictions, rows: slice, temperature: float, weight_VH: Tensor | None, bias_V: Tensor | None
) -> Tensor:
    """[C, V] of the other side; matrix and bias in the dtype of the product."""
    states = other.states_N[rows]
    if other.is_logits:
        return (_wide(states) / temperature).log_softmax(dim=-1)
    assert weight_VH is not None
    return _logprobs(states.to(weight_VH.dtype), weight_VH, bias_V, temperature)


class _Divergence(torch.autograd.Function):
    """The formulas at the top of the file. What is saved is what was given, the parameters themselves and no casts of
    them: under ZeRO-3 their storage is released after the forward pass and filled again before the backward pass."""

    @staticmethod
    def forward(  # noqa: PLR0913  # PyTorch hands tensors over one by one
        ctx: Any,
        hidden_NH: Tensor,
        weight_VH: Tensor,
        bias_V: Tensor | None,
        other_states_N: Tensor,
        other_weight_VH: Tensor | None,
        other_bias_V: Tensor | None,
        comparison: Comparison,
        temperature: float,
        dtype: torch.dtype,
        chunk_rows: int,
    ) -> Tensor:
        ctx.save_for_backward(hidden_NH, weight_VH, bias_V, other_states_N, other_weight_VH, other_bias_V)
        # Not the comparison itself: it holds the tensors, which are to be freed after the backward pass.
        ctx.form = comparison.kind, comparison.beta, comparison.other.is_logits
        ctx.temperature, ctx.dtype, ctx.chunk_rows = temperature, dtype, chunk_rows
        values_N = hidden_NH.new_empty(len(hidden_NH), dtype=torch.promote_types(dtype, torch.float32))
        for rows, _, logprobs_CV, other_CV in _chunks(
            hidden_NH, weight_VH, bias_V, comparison, (temperature, dtype, chunk_rows)
        ):
            values_N[rows] = _values(logprobs_CV, other_CV, comparison)
        return values_N

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        hidden_NH, weight_VH, bias_V, states_N, other_weight_VH, other_bias_V = ctx.saved_tensors
        kind, beta, is_logits = ctx.form
        other = Predictions(states_N=states_N, weight_VH=other_weight_VH, bias_V=other_bias_V, is_logits=is_logits)
        comparison = Comparison(kind=kind, beta=beta, other=other)
        weight_cast_VH = weight_VH.to(ctx.dtype)
        gradients = HeadGradients(hidden_NH, weight_VH, bias_V, ctx.dtype, of_weight=ctx.needs_input_grad[1])
        for rows, hidden_CH, logprobs_CV, other_CV in _chunks(
            hidden_NH, weight_VH, bias_V, comparison, (ctx.temperature, ctx.dtype, ctx.chunk_rows)
        ):
            grad_logits_CV = _logit_gradient(logprobs_CV, other_CV, comparison)
            grad_logits_CV *= grads[0][rows, None] / ctx.temperature
            gradients.add(rows, hidden_CH, weight_cast_VH, grad_logits_CV)
        return *gradients.result(), *(None,) * 7


def _chunks(
    hidden_NH: Tensor,
    weight_VH: Tensor,
    bias_V: Tensor | None,
    comparison: Comparison,
    how: tuple[float, torch.dtype, int],
) -> Iterator[tuple[slice, Tensor, Tensor, Tensor]]:
    """(rows, hidden states, log-probabilities of the student, of the other) of each chunk; `how`: temperature, dtype of
    the products, rows of a chunk."""
    temperature, dtype, chunk_rows = how
    other = comparison.other
    weight_cast_VH, bias_cast_V = weight_VH.to(dtype), _cast(bias_V, dtype)
    other_weight_VH, other_bias_V = weight_cast_VH, bias_cast_V
    if other.weight_VH is not None:
        other_weight_VH, other_bias_V = other.weight_VH.to(dtype), _cast(other.bias_V, dtype)
    for start in range(0, len(hidden_NH), chunk_rows):
        rows = slice(start, start + chunk_rows)
        hidden_CH = hidden_NH[rows].to(dtype)
        yield (
            rows,
            hidden_CH,
            _logprobs(hidden_CH, weight_cast_VH, bias_cast_V, temperature),
            _other_logprobs(other, rows, temperature, other_weight_VH, other_bias_V),
        )


def _cast(values: Tensor | None, dtype: torch.dtype) -> Tensor | None:
    return None if values is None else values.to(dtype)
