"""The timeline page: a lane for each actor, its waits, the versions of the weights, the critical path of each step.

Times are Unix seconds. A run of many steps has more spans than a screen has pixels: the store then gives the longest,
blocks are joined to what can be seen, and the waits, for which every span is needed, are those of the last part of the
window that could be read whole (`waits_window`).
"""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from cluster.dashboard.figures.blocks import Block, blocks_of, coarser, in_rows
from cluster.dashboard.figures.coverage import utilisation
from cluster.dashboard.figures.downtime import with_downtime
from cluster.dashboard.figures.lanes import SHARED_KINDS, lane_order, role_of, step_of_groups, version_of, with_steps
from cluster.dashboard.figures.settings import written
from cluster.dashboard.figures.waits import Chains, Wait, critical_path, recorded_waits, totals, waits_of
from cluster.dashboard.records import WAIT, Span
from cluster.types import EventKind

if TYPE_CHECKING:
    from cluster.dashboard.index.store import RunStore

MAX_READ = 8_000
"""Spans that are read for one answer: about 0.1 s."""
MAX_PATHS = 40
"""Steps of a window whose critical path is told; with more of them a path is a few pixels."""
SHORTEST_WAIT = 1e-3
"""Share of the window below which a gap is not drawn; it is counted all the same."""
LOOK_AHEAD_S = 120.0
"""How far behind the window, at least, the span is looked for that ended a wait."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """What was read of a window."""

    start_s: float
    end_s: float
    spans: Sequence[Span]
    """All actors, in order of their start, each with its step where known; those that begin after `end_s` tell what
    ended a wait."""
    whole_from_s: float
    """From here on no span was left out."""


def timeline(store: "RunStore", from_s: float | None, to_s: float | None, limit: int) -> dict[str, Any]:
    """The lanes between two times, None for the run's first and last moment, with at most about `limit` blocks."""
    extent = store.extent_s()
    if extent is None:
        return {"extent": None, "from": None, "to": None, "lanes": [], "versions": [], "waits": [], "merged": False,
                "waits_window": None, "critical": []}  # fmt: skip
    start_s = extent[0] if from_s is None else from_s
    end_s = extent[1] if to_s is None else to_s
    end_s = max(end_s, start_s + 1e-3)
    window = _read(store, start_s, end_s, limit)
    by_actor: dict[str, list[Span]] = {actor: [] for actor in store.actors()}
    for span in window.spans:
        by_actor.setdefault(span.actor, []).append(span)
    by_actor = with_downtime(with_evaluations(by_actor), store.instants(), start_s, end_s, run_end_s=extent[1])
    chains = Chains(window.spans)
    # Before the run's first moment and after its last nobody waits.
    wait_from_s, wait_to_s = max(window.whole_from_s, extent[0]), min(end_s, extent[1])
    waits = {
        # The controller has no work of its own to wait for: it is what waits for all the others.
        actor: [] if role_of(actor) == "controller" else _waits(actor, spans, chains, wait_from_s, wait_to_s)
        for actor, spans in by_actor.items()
    }
    shown = {actor: [s for s in spans if s.start_s <= end_s] for actor, spans in by_actor.items()}
    blocks, joined = _fit({actor: blocks_of(spans) for actor, spans in shown.items()}, end_s - start_s, limit)
    draw = _Drawing(
        shortest_wait_s=(end_s - start_s) * SHORTEST_WAIT,
        with_parts=sum(len(block.parts) for found in blocks.values() for block in found) <= limit,
        num_groups=Counter(s.step for s in window.spans if s.kind == EventKind.SCORE and s.step is not None),
    )
    lanes = [
        {
            "actor": actor,
            "role": role_of(actor),
            "rows": 1 + max((block.row for block in blocks[actor]), default=0),
            "spans": _drawn(blocks[actor], waits[actor], draw),
            "utilisation": _shares(shown[actor], waits[actor], wait_from_s, wait_to_s),
        }
        for actor in lane_order(by_actor)
    ]
    every_wait = [wait for actor in by_actor for wait in (*waits[actor], *recorded_waits(shown[actor]))]
    return {
        "extent": list(extent),
        "from": start_s,
        "to": end_s,
        "lanes": lanes,
        "versions": versions([s for s in window.spans if s.start_s <= end_s], start_s),
        "waits": [{"actor": who, "for": on, "seconds": seconds} for who, on, seconds in totals(every_wait)],
        "waits_window": [wait_from_s, wait_to_s],
        "merged": joined or window.whole_from_s > start_s,
        "critical": _critical(window, chains),
    }


