"""Columns of metrics -> what a chart can hold: the three x axes, a window of steps, at most so many points. Pure.

N is the number of training steps of a run, M the number of points that are shown.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from statistics import median
from typing import Any

from cluster.dashboard.figures.coverage import Stretch
from cluster.dashboard.records import MetricTable

Values = Sequence[float | None]
"""[N] a column; None where there is no value."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Axes:
    """What a chart can be drawn over. All [N]."""

    step: Sequence[int]
    time_s: Values
    """Seconds that the run was running since its first step began, at the end of the step."""
    tokens: Sequence[float]
    """Sampled tokens, those of the step included."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Thinning:
    """A window of the N steps, cut into M runs of steps that are next to each other; each becomes one point."""

    starts: Sequence[int]
    """[M] index of each point's first step."""
    end: int
    """Index after the last step of the window."""

    def first(self, values: Sequence[Any]) -> list[Any]:
        """[M] the value where each point begins: for x axes."""
        return [values[start] for start in self.starts]

    def mean(self, values: Values) -> list[float | None]:
        """[M] mean of what each point stands for; None where there is nothing."""
        return self._reduce(values, lambda known: math.fsum(known) / len(known))

    def greatest(self, values: Values) -> list[float | None]:
        """[M] for values that are themselves the greatest of something: a mean would hide the spike."""
        return self._reduce(values, max)

    def least(self, values: Values) -> list[float | None]:
        """[M] where a fall is what must not be hidden."""
        return self._reduce(values, min)

    def _reduce(self, values: Values, combine: Callable[[list[float]], float]) -> list[float | None]:
        if len(self.starts) == self.end - (self.starts[0] if self.starts else self.end):
            return list(values[self.starts[0] : self.end]) if self.starts else []
        return [combine(known) if known else None for known in self._parts(values)]

    def _parts(self, values: Values) -> Iterator[list[float]]:
        for start, end in zip(self.starts, [*self.starts[1:], self.end], strict=True):
            yield [value for value in values[start:end] if value is not None]


def axes_of(table: MetricTable, stops: Sequence[Stretch] = ()) -> Axes:
    """The x axes of a run. In the `stops` no time goes by: a run that lay still over night is no slower for it.

    `time/ended_s` (Unix time of a step's end) gives the time; a run from before it was recorded has the sum of its
    steps' durations instead, and a run that was resumed since has the sum up to there.
    """
    durations = column(table, "time/step_s")
    ended = column(table, "time/ended_s")
    worked = list(accumulate(duration or 0.0 for duration in durations))
    began = next((end - work for end, work in zip(ended, worked, strict=True) if end is not None), None)
    time_s: list[float | None] = []
    for end, work, duration in zip(ended, worked, durations, strict=True):
        if end is not None and began is not None:
            stopped = math.fsum(min(s.end_s, end) - s.start_s for s in stops if began < s.start_s < end)
            time_s.append(round(end - began - stopped, 3))
        else:
            time_s.append(None if duration is None else round(work, 3))
    tokens = list(accumulate(count or 0.0 for count in column(table, "rollout/completion_tokens")))
    return Axes(step=table.steps, time_s=time_s, tokens=tokens)


def column(table: MetricTable, name: str) -> Values:
    """[N] one metric; all None when the run never had it."""
    values = table.columns.get(name)
    return [None] * len(table.steps) if values is None else values


def thin(steps: Sequence[int], *, points: int, from_step: int | None, to_step: int | None) -> Thinning:
    """The steps `from_step` to `to_step` (both included; None is no bound) as at most `points` points."""
    begin = next((i for i, step in enumerate(steps) if from_step is None or step >= from_step), len(steps))
    end = next((i for i in range(begin, len(steps)) if to_step is not None and steps[i] > to_step), len(steps))
    size = max(1, math.ceil((end - begin) / max(1, points)))
    return Thinning(starts=range(begin, end, size), end=end)


def x_of(axes: Axes, thinning: Thinning) -> dict[str, list[Any]]:
    """The `x` of the API."""
    return {
        "step": thinning.first(axes.step),
        "time_s": thinning.first(axes.time_s),
        "tokens": thinning.first(axes.tokens),
    }


def six_digits(values: Values) -> list[float | None]:
    """What a chart can show of them: half the JSON of all digits."""
    return [None if value is None else float(f"{value:.6g}") for value in values]


def known(values: Values) -> list[float]:
    """The values that are there."""
    return [value for value in values if value is not None]


def last_known(values: Values) -> float | None:
    """None where there is no value."""
    return next((value for value in reversed(values) if value is not None), None)


def first_known(values: Values) -> float | None:
    """None where there is no value."""
    return next((value for value in values if value is not None), None)


def median_known(values: Values, *, at_least: int = 1) -> float | None:
    """None with fewer than `at_least` values."""
    found = known(values)
    return median(found) if len(found) >= at_least else None


def difference(values: Values) -> list[float | None]:
    """[N] what each step adds to a count that only grows; after a restart of the count, the count itself."""
    result: list[float | None] = []
    before = 0.0
    for value in values:
        result.append(None if value is None else value - before if value >= before else value)
        before = before if value is None else value
    return result


def divide(numerators: Values, denominators: Values) -> list[float | None]:
    """[N] quotients; None where one of the two is missing or the second is 0."""
    return [None if a is None or not b else a / b for a, b in zip(numerators, denominators, strict=True)]


def combine(function: Callable[..., float], *columns: Values) -> list[float | None]:
    """[N] the function of the columns, step by step; None where one of them is missing."""
    return [None if None in row else function(*row) for row in zip(*columns, strict=True)]
