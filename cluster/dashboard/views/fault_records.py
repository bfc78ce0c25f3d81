"""What went wrong in a run and was mended, read from its instants and its journal: leases that were given up, late
answers, restarts, checkpoints that were set aside or not written. What fleet, ledger and doctor tell of it.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from cluster.dashboard.figures.series import column, last_known
from cluster.dashboard.records import MetricTable, Span

if TYPE_CHECKING:
    from cluster.dashboard.index.store import RunStore

MAX_RESTARTS = 10
"""`recovery.max_restarts` where the configuration does not say."""
Line = Mapping[str, Any]
"""Of the journal of one group."""
_NOT_WRITTEN = re.compile(r"checkpoint of step (\d+) was not written, the one before stays: (.*)", re.DOTALL)
"""The warning of a save that failed, as the run writes it."""
_NAME = re.compile(r"step-(\d+)")


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


def since_resume(instants: Sequence[Span]) -> Sequence[Span]:
    """Those of the processes that run now, or ran last: a resumed run starts all of its actors, and its budget of
    restarts, anew."""
    resumed = [place for place, instant in enumerate(instants) if instant.extra.get("name") == "resumed"]
    return instants[resumed[-1] + 1 :] if resumed else instants


def states_of(instants: Sequence[Span]) -> list[Span]:
    """The changes of actors' states."""
    return [instant for instant in instants if instant.extra.get("name") == "state"]


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
    return sum(instant.extra.get("state") == "RESTARTING" for instant in states_of(since_resume(instants)))


def troubles(instants: Sequence[Span]) -> list[Trouble]:
    """Checkpoints that were set aside, each once though a resumed run tells of it again, and saves that failed."""
    found: list[Trouble] = []
    told: set[str] = set()
    for instant in instants:
        name, text = instant.extra.get("name"), str(instant.extra.get("text", ""))
        if name == "checkpoint_set_aside" and text not in told:
            told.add(text)
            checkpoint, _, reason = text.partition(": ")
            step = _NAME.match(checkpoint)
            found.append(
                Trouble(what="set aside", step=int(step[1]) if step else None, reason=reason, at_s=instant.start_s)
            )
        elif name == "warning" and (failed := _NOT_WRITTEN.match(text)):
            found.append(Trouble(what="not written", step=int(failed[1]), reason=failed[2], at_s=instant.start_s))
    return found


def lease_of(lines: Sequence[Line]) -> Line:
    """The newest lease of a group; empty when it has none."""
    return next((line for line in reversed(lines) if line.get("state") == "leased"), {})


def given_up(lines: Sequence[Line]) -> list[Line]:
    """The attempts of a group that were given up, each with its `reason`."""
    return [line for line in lines if line.get("state") == "pending"]


def faults_of_groups(store: "RunStore") -> dict[str, Any]:
    """`late`: the newest answers that were refused; `retried`: the newest groups that were leased again, or wait for
    it, with why the last attempt was given up."""
    events = store.ledger_events()
    late, retried = [], []
    for group_id in events.late_groups:
        for line in store.ledger_history(group_id):
            if line.get("event") == "late_result_refused":
                late.append({"group_id": group_id, "attempt": line.get("attempt"), "time_s": line.get("time_s")})
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
