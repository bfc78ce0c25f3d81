"""The comparison of up to eight runs: the same charts over steps, time or tokens, configurations, final figures, and
the prompts that all of them were given.

Runs are compared as they are, with nothing smoothed but what down-sampling takes. A final figure is the mean of a run's
last steps, because a single step is mostly noise.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

from cluster.dashboard.figures.derived import recorded
from cluster.dashboard.figures.intervals import Difference, column_difference, share_difference
from cluster.dashboard.figures.series import Axes, Values, axes_of, column, known, last_known, thin, x_of
from cluster.dashboard.figures.settings import flattened
from cluster.dashboard.figures.thresholds import facts_of, gap
from cluster.dashboard.records import MetricTable, PromptStats
from cluster.dashboard.views.charts import on_scale
from cluster.dashboard.views.frame import run_info
from cluster.record.metric_list import metric_of

if TYPE_CHECKING:
    from cluster.dashboard.index.store import RunStore

LAST_STEPS = 10
"""Training steps that a final figure is the mean of."""
LEAST_JUDGED = 5
"""Steps with a value from which on it is known what they jump about by: of one, nothing is."""
NUM_PROMPTS = 100
"""Shared prompts that are listed, the largest difference first."""
PROMPTS_READ = 1000
"""Hardest and easiest prompts of each run among which the largest differences are looked for: a large difference has
an end in one of them."""
NOT_COMPARED = ("name", "runs_dir")
"""Keys of a configuration that differ between any two runs and mean nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """A metric that runs are compared by."""

    name: str
    title: str
    unit: str = ""
    scale: Literal["linear", "log"] = "linear"
    better: Literal["up", "down"] | None = None
    """Which direction is good, where one is."""


def _figure(name: str) -> Figure:
    """Of a recorded metric, as it is declared."""
    metric = metric_of(name)
    assert metric is not None, name
    return Figure(name=name, title=metric.label, unit=metric.unit, scale=metric.scale, better=metric.better)


FIGURES = tuple(
    _figure(name)
    for name in (
        *("reward/mean", "reward/accuracy", "train/entropy", "rollout/sampled_entropy", "train/kl_ref"),
        *("train/kl_rollout", "train/clip_fraction", "train/grad_norm", "rollout/completion_tokens_mean"),
        *("rollout/truncated_fraction", "reward/equal_groups_fraction", "lag/mean", "rollout/tokens_per_s"),
        "time/step_s",
    )
)
EVALUATIONS = (_figure("eval/pass_at_1"), _figure("eval/reward_mean"))


def compare(stores: Mapping[str, "RunStore"], points: int) -> dict[str, Any]:
    """Runs by name, in the order in which they were asked for."""
    tables = {run: store.metrics() for run, store in stores.items()}
    evaluations = {run: store.evaluations() for run, store in stores.items()}
    axes = {run: axes_of(tables[run], store.spans.stops()) for run, store in stores.items()}
    prompts, num_shared = shared_prompts(stores)
    return {
        "runs": [run_info(run, store) for run, store in stores.items()],
        "charts": charts(tables, evaluations, axes, points),
        "config": config_differences({run: store.config() for run, store in stores.items()}),
        "table": final_figures(tables, evaluations, axes, {run: store.config() for run, store in stores.items()}),
        "prompts": prompts,
        "num_shared": num_shared,
    }


def charts(
    tables: Mapping[str, MetricTable], evaluations: Mapping[str, MetricTable], axes: Mapping[str, Axes], points: int
) -> list[dict[str, Any]]:
    """A chart for each figure that at least one run has; a run without it has no line in it."""
    drawn: list[dict[str, Any]] = []
    cuts = {run: thin(table.steps, points=points, from_step=None, to_step=None) for run, table in tables.items()}
    x = {run: x_of(axes[run], cuts[run]) for run in tables}
    for figure in EVALUATIONS:
        lines = [
            {"run": run, "x": evaluation_x(table.steps, axes[run]), "values": list(column(table, figure.name))}
            for run, table in evaluations.items()
            if known(column(table, figure.name))
        ]
        drawn += [_chart(figure, lines)] if lines else []
    for figure in FIGURES:
        lines = [
            {"run": run, "x": x[run], "values": on_scale(cuts[run].mean(recorded(table, figure.name)), figure.scale)}
            for run, table in tables.items()
            if known(column(table, figure.name))
        ]
        drawn += [_chart(figure, lines)] if lines else []
    return drawn


