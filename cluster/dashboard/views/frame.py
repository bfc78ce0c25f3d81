"""What the frame of every page shows of a run: how it is, how far it is, and the marks on the scrubber.

Pure functions from the store to the JSON of `docs/dashboard-api.md`.
"""

import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

from cluster.dashboard.figures.settings import written
from cluster.dashboard.files.liveness import run_times
from cluster.dashboard.records import RunStatus, Span
from cluster.dashboard.views.fault_records import step_of
from cluster.run_files import log_name
from cluster.types import ActorState, Instant

if TYPE_CHECKING:
    from cluster.dashboard.index.store import RunStore

ACCURACY = "eval/pass_at_1"
INSTANT_MARKS: Mapping[str, str] = {
    Instant.RESUMED: "restart",
    Instant.STALL: "alert",
    Instant.WARNING: "alert",
    Instant.ERROR: "alert",
    Instant.CHECKPOINT_SET_ASIDE: "alert",
    Instant.CHECKPOINT_NOT_WRITTEN: "alert",
}
"""Name of an instant -> its mark on the scrubber; of an actor's states the death alone is one (a restart)."""
ALERT_SEVERITIES = ("error", "warning")
"""Of the doctor's findings that are marks on the scrubber."""
ETA_STEPS = 20
"""Steps whose median time the estimate of the end is made from: an evaluation or a restart is not typical."""
SILENT_STEPS, SILENT_S = 5, 60.0
"""Without the end of a step for so many of them, and so many seconds, the end of the run is not estimated."""
MAX_SCRUBBER_STEPS = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class RunFacts:
    """What RunInfo is made of, wherever it was read."""

    path: Path
    config: Mapping[str, Any] | None
    summary: dict[str, Any] | None
    last_metrics: Mapping[str, Any]
    """The last line of metrics.jsonl; empty before the first step."""
    first_evaluation: Mapping[str, Any]
    last_evaluation: Mapping[str, Any]
    started_s: float | None
    updated_s: float | None
    num_rollouts: int | None
    num_problems: int


def facts_info(name: str, facts: RunFacts, *, status: RunStatus) -> dict[str, Any]:
    """RunInfo."""
    config, summary = facts.config or {}, facts.summary or {}
    step = facts.last_metrics.get("step")
    before = facts.first_evaluation if facts.first_evaluation.get("step") == 0 else {}
    return {
        "run": name,
        "path": str(facts.path),
        "status": status,
        "step": step + 1 if isinstance(step, int) else 0,
        "steps": written(config, "steps", int),
        "started_s": facts.started_s,
        "updated_s": facts.updated_s,
        "step_ended_s": _number(facts.last_metrics.get("time/ended_s")),
        "reward": _number(facts.last_metrics.get("reward/mean")),
        "accuracy": _number(facts.last_evaluation.get(ACCURACY)),
        "accuracy_step": facts.last_evaluation.get("step"),
        "accuracy_before": _number(before.get(ACCURACY, summary.get("accuracy_before"))),
        "model": written(config, "model.path", str),
        "task": written(config, "task.name", str),
        "num_rollouts": facts.num_rollouts,
        "problems": facts.num_problems,
        "error": str(summary.get("error", "")),
    }


def run_info(name: str, store: "RunStore") -> dict[str, Any]:
    """RunInfo of an opened run."""
    metrics, evaluations = store.metrics(), store.evaluations()
    started_s, updated_s = run_times(store.path)
    facts = RunFacts(
        path=store.path,
        config=store.config(),
        summary=store.summary(),
        last_metrics=_line(metrics.steps, metrics.columns, -1),
        first_evaluation=_line(evaluations.steps, evaluations.columns, 0),
        last_evaluation=_line(evaluations.steps, evaluations.columns, -1),
        started_s=started_s,
        updated_s=updated_s,
        num_rollouts=store.num_rollouts() if not store.progress().files_later else None,
        num_problems=len(store.problems()),
    )
    return facts_info(name, facts, status=store.status())


