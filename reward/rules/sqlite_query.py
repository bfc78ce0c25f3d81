"""A query that nobody trusts, on an SQLite database that it cannot change, within bounds that do not depend on load.

Steps of SQLite's machine are counted, and not seconds, so that a verdict is the same on a busy machine. What the steps
do not bound (long strings, memory for sorting) has limits of its own.
"""

import contextlib
import re
import sqlite3
import sys
import urllib.parse
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

_STEPS_BETWEEN_CALLS = 1000
_MAX_VALUE_BYTES = 2**18
"""Of one string or blob that a query makes or reads: a search in it takes up to the square of its length."""
_WIDTH = re.compile(r"\*|\d{4,}")
_MAX_HEAP_BYTES = 256 * 2**20
"""Of SQLite in this process, databases in memory included."""
_MAX_RESULT_BYTES = 64 * 2**20
"""Of all rows of a result."""
_MAX_DATABASES = 8
"""Kept open: the completions of a group ask the same one."""
_READING = frozenset({sqlite3.SQLITE_SELECT, sqlite3.SQLITE_READ, sqlite3.SQLITE_FUNCTION, sqlite3.SQLITE_RECURSIVE})
_REFUSED_FUNCTIONS = frozenset({"load_extension", "readfile", "writefile", "edit", "fts3_tokenizer"})


class QueryError(Exception):
    """The query is wrong, or took more than it may; the message says which."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Database:
    """Where the tables are: a file, or a script that makes them."""

    path: str | None = None
    script: str | None = None

    def __post_init__(self) -> None:
        assert (self.path is None) != (self.script is None)


@dataclass(frozen=True, slots=True, kw_only=True)
class QueryLimits:
    """What a query may use."""

    steps: int
    """Of SQLite's virtual machine."""
    rows: int
    """Of its result."""


def run_query(database: Database, query: str, limits: QueryLimits) -> list[tuple[Any, ...]]:
    """The rows of a query.

    Raises:
        QueryError: the query is wrong, or more than its limits.
        ValueError: the database cannot be opened or made.
    """
    connection = _opened(database)
    left = [limits.steps]

    def count() -> int:
        left[0] -= _STEPS_BETWEEN_CALLS
        return int(left[0] < 0)

    connection.set_progress_handler(count, _STEPS_BETWEEN_CALLS)
    try:
        rows = _rows(connection.execute(query), limits.rows)
    except (sqlite3.Error, sqlite3.Warning, ValueError, OverflowError) as error:
        if left[0] < 0:
            raise QueryError(f"it takes more than {limits.steps} steps") from error
        raise QueryError(str(error)) from error
    except MemoryError as error:
        raise QueryError("it takes too much memory") from error
    finally:
        connection.set_progress_handler(None, 0)
        # One that was cut short would keep its tables open.
        connection.interrupt()
    return rows


def _rows(cursor: sqlite3.Cursor, most: int) -> list[tuple[Any, ...]]:
    """All rows, of which no more are kept than are allowed: once they are Python's, SQLite's limit is not theirs."""
    rows: list[tuple[Any, ...]] = []
    num_bytes = 0
    for row in cursor:
        num_bytes += sys.getsizeof(row) + sum(map(sys.getsizeof, row))
        if len(rows) == most:
            raise QueryError(f"it gives more than {most} rows")
        if num_bytes > _MAX_RESULT_BYTES:
            raise QueryError(f"its rows take more than {_MAX_RESULT_BYTES >> 20} MiB of memory")
        rows.append(row)
    return rows


@lru_cache(maxsize=_MAX_DATABASES)
def _opened(database: Database) -> sqlite3.Connection:
    try:
        if database.path is not None:
            if not Path(database.path).is_file():
                raise ValueError(f"there is no database {database.path!r}")
            place = f"file:{urllib.parse.quote(database.path)}?mode=ro&immutable=1"
            connection = sqlite3.connect(place, uri=True, isolation_level=None)
            connection.execute("select count(*) from sqlite_master")
        else:
            connection = sqlite3.connect(":memory:", isolation_level=None)
            connection.executescript(database.script or "")
    except sqlite3.Error as error:
        raise ValueError(f"the database cannot be opened: {error}") from error
    connection.text_factory = lambda raw: raw.decode("utf-8", "replace")
    # SQLite's own counts to the width that it is asked for, one by one, whatever its limits are.
    for name in ("printf", "format"):
        connection.create_function(name, -1, _printf, deterministic=True)
    connection.execute(f"pragma hard_heap_limit = {_MAX_HEAP_BYTES}")
    connection.execute("pragma temp_store = memory")  # what is sorted must not fill the disk either
    connection.execute("pragma query_only = on")
    connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, _MAX_VALUE_BYTES)
    connection.setlimit(sqlite3.SQLITE_LIMIT_LIKE_PATTERN_LENGTH, 200)
    connection.setlimit(sqlite3.SQLITE_LIMIT_ATTACHED, 0)
    connection.set_authorizer(_may)
    return connection


def _may(action: int, _one: str | None, name: str | None, _database: str | None, _trigger: str | None) -> int:
    if action not in _READING or (action == sqlite3.SQLITE_FUNCTION and str(name).lower() in _REFUSED_FUNCTIONS):
        return sqlite3.SQLITE_DENY
    return sqlite3.SQLITE_OK


def _printf(form: Any = None, *values: Any) -> Any:
    """SQLite's `printf`, without widths of thousands."""
    if form is None:
        return None
    if _WIDTH.search(str(form)):
        raise ValueError("a width that is too large")
    places = ", ".join("?" * (1 + len(values)))
    with contextlib.closing(sqlite3.connect(":memory:")) as other:
        return other.execute(f"select printf({places})", (form, *values)).fetchone()[0]


def comparable(row: Sequence[Any]) -> tuple[Any, ...]:
    """A row in which equal values are equal: 1 is 1.0, and sums in another order are the same to nine digits."""
    return tuple(_comparable(value) for value in row)


def _comparable(value: Any) -> Any:
    if isinstance(value, int) and abs(value) < 2**53:
        return ("number", f"{float(value):.9g}") if abs(value) < 10**9 else ("number", str(value))
    if isinstance(value, float):
        is_whole = value.is_integer() and 10**9 <= abs(value) < 2**53
        return ("number", str(int(value)) if is_whole else f"{value + 0.0:.9g}")
    return (type(value).__name__, value)