def evaluation_x(steps: Sequence[int], axes: Axes) -> dict[str, list[Any]]:
    """The x axes of evaluations: one after n training steps is where step n - 1 ended, and at 0 before the first."""
    place = {step: i for i, step in enumerate(axes.step)}
    x: dict[str, list[Any]] = {"step": list(steps), "time_s": [], "tokens": []}
    for step in steps:
        at = place.get(step - 1)
        x["time_s"].append(0.0 if step == 0 else None if at is None else axes.time_s[at])
        x["tokens"].append(0.0 if step == 0 else None if at is None else axes.tokens[at])
    return x


def config_differences(configs: Mapping[str, Mapping[str, Any] | None]) -> list[dict[str, Any]]:
    """The keys, with dots between their parts, whose values are not the same in all runs; a run that lacks one, or
    has no configuration that can be read, has null."""
    flat = {run: flattened(config or {}) for run, config in configs.items()}
    keys = sorted({key for values in flat.values() for key in values})
    return [
        {"key": key, "values": {run: values.get(key) for run, values in flat.items()}}
        for key in keys
        if key not in NOT_COMPARED
        and any(values.get(key) != flat[next(iter(flat))].get(key) for values in flat.values())
    ]


Differences = Mapping[str, Difference]
"""Run -> its figure less that of the first run, where something is known of how much chance makes of it."""


def final_figures(
    tables: Mapping[str, MetricTable],
    evaluations: Mapping[str, MetricTable],
    axes: Mapping[str, Axes],
    configs: Mapping[str, Mapping[str, Any] | None],
) -> list[dict[str, Any]]:
    """A line for each figure that at least one run has. `intervals`: run -> [low, high] (95 %) of its difference from
    the first run, where one is known; `judged`: the runs whose difference is more than chance; absent where nothing is
    known of it."""
    lines: list[dict[str, Any]] = []

    def line(
        figure: Figure,
        values: Mapping[str, float | None],
        differences: Differences | None = None,
        is_same: Callable[[], bool] = lambda: False,
    ) -> None:
        if all(value is None for value in values.values()):
            return
        found = {"name": figure.name, "label": figure.title, "unit": figure.unit, "better": figure.better}
        lines.append({**found, "values": dict(values)})
        if differences is not None:
            sure = [run for run, moved in differences.items() if moved.is_rise or moved.is_fall]
            lines[-1] |= {
                "judged": [] if is_same() else sure,
                "intervals": {run: [moved.low, moved.high] for run, moved in differences.items()},
            }

    accuracy = {run: column(table, "eval/pass_at_1") for run, table in evaluations.items()}
    share = partial(Figure, unit="share", better="up")
    line(Figure(name="steps", title="Training steps"), {run: float(len(table.steps)) for run, table in tables.items()})
    line(
        share(name="accuracy_last", title="Held-out pass@1, last"),
        {run: last_known(values) for run, values in accuracy.items()},
        _of_questions(evaluations),
    )
    line(
        share(name="accuracy_best", title="Held-out pass@1, best"),
        {run: max(known(values), default=None) for run, values in accuracy.items()},
    )
    line(
        Figure(name="accuracy_gain", title="Held-out pass@1, gained", unit="points", better="up"),
        {run: gain_of(evaluations[run].steps, values) for run, values in accuracy.items()},
    )
    for figure in FIGURES:
        means = {run: mean_of_last(recorded(table, figure.name)) for run, table in tables.items()}
        line(figure, means, _of_last_steps(figure, tables), partial(_is_rounding, figure, tables, configs))
    line(
        Figure(name="tokens", title="Sampled tokens", unit="tokens"),
        {run: a.tokens[-1] if a.tokens else None for run, a in axes.items()},
    )
    line(
        Figure(name="time_s", title="Time", unit="s", better="down"),
        {run: last_known(a.time_s) for run, a in axes.items()},
    )
    return lines


