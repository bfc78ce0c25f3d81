"""The life of every group, and the law that none is lost and none comes twice.

    pending --lease--> leased --sampled--> sampled --scored--> scored --consume--> consumed(step) --> committed
       ^                  |  |                |                   |                            (checkpoint)
       +---- requeue -----+--|----------------+-------------------+
                             +------ reject(reason): terminal, counted by reason ------+

A group whose sampler was lost, whose completions are gone, or that a stopped run was still sampling, is pending; its
next lease has attempt + 1.
The attempt is a fencing token: what comes from an attempt that was given up is refused and counted, so that a worker
that was taken for dead and answers after all cannot deliver a group twice.

At every step: dispatched = trained + rejected + in flight. Pure: time and file come from outside.
"""

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from cluster.errors import LedgerError
from cluster.types import GroupState, LedgerEvent, RejectReason

TERMINAL = (GroupState.CONSUMED, GroupState.REJECTED)
NEXT_STATES = {
    GroupState.PENDING: (GroupState.LEASED, GroupState.REJECTED),
    GroupState.LEASED: (GroupState.SAMPLED, GroupState.PENDING, GroupState.REJECTED),
    GroupState.SAMPLED: (GroupState.SCORED, GroupState.PENDING, GroupState.REJECTED),
    GroupState.SCORED: (GroupState.CONSUMED, GroupState.PENDING, GroupState.REJECTED),
    GroupState.CONSUMED: (),
    GroupState.REJECTED: (),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class LedgerState:
    """What a checkpoint keeps of the ledger. Only groups that are not at their end are listed one by one."""

    dispatched: int = 0
    trained: int = 0
    rejected: Mapping[str, int] = field(default_factory=dict)
    late_results: int = 0
    open_groups: Mapping[str, tuple[str, int]] = field(default_factory=dict)
    """Group id -> (state, attempt)."""


class Ledger:
    """Counts and states; each change is handed to `append` as a journal line."""

    def __init__(
        self,
        append: Callable[[Mapping[str, object]], None],
        clock: Callable[[], float],
        state: LedgerState | None = None,
    ) -> None:
        state = state or LedgerState()
        self._append = append
        self._clock = clock
        self._dispatched = state.dispatched
        self._trained = state.trained
        self._rejected: Counter[str] = Counter(state.rejected)
        self._late_results = state.late_results
        # Of this process: prompts of a run that goes on have indices, and so ids, that were never used.
        self._ended: set[str] = set()
        self._open = {group_id: (GroupState(s), attempt) for group_id, (s, attempt) in state.open_groups.items()}

    def state(self) -> LedgerState:
        """A snapshot. What is being sampled or scored would be lost with the run, so it is pending in it."""
        kept = (GroupState.SCORED, GroupState.PENDING)
        open_groups = {
            group_id: (str(state if state in kept else GroupState.PENDING), attempt)
            for group_id, (state, attempt) in self._open.items()
        }
        return LedgerState(
            dispatched=self._dispatched,
            trained=self._trained,
            rejected=dict(self._rejected),
            late_results=self._late_results,
            open_groups=open_groups,
        )

    @property
    def dispatched(self) -> int:
        """Groups leased since the start of the run."""
        return self._dispatched

    @property
    def trained(self) -> int:
        """Groups that were in the batch of a step."""
        return self._trained

    @property
    def rejected(self) -> dict[str, int]:
        """Reason -> groups."""
        return dict(self._rejected)

    @property
    def late_results(self) -> int:
        """Results that were refused, since their attempt had been given up."""
        return self._late_results

    @property
    def in_flight(self) -> int:
        """Groups dispatched and not at their end, those that wait for another lease included."""
        return len(self._open)

    def lease(self, group_id: str, worker: str, *, deadline_s: float | None = None) -> int:
        """A prompt goes to a sampler, which has `deadline_s` seconds; returns the attempt, 1 for the first."""
        if group_id in self._ended:
            raise LedgerError(f"group {group_id} was leased to {worker} after its end: it would be sampled twice")
        state, attempt = self._open.get(group_id, (None, 0))
        if state not in (None, GroupState.PENDING):
            raise LedgerError(f"group {group_id} was leased to {worker} while it is {state}: it would be sampled twice")
        until = {} if deadline_s is None else {"deadline_s": self._clock() + deadline_s}
        self._write(group_id, GroupState.LEASED, attempt + 1, worker=worker, **until)
        self._dispatched += state is None
        self._open[group_id] = (GroupState.LEASED, attempt + 1)
        return attempt + 1

    def sampled(self, group_id: str, attempt: int, policy_version: int) -> bool:
        """A worker delivered the group. False when its attempt was given up before: the result must not be used."""
        if group_id not in self._ended:
            self._find(group_id)  # one that was never leased is no late result but a defect
        if self._open.get(group_id) != (GroupState.LEASED, attempt):
            self._append(
                {
                    "time_s": self._clock(),
                    "group_id": group_id,
                    "event": LedgerEvent.LATE_RESULT_REFUSED,
                    "attempt": attempt,
                }
            )
            self._late_results += 1
            return False
        self._move(group_id, GroupState.SAMPLED, attempt, policy_version=policy_version)
        return True

    def requeue(self, group_id: str, attempt: int, reason: str) -> None:
        """The attempt is given up; what comes of it later is refused."""
        self._move(group_id, GroupState.PENDING, attempt, reason=reason)

    def scored(self, group_id: str, attempt: int) -> None:
        """The group has its scores."""
        self._move(group_id, GroupState.SCORED, attempt)

    def has(self, group_id: str) -> bool:
        """Whether the group is on its way: it was leased, and has not come to its end."""
        return group_id in self._open

    def is_open(self, group_id: str, attempt: int) -> bool:
        """Whether the attempt is still the one that counts: it may have been given up while it was scored."""
        return self._open.get(group_id, (None, 0)) in (
            (GroupState.SAMPLED, attempt),
            (GroupState.SCORED, attempt),
        )

    def consume(self, group_id: str, attempt: int, step: int) -> None:
        """The group is in the batch of a training step that was taken."""
        self._move(group_id, GroupState.CONSUMED, attempt, step=step)
        self._trained += 1

    def reject(self, group_id: str, attempt: int, reason: RejectReason) -> None:
        """The group is not trained on, and counted under its reason."""
        self._move(group_id, GroupState.REJECTED, attempt, reason=str(reason))
        self._rejected[str(reason)] += 1

    def committed(self, step: int, checkpoint: str) -> None:
        """A checkpoint holds everything that was consumed before training step `step`: one line for all of it."""
        self._append({"time_s": self._clock(), "event": LedgerEvent.COMMITTED, "step": step, "checkpoint": checkpoint})

    def attempt(self, group_id: str) -> int:
        """Of the group's newest lease."""
        return self._find(group_id)[1]

    def check(self) -> None:
        """Errors: `LedgerError` when dispatched = trained + rejected + in flight does not hold."""
        rejected = sum(self._rejected.values())
        if self._dispatched != self._trained + rejected + self.in_flight:
            raise LedgerError(
                f"the ledger does not balance: {self._dispatched} groups dispatched, {self._trained} trained, "
                f"{rejected} rejected, {self.in_flight} in flight; ledger.jsonl has the life of each"
            )

    def _find(self, group_id: str) -> tuple[GroupState, int]:
        if group_id not in self._open:
            raise LedgerError(f"group {group_id} is not in flight: it came twice, or was never leased")
        return self._open[group_id]

    def _move(self, group_id: str, to: GroupState, attempt: int, **facts: object) -> None:
        state, current = self._find(group_id)
        if attempt != current:
            raise LedgerError(f"group {group_id}: a result of attempt {attempt} came, but attempt {current} is leased")
        if to not in NEXT_STATES[state]:
            raise LedgerError(f"group {group_id} cannot become {to}: it is {state}")
        # The line first: where it cannot be written, the state is still the one that the journal tells.
        self._write(group_id, to, attempt, **facts)
        if to in TERMINAL:
            del self._open[group_id]
            self._ended.add(group_id)
        else:
            self._open[group_id] = (to, attempt)

    def _write(self, group_id: str, state: GroupState, attempt: int, **facts: object) -> None:
        self._append({"time_s": self._clock(), "group_id": group_id, "state": str(state), "attempt": attempt, **facts})
