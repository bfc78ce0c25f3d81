"""One span of the timeline, and the block that it is drawn in."""

from typing import TYPE_CHECKING, Any

from cluster.dashboard.figures.blocks import Block, blocks_of
from cluster.dashboard.figures.lanes import SHARED_KINDS, step_of_groups, version_of, with_steps
from cluster.dashboard.records import Span
from cluster.dashboard.views.bars import label_of

if TYPE_CHECKING:
    from cluster.dashboard.index.store import RunStore

MAX_NEAR = 1000
"""Spans that are read around one."""


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
        "label": label_of(span),
        "ids": list(span.ids),
        "extra": dict(span.extra),
        "block": {"start": block.start_s, "end": block.end_s, "count": len(block.parts)},
        "groups": [
            {"phase": a.phase, "step": a.step, "group_id": a.group_id}
            for a in sorted(addresses, key=lambda a: (a.phase != "train", a.step, a.group_id))
        ],
    }


def _block_around(store: "RunStore", span: Span) -> Block:
    """The block that a span is drawn in when all of it is on the screen."""
    if span.kind not in SHARED_KINDS:
        return blocks_of([span])[0]
    # A block is a chain of overlapping spans: read further out until it ends inside what was read.
    margin_s = max(span.end_s - span.start_s, 1.0)
    while True:
        start_s, end_s = span.start_s - margin_s, span.end_s + margin_s
        spans, left_out = store.spans.between(start_s, end_s, limit=MAX_NEAR)
        own = [s for s in spans if s.actor == span.actor and s.kind == span.kind and s.id != span.id]
        resolved = with_steps([*own, span], step_of_groups(spans), in_step_order=False)
        blocks = blocks_of(resolved)
        block = next(b for b in blocks if any(part.id == span.id for part in b.parts))
        if left_out or (block.start_s > start_s and block.end_s < end_s) or margin_s > 3600:
            return block
        margin_s *= 4