def _of_questions(evaluations: Mapping[str, MetricTable]) -> Differences:
    """Of the last accuracies: what the number of questions leaves open."""
    found: dict[str, tuple[float, float]] = {}
    for run, table in evaluations.items():
        accuracy, questions = (last_known(column(table, name)) for name in ("eval/pass_at_1", "eval/questions"))
        if accuracy is not None and questions:
            found[run] = accuracy, questions
    base = next(iter(evaluations), "")
    return {
        run: share_difference(found[base][0], accuracy, found[base][1], questions)
        for run, (accuracy, questions) in found.items()
        if base in found and run != base
    }


def _of_last_steps(figure: Figure, tables: Mapping[str, MetricTable]) -> Differences:
    """Of the means of the last steps: what their jumps leave open. None of too few steps."""
    last = {run: known(recorded(table, figure.name)[-LAST_STEPS:]) for run, table in tables.items()}
    base = next(iter(last), "")
    return {
        run: column_difference(last[base], last[run])
        for run in list(last)[1:]
        if min(len(last[base]), len(last[run])) >= LEAST_JUDGED
    }


def _is_rounding(
    figure: Figure, tables: Mapping[str, MetricTable], configs: Mapping[str, Mapping[str, Any] | None]
) -> bool:
    """Whether the figure is a gap that is as small as rounding makes it in all runs: that is no difference."""
    if figure.name != "train/kl_rollout":
        return False
    last = {run: known(recorded(table, figure.name)[-LAST_STEPS:]) for run, table in tables.items()}
    bounds = {run: gap(facts_of(configs.get(run), table)) for run, table in tables.items()}
    return all(bounds[run].state(math.fsum(own) / len(own)) == "ok" for run, own in last.items() if own)


def gain_of(steps: Sequence[int], values: Values) -> float | None:
    """The last value less that from before the first training step; None where one of them is not known."""
    found = [(step, value) for step, value in zip(steps, values, strict=True) if value is not None]
    if len(found) < 2 or found[0][0] != 0:
        return None
    return found[-1][1] - found[0][1]


def mean_of_last(values: Values) -> float | None:
    """Of the last LAST_STEPS steps; None when none of them has a value."""
    found = known(values[-LAST_STEPS:])
    return math.fsum(found) / len(found) if found else None


def shared_prompts(stores: Mapping[str, "RunStore"]) -> tuple[list[dict[str, Any]], int]:
    """(the shared prompts whose pass rates differ most, how many are shared)."""
    if len(stores) < 2:
        return [], 0
    shared = set.intersection(*(store.prompt_uids() for store in stores.values()))
    stats: dict[str, dict[str, PromptStats]] = {run: {} for run in stores}
    for run, store in stores.items():
        for order in ("hardest", "easiest"):
            found, _ = store.prompt_stats(order, PROMPTS_READ)
            stats[run] |= {prompt.uid: prompt for prompt in found if prompt.uid in shared}
    candidates = {uid for found in stats.values() for uid in found}
    if len(candidates) < min(len(shared), NUM_PROMPTS):
        candidates |= set(sorted(shared)[:NUM_PROMPTS])
    rows: list[tuple[float, str, dict[str, PromptStats]]] = []
    for uid in candidates:
        of_runs = {run: stats[run].get(uid) or store.prompt_stat(uid) for run, store in stores.items()}
        complete = {run: prompt for run, prompt in of_runs.items() if prompt is not None}
        if len(complete) == len(stores):
            rates = [prompt.pass_rate for prompt in complete.values() if prompt.pass_rate is not None]
            rows.append((max(rates) - min(rates) if len(rates) > 1 else -1.0, uid, complete))
    rows.sort(key=lambda row: (-row[0], row[1]))
    return [_prompt(uid, complete) for _, uid, complete in rows[:NUM_PROMPTS]], len(shared)


def _prompt(uid: str, stats: Mapping[str, PromptStats]) -> dict[str, Any]:
    return {
        "uid": uid,
        "question": next(iter(stats.values())).question,
        "runs": {
            run: {
                "pass_rate": prompt.pass_rate,
                "num_groups": prompt.num_groups,
                "last": {
                    "phase": prompt.last.phase,
                    "step": prompt.last.step,
                    "group_id": prompt.last.group_id,
                },
            }
            for run, prompt in stats.items()
        },
    }


def _chart(figure: Figure, lines: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "id": figure.name.replace("/", "_"),
        "title": figure.title,
        "unit": figure.unit,
        "scale": figure.scale,
        "better": figure.better,
        "series": lines,
    }
