"""The addresses below /api/runs/{run}: what each takes, within which bounds, and the view that answers it."""

import dataclasses
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from cluster.dashboard.doctor.diagnose import doctor_page
from cluster.dashboard.files.liveness import run_times
from cluster.dashboard.index.filter_fields import VIEWS
from cluster.dashboard.records import GroupAddress
from cluster.dashboard.selection.export import Asked as ExportQuestion
from cluster.dashboard.selection.export import open_export
from cluster.dashboard.selection.training_pairs import SHAPES
from cluster.dashboard.selection.writers import FORMATS, MEDIA_TYPES
from cluster.dashboard.views.config_view import config_page
from cluster.dashboard.views.fleet import fleet
from cluster.dashboard.views.frame import frame
from cluster.dashboard.views.group_table import group_table
from cluster.dashboard.views.groups import group_page
from cluster.dashboard.views.ledger_view import ledger_groups, ledger_page, prompt_page
from cluster.dashboard.views.metric_charts import metric_charts
from cluster.dashboard.views.overview import metrics_view, overview
from cluster.dashboard.views.rollouts import rollout_page, rollout_table
from cluster.dashboard.views.run_log import run_log, stack_page
from cluster.dashboard.views.spans import span_page
from cluster.dashboard.views.steps import step_list, step_page
from cluster.dashboard.views.timeline import timeline
from cluster.dashboard.views.trace import chrome_trace_text
from cluster.dashboard.web.open_run import OpenRun
from cluster.dashboard.web.params import (
    RequestError,
    names,
    one_of,
    optional_seconds,
    optional_whole,
    path_id,
    path_phase,
    path_step,
    path_whole,
    whole,
)

if TYPE_CHECKING:
    from cluster.dashboard.index.store import RunStore

DOCTOR_SOURCES = ("config", "metrics", "evaluations", "rollouts", "ledger", "summary", "checkpoints")
"""Not events: they change many times a step, and what the doctor tells of spans can wait for its end. Instants can not:
one may be the last thing that a run writes for a long time."""
SILENT_S = 30.0
"""Of a live run that has written nothing for so long, the passing of time is news in itself, every so often."""
DEFAULT_POINTS, MAX_POINTS = 400, 5000
DEFAULT_ROWS, MAX_ROWS, MAX_OFFSET = 100, 1000, 10**9
DEFAULT_SPANS, MAX_SPANS = 4000, 20_000
DEFAULT_GROUPS, MAX_GROUPS = 200, 5000
MAX_NAMES = 200
MAX_SAMPLE = 10**6

Parts = Sequence[str]
Values = Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What a view is asked."""

    run: OpenRun
    store: "RunStore"
    parts: Parts
    """The open parts of the path."""
    values: Values
    """The parameters."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Download:
    """A file that is made while it is sent."""

    parts: Iterator[bytes]
    media_type: str
    name: str
    """That the browser saves it under; ASCII without quotes."""


