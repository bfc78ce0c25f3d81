"""What is drawn in a lane of the timeline: bars of blocks and waits, or, of more than can be drawn one by one, the
share of each kind in each pixel (`cells`). What is drawn covers what the utilisation beside it says.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cluster.dashboard.figures.blocks import Block
from cluster.dashboard.figures.covers import NOTHING, Cover, apart_from, cover_of, union
from cluster.dashboard.figures.lanes import SHARED_KINDS, role_of
from cluster.dashboard.figures.waits import Wait
from cluster.dashboard.records import WAIT, Span
from cluster.types import EventKind

SHORTEST_WAIT = 1e-3
"""Share of the window below which a gap is not drawn; it is counted all the same."""
MAX_INSTANTS = 300
"""Of a lane; of more, these are spread over all."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Drawing:
    """What all bars of an answer have in common."""

    shortest_wait_s: float
    with_parts: bool
    """Whether each bar tells the spans that it holds."""
    num_groups: Mapping[int | None, int]
    """Step -> groups that were scored for it: for training steps that do not name theirs."""


def drawn(blocks: Sequence[Block], waits: Sequence[Wait], draw: Drawing) -> list[dict[str, Any]]:
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


def _bar(block: Block, draw: Drawing) -> dict[str, Any]:
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
        "label": label_of(first),
        "groups": num_groups,
        "count": len(block.parts),
        "row": block.row,
    }
    if block.kind == WAIT:
        bar["for"] = str(first.extra.get("for", ""))
    if draw.with_parts and len(block.parts) > 1:
        bar["parts"] = [[part.id, part.start_s, part.end_s] for part in block.parts]
    return bar


def covers_of(
    actor: str, covers: Mapping[str, Mapping[str, Cover]], added: Mapping[str, Iterable[Span | Wait]]
) -> dict[str, Cover]:
    """Kind -> when the actor did it, with what is not on record of it: the evaluations that a sampler samples for (only
    the controller's span tells of one), and what is `added`."""
    kinds = dict(covers.get(actor, {}))
    if role_of(actor) == "sampler":
        evaluations = covers.get("controller", {}).get(EventKind.EVAL, NOTHING)
        kinds[EventKind.EVAL] = union(
            [kinds.get(EventKind.EVAL, NOTHING), apart_from(evaluations, union(kinds.values()))]
        )
    for kind, stretches in added.items():
        kinds[kind] = union([kinds.get(kind, NOTHING), cover_of(stretches)])
    return {kind: found for kind, found in kinds.items() if len(found.start_s)}


def shares_of(kinds: Mapping[str, Cover], start_s: float, end_s: float, running_s: float) -> dict[str, float]:
    """Kind -> share of the `running_s` that the run was running between two times, and `idle`, the rest."""
    if running_s <= 0:
        return {}
    shares = {str(kind): found.seconds(start_s, end_s) / running_s for kind, found in sorted(kinds.items())}
    shares["idle"] = max(0.0, 1.0 - union(kinds.values()).seconds(start_s, end_s) / running_s)
    return {kind: share for kind, share in shares.items() if share > 0}


def cells(kinds: Mapping[str, Cover], start_s: float, end_s: float, pixels: int) -> dict[str, Any]:
    """Of each kind the share of every pixel, [P]."""
    shares = {str(kind): found.shares(start_s, end_s, pixels) for kind, found in sorted(kinds.items())}
    return {
        "start": start_s,
        "end": end_s,
        "kinds": {kind: [round(share, 4) or 0 for share in found.tolist()] for kind, found in shares.items()},
    }


def instants_of(spans: Sequence[Span]) -> list[Span]:
    """Those of the instants of a lane that are drawn."""
    return list(spans[:: max(1, -(-len(spans) // MAX_INSTANTS))])


def label_of(span: Span) -> str:
    """What a bar says besides its kind: what happened in an instant, a checkpoint's name, why an actor was down."""
    if span.kind == EventKind.INSTANT:
        name = span.extra.get("state") or span.extra.get("name") or span.kind
        why = span.extra.get("text") or span.extra.get("reason")
        return f"{name}: {why}" if why else str(name)
    facts = (span.extra.get(name) for name in ("name", "checkpoint", "reason"))
    return next((str(fact) for fact in facts if fact), str(span.kind))
