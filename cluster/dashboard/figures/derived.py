"""Columns that follow from the recorded ones, step by step: shares instead of counts, differences instead of sums.

They have names like the recorded ones, so that charts, tiles and the API ask for both in the same way.
"""

import math
from collections.abc import Callable, Iterator, Mapping

from cluster.dashboard.figures.series import Values, column, combine, difference, divide
from cluster.dashboard.figures.thresholds import RunFacts
from cluster.dashboard.records import MetricTable
from cluster.record.metric_list import metric_of
from learner.metrics import Metric

Derive = Callable[[MetricTable, RunFacts], Values]
REJECTED_IN_STEP = "groups/step_rejected_"
"""Before a reason: groups that were rejected for it during a step (`groups/rejected_` counts them from the start)."""
ROUNDING: Mapping[str, float] = {"train/kl_rollout": math.inf, "train/kl_ref": 1e-6}
"""Divergences that are 0 or more -> how far below 0 what is recorded may be rounding. The gap is k3, which never is
below; the KL to the reference may be k1, which is."""
_FAILURES = ("reward/outcome_timeout", "reward/outcome_error", "reward/outcome_invalid")


def metric(table: MetricTable, facts: RunFacts, name: str) -> Values:
    """[N] the recorded or derived column of a name; all None when the run has none."""
    if name in table.columns:
        return recorded(table, name)
    if name in DERIVED:
        return DERIVED[name](table, facts)
    if name.startswith(REJECTED_IN_STEP):
        return difference(column(table, "groups/rejected_" + name.removeprefix(REJECTED_IN_STEP)))
    return recorded(table, name)


def recorded(table: MetricTable, name: str) -> Values:
    """[N] a recorded column; all None when the run has none."""
    values = column(table, name)
    least = -ROUNDING.get(name, 0.0)
    return values if not least else [0.0 if value is not None and least <= value < 0 else value for value in values]


def metric_names(table: MetricTable, facts: RunFacts) -> list[str]:
    """All that have a value, recorded ones first."""
    recorded = [name for name in table.columns if name != "step"]
    rejected = [REJECTED_IN_STEP + reason for reason in reject_reasons(table)]
    derived = [name for name in (*DERIVED, *rejected) if any(v is not None for v in metric(table, facts, name))]
    return [*recorded, *derived]


def reject_reasons(table: MetricTable) -> Iterator[str]:
    """Reasons for which the run has rejected groups, sorted."""
    prefix = "groups/rejected_"
    return (name.removeprefix(prefix) for name in sorted(table.columns) if name.startswith(prefix))


def _reward_low(table: MetricTable, _facts: RunFacts) -> Values:
    """A standard deviation below the mean, but not below what was seen: half of a 0-or-1 reward's would be."""
    columns = [column(table, name) for name in ("reward/mean", "reward/std", "reward/min")]
    return combine(lambda mean, std, least: max(mean - std, least), *columns)


def _reward_high(table: MetricTable, _facts: RunFacts) -> Values:
    columns = [column(table, name) for name in ("reward/mean", "reward/std", "reward/max")]
    return combine(lambda mean, std, greatest: min(mean + std, greatest), *columns)


def _groups(table: MetricTable, facts: RunFacts) -> Values:
    size = facts.group_size
    return [n / size if n is not None and size else None for n in column(table, "rollout/completions")]


def _failed_share(table: MetricTable, _facts: RunFacts) -> Values:
    failed = combine(lambda *counts: sum(counts), *(column(table, name) for name in _FAILURES))
    return divide(failed, column(table, "rollout/completions"))


def _other_s(table: MetricTable, _facts: RunFacts) -> Values:
    """What waiting, training and sync leave of a step: evaluations and checkpoints, mostly."""
    columns = [column(table, name) for name in ("time/step_s", "time/wait_s", "time/train_s", "time/sync_s")]
    return combine(lambda step, wait, train, sync: max(0.0, step - wait - train - sync), *columns)


def _quotient(numerator: str, denominator: str) -> Derive:
    return lambda table, _: divide(column(table, numerator), column(table, denominator))


def _share_of_groups(count: str) -> Derive:
    return lambda table, facts: divide(column(table, count), _groups(table, facts))


DERIVED: Mapping[str, Derive] = {
    "reward/low": _reward_low,
    "reward/high": _reward_high,
    "reward/all_right_share": _share_of_groups("reward/all_right_groups"),
    "reward/all_wrong_share": _share_of_groups("reward/all_wrong_groups"),
    "reward/failed_share": _failed_share,
    "lag/mixed_share": _quotient("lag/mixed_completions", "rollout/completions"),
    "rollout/retried_share": _share_of_groups("rollout/retried_groups"),
    "rollout/end_to_end_tokens_per_s": _quotient("rollout/completion_tokens", "time/step_s"),
    "time/wait_share": _quotient("time/wait_s", "time/step_s"),
    "time/sync_share": _quotient("time/sync_s", "time/step_s"),
    "time/other_s": _other_s,
}

_DERIVED_METRICS = (
    Metric(name="reward/low", label="Reward less its deviation", over="scored completions", reduce="mean"),
    Metric(name="reward/high", label="Reward and its deviation", over="scored completions", reduce="mean"),
    Metric(name="reward/all_right_share", label="Groups all right", unit="share", over="groups", reduce="mean"),
    Metric(name="reward/all_wrong_share", label="Groups all wrong", unit="share", over="groups", reduce="mean"),
    Metric(name="reward/failed_share", label="Rewards that failed", unit="share", over="completions", reduce="mean"),
    Metric(name="lag/mixed_share", label="Of more than one version", unit="share", over="completions", reduce="mean"),
    Metric(name="rollout/retried_share", label="Groups sampled again", unit="share", over="groups", reduce="mean"),
    Metric(
        name="rollout/end_to_end_tokens_per_s",
        label="Sampled tokens per second of the run",
        unit="tokens/s",
        over="time of the step",
        reduce="rate",
        better="up",
    ),
    Metric(name="time/wait_share", label="Waiting for a batch", unit="share", over="time of the step", reduce="mean"),
    Metric(name="time/sync_share", label="Weight sync", unit="share", over="time of the step", reduce="mean"),
    Metric(name="time/other_s", label="Other", unit="s", over="step", reduce="sum"),
)
_DECLARED = {metric.name: metric for metric in _DERIVED_METRICS}


def about(name: str) -> Metric | None:
    """What is declared of a recorded or derived name, or of a family by its name with `*`; None for any other."""
    if name.startswith(REJECTED_IN_STEP):
        reason = name.removeprefix(REJECTED_IN_STEP).replace("_", " ").rstrip("*")
        return Metric(name=name, label=f"Rejected: {reason}".rstrip(": "), unit="groups", over="step", reduce="sum")
    return _DECLARED.get(name) or metric_of(name)
