"""One optimizer step on one rank: what is added up for it, and what became of it."""

from dataclasses import dataclass

import torch
from torch import Tensor

from learner.algorithm.loss import SUM_NAMES, LossSums


@dataclass(slots=True, kw_only=True, eq=False)
class Accumulated:
    """What the passes of an optimizer step have added up beside its gradient, on this rank."""

    totals: Tensor
    """Loss, tokens left out, and `LossSums.vector`."""
    largest: Tensor
    """0-dimensional: the largest gap between sampler and policy."""
    entropy_coef: float

    def add(self, loss: Tensor, num_left_out: int, sums: LossSums) -> None:
        """One pass more."""
        self.totals += torch.cat([loss.detach().double()[None], self.totals.new_tensor([num_left_out]), sums.vector])
        self.largest = torch.maximum(self.largest, sums.max_abs_log_ratio)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Update:
    """One optimizer step, applied or not. Numbers are those of the whole mini-batch."""

    applied: bool
    grad_norm: float
    lr: float
    loss: float
    sums: Tensor
    """`LossSums.vector` over all ranks."""
    num_left_out: int
    """Trained tokens that are not in `sums`, since a mask leaves them out and only what is kept counts."""
    max_abs_log_ratio: float
    entropy_coef: float

    @property
    def num_computed_tokens(self) -> int:
        """Trained tokens that were computed, masked or not."""
        return round(float(self.sums[SUM_NAMES.index("num_tokens")])) + self.num_left_out

    def why_not_applied(self, number: int, num_updates: int) -> str:
        """A sentence on update `number`, counted from 1."""
        return (
            f"update {number} of {num_updates} was not applied: loss {self.loss}, norm of the gradient "
            f"{self.grad_norm}; both must be finite"
        )
