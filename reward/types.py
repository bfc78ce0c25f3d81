"""What a score is. A failed reward is not a reward of 0: it has an outcome, and only `ok` enters the advantages."""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from enum import StrEnum
from typing import Any

import numpy as np

from rollout.types import FinishReason, SampledGroup, TokenIds, read_only

# Weighted sums of the same components in another order differ by a few units in the last place. A spread up to this
# share of the largest reward is such rounding, not a preference, and dividing by it would make advantages of +-1.
ROUNDING_SPREAD = 1e-12


MAX_DETAIL_CHARS = 300
"""Of a record's detail."""


def one_line(text: str) -> str:
    """`text` without line breaks, cut to the length of a record's detail."""
    line = " ".join(text.split())
    return line if len(line) <= MAX_DETAIL_CHARS else line[: MAX_DETAIL_CHARS - 1] + "…"


def all_rewards_equal(rewards: Sequence[float]) -> bool:
    """True when no completion stands out, as with one reward or none: then, and only then, all advantages are zero."""
    if not rewards:
        return True
    # Below the least number that has all its digits, a difference cannot be divided by either.
    least = max(ROUNDING_SPREAD * max(abs(reward) for reward in rewards), sys.float_info.min)
    return max(rewards) - min(rewards) <= least


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
class ComponentAnswer:
    """What one component of the reward said of one completion."""

    outcome: RewardOutcome
    value: float | None
    """None unless the outcome is `ok`, and for a function that scores steps."""
    steps: tuple[float, ...] = ()
    """What one that scores steps said of each."""
    detail: str = ""
    verdict: Mapping[str, Any] | None = None
    """What a judge said, as plain data (docs/judges.md); None for others, and where there is none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerCost:
    """What asking servers took."""

    calls: int = 0
    """Requests that were answered."""
    cached: int = 0
    """Requests whose answer was known."""
    attempts: int = 0
    """Requests that were sent, those that were tried again or came to nothing included."""
    prompt_tokens: int = 0
    """As servers say."""
    completion_tokens: int = 0
    """As servers say."""
    waited_s: float = 0.0
    """For turns, limits and further attempts, added up over the requests."""
    asked_s: float = 0.0
    """For servers, added up over the requests."""

    def __add__(self, other: "ServerCost") -> "ServerCost":
        return ServerCost(**{name: getattr(self, name) + getattr(other, name) for name in COST_FIELDS})


COST_FIELDS = tuple(field.name for field in fields(ServerCost))


@dataclass(frozen=True, slots=True, kw_only=True)
class StepReward:
    """The score of one step of a completion's reasoning."""

    end: int
    """Number of the completion's tokens up to the end of the step, those of the step included."""
    reward: float


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
    """The answer that the completion gives, read as by what decides whether it is right (reward/rules/answers.py),
    whatever the outcome; None without one."""
    vote: str | None = None
    """What the completion stands for where answers are counted (maj@k): its answer in normal form, else its text, or
    the digest of a long one; None when there is neither."""
    duration_s: float = 0.0
    steps: tuple[StepReward, ...] | None = None
    """Scores of the steps of its reasoning, in their order; empty where it has none; None where none are scored."""
    verdicts: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Component -> what a judge said, as plain data (docs/judges.md)."""

    def __post_init__(self) -> None:
        assert (self.reward is not None) == (self.outcome is RewardOutcome.OK), (self.outcome, self.reward)


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupScores:
    """What a reward worker says of one group."""

    rewards: tuple[RewardResult, ...]
    """[G] in the order of the completions."""
    worker: str
    """Name of the reward worker, for example "reward-0"."""
    started_s: float
    """Unix time when scoring began."""
    finished_s: float
    cost: ServerCost | None = None
    """What asking servers took; None where no component asks one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoredGroup:
    """A sampled group, as the controller knows it, and its scores."""

    group: SampledGroup
    scores: GroupScores

    def __post_init__(self) -> None:
        assert len(self.scores.rewards) == self.group.facts.num_completions

    @property
    def group_id(self) -> str:
        """Names the group in ledger, events and files."""
        return self.group.group_id

    @property
    def rewards(self) -> tuple[RewardResult, ...]:
        """[G] in the order of the completions."""
        return self.scores.rewards

    @property
    def num_scored(self) -> int:
        """Completions whose outcome is `ok`."""
        return sum(result.outcome is RewardOutcome.OK for result in self.rewards)

    @property
    def pass_rate(self) -> float | None:
        """Share of the judged completions that are right; None where none was judged."""
        judged = [result.correct for result in self.rewards if result.correct is not None]
        return sum(judged) / len(judged) if judged else None

    @property
    def compared_rewards(self) -> tuple[float | None, ...]:
        """[G] what the advantages are made of; None for a completion that was not scored, or that was given up."""
        return tuple(
            result.reward if reason.is_trainable else None
            for reason, result in zip(self.group.facts.finish_reasons_G, self.rewards, strict=True)
        )

    @property
    def all_rewards_equal(self) -> bool:
        """True when the group's advantages are all exactly zero. Where steps are scored, it is their rewards that are
        compared."""
        compared = self.compared_rewards
        steps = [
            result.steps
            for result, reward in zip(self.rewards, compared, strict=True)
            if reward is not None and result.steps is not None
        ]
        if steps:
            return all_rewards_equal([step.reward for of in steps for step in of])
        return all_rewards_equal([reward for reward in compared if reward is not None])


@dataclass(frozen=True, slots=True, kw_only=True)
class RewardInput:
    """What a reward function sees of one completion: plain values only, because it travels to a child process.

    Example:
        RewardInput(question="What is 1 + 2?", prompt="What is 1 + 2?", completion="It is 3.",
                    token_ids=np.array([12, 9], np.int32), finish_reason=FinishReason.STOP, ground_truth="3", row={},
                    max_tokens=64, task="arithmetic")
    """

    question: str
    """What was asked, before template, few-shot turns and system prompt."""
    prompt: str
    """The prompt as the policy read it, template and special tokens included."""
    completion: str
    """The completion's text, special tokens too, without what ended it: end token, stop token or stop string."""
    token_ids: TokenIds = field(default_factory=lambda: read_only((), np.int32))
    """[T] int32, read-only, the completion's tokens: its length in tokens is their number."""
    finish_reason: FinishReason = FinishReason.STOP
    ground_truth: str | None = None
    """The expected answer; None when the task has none."""
    row: Mapping[str, Any] = field(default_factory=dict)
    """The row's other columns."""
    max_tokens: int | None = None
    """Longest completion that was allowed; None when the worker was not told."""
    task: str = ""
    sample_index: int = 0
    """Place in the group, 0 to G - 1."""
    steps: tuple[str, ...] = ()
    """The steps of the completion, for the function that scores them; empty where `reward.steps` is null."""
    scores: Mapping[str, float] = field(default_factory=dict)
    """What the world of an episode gave, by name; empty for a single answer, and where the world did not end it."""
    episode_outcome: str = ""
    """How an episode ended (`rollout.episodes.environment.Outcome`); empty for a single answer."""


class ExplainedScore(float):
    """A score that says in one line how it came about: a function may return one in place of a float."""

    detail: str

    def __new__(cls, value: float, detail: str) -> "ExplainedScore":
        """`detail` is one line, shown beside the score."""
        score = super().__new__(cls, value)
        score.detail = detail
        return score
