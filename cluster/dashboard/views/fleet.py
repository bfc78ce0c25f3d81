"""The fleet page: each actor's state and how it came to it, version, throughput, share of time at work, the leases that
it holds, restarts and how many the run has left, last error.

A run that watches its actors records their states as instants; they are shown as recorded. Without them the state
follows from what is in flight: a sampler with a lease is busy, reward workers are while groups wait for a score, the
learner while a whole batch is scored and not yet trained. Spans cannot tell: they are written when they end.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from cluster.dashboard.figures.covers import union
from cluster.dashboard.figures.lanes import IDLE_KINDS, lane_order, role_of
from cluster.dashboard.figures.series import Values, column, last_known, thin
from cluster.dashboard.figures.settings import setting, written
from cluster.dashboard.figures.stops import sessions
from cluster.dashboard.records import ActorStats, LedgerEntry, RunStatus, Span
from cluster.dashboard.views.bars import covers_of
from cluster.dashboard.views.fault_records import lease_of, restarts_used, since_resume, states_of
from cluster.types import ActorState, EventKind, GroupState, Instant

if TYPE_CHECKING:
    from cluster.dashboard.index.store import RunStore

RECENT_S = 60.0
"""The last minute of the run: what `busy` is a share of."""
SPARK_POINTS = 60
NUM_CHANGES, NUM_LEASES = 8, 8
"""Changes of its state, and leases, that a card lists."""
NO_ERROR_STATES = (ActorState.HEALTHY, ActorState.RESTARTING, ActorState.STALE)
"""Recorded states whose reason is no error."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Flight:
    """What is on its way between the actors."""

    leases: Mapping[str, Sequence[str]]
    """Sampler -> groups that are leased to it, in order of dispatch."""
    unscored: int
    """Groups that are sampled and have no score."""
    scored: int
    """Groups that wait to be trained on."""
    batch: int
    """Groups of a training step."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What the cards of all actors share."""

    status: RunStatus
    flight: Flight
    instants: Mapping[str, Sequence[Span]]
    """Actor -> its instants in order."""
    recent: Mapping[str, float]
    """Actor -> share of the last minute in which it worked."""
    retried: Mapping[str, int]
    """Sampler -> groups that it was given after another try had failed."""
    running: Sequence[Span]
    """Instants of the processes that run now, or ran last."""
    steps: Sequence[int]
    learner_rate: Values
    """[N] tokens per second of all ranks together, by step."""
    num_learners: int
    num_trained: int
    num_groups: int
    error: str
    """Of the run's summary."""
    error_actor: str
    """Whose failure it was; "" where that is not on record."""


def fleet(store: "RunStore") -> dict[str, Any]:
    """A card for each actor that has an event, in the order of the timeline's lanes."""
    stats = {actor.actor: actor for actor in store.actor_stats()}
    actors = lane_order({*stats, *store.actors()})
    facts = _facts(store, actors)
    cards = [{**_card(actor, stats.get(actor), facts), **_leases(store, actor, facts)} for actor in actors]
    most = setting(store.config(), "recovery.max_restarts", int)
    return {"actors": cards, "restarts": {"used": restarts_used(store.instants()), "most": most}}


def state_of(actor: str, *, status: RunStatus, recorded: str, flight: Flight) -> str:
    """What an actor does now: the `recorded` state of a run that watches its actors ("" without one), else `busy` or
    `idle`; `ended` when nobody writes the run any more, but DEAD stays: it may be why."""
    if status != "live":
        return recorded if recorded == ActorState.DEAD else "ended"
    if recorded:
        return recorded
    role = role_of(actor)
    busy = {
        "controller": True,
        "sampler": actor in flight.leases,
        "reward": flight.unscored > 0,
        "learner": flight.batch > 0 and flight.scored >= flight.batch,
    }
    return "busy" if busy.get(role, False) else "idle"


def last_error(instants: Sequence[Span], run_error: str, *, is_its: bool) -> str:
    """The last warning, error or bad state of an actor's `instants`, else the `run_error` when it `is_its`."""
    for instant in reversed(instants):
        name = instant.extra.get("name")
        if name in (Instant.WARNING, Instant.ERROR):
            return str(instant.extra.get("text", "")) or str(name)
        if name == Instant.STATE and instant.extra.get("state") not in NO_ERROR_STATES:
            return str(instant.extra.get("reason", "")) or str(instant.extra.get("state"))
    return run_error if is_its else ""


def num_restarts(instants: Sequence[Span]) -> int:
    """How often an actor was begun anew: the controller by resuming the run, others as their states say."""
    resumed = [instant for instant in instants if instant.extra.get("name") == Instant.RESUMED]
    again = [change for change in states_of(instants) if change.extra.get("state") == ActorState.RESTARTING]
    return len(resumed) + len(again)


def flight_of(counts: Mapping[str, int], latest: Sequence[LedgerEntry], batch: int) -> Flight:
    """From the ledger's counts by state and its latest entries, among which are all that are in flight."""
    leases: dict[str, list[str]] = {}
    for entry in latest:
        if entry.state == GroupState.LEASED:
            leases.setdefault(entry.worker, []).append(entry.group_id)
    return Flight(
        leases=leases,
        unscored=counts.get(GroupState.SAMPLED, 0),
        scored=counts.get(GroupState.SCORED, 0),
        batch=batch,
    )