def span_page(store: "RunStore", span_id: int) -> dict[str, Any] | None:
    """One span, the groups of the block that it is drawn in, and where they are. None when there is no such span."""
    span = store.span(span_id)
    if span is None:
        return None
    block = _block_around(store, span)
    addresses = store.find_groups(sorted(block.group_ids | set(span.ids)))
    steps = {a.step for a in addresses if a.phase == "train"}
    step = block.step if span.step is None else span.step
    if step is None and len(steps) == 1:
        step = steps.pop()
    return {
        "id": span.id,
        "kind": span.kind,
        "actor": span.actor,
        "start": span.start_s,
        "end": span.end_s,
        "step": step,
        "version": version_of(span),
        "label": _label(span),
        "ids": list(span.ids),
        "extra": dict(span.extra),
        "block": {"start": block.start_s, "end": block.end_s, "count": len(block.parts)},
        "groups": [
            {"phase": a.phase, "step": a.step, "group_id": a.group_id}
            for a in sorted(addresses, key=lambda a: (a.phase != "train", a.step, a.group_id))
        ],
    }


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


def versions(spans: Sequence[Span], start_s: float) -> list[dict[str, Any]]:
    """From when on which version of the weights served: when the last sampler had it. What served at `start_s` is
    known from the spans that were sampled with it."""
    arrived: dict[int, float] = {}
    for span in spans:
        version = version_of(span)
        if span.kind == EventKind.SYNC and version is not None:
            arrived[version] = max(arrived.get(version, 0.0), span.end_s)
    found = sorted((time_s, version) for version, time_s in arrived.items())
    sampled = [(s.start_s, version_of(s)) for s in spans if s.kind == EventKind.GENERATE and version_of(s) is not None]
    first_s = found[0][0] if found else float("inf")
    earlier = [version for time_s, version in sampled if time_s < first_s and version is not None]
    if earlier:
        found.insert(0, (start_s, min(earlier)))
    return [{"time_s": time_s, "version": version} for time_s, version in found]


def _read(store: "RunStore", start_s: float, end_s: float, limit: int) -> Window:
    """The spans of the window and of what follows it."""
    most = min(MAX_READ, 4 * limit)
    spans, left_out = store.spans(start_s, end_s, limit=most)
    found = {span.id: span for span in spans}
    whole_from_s, length = start_s, end_s - start_s
    if left_out:  # spans are spread evenly enough to guess what can be read whole
        extent = store.extent_s() or (start_s, end_s)
        num_spans = sum(sum(actor.counts.values()) for actor in store.actor_stats())
        length = min(length, 4 * 0.8 * most * (extent[1] - extent[0]) / max(1, num_spans))
    while left_out and length > 0.01:
        length /= 4
        whole_from_s = end_s - length
        spans, left_out = store.spans(whole_from_s, end_s, limit=most)
        found |= {span.id: span for span in spans}
    following, _ = store.spans(end_s, end_s + max(length, LOOK_AHEAD_S), limit=1000)
    found |= {span.id: span for span in following if span.id not in found}
    in_step_order = written(store.config(), "max_policy_lag", int) == 0
    resolved = with_steps(list(found.values()), step_of_groups(found.values()), in_step_order=in_step_order)
    return Window(start_s=start_s, end_s=end_s, spans=resolved, whole_from_s=whole_from_s)


def _waits(actor: str, spans: Sequence[Span], chains: Chains, start_s: float, end_s: float) -> list[Wait]:
    """The gaps of the lane, one that reaches beyond `end_s` cut there."""
    last_s = max((span.end_s for span in spans), default=start_s)
    return waits_of(actor, spans, chains, start_s, max(end_s, last_s), cut_s=end_s)


