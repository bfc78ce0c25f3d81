"""What the tests of the loss and its parts are made of, in float64."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from learner.algorithm.surrogates import Objective, Ratios
from learner.algorithm.tokens import Completions, TokenValues


def tensor(values: Sequence[float]) -> Tensor:
    return torch.tensor(list(values), dtype=torch.float64)


def index_of(lengths: Sequence[int]) -> Tensor:
    """[N] which completion a token is of, for completions of these lengths end to end."""
    return torch.repeat_interleave(torch.arange(len(lengths)), torch.tensor(list(lengths), dtype=torch.int64))


def completions(lengths: Sequence[int], mask: Sequence[bool] | None = None) -> Completions:
    mask_N = torch.ones(sum(lengths), dtype=torch.bool) if mask is None else torch.tensor(list(mask))
    return Completions(index_N=index_of(lengths), num=len(lengths), mask_N=mask_N)


def ratios_of(
    ratios: Sequence[float],
    advantages: Sequence[float],
    *,
    lengths: Sequence[int] | None = None,
    mask: Sequence[bool] | None = None,
    anchor: float = -1.0,
) -> Ratios:
    """Tokens with these ratios; `policy_N` is a leaf with a gradient. A completion of its own for each token unless
    `lengths` says how many tokens are of which."""
    anchor_N = torch.full((len(ratios),), anchor, dtype=torch.float64)
    policy_N = (anchor_N + tensor(ratios).log()).requires_grad_()
    log_ratio_N = policy_N - anchor_N
    return Ratios(
        policy_N=policy_N,
        anchor_N=anchor_N,
        log_ratio_N=log_ratio_N,
        ratio_N=log_ratio_N.exp(),
        advantages_N=tensor(advantages),
        completions=completions(lengths or [1] * len(ratios), mask),
    )


def grad_of(objective: Objective, ratios: Ratios) -> list[float]:
    """[N] of the sum of the objective, by the log-probabilities."""
    if not objective.objective_N.requires_grad:
        return [0.0] * len(ratios.policy_N)
    (grad_N,) = torch.autograd.grad(objective.objective_N.sum(), [ratios.policy_N])
    found: list[float] = grad_N.tolist()
    return found


def token_values(policy: Tensor, sampler: Tensor, lengths: Sequence[int], **others: Any) -> TokenValues:
    """Tokens with advantages of 1 and weights of 1, all of them trained, unless `others` says otherwise."""
    num_tokens = len(policy)
    defaults: dict[str, Any] = {
        "advantages_N": torch.ones(num_tokens, dtype=torch.float64),
        "token_weights_N": torch.ones(num_tokens, dtype=torch.float64),
        "mask_N": torch.ones(num_tokens, dtype=torch.bool),
        "entropy_N": torch.zeros(num_tokens, dtype=torch.float64),
    }
    return TokenValues(
        policy_N=policy,
        sampler_N=sampler,
        index_N=index_of(lengths),
        num_completions=len(lengths),
        **{**defaults, **others},
    )
