"""The records that travel from prompts to the learner. Imports nothing heavy but NumPy: every process unpickles them.

Dimensions: G completions in a group, T tokens of one completion.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from enum import StrEnum
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from rollout.episode_types import EpisodeFacts, EpisodeSummary, summary_of
from rollout.repetition import repetition

TokenIds: TypeAlias = NDArray[np.int32]
Logprobs: TypeAlias = NDArray[np.float32]
LossMask: TypeAlias = NDArray[np.bool_]
_COMPLETION_ARRAYS = (
    ("token_ids", np.int32),
    ("logprobs", np.float32),
    ("loss_mask", np.bool_),
    ("teacher_logprobs", np.float32),
)


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
    teacher_token_ids: tuple[int, ...] = ()
    """The prompt with a demonstration, as the policy reads it where it is its own teacher; else empty."""
    teacher: str = ""
    """Name of its teacher where there are several; else empty."""

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


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Completion:
    """One sampled sequence. Its arrays are read-only, and are checked once, when it is made.

    Whatever sequence of numbers is given for an array is brought into the array's type.

    Example:
        Completion(sample_index=0, token_ids=(12, 9), logprobs=(-0.2, -1.1), loss_mask=(True, True), text="3",
                   finish_reason=FinishReason.STOP, version_spans=(VersionSpan(policy_version=7, start=0, end=2),))
    """

    sample_index: int
    """Place in the group, 0 to G - 1. The sample's seed is derived from it."""
    token_ids: TokenIds
    """[T] int32, what stands behind the prompt, end-of-sequence token included: what was sampled, and of an episode
    what the world said between. Never tokenised again."""
    logprobs: Logprobs
    """[T] float32, log-probability (nats) of each token under the distribution really sampled from (temperature, top-p,
    top-k applied). 0.0 where it was not finite; `loss_mask` is False there."""
    loss_mask: LossMask
    """[T] bool, True where the policy sampled the token, so that it may be trained on."""
    text: str
    """Decoded tokens, special ones too; the end token, stop token or stop string that ended it is not part of it."""
    finish_reason: FinishReason
    version_spans: tuple[VersionSpan, ...]
    """Which weights sampled which tokens; spans follow one another and cover all T tokens."""
    num_nonfinite_logprobs: int = 0
    """Tokens that were masked because the engine's log-probability was NaN or infinite."""
    teacher_logprobs: Logprobs = field(default_factory=lambda: read_only((), np.float32))
    """[T] float32, log-probability (nats) of each token under a teacher that is asked when it was sampled; empty where
    none was."""
    episode: EpisodeFacts | None = None
    """None for one answer to one prompt."""

    def __post_init__(self) -> None:
        for name, kind in _COMPLETION_ARRAYS:
            object.__setattr__(self, name, read_only(getattr(self, name), kind))
        num_tokens = len(self.token_ids)
        assert len(self.logprobs) == num_tokens, (len(self.logprobs), num_tokens)
        assert len(self.loss_mask) == num_tokens, (len(self.loss_mask), num_tokens)
        assert len(self.teacher_logprobs) in (0, num_tokens), (len(self.teacher_logprobs), num_tokens)
        assert bool(np.isfinite(self.logprobs).all()), "non-finite log-probabilities are masked by the sampler"
        assert bool(np.isfinite(self.teacher_logprobs).all()), "what a teacher says is checked where it is asked"

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Completion):
            return NotImplemented
        return all(
            np.array_equal(mine, theirs) if isinstance(mine, np.ndarray) else mine == theirs
            for mine, theirs in ((getattr(self, f.name), getattr(other, f.name)) for f in fields(Completion))
        )

    __hash__ = None  # type: ignore[assignment]  # arrays have no hash

    @property
    def num_tokens(self) -> int:
        """T."""
        return len(self.token_ids)

    @property
    def num_sampled_tokens(self) -> int:
        """Without what the world of an episode said."""
        return len(self.token_ids) if self.episode is None else self.episode.num_sampled_tokens

    @property
    def min_policy_version(self) -> int:
        """Version of the oldest weights that sampled one of the tokens."""
        return min(span.policy_version for span in self.version_spans)


