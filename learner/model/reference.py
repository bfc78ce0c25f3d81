"""The reference policy of the KL term: the starting weights, or the policy's of an earlier step, or their average."""

import torch
from torch import Tensor

from learner.algorithm.batching import MicroBatch
from learner.model.divergences import Predictions
from learner.model.policy import LogprobModel, freeze_copy


class Reference:
    """A copy of the policy, whole on every rank for all ZeRO stages."""

    def __init__(self, policy: LogprobModel) -> None:
        """To be called before DeepSpeed takes the policy apart."""
        self.model = freeze_copy(policy)

    def to(self, device: torch.device) -> None:
        """Moves it."""
        self.model.to(device)

    @torch.no_grad()
    def logprobs(self, tokens: MicroBatch, temperature: float) -> Tensor:
        """[N] log-probabilities (nats) of the completion tokens."""
        logprobs_N: Tensor = self.model(tokens.input_ids_BT, tokens.positions_N, tokens.targets_N, temperature)[0]
        return logprobs_N

    @torch.no_grad()
    def predictions(self, tokens: MicroBatch, temperature: float) -> Predictions:
        """Its distributions at the completion tokens."""
        (states_N,) = self.model(tokens.input_ids_BT, tokens.positions_N, None, temperature)
        return self.model.predictions_of(states_N, with_matrix=True)
