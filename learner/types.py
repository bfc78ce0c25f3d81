"""Records of the learner. No torch here: the controller unpickles them."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from reward.types import ScoredGroup


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainBatch:
    """The P scored groups of one training step.

    Every rank receives the whole batch and takes its own share by the same deterministic rule, so that shares need
    no second message and a rank can check the whole.
    """

    step: int
    """0 for the first training step of a run."""
    policy_version: int
    """Version of the weights that the step starts from."""
    groups: tuple[ScoredGroup, ...]
    """[P] in the order in which they were dispatched."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SequenceOutput:
    """What the learner computed for one completion."""

    group_id: str
    sample_index: int
    advantage: float | None
    """Group-relative advantage; None for a completion that was not scored."""
    policy_logprobs: tuple[float, ...]
    """[T] log-probability (nats) under the weights that the step started from; empty for one not trained on."""
    ref_logprobs: tuple[float, ...] = ()
    """[T] under the frozen reference; empty without one."""
    entropies: tuple[float, ...] = ()
    """[T] entropy (nats) of the whole distribution that `policy_logprobs` are from; empty where they are."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StepOutput:
    """What one rank returns from one training step. Metrics are those of the whole batch, equal on every rank."""

    step: int
    policy_version: int
    """Version after the step; unchanged when the step was skipped."""
    skipped: bool
    """True when a loss or gradient was not finite: weights are bit for bit as before."""
    bad_steps_in_a_row: int
    metrics: Mapping[str, float] = field(default_factory=dict)
    """Named scalars, `stage/what`."""
    sequences: tuple[SequenceOutput, ...] = ()
    """The completions of this rank's share."""
    reason: str = ""
    """Why the step was skipped."""
