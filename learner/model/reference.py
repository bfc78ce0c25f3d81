"""The reference policy of the KL term: the starting weights, or the policy's of an earlier step, or their average."""

import copy
from collections.abc import Mapping

import torch
from torch import Tensor

from learner.backend.sharding import gathered
from learner.model.frozen import FrozenModel
from learner.model.policy import LogprobModel
from learner.objective import ReferenceConfig


class Reference(FrozenModel):
    """A copy of the policy."""

    def __init__(self, policy: LogprobModel, config: ReferenceConfig) -> None:
        """To be called before DeepSpeed takes the policy apart."""
        super().__init__(copy.deepcopy(policy))
        self._config = config

    @property
    def is_updated(self) -> bool:
        """Whether it moves; else it is the starting weights for the whole run."""
        return self._config.update != "never"

    def follow(self, policy: LogprobModel, policy_version: int) -> bool:
        """After a training step that made this version of the policy: every `every` versions the reference becomes the
        policy (`copy`; iterative GRPO, DeepSeekMath, algorithm 1) or `decay` times itself and the rest the policy
        (`average`). Collective: all ranks call it with the same version. Returns whether it moved.

        It depends on the version alone, so that a run that trains a step again moves it at the same steps.
        """
        if not self.is_updated or policy_version % self._config.every:
            return False
        decay = self._config.decay if self._config.update == "average" else 0.0
        own = self.model.named_weights()
        with torch.no_grad():
            for name, weight in policy.named_weights().items():
                with gathered([weight]):
                    if decay:
                        own[name].mul_(decay).add_(weight, alpha=1.0 - decay)
                    else:
                        own[name].copy_(weight)
        return True

    def weights(self) -> dict[str, Tensor]:
        """Its weights under Hugging Face names, in fp32 on the CPU."""
        return {name: weight.detach().cpu().contiguous() for name, weight in self.model.named_weights().items()}

    @torch.no_grad()
    def load(self, weights: Mapping[str, Tensor]) -> None:
        """Takes weights that `weights` gave."""
        own = self.model.named_weights()
        assert own.keys() == weights.keys(), own.keys() ^ weights.keys()
        for name, weight in own.items():
            weight.copy_(weights[name])
