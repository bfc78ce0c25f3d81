"""A store that holds nothing but spans, for views of them: what a timeline is made of, without files."""

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from cluster.dashboard.records import ActorStats, GroupAddress, Span


def span(
    kind: Any,
    actor: str,
    start_s: float,
    end_s: float,
    *ids: str,
    step: int | None = None,
    id: int = 0,
    **extra: Any,
) -> Span:
    return Span(id=id, kind=kind, actor=actor, start_s=start_s, end_s=end_s, step=step, ids=ids, extra=extra)


def waits_for(actor: str) -> dict[str, Any]:
    """The fact of a recorded wait; `for` is no name that a call could use."""
    return {"for": actor}


def numbered(spans: Sequence[Span]) -> list[Span]:
    """The spans as a file has them: in order of their end, each with the number of its line."""
    return [replace(s, id=i) for i, s in enumerate(sorted(spans, key=lambda s: s.end_s))]


def spans_of_file(path: Path) -> list[Span]:
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    return [Span(id=i, **{**line, "ids": tuple(line["ids"])}) for i, line in enumerate(lines)]


class SpanStore:
    """The part of RunStore that the timeline reads; `cut` is the number of spans from which ids and extra go."""

    def __init__(self, spans: Sequence[Span], *, max_policy_lag: int = 0, cut: int = 1000) -> None:
        self.path = Path("runs/made-up")
        self._spans = list(spans)
        self._lag = max_policy_lag
        self._cut = cut

    def config(self) -> dict[str, Any]:
        return {"max_policy_lag": self._lag}

    def extent_s(self) -> tuple[float, float] | None:
        if not self._spans:
            return None
        return min(s.start_s for s in self._spans), max(s.end_s for s in self._spans)

    def actors(self) -> list[str]:
        return sorted({s.actor for s in self._spans})

    def spans(self, from_s: float, to_s: float, *, limit: int) -> tuple[list[Span], bool]:
        found = [s for s in self._spans if s.end_s >= from_s and s.start_s <= to_s]
        left_out = len(found) > limit
        if left_out:
            found = sorted(found, key=lambda s: s.start_s - s.end_s)[:limit]
        if len(found) > self._cut:
            found = [replace(s, ids=(), extra={}) for s in found]
        return sorted(found, key=lambda s: s.start_s), left_out

    def span(self, id: int) -> Span | None:
        return next((s for s in self._spans if s.id == id), None)

    def actor_stats(self) -> list[ActorStats]:
        """Of one actor that stands for all: nothing but the counts is asked for."""
        counts = Counter(str(s.kind) for s in self._spans)
        nothing: dict[str, Any] = {"last_kind": "", "last_end_s": 0.0, "policy_version": None}
        empty: dict[str, Any] = {"steps": (), "step_tokens": (), "step_busy_s": (), "tokens": 0, "num_groups": 0}
        return [ActorStats(actor="all", role="", counts=counts, seconds={}, **nothing, **empty)]

    def all_spans(self) -> Iterator[Span]:
        return iter(self._spans)

    def instants(self) -> list[Span]:
        return [s for s in self._spans if s.kind == "instant"]

    def find_groups(self, ids: Sequence[str]) -> list[GroupAddress]:
        steps: Mapping[str, int | None] = {g: s.step for s in self._spans if s.kind == "train" for g in s.ids}
        return [GroupAddress(phase="train", step=steps[g] or 0, group_id=g) for g in ids if g in steps]
