"""Records of the learner. No torch here: the controller unpickles them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from reward.types import ScoredGroup
from rollout.types import Logprobs, read_only

CompletionKey = tuple[str, int]
"""(group id, sample index)"""
GroupAdvantages = tuple[float | None, ...]
"""[G]; None for a completion that has no part in the comparison."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundTeacher:
    """Where the teachers of a run are, once they are known to be of use; of the policy itself, nothing."""

    folders: Mapping[str, str] = field(default_factory=dict)
    """Name -> Hugging Face directory; one alone has the name ""."""
    served_model: str = ""
    """Name of the teacher on its server; empty where it is asked of none."""
    fingerprint: str = ""
    """Of the models' files, or of the name on the server; empty without a teacher of its own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Taught:
    """What became of a group that a teacher's server was asked about."""

    reason: str
    """Why it could not be scored; empty where it was."""
    started_s: float
    finished_s: float
    """Unix times."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingSetup:
    """What a rank is told of the run, beyond the learner's own configuration. The same for all ranks."""

    model_dir: str
    """Hugging Face directory of the starting weights."""
    seed: int
    temperature: float
    """That of sampling; above 0."""
    total_steps: int
    """Training steps of the run, for the learning rate."""
    weight_dtype: str
    """Precision in which the engines take weights."""
    chunk_mib: int
    """Size of a chunk of weights, MiB."""
    deterministic: bool
    weight_delta: bool = False
    """Whether the weights sent are kept, so that the next transfer can be told as what changed."""
    trust_remote_code: bool = False
    teacher_dirs: Mapping[str, str] = field(default_factory=dict)
    """As `FoundTeacher.folders`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainBatch:
    """The P scored groups of one training step."""

    step: int
    """0 for the first training step of a run."""
    policy_version: int
    """Version of the weights that the step starts from."""
    groups: tuple[ScoredGroup, ...]
    """[P] in the order in which they were dispatched."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupRewards:
    """What advantages are made of, for one group. [G] each."""

    group_id: str
    rewards_G: tuple[float | None, ...]
    """None for a completion that was not scored or was given up: it has no part in anything."""
    num_tokens_G: tuple[int, ...]
    """Trained tokens."""
    components_G: tuple[Mapping[str, float], ...] = ()
    """Components of each reward, before their weights."""

    @property
    def scored(self) -> list[float]:
        """The rewards that there are, in their order."""
        return [reward for reward in self.rewards_G if reward is not None]

    def filled(self, values: Sequence[float]) -> GroupAdvantages:
        """[G] values of the scored completions at their places."""
        rest = iter(values)
        return tuple(None if reward is None else next(rest) for reward in self.rewards_G)


@dataclass(frozen=True, slots=True, kw_only=True)
class AdvantageSpan:
    """Tokens from the span before up to `end` (excluded) have this advantage."""

    end: int
    advantage: float


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainSequence:
    """One completion that the learner computes. Its tokens are in its group."""

    group_id: str
    sample_index: int
    num_prompt_tokens: int
    """At least 1: the first completion token is predicted from the last prompt token."""
    num_completion_tokens: int
    advantage: float
    token_weight: float
    """Weight of each of its trained tokens in the loss of the optimizer step."""
    index: int = 0
    """Its place among the sequences of the step."""
    advantage_spans: tuple["AdvantageSpan", ...] = ()
    """Of an advantage that is not the same at every token: spans that cover all of them."""
    num_teacher_prompt_tokens: int = 0
    """Of the prompt as a teacher reads it; 0 where that is the same."""
    teacher: str = ""
    """Which of several teachers it has; a micro-batch is of one."""

    @property
    def key(self) -> CompletionKey:
        """Which completion it is."""
        return self.group_id, self.sample_index

    @property
    def num_tokens(self) -> int:
        """Prompt and completion."""
        return self.num_prompt_tokens + self.num_completion_tokens

    @property
    def num_longest_tokens(self) -> int:
        """Of the longest pass that it has a part in: a teacher's prompt may be the longer one."""
        return max(self.num_prompt_tokens, self.num_teacher_prompt_tokens) + self.num_completion_tokens


@dataclass(frozen=True, slots=True, kw_only=True)
class StepPlan:
    """What one training step trains on, before it is split over ranks."""

    mini_batches: tuple[tuple[TrainSequence, ...], ...]
    """[mini-batch][sequence] completions to compute; each mini-batch has an optimizer step of its own. One: in the
    batch's order."""
    order: tuple[int, ...]
    """Mini-batches in the order of the optimizer steps, each as often as the batch is gone through."""
    denominator: int
    """What the weights of tokens are still to be divided by: that of the whole step where it is streamed, since its
    first gradients are computed before all tokens are known; else 1."""
    advantages: Mapping[CompletionKey, float | None]
    """Of every completion of the batch, computed or not, in the batch's order; None for one that was not scored."""
    num_completions: int
    """Completions with at least one trained token: the loss is over these."""
    num_trained_tokens: int
    """Their trained tokens, those of completions that need not be computed included."""
    rewards: tuple[GroupRewards, ...] = ()
    """What the advantages are made of, where that is done on the ranks; else empty."""
    without_gradient: tuple[tuple[TrainSequence, ...], ...] = ()
    """[mini-batch][sequence] completions of these mini-batches that are computed for the figures alone."""

    @property
    def sequences(self) -> tuple[TrainSequence, ...]:
        """Of all mini-batches, those with a gradient; sequence i has the index i."""
        return tuple(sequence for part in self.mini_batches for sequence in part)

    @property
    def computed(self) -> tuple[TrainSequence, ...]:
        """All completions to compute."""
        return (*self.sequences, *(sequence for part in self.without_gradient for sequence in part))


