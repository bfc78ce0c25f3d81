"""Log-probabilities and entropy of tokens, from hidden states, without ever holding the logits of a whole batch.

For a vocabulary of 150,000, the logits of 4,096 tokens take 2.4 GB in fp32, several times over in a backward pass.
Here rows are taken in chunks; the backward pass computes each chunk's logits again (arXiv 2411.09009 does the same).

Logits are divided by the sampling temperature, so that the learner's distribution is the one that was sampled from.
Top-p and top-k are not mirrored: with them the sampler renormalises over the tokens that it kept, the learner does
not, and the ratio of the two is then below 1 by the share that was cut off even for unchanged weights.

Dimensions: N rows (one for each predicted token), H hidden, V vocabulary, C rows of one chunk.
"""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

# 64 MiB of fp32 logits for each chunk: a matrix product is efficient well before that, and two such buffers live at
# once.
CHUNK_ELEMENTS = 2**24


def token_logprobs(  # noqa: PLR0913  # the symbols of one formula, and how it is computed
    hidden_NH: Tensor,
    weight_VH: Tensor,
    bias_V: Tensor | None,
    targets_N: Tensor,
    *,
    temperature: float,
    dtype: torch.dtype,
    entropy_grad: bool = False,
    chunk_elements: int = CHUNK_ELEMENTS,
) -> tuple[Tensor, Tensor]:
    """Log-probability (nats) of each target and entropy (nats) of each distribution, both [N] fp32; the entropy has a
    gradient where `entropy_grad` asks for it.

    The matrix products run in `dtype`; log-sum-exp, softmax and the sum of the weight's gradient are in fp32.
    """
    logprobs_N, entropy_N = _TokenLogprobs.apply(  # type: ignore[no-untyped-call]  # torch gives its Function no types
        hidden_NH,
        weight_VH,
        bias_V,
        targets_N,
        temperature,
        dtype,
        max(1, chunk_elements // weight_VH.shape[0]),
        entropy_grad,
    )
    return logprobs_N, entropy_N


def logprobs_from_logits(
    logits_NV: Tensor, targets_N: Tensor, *, temperature: float, entropy_grad: bool = False
) -> tuple[Tensor, Tensor]:
    """The same from logits that a model already made: for heads that are more than a matrix product."""
    logprobs_NV = functional.log_softmax(logits_NV.float() / temperature, dim=-1)
    with torch.set_grad_enabled(entropy_grad and torch.is_grad_enabled()):
        # A token that a head rules out has log 0: it adds nothing, and replaced before the product has no gradient.
        possible_NV = logprobs_NV.masked_fill(logprobs_NV == -torch.inf, 0.0)
        entropy_N = -(logprobs_NV.exp() * possible_NV).sum(dim=-1)
    return logprobs_NV.gather(1, targets_N[:, None]).squeeze(1), entropy_N


def _chunk_logits(hidden_CH: Tensor, weight_VH: Tensor, bias_V: Tensor | None, temperature: float) -> Tensor:
    """[C, V] fp32 logits over temperature. `hidden_CH` and `weight_VH` have the dtype of the product."""
    return functional.linear(hidden_CH, weight_VH, bias_V).float().div_(temperature)


class _TokenLogprobs(torch.autograd.Function):
    """d logprob_n / d logits_nv = (1[v = target_n] - p_nv) / temperature, with p the softmax;
    d entropy_n / d logits_nv = -p_nv (log p_nv + entropy_n) / temperature.
    """

    @staticmethod
    def forward(  # noqa: PLR0913  # PyTorch hands tensors over one by one
        ctx: Any,
        hidden_NH: Tensor,
        weight_VH: Tensor,
        bias_V: Tensor | None,
        targets_N: Tensor,
        temperature: float,
        dtype: torch.dtype,
        chunk_rows: int,
        entropy_grad: bool,
    ) -> tuple[Tensor, Tensor]:
        # The parameters themselves are saved, not casts of them: under ZeRO-3 their storage is released after the
        # forward pass and filled again before the backward pass.
        ctx.save_for_backward(hidden_NH, weight_VH, bias_V, targets_N)
        ctx.temperature, ctx.dtype, ctx.chunk_rows = temperature, dtype, chunk_rows
        weight_cast_VH = weight_VH.to(dtype)
        bias_cast_V = None if bias_V is None else bias_V.to(dtype)
        logprobs_N = hidden_NH.new_empty(len(targets_N), dtype=torch.float32)
        entropy_N = torch.empty_like(logprobs_N)
        for start in range(0, len(targets_N), chunk_rows):
            rows = slice(start, start + chunk_rows)
            logits_CV = _chunk_logits(hidden_NH[rows].to(dtype), weight_cast_VH, bias_cast_V, temperature)
            logprobs_CV = logits_CV.sub_(logits_CV.logsumexp(dim=-1, keepdim=True))
            logprobs_N[rows] = logprobs_CV.gather(1, targets_N[rows, None]).squeeze(1)
            entropy_N[rows] = -logprobs_CV.exp().mul_(logprobs_CV).sum(dim=-1)
        ctx.has_entropy_grad = entropy_grad
        if not entropy_grad:
            ctx.mark_non_differentiable(entropy_N)
        return logprobs_N, entropy_N

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        grad_N = grads[0]
        hidden_NH, weight_VH, bias_V, targets_N = ctx.saved_tensors
        # Looked at on a CPU alone: a GPU would be waited for.
        if not ctx.has_entropy_grad and not grad_N.is_cuda and not bool(grad_N.any()):
            # A policy that learns from a teacher alone. Zeros and not nothing: ranks meet in what follows from them.
            wanted = zip((hidden_NH, weight_VH, bias_V), ctx.needs_input_grad, strict=False)
            return *(torch.zeros_like(of) if needed else None for of, needed in wanted), *(None,) * 5
        weight_cast_VH = weight_VH.to(ctx.dtype)
        bias_cast_V = None if bias_V is None else bias_V.to(ctx.dtype)
        gradients = HeadGradients(hidden_NH, weight_VH, bias_V, ctx.dtype, of_weight=ctx.needs_input_grad[1])
        for start in range(0, len(targets_N), ctx.chunk_rows):
            rows = slice(start, start + ctx.chunk_rows)
            hidden_CH = hidden_NH[rows].to(ctx.dtype)
            logits_CV = _chunk_logits(hidden_CH, weight_cast_VH, bias_cast_V, ctx.temperature)
            scale_C1 = grad_N[rows, None] / ctx.temperature
            entropy_scale_C1 = grads[1][rows, None] / ctx.temperature if ctx.has_entropy_grad else None
            if entropy_scale_C1 is None:
                grad_logits_CV = torch.softmax(logits_CV, dim=-1).mul_(-scale_C1)
            else:
                logprobs_CV = logits_CV.log_softmax(dim=-1)
                probs_CV = logprobs_CV.exp()
                entropy_C1 = -(probs_CV * logprobs_CV).sum(dim=-1, keepdim=True)
                grad_logits_CV = probs_CV.mul_(-scale_C1 - entropy_scale_C1 * (logprobs_CV + entropy_C1))
            grad_logits_CV.scatter_add_(1, targets_N[rows, None], scale_C1)
            gradients.add(rows, hidden_CH, weight_cast_VH, grad_logits_CV)
        return *gradients.result(), *(None,) * 5


class HeadGradients:
    """Gradients of hidden states, matrix and bias out of those of the logits, summed up chunk by chunk; the sums over
    chunks are in fp32 at least."""

    def __init__(
        self, hidden_NH: Tensor, weight_VH: Tensor, bias_V: Tensor | None, dtype: torch.dtype, *, of_weight: bool
    ) -> None:
        """`dtype` of the matrix products; `of_weight`: whether the matrix has a gradient."""
        wide = torch.promote_types(dtype, torch.float32)
        self._dtype, self._weight_dtype = dtype, weight_VH.dtype
        self._hidden_NH = torch.empty_like(hidden_NH)
        self._weight_VH = torch.zeros_like(weight_VH, dtype=wide) if of_weight else None
        self._bias_V = None if bias_V is None else torch.zeros_like(bias_V, dtype=wide)
        self._bias_dtype = None if bias_V is None else bias_V.dtype

    def add(self, rows: slice, hidden_CH: Tensor, weight_VH: Tensor, grad_logits_CV: Tensor) -> None:
        """A chunk, of these rows; hidden states and matrix in the dtype of the product."""
        if self._bias_V is not None:
            self._bias_V += grad_logits_CV.sum(dim=0)
        grad_logits_CV = grad_logits_CV.to(self._dtype)
        self._hidden_NH[rows] = (grad_logits_CV @ weight_VH).to(self._hidden_NH.dtype)
        if self._weight_VH is not None:
            self._weight_VH += grad_logits_CV.T @ hidden_CH

    def result(self) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """In the dtypes of what they are of."""
        weight_VH = None if self._weight_VH is None else self._weight_VH.to(self._weight_dtype)
        return self._hidden_NH, weight_VH, None if self._bias_V is None else self._bias_V.to(self._bias_dtype)