def frame(name: str, store: "RunStore", *, revision: int, findings: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """What the frame of every page shows; `findings` are the doctor's."""
    info, progress, findings = run_info(name, store), store.progress(), list(findings)
    severities = Counter(str(finding["severity"]) for finding in findings)
    return {
        "info": info,
        "revision": revision,
        "eta_s": _eta_s(info, store),
        "scrubber": _scrubber(store, findings),
        "doctor": {severity: severities[severity] for severity in ("error", "warning", "info")},
        "problems": [{"file": problem.file, "message": problem.message} for problem in store.problems()],
        "index": {
            "files_done": progress.files_done,
            "files_total": progress.files_total,
            "rows": progress.rows,
            "ready": progress.ready,
        },
    }


def _eta_s(info: Mapping[str, Any], store: "RunStore") -> float | None:
    """Seconds to the last step, from the median of the last steps, less what this one took so far; None when it does
    not run, nothing is known, or no step has ended for so long that the median says nothing of this one."""
    if info["status"] != "live" or info["steps"] is None:
        return None
    times = [value for value in store.metrics().columns.get("time/step_s", ())[-ETA_STEPS:] if value is not None]
    try:
        ended_s = (store.path / log_name("metrics")).stat().st_mtime  # a step's line is written at its end
    except OSError:
        return None
    if not times:
        return None
    step_s, spent_s = median(times), max(0.0, time.time() - ended_s)
    if spent_s > max(SILENT_STEPS * step_s, SILENT_S):
        return None
    steps_left: int = info["steps"] - info["step"]
    return max(0.0, step_s * steps_left - min(spent_s, step_s))


def _scrubber(store: "RunStore", findings: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    metrics = store.metrics()
    rewards = metrics.columns.get("reward/mean", (None,) * len(metrics.steps))
    every = max(1, -(-len(metrics.steps) // MAX_SCRUBBER_STEPS))
    places = list(range(0, len(metrics.steps), every))
    places += (
        [len(metrics.steps) - 1] if places and places[-1] != len(metrics.steps) - 1 else []
    )  # it is looked for most
    return {
        "steps": [metrics.steps[place] for place in places],
        "reward": [rewards[place] for place in places],
        "marks": sorted([*_marks(store), *_alerts(findings)], key=lambda mark: (mark["step"], mark["kind"])),
    }


def _marks(store: "RunStore") -> list[dict[str, Any]]:
    marks = [_mark("checkpoint", point.step, f"checkpoint {point.name}") for point in store.checkpoints()]
    evaluations = store.evaluations()
    accuracies = evaluations.columns.get(ACCURACY, (None,) * len(evaluations.steps))
    for step, accuracy in zip(evaluations.steps, accuracies, strict=True):
        text = f"evaluated: {accuracy:.1%} right" if accuracy is not None else "evaluated"
        marks.append(_mark("eval", step, text))
    for instant in store.instants():
        name = str(instant.extra.get("name", ""))
        is_death = name == Instant.STATE and instant.extra.get("state") == ActorState.DEAD
        kind = "restart" if is_death else INSTANT_MARKS.get(name)
        if kind is not None:
            sentence = _sentence(instant, "dead" if is_death else name)
            marks.append(_mark(kind, step_of(instant, store.metrics()) or 0, sentence))
    return marks


def _alerts(findings: Iterable[Mapping[str, Any]]) -> Iterator[dict[str, Any]]:
    """Where what the doctor warns of began."""
    for finding in findings:
        if finding["severity"] in ALERT_SEVERITIES and finding.get("since_step") is not None:
            yield _mark("alert", finding["since_step"], f"doctor: {finding['title']}")


def _sentence(instant: Span, name: str) -> str:
    text = instant.extra.get("text") or instant.extra.get("reason")
    return f"{instant.actor}: {name}" + (f", {text}" if text else "")


def _mark(kind: str, step: int, text: str) -> dict[str, Any]:
    return {"kind": kind, "step": step, "text": text}


def _line(steps: Sequence[int], columns: Mapping[str, Sequence[float | None]], index: int) -> dict[str, Any]:
    if not steps:
        return {}
    return {"step": steps[index], **{name: values[index] for name, values in columns.items()}}


def _number(value: Any) -> float | None:
    return value if isinstance(value, (int, float)) and not isinstance(value, bool) else None
