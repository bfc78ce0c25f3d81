"""The records that the processes of a run write and its readers read, and every word in them that means something.
Imports nothing heavy.

With `run_files.py` (names of files), `columns.py` (tables of rollouts) and `record/metric_list.py` (metrics) this is
the contract of a run's files: a word stands here once, and who writes it and who reads it take it from here.
"""

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Literal

from reward.types import ScoredGroup
from rollout.types import RolloutGroup


class EventKind(StrEnum):
    """What an actor did in a span of events.jsonl."""

    GENERATE = "generate"
    SCORE = "score"
    ACCUMULATE = "accumulate"
    """Gradients of groups of a step, while others are sampled."""
    TRAIN = "train"
    SYNC = "sync"
    SAVE = "save"
    EVAL = "eval"
    INSTANT = "instant"
    """No span: something that happened. `extra["name"]` is one of `Instant`."""


class Instant(StrEnum):
    """What happened in an instant, and what `extra` has besides `name`. A run of before a field was recorded has none
    of it."""

    STATE = "state"
    """An actor's health changed: `state` and `before` (`ActorState`), `reason`."""
    STALL = "stall"
    """No progress: `text`, `action`, `stacks` (where they are), `idle_s`."""
    WARNING = "warning"
    """`text`, as the person was told."""
    ERROR = "error"
    """What ended the run: `text`."""
    RESUMED = "resumed"
    """Its processes are new ones from here on: `text`."""
    CHECKPOINT_SET_ASIDE = "checkpoint_set_aside"
    """A damaged one that is never loaded: `checkpoint` (its name), `checkpoint_step`, `reason`, `text`."""
    CHECKPOINT_NOT_WRITTEN = "checkpoint_not_written"
    """A save that failed: as for one that was set aside."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """A span of an actor's time, or an instant.

    Example:
        Event(kind=EventKind.GENERATE, actor="sampler-0", start_s=1700000000.0, end_s=1700000001.5, step=3,
              ids=("000017-5f1c09be12aa03d4",), extra={"tokens": 412})
    """

    kind: EventKind
    actor: str
    """Who, for example "sampler-0"."""
    start_s: float
    """Unix time."""
    end_s: float
    """Unix time; equal to `start_s` for an instant."""
    step: int | None = None
    """Training step that it belongs to; None when it belongs to none, or is not known yet."""
    ids: tuple[str, ...] = ()
    """Groups that it is about."""
    extra: Mapping[str, Any] = field(default_factory=dict)
    """JSON values: of an instant as `Instant` says, of spans `tokens` and `policy_version`."""


EndStatus = Literal["finished", "failed", "interrupted"]
"""How a run ended."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunSummary:
    """How a run ended."""

    status: EndStatus
    num_steps: int
    """Training steps done, those before a resume included."""
    policy_version: int
    """Version of the final weights."""
    weights_digest: str
    """Digest of the final weights; empty when there are none."""
    accuracy_before: float | None
    """Held-out pass@1 before the first step; None when it was not evaluated."""
    accuracy_after: float | None
    """Held-out pass@1 after the last step; None when it was not evaluated."""
    wall_s: float
    """Time of this process, without that before a resume."""
    groups_dispatched: int
    groups_trained: int
    groups_rejected: Mapping[str, int] = field(default_factory=dict)
    """Reason -> groups that were rejected for it."""
    groups_in_flight: int = 0
    """Groups neither trained nor rejected when the run ended."""
    error: str = ""
    """One sentence on what ended a failed run."""
    error_type: str = ""
    """Class of that error; empty in runs of before it was recorded."""
    error_actor: str = ""
    """Whose failure it was; empty where no actor is named."""

    def unaccounted_groups(self) -> int:
        """0 when dispatched = trained + rejected + in flight."""
        return self.groups_dispatched - self.groups_trained - self.groups_in_flight - sum(self.groups_rejected.values())


@dataclass(frozen=True, slots=True, kw_only=True)
class StepTimings:
    """Seconds of one step. With sampling ahead, stages overlap and do not add up to `step_s`."""

    step_s: float
    """From the end of the step before to the end of this one."""
    generate_s: float
    """First group sent to a sampler until the last one of the batch came back."""
    score_s: float
    """Sum over groups of the time in their reward worker."""
    train_s: float
    """All that the learner computed for it."""
    sync_s: float
    wait_s: float = 0.0
    """What the learner waited for a batch."""
    streamed_s: float | None = None
    """The part of `train_s` in which groups of the batch were still sampled; None where learning is not streamed."""
    ended_s: float | None = None
    """Unix time of the end of the step; None where it does not matter."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupCounts:
    """What became of the groups of the run so far: dispatched = trained + in flight + the sum of rejected."""

    dispatched: int
    trained: int
    in_flight: int
    rejected: Mapping[str, int] = field(default_factory=dict)
    """Reason -> groups."""
    late_results: int = 0
    """Results that were refused, since their attempt had been given up."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """A finished evaluation."""

    groups: tuple[ScoredGroup, ...]
    """One for each question."""
    completions: tuple[RolloutGroup, ...]
    """Of each group."""
    metrics: dict[str, float]
    """`eval/pass_at_1`, `eval/pass_at_k`, `eval/maj_at_k`, and the sampling settings they were made with."""
    duration_s: float

    @property
    def accuracy(self) -> float | None:
        """pass@1; None when nothing could be scored."""
        return self.metrics.get("eval/pass_at_1")


class ActorState(StrEnum):
    """What an actor may be used for."""

    HEALTHY = "HEALTHY"
    SUSPECT = "SUSPECT"
    """It failed and may recover: it keeps what it has and gets no new work, but for a trial some time later."""
    DEAD = "DEAD"
    RESTARTING = "RESTARTING"
    STALE = "STALE"
    """It runs, and holds no weights that were verified."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Transition:
    """One change of an actor's state, for the record.

    Example:
        Transition(actor="sampler-1", old=ActorState.HEALTHY, new=ActorState.DEAD, reason="ActorDiedError: killed",
                   at_s=1700000000.0)
    """

    actor: str
    old: ActorState
    new: ActorState
    reason: str
    at_s: float


class GroupState(StrEnum):
    """Where a group is."""

    PENDING = "pending"
    """Given back, to be leased again: its worker was lost, or the run was stopped."""
    LEASED = "leased"
    SAMPLED = "sampled"
    SCORED = "scored"
    CONSUMED = "consumed"
    REJECTED = "rejected"


class LedgerEvent(StrEnum):
    """What a line of ledger.jsonl says that moves no group: its `event`."""

    LATE_RESULT_REFUSED = "late_result_refused"
    """A result came whose `attempt` had been given up."""
    COMMITTED = "committed"
    """A `checkpoint` holds everything that was consumed before `step`."""


class RejectReason(StrEnum):
    """Why a group was not trained on."""

    TOO_FEW_SCORED = "too_few_scored"
    """Fewer than two completions have a score: there is nothing to compare."""
    EQUAL_REWARDS = "equal_rewards"
    """Dynamic sampling: no completion stands out, and another group was sampled instead."""
    NOTHING_TO_TRAIN = "nothing_to_train"
    """Fewer than two scored completions have a token with a finite log-probability."""
    TEACHER_FAILED = "teacher_failed"
    """The server of the teacher did not score its completions."""
    SAMPLING_FAILED = "sampling_failed"
    """Every attempt to sample it ended with its engine failing."""
    ENVIRONMENT = "environment"
    """The world of one of its episodes failed, each time that the episode was begun."""


def now_s() -> float:
    """Unix time: what spans of different processes are compared by."""
    return time.time()
