"""A store that holds nothing but spans, for views of them: what a timeline is made of, without files."""

import dataclasses
import json
import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from cluster.dashboard.files.tail import Line
from cluster.dashboard.index import event_queries
from cluster.dashboard.index.ingest_logs import insert_events
from cluster.dashboard.index.schema import TABLES
from cluster.dashboard.index.span_index import SpanIndex
from cluster.dashboard.records import GroupAddress, Span


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
    """The part of RunStore that the timeline reads, over the index's own tables in memory."""

    def __init__(self, spans: Sequence[Span], *, max_policy_lag: int = 0) -> None:
        self.path = Path("runs/made-up")
        self._spans = list(spans)
        self._lag = max_policy_lag
        self._index = sqlite3.connect(":memory:")
        self._index.executescript(TABLES)
        lines = [Line(number=s.id, offset=0, record=dataclasses.asdict(s) | {"ids": list(s.ids)}) for s in spans]
        assert insert_events(self._index, lines) == []
        self.spans = SpanIndex(self._ask, lambda source, name, ask: ask(self._index))

    def _ask(self, ask: Callable[..., Any], *values: Any, **named: Any) -> Any:
        return ask(self._index, *values, **named)

    def config(self) -> dict[str, Any]:
        return {"max_policy_lag": self._lag}

    def extent_s(self) -> tuple[float, float] | None:
        return event_queries.extent(self._index)

    def actors(self) -> list[str]:
        return event_queries.actors(self._index)

    def span(self, id: int) -> Span | None:
        return event_queries.span(self._index, id)

    def all_spans(self) -> Iterator[Span]:
        return iter(self._spans)

    def instants(self) -> list[Span]:
        return event_queries.instants(self._index)

    def find_groups(self, ids: Sequence[str]) -> list[GroupAddress]:
        steps: Mapping[str, int | None] = {g: s.step for s in self._spans if s.kind == "train" for g in s.ids}
        return [GroupAddress(phase="train", step=steps[g] or 0, group_id=g) for g in ids if g in steps]
