"""A model that no optimizer changes, asked about completions: the reference of the KL term, a teacher.

Dimension: N completion tokens of a micro-batch.
"""

import torch
from torch import Tensor

from learner.algorithm.batching import MicroBatch
from learner.model.divergences import Predictions
from learner.model.policy import LogprobModel


class FrozenModel:
    """Whole on every rank, for all ZeRO stages."""

    def __init__(self, model: LogprobModel) -> None:
        """Takes the model as its own."""
        self.model = model.eval().requires_grad_(False)

    @property
    def can_pack(self) -> bool:
        """As `LogprobModel.can_pack`."""
        return self.model.can_pack

    def to(self, device: torch.device) -> None:
        """Moves it."""
        self.model.to(device)

    @torch.no_grad()
    def logprobs(self, tokens: MicroBatch, temperature: float) -> Tensor:
        """[N] log-probabilities (nats) of the completion tokens."""
        logprobs_N: Tensor = self.model(tokens.inputs, tokens.targets_N, temperature)[0]
        return logprobs_N

    @torch.no_grad()
    def predictions(self, tokens: MicroBatch, temperature: float) -> Predictions:
        """Its distributions at the completion tokens."""
        (states_N,) = self.model(tokens.inputs, None, temperature)
        return self.model.predictions_of(states_N, with_matrix=True)
