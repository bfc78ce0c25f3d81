"""When an actor was down: from the moment it was given up until it was healthy again, from its recorded states."""

from collections.abc import Mapping, Sequence

from cluster.dashboard.records import DOWN, Span
from cluster.types import ActorState, Instant


def downtimes(instants: Sequence[Span], stops: Sequence[Span], *, run_end_s: float) -> list[Span]:
    """A span of kind `down` for each time that an actor was DEAD and then, or never, HEALTHY. It has the id of the
    instant that it begins with, and its reason. One that is still down is so until `run_end_s`, or until the run is
    stopped to be resumed: all actors are new processes then."""
    stopped = {stop.id: stop.start_s for stop in stops}
    since: dict[str, Span] = {}
    found: list[Span] = []
    for instant in instants:
        if instant.extra.get("name") == Instant.RESUMED:
            ended_s = stopped.get(instant.id, instant.start_s)
            found += [_down(death, ended_s) for death in since.values() if death.start_s < ended_s]
            since.clear()
        if instant.extra.get("name") != Instant.STATE:
            continue
        state = instant.extra.get("state")
        if state == ActorState.DEAD:
            since.setdefault(instant.actor, instant)  # it may die again while it starts: that is one downtime
        elif state == ActorState.HEALTHY and instant.actor in since:
            found.append(_down(since.pop(instant.actor), instant.start_s))
    return [*found, *(_down(death, max(run_end_s, death.start_s)) for death in since.values())]


def with_spans(
    lanes: Mapping[str, Sequence[Span]], added: Sequence[Span], start_s: float, end_s: float
) -> dict[str, list[Span]]:
    """The lanes with those of `added` that touch [start_s, end_s], in order of their start."""
    joined = {actor: list(own) for actor, own in lanes.items()}
    for span in added:
        if span.start_s <= end_s and span.end_s >= start_s:
            joined.setdefault(span.actor, []).append(span)
            joined[span.actor].sort(key=lambda s: (s.start_s, s.end_s))
    return joined


def _down(death: Span, end_s: float) -> Span:
    reason = str(death.extra.get("reason", ""))
    return Span(
        id=death.id,
        kind=DOWN,
        actor=death.actor,
        start_s=death.start_s,
        end_s=end_s,
        step=death.step,
        extra={"reason": reason} if reason else {},
    )
