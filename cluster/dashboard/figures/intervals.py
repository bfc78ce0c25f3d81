"""How sure a figure is: intervals of shares and of differences, falls that noise does not explain. Pure functions."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from statistics import median

Z, CONFIDENCE = 1.96, 0.95
"""The normal distribution is within +-Z with CONFIDENCE."""
_SLICES, _LARGEST = 64, 20.0
"""Slices of the integral of Student's density, by which Simpson's rule is exact to seven digits; and what no quantile
is above: that of one degree of freedom is 12.7."""
KEPT, KEPT_SD, FALL_SD = 3, 1.5, 3.0
"""A column has fallen when the mean of its last KEPT values is FALL_SD below where it was, and each of them KEPT_SD."""
MEDIAN_TO_SD = 1.4826
"""Of the absolute values of something normal."""
PLATEAU = 20
"""Values whose mean and deviation are where it was."""
LEAST_BEFORE = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """Of two figures, the later less the earlier, with its interval (95 %)."""

    before: float
    after: float
    low: float
    high: float

    @property
    def value(self) -> float:
        """The best guess."""
        return self.after - self.before

    @property
    def is_rise(self) -> bool:
        """Whether chance does not explain it."""
        return self.low > 0

    @property
    def is_fall(self) -> bool:
        """The same downwards."""
        return self.high < 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Fall:
    """From where a column was, to where it has been since."""

    index: int
    """Of the first value that is lower."""
    before: float
    sd: float
    """Of single values around `before`."""
    now: float
    """Mean of the values since."""


def wilson(share: float, count: float, z: float = Z) -> tuple[float, float]:
    """Wilson's interval (95 %) of a share of `count`: at 0 and 1 too it has a width, unlike the standard error."""
    middle = (share + z * z / (2 * count)) / (1 + z * z / count)
    half = z * math.sqrt(share * (1 - share) / count + z * z / (4 * count * count)) / (1 + z * z / count)
    return max(0.0, middle - half), min(1.0, middle + half)


def share_difference(before: float, after: float, count: float, count_after: float | None = None) -> Difference:
    """Of two shares of `count` each, or the second one of another (Newcombe, 1998, method 10). For the same questions
    asked twice it is too wide, as they are right or wrong together: what it calls a rise is one."""
    (low1, high1), (low2, high2) = wilson(before, count), wilson(after, count if count_after is None else count_after)
    low = after - before - math.hypot(after - low2, high1 - before)
    high = after - before + math.hypot(high2 - after, before - low1)
    return Difference(before=before, after=after, low=low, high=high)


def noise(values: Sequence[float]) -> float:
    """Standard deviation of what values jump about by: neighbours' differences hold it (times the root of 2) and next
    to nothing of a trend. 0 of fewer than two."""
    jumps = [(b - a) ** 2 for a, b in pairwise(values)]
    return math.sqrt(math.fsum(jumps) / len(jumps) / 2) if jumps else 0.0


def noise_freedom(num_values: int) -> float:
    """Degrees of freedom of the square of `noise`, of that many normal values. Its variance is (3 n - 4) / (n - 1)^2
    of sigma^4 (von Neumann et al., 1941), and that of a mean of nu squares 2 / nu; 0 of fewer than two."""
    return 0.0 if num_values < 2 else 2 * (num_values - 1) ** 2 / (3 * num_values - 4)


@cache
def student(freedom: float) -> float:
    """What Student's t of that many degrees of freedom, which need not be whole, stays within with CONFIDENCE. With
    x = sqrt(nu) tan(a) its density is a multiple of cos(a)^(nu - 1). Infinite of fewer than one.

    Sources: Student (1908); the integral by Simpson's rule, its inverse by halving.
    """
    if freedom < 1:
        return math.inf
    whole = math.exp(math.lgamma(freedom / 2) - math.lgamma((freedom + 1) / 2)) * math.sqrt(math.pi) / 2
    low, high = 0.0, math.atan(_LARGEST / math.sqrt(freedom))
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (middle, high) if _power_of_cosine(middle, freedom - 1) < CONFIDENCE * whole else (low, middle)
    return math.sqrt(freedom) * math.tan(low)


def _power_of_cosine(end: float, power: float) -> float:
    """Integral of cos(a)^power from 0."""
    values: list[float] = [math.cos(end * i / _SLICES) ** power for i in range(_SLICES + 1)]
    return (values[0] + 4 * sum(values[1::2]) + 2 * sum(values[2:-1:2]) + values[-1]) * end / _SLICES / 3


def usual_jump(values: Sequence[float]) -> float:
    """As `noise`, by the median: a few that are really others count no more than the rest."""
    jumps = [abs(b - a) for a, b in pairwise(values)]
    return median(jumps) * MEDIAN_TO_SD / math.sqrt(2) if jumps else 0.0


def mean_difference(values: Sequence[float], count: int) -> Difference:
    """Of the mean of the first `count` values and that of the last, by the noise of all: a guess, for which Student's
    quantile makes room."""
    before, after = math.fsum(values[:count]) / count, math.fsum(values[-count:]) / count
    half = student(noise_freedom(len(values))) * noise(values) * math.sqrt(2 / count)
    return Difference(before=before, after=after, low=after - before - half, high=after - before + half)


def column_difference(before: Sequence[float], after: Sequence[float]) -> Difference:
    """Of the means of two columns, of two values and more, that have nothing to do with each other: each by its own
    noise (Welch, 1947)."""
    found = [(math.fsum(values) / len(values), noise(values) ** 2 / len(values)) for values in (before, after)]
    (mean1, square1), (mean2, square2) = found
    freedom = [noise_freedom(len(values)) for values in (before, after)]
    total, of_squares = square1 + square2, square1**2 / freedom[0] + square2**2 / freedom[1]
    half = student(round(total**2 / of_squares, 2)) * math.sqrt(total) if total > 0 else 0.0
    return Difference(before=mean1, after=mean2, low=mean2 - mean1 - half, high=mean2 - mean1 + half)


def fall(values: Sequence[float], least_sd: float) -> Fall | None:
    """Whether the last values are lower than the best PLATEAU of them was, by more than chance: None where they are
    not. `least_sd`: what single values have at least, so that a column that stood still has a deviation too.

    Of plain noise a mean of three is as low as that once in ten million times: it is 5.2 of its own deviations.
    """
    if len(values) < LEAST_BEFORE + KEPT:
        return None
    earlier, last = values[:-KEPT], values[-KEPT:]
    length = min(PLATEAU, len(earlier))
    sums = [math.fsum(earlier[start : start + length]) for start in range(len(earlier) - length + 1)]
    best = sums.index(max(sums))
    plateau = earlier[best : best + length]
    before = math.fsum(plateau) / length
    spread = math.sqrt(math.fsum((v - before) ** 2 for v in plateau) / (length - 1))
    # The best of many stretches may be calm by chance: all of them tell what single values jump about by.
    sd = max(spread, noise(earlier), least_sd)
    limit = before - KEPT_SD * sd
    if sd <= 0 or math.fsum(last) / KEPT >= before - FALL_SD * sd or max(last) >= limit:
        return None
    index = len(values)
    while values[index - 1] < limit:  # one of the plateau is not
        index -= 1
    since = values[index:]
    return Fall(index=index, before=before, sd=sd, now=math.fsum(since) / len(since))
