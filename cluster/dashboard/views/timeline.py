"""The timeline page: a lane for each actor, its waits, the versions of the weights, the critical path of each step.

Times are Unix seconds. A run of many steps has more spans than a screen has pixels: a lane is then drawn by the share
of each kind in each pixel, of all its spans. The waits, for which every span is read, are those of the last part of the
window then (`waits_window`). A run that was stopped and resumed has `stops`: they are in no wait, share or step.
"""

import math
from bisect import bisect
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from cluster.dashboard.figures.blocks import Block, blocks_of
from cluster.dashboard.figures.coverage import utilisation
from cluster.dashboard.figures.covers import Cover
from cluster.dashboard.figures.downtime import downtimes, with_spans
from cluster.dashboard.figures.lanes import lane_order, role_of, step_of_groups, with_steps
from cluster.dashboard.figures.settings import written
from cluster.dashboard.figures.stops import sessions
from cluster.dashboard.figures.waits import Chains, Wait, critical_path, recorded_waits, totals, waits_of
from cluster.dashboard.records import DOWN, WAIT, Span
from cluster.dashboard.views.bars import Drawing, cells, covers_of, drawn, instants_of, shares_of
from cluster.types import EventKind

if TYPE_CHECKING:
    from cluster.dashboard.index.store import RunStore

MAX_READ, MAX_TAIL = 8_000, 4_000
"""Spans up to which a window is read span by span, which takes about 0.3 s; of one with more, so many of the last are
read for the waits."""
MAX_PATHS = 40
"""Steps of a window whose critical path is told; with more of them a path is a few pixels."""
MAX_STEPS, MAX_VERSIONS = 1000, 2000
"""That are told one by one; of more, those spread evenly over all."""
LEAST_PIXELS = 256
"""Of a lane that is drawn by shares. There are 1000 with the usual limit, and fewer for each lane of many."""
MAX_SWOLLEN = 0.02
"""Share of the window by which the bars of a lane may grow when the shortest of them are drawn as wide as a pixel."""
SHORTEST_WAIT = 1e-3
"""Share of the window below which a gap is not drawn; it is counted all the same."""
SLACK_S = 1e-3
"""The page asks in milliseconds: a step that it has asked for may end so much later."""
LOOK_AHEAD_S = 120.0
"""How far behind the window, at least, the span is looked for that ended a wait."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """What was read of a window."""

    start_s: float
    end_s: float
    extent: tuple[float, float]
    """Of the run."""
    spans: Sequence[Span]
    """All actors, in order of their start, each with its step where known; those that begin after `end_s` tell what
    ended a wait."""
    whole_from_s: float
    """From here on no span was left out."""
    stops: Sequence[Span]
    """Of the whole run."""

    @property
    def is_whole(self) -> bool:
        """Whether every span of the window was read."""
        return self.whole_from_s <= self.start_s

    @property
    def told(self) -> tuple[float, float]:
        """The part whose waits are known. Before the run's first moment and after its last nobody waits."""
        return max(self.whole_from_s, self.extent[0]), min(self.end_s, self.extent[1])

    @property
    def running_s(self) -> float:
        """Seconds of the window in which the run was running."""
        start_s, end_s = max(self.start_s, self.extent[0]), min(self.end_s, self.extent[1])
        return math.fsum(b - a for a, b in sessions(self.stops, start_s, end_s))


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """The spans between two stops: no chain of work leads out of them."""

    start_s: float
    end_s: float
    spans: Sequence[Span]
    chains: Chains


