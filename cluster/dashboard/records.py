"""What the dashboard knows of a run: the records between the files (`store`) and what is shown (`views`).

A rollout is one completion. Its address is (phase, step, group_id, sample_index), which stays the same when the index
is made anew; `phase` is "train" or "eval", and the step of an evaluation is the number of training steps before it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from cluster.run_files import CHECKPOINTS, LOGS, ROLLOUTS, Phase
from cluster.types import EndStatus
from rollout.episode_types import EpisodeFacts

RunStatus = Literal["live", "stopped"] | EndStatus
"""`stopped`: there is no summary and no process that still writes."""
SpanKind = str
"""One of `EventKind`, or WAIT, DOWN or STOPPED, which the dashboard makes; a run of another version may have others."""
WAIT, DOWN, STOPPED = "wait", "down", "stopped"

SOURCES = ("config", *LOGS, ROLLOUTS, CHECKPOINTS, "summary", "vocabulary", "annotations")
"""What a run consists of; also the names by which the page is told what changed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """A file that is missing, torn or cannot be read; everything else is shown all the same."""

    file: str
    """Relative to the run, for example "rollouts/step-000004.parquet"."""
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupAddress:
    """Where a group is."""

    phase: Phase
    step: int
    group_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RolloutRow:
    """A line of the table of rollouts: no text beyond a preview, no tokens."""

    phase: Phase
    step: int
    group_id: str
    sample_index: int
    uid: str
    """Of the prompt: the same in every epoch and every run on the same data."""
    epoch: int
    reward: float | None
    """None when it was not scored."""
    components: Mapping[str, float]
    advantage: float | None
    correct: bool | None
    outcome: str
    """`ok`, `timeout`, `error` or `invalid`."""
    finish: str
    """`stop`, `length`, `abort` or `error`."""
    length: int
    """Sampled tokens."""
    entropy: float | None
    """Mean over the sampled tokens: the learner's entropy where recorded, else the mean of -log p; nats."""
    max_gap: float | None
    """Largest |log p(learner) - log p(sampler)| of its sampled tokens, nats; None where the learner computed none."""
    k3: float | None
    """Mean of exp(d) - d - 1 with d = log p(learner) - log p(sampler)."""
    repetition: float
    """Share of its 4-grams of tokens that occurred before in it; 0 for short ones."""
    lag: int | None
    """Training step's version minus that of its oldest token; None for an evaluation."""
    worker: str
    answer: str | None
    """The final answer that was extracted from it; None where there is none."""
    truth: str | None
    question: str
    """Its first 120 characters."""
    preview: str
    """First 160 characters of the completion."""
    turns: int | None = None
    """Replies of an episode; None for one answer to one prompt, as are the two after it."""
    tool_calls: int | None = None
    episode_outcome: str | None = None
    """How it ended: `rollout.episodes.environment.Outcome`."""

    @property
    def address(self) -> GroupAddress:
        """Of its group."""
        return GroupAddress(phase=self.phase, step=self.step, group_id=self.group_id)


@dataclass(frozen=True, slots=True, kw_only=True)
class RolloutPage:
    """A part of a filtered, sorted table."""

    rows: Sequence[RolloutRow]
    total: int
    """Rows that pass the filter."""
    offset: int


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundGroup:
    """A group of which a completion passes a filter."""

    rows: Sequence[RolloutRow]
    """All of its completions, in order of their samples."""
    num_passing: int


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupTablePage:
    """A part of the groups that a filter finds."""

    groups: Sequence[FoundGroup]
    total: int
    offset: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RolloutRecord:
    """One completion in full, as the Parquet file has it. [T] are its tokens."""

    row: RolloutRow
    task: str
    prompt_text: str
    question: str
    ground_truth: str | None
    text: str
    detail: str
    """Why scoring failed."""
    attempt: int
    reward_worker: str
    score_s: float
    prompt_token_ids: Sequence[int]
    token_ids: Sequence[int]
    rollout_logprobs: Sequence[float]
    policy_logprobs: Sequence[float]
    """Empty where the learner computed none; so are the two after it."""
    ref_logprobs: Sequence[float]
    entropies: Sequence[float]
    loss_mask: Sequence[bool]
    episode: EpisodeFacts | None
    """None for one answer to one prompt."""
    version_spans: Sequence[tuple[int, int, int]]
    """(policy_version, start, end) over the tokens."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """A span of an actor's time, or an instant (start = end). Unix seconds."""

    id: int
    """Line number in events.jsonl, from 0."""
    kind: SpanKind
    actor: str
    start_s: float
    end_s: float
    step: int | None = None
    ids: Sequence[str] = ()
    """Groups."""
    extra: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class LedgerEntry:
    """Where a group is now."""

    group_id: str
    state: str
    """`pending`, `leased`, `sampled`, `scored`, `consumed` or `rejected`."""
    attempt: int
    worker: str
    step: int | None
    """Training step that consumed it."""
    reason: str
    """Why it was rejected."""
    first_s: float
    """Unix time of its first line."""
    last_s: float
    times_consumed: int = 0
    """1 for every group that was trained on, if all is well."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PromptStats:
    """How a prompt has fared over the training steps."""

    uid: str
    question: str
    num_groups: int
    num_scored: int
    """Completions."""
    pass_rate: float | None
    """Share of the judged completions that are correct; None when none was judged."""
    mean_reward: float | None
    last: GroupAddress


@dataclass(frozen=True, slots=True, kw_only=True)
class PromptVisit:
    """One group of a prompt's history."""

    address: GroupAddress
    epoch: int
    pass_rate: float | None
    mean_reward: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class MetricTable:
    """metrics.jsonl by columns."""

    steps: Sequence[int]
    columns: Mapping[str, Sequence[float | None]]
    """Name -> values, as long as `steps`; None where a line lacks the name or has null."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """One that a run can go on from."""

    step: int
    name: str
    num_bytes: int
    written_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class IndexProgress:
    """How much of the run is in the index; files and rows are those of rollouts."""

    files_done: int
    files_total: int
    rows: int
    logs_read: bool = True
    """Whether events and ledger were read to their ends."""
    files_later: int = 0
    """Those that wait until somebody asks for rollouts."""

    @property
    def ready(self) -> bool:
        """Whether nothing is being read any more, though files may wait."""
        return self.logs_read and self.files_done + self.files_later >= self.files_total

    @property
    def complete(self) -> bool:
        """Whether all of the run is in the index."""
        return self.ready and not self.files_later


@dataclass(frozen=True, slots=True, kw_only=True)
class ActorStats:
    """What the spans tell of one actor, over the whole run."""

    actor: str
    role: str
    """`sampler`, `reward`, `learner` or `controller`."""
    counts: Mapping[str, int]
    """Kind -> spans."""
    seconds: Mapping[str, float]
    """Kind -> the spans' seconds added up, those at the same time too."""
    tokens: int
    """Sampled by it."""
    num_groups: int
    """Sampled or scored by it."""
    last_kind: str
    """Of its span that ended last; "" when it has none."""
    last_end_s: float
    policy_version: int | None
    """Of its last span that says one."""
    steps: Sequence[int]
    """[N] training steps that it sampled for, in order; empty for all but samplers."""
    step_tokens: Sequence[int]
    """[N]"""
    step_busy_s: Sequence[float]
    """[N] seconds in which at least one of its generate spans ran."""

    @property
    def generate_by_step(self) -> dict[int, tuple[int, float]]:
        """Training step -> (tokens, seconds)."""
        return dict(zip(self.steps, zip(self.step_tokens, self.step_busy_s, strict=True), strict=True))
