"""Two ways of doing the same work, in turn, so that a machine that becomes slower does so for both."""

import random
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

WARM_UPS = 2
NUM_RESAMPLED = 2000
CONFIDENCE = 0.9


@dataclass(frozen=True, slots=True, kw_only=True)
class Ratio:
    """Of two figures: the median over pairs, with an interval."""

    median: float
    low: float
    high: float
    """Of the 90 % bootstrap interval of the median."""
    pairs: tuple[float, ...]
    """The ratio of each pair."""

    @classmethod
    def of(cls, pairs: tuple[float, ...]) -> "Ratio":
        """The median of ratios, and its interval."""
        rng = random.Random(0)
        medians = sorted(statistics.median(rng.choices(pairs, k=len(pairs))) for _ in range(NUM_RESAMPLED))
        cut = round((1 - CONFIDENCE) / 2 * NUM_RESAMPLED)
        return cls(median=statistics.median(pairs), low=medians[cut], high=medians[-1 - cut], pairs=pairs)

    def times(self, factor: float) -> "Ratio":
        """Each of it times a number that is known: the ratio to a bound, say."""
        return Ratio.of(tuple(one * factor for one in self.pairs))


def compare(
    one: Callable[[], object],
    other: Callable[[], object],
    *,
    num_pairs: int = 9,
    clock: Callable[[], float] | None = None,
) -> Ratio:
    """Seconds of `one` over those of `other`, in the order one, other, other, one, and so on."""
    now = clock or time.perf_counter

    def seconds(arm: Callable[[], object]) -> float:
        started = now()
        arm()
        return now() - started

    for _ in range(WARM_UPS):
        one()
        other()
    pairs = []
    for i in range(num_pairs):
        if i % 2:
            below = seconds(other)
            pairs.append(seconds(one) / below)
        else:
            above = seconds(one)
            pairs.append(above / seconds(other))
    return Ratio.of(tuple(pairs))
