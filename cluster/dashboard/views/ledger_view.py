"""The ledger page: where every group is, the exactly-once check, how each prompt fares.

The law of a run: each group is trained on at most once, from one attempt, and none is lost. The ledger says what the
controller did, the tables of rollouts say what the learner got, and the run's own counts say what it believed; each
check compares two of them.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from cluster.dashboard.figures.series import column, last_known
from cluster.dashboard.records import GroupAddress, MetricTable, PromptStats
from cluster.dashboard.views.fault_records import checkpoints_of, faults_of_groups, lease_of
from cluster.types import GroupState

if TYPE_CHECKING:
    from cluster.dashboard.index.store import RunStore

STATES = tuple(GroupState)
MOVING = tuple(state for state in STATES if state not in (GroupState.CONSUMED, GroupState.REJECTED))
CHECKS: Mapping[str, tuple[str, str, str]] = {
    "consumed_twice": (
        "consumed once",
        "Each of the {trained} trained groups was consumed by one training step, once.",
        "{count} of {trained} trained groups were consumed more than once: they were learned from twice.",
    ),
    "trained_twice": (
        "trained once",
        "No group is in the rollouts of two training steps.",
        "{count} groups were trained on in more than one step: they are in the rollouts of each.",
    ),
    "consumed_without_rollouts": (
        "in the rollouts of its step",
        "Each consumed group is in the rollouts of the step that consumed it.",
        "{count} groups were consumed by a step whose rollouts do not have them.",
    ),
    "trained_without_consumption": (
        "in the ledger",
        "Each group that was trained on is in the ledger, consumed by that step.",
        "{count} groups were trained on in a step that did not consume them according to the ledger.",
    ),
    "mixed_attempts": (
        "one attempt",
        "All completions of a group are from one attempt.",
        "{count} groups have completions from more than one attempt.",
    ),
}
"""What the index counts -> the check's name, its sentence when it holds, its sentence when it does not."""
NOT_JUDGED = "Not judged yet: the ledger and the rollouts are still being read."
LATE = "{count} results of attempts that had been given up came late and were refused: nothing was delivered twice."
NUM_PROMPTS = 50
"""Hardest and easiest prompts that are listed."""


def ledger_page(store: "RunStore") -> dict[str, Any]:
    """Counts, checks, a letter for each group, the hardest and easiest prompts."""
    counts = {str(state): store.ledger_counts().get(state, 0) for state in STATES}
    hardest, total = store.prompt_stats("hardest", NUM_PROMPTS)
    easiest, _ = store.prompt_stats("easiest", NUM_PROMPTS)
    anomalies, indexed = store.ledger_anomalies(), store.progress().complete
    own = last_counts(store.metrics())
    balance = balance_of(counts, own, store.summary(), live=store.status() == "live", indexed=indexed)
    checks = checks_of(counts, anomalies, indexed=indexed)
    late = store.ledger_events().num_late
    if late:
        checks.append({"name": "late results", "ok": True, "text": LATE.format(count=late)})
    return {
        "counts": counts,
        "late_results": late,
        **faults_of_groups(store),
        "checkpoints": checkpoints_of(store),
        "reasons": dict(sorted(store.ledger_reasons().items(), key=lambda item: (-item[1], item[0]))),
        "balance": {name: balance[name] for name in ("dispatched", "trained", "rejected", "in_flight", "ok")},
        "checks": [*checks, {"name": "balance", "ok": balance["ok"], "text": balance["text"]}],
        "groups": store.ledger_letters(),
        "ids_url": "ledger/groups?offset=&limit=",
        "prompts": {
            "hardest": [prompt_json(stats) for stats in hardest],
            "easiest": [prompt_json(stats) for stats in easiest],
            "total": total,
        },
    }


def checks_of(counts: Mapping[str, int], anomalies: Mapping[str, int], *, indexed: bool) -> list[dict[str, Any]]:
    """A check for each thing that the index counts, in the order of CHECKS. While ledger and rollouts are still being
    read (not `indexed`) nothing can be judged, and each check says so."""
    if not indexed:
        return [{"name": name, "ok": True, "text": NOT_JUDGED} for name, _, _ in CHECKS.values()]
    checks: list[dict[str, Any]] = []
    for key in [*CHECKS, *sorted(anomalies.keys() - CHECKS.keys())]:
        if key not in anomalies:
            continue
        plain = key.replace("_", " ")
        name, good, bad = CHECKS.get(key, (plain, f"{plain}: none", f"{plain}: {{count}} groups"))
        count = anomalies[key]
        text = (bad if count else good).format(count=count, trained=counts.get(GroupState.CONSUMED, 0))
        checks.append({"name": name, "ok": count == 0, "text": text})
    return checks


