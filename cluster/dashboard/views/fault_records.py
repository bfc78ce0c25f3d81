"""What went wrong in a run and was mended, read from its instants and its journal: leases that were given up, late
answers, restarts, checkpoints that were set aside or not written. What fleet, ledger and doctor tell of it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from cluster.dashboard.figures.series import column, last_known
from cluster.dashboard.records import MetricTable, Span
from cluster.types import ActorState, GroupState, Instant, LedgerEvent

if TYPE_CHECKING:
    from cluster.dashboard.index.store import RunStore

Line = Mapping[str, Any]
"""Of the journal of one group."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Trouble:
    """A checkpoint that is not there to go on from.

    Example:
        Trouble(what="not written", step=6, reason="[Errno 28] No space left on device", at_s=1700000000.0)
    """

    what: Literal["set aside", "not written"]
    step: int | None
    """Training steps in it; None for a name that says none."""
    reason: str
    at_s: float
    """Unix time."""


_TROUBLES: Mapping[str, Literal["set aside", "not written"]] = {
    Instant.CHECKPOINT_SET_ASIDE: "set aside",
    Instant.CHECKPOINT_NOT_WRITTEN: "not written",
}


def since_resume(instants: Sequence[Span]) -> Sequence[Span]:
    """Those of the processes that run now, or ran last: a resumed run starts all of its actors, and its budget of
    restarts, anew."""
    resumed = [place for place, instant in enumerate(instants) if instant.extra.get("name") == Instant.RESUMED]
    return instants[resumed[-1] + 1 :] if resumed else instants


def states_of(instants: Sequence[Span]) -> list[Span]:
    """The changes of actors' states."""
    return [instant for instant in instants if instant.extra.get("name") == Instant.STATE]


def step_of(instant: Span, table: MetricTable) -> int | None:
    """The training step in which it happened, of those on record: as it says itself, else by its time. What came after
    the last step counts to it. None where neither knows one."""
    if instant.step is None:
        ends = zip(table.steps, column(table, "time/ended_s"), strict=True)
        within = (step for step, end_s in ends if end_s is not None and end_s >= instant.start_s)
        return next(within, table.steps[-1] if table.steps else None)
    return min(instant.step, table.steps[-1]) if table.steps else instant.step


def restarts_used(instants: Sequence[Span]) -> int:
    """How much of the budget of restarts is used."""
    return sum(instant.extra.get("state") == ActorState.RESTARTING for instant in states_of(since_resume(instants)))


def troubles(instants: Sequence[Span]) -> list[Trouble]:
    """Checkpoints that were set aside, each once though a resumed run tells of it again, and saves that failed. A run
    of before they had fields of their own has the sentence alone."""
    found: list[Trouble] = []
    told: set[str] = set()
    for instant in instants:
        what, text = _TROUBLES.get(str(instant.extra.get("name"))), str(instant.extra.get("text", ""))
        if what is None or (what == "set aside" and text in told):
            continue
        told.add(text)
        step = instant.extra.get("checkpoint_step")
        found.append(
            Trouble(
                what=what,
                step=step if isinstance(step, int) else None,
                reason=str(instant.extra.get("reason", text)),
                at_s=instant.start_s,
            )
        )
    return found


def lease_of(lines: Sequence[Line]) -> Line:
    """The newest lease of a group; empty when it has none."""
    return next((line for line in reversed(lines) if line.get("state") == GroupState.LEASED), {})


def given_up(lines: Sequence[Line]) -> list[Line]:
    """The attempts of a group that were given up, each with its `reason`."""
    return [line for line in lines if line.get("state") == GroupState.PENDING]


def faults_of_groups(store: "RunStore") -> dict[str, Any]:
    """`late`: the newest answers that were refused; `retried`: the newest groups that were leased again, or wait for
    it, with why the last attempt was given up."""
    events = store.ledger_events()
    late, retried = [], []
    for group_id in events.late_groups:
        refused = (
            line for line in store.ledger_history(group_id) if line.get("event") == LedgerEvent.LATE_RESULT_REFUSED
        )
        late += [
            {"group_id": group_id, "attempt": line.get("attempt"), "time_s": line.get("time_s")} for line in refused
        ]
    for group_id in events.retried_groups:
        lines = store.ledger_history(group_id)
        last = (given_up(lines) or [{}])[-1]
        lease = lease_of(lines)
        by = next((line.get("worker") for line in lines if line.get("attempt") == last.get("attempt")), None)
        retried.append(
            {
                "group_id": group_id,
                "attempt": lease.get("attempt"),
                "worker": lease.get("worker"),
                "given_up_by": by,
                "reason": last.get("reason", ""),
                "time_s": last.get("time_s"),
            }
        )
    return {"late": late, "retried": {"total": events.num_retried, "groups": retried}}


def checkpoints_of(store: "RunStore") -> dict[str, Any]:
    """What the newest checkpoint holds of what was done, and those that are not there to go on from."""
    table, checkpoints = store.metrics(), store.checkpoints()
    newest = checkpoints[-1] if checkpoints else None
    trained = table.columns.get("groups/trained", ())
    before = [value for step, value in zip(table.steps, trained, strict=False) if newest and step < newest.step]
    return {
        "newest": None if newest is None else {"name": newest.name, "step": newest.step},
        "steps_done": table.steps[-1] + 1 if table.steps else 0,
        "trained": int(last_known(trained) or 0),
        "trained_held": int(last_known(before) or 0),
        "troubles": [
            {"what": trouble.what, "step": trouble.step, "reason": trouble.reason, "time_s": trouble.at_s}
            for trouble in troubles(store.instants())
        ],
    }