def timeline(store: "RunStore", from_s: float | None, to_s: float | None, limit: int) -> dict[str, Any]:
    """The lanes between two times, None for the run's first and last moment, with at most about `limit` blocks."""
    extent = store.extent_s()
    if extent is None:
        return {"extent": None, "from": None, "to": None, "lanes": [], "versions": [], "waits": [], "merged": False,
                "waits_window": None, "critical": [], "stops": [], "steps": []}  # fmt: skip
    start_s = extent[0] if from_s is None else from_s
    end_s = max(extent[1] if to_s is None else to_s, start_s + 1e-3)
    window = _read(store, start_s, end_s, limit)
    down = downtimes(store.instants(), window.stops, run_end_s=extent[1])
    by_actor: dict[str, list[Span]] = {actor: [] for actor in store.actors()}
    for span in window.spans:
        by_actor.setdefault(span.actor, []).append(span)
    by_actor = with_spans(with_evaluations(by_actor), down, start_s, end_s)
    parts = _sessions(window)
    # The controller has no work of its own to wait for: it is what waits for all the others.
    waits = {actor: [] if role_of(actor) == "controller" else _waits(actor, spans, parts, window)
             for actor, spans in by_actor.items()}  # fmt: skip
    shown = {actor: [s for s in spans if s.start_s <= end_s] for actor, spans in by_actor.items()}
    lanes, merged = _lanes(store, window, shown, waits, down, limit)
    every_wait = [wait for actor in by_actor for wait in (*waits[actor], *recorded_waits(shown[actor]))]
    return {
        "extent": list(extent),
        "from": start_s,
        "to": end_s,
        "lanes": lanes,
        "versions": _versions(store, window),
        "waits": [{"actor": who, "for": on, "seconds": seconds} for who, on, seconds in totals(every_wait)],
        "waits_window": list(window.told),
        "merged": merged,
        "critical": _critical(window, parts),
        "stops": [{"start": stop.start_s, "end": stop.end_s, "label": str(stop.extra["name"])} for stop in window.stops
                  if stop.start_s <= end_s and stop.end_s >= start_s],
        "steps": _steps(store, window),
    }  # fmt: skip


def with_evaluations(by_actor: Mapping[str, Sequence[Span]]) -> dict[str, list[Span]]:
    """The lanes, with the controller's evaluations in those of the samplers too: they sample for it, but only the
    evaluation as a whole is on record. A sampler that has spans of its own in it is left as it is."""
    evaluations = [span for span in by_actor.get("controller", ()) if span.kind == EventKind.EVAL]
    lanes: dict[str, list[Span]] = {}
    for actor, own in by_actor.items():
        lanes[actor] = list(own)
        if role_of(actor) != "sampler":
            continue
        for evaluation in evaluations:
            if not any(s.start_s < evaluation.end_s and s.end_s > evaluation.start_s for s in own):
                lanes[actor].append(
                    Span(
                        id=evaluation.id,
                        kind=EventKind.EVAL,
                        actor=actor,
                        start_s=evaluation.start_s,
                        end_s=evaluation.end_s,
                        step=evaluation.step,
                        extra=evaluation.extra,
                    )
                )
        lanes[actor].sort(key=lambda s: (s.start_s, s.end_s))
    return lanes


def _read(store: "RunStore", start_s: float, end_s: float, limit: int) -> Window:
    """The spans of the window and of what follows it."""
    whole_from_s = start_s
    if store.spans.is_more_than(start_s, end_s, min(MAX_READ, 4 * limit)):
        last_s = store.spans.start_of_last(end_s, min(MAX_TAIL, 4 * limit))
        whole_from_s = start_s if last_s is None else max(start_s, last_s)
    spans, _ = store.spans.between(whole_from_s, end_s, limit=2 * MAX_READ)
    found = {span.id: span for span in spans}
    following, _ = store.spans.between(end_s, end_s + max(end_s - whole_from_s, LOOK_AHEAD_S), limit=1000)
    found |= {span.id: span for span in following if span.id not in found}
    return Window(
        start_s=start_s,
        end_s=end_s,
        extent=store.extent_s() or (start_s, end_s),
        spans=_resolved(store, list(found.values())),
        whole_from_s=whole_from_s,
        stops=store.spans.stops(),
    )


def _resolved(store: "RunStore", spans: Sequence[Span]) -> list[Span]:
    in_step_order = written(store.config(), "max_policy_lag", int) == 0
    return with_steps(spans, step_of_groups(spans), in_step_order=in_step_order)


