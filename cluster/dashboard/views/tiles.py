"""The six tiles on top of the overview: is this run all right? Each a value, how it moved, and its state.

All six are always there; what a run does not have yet is None with state `none`.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from cluster.dashboard.figures import samplers, thresholds
from cluster.dashboard.figures.derived import about, metric
from cluster.dashboard.figures.intervals import Z, noise, share_difference, wilson
from cluster.dashboard.figures.series import Values, known, last_known, six_digits, thin
from cluster.dashboard.figures.thresholds import NO_THRESHOLD, RunFacts, State, Threshold
from cluster.dashboard.records import ActorStats, MetricTable
from learner.metrics import Metric

SPARK_POINTS = 60
SEVERITY: Sequence[State] = ("none", "ok", "watch", "alarm")
WINDOW = 10
"""Steps: a delta compares with the mean of so many before, and the share of equal groups is judged over so many."""


def tiles_of(
    table: MetricTable, evaluations: MetricTable, facts: RunFacts, stats: Sequence[ActorStats] = ()
) -> list[dict[str, Any]]:
    """The `tiles` of the API; `stats` are those of the actors."""
    return [
        _reward_tile(table, facts),
        _accuracy_tile(evaluations),
        _gap_tile(table, facts),
        _entropy_tile(table, facts),
        _equal_groups_tile(table, facts),
        _throughput_tile(table, facts, samplers.slowest(stats, window=WINDOW)),
    ]


def held_out(evaluations: MetricTable) -> tuple[str, Values]:
    """(name, values) of what an evaluation is judged by: pass@1, or the reward where nothing is right or wrong."""
    for name in ("eval/pass_at_1", "eval/reward_mean"):
        if any(value is not None for value in evaluations.columns.get(name, ())):
            return name, evaluations.columns[name]
    return "eval/pass_at_1", [None] * len(evaluations.steps)


def _reward_tile(table: MetricTable, facts: RunFacts) -> dict[str, Any]:
    values = metric(table, facts, "reward/mean")
    std = last_known(metric(table, facts, "reward/std"))
    failed = _recent(metric(table, facts, "reward/failed_share"))
    # No bound is right for every reward; without any spread, though, a step teaches nothing.
    state: State = "none" if std is None else "watch" if std == 0 else "ok"
    note = "" if std is None else f"std {std:.2f}"
    if failed:
        note = f"{note}; {failed:.1%} not scored".lstrip("; ")
        judged: tuple[State, State] = (state, thresholds.FAILED_REWARDS.state(failed))
        state = max(judged, key=SEVERITY.index)
    tile = _tile(
        _Head(id="reward", label="Reward", metric="reward/mean"),
        values,
        state=state,
        text=f"watch when all rewards of a step are equal; not scored: {thresholds.FAILED_REWARDS.text(share=True)}",
        note=note,
    )
    # Of one step against the mean of some: no more than noise is neither good nor bad.
    before = known(values)[-1 - WINDOW : -1]
    chance = Z * noise(before) * math.sqrt(1 + 1 / max(1, len(before)))
    return tile | {"judged": tile["delta"] is not None and len(before) >= WINDOW and abs(tile["delta"]) > chance}


def _accuracy_tile(evaluations: MetricTable) -> dict[str, Any]:
    name, values = held_out(evaluations)
    found = known(values)
    is_share = name == "eval/pass_at_1"
    tile = _tile(
        _Head(id="accuracy", label="Held-out accuracy" if is_share else "Held-out reward", metric=name),
        values,
        state="none",
        text="watch when below the first evaluation by more than chance (95 %)" if is_share else "",
        note="" if found else "not evaluated yet",
    )
    if len(found) > 1:
        tile |= {"delta": found[-1] - found[0], "delta_text": "since the first evaluation"}
        num_questions = last_known(evaluations.columns.get("eval/questions", ()))
        if is_share and num_questions:
            # Of the questions, not of the samples: those of one question are right or wrong together.
            low, high = wilson(found[-1], num_questions)
            moved = share_difference(found[0], found[-1], num_questions)
            note = f"{num_questions:.0f} questions, {low:.1%} to {high:.1%}"
            state: State = "watch" if moved.is_fall else "ok"
            tile |= {"state": state, "note": note, "judged": moved.is_fall or moved.is_rise}
    return tile


def _gap_tile(table: MetricTable, facts: RunFacts) -> dict[str, Any]:
    largest = last_known(metric(table, facts, "train/max_abs_log_ratio"))
    return _judged_tile(
        _Head(id="gap", label="Sampler-learner gap", metric="train/kl_rollout"),
        metric(table, facts, "train/kl_rollout"),
        thresholds.gap(facts),
        note="" if largest is None else f"largest of a token {largest:.2g}",
    )


def _entropy_tile(table: MetricTable, facts: RunFacts) -> dict[str, Any]:
    name = thresholds.entropy_name(table)
    values = metric(table, facts, name)
    last, first = last_known(values), facts.first_entropy
    note = f"{last / first:.2f} of the first step's" if last is not None and first else ""
    head = _Head(id="entropy", label="Entropy", metric=name)
    tile = _judged_tile(head, values, thresholds.entropy(facts), note=note)
    accuracy = last_known(metric(table, facts, "reward/accuracy"))
    is_low = last is not None and first is not None and last < first
    if tile["state"] == "alarm" and is_low and accuracy is not None and accuracy >= thresholds.SOLVED_ACCURACY:
        tile |= {"state": "watch", "note": f"{note}; accuracy is {accuracy:.0%}, so little is left to choose"}
    return tile


def _equal_groups_tile(table: MetricTable, facts: RunFacts) -> dict[str, Any]:
    values = metric(table, facts, "reward/equal_groups_fraction")
    right = last_known(metric(table, facts, "reward/all_right_groups"))
    wrong = last_known(metric(table, facts, "reward/all_wrong_groups"))
    tile = _judged_tile(
        _Head(id="equal_groups", label="Equal groups", metric="reward/equal_groups_fraction"),
        values,
        thresholds.EQUAL_GROUPS,
        note="" if right is None or wrong is None else f"{right:.0f} all right, {wrong:.0f} all wrong",
        judged=_recent(values),
    )
    accuracy = _recent(metric(table, facts, "reward/accuracy"))
    if tile["state"] == "alarm" and accuracy is not None and accuracy >= thresholds.SOLVED_ACCURACY:
        learnt = f"{tile['note']}; accuracy is {accuracy:.0%}: the task is learnt"
        tile |= {"state": "watch", "note": learnt.lstrip("; ")}
    return tile | {"threshold": f"mean of {WINDOW} steps: {tile['threshold']}"}


def _throughput_tile(table: MetricTable, facts: RunFacts, slowest: tuple[str, float] | None) -> dict[str, Any]:
    step_s = last_known(metric(table, facts, "time/step_s"))
    waiting = last_known(metric(table, facts, "time/wait_share"))
    notes = [] if step_s is None else [f"step {step_s:.3g} s"]
    notes += [] if waiting is None else [f"{waiting:.0%} waiting"]
    tile = _judged_tile(
        _Head(id="throughput", label="Sampling speed", metric="rollout/tokens_per_s"),
        metric(table, facts, "rollout/tokens_per_s"),
        thresholds.throughput(facts),
        note=", ".join(notes),
    )
    if slowest is not None and thresholds.SLOWEST_SAMPLER.state(slowest[1]) != "ok":
        tile["note"] = f"{slowest[0]} has {slowest[1]:.0%} of the median sampler's speed"
        tile["state"] = max(tile["state"], "watch", key=SEVERITY.index)
    return tile


def _recent(values: Values) -> float | None:
    """Mean over the last steps: one step of a small batch is chance."""
    recent = known(values)[-WINDOW:]
    return sum(recent) / len(recent) if recent else None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Head:
    """What a tile says of its metric."""

    id: str
    label: str
    metric: str
    """Recorded or derived: what is declared of it says the unit and which way is better."""

    @property
    def about(self) -> Metric:
        metric = about(self.metric)
        assert metric is not None, self.metric
        return metric


def _judged_tile(
    head: _Head, values: Values, threshold: Threshold, *, note: str, judged: float | None = None
) -> dict[str, Any]:
    """A tile whose state is that of `judged`, or of its last value."""
    value = last_known(values) if judged is None else judged
    state: State = "none" if threshold == NO_THRESHOLD else threshold.state(value)
    return _tile(head, values, state=state, text=threshold.text(share=head.about.unit == "share"), note=note)


def _tile(head: _Head, values: Values, *, state: State, text: str, note: str) -> dict[str, Any]:
    found = known(values)
    before = found[-1 - WINDOW : -1]
    spark = thin(range(len(values)), points=SPARK_POINTS, from_step=None, to_step=None)
    return {
        "id": head.id,
        "label": head.label,
        "value": found[-1] if found else None,
        "unit": head.about.unit,
        "delta": found[-1] - sum(before) / len(before) if before else None,
        "delta_text": f"against the mean of the {len(before)} before" if before else "",
        "better": head.about.better,
        "judged": state in ("watch", "alarm"),
        "spark": six_digits(spark.mean(values)),
        "state": state,
        "threshold": text,
        "note": note,
    }