def ledger_groups(store: "RunStore", offset: int, limit: int) -> dict[str, Any]:
    """A part of the groups, in the order of `groups` of the page."""
    entries, total = store.ledger_entries(offset, limit)
    groups = [
        {
            "group_id": entry.group_id,
            "state": entry.state,
            "attempt": entry.attempt,
            "worker": entry.worker,
            "step": entry.step,
            "reason": entry.reason,
            "first_s": entry.first_s,
            "last_s": entry.last_s,
            # In flight there are no more than a run has slots.
            "deadline_s": lease_of(store.ledger_history(entry.group_id)).get("deadline_s")
            if entry.state == GroupState.LEASED
            else None,
        }
        for entry in entries
    ]
    return {"groups": groups, "total": total, "offset": offset}


def prompt_page(store: "RunStore", uid: str) -> dict[str, Any] | None:
    """One prompt over the run. None when no group was sampled for it."""
    stats, visits = store.prompt_stat(uid), store.prompt_history(uid)
    if stats is None and not visits:
        return None
    history = [
        {
            "phase": visit.address.phase,
            "step": visit.address.step,
            "group_id": visit.address.group_id,
            "epoch": visit.epoch,
            "pass_rate": visit.pass_rate,
            "reward_mean": visit.mean_reward,
        }
        for visit in visits
    ]
    facts = prompt_json(stats) if stats is not None else {"question": ""}
    return {**facts, "uid": uid, "history": history}


def prompt_json(stats: PromptStats) -> dict[str, Any]:
    """PromptStats of the API."""
    return {
        "uid": stats.uid,
        "question": stats.question,
        "num_groups": stats.num_groups,
        "num_scored": stats.num_scored,
        "pass_rate": stats.pass_rate,
        "reward_mean": stats.mean_reward,
        "last": address_json(stats.last),
    }


def address_json(address: GroupAddress) -> dict[str, Any]:
    """A group address of the API."""
    return {"phase": address.phase, "step": address.step, "group_id": address.group_id}


def last_counts(table: MetricTable) -> dict[str, int]:
    """The run's own counts, as its last training step has them."""
    names = ("dispatched", "trained", "rejected", "in_flight", "unaccounted")
    values = {name: last_known(column(table, f"groups/{name}")) for name in names}
    return {name: int(value) for name, value in values.items() if value is not None}


def balance_of(
    counts: Mapping[str, int],
    own: Mapping[str, int],
    summary: Mapping[str, Any] | None,
    *,
    live: bool,
    indexed: bool = True,
) -> dict[str, Any]:
    """dispatched = trained + rejected + in flight, of the ledger, and against the run's own counts, once it is read.

    `own` is of the last training step, after which a live run has gone on; so its counts may only have grown.
    """
    trained, rejected = counts.get(GroupState.CONSUMED, 0), counts.get(GroupState.REJECTED, 0)
    in_flight = sum(counts.get(state, 0) for state in MOVING)
    dispatched = trained + rejected + in_flight
    told = f"{dispatched} dispatched = {trained} trained + {rejected} rejected + {in_flight} in flight"
    problems: list[str] = []
    if not indexed:
        own, summary, told = {}, None, f"{told}, so far: the ledger is still being read"
    if own.get("unaccounted", 0) != 0:
        problems.append(f"the run itself counted {own['unaccounted']} groups that are neither")
    ended = summary is not None and not live
    if ended and summary is not None and isinstance(summary.get("groups_dispatched"), int):
        if summary["groups_dispatched"] != dispatched:
            problems.append(f"the run's summary counts {summary['groups_dispatched']} dispatched")
        if summary.get("groups_trained") != trained:
            problems.append(f"the run's summary counts {summary.get('groups_trained')} trained")
    elif own.get("trained", 0) > trained or own.get("dispatched", 0) > dispatched:
        problems.append(
            f"its last training step counts {own.get('dispatched', 0)} dispatched and {own.get('trained', 0)} trained"
        )
    if dispatched == 0 and not problems and indexed:
        text = "No group has been dispatched yet."
    else:
        text = f"{told}; but {', and '.join(problems)}." if problems else f"{told}."
    return {
        "dispatched": dispatched,
        "trained": trained,
        "rejected": rejected,
        "in_flight": in_flight,
        "ok": not problems,
        "text": text[0].upper() + text[1:],
    }
