"""A step: every rollout of it as groups x samples, histograms, and the way from dispatched to trained."""

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby
from typing import TYPE_CHECKING, Any

from cluster.dashboard.figures.derived import REJECTED_IN_STEP, metric, reject_reasons
from cluster.dashboard.figures.series import known
from cluster.dashboard.figures.thresholds import facts_of
from cluster.dashboard.records import GroupAddress, RolloutRow
from cluster.dashboard.views.rollouts import finite
from cluster.run_files import Phase
from cluster.types import RejectReason
from rollout.types import FinishReason

if TYPE_CHECKING:
    from cluster.dashboard.index.store import RunStore

BINS = 24
BEFORE_SCORED = (RejectReason.TOO_FEW_SCORED,)
"""Reasons to reject a group before it counts as scored; every other one comes between scored and trained."""


def step_list(store: "RunStore", phase: Phase) -> dict[str, Any]:
    """`/api/runs/{run}/steps`."""
    return {"steps": store.table_steps(phase)}


def step_page(store: "RunStore", phase: Phase, step: int) -> dict[str, Any] | None:
    """`/api/runs/{run}/steps/{phase}/{step}`; None when it has no rollouts."""
    rows = store.step_rows(phase, step)
    if not rows:
        return None
    steps = store.table_steps(phase)
    groups = [_group(store, list(members)) for _, members in groupby(rows, key=lambda row: row.group_id)]
    metrics = step_metrics(store, phase, step)
    return {
        "phase": phase,
        "step": step,
        "previous": max((other for other in steps if other < step), default=None),
        "next": min((other for other in steps if other > step), default=None),
        "groups": groups,
        "reward_range": _reward_range(store, rows),
        "histograms": _histograms(rows),
        "funnel": _funnel(groups, rows, metrics) if phase == "train" else _eval_funnel(groups),
        "metrics": metrics,
    }


def step_metrics(store: "RunStore", phase: Phase, step: int) -> dict[str, float]:
    """All that is known of a step by name, derived values too; an evaluation's are those of evaluations.jsonl."""
    table = store.metrics() if phase == "train" else store.evaluations()
    if step not in table.steps:
        return {}
    place = list(table.steps).index(step)
    facts = facts_of(store.config(), table)
    names = [*table.columns, *(REJECTED_IN_STEP + reason for reason in reject_reasons(table))]
    found = {name: metric(table, facts, name)[place] for name in names if name != "step"}
    return {name: value for name, value in found.items() if value is not None}


def group_status(store: "RunStore", address: GroupAddress, advantages: Iterable[float | None]) -> tuple[str, str]:
    """(status, reason): `trained`, `rejected` with the ledger's reason, or `evaluated`.

    A completion has an advantage exactly when its group was in a batch of the learner.
    """
    if address.phase == "eval":
        return "evaluated", ""
    if any(advantage is not None for advantage in advantages):
        return "trained", ""
    reasons = [str(line.get("reason") or "") for line in store.ledger_history(address.group_id)]
    return "rejected", next((reason for reason in reversed(reasons) if reason), "no advantage was computed")


def mean_std(values: Sequence[float]) -> tuple[float | None, float | None]:
    """Mean and standard deviation of the population."""
    if not values:
        return None, None
    mean = math.fsum(values) / len(values)
    return mean, math.sqrt(math.fsum((value - mean) ** 2 for value in values) / len(values))


def _group(store: "RunStore", rows: Sequence[RolloutRow]) -> dict[str, Any]:
    first = rows[0]
    status, reason = group_status(store, first.address, (row.advantage for row in rows))
    mean, std = mean_std(known([finite(row.reward) for row in rows]))
    return {
        "group_id": first.group_id,
        "uid": first.uid,
        "question": first.question,
        "truth": first.truth,
        "status": status,
        "reason": reason,
        "reward_mean": mean,
        "reward_std": std,
        "num_correct": sum(row.correct is True for row in rows),
        "cells": [_cell(row) for row in rows],
    }


def _cell(row: RolloutRow) -> dict[str, Any]:
    return {
        "sample_index": row.sample_index,
        "reward": finite(row.reward),
        "advantage": finite(row.advantage),
        "correct": row.correct,
        "outcome": row.outcome,
        "length": row.length,
        "finish": row.finish,
        "answer": row.answer,
        "preview": row.preview,
    }


def _reward_range(store: "RunStore", rows: Sequence[RolloutRow]) -> list[float]:
    """Least and greatest reward of the run so far, so that a colour means the same in every step."""
    columns = store.metrics().columns
    seen = known([finite(row.reward) for row in rows])
    for name in ("reward/min", "reward/max"):
        seen += known(columns.get(name, ()))
    if not seen:
        return [0.0, 1.0]
    low, high = min(seen), max(seen)
    return [low, high] if low < high else [min(low, 0.0), max(high, 1.0)]


