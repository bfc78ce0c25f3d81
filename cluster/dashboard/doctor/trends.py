"""What a column of a metric does over the steps. Pure arithmetic for the doctor's rules."""

import math
from collections.abc import Callable, Iterable, Sequence
from itertools import pairwise
from statistics import median
from typing import Literal

from cluster.dashboard.figures.series import Values, known, thin

RECENT = 5
"""Steps that "now" is the mean of: one step's mean over a hundred completions jumps about."""
Trend = Literal["rises", "flat", "falls"]


def recent(values: Values, steps: int = RECENT) -> float | None:
    """Mean of the last steps; None before there are three of them, for the first ones are often different."""
    found = known(values[-steps:])
    return mean(found) if len(found) >= min(3, steps) else None


def early(values: Values, steps: int = 3) -> float | None:
    """Mean of the first steps."""
    found = known(values[:steps])
    return mean(found) if found else None


def mean(values: Iterable[float]) -> float:
    """Of at least one value."""
    listed = list(values)
    return math.fsum(listed) / len(listed)


def trend(values: Values, *, least: int = 6) -> Trend | None:
    """Whether the last third differs from the first by more than twice the noise from step to step; None with fewer
    than `least` values."""
    found = known(values)
    if len(found) < least:
        return None
    third = len(found) // 3
    gain = mean(found[-third:]) - mean(found[:third])
    # Differences between neighbours hold the noise (times the root of 2) and next to nothing of the trend.
    jumps = [(b - a) ** 2 for a, b in pairwise(found)]
    noise = math.sqrt(mean(jumps) / 2) * math.sqrt(2 / third)
    if abs(gain) <= 2 * noise:
        return "flat"
    return "rises" if gain > 0 else "falls"


def change(values: Values) -> tuple[float, float] | None:
    """(mean of the first third, mean of the last third); None with fewer than six values."""
    found = known(values)
    if len(found) < 6:
        return None
    third = len(found) // 3
    return mean(found[:third]), mean(found[-third:])


def since(steps: Sequence[int], values: Values, holds: Callable[[float], bool]) -> int | None:
    """The step from which on `holds` is true of the mean of the steps around, up to the end; None when it is not true
    at the end."""
    begin = len(values)
    while begin > 0:
        window = known(values[max(0, begin - RECENT) : begin])
        if not window or not holds(mean(window)):
            break
        begin -= 1
    if begin == len(values):
        return None
    # The window's first value for which it holds is where it began.
    for index in range(max(0, begin - RECENT + 1), len(values)):
        value = values[index]
        if value is not None and holds(value):
            return steps[index]
    return steps[begin]


def rises_steadily(values: Values, *, share: float = 0.75) -> bool:
    """Whether of all pairs of values the later one is greater in at least this share (Kendall's rank correlation)."""
    every = known(values)
    found: list[float] = thin(range(len(every)), points=60, from_step=None, to_step=None).first(every)
    pairs = [b > a for i, a in enumerate(found) for b in found[i + 1 :]]
    return len(found) >= 12 and sum(pairs) >= share * len(pairs)


def jump(values: Values, *, factor: float, floor: float, least_before: int = 3) -> int | None:
    """Index at which a column jumps for good: above `floor`, and `factor` times the median of the 20 steps before it,
    while the median from there to the end is at least half of that. None where there is none."""
    for index in range(least_before, len(values)):
        value = values[index]
        before = known(values[max(0, index - 20) : index])
        if value is None or len(before) < least_before:
            continue
        limit = max(floor, factor * max(median(before), 0.0))
        if value > limit and median(known(values[index:])) > limit / 2 and median(known(values[-RECENT:])) > limit / 2:
            return index
    return None


def short(value: float) -> str:
    """A number as people read it: three digits."""
    return f"{value:.3g}"


def percent(value: float) -> str:
    """A share as people read it."""
    return f"{value * 100:.3g} %"
