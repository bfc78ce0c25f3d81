"""The timeline as a Chrome trace, which Perfetto (ui.perfetto.dev) and chrome://tracing open.

A process of the trace is an actor, a thread is a row of its lane, because the slices of a thread must not overlap.
Times are microseconds since the run's first span; its Unix time is in `otherData`.
"""

import json
from array import array
from collections import defaultdict
from collections.abc import Iterator
from itertools import islice
from typing import TYPE_CHECKING, Any

from cluster.dashboard.figures.lanes import lane_order
from cluster.dashboard.records import Span
from cluster.types import EventKind

if TYPE_CHECKING:
    from cluster.dashboard.index.store import RunStore


PART_EVENTS = 500
"""Events of a part of the text: about 100 KB."""


def chrome_trace_text(store: "RunStore") -> Iterator[str]:
    """The whole timeline as JSON text in parts: that of a run of a million rollouts never is in memory as a whole."""
    head = json.dumps(_header(store), allow_nan=False)
    yield head[:-1] + ', "traceEvents": ['
    events, mark = trace_events(store), "\n"
    while part := [json.dumps(event, allow_nan=False) for event in islice(events, PART_EVENTS)]:
        yield mark + ",\n".join(part)
        mark = ",\n"
    yield "\n]}\n"


def trace_events(store: "RunStore") -> Iterator[dict[str, Any]]:
    """Names of processes and threads (ph M), then spans (ph X) and instants (ph i) as the file has them."""
    extent = store.extent_s()
    if extent is None:
        return
    actors = lane_order(store.actors())
    process = {actor: number for number, actor in enumerate(actors, start=1)}
    rows = _Rows(store)
    for actor in actors:
        yield _name("process_name", process[actor], 0, actor)
        yield {"ph": "M", "name": "process_sort_index", "pid": process[actor], "tid": 0,
               "args": {"sort_index": process[actor]}}  # fmt: skip
        for row in range(rows.num_rows.get(actor, 1)):
            yield _name("thread_name", process[actor], row, "work" if row == 0 else f"work, row {row + 1}")
    for stop in store.spans.stops():  # in a row of its own: no span of the run is as long
        row = rows.num_rows.get(stop.actor, 1)
        yield _name("thread_name", process[stop.actor], row, "the run")
        yield _event(stop, process[stop.actor], row, extent[0])
    for span in store.all_spans():
        yield _event(span, process.get(span.actor, 0), rows.row_of(span), extent[0])


class _Rows:
    """Span -> its row, with a few bytes for each: they are all needed before the first can be written."""

    def __init__(self, store: "RunStore") -> None:
        found: dict[str, list[tuple[float, float, int]]] = defaultdict(list)
        last_id = -1
        for span in store.all_spans():
            last_id = max(last_id, span.id)
            if span.kind != EventKind.INSTANT:
                found[span.actor].append((span.start_s, span.end_s, span.id))
        self._row = array("H", bytes(2 * (last_id + 1)))
        self.num_rows: dict[str, int] = {}
        for actor, times in found.items():
            ends: list[float] = []
            for start_s, end_s, span_id in sorted(times, key=lambda item: (item[0], -item[1])):
                row = next((i for i, free_s in enumerate(ends) if free_s <= start_s), len(ends))
                ends[row : row + 1] = [end_s]
                self._row[span_id] = min(row, 65_535)
            self.num_rows[actor] = len(ends)

    def row_of(self, span: Span) -> int:
        return self._row[span.id] if span.id < len(self._row) else 0  # written since the rows were made


def _header(store: "RunStore") -> dict[str, Any]:
    extent = store.extent_s()
    return {"displayTimeUnit": "ms", "otherData": {"run": store.path.name, "started_s": extent[0] if extent else None}}


def _name(what: str, process: int, thread: int, name: str) -> dict[str, Any]:
    return {"ph": "M", "name": what, "pid": process, "tid": thread, "args": {"name": name}}


def _event(span: Span, process: int, thread: int, zero_s: float) -> dict[str, Any]:
    facts = {"step": span.step, "groups": list(span.ids), **span.extra}
    event = {
        "name": str(span.extra.get("name", span.kind)) if span.kind == EventKind.INSTANT else str(span.kind),
        "cat": str(span.kind),
        "pid": process,
        "tid": thread,
        "ts": round((span.start_s - zero_s) * 1e6, 3),
        "args": {name: value for name, value in facts.items() if value not in (None, [])},
    }
    if span.kind == EventKind.INSTANT:
        return {**event, "ph": "i", "s": "p"}
    return {**event, "ph": "X", "dur": round((span.end_s - span.start_s) * 1e6, 3)}
