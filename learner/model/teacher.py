"""Teachers of distillation: a model of its own (`FrozenModel`), or the policy that reads more than it was asked.

Dimension: N completion tokens of a micro-batch.
"""

from typing import Any, Protocol

import torch
from torch import Tensor

from learner.algorithm.batching import MicroBatch
from learner.model.divergences import Predictions
from learner.model.policy import LogprobModel


class Teacher(Protocol):
    """Nothing of it has a gradient. Every rank asks for as many micro-batches as the others."""

    def logprobs(self, tokens: MicroBatch, temperature: float) -> Tensor:
        """[N] log-probabilities (nats) of the completion tokens."""
        ...

    def predictions(self, tokens: MicroBatch, temperature: float) -> Predictions:
        """Its distributions at the completion tokens."""
        ...


class PolicyTeacher:
    """The policy itself by its current weights, behind the prompts with demonstrations. Collective under ZeRO-3."""

    def __init__(self, engine: Any, policy: LogprobModel) -> None:
        """`engine`: the policy under DeepSpeed, through which it must be called."""
        self._engine = engine
        self._policy = policy

    @torch.no_grad()
    def logprobs(self, tokens: MicroBatch, temperature: float) -> Tensor:
        """As `Teacher`."""
        shown = tokens.demonstrated or tokens
        logprobs_N: Tensor = self._engine(shown.input_ids_BT, shown.positions_N, shown.targets_N, temperature)[0]
        return logprobs_N

    @torch.no_grad()
    def predictions(self, tokens: MicroBatch, temperature: float) -> Predictions:
        """As `Teacher`. Its matrix is the policy's own, which under ZeRO-3 is whole in the policy's pass alone."""
        shown = tokens.demonstrated or tokens
        (states_N,) = self._engine(shown.input_ids_BT, shown.positions_N, None, temperature)
        return self._policy.predictions_of(states_N, with_matrix=False)