def read_only(values: Any, kind: type[np.generic]) -> NDArray[Any]:
    """[T] values as a read-only array of `kind`; copied only where they are something else."""
    array = np.asarray(values, dtype=kind)
    assert array.ndim == 1, array.shape
    if array.flags.writeable:
        array = array.view()
        array.flags.writeable = False
    return array


@dataclass(frozen=True, slots=True, kw_only=True)
class RolloutGroup:
    """The G completions of one prompt, from one attempt of one sampler.

    Between processes it travels as three buffers, however many completions it has (pickle protocol 5, out of band),
    and a fourth where a teacher was asked: a reader in another process gets views of shared memory, and no token
    becomes a Python object on the way.
    """

    prompt: Prompt
    completions: tuple[Completion, ...]
    """[G] in the order of `sample_index`."""
    attempt: int
    """1 for the first lease of this prompt; a retry counts up."""
    worker: str
    """Name of the sampler, for example "sampler-0"."""
    started_s: float
    """Unix time when the sampler took the group."""
    finished_s: float
    """Unix time when the last completion ended."""

    @property
    def group_id(self) -> str:
        """Of the prompt."""
        return self.prompt.group_id

    def __reduce__(self) -> tuple[Any, ...]:
        completions = self.completions
        heads = tuple(
            (
                c.sample_index,
                len(c.token_ids),
                c.text,
                c.finish_reason,
                tuple((span.policy_version, span.start, span.end) for span in c.version_spans),
                c.num_nonfinite_logprobs,
                len(c.teacher_logprobs),
                c.episode,
            )
            for c in completions
        )
        taught = [c.teacher_logprobs for c in completions if len(c.teacher_logprobs)]
        flat = (
            _joined([c.token_ids for c in completions], np.int32),
            _joined([c.logprobs for c in completions], np.float32),
            _joined([c.loss_mask for c in completions], np.bool_),
            _joined(taught, np.float32) if taught else None,
        )
        return _unpacked_group, (self.prompt, self.attempt, self.worker, self.started_s, self.finished_s, heads, *flat)


def _joined(parts: list[NDArray[Any]], kind: type[np.generic]) -> NDArray[Any]:
    return np.concatenate(parts) if parts else np.zeros(0, dtype=kind)


