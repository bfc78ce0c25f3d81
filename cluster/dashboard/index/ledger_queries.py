"""What is asked of the ledger in the index."""

import json
import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cluster.dashboard.files.tail import open_inside
from cluster.dashboard.records import LedgerEntry
from cluster.types import GroupState, LedgerEvent

LETTERS = {
    GroupState.PENDING: "p",
    GroupState.LEASED: "l",
    GroupState.SAMPLED: "s",
    GroupState.SCORED: "o",
    GroupState.CONSUMED: "c",
    GroupState.REJECTED: "r",
}
_COLUMNS = "group_id, state, attempt, worker, step, reason, first_s, last_s, times_consumed"
_MAX_LINE_BYTES = 1 << 20
_NAMED = 20
"""Groups of a kind that are named one by one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LedgerEvents:
    """What happened to leases and answers besides the ordinary."""

    num_late: int
    """Answers that were refused, since their attempt had been given up."""
    late_groups: tuple[str, ...]
    """Whose answers these were, the newest first, each once; not all where there are many."""
    num_retried: int
    """Groups whose lease was given up: leased again since, or waiting for it."""
    retried_groups: tuple[str, ...]
    """As `late_groups`."""
    retried_by: Mapping[str, int]
    """Sampler -> groups that it was given after another attempt."""


def counts(connection: sqlite3.Connection) -> dict[str, int]:
    """State -> groups; every state has one, also 0."""
    found = dict(connection.execute("select state, count(*) from ledger group by state"))
    return {str(state): found.get(state, 0) for state in LETTERS}


def reasons(connection: sqlite3.Connection) -> dict[str, int]:
    """Reason -> rejected groups, the most frequent first."""
    return dict(
        connection.execute(
            f"select reason, count(*) from ledger where state = '{GroupState.REJECTED}' group by reason order by 2 desc"
        )
    )


def events(connection: sqlite3.Connection) -> LedgerEvents:
    """Late answers and groups that were leased again."""
    late = f"from ledger_events where event = '{LedgerEvent.LATE_RESULT_REFUSED}'"
    retried = f"from ledger where attempt > 1 or state = '{GroupState.PENDING}'"
    return LedgerEvents(
        num_late=connection.execute(f"select count(*) {late}").fetchone()[0],
        late_groups=_words(connection, f"select group_id {late} group by group_id order by max(id) desc"),
        num_retried=connection.execute(f"select count(*) {retried}").fetchone()[0],
        retried_groups=_words(connection, f"select group_id {retried} order by last_s desc, id desc"),
        retried_by=dict(connection.execute("select worker, count(*) from ledger where attempt > 1 group by worker")),
    )


def letters(connection: sqlite3.Connection) -> str:
    """A letter for each group in order of its first lease; ? for a state that is not known."""
    return "".join(LETTERS.get(state, "?") for (state,) in connection.execute("select state from ledger order by id"))


def entries(connection: sqlite3.Connection, offset: int, limit: int) -> tuple[list[LedgerEntry], int]:
    """(entries in order of the first lease, how many there are in all)"""
    rows = connection.execute(f"select {_COLUMNS} from ledger order by id limit ? offset ?", (limit, offset))
    (total,) = connection.execute("select count(*) from ledger").fetchone()
    return [_entry(row) for row in rows], total


def history(connection: sqlite3.Connection, path: Path, group_id: str) -> list[dict[str, Any]]:
    """The group's journal lines, its late answers among them, from the file itself; those that it no longer has are
    left out."""
    offsets = connection.execute(
        "select offset from ledger_lines where entry = (select id from ledger where group_id = ?) order by offset",
        (group_id,),
    ).fetchall()
    lines = []
    try:
        with open_inside(path) as file:
            for (offset,) in offsets:
                file.seek(offset)
                try:
                    record = json.loads(file.readline(_MAX_LINE_BYTES))
                except (ValueError, RecursionError):
                    continue
                if isinstance(record, dict) and record.get("group_id") == group_id:
                    lines.append(record)
    except OSError:
        pass  # the file went away since it was indexed
    return lines


def anomalies(connection: sqlite3.Connection) -> dict[str, int]:
    """What breaks "each group trained on exactly once", by name; 0 is good. Groups, of which only those of steps whose
    rollouts are in the index can be compared with the ledger."""
    one = {
        "consumed_twice": "select count(*) from ledger where times_consumed > 1",
        "consumed_without_rollouts": (
            f"select count(*) from ledger as l where state = '{GroupState.CONSUMED}' and not exists"
            " (select 1 from groups as g where"
            " g.group_id = l.group_id and g.phase = 'train' and g.step = l.step)"
            " and l.step in (select step from files where phase = 'train' and num_rows > 0)"
        ),
        "trained_without_consumption": (
            "select count(*) from groups as g where phase = 'train' and trained and not exists"
            " (select 1 from ledger as l where l.group_id = g.group_id and l.step = g.step"
            f" and l.state = '{GroupState.CONSUMED}')"
        ),
        "trained_twice": (
            "select count(*) from (select 1 from groups where phase = 'train' and trained"
            " group by group_id having count(*) > 1)"
        ),
        "mixed_attempts": "select count(*) from groups where mixed_attempts",
    }
    return {name: connection.execute(statement).fetchone()[0] for name, statement in one.items()}


def _words(connection: sqlite3.Connection, statement: str) -> tuple[str, ...]:
    return tuple(word for (word,) in connection.execute(f"{statement} limit {_NAMED}"))


def _entry(row: tuple[Any, ...]) -> LedgerEntry:
    return LedgerEntry(
        group_id=row[0],
        state=row[1],
        attempt=row[2],
        worker=row[3],
        step=row[4],
        reason=row[5],
        first_s=row[6],
        last_s=row[7],
        times_consumed=row[8],
    )
