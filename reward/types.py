"""What a score is. A failed reward is not a reward of 0: it has an outcome, and only `ok` enters the advantages."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from rollout.types import RolloutGroup


class RewardOutcome(StrEnum):
    """How the scoring of one completion ended."""

    OK = "ok"
    TIMEOUT = "timeout"
    """Killed at its deadline."""
    ERROR = "error"
    """The function raised, or its process died."""
    INVALID = "invalid"
    """The function returned something that is no finite number."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RewardResult:
    """The score of one completion.

    Example:
        RewardResult(outcome=RewardOutcome.OK, reward=1.1, components={"math": 1.0, "format": 1.0}, duration_s=0.004)
    """

    outcome: RewardOutcome
    reward: float | None
    """Weighted sum of the components; None unless the outcome is `ok`."""
    components: Mapping[str, float] = field(default_factory=dict)
    """Value of each reward function that answered, before its weight."""
    correct: bool | None = None
    """Whether the accuracy component calls the completion right; None unless the outcome is `ok`."""
    detail: str = ""
    """One line on what went wrong; for `ok`, what a function says of its score, such as why a program failed."""
    answer: str | None = None
    """The final answer that the completion gives (`math_extraction`), whatever the outcome; None without one."""
    duration_s: float = 0.0

    def __post_init__(self) -> None:
        assert (self.reward is not None) == (self.outcome is RewardOutcome.OK), (self.outcome, self.reward)


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoredGroup:
    """A sampled group and its scores."""

    group: RolloutGroup
    rewards: tuple[RewardResult, ...]
    """[G] in the order of the completions."""
    worker: str
    """Name of the reward worker, for example "reward-0"."""
    started_s: float
    """Unix time when scoring began."""
    finished_s: float

    def __post_init__(self) -> None:
        assert len(self.rewards) == len(self.group.completions)

    @property
    def group_id(self) -> str:
        return self.group.group_id

    @property
    def num_scored(self) -> int:
        """Completions whose outcome is `ok`."""
        return sum(result.outcome is RewardOutcome.OK for result in self.rewards)

    @property
    def all_rewards_equal(self) -> bool:
        """True when no completion stands out: the group's advantages are all exactly zero."""
        return len({result.reward for result in self.rewards if result.reward is not None}) <= 1
