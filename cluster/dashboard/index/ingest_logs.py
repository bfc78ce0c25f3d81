"""Tails events.jsonl and ledger.jsonl into the index. A line that makes no sense is a problem, not an error."""

import json
import math
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cluster.dashboard.files.tail import Line, TailState, changed, read_batches, was_rewritten
from cluster.dashboard.records import Problem
from cluster.types import GroupState

_MAX_PROBLEMS = 20
"""Lines of a log that are named one by one."""
_MAX_WORD_CHARS = 300


class LogIngest:
    """One log: how far it was read is in the index, beside what came from it."""

    def __init__(
        self,
        path: Path,
        insert: Callable[[sqlite3.Connection, list[Line]], list[tuple[int, str]]],
        clear: Callable[[sqlite3.Connection], None],
    ) -> None:
        self._path = path
        self._insert = insert
        self._clear = clear
        self.num_read: int | None = None
        """Bytes of the whole lines, all of which are in the index; None while they are being read."""

    def refresh(self, connection: sqlite3.Connection, deadline_s: float) -> tuple[bool, bool]:
        """(whether anything changed, whether the whole file was read). Within the writer's transaction."""
        state = self._load(connection)
        self.num_read = state.offset
        if not changed(self._path, state):
            return False, True
        any_change = False
        if was_rewritten(self._path, state):
            self._clear(connection)
            connection.execute("delete from log_problems where log = ?", (self._path.name,))
            state = TailState()
            any_change = True
        done = True
        try:
            for batch in read_batches(self._path, state):
                state = batch.state
                self._note(connection, self._insert(connection, batch.lines))
                any_change = True
                if time.monotonic() > deadline_s:
                    done = False
                    break
        except OSError:
            pass  # gone or not readable now: the run is shown without it, and it is tried at every refresh
        if any_change:
            self._save(connection, state)
        self.num_read = state.offset if done else None
        return any_change, done

    def problems(self, connection: sqlite3.Connection) -> list[Problem]:
        """Lines that make no sense, the first of them."""
        found = connection.execute(
            "select message from log_problems where log = ? order by line limit ?", (self._path.name, _MAX_PROBLEMS)
        )
        return [Problem(file=self._path.name, message=message) for (message,) in found]

    def _note(self, connection: sqlite3.Connection, problems: list[tuple[int, str]]) -> None:
        (known,) = connection.execute("select count(*) from log_problems where log = ?", (self._path.name,)).fetchone()
        connection.executemany(
            "insert into log_problems values (?, ?, ?)",
            [(self._path.name, line, message) for line, message in problems[: max(0, _MAX_PROBLEMS - known)]],
        )

    def _load(self, connection: sqlite3.Connection) -> TailState:
        found = connection.execute(
            "select inode, offset, lines, tail from logs where name = ?", (self._path.name,)
        ).fetchone()
        if found is None:
            return TailState()
        return TailState(inode=found[0], offset=found[1], lines=found[2], tail=found[3])

    def _save(self, connection: sqlite3.Connection, state: TailState) -> None:
        connection.execute(
            "insert or replace into logs values (?, ?, ?, ?, ?)",
            (self._path.name, state.inode, state.offset, state.lines, state.tail),
        )


def clear_events(connection: sqlite3.Connection) -> None:
    """Takes out everything that came from events.jsonl."""
    connection.execute("delete from spans")
    connection.execute("delete from span_details")


def insert_events(connection: sqlite3.Connection, lines: list[Line]) -> list[tuple[int, str]]:
    """Returns (line, problem) of those that are no events."""
    rows, problems = [], []
    for line in lines:
        row = None if line.record is None else _span_row(line.number, line.record)
        if row is None:
            problems.append((line.number, line.error or f"line {line.number + 1} is no event; it is left out"))
        else:
            rows.append(row)
    connection.executemany("insert or replace into spans values (?, ?, ?, ?, ?, ?, ?, ?, ?)", [row[:9] for row in rows])
    connection.executemany("insert or replace into span_details values (?, ?, ?)", [(row[0], *row[9:]) for row in rows])
    return problems


