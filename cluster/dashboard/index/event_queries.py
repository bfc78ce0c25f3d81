"""What is asked of the spans in the index."""

import json
import sqlite3
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from cluster.dashboard.figures.lanes import role_of
from cluster.dashboard.records import ActorStats, Span
from cluster.types import EventKind

_COLUMNS = "id, kind, actor, start_s, end_s, step"
_WHOLE = f"select {_COLUMNS}, ids, extra from spans join span_details using (id)"
_BATCH = 2000


def extent(connection: sqlite3.Connection) -> tuple[float, float] | None:
    """(first start, last end); None without a span."""
    start, end = connection.execute("select min(start_s), max(end_s) from spans").fetchone()
    return None if start is None else (start, end)


def actors(connection: sqlite3.Connection) -> list[str]:
    """All that have a span, by name. From one to the next in the index: `distinct` would read all of it."""
    found: list[str] = []
    (actor,) = connection.execute("select min(actor) from spans").fetchone()
    while actor is not None:
        found.append(actor)
        (actor,) = connection.execute("select min(actor) from spans where actor > ?", (actor,)).fetchone()
    return found


def kinds(connection: sqlite3.Connection) -> list[tuple[str, str]]:
    """(actor, kind), all that there are, in order."""
    found: list[tuple[str, str]] = []
    for actor in actors(connection):
        (kind,) = connection.execute("select min(kind) from spans where actor = ?", (actor,)).fetchone()
        while kind is not None:
            found.append((actor, kind))
            query = "select min(kind) from spans where actor = ? and kind > ?"
            (kind,) = connection.execute(query, (actor, kind)).fetchone()
    return found


def spans_between(
    connection: sqlite3.Connection, from_s: float, to_s: float, limit: int, longest_s: float, actor: str | None = None
) -> tuple[list[Span], bool]:
    """Spans that overlap the window by their start, of one actor or of all; the first `limit`, and whether later ones
    were left out. `longest_s`: of any span, so that the index tells where to begin."""
    # The + keeps the planner from the index of times, where an actor's own spans are few among all.
    where = "start_s between ?1 and ?2" if actor is None else "actor = ?5 and +start_s between ?1 and ?2"
    values = (from_s - longest_s, to_s, from_s, limit + 1, *(() if actor is None else (actor,)))
    found = connection.execute(
        f"{_WHOLE} where {where} and end_s >= ?3 order by start_s, id limit ?4", values
    ).fetchall()
    return [_span(row) for row in found[:limit]], len(found) > limit


def is_more_than(connection: sqlite3.Connection, from_s: float, to_s: float, number: int, longest_s: float) -> bool:
    """Whether more spans than that overlap the window; `longest_s` as above."""
    within = "select 1 from spans where start_s between ? and ? and end_s >= ? limit ?"
    values = (from_s - longest_s, to_s, from_s, number + 1)
    return bool(connection.execute(f"select count(*) from ({within})", values).fetchone()[0] > number)


def counts_up_to(
    connection: sqlite3.Connection, from_s: float, to_s: float, most: int, longest_s: float
) -> dict[str, int]:
    """Actor -> spans that overlap the window; of each kind no more than one above `most` are counted."""
    within = "select 1 from spans where actor = ? and kind = ? and start_s between ? and ? and end_s >= ? limit ?"
    found: dict[str, int] = {}
    for actor, kind in kinds(connection):
        values = (actor, kind, from_s - longest_s, to_s, from_s, most + 1)
        (count,) = connection.execute(f"select count(*) from ({within})", values).fetchone()
        found[actor] = found.get(actor, 0) + count
    return found


def start_of_last(connection: sqlite3.Connection, to_s: float, number: int) -> float | None:
    """When the last `number` of the spans that begin before `to_s` began; None where there are fewer."""
    found = connection.execute(
        "select start_s from spans where start_s <= ? order by start_s desc limit 1 offset ?", (to_s, number - 1)
    ).fetchone()
    return None if found is None else float(found[0])


def longest_s(connection: sqlite3.Connection) -> float:
    """Seconds of the longest span; 0 without one."""
    return float(connection.execute("select max(end_s - start_s) from spans").fetchone()[0] or 0.0)


def trained(connection: sqlite3.Connection) -> Iterator[tuple[int, float]]:
    """(training step, when a learner had trained it)."""
    for actor in actors(connection):
        yield from connection.execute(
            "select step, end_s from spans where actor = ? and kind = ? and step is not null",
            (actor, str(EventKind.TRAIN)),
        )


def synced(connection: sqlite3.Connection) -> list[tuple[str, int, float]]:
    """(sampler, version of the weights, when it had them), in order of time. A sync that does not say its version has
    that of its step."""
    found: list[tuple[str, int, float]] = []
    for actor in actors(connection):
        found += connection.execute(
            "select actor, coalesce(policy_version, step), end_s from spans where actor = ? and kind = ?"
            " and coalesce(policy_version, step) is not null",
            (actor, str(EventKind.SYNC)),
        )
    return sorted(found, key=lambda sync: sync[2])


def sampled_before(connection: sqlite3.Connection, time_s: float) -> int | None:
    """The least version that was sampled with in spans that began before a time; None where none says one."""
    query = "select min(policy_version) from spans where start_s < ? and kind = ?"
    found: int | None = connection.execute(query, (time_s, str(EventKind.GENERATE))).fetchone()[0]
    return found


def worked_until(connection: sqlite3.Connection, ids: Sequence[int]) -> dict[int, float]:
    """Id -> when the last span ended of those between the id before it and it; absent where there is none."""
    found: dict[int, float] = {}
    for before, id_ in pairwise((-1, *ids)):
        query = "select max(end_s) from spans where id > ? and id < ? and kind != ?"
        (end_s,) = connection.execute(query, (before, id_, str(EventKind.INSTANT))).fetchone()
        if end_s is not None:
            found[id_] = end_s
    return found


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
    found: list[Span] = []
    for actor in actors(connection):
        rows = connection.execute(f"{_WHOLE} where actor = ? and kind = ?", (actor, str(EventKind.INSTANT)))
        found += [_span(row) for row in rows]
    return sorted(found, key=lambda instant: instant.id)


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
    return Span(
        id=row[0],
        kind=row[1],
        actor=row[2],
        start_s=row[3],
        end_s=row[4],
        step=row[5],
        ids=tuple(json.loads(row[6])),
        extra=json.loads(row[7]),
    )