@dataclass(frozen=True, slots=True, kw_only=True)
class WholeStep:
    """What a rank needs to know of the sequences of the others: where denominators or advantages depend on what the
    learner computes."""

    mini_batches: tuple[tuple[TrainSequence, ...], ...]
    """[mini-batch][sequence], of all ranks."""
    rewards: tuple[GroupRewards, ...]
    """As in `StepPlan`."""
    num_trained_S: tuple[int, ...]
    """Trained tokens of sequence i of the step."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RankShare:
    """What one rank is asked to do in a training step. The groups that it names come beside it. Of a step that is
    streamed: what is left to do, or the part that can be computed before the rest is there."""

    step: int
    policy_version: int
    """Version of the weights that the step starts from."""
    mini_batches: tuple[tuple[tuple[TrainSequence, ...], ...], ...]
    """[mini-batch][micro-batch][sequence]; as many micro-batches on every rank, since ranks meet in each backward
    pass."""
    order: tuple[int, ...]
    """As in `StepPlan`."""
    denominator: int
    """As in `StepPlan`."""
    num_completions: int
    """Of the whole step, as in `StepPlan`. 0: there is nothing to train on."""
    num_trained_tokens: int
    """As in `StepPlan`."""
    num_sequences: int
    """Completions that all ranks compute together."""
    num_sequence_tokens: int
    """Tokens of these, prompts included."""
    num_padding: int
    """Computed positions that hold no token, over all ranks."""
    packed: bool = False
    """Whether the sequences of a micro-batch share a row, and a prompt."""
    max_tokens: int = 1
    """Longest completion that was allowed."""
    without_gradient: tuple[tuple[tuple[TrainSequence, ...], ...], ...] = ()
    """[mini-batch][micro-batch][sequence] what needs no backward pass; as many micro-batches on every rank."""
    whole: WholeStep | None = None
    """None where a rank needs to know of its own sequences alone."""

    @property
    def sequences(self) -> tuple[TrainSequence, ...]:
        """All that this rank computes."""
        dealt = (*self.mini_batches, *self.without_gradient)
        return tuple(sequence for parts in dealt for part in parts for sequence in part)

    @property
    def group_ids(self) -> tuple[str, ...]:
        """Groups that this rank needs, each once, in the order of first use."""
        return tuple(dict.fromkeys(sequence.group_id for sequence in self.sequences))


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenValues:
    """What the learner computed for one completion. [T] float32, or empty for one that was not computed."""

    policy_logprobs: Logprobs
    """Log-probability (nats) under the weights that the completion was first computed with: those that the step started
    from, or, of a step with several mini-batches, those before the first update on its own, unless the objective
    computes all of them before (`ObjectiveConfig.needs_values_before`)."""
    ref_logprobs: Logprobs
    """Under the reference; empty without one."""
    entropies: Logprobs
    """Entropy (nats) of the whole distribution that `policy_logprobs` are from."""


NO_VALUES = TokenValues(
    policy_logprobs=read_only((), np.float32),
    ref_logprobs=read_only((), np.float32),
    entropies=read_only((), np.float32),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class ComputedTokens:
    """Values for every token that one rank computed, laid end to end: three buffers, however many completions."""

    keys: tuple[CompletionKey, ...]
    lengths: tuple[int, ...]
    """T of each completion in `keys`."""
    policy_logprobs_N: NDArray[np.float32]
    ref_logprobs_N: NDArray[np.float32]
    """Empty without a reference."""
    entropies_N: NDArray[np.float32]

    def by_completion(self) -> dict[CompletionKey, TokenValues]:
        """Views of the values of each completion."""
        found: dict[CompletionKey, TokenValues] = {}
        start = 0
        for key, length in zip(self.keys, self.lengths, strict=True):
            part = slice(start, start + length)
            found[key] = TokenValues(
                policy_logprobs=self.policy_logprobs_N[part],
                ref_logprobs=self.ref_logprobs_N[part],
                entropies=self.entropies_N[part],
            )
            start += length
        return found


@dataclass(frozen=True, slots=True, kw_only=True)
class StepOutput:
    """What one rank says of one training step. Metrics are those of the whole batch, equal on every rank."""

    step: int
    policy_version: int
    """Version after the step; unchanged when the step was skipped."""
    skipped: bool
    """True when a loss or gradient was not finite: weights are bit for bit as before."""
    bad_steps_in_a_row: int
    metrics: Mapping[str, float] = field(default_factory=dict)
    """Named scalars, `stage/what`."""
    reason: str = ""
    """Why the step was skipped."""
