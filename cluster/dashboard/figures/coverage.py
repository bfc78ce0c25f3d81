"""Seconds and shares of a time that spans cover. Pure functions, in Unix seconds."""

from collections.abc import Iterable, Sequence
from typing import Protocol

from cluster.dashboard.records import Span
from cluster.types import EventKind


class Stretch(Protocol):
    """A span, or a block of several."""

    @property
    def start_s(self) -> float:
        """Unix time."""
        ...

    @property
    def end_s(self) -> float:
        """Unix time."""
        ...


def union_s(spans: Iterable[Stretch], start_s: float, end_s: float) -> float:
    """Seconds of [start_s, end_s] that at least one of them covers."""
    return sum(b - a for a, b in covered(spans, start_s, end_s))


def covered(spans: Iterable[Stretch], start_s: float, end_s: float) -> list[tuple[float, float]]:
    """The parts of [start_s, end_s] that at least one of them covers, in order, none touching the next."""
    clipped = sorted((max(s.start_s, start_s), min(s.end_s, end_s)) for s in spans)
    parts: list[tuple[float, float]] = []
    for a, b in clipped:
        if b <= a:
            continue
        if parts and a <= parts[-1][1]:
            parts[-1] = parts[-1][0], max(parts[-1][1], b)
        else:
            parts.append((a, b))
    return parts


def utilisation(
    spans: Sequence[Span], start_s: float, end_s: float, *, running_s: float | None = None
) -> dict[str, float]:
    """Kind -> share of the time in which one actor did it, and `idle`, the rest. An actor may do two things at once.
    `running_s`: how much of the time the run was running, None for all."""
    length = end_s - start_s if running_s is None else running_s
    if length <= 0:
        return {}
    drawn = [span for span in spans if span.kind != EventKind.INSTANT]
    kinds = sorted({span.kind for span in drawn})
    shares = {str(kind): union_s([s for s in drawn if s.kind == kind], start_s, end_s) / length for kind in kinds}
    shares["idle"] = max(0.0, 1.0 - union_s(drawn, start_s, end_s) / length)
    return {kind: share for kind, share in shares.items() if share > 0}
