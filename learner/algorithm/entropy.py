"""The coefficient of the entropy bonus: fixed, or moved towards a target (Skywork-OR1, arXiv 2505.22312, section 4).

Adaptive: the bonus acts only while the entropy of the last update was at most the target, and after each update its
coefficient grows by a step where that is so, and falls by one where it is not, between 0 and its highest value.
"""

from dataclasses import dataclass, replace

from torch import Tensor

from learner.algorithm.loss import SUM_NAMES
from learner.objective import EntropyConfig


@dataclass(frozen=True, slots=True, kw_only=True)
class EntropyControl:
    """The coefficient and what it follows from; saved with a run's state."""

    config: EntropyConfig
    coef: float
    last_entropy: float | None = None
    """Mean over the trained tokens of the last update, nats; None before the first."""

    @classmethod
    def of(cls, config: EntropyConfig) -> "EntropyControl":
        """As a run begins."""
        return cls(config=config, coef=config.coef)

    @property
    def coef_now(self) -> float:
        """What the next update uses."""
        target = self.config.target
        is_above = target is not None and self.last_entropy is not None and self.last_entropy > target
        return 0.0 if is_above else self.coef

    def state(self) -> dict[str, float | None]:
        """What a run that goes on needs, by the names of `restored`; nothing where the coefficient is fixed."""
        if self.config.target is None:
            return {}
        return {"entropy_coef": self.coef, "last_entropy": self.last_entropy}

    def restored(self, entropy_coef: float | None, last_entropy: float | None) -> "EntropyControl":
        """With what `state` gave. A coefficient that is fixed now, or was when the state was saved, is that of the
        configuration."""
        if self.config.target is None or entropy_coef is None:
            return self
        return replace(self, coef=entropy_coef, last_entropy=last_entropy)

    def after(self, sums: Tensor) -> "EntropyControl":
        """After an update with these sums (`LossSums.vector`) over all ranks."""
        target, num_tokens = self.config.target, float(sums[SUM_NAMES.index("num_tokens")])
        if target is None or not num_tokens:
            return self
        entropy = float(sums[SUM_NAMES.index("entropy")]) / num_tokens
        step = self.config.step if entropy <= target else -self.config.step
        coef = min(max(self.coef + step, 0.0), self.config.max_coef)
        return replace(self, coef=coef, last_entropy=entropy)