def _unpacked_group(  # noqa: PLR0913  # pickle hands the fields over one by one
    prompt: Prompt,
    attempt: int,
    worker: str,
    started_s: float,
    finished_s: float,
    heads: tuple[
        tuple[int, int, str, FinishReason, tuple[tuple[int, int, int], ...], int, int, EpisodeFacts | None], ...
    ],
    token_ids: TokenIds,
    logprobs: Logprobs,
    loss_mask: LossMask,
    teacher_logprobs: Logprobs | None,
) -> RolloutGroup:
    """The other end of `RolloutGroup.__reduce__`. Its values were checked when the completions were made."""
    taught = np.zeros(0, np.float32) if teacher_logprobs is None else teacher_logprobs
    for flat in (token_ids, logprobs, loss_mask, taught):
        flat.flags.writeable = False
    completions, start, taught_start = [], 0, 0
    for sample_index, length, text, finish_reason, spans, num_nonfinite, num_taught, episode in heads:
        end, taught_end = start + length, taught_start + num_taught
        completion = object.__new__(Completion)
        for name, value in (
            ("sample_index", sample_index),
            ("token_ids", token_ids[start:end]),
            ("logprobs", logprobs[start:end]),
            ("loss_mask", loss_mask[start:end]),
            ("text", text),
            ("finish_reason", finish_reason),
            ("version_spans", tuple(VersionSpan(policy_version=v, start=s, end=e) for v, s, e in spans)),
            ("num_nonfinite_logprobs", num_nonfinite),
            ("teacher_logprobs", taught[taught_start:taught_end]),
            ("episode", episode),
        ):
            object.__setattr__(completion, name, value)
        completions.append(completion)
        start, taught_start = end, taught_end
    return RolloutGroup(
        prompt=prompt,
        completions=tuple(completions),
        attempt=attempt,
        worker=worker,
        started_s=started_s,
        finished_s=finished_s,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupFacts:
    """What is known of a sampled group without opening it: some bytes for each completion, none for a token."""

    group_id: str
    attempt: int
    worker: str
    """Name of the sampler."""
    started_s: float
    finished_s: float
    """Unix times, as in `RolloutGroup`."""
    num_tokens_G: tuple[int, ...]
    """Tokens of each completion; of an episode those that the world said are among them."""
    num_trainable_tokens_G: tuple[int, ...]
    """Those with `loss_mask`."""
    finish_reasons_G: tuple[FinishReason, ...]
    min_versions_G: tuple[int, ...]
    """Version of the oldest weights in each completion."""
    max_versions_G: tuple[int, ...]
    repetition_G: tuple[float, ...] = ()
    """Share of the 4-grams of tokens of each completion that occurred before in it; empty where an earlier version
    sampled the group."""
    episodes_G: tuple[EpisodeSummary | None, ...] = ()
    """None for one answer to one prompt; empty where all are."""
    surprisal_sum: float
    """Sum of -log p(token) over trainable tokens (nats): its mean estimates the entropy of the sampler."""
    num_nonfinite_logprobs: int

    @property
    def num_completions(self) -> int:
        """G."""
        return len(self.num_tokens_G)

    @property
    def num_tokens(self) -> int:
        """Of all completions together."""
        return sum(self.num_tokens_G)

    @property
    def num_sampled_tokens_G(self) -> tuple[int, ...]:
        """Of each completion the tokens that the policy sampled."""
        if not self.episodes_G:
            return self.num_tokens_G
        both = zip(self.episodes_G, self.num_tokens_G, strict=True)
        return tuple(number if episode is None else episode.num_sampled_tokens for episode, number in both)

    @property
    def num_sampled_tokens(self) -> int:
        """Of all completions together."""
        return sum(self.num_sampled_tokens_G)

    @property
    def min_policy_version(self) -> int:
        """Version of the oldest weights in the group: policy lag is measured from it."""
        return min(self.min_versions_G)


def facts_of(group: RolloutGroup) -> GroupFacts:
    """The facts of a group, made where it was sampled."""
    completions = group.completions
    versions = [[span.policy_version for span in c.version_spans] for c in completions]
    return GroupFacts(
        group_id=group.group_id,
        attempt=group.attempt,
        worker=group.worker,
        started_s=group.started_s,
        finished_s=group.finished_s,
        num_tokens_G=tuple(c.num_tokens for c in completions),
        num_trainable_tokens_G=tuple(int(np.count_nonzero(c.loss_mask)) for c in completions),
        finish_reasons_G=tuple(c.finish_reason for c in completions),
        min_versions_G=tuple(min(of) for of in versions),
        max_versions_G=tuple(max(of) for of in versions),
        repetition_G=tuple(
            repetition(c.token_ids, None if c.episode is None else c.episode.turns) for c in completions
        ),
        episodes_G=(
            tuple(None if c.episode is None else summary_of(c.episode) for c in completions)
            if any(c.episode is not None for c in completions)
            else ()
        ),
        surprisal_sum=float(-sum(float(np.sum(c.logprobs[c.loss_mask], dtype=np.float64)) for c in completions)),
        num_nonfinite_logprobs=sum(c.num_nonfinite_logprobs for c in completions),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class SampledGroup:
    """A group as the controller knows it: its prompt, its facts, and where its completions are."""

    prompt: Prompt
    facts: GroupFacts
    payload: Any = field(compare=False)
    """A reference to the `RolloutGroup` in the object store: whoever needs tokens opens it. Of a group that was just
    read from a file, the group itself."""

    @property
    def group_id(self) -> str:
        """Of the prompt."""
        return self.facts.group_id


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