def _histograms(rows: Sequence[RolloutRow]) -> dict[str, Any]:
    lengths = [float(row.length) for row in rows]
    length_edges = _edges(lengths, whole=True)
    truncated = [float(row.length) for row in rows if row.finish == FinishReason.LENGTH]
    advantages = known([finite(row.advantage) for row in rows])
    greatest = max((abs(value) for value in advantages), default=0.0)
    rewards = known([finite(row.reward) for row in rows])
    # An odd number of bins around 0, so that the advantages of equal groups, exactly 0, have the middle to themselves.
    advantage_edges = _even_edges(-greatest or -1.0, greatest or 1.0, BINS + 1)
    return {
        "reward": _histogram(rewards, _edges(rewards)),
        "length": _histogram(lengths, length_edges) | {"truncated": _counts(truncated, length_edges)},
        "advantage": _histogram(advantages, advantage_edges),
    }


def _histogram(values: Sequence[float], edges: Sequence[float]) -> dict[str, Any]:
    return {"edges": list(edges), "counts": _counts(values, edges)}


def _edges(values: Sequence[float], *, whole: bool = False) -> list[float]:
    """Edges of at most BINS equal bins; `whole` numbers have bins of whole width."""
    low, high = min(values, default=0.0), max(values, default=1.0)
    if whole:
        width = max(1, math.ceil((high - low + 1) / BINS))
        bins = max(1, math.ceil((high - low + 1) / width))
        return [low + i * width for i in range(bins + 1)]
    return _even_edges(low, high, BINS) if low < high else [low - 0.5, low + 0.5]


def _even_edges(low: float, high: float, bins: int) -> list[float]:
    return [low + (high - low) * i / bins for i in range(bins + 1)]


def _counts(values: Sequence[float], edges: Sequence[float]) -> list[int]:
    """Of each bin, the lower edge included; the last bin has its upper edge too."""
    bins, low = len(edges) - 1, edges[0]
    width = (edges[-1] - low) / bins
    found = Counter(min(bins - 1, max(0, int((value - low) / width))) for value in values)
    return [found[i] for i in range(bins)]


def _funnel(
    groups: Sequence[Mapping[str, Any]], rows: Sequence[RolloutRow], metrics: Mapping[str, float]
) -> list[dict[str, Any]]:
    """Groups dispatched for a step: those it trained on, and those that were rejected while it was filled.

    A rejected group is in the step's counts, and in its table too unless it was lost before it had completions. So each
    reason counts as often as the one of the two says that has more.
    """
    rejected = Counter(str(group["reason"]) for group in groups if group["status"] == "rejected")
    left = {group["group_id"] for group in groups if group["status"] == "rejected"}
    rows = [row for row in rows if row.group_id not in left]
    for name, value in metrics.items():
        reason = name.removeprefix(REJECTED_IN_STEP)
        if name.startswith(REJECTED_IN_STEP) and round(value) > rejected[reason]:
            rejected[reason] = round(value)
    rejected = +rejected  # looking a reason up has noted it with 0
    before_scored: dict[str, int] = {reason: number for reason, number in rejected.items() if reason in BEFORE_SCORED}
    after_scored: dict[str, int] = {
        reason: number for reason, number in rejected.items() if reason not in BEFORE_SCORED
    }
    dispatched = len(groups) - len(left) + sum(rejected.values())
    scored = dispatched - sum(before_scored.values())
    trained = scored - sum(after_scored.values())
    effective = sum(bool(row.advantage) for row in rows)
    lost = Counter(_why_without_effect(row) for row in rows if not row.advantage)
    if metrics.get("train/skipped"):
        after_scored["step skipped: loss or gradient not finite"] = trained
        lost = Counter({"step skipped: loss or gradient not finite": len(rows)})
        trained = effective = 0
    return [
        _stage("dispatched", dispatched),
        _stage("scored", scored, before_scored),
        _stage("trained", trained, after_scored),
        _stage("effective completions", effective, lost),
    ]


def _eval_funnel(groups: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    scored = sum(any(cell["reward"] is not None for cell in group["cells"]) for group in groups)
    reasons = {"no completion was scored": len(groups) - scored} if scored < len(groups) else {}
    return [_stage("dispatched", len(groups)), _stage("scored", scored, reasons)]


def _why_without_effect(row: RolloutRow) -> str:
    if row.advantage is not None:
        return "equal rewards in its group"
    return f"not scored: {row.outcome}" if row.reward is None else "not trained on"


def _stage(label: str, count: int, reasons: Mapping[str, int] | None = None) -> dict[str, Any]:
    return {"label": label, "count": count, "reasons": dict(reasons or {})}