View = Callable[[Asked], dict[str, Any] | Iterator[str] | Download]
"""To JSON, to its text in parts where it may be too long for the memory, or to a file. Raises RequestError."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """One address."""

    parts: tuple[str, ...]
    """What follows the run; an empty one stands for any value."""
    parameters: tuple[str, ...]
    view: View
    rollouts: bool = False
    """Whether it is answered from all of the rollouts."""


def endpoint_of(parts: Parts) -> tuple[Endpoint, list[str]] | None:
    """The endpoint of a path and the values of its open parts; None when there is none."""
    for endpoint in ENDPOINTS:
        pairs = list(zip(endpoint.parts, parts, strict=False))
        if len(endpoint.parts) == len(parts) and all(wanted in ("", part) for wanted, part in pairs):
            return endpoint, [part for wanted, part in pairs if wanted == ""]
    return None


def saved_views() -> list[dict[str, Any]]:
    """The saved views of the table of rollouts."""
    return [dataclasses.asdict(view) for view in VIEWS]


def _frame(asked: Asked) -> dict[str, Any]:
    return frame(asked.run.name, asked.store, revision=asked.run.revision, findings=_doctor(asked)["findings"])


def doctor_of(run: OpenRun) -> dict[str, Any]:
    """What the doctor finds in an opened run, remembered until its files change."""
    store = run.store
    assert store is not None
    _, written_s = run_times(store.path)
    silences = int((time.time() - written_s) / SILENT_S) if written_s is not None and run.status == "live" else 0
    news = (len(store.instants()), silences)
    page: dict[str, Any] = run.remember("doctor", DOCTOR_SOURCES, lambda: doctor_page(store), news=news)
    return page


def _doctor(asked: Asked) -> dict[str, Any]:
    return doctor_of(asked.run)


def _overview(asked: Asked) -> dict[str, Any]:
    # The sums over all spans may be a little older than the charts of the metrics.
    stats = asked.run.remember("actors", ("events",), asked.store.actor_stats)
    findings = _doctor(asked)["findings"]
    return overview(asked.store, stats, findings=findings, points=_points(asked.values), **_step_range(asked.values))


def _metrics(asked: Asked) -> dict[str, Any]:
    chosen = names(asked.values, "names", MAX_NAMES)
    return metrics_view(asked.store, names=chosen, points=_points(asked.values), **_step_range(asked.values))


def _metric_charts(asked: Asked) -> dict[str, Any]:
    # A line for each: the name of a reward's component may have a comma.
    chosen = [name for name in asked.values.get("names", "").split("\n") if name]
    if len(chosen) > MAX_NAMES:
        raise RequestError(400, f"names has {len(chosen)} lines, allowed: {MAX_NAMES}")
    return metric_charts(asked.store, names=chosen, points=_points(asked.values), **_step_range(asked.values))


def _steps(asked: Asked) -> dict[str, Any]:
    return step_list(asked.store, path_phase(asked.values.get("phase", "") or "train"))


def _step(asked: Asked) -> dict[str, Any]:
    return _found(
        step_page(asked.store, path_phase(asked.parts[0]), path_step(asked.parts[1])), "such step with rollouts"
    )


def _rollouts(asked: Asked) -> dict[str, Any]:
    return rollout_table(
        asked.store,
        filter_text=asked.values.get("filter", ""),
        sort=asked.values.get("sort", ""),
        offset=whole(asked.values, "offset", 0, 0, MAX_OFFSET),
        limit=whole(asked.values, "limit", DEFAULT_ROWS, 1, MAX_ROWS),
    )


def _group_table(asked: Asked) -> dict[str, Any]:
    return group_table(
        asked.store,
        filter_text=asked.values.get("filter", ""),
        sort=asked.values.get("sort", ""),
        offset=whole(asked.values, "offset", 0, 0, MAX_OFFSET),
        limit=whole(asked.values, "limit", DEFAULT_ROWS, 1, MAX_ROWS),
    )


def _export(asked: Asked) -> Download:
    progress = asked.store.progress()
    if not progress.complete:
        raise RequestError(
            503,
            f"the rollouts are still being read ({progress.files_done} of {progress.files_total} files); ask again in "
            "a moment for a whole file",
        )
    format = one_of(asked.values, "format", FORMATS)
    shape = one_of(asked.values, "as", SHAPES)
    question = ExportQuestion(
        filter=asked.values.get("filter", ""),
        shape=shape,
        format=format,
        tokens=bool(whole(asked.values, "tokens", 0, 0, 1)),
    )
    run = re.sub(r"[^A-Za-z0-9._-]", "_", asked.run.name)
    return Download(
        parts=open_export(asked.store, question).parts,
        media_type=MEDIA_TYPES[format],
        name=f"{run}-{shape}.{format}",
    )


def _rollout(asked: Asked) -> dict[str, Any]:
    sample = path_whole("the sample", asked.parts[3], MAX_SAMPLE)
    return _found(rollout_page(asked.store, _group_address(asked.parts), sample), "such rollout")


def _group(asked: Asked) -> dict[str, Any]:
    return _found(group_page(asked.store, _group_address(asked.parts)), "such group")


def _timeline(asked: Asked) -> dict[str, Any]:
    from_s, to_s = optional_seconds(asked.values, "from"), optional_seconds(asked.values, "to")
    if from_s is not None and to_s is not None and from_s >= to_s:
        raise RequestError(400, f"from is {from_s} and to is {to_s}, allowed: from before to")
    return timeline(asked.store, from_s, to_s, whole(asked.values, "limit", DEFAULT_SPANS, 1, MAX_SPANS))


def _span(asked: Asked) -> dict[str, Any]:
    return _found(span_page(asked.store, path_whole("the span", asked.parts[0])), "such span")


def _trace(asked: Asked) -> Iterator[str]:
    return chrome_trace_text(asked.store)


def _fleet(asked: Asked) -> dict[str, Any]:
    return fleet(asked.store)


def _ledger(asked: Asked) -> dict[str, Any]:
    return ledger_page(asked.store)


def _ledger_groups(asked: Asked) -> dict[str, Any]:
    offset = whole(asked.values, "offset", 0, 0, MAX_OFFSET)
    return ledger_groups(asked.store, offset, whole(asked.values, "limit", DEFAULT_GROUPS, 1, MAX_GROUPS))


def _prompt(asked: Asked) -> dict[str, Any]:
    return _found(prompt_page(asked.store, path_id(asked.parts[0])), "such prompt")


def _log(asked: Asked) -> dict[str, Any]:
    return run_log(asked.store)


def _stack(asked: Asked) -> dict[str, Any]:
    return _found(stack_page(asked.store, path_id(asked.parts[0])), "such file of stacks")


def _config(asked: Asked) -> dict[str, Any]:
    return config_page(asked.store)


def _points(values: Values) -> int:
    return whole(values, "points", DEFAULT_POINTS, 1, MAX_POINTS)


def _step_range(values: Values) -> dict[str, int | None]:
    return {"from_step": optional_whole(values, "from"), "to_step": optional_whole(values, "to")}


def _group_address(parts: Parts) -> GroupAddress:
    return GroupAddress(phase=path_phase(parts[0]), step=path_step(parts[1]), group_id=path_id(parts[2]))


def _found(value: dict[str, Any] | None, what: str) -> dict[str, Any]:
    if value is None:
        raise RequestError(404, f"this run has no {what}; a resume may have taken it back")
    return value


def _at(path: str, view: View, *parameters: str, rollouts: bool = False) -> Endpoint:
    """`*` in the path stands for any value."""
    parts = tuple("" if part == "*" else part for part in path.split("/")) if path else ()
    return Endpoint(parts=parts, parameters=parameters, view=view, rollouts=rollouts)


ENDPOINTS = (
    _at("", _frame),
    _at("overview", _overview, "points", "from", "to"),
    _at("metrics", _metrics, "names", "points", "from", "to"),
    _at("metric-charts", _metric_charts, "names", "points", "from", "to"),
    _at("steps", _steps, "phase", rollouts=True),
    _at("steps/*/*", _step, rollouts=True),
    _at("rollouts", _rollouts, "filter", "sort", "offset", "limit", rollouts=True),
    _at("group-table", _group_table, "filter", "sort", "offset", "limit", rollouts=True),
    _at("export", _export, "filter", "as", "format", "tokens", rollouts=True),
    _at("rollouts/*/*/*/*", _rollout, rollouts=True),
    _at("groups/*/*/*", _group, rollouts=True),
    _at("timeline", _timeline, "from", "to", "limit"),
    _at("spans/*", _span, rollouts=True),
    _at("trace.json", _trace),
    _at("fleet", _fleet),
    _at("ledger", _ledger, rollouts=True),
    _at("ledger/groups", _ledger_groups, "offset", "limit"),
    _at("prompts/*", _prompt, rollouts=True),
    _at("doctor", _doctor, rollouts=True),
    _at("log", _log),
    _at("stacks/*", _stack),
    _at("config", _config),
)
