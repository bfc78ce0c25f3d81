"""Reward for an SQL query: its result on an SQLite database against that of the ground truth's query."""

import re
from collections import Counter
from typing import Any, Literal

from reward.components import column_value
from reward.functions import register
from reward.rules.final_text import fenced_text
from reward.rules.sqlite_query import Database, QueryError, QueryLimits, comparable, run_query
from reward.types import ExplainedScore, RewardInput

MAX_QUERY_CHARS = 20_000
_SKIPPED = re.compile(r"'(?:[^']|'')*'|\"(?:[^\"]|\"\")*\"|`[^`]*`|\[[^\]]*\]|--[^\n]*|/\*.*?\*/", re.DOTALL)


def _check(max_steps: int = 10_000_000, max_rows: int = 10_000, database: str | None = None, **_others: object) -> None:
    for name, value in (("max_steps", max_steps), ("max_rows", max_rows)):
        if value < 1:
            raise ValueError(f"{name} has to be at least 1, got {value}")
    if database is not None and not database.strip():
        raise ValueError("database is empty; name a file, as in data/{db_id}.sqlite")


def _check_row(
    item: RewardInput,
    script_column: str = "schema",
    database: str | None = None,
    max_steps: int = 10_000_000,
    max_rows: int = 10_000,
    **_others: object,
) -> None:
    _expected(item, _database(item, script_column, database), QueryLimits(steps=max_steps, rows=max_rows))


@register("sql", check=_check, check_row=_check_row)
def sql(  # its parameters are the configuration
    item: RewardInput,
    script_column: str = "schema",
    database: str | None = None,
    order: Literal["auto", "always", "never"] = "auto",
    max_steps: int = 10_000_000,
    max_rows: int = 10_000,
) -> ExplainedScore:
    """1 when the query's result is that of the ground truth's query, else 0, and the record says why not.

    The tables are made by the SQL in column `script_column`, in memory, or are in the file `database`, in whose path
    `{column}` is a column of the row, as in `spider/{db_id}/{db_id}.sqlite`. Nothing can be changed: a query may read.

    Rows are compared as a multiset, and in order where the ground truth sorts them with an ORDER BY of its own (`order:
    auto`); columns in order, whatever their names. Numbers are equal to nine digits. A query that takes more than
    `max_steps` of SQLite's machine, or gives more than `max_rows` rows, is 0.

    The query is what is marked as the answer, else the last fenced block, else the whole text.

    Raises:
        ValueError: a database that cannot be opened, a ground truth that cannot be run or gives no rows: then every
            query without rows would be right.
    """
    where, limits = _database(item, script_column, database), QueryLimits(steps=max_steps, rows=max_rows)
    expected = _expected(item, where, limits)
    query = query_of(item.completion)
    if not query:
        return ExplainedScore(0.0, "no query")
    if len(query) > MAX_QUERY_CHARS:
        return ExplainedScore(0.0, f"the query has more than {MAX_QUERY_CHARS} characters")
    try:
        rows = run_query(where, query, limits)
    except QueryError as error:
        return ExplainedScore(0.0, f"the query failed: {error}")
    is_ordered = order == "always" or (order == "auto" and is_sorted(item.ground_truth or ""))
    return _judged([comparable(row) for row in rows], [comparable(row) for row in expected], is_ordered)


def _judged(rows: list[Any], expected: list[Any], is_ordered: bool) -> ExplainedScore:
    if len(rows) != len(expected):
        return ExplainedScore(0.0, f"{len(rows)} rows, expected {len(expected)}")
    if rows and len(rows[0]) != len(expected[0]):
        return ExplainedScore(0.0, f"{len(rows[0])} columns, expected {len(expected[0])}")
    if Counter(rows) != Counter(expected):
        return ExplainedScore(0.0, f"{(Counter(rows) - Counter(expected)).total()} of {len(rows)} rows are others")
    if is_ordered and rows != expected:
        return ExplainedScore(0.0, "the rows are in another order")
    return ExplainedScore(1.0, "the same rows")


def query_of(completion: str) -> str:
    """The query that a completion gives, without white space around it."""
    return fenced_text(completion, ("", "sql", "sqlite"))


def is_sorted(query: str) -> bool:
    """Whether a query sorts its result: an ORDER BY outside of brackets, texts and comments."""
    depth, outside = 0, []
    for character in _SKIPPED.sub(" ", query):
        depth += {"(": 1, ")": -1}.get(character, 0)
        outside.append(character if depth == 0 else " ")
    return re.search(r"\border\s+by\b", "".join(outside), re.IGNORECASE) is not None


def _database(item: RewardInput, script_column: str, database: str | None) -> Database:
    if database is not None:
        return Database(path=re.sub(r"\{([^{}]+)\}", lambda match: _filled(item, match[1]), database))
    script = column_value(item.row, script_column)
    if not isinstance(script, str) or not script.strip():
        raise ValueError(
            f"column {script_column!r} has no SQL that makes the tables; name the column as script_column, or a file "
            "as database"
        )
    return Database(script=script)


def _filled(item: RewardInput, column: str) -> str:
    value = column_value(item.row, column)
    if not isinstance(value, (str, int)) or isinstance(value, bool):
        raise ValueError(f"column {column!r}, which names the database, has no text")
    return str(value)


def _expected(item: RewardInput, database: Database, limits: QueryLimits) -> list[tuple[Any, ...]]:
    if item.ground_truth is None or not item.ground_truth.strip():
        raise ValueError("it needs a query as ground truth, and the row has none")
    try:
        rows = run_query(database, item.ground_truth, limits)
    except QueryError as error:
        raise ValueError(f"the ground truth's query failed: {error}") from error
    if not rows:
        raise ValueError("the ground truth's query gives no rows, so that every query without rows would be right")
    return rows
