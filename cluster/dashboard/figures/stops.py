"""When a run was not running: from the last sign of its processes until it was resumed. Pure functions, Unix seconds.

    events   ...|train 12|save|                    resumed |sync|generate ...
    stop                      |--------------------|
    sessions |----------------|                    |------------------ ...

All processes are new ones after a stop, so nobody waited through it and no step took it.
"""

from collections.abc import Mapping, Sequence

from cluster.dashboard.records import STOPPED, Span
from cluster.types import Instant


def stops_of(instants: Sequence[Span], worked_until: Mapping[int, float]) -> list[Span]:
    """A span of kind `stopped` for each time that the run was resumed, in order. It has the id of the instant that it
    ends with. `worked_until`: id of such an instant -> when the last span of before it ended, absent where there is
    none. The engines of a resumed run have started before it says so: their start is in the stop."""
    found: list[Span] = []
    last_s: float | None = None  # of the instants of one session
    for instant in instants:
        name = instant.extra.get("name")
        if name == Instant.CHECKPOINT_SET_ASIDE:
            continue  # the processes that look for a checkpoint are the new ones
        if name == Instant.RESUMED:
            signs = [time_s for time_s in (last_s, worked_until.get(instant.id)) if time_s is not None]
            if signs and max(signs) < instant.start_s:
                found.append(
                    Span(
                        id=instant.id,
                        kind=STOPPED,
                        actor=instant.actor,
                        start_s=max(signs),
                        end_s=instant.start_s,
                        step=instant.step,
                        extra={"name": f"stopped, resumed {instant.extra.get('text', '')}".rstrip()},
                    )
                )
        last_s = instant.start_s
    return found


def sessions(stops: Sequence[Span], start_s: float, end_s: float) -> list[tuple[float, float]]:
    """The parts of [start_s, end_s] in which the run was running, in order."""
    parts: list[tuple[float, float]] = []
    at_s = start_s
    for stop in sorted(stops, key=lambda s: s.start_s):
        if stop.start_s > at_s:
            parts.append((at_s, min(stop.start_s, end_s)))
        at_s = max(at_s, stop.end_s)
        if at_s >= end_s:
            return [(a, b) for a, b in parts if b > a]
    return [(a, b) for a, b in (*parts, (at_s, end_s)) if b > a]
