"""metrics.jsonl and evaluations.jsonl by columns, kept in memory."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cluster.dashboard.files.tail import TailState, changed, read_batches, was_rewritten
from cluster.dashboard.records import MetricTable, Problem

_MAX_PROBLEMS = 20


class MetricLog:
    """metrics.jsonl or evaluations.jsonl by columns. Of two lines of one step the later one counts."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._state = TailState()
        self._lines: dict[int, dict[str, float | None]] = {}
        self._problems: list[Problem] = []
        self._table = MetricTable(steps=[], columns={})

    def refresh(self) -> bool:
        """Whether it changed."""
        if not changed(self._path, self._state):
            return False
        before = self._state
        if was_rewritten(self._path, self._state):
            self._state, self._lines, self._problems = TailState(), {}, []
        known, new = len(self._lines), dict[int, dict[str, float | None]]()
        try:
            for batch in read_batches(self._path, self._state):
                for line in batch.lines:
                    self._take(new, line.number, line.record, line.error)
                self._state = batch.state
        except OSError:
            pass  # gone or not readable now; it is tried again
        if self._state == before:
            return False
        self._lines = self._lines | new
        follows = known == len(self._table.steps) and min(new, default=0) > max(self._table.steps, default=-1)
        table = self._table if follows else MetricTable(steps=[], columns={})
        self._table = _with(table, new if follows else self._lines)
        return True

    def table(self) -> MetricTable:
        """What was read, by columns."""
        return self._table

    def problems(self) -> list[Problem]:
        """Lines that are none, the first of them."""
        return self._problems[:_MAX_PROBLEMS]

    @property
    def num_read(self) -> int:
        """Bytes of the whole lines that were read."""
        return self._state.offset

    def skipped_before(self, step: int) -> int:
        """Training steps before `step` whose update was not applied, so that the version did not rise."""
        lines = self._lines
        return sum(1 for at, line in lines.items() if at < step and line.get("train/skipped"))

    def _take(
        self, lines: dict[int, dict[str, float | None]], number: int, record: dict[str, Any] | None, error: str
    ) -> None:
        step = record.get("step") if record is not None else None
        if record is None or isinstance(step, bool) or not isinstance(step, int) or not 0 <= step < 2**53:
            message = error or f"line {number + 1} has no step; it is left out"
            self._problems.append(Problem(file=self._path.name, message=message))
            return
        lines[step] = {name: _finite(value) for name, value in record.items() if name != "step" and _is_value(value)}


def _with(table: MetricTable, lines: Mapping[int, Mapping[str, float | None]]) -> MetricTable:
    """A table that goes on with later steps; the one before stays as it is."""
    steps, absent = sorted(lines), [None] * len(table.steps)
    names = dict.fromkeys([*table.columns, *(name for step in steps for name in lines[step])])
    columns = {name: [*table.columns.get(name, absent), *(lines[step].get(name) for step in steps)] for name in names}
    return MetricTable(steps=[*table.steps, *steps], columns=columns)


def _is_value(value: object) -> bool:
    return value is None or isinstance(value, int | float)


def _finite(value: float | None) -> float | None:
    if value is None:
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if math.isfinite(number) else None