def _sessions(window: Window) -> list[Session]:
    """Those that the part of the window whose waits are told has something of."""
    found: list[Session] = []
    # By the middle of a stop: clocks of other machines may differ a little from the controller's.
    middles = [(stop.start_s + stop.end_s) / 2 for stop in window.stops]
    spans: dict[int, list[Span]] = defaultdict(list)
    for span in window.spans:
        spans[bisect(middles, span.start_s)].append(span)
    for start_s, end_s in sessions(window.stops, *window.told):
        own = spans[bisect(middles, start_s)]
        found.append(Session(start_s=start_s, end_s=end_s, spans=own, chains=Chains(own)))
    return found


def _waits(actor: str, spans: Sequence[Span], parts: Sequence[Session], window: Window) -> list[Wait]:
    """The gaps of the lane, one that reaches beyond the window cut there."""
    found: list[Wait] = []
    for part in parts:
        own = [span for span in spans if span.end_s > part.start_s]
        if part.end_s < window.told[1]:  # ended by a stop: what comes after it ended no wait
            own = [span for span in own if span.start_s < part.end_s]
        last_s = max((span.end_s for span in own), default=part.start_s)
        found += waits_of(actor, own, part.chains, part.start_s, max(part.end_s, last_s), cut_s=part.end_s)
    return found