def _fit(lanes: Mapping[str, list[Block]], length_s: float, limit: int) -> tuple[dict[str, list[Block]], bool]:
    """(the lanes with `limit` blocks or hardly more, whether blocks were joined for it). When there are too many, each
    lane has its share of the limit, so that a lane of short spans does not blur the others."""
    if sum(len(blocks) for blocks in lanes.values()) <= limit:
        return dict(lanes), False
    share = max(16, limit // len(lanes))
    return {actor: _fit_lane(blocks, length_s, share) for actor, blocks in lanes.items()}, True


def _fit_lane(blocks: list[Block], length_s: float, most: int) -> list[Block]:
    fitted, pixels = blocks, 4096.0  # more than a wide screen has: the first try takes nothing that can be seen
    while len(fitted) > most and pixels >= 16:
        fitted = in_rows(coarser(blocks, length_s / pixels))
        pixels /= 2
    return fitted


def _shares(spans: Sequence[Span], waits: Sequence[Wait], start_s: float, end_s: float) -> dict[str, float]:
    """Kind -> share of the time; the gaps that were waits are `wait`, what remains is `idle`."""
    gaps = [
        Span(id=-1, kind=WAIT, actor=wait.actor, start_s=wait.start_s, end_s=wait.end_s)
        for wait in waits
        if wait.end_s > wait.start_s
    ]
    return utilisation([*spans, *gaps], start_s, end_s)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Drawing:
    """What all bars of an answer have in common."""

    shortest_wait_s: float
    with_parts: bool
    """Whether each bar tells the spans that it holds."""
    num_groups: Mapping[int | None, int]
    """Step -> groups that were scored for it: for training steps that were read without their groups."""


def _drawn(blocks: Sequence[Block], waits: Sequence[Wait], draw: _Drawing) -> list[dict[str, Any]]:
    """A lane's bars in order of their start."""
    bars = [_bar(block, draw) for block in blocks]
    for wait in waits:
        if wait.end_s - wait.start_s >= draw.shortest_wait_s:
            shares = sorted(wait.shares.items(), key=lambda item: -item[1])
            bars.append(
                {
                    "id": None,
                    "kind": WAIT,
                    "start": wait.start_s,
                    "end": wait.end_s,
                    "step": wait.step,
                    "version": None,
                    "label": f"waits for {wait.on}" if wait.on else "waits",
                    "groups": 0,
                    "count": 1,
                    "row": 0,
                    "for": wait.on,
                    "shares": [{"actor": on, "seconds": seconds} for on, seconds in shares],
                }
            )
    return sorted(bars, key=lambda bar: (bar["start"], bar["row"]))


def _bar(block: Block, draw: _Drawing) -> dict[str, Any]:
    first = block.parts[0]
    num_groups = len(block.group_ids)
    if num_groups == 0 and block.kind in SHARED_KINDS:
        num_groups = len(block.parts)
    elif num_groups == 0 and block.kind == EventKind.TRAIN:
        num_groups = draw.num_groups.get(block.step, 0)
    bar: dict[str, Any] = {
        "id": block.id,
        "kind": block.kind,
        "start": block.start_s,
        "end": block.end_s,
        "step": block.step,
        "version": block.version,
        "label": _label(first),
        "groups": num_groups,
        "count": len(block.parts),
        "row": block.row,
    }
    if block.busy < 0.999:
        bar["busy"] = round(block.busy, 3)
    if block.kind == WAIT:
        bar["for"] = str(first.extra.get("for", ""))
    if draw.with_parts and len(block.parts) > 1:
        bar["parts"] = [[part.id, part.start_s, part.end_s] for part in block.parts]
    return bar


def _label(span: Span) -> str:
    """What a bar says besides its kind: what happened in an instant, a checkpoint's name, why an actor was down."""
    if span.kind == EventKind.INSTANT:
        name = span.extra.get("state") or span.extra.get("name") or span.kind
        why = span.extra.get("text") or span.extra.get("reason")
        return f"{name}: {why}" if why else str(name)
    facts = (span.extra.get(name) for name in ("name", "checkpoint", "reason"))
    return next((str(fact) for fact in facts if fact), str(span.kind))


def _critical(window: Window, chains: Chains) -> list[dict[str, Any]]:
    """The critical path of each step that was trained in the part of the window that is whole."""
    within = [s for s in window.spans if s.end_s > window.whole_from_s]
    trained = [s for s in within if s.kind == EventKind.TRAIN and s.step is not None and s.end_s <= window.end_s]
    paths: list[dict[str, Any]] = []
    for step in sorted({s.step for s in trained if s.step is not None})[-MAX_PATHS:]:
        path = critical_path(step, within, chains)
        seconds: dict[tuple[str, str], float] = defaultdict(float)
        for stretch in path:
            seconds[stretch.actor, stretch.kind] += stretch.end_s - stretch.start_s
        longest = sorted(seconds.items(), key=lambda item: -item[1])
        paths.append(
            {
                "step": step,
                "start": path[0].start_s,
                "end": path[-1].end_s,
                "seconds": [{"actor": who, "kind": kind, "seconds": total} for (who, kind), total in longest],
                "path": [
                    {"id": s.id, "actor": s.actor, "kind": s.kind, "start": s.start_s, "end": s.end_s} for s in path
                ],
            }
        )
    return paths


def _block_around(store: "RunStore", span: Span) -> Block:
    """The block that a span is drawn in when all of it is on the screen."""
    if span.kind not in SHARED_KINDS:
        return blocks_of([span])[0]
    # A block is a chain of overlapping spans: read further out until it ends inside what was read.
    margin_s = max(span.end_s - span.start_s, 1.0)
    while True:
        start_s, end_s = span.start_s - margin_s, span.end_s + margin_s
        spans, left_out = store.spans(start_s, end_s, limit=1000)
        own = [s for s in spans if s.actor == span.actor and s.kind == span.kind and s.id != span.id]
        resolved = with_steps([*own, span], step_of_groups(spans), in_step_order=False)
        blocks = blocks_of(resolved)
        block = next(b for b in blocks if any(part.id == span.id for part in b.parts))
        if left_out or (block.start_s > start_s and block.end_s < end_s) or margin_s > 3600:
            return block
        margin_s *= 4
