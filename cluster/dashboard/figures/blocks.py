"""Spans -> the blocks of a timeline's lanes. Pure functions over lists of spans, in Unix seconds.

A sampler has many groups at once, and each of them is a span. Drawn one over the other they would be a grey bar, so
a lane shows blocks: a block is what overlaps in one actor, of one kind, for one training step and one version of the
weights. What overlaps and belongs to different steps, as when sampling runs ahead, stands in rows below one another.

    spans    |--g1----|          blocks   |--3 groups, step 4------|           row 0
             |--g2-------|                              |--2 groups, step 5--| row 1
             |--g3-----------------|
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from cluster.dashboard.figures.lanes import SHARED_KINDS, version_of
from cluster.dashboard.records import Span, SpanKind


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """What is drawn as one bar: one span, or spans that ran together."""

    kind: SpanKind
    actor: str
    start_s: float
    end_s: float
    step: int | None
    """Training step; None when it is not known, or when the block holds several."""
    version: int | None
    """Of the weights; None as `step`."""
    parts: tuple[Span, ...]
    """In order of their start."""
    row: int = 0
    """From 0, the top of the lane."""

    @property
    def id(self) -> int:
        """The first span's: by it the page asks for the block."""
        return self.parts[0].id

    @property
    def group_ids(self) -> set[str]:
        """Groups that its spans name."""
        return {group_id for part in self.parts for group_id in part.ids}


def blocks_of(spans: Sequence[Span]) -> list[Block]:
    """The spans of ONE actor as blocks, in order of their start, each in its row."""
    parts: list[list[Span]] = []
    open_blocks: dict[tuple[str, int | None, int | None], tuple[int, float]] = {}  # key -> (place in parts, end)
    for span in sorted(spans, key=lambda s: (s.start_s, s.end_s)):
        key = (span.kind, span.step, version_of(span))
        place, end_s = open_blocks.get(key, (-1, 0.0))
        if place >= 0 and span.kind in SHARED_KINDS and span.start_s <= end_s:
            parts[place].append(span)
            open_blocks[key] = place, max(end_s, span.end_s)
        else:
            parts.append([span])
            open_blocks[key] = len(parts) - 1, span.end_s
    return in_rows([_block(p) for p in parts])


def in_rows(blocks: Iterable[Block]) -> list[Block]:
    """Each in the first row that is free when it starts, so that no two of a row overlap."""
    row_ends: list[float] = []
    placed: list[Block] = []
    for block in sorted(blocks, key=lambda b: (b.start_s, b.end_s)):
        row = next((i for i, end_s in enumerate(row_ends) if end_s <= block.start_s), len(row_ends))
        row_ends[row : row + 1] = [block.end_s]
        placed.append(replace(block, row=row))
    return placed


def _block(parts: Sequence[Span]) -> Block:
    steps = {part.step for part in parts}
    versions = {version_of(part) for part in parts}
    return Block(
        kind=parts[0].kind,
        actor=parts[0].actor,
        start_s=parts[0].start_s,
        end_s=max(part.end_s for part in parts),
        step=steps.pop() if len(steps) == 1 else None,
        version=versions.pop() if len(versions) == 1 else None,
        parts=tuple(parts),
    )