def _lanes(
    store: "RunStore",
    window: Window,
    shown: Mapping[str, Sequence[Span]],
    waits: Mapping[str, Sequence[Wait]],
    down: Sequence[Span],
    limit: int,
) -> tuple[list[dict[str, Any]], bool]:
    """(the lanes, whether one of them is drawn by the shares of its pixels)"""
    order = lane_order(shown)
    share = limit // max(1, len(order))
    blocks = {actor: blocks_of(shown[actor]) for actor in order}
    fits = sum(map(len, blocks.values())) <= limit
    pixels = max(LEAST_PIXELS, min(limit // 4, 4 * share))
    draw = Drawing(
        shortest_wait_s=(window.end_s - window.start_s) * SHORTEST_WAIT,
        with_parts=sum(len(block.parts) for found in blocks.values() for block in found) <= limit,
        num_groups=Counter(s.step for s in window.spans if s.kind == EventKind.SCORE and s.step is not None),
    )
    counts = {} if window.is_whole else store.spans.counts_up_to(window.start_s, window.end_s, share)
    lanes = []
    for actor in order:
        own: Sequence[Span] = shown[actor]
        bars = blocks[actor] if window.is_whole and (fits or len(blocks[actor]) <= share) else None
        drawn_waits = waits[actor] if window.is_whole else ()
        if not window.is_whole and counts.get(actor, 0) <= share and role_of(actor) != "sampler":
            own = with_spans({actor: _whole_lane(store, window, actor)}, down, window.start_s, window.end_s)[actor]
            bars = blocks_of(own)
        if bars is not None and _swollen(bars, window, pixels) <= MAX_SWOLLEN:
            lanes.append(_lane(actor, own, bars, drawn_waits, draw, window))
        else:
            added: dict[str, Sequence[Span | Wait]] = {DOWN: [d for d in down if d.actor == actor], WAIT: drawn_waits}
            kinds = covers_of(actor, store.spans.covers(), added)
            lanes.append(_lane_of_shares(actor, store.instants(), kinds, window, pixels))
    return lanes, any("cells" in lane for lane in lanes)


def _swollen(blocks: Sequence[Block], window: Window, pixels: int) -> float:
    """Share of the window that the bars have too much, as none of them is narrower than a pixel."""
    length = window.end_s - window.start_s
    bars = (block for block in blocks if block.kind != EventKind.INSTANT)
    return math.fsum(max(0.0, length / pixels - (bar.end_s - bar.start_s)) for bar in bars) / length


def _whole_lane(store: "RunStore", window: Window, actor: str) -> list[Span]:
    spans, _ = store.spans.between(window.start_s, window.end_s, limit=MAX_READ, actor=actor)
    return _resolved(store, spans)


def _lane(
    actor: str, spans: Sequence[Span], blocks: Sequence[Block], waits: Sequence[Wait], draw: Drawing, window: Window
) -> dict[str, Any]:
    """A lane whose bars are drawn one by one."""
    gaps = [Span(id=-1, kind=WAIT, actor=actor, start_s=w.start_s, end_s=w.end_s) for w in waits if w.end_s > w.start_s]
    start_s, end_s = max(window.start_s, window.extent[0]), min(window.end_s, window.extent[1])
    return {
        "actor": actor,
        "role": role_of(actor),
        "rows": 1 + max((block.row for block in blocks), default=0),
        "spans": drawn(blocks, waits, draw),
        "utilisation": utilisation([*spans, *gaps], start_s, end_s, running_s=window.running_s),
    }


def _lane_of_shares(
    actor: str, instants: Iterable[Span], kinds: Mapping[str, Cover], window: Window, pixels: int
) -> dict[str, Any]:
    """A lane that is drawn by the share of each kind in each pixel, with its instants."""
    own = [i for i in instants if i.actor == actor and window.start_s <= i.start_s <= window.end_s]
    draw = Drawing(shortest_wait_s=math.inf, with_parts=False, num_groups={})
    return {
        "actor": actor,
        "role": role_of(actor),
        "rows": 1,
        "spans": drawn(blocks_of(instants_of(own)), (), draw),
        "cells": cells(kinds, window.start_s, window.end_s, pixels),
        "utilisation": shares_of(kinds, window.start_s, window.end_s, window.running_s),
    }


def _versions(store: "RunStore", window: Window) -> list[dict[str, Any]]:
    """From when on which version of the weights served; the first one from the window's start."""
    found = [(time_s, version) for time_s, version in store.spans.versions() if time_s <= window.end_s]
    before = [version for time_s, version in found if time_s <= window.start_s]
    within = [(time_s, version) for time_s, version in found if time_s > window.start_s]
    listed = [*((window.start_s, version) for version in before[-1:]), *_spread(within, MAX_VERSIONS)]
    return [{"time_s": time_s, "version": version} for time_s, version in listed]


def _steps(store: "RunStore", window: Window) -> list[dict[str, Any]]:
    """The steps that ended in the window, or the one after: it is what the window shows the beginning of."""
    found = [s for s in store.spans.steps() if s.end_s >= window.start_s and s.start_s <= window.end_s]
    return [{"step": s.step, "start": s.start_s, "end": s.end_s} for s in _spread(found, MAX_STEPS)]


def _spread(found: Sequence[Any], most: int) -> list[Any]:
    """At most so many, from the first to the last."""
    if len(found) <= most:
        return list(found)
    return [found[round(i * (len(found) - 1) / (most - 1))] for i in range(most)]


def _critical(window: Window, parts: Sequence[Session]) -> list[dict[str, Any]]:
    """The critical path of each step that was trained in the part of the window that is whole."""
    paths: list[dict[str, Any]] = []
    for part in parts:
        within = [s for s in part.spans if s.end_s > window.whole_from_s]
        trained = [s for s in within if s.kind == EventKind.TRAIN and s.end_s <= window.end_s + SLACK_S]
        steps = sorted({s.step for s in trained if s.step is not None})[-MAX_PATHS:]
        # A path needs the training before it, or the first that is known, and all else from the chains.
        ends = [*within[:1], *(s for s in within if s.kind == EventKind.TRAIN)]
        paths += [_path(step, ends, part.chains) for step in steps]
    return paths[-MAX_PATHS:]


def _path(step: int, spans: Sequence[Span], chains: Chains) -> dict[str, Any]:
    path = critical_path(step, spans, chains)
    seconds: dict[tuple[str, str], float] = defaultdict(float)
    for stretch in path:
        seconds[stretch.actor, stretch.kind] += stretch.end_s - stretch.start_s
    longest = sorted(seconds.items(), key=lambda item: -item[1])
    return {
        "step": step,
        "start": path[0].start_s,
        "end": path[-1].end_s,
        "seconds": [{"actor": who, "kind": kind, "seconds": total} for (who, kind), total in longest],
        "path": [{"id": s.id, "actor": s.actor, "kind": s.kind, "start": s.start_s, "end": s.end_s} for s in path],
    }
