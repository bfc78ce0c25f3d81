"""The moments at which something was done, of any number of spans, and their share of each pixel of a screen.

spans    |--g1----|     |-g3-|            P pixels, N stretches
         |---g2-----|
cover    |----------|   |----|            seconds(t) = what is covered before t, a line with a bend at each end,
pixels   | 1.0 | .9 | .2 | .8|            so that a pixel's share is the difference of two of its values
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cluster.dashboard.figures.coverage import Stretch


@dataclass(frozen=True, slots=True, kw_only=True)
class Cover:
    """Stretches of time in order, none overlapping the next."""

    start_s: NDArray[np.float64]
    """[N] Unix time."""
    end_s: NDArray[np.float64]
    """[N]"""

    def before(self, times_s: NDArray[np.float64]) -> NDArray[np.float64]:
        """[P] seconds that are covered before each of the times."""
        if not len(self.start_s):
            return np.zeros(len(times_s))
        done = np.cumsum(self.end_s - self.start_s)
        bends = np.column_stack([self.start_s, self.end_s]).ravel()
        values = np.column_stack([np.concatenate([[0.0], done[:-1]]), done]).ravel()
        return np.asarray(np.interp(times_s, bends, values))

    def seconds(self, from_s: float, to_s: float) -> float:
        """Covered seconds between two times."""
        first, last = self.before(np.array([from_s, max(from_s, to_s)]))
        return float(last - first)

    def shares(self, from_s: float, to_s: float, pixels: int) -> NDArray[np.float64]:
        """[P] share of each pixel that is covered."""
        return np.diff(self.before(np.linspace(from_s, to_s, pixels + 1))) * pixels / (to_s - from_s)


NOTHING = Cover(start_s=np.zeros(0), end_s=np.zeros(0))


def cover(start_s: NDArray[np.float64], end_s: NDArray[np.float64]) -> Cover:
    """Of [N] spans in any order, which may overlap."""
    order = np.argsort(start_s, kind="stable")
    start_s, end_s = start_s[order], end_s[order]
    if not len(start_s):
        return NOTHING
    reached_s = np.maximum.accumulate(end_s)
    # A stretch begins where nothing before reaches, and ends with the last of what begins before the next one.
    begins = np.concatenate([[True], start_s[1:] > reached_s[:-1]])
    ends = np.concatenate([begins[1:], [True]])
    return Cover(start_s=start_s[begins], end_s=reached_s[ends])


def union(covers: Iterable[Cover]) -> Cover:
    """The moments at which at least one of them is."""
    listed = list(covers)
    if not listed:
        return NOTHING
    return cover(np.concatenate([c.start_s for c in listed]), np.concatenate([c.end_s for c in listed]))


def cover_of(stretches: Iterable[Stretch]) -> Cover:
    """Of spans, waits or downtimes."""
    pairs = [(stretch.start_s, stretch.end_s) for stretch in stretches]
    times = np.array(pairs, dtype=np.float64).reshape(-1, 2)
    return cover(times[:, 0], times[:, 1])


def apart_from(candidates: Cover, others: Cover) -> Cover:
    """Those of the stretches in which the others are nowhere."""
    free = others.before(candidates.end_s) - others.before(candidates.start_s) <= 0.0
    return Cover(start_s=candidates.start_s[free], end_s=candidates.end_s[free])
