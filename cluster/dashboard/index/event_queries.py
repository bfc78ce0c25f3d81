"""What is asked of the spans in the index."""

import json
import sqlite3
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from cluster.dashboard.figures.lanes import role_of
from cluster.dashboard.records import ActorStats, Span
from cluster.types import EventKind

MAX_WHOLE_SPANS = 1000
"""Spans beyond which ids and extra are left out of a window."""
_COLUMNS = "id, kind, actor, start_s, end_s, step"
_WHOLE = f"select {_COLUMNS}, ids, extra from spans join span_details using (id)"
_BATCH = 2000


def extent(connection: sqlite3.Connection) -> tuple[float, float] | None:
    """(first start, last end); None without a span."""
    start, end = connection.execute("select min(start_s), max(end_s) from spans").fetchone()
    return None if start is None else (start, end)


def actors(connection: sqlite3.Connection) -> list[str]:
    """All that have a span, by name."""
    return [actor for (actor,) in connection.execute("select distinct actor from spans order by actor")]


def spans_between(connection: sqlite3.Connection, from_s: float, to_s: float, limit: int) -> tuple[list[Span], bool]:
    """Spans that overlap the window by their start; the longest `limit`, and whether shorter ones were left out."""
    window = "from spans where start_s <= ? and end_s >= ?"
    found = connection.execute(
        f"select {_COLUMNS} {window} order by end_s - start_s desc, id limit ?", (to_s, from_s, limit + 1)
    ).fetchall()
    cut = len(found) > limit
    if len(found) > MAX_WHOLE_SPANS:
        spans = [_span(row) for row in found[:limit]]
    else:
        ids = [row[0] for row in found[:limit]]
        spans = [_span(row) for row in _whole(connection, ids)]
    return sorted(spans, key=lambda span: (span.start_s, span.id)), cut


def span(connection: sqlite3.Connection, id_: int) -> Span | None:
    """None where there is no such line."""
    found = _whole(connection, [id_])
    return _span(found[0]) if found else None


def spans_after(connection: sqlite3.Connection, id_: int) -> list[Span]:
    """Some spans with higher ids, whole; none at the end."""
    rows = connection.execute(f"{_WHOLE} where id > ? order by id limit ?", (id_, _BATCH))
    return [_span(row) for row in rows]


def instants(connection: sqlite3.Connection) -> list[Span]:
    """In order of their lines."""
    rows = connection.execute(f"{_WHOLE} where kind = '{EventKind.INSTANT}' order by id")
    return [_span(row) for row in rows]


def actor_stats(connection: sqlite3.Connection) -> list[ActorStats]:
    """Of every actor, in order of names."""
    kinds: dict[str, list[tuple[str, int, float, int, int]]] = {}
    for actor, *rest in connection.execute(
        "select actor, kind, count(*), sum(end_s - start_s),"
        f" sum(case when kind = '{EventKind.GENERATE}' then tokens else 0 end),"
        f" sum(case when kind in ('{EventKind.GENERATE}', '{EventKind.SCORE}') then num_groups else 0 end)"
        " from spans group by actor, kind"
    ):
        kinds.setdefault(actor, []).append(tuple(rest))
    trained = f"from spans where kind = '{EventKind.TRAIN}' order by end_s"
    ends = [end for (end,) in connection.execute(f"select end_s {trained}")]
    steps = [step for (step,) in connection.execute(f"select step {trained}")]
    by_step = dict(_generated_by_step(connection, ends, steps))
    last = {
        actor: (kind, end)
        for actor, kind, end in connection.execute("select actor, kind, max(end_s) from spans group by actor")
    }
    versions = {
        actor: version
        for actor, version, _ in connection.execute(
            "select actor, policy_version, max(end_s) from spans where policy_version is not null group by actor"
        )
    }
    return [
        _stats(actor, kinds[actor], last[actor], versions.get(actor), by_step.get(actor, ((), (), ())))
        for actor in sorted(kinds)
    ]


def _stats(
    actor: str,
    kinds: Sequence[tuple[str, int, float, int, int]],
    last: tuple[str, float],
    version: int | None,
    by_step: tuple[Sequence[int], Sequence[int], Sequence[float]],
) -> ActorStats:
    return ActorStats(
        actor=actor,
        role=role_of(actor),
        counts={kind: count for kind, count, *_ in kinds},
        seconds={kind: seconds for kind, _, seconds, *_ in kinds},
        tokens=sum(tokens for *_, tokens, _ in kinds),
        num_groups=sum(groups for *_, groups in kinds),
        last_kind=last[0],
        last_end_s=last[1],
        policy_version=version,
        steps=by_step[0],
        step_tokens=by_step[1],
        step_busy_s=by_step[2],
    )


def _generated_by_step(
    connection: sqlite3.Connection, ends: list[float], steps: list[int | None]
) -> Iterator[tuple[str, tuple[list[int], list[int], list[float]]]]:
    """(actor, (steps, tokens, seconds in which it generated)). A span counts for the step during which it ended."""
    actors = connection.execute(f"select distinct actor from spans where kind = '{EventKind.GENERATE}'").fetchall()
    last = (steps[-1] or 0) + 1 if steps else 0
    step_of = np.array([step or 0 for step in steps] + [last], dtype=np.int64)
    for (actor,) in actors:
        rows = connection.execute(
            "select start_s, end_s, tokens from spans where kind = ? and actor = ? order by start_s",
            (str(EventKind.GENERATE), actor),
        )
        start, end, tokens = np.array(rows.fetchall(), dtype=np.float64).T
        # Seconds that no earlier span has covered: overlapping spans count once.
        reached = np.concatenate([[-np.inf], np.maximum.accumulate(end)[:-1]])
        busy = np.maximum(0.0, end - np.maximum(start, reached))
        numbers, place = np.unique(step_of[np.searchsorted(ends, end)], return_inverse=True)
        counts = np.bincount(place, weights=tokens).astype(np.int64)
        yield actor, (numbers.tolist(), counts.tolist(), np.bincount(place, weights=busy).tolist())


def _whole(connection: sqlite3.Connection, ids: Sequence[int]) -> list[Any]:
    marks = ", ".join("?" * len(ids))
    return connection.execute(f"{_WHOLE} where id in ({marks})", ids).fetchall()


def _span(row: Sequence[Any]) -> Span:
    ids, extra = (row[6], row[7]) if len(row) > 6 else ("[]", "{}")
    return Span(
        id=row[0],
        kind=row[1],
        actor=row[2],
        start_s=row[3],
        end_s=row[4],
        step=row[5],
        ids=tuple(json.loads(ids)),
        extra=json.loads(extra),
    )
