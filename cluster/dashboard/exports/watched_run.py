"""What `shoal watch` shows of a run, from its small files and the end of its events: it writes nothing."""

import itertools
import json
import time
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cluster.dashboard.figures.series import column
from cluster.dashboard.figures.settings import written
from cluster.dashboard.files.file_set import FileSet
from cluster.dashboard.files.liveness import run_status, run_times
from cluster.dashboard.files.small_files import WatchedFile
from cluster.dashboard.files.tail import open_inside
from cluster.dashboard.records import MetricTable, RunStatus
from cluster.record.reporter import StepView, step_view
from cluster.record.terminal_text import RECENT_STEPS, duration, printable, step_fields, time_left_s
from cluster.run_files import SUMMARY, log_name
from cluster.types import EventKind

TAIL_BYTES = 256 << 10
"""Of events.jsonl: some thousand lines, the last of every actor among them."""
NUM_NOTES, NUM_EVALUATIONS, CURVE_POINTS = 6, 4, 60
BLOCKS = "▁▂▃▄▅▆▇█"


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """A run at one moment, as text that a terminal can show."""

    name: str
    status: RunStatus
    steps_done: int
    num_steps: int | None
    """None where the configuration cannot be read."""
    fields: tuple[tuple[str, str], ...]
    """Names and values of the newest step."""
    curves: tuple[tuple[str, str], ...]
    """Names, and a line of blocks over all steps with its first and last value."""
    evaluations: tuple[str, ...]
    actors: tuple[tuple[str, str], ...]
    """Names, and what each did last."""
    notes: tuple[str, ...]
    """What happened to the run and its actors, the newest last."""
    error: str


class WatchedRun:
    """A run that is looked at again and again."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._files = FileSet(path)

    def look(self) -> Look:
        """Reads what is new. A file that is missing or torn leaves its part empty."""
        self._files.refresh()
        now_s = time.time()
        summary = self._files.summary.value or {}
        status = run_status(self.path, self._files.summary.value)
        table = self._files.metrics.table()
        num_steps = written(self._files.config.value, "steps", int)
        events = _last_events(self.path / log_name("events"))
        return Look(
            name=printable(self.path.absolute().name),
            status=status,
            steps_done=len(table.steps),
            num_steps=num_steps,
            fields=(*_newest(table, num_steps or 0), *self._times(table, status, num_steps, now_s)),
            curves=tuple(_curves(table)),
            evaluations=tuple(_evaluations(self._files.evaluations.table())),
            actors=tuple(_actors(events, now_s)) if status == "live" else (),
            notes=tuple(_notes(events)),
            error=printable(str(summary.get("error") or "")),
        )

    def _times(
        self, table: MetricTable, status: RunStatus, num_steps: int | None, now_s: float
    ) -> list[tuple[str, str]]:
        started_s, written_s = run_times(self.path)
        until_s = now_s if status == "live" else written_s
        times = [] if started_s is None or until_s is None else [("elapsed", duration(max(0.0, until_s - started_s)))]
        if status == "live" and num_steps:
            recent = deque((s for s in column(table, "time/step_s") if s is not None), maxlen=RECENT_STEPS)
            times.append(("left", duration(time_left_s(recent, max(0, num_steps - len(table.steps))))))
        return times


def status_of(run: Path) -> RunStatus:
    """How the run ended, or whether somebody still writes it."""
    summary = WatchedFile(run / SUMMARY)
    summary.refresh()
    return run_status(run, summary.value)


def curve(values: "list[float | None]", points: int = CURVE_POINTS) -> str:
    """A line of blocks: means of as many equal parts as there is room for, from the least to the greatest."""
    known = [value for value in values if value is not None]
    if not known:
        return ""
    size = min(points, len(values))
    bounds = [len(values) * i // size for i in range(size + 1)]
    parts = [[v for v in values[a:b] if v is not None] for a, b in itertools.pairwise(bounds)]
    means = [sum(part) / len(part) if part else None for part in parts]
    low, high = (pick(mean for mean in means if mean is not None) for pick in (min, max))
    top = len(BLOCKS) - 1
    return "".join(
        " " if mean is None else BLOCKS[round((mean - low) / (high - low) * top) if high > low else 0] for mean in means
    )


def _newest(table: MetricTable, num_steps: int) -> list[tuple[str, str]]:
    if not table.steps:
        return []
    metrics = {name: values[-1] for name, values in table.columns.items() if values[-1] is not None}
    try:
        view: StepView = step_view(table.steps[-1], num_steps, metrics)
    except KeyError:  # of another version: what it has is shown on the page
        return []
    return step_fields(view)


def _curves(table: MetricTable) -> list[tuple[str, str]]:
    lines = []
    for label, name in (("reward", "reward/mean"), ("accuracy", "reward/accuracy"), ("entropy", "train/entropy")):
        values = list(column(table, name))
        known = [value for value in values if value is not None]
        if len(known) > 1:
            lines.append((label, f"{known[0]:.3g} {curve(values)} {known[-1]:.3g}"))
    return lines


def _evaluations(table: MetricTable) -> list[str]:
    passed = column(table, "eval/pass_at_1")
    rows = list(zip(table.steps, passed, strict=True))[-NUM_EVALUATIONS:]
    return [f"held-out accuracy after {step} steps: {value:.1%}" for step, value in rows if value is not None]


def _actors(events: list[dict[str, Any]], now_s: float) -> list[tuple[str, str]]:
    last: dict[str, dict[str, Any]] = {}
    for event in events:
        if event.get("kind") != EventKind.INSTANT and isinstance(event.get("end_s"), int | float):
            last[str(event.get("actor", ""))] = event
    return [
        (printable(actor), f"{printable(str(event['kind']))}, ended {duration(max(0.0, now_s - event['end_s']))} ago")
        for actor, event in sorted(last.items())
    ]


def _notes(events: list[dict[str, Any]]) -> list[str]:
    notes: deque[str] = deque(maxlen=NUM_NOTES)
    for event in events:
        extra = event.get("extra")
        if event.get("kind") != EventKind.INSTANT or not isinstance(extra, Mapping):
            continue
        what = extra.get("text") or " ".join(str(extra[name]) for name in ("state", "reason") if extra.get(name))
        at_s = event.get("start_s")
        clock = time.strftime("%H:%M:%S", time.localtime(at_s)) if isinstance(at_s, int | float) else "--:--:--"
        notes.append(printable(f"{clock}  {event.get('actor', '')}: {' '.join(str(what).split())}"))
    return list(notes)


def _last_events(path: Path) -> list[dict[str, Any]]:
    """Whole lines among the last bytes; none where the file cannot be read."""
    try:
        with open_inside(path) as file:
            start = max(0, file.seek(0, 2) - TAIL_BYTES)
            file.seek(start)
            data: bytes = file.read(TAIL_BYTES)
    except OSError:
        return []
    lines = data.split(b"\n")[1 if start else 0 : -1]  # the first is cut, the last is still being written
    return [event for line in lines if (event := _event(line)) is not None]


def _event(line: bytes) -> dict[str, Any] | None:
    try:
        event = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return event if isinstance(event, dict) else None