def clear_ledger(connection: sqlite3.Connection) -> None:
    """Takes out everything that came from ledger.jsonl."""
    connection.execute("delete from ledger")
    connection.execute("delete from ledger_lines")
    connection.execute("delete from ledger_events")


def insert_ledger(connection: sqlite3.Connection, lines: list[Line]) -> list[tuple[int, str]]:
    """Returns (line, problem) of those that are no journal lines."""
    rows, offsets, problems, events = [], [], [], []
    for line in lines:
        event = None if line.record is None else _ledger_event(line.record)
        if event is not None:
            events.append(event)
            offsets.append((event[1], line.offset))
            continue
        row = None if line.record is None else _ledger_row(line.record)
        if row is None:
            problems.append((line.number, line.error or f"line {line.number + 1} is no change of a group's state"))
        else:
            rows.append(row)
            offsets.append((row[0], line.offset))
    connection.executemany(
        "insert into ledger (group_id, state, attempt, worker, step, reason, first_s, last_s, times_consumed)"
        f" values (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?7, ?2 = '{GroupState.CONSUMED}') on conflict (group_id) do update set"
        " state = excluded.state, attempt = excluded.attempt, last_s = excluded.last_s,"
        " worker = case when excluded.worker != '' then excluded.worker else worker end,"
        " step = coalesce(excluded.step, step), reason = excluded.reason,"
        " times_consumed = times_consumed + excluded.times_consumed",
        rows,
    )
    connection.executemany("insert into ledger_events (event, group_id, step, checkpoint) values (?, ?, ?, ?)", events)
    # A line of no group, or of one that was never leased, belongs to no entry.
    connection.executemany(
        "insert into ledger_lines (entry, offset) select id, ?2 from ledger where group_id = ?1", offsets
    )
    return problems


def _span_row(number: int, record: dict[str, Any]) -> tuple[Any, ...] | None:
    kind, actor = record.get("kind"), record.get("actor")
    start, end = _number(record.get("start_s")), _number(record.get("end_s"))
    if not isinstance(kind, str) or not isinstance(actor, str) or start is None:
        return None
    ids, extra = record.get("ids"), record.get("extra")
    ids = [_utf8(value) for value in ids if isinstance(value, str)] if isinstance(ids, list) else []
    extra = extra if isinstance(extra, dict) else {}
    return (
        number,
        _word(kind),
        _word(actor),
        start,
        start if end is None else max(start, end),
        _integer(record.get("step")),
        _integer(extra.get("tokens")) or 0,
        _integer(extra.get("policy_version")),
        len(ids),
        json.dumps(ids, separators=(",", ":")),
        json.dumps(extra, separators=(",", ":")),
    )


def _ledger_row(record: dict[str, Any]) -> tuple[Any, ...] | None:
    group_id, state = record.get("group_id"), record.get("state")
    if not isinstance(group_id, str) or not isinstance(state, str):
        return None
    worker, reason = record.get("worker"), record.get("reason")
    return (
        _word(group_id),
        _word(state),
        _integer(record.get("attempt")) or 0,
        _word(worker),
        _integer(record.get("step")),
        _word(reason),
        _number(record.get("time_s")) or 0.0,
    )


def _ledger_event(record: dict[str, Any]) -> tuple[Any, ...] | None:
    """Of a line that says what happened and moves no group; None for all others."""
    event = record.get("event")
    if not isinstance(event, str) or "state" in record:
        return None
    return _word(event), _word(record.get("group_id")), _integer(record.get("step")), _word(record.get("checkpoint"))


def _word(value: object) -> str:
    return _utf8(value[:_MAX_WORD_CHARS]) if isinstance(value, str) else ""


def _utf8(text: str) -> str:
    """SQLite holds no lone surrogates, which JSON may: they are spelt out, as in the tables of rollouts."""
    return text.encode("utf-8", "backslashreplace").decode()


def _number(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if math.isfinite(number) else None


def _integer(value: object) -> int | None:
    number = _number(value)
    return int(number) if number is not None and abs(number) < 2**62 else None
