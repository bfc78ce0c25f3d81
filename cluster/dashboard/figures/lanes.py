"""The lanes of a timeline: whose they are, in which order, and of which step and version a span is. Pure functions."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from cluster.dashboard.records import DOWN, WAIT, Span
from cluster.types import EventKind

ROLES = ("controller", "learner", "sampler", "reward")
"""In the order of the lanes: who decides, who learns, who samples, who scores."""
SHARED_KINDS = (EventKind.GENERATE, EventKind.SCORE)
"""What an actor does for many groups at once."""
IDLE_KINDS = (WAIT, DOWN, EventKind.INSTANT)
"""No work: what a lane may hold besides."""


def role_of(actor: str) -> str:
    """ "sampler-0" -> "sampler"."""
    return re.sub(r"-\d+$", "", actor)


def lane_order(actors: Iterable[str]) -> list[str]:
    """Controller, learners, samplers, reward workers, others; each by its number, not its spelling."""

    def key(actor: str) -> tuple[int, str, int]:
        role = role_of(actor)
        number = actor[len(role) + 1 :]
        return ROLES.index(role) if role in ROLES else len(ROLES), role, int(number or 0)

    return sorted(set(actors), key=key)


def step_of_groups(spans: Iterable[Span]) -> dict[str, int]:
    """Group -> the training step that consumed it, from the train spans."""
    return {
        group_id: span.step
        for span in spans
        if span.kind == EventKind.TRAIN and span.step is not None
        for group_id in span.ids
    }


def version_of(span: Span) -> int | None:
    """Of the weights that sampled or were sent; None where the span does not say."""
    version = span.extra.get("policy_version")
    if isinstance(version, int):
        return version
    return span.step if span.kind == EventKind.SYNC else None  # a sync after step n-1 carries version n and step n


def with_steps(spans: Sequence[Span], steps: Mapping[str, int], *, in_step_order: bool) -> list[Span]:
    """The spans, each with the step that its groups were trained in.

    A span that does not name its groups gets the first training step that begins after its end, but only
    `in_step_order`: when nothing is sampled ahead, that is the only step it can belong to.
    """
    starts = sorted(
        {(s.start_s, s.step) for s in spans if s.kind == EventKind.TRAIN and s.step is not None}, reverse=True
    )
    found: list[Span] = []
    for span in sorted(spans, key=lambda s: s.end_s):
        while starts and starts[-1][0] < span.end_s:
            starts.pop()
        if span.step is None and span.kind in SHARED_KINDS:
            step = next((steps[group_id] for group_id in span.ids if group_id in steps), None)
            if step is None and in_step_order and not span.ids and starts:
                step = starts[-1][1]
            span = replace(span, step=step) if step is not None else span
        found.append(span)
    return sorted(found, key=lambda s: (s.start_s, s.end_s))
