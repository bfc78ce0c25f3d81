"""Every metric that a run has, each as a chart: what is recorded of steps and evaluations, and what follows from it."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from cluster.dashboard.figures.derived import about, metric, metric_names
from cluster.dashboard.figures.series import axes_of, thin, x_of
from cluster.dashboard.figures.thresholds import facts_of

if TYPE_CHECKING:
    from cluster.dashboard.index.store import RunStore


def metric_charts(
    store: "RunStore",
    *,
    names: Sequence[str],
    points: int,
    from_step: int | None = None,
    to_step: int | None = None,
) -> dict[str, Any]:
    """`/api/runs/{run}/metric-charts`: all that there are, and the values of those that are asked for."""
    table, evaluations = store.metrics(), store.evaluations()
    facts = facts_of(store.config(), table)
    thinning = thin(table.steps, points=points, from_step=from_step, to_step=to_step)
    rare = thin(evaluations.steps, points=points, from_step=from_step, to_step=to_step)
    of_steps = metric_names(table, facts)
    of_evaluations = [name for name in evaluations.columns if name != "step" and name not in of_steps]
    wanted = set(names)
    return {
        "metrics": [
            *(_described(name, "steps") for name in of_steps),
            *(_described(name, "evaluations") for name in of_evaluations),
        ],
        "x": x_of(axes_of(table, store.spans.stops()), thinning),
        "steps": {name: thinning.mean(metric(table, facts, name)) for name in of_steps if name in wanted},
        "evaluations": {
            "step": rare.first(evaluations.steps),
            "series": {name: rare.mean(evaluations.columns[name]) for name in of_evaluations if name in wanted},
        },
    }


def _described(name: str, of: str) -> dict[str, Any]:
    known = about(name)
    if known is None:  # of a component or of another version: its name is all that there is to say
        return {"name": name, "label": name, "unit": "", "scale": "linear", "help": "", "of": of}
    over = f"{known.reduce} over {known.over}"
    help = f"{known.help} ({over})" if known.help else over
    return {"name": name, "label": known.label, "unit": known.unit, "scale": known.scale, "help": help, "of": of}
