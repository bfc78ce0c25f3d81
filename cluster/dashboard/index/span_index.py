"""What the timeline asks of all spans of a run at once: how many, when they cover the time, which steps there were."""

import sqlite3
from bisect import bisect, bisect_left
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain
from typing import Concatenate, ParamSpec, Protocol, TypeVar

import numpy as np

from cluster.dashboard.figures.covers import Cover, cover
from cluster.dashboard.figures.stops import stops_of
from cluster.dashboard.index import event_queries
from cluster.dashboard.records import Span
from cluster.types import EventKind, Instant

T = TypeVar("T")
P = ParamSpec("P")
Covers = Mapping[str, Mapping[str, Cover]]
"""Actor -> kind -> when it did that."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StepTime:
    """When a training step was."""

    step: int
    start_s: float
    """The end of the step before; of the first one of a session, when the run began or was resumed."""
    end_s: float
    """When the last learner had trained it."""


class Ask(Protocol):
    """Asks within one read transaction."""

    def __call__(self, ask: Callable[Concatenate[sqlite3.Connection, P], T], *args: P.args, **named: P.kwargs) -> T:
        """What `ask` answers."""
        ...


class Once(Protocol):
    """Asks again only after the source changed."""

    def __call__(self, source: str, name: str, ask: Callable[[sqlite3.Connection], T]) -> T:
        """What `ask` answered."""
        ...


class SpanIndex:
    """Asked from any thread; what is about the whole run is kept until events.jsonl changes."""

    def __init__(self, ask: Ask, once: Once) -> None:
        self._ask, self._once = ask, once

    def between(self, from_s: float, to_s: float, *, limit: int, actor: str | None = None) -> tuple[list[Span], bool]:
        """The spans that overlap the window, by their start; the first `limit`, True when later ones were left out."""
        return self._ask(event_queries.spans_between, from_s, to_s, limit, self._longest_s(), actor)

    def is_more_than(self, from_s: float, to_s: float, number: int) -> bool:
        """Whether more spans than that overlap the window."""
        return self._ask(event_queries.is_more_than, from_s, to_s, number, self._longest_s())

    def counts_up_to(self, from_s: float, to_s: float, most: int) -> dict[str, int]:
        """Actor -> how many of its spans overlap the window, exact up to `most`."""
        return self._ask(event_queries.counts_up_to, from_s, to_s, most, self._longest_s())

    def start_of_last(self, to_s: float, number: int) -> float | None:
        """When the last so many of the spans that begin before `to_s` began; None where there are fewer."""
        return self._ask(event_queries.start_of_last, to_s, number)

    def covers(self) -> Covers:
        """Of every actor, without its instants. About 16 bytes for each span that overlaps no other."""
        return self._once("events", "covers", _covers)

    def stops(self) -> list[Span]:
        """When the run was not running."""
        instants: list[Span] = self._once("events", "instants", event_queries.instants)
        return self._once("events", "stops", partial(_stops, instants=instants))

    def steps(self) -> list[StepTime]:
        """In order of time."""
        resumed = [stop.end_s for stop in self.stops()]
        return self._once("events", "steps", partial(_steps, resumed=resumed))

    def versions(self) -> list[tuple[float, int]]:
        """(when the last sampler had them, version of the weights), in order of time. A resumed run has some again."""
        resumed = [stop.end_s for stop in self.stops()]
        return self._once("events", "versions", partial(_versions, resumed=resumed))

    def _longest_s(self) -> float:
        return self._once("events", "longest", event_queries.longest_s)


def _covers(connection: sqlite3.Connection) -> Covers:
    found: dict[str, dict[str, Cover]] = {}
    for actor, kind in event_queries.kinds(connection):
        if kind == EventKind.INSTANT:
            continue
        # One after the other: all rows at once would take ten times the room of the arrays.
        rows = connection.execute("select start_s, end_s from spans where actor = ? and kind = ?", (actor, kind))
        times = np.fromiter(chain.from_iterable(rows), dtype=np.float64).reshape(-1, 2)
        found.setdefault(actor, {})[kind] = cover(times[:, 0], times[:, 1])
    return found


def _stops(connection: sqlite3.Connection, *, instants: Sequence[Span]) -> list[Span]:
    resumed = [instant.id for instant in instants if instant.extra.get("name") == Instant.RESUMED]
    return stops_of(instants, event_queries.worked_until(connection, resumed))


def _steps(connection: sqlite3.Connection, *, resumed: Sequence[float]) -> list[StepTime]:
    extent = event_queries.extent(connection)
    if extent is None:
        return []
    ends: dict[int, float] = {}
    for step, end_s in event_queries.trained(connection):
        ends[step] = max(end_s, ends.get(step, end_s))
    return _in_order(sorted(ends.items(), key=lambda item: item[1]), [extent[0], *resumed])


def _in_order(ends: Sequence[tuple[int, float]], begins: Sequence[float]) -> list[StepTime]:
    """`ends` in order of time; `begins`: of the sessions."""
    at_s = begins[0]
    found: list[StepTime] = []
    for step, end_s in ends:
        session_s = begins[max(0, bisect_left(begins, end_s) - 1)]
        found.append(StepTime(step=step, start_s=max(at_s, session_s), end_s=end_s))
        at_s = end_s
    return found


def _versions(connection: sqlite3.Connection, *, resumed: Sequence[float]) -> list[tuple[float, int]]:
    had: dict[tuple[int, int], dict[str, float]] = {}  # session, version -> sampler -> when
    for actor, version, end_s in event_queries.synced(connection):
        # The first time: a sampler that is restarted later gets the same version once more.
        had.setdefault((bisect(resumed, end_s), version), {}).setdefault(actor, end_s)
    found = sorted((max(samplers.values()), version) for (_, version), samplers in had.items())
    extent = event_queries.extent(connection)
    first = event_queries.sampled_before(connection, found[0][0] if found else float("inf"))
    # What is sampled with before any sync is what the engines were started with.
    return [(extent[0], first), *found] if extent is not None and first is not None else found
