"""What a chart is, and how it is drawn from a run's metrics: with whatever of its series the run has."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

from cluster.dashboard.figures.derived import REJECTED_IN_STEP, about, metric, reject_reasons
from cluster.dashboard.figures.series import Thinning, Values, six_digits
from cluster.dashboard.figures.thresholds import NO_THRESHOLD, RunFacts, Threshold
from cluster.dashboard.records import MetricTable
from learner.metrics import Metric

GROUPS = ("Learning", "Episodes", "Stability", "Off-policy", "System")
Role = Literal["line", "low", "high", "stack"]
"""`low` and `high` bound the band around the line before them; those of `stack` lie on one another."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SeriesSpec:
    """A line of a chart."""

    name: str
    """A metric's name, recorded or derived; one that ends in `*` stands for all that begin so."""
    label: str
    """Empty takes what the `*` stands for."""
    role: Role = "line"
    greatest: bool = False
    """Of many steps the largest is shown, not the mean, which would hide a spike; always so of what is a maximum."""

    def thinned(self, values: Values, thinning: Thinning) -> list[float | None]:
        """What the chart shows of a column."""
        metric = about(self.name)
        is_greatest = self.greatest or (metric is not None and metric.reduce == "max")
        return thinning.greatest(values) if is_greatest else thinning.mean(values)


LEAST_ON_LOG = 1e-9


@dataclass(frozen=True, slots=True, kw_only=True)
class ChartSpec:
    """A chart: what it shows, what it means, when to worry."""

    id: str
    group: str
    """One of GROUPS."""
    title: str
    help: str
    series: tuple[SeriesSpec, ...]
    threshold: Callable[[RunFacts], Threshold] = lambda _: NO_THRESHOLD
    always: bool = True
    at_least: int = 1
    """Fewer series are no chart: one reward component is the reward."""

    @property
    def about(self) -> Metric:
        """What its first series is declared to be: it says the unit and the scale of the axis."""
        metric = about(self.series[0].name)
        assert metric is not None, self.series[0].name
        return metric


def chart_of(spec: ChartSpec, table: MetricTable, facts: RunFacts, thinning: Thinning) -> dict[str, Any] | None:
    """The chart of the API, or None where the run has nothing of it."""
    series: list[dict[str, Any]] = []
    for part in _resolve(spec, table):
        values = metric(table, facts, part.name)
        is_told = any(value is not None if spec.always else bool(value) for value in values)
        if is_told or (spec.always and not series):
            shown = part.thinned(values, thinning)
            shown = on_scale(shown, spec.about.scale)
            series.append({"name": part.name, "label": part.label, "role": part.role, "values": six_digits(shown)})
    if len(series) < spec.at_least:
        return None
    return {
        "id": spec.id,
        "group": spec.group,
        "title": spec.title,
        "unit": spec.about.unit,
        "scale": spec.about.scale,
        "help": spec.help,
        "series": series,
        "bands": spec.threshold(facts).bands(),
    }


def on_scale(values: Values, scale: str) -> list[float | None]:
    """What can be drawn: on a log scale the gap of an exact run, which is 0, is drawn at the lowest that differs from
    rounding. A hole would look as if nothing had been measured."""
    if scale != "log":
        return list(values)
    return [None if value is None else max(value, LEAST_ON_LOG) for value in values]


def _resolve(spec: ChartSpec, table: MetricTable) -> Iterator[SeriesSpec]:
    """The series, each `*` replaced by what the run has."""
    for part in spec.series:
        if not part.name.endswith("*"):
            yield part
            continue
        prefix = part.name.removesuffix("*")
        found = reject_reasons(table) if prefix == REJECTED_IN_STEP else _with_prefix(table, prefix)
        for rest in found:
            yield SeriesSpec(name=prefix + rest, label=rest.replace("_", " "), role=part.role, greatest=part.greatest)


def _with_prefix(table: MetricTable, prefix: str) -> Iterator[str]:
    return (name.removeprefix(prefix) for name in sorted(table.columns) if name.startswith(prefix))
