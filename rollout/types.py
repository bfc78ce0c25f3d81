"""The records that travel from prompts to the learner. Imports nothing heavy: every process can unpickle them.

Dimensions: G completions in a group, T tokens of one completion.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum


class FinishReason(StrEnum):
    """Why a completion ended."""

    STOP = "stop"
    """An end-of-sequence token, a stop token or a stop string."""
    LENGTH = "length"
    """`max_tokens` reached, or the engine cut it for repeating itself: the completion is truncated."""
    ABORT = "abort"
    """It was given up."""
    ERROR = "error"
    """The engine could not finish it, for a fault of this one request."""

    @property
    def is_trainable(self) -> bool:
        """Whether the policy itself ended the completion or ran out of tokens; no other is ever trained on."""
        return self in (FinishReason.STOP, FinishReason.LENGTH)


@dataclass(frozen=True, slots=True, kw_only=True)
class Prompt:
    """One task that the policy reads.

    Example:
        Prompt(uid="5f1c09be12aa03d4", epoch=0, index=3, token_ids=(1, 42, 7), text="What is 1 + 2?",
               question="What is 1 + 2?", ground_truth="3", task="arithmetic", row={})
    """

    uid: str
    """16 hex digits of a digest of task and question: the same question has the same uid in every epoch and run."""
    epoch: int
    """Pass over the data, from 0. Evaluation prompts have epoch 0."""
    index: int
    """Position in the run's stream of prompts, from 0; never used twice in a run."""
    token_ids: tuple[int, ...]
    """The prompt as the engine reads it, chat template applied."""
    text: str
    """The same as text, special tokens included. For people; never tokenised again."""
    question: str
    """What was asked, before template, few-shot turns and system prompt."""
    ground_truth: str | None
    """The expected answer; None when the task has none (its generator scores answers itself)."""
    task: str
    """Name of the task that the row came from."""
    row: Mapping[str, object] = field(default_factory=dict)
    """The row's other columns, as JSON values: a reward function may read them."""

    @property
    def group_id(self) -> str:
        """Names this prompt's group in ledger, events and files: unique in a run."""
        return f"{self.index:06d}-{self.uid}"


@dataclass(frozen=True, slots=True, kw_only=True)
class VersionSpan:
    """Tokens `start` (included) to `end` (excluded) of a completion were sampled by weights `policy_version`."""

    policy_version: int
    start: int
    end: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Completion:
    """One sampled sequence.

    Example:
        Completion(sample_index=0, token_ids=(12, 9), logprobs=(-0.2, -1.1), loss_mask=(True, True), text="3",
                   finish_reason=FinishReason.STOP, version_spans=(VersionSpan(policy_version=7, start=0, end=2),))
    """

    sample_index: int
    """Place in the group, 0 to G - 1. The sample's seed is derived from it."""
    token_ids: tuple[int, ...]
    """[T] sampled tokens, prompt excluded, end-of-sequence token included. Never tokenised again."""
    logprobs: tuple[float, ...]
    """[T] log-probability (nats) of each token under the distribution really sampled from (temperature, top-p,
    top-k applied). 0.0 where it was not finite; `loss_mask` is False there."""
    loss_mask: tuple[bool, ...]
    """[T] True where the policy sampled the token, so that it may be trained on."""
    text: str
    """Decoded tokens without special ones; a stop string that ended it is not part of it."""
    finish_reason: FinishReason
    version_spans: tuple[VersionSpan, ...]
    """Which weights sampled which tokens; spans follow one another and cover all T tokens."""
    num_nonfinite_logprobs: int = 0
    """Tokens that were masked because the engine's log-probability was NaN or infinite."""

    def __post_init__(self) -> None:
        num_tokens = len(self.token_ids)
        assert len(self.logprobs) == num_tokens, (len(self.logprobs), num_tokens)
        assert len(self.loss_mask) == num_tokens, (len(self.loss_mask), num_tokens)
        assert all(math.isfinite(x) for x in self.logprobs), "non-finite log-probabilities are masked by the engine"

    @property
    def min_policy_version(self) -> int:
        """Version of the oldest weights that sampled one of the tokens."""
        return min(span.policy_version for span in self.version_spans)


@dataclass(frozen=True, slots=True, kw_only=True)
class RolloutGroup:
    """The G completions of one prompt, from one attempt of one engine."""

    prompt: Prompt
    completions: tuple[Completion, ...]
    """[G] in the order of `sample_index`."""
    attempt: int
    """1 for the first lease of this prompt; a retry counts up."""
    worker: str
    """Name of the sampler, for example "sampler-0"."""
    started_s: float
    """Unix time when the engine took the group."""
    finished_s: float
    """Unix time when the last completion ended."""

    @property
    def group_id(self) -> str:
        return self.prompt.group_id

    @property
    def min_policy_version(self) -> int:
        """Version of the oldest weights in the group: policy lag is measured from it."""
        return min(completion.min_policy_version for completion in self.completions)

    @property
    def num_completion_tokens(self) -> int:
        return sum(len(completion.token_ids) for completion in self.completions)


@dataclass(frozen=True, slots=True, kw_only=True)
class SampleRequest:
    """A prompt leased to a sampler."""

    prompt: Prompt
    attempt: int
    group_size: int
    purpose: str = "train"
    """"train" or "eval": evaluation has its own sampling settings and its own seeds."""
    evaluation: int = 0
    """Which evaluation of the run this is for, from 1; 0 in training. It has no part in the seeds."""

    @property
    def key(self) -> tuple[str, str, int]:
        """Identifies the lease, and no other of the run: (purpose, group id, attempt). The same question is asked in
        each evaluation, so the purpose there has the evaluation's number."""
        purpose = f"{self.purpose}-{self.evaluation}" if self.evaluation else self.purpose
        return (purpose, self.prompt.group_id, self.attempt)
