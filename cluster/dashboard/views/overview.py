"""The overview of a run: tiles, charts, evaluations; and single metrics by name."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from cluster.dashboard.figures import samplers
from cluster.dashboard.figures.derived import metric, metric_names
from cluster.dashboard.figures.series import axes_of, thin, x_of
from cluster.dashboard.figures.thresholds import facts_of
from cluster.dashboard.records import ActorStats, MetricTable
from cluster.dashboard.views.chart_list import CHARTS
from cluster.dashboard.views.charts import chart_of
from cluster.dashboard.views.tiles import held_out, tiles_of
from cluster.dashboard.views.verdict import verdict

if TYPE_CHECKING:
    from cluster.dashboard.index.store import RunStore

DEFAULT_POINTS = 400


def overview(
    store: "RunStore",
    stats: Sequence[ActorStats] | None = None,
    *,
    findings: Sequence[Mapping[str, Any]] = (),
    points: int = DEFAULT_POINTS,
    from_step: int | None = None,
    to_step: int | None = None,
) -> dict[str, Any]:
    """`/api/runs/{run}/overview`. Verdict and tiles are about the whole run, whatever the window of steps. `stats` are
    the store's, where the caller has them, `findings` the doctor's."""
    table, evaluations = store.metrics(), store.evaluations()
    facts = facts_of(store.config(), table)
    thinning = thin(table.steps, points=points, from_step=from_step, to_step=to_step)
    charts = [chart for spec in CHARTS if (chart := chart_of(spec, table, facts, thinning)) is not None]
    stats = store.actor_stats() if stats is None else stats
    per_sampler = samplers.chart(stats, table.steps, thinning)
    if per_sampler is not None:
        charts.append(per_sampler)
    return {
        "x": x_of(axes_of(table, store.spans.stops()), thinning),
        "verdict": verdict(table, evaluations, facts, findings),
        "tiles": tiles_of(table, evaluations, facts, stats),
        "charts": charts,
        "evaluations": _evaluations(evaluations, from_step, to_step),
    }


def metrics_view(
    store: "RunStore",
    *,
    names: Sequence[str] = (),
    points: int = DEFAULT_POINTS,
    from_step: int | None = None,
    to_step: int | None = None,
) -> dict[str, Any]:
    """`/api/runs/{run}/metrics`. A name that the run does not have is not in `series`."""
    table = store.metrics()
    facts = facts_of(store.config(), table)
    thinning = thin(table.steps, points=points, from_step=from_step, to_step=to_step)
    known = metric_names(table, facts)
    wanted = set(known).intersection(names)
    return {
        "names": known,
        "x": x_of(axes_of(table, store.spans.stops()), thinning),
        "series": {name: thinning.mean(metric(table, facts, name)) for name in names if name in wanted},
    }


def _evaluations(table: MetricTable, from_step: int | None, to_step: int | None) -> dict[str, Any]:
    """pass@k and maj@k of every evaluation of the window, pass@1 of each task of several; the reward where nothing is
    judged right or wrong."""
    thinning = thin(table.steps, points=max(1, len(table.steps)), from_step=from_step, to_step=to_step)
    names = [name for name in table.columns if name.startswith(("eval/pass_at_", "eval/maj_at_"))]
    names += [name for name in table.columns if name.startswith("eval/") and name.endswith("/pass_at_1")]
    names = list(dict.fromkeys(names)) or [held_out(table)[0]]
    return {
        "step": thinning.first(table.steps),
        "series": [
            {"name": name, "label": _label(name), "values": thinning.mean(table.columns[name])}
            for name in names
            if name in table.columns
        ],
    }


def _label(name: str) -> str:
    """ "eval/pass_at_8" -> "pass@8", "eval/sums/pass_at_1" -> "sums pass@1"."""
    task, _, what = name.removeprefix("eval/").rpartition("/")
    return f"{task} {what.replace('_at_', '@').replace('_', ' ')}".strip()