def _facts(store: "RunStore", actors: Sequence[str]) -> Facts:
    counts, table, summary = store.ledger_counts(), store.metrics(), store.summary() or {}
    total = sum(counts.values())
    latest, _ = store.ledger_entries(max(0, total - 1000), 1000)
    batch = written(store.config(), "rollout.prompts_per_step", int)
    instants: dict[str, list[Span]] = {}
    for instant in store.instants():
        instants.setdefault(instant.actor, []).append(instant)
    return Facts(
        status=store.status(),
        flight=flight_of(counts, latest, batch or 0),
        instants=instants,
        recent=_recent(store),
        retried=store.ledger_events().retried_by,
        running=since_resume(store.instants()),
        steps=table.steps,
        learner_rate=column(table, "train/tokens_per_s"),
        num_learners=sum(role_of(actor) == "learner" for actor in actors),
        num_trained=counts.get(GroupState.CONSUMED, 0),
        num_groups=total,
        error=str(summary.get("error", "")),
        error_actor=str(summary.get("error_actor", "")),
    )


def _card(actor: str, stats: ActorStats | None, facts: Facts) -> dict[str, Any]:
    instants = facts.instants.get(actor, ())
    # What was wrong before a resume was wrong with another process.
    states = [instant for instant in states_of(facts.running) if instant.actor == actor]
    recorded = str(states[-1].extra.get("state", "")) if states else ""
    spark = _spark(actor, stats, facts)
    role = role_of(actor)
    done = {
        "sampler": _num_spans(stats, EventKind.GENERATE),
        "reward": _num_spans(stats, EventKind.SCORE),
        "learner": facts.num_trained,
        "controller": facts.num_groups,
    }
    return {
        "actor": actor,
        "role": role,
        "state": state_of(actor, status=facts.status, recorded=recorded, flight=facts.flight),
        "policy_version": stats.policy_version if stats is not None and role == "sampler" else None,
        "tokens_per_s": last_known(spark),
        "busy": facts.recent.get(actor, 0.0),
        "groups": done.get(role, 0),
        "restarts": num_restarts(instants),
        "retried": facts.retried.get(actor, 0),
        "last_event": {"kind": stats.last_kind, "end_s": stats.last_end_s} if stats and stats.last_kind else None,
        "last_error": last_error(instants, facts.error, is_its=actor in ("controller", facts.error_actor)),
        "spark": spark,
        "changes": _changes(instants),
        "num_changes": len(states_of(instants)),
    }


def _changes(instants: Sequence[Span]) -> list[dict[str, Any]]:
    """The last changes of an actor's state, the newest first."""
    return [
        {
            "state": str(change.extra.get("state", "")),
            "before": str(change.extra.get("before", "")),
            "reason": str(change.extra.get("reason", "")),
            "time_s": change.start_s,
            "step": change.step,
        }
        for change in reversed(states_of(instants)[-NUM_CHANGES:])
    ]


def _leases(store: "RunStore", actor: str, facts: Facts) -> dict[str, Any]:
    """What a sampler holds; of a run that has ended, what it held then."""
    held = facts.flight.leases.get(actor, ())
    lines = [(group_id, lease_of(store.ledger_history(group_id))) for group_id in held[:NUM_LEASES]]
    leases = [
        {"group_id": group_id, "attempt": line.get("attempt"), "deadline_s": line.get("deadline_s")}
        for group_id, line in lines
    ]
    return {"leases": leases, "num_leases": len(held)}


def _spark(actor: str, stats: ActorStats | None, facts: Facts) -> list[float | None]:
    """[at most SPARK_POINTS] tokens per second over the steps; empty for who handles no tokens."""
    thinning = thin(facts.steps, points=SPARK_POINTS, from_step=None, to_step=None)
    role = role_of(actor)
    if role == "sampler" and stats is not None:
        by_step = stats.generate_by_step
        found = [by_step.get(step, (0, 0.0)) for step in facts.steps]
        values = thinning.mean([tokens / seconds if seconds > 0 else None for tokens, seconds in found])
    elif role == "learner":  # what is recorded is the rate of all ranks together, and they share the batch evenly
        rates = [None if rate is None else rate / facts.num_learners for rate in facts.learner_rate]
        values = thinning.mean(rates)
    else:
        return []
    return values if any(value is not None for value in values) else []


def _recent(store: "RunStore") -> dict[str, float]:
    """Actor -> share of the last minute of the run in which it worked; of less, where it was resumed in it."""
    extent = store.extent_s()
    if extent is None:
        return {}
    start_s, end_s = max(extent[0], extent[1] - RECENT_S), extent[1]
    running_s = sum(b - a for a, b in sessions(store.spans.stops(), start_s, end_s))
    covers = store.spans.covers()
    work = {actor: covers_of(actor, covers, {}) for actor in store.actors()}
    return {
        actor: union(c for kind, c in kinds.items() if kind not in IDLE_KINDS).seconds(start_s, end_s) / running_s
        for actor, kinds in work.items()
        if running_s > 0
    }


def _num_spans(stats: ActorStats | None, kind: str) -> int:
    return stats.counts.get(kind, 0) if stats is not None else 0
