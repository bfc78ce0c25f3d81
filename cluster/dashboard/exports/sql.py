"""`shoal sql RUN "select ..."`: DuckDB over the files of a run; it changes nothing and reads nothing else.

    rollouts, evals                        rollouts/step-*.parquet, rollouts/eval-*.parquet
    turns                                  a row for each reply of an episode, out of both
    metrics, evaluations, events, ledger   the JSON-lines files of these names

The database is in memory and holds only views, so a query reads the files as they are now, those of a live run too.
"""

import csv
import datetime
import decimal
import math
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Literal

from cluster.dashboard.exports.sql_turns import NEEDED, turns_query
from cluster.dashboard.files.encoding import encode, no_formula, piped, visible, width
from cluster.dashboard.files.tail import open_inside
from cluster.run_files import ROLLOUTS, TABLE_STEMS, Phase, log_name
from rollout.errors import ConfigError, ShoalError

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

Format = Literal["table", "csv", "json"]
FORMATS: tuple[Format, ...] = ("table", "csv", "json")
MAX_TABLE_ROWS, MAX_CELL = 1000, 60
BATCH_ROWS = 2048
TABLES: Mapping[str, Phase] = {"rollouts": "train", "evals": "eval"}
EVENT_COLUMNS = (
    "kind: 'VARCHAR', actor: 'VARCHAR', start_s: 'DOUBLE', end_s: 'DOUBLE', step: 'BIGINT', ids: 'VARCHAR[]', "
    "extra: 'JSON'"
)
LEDGER_COLUMNS = (
    "time_s: 'DOUBLE', group_id: 'VARCHAR', state: 'VARCHAR', attempt: 'BIGINT', worker: 'VARCHAR', "
    "policy_version: 'BIGINT', step: 'BIGINT', reason: 'VARCHAR'"
)
LOGS = {"metrics": None, "evaluations": None, "events": EVENT_COLUMNS, "ledger": LEDGER_COLUMNS}
"""Table -> its columns; None: all names that occur, with the types of their values."""
PARQUET_MAGIC = b"PAR1"
EXPLAIN = re.compile(r"\s*explain\b\s*(analyze\b)?\s*(\([\w\s,]*\))?", re.IGNORECASE)
"""What comes before the statement that is explained. No comments: what they hide is DuckDB's to say."""


class QueryError(ShoalError):
    """A query that DuckDB does not take, or that would do more than read."""

    exit_code = 2


def sql_command(run: Path, query: str, format: Format | None, out: IO[str]) -> None:
    """Writes the result: as a table to a terminal, else as CSV, unless a format is given.

    What could not be read is told on standard error. Raises ConfigError for what is no run, QueryError.
    """
    connection = connect(run, warn=lambda sentence: print(f"shoal: {sentence}", file=sys.stderr))
    try:
        names, rows = execute(connection, query)
        chosen = format or ("table" if out.isatty() else "csv")
        writer = {"table": write_table, "csv": write_csv, "json": write_json}[chosen]
        writer(names, rows, out)
    finally:
        connection.close()


def connect(run: Path, *, warn: Callable[[str], None]) -> "DuckDBPyConnection":
    """A database with a view of each file that is there; it can read nothing outside the run, and is locked so."""
    import duckdb

    if not run.is_dir():
        raise ConfigError(f"{run} is no run directory; give the folder that `shoal train` made")
    folder = run.resolve()
    # No extension is fetched or loaded: those for Parquet and JSON are built in.
    connection = duckdb.connect(
        ":memory:", config={"autoinstall_known_extensions": "false", "autoload_known_extensions": "false"}
    )
    views, files = _views(folder, warn)
    made = [name for name, statement in views.items() if _made(connection, name, statement, warn)]
    with_episodes = [(name, phase) for name, phase in TABLES.items() if name in made and _has_turns(connection, name)]
    if with_episodes:
        _made(connection, "turns", turns_query(with_episodes), warn)
    if not made:
        raise ConfigError(
            f"{run} has no file to ask: no rollouts/*.parquet and no metrics.jsonl; is it a run directory?"
        )
    connection.execute(f"set allowed_paths = [{', '.join(_quoted(str(path)) for path in files)}]")
    connection.execute("set enable_external_access = false")
    connection.execute("set lock_configuration = true")
    return connection


def execute(connection: "DuckDBPyConnection", query: str) -> tuple[list[str], Iterator[tuple[Any, ...]]]:
    """(names of the columns, rows). Raises QueryError."""
    import duckdb

    try:
        statements = duckdb.extract_statements(query)
        if len(statements) != 1:
            raise QueryError(f'got {len(statements)} statements, allowed: one, as in "select count(*) from rollouts"')
        # The run's files may be read, and DuckDB does not tell reading a file from writing to it (COPY ... TO); what
        # is explained may be executed too (EXPLAIN ANALYZE).
        kinds = [statements[0].type]
        if kinds == [duckdb.StatementType.EXPLAIN]:
            head = EXPLAIN.match(query)
            kinds = [inner.type for inner in duckdb.extract_statements(query[head.end() :])] if head else kinds
        if kinds != [duckdb.StatementType.SELECT]:
            got = ", ".join(kind.name for kind in kinds)
            raise QueryError(f"got {got}, allowed: statements that only read, such as select, describe, explain select")
        connection.execute(statements[0])
        names = [column[0] for column in connection.description or ()]
    except duckdb.Error as error:
        raise _query_error(error, connection) from error
    return names, _rows(connection)


def write_table(names: Sequence[str], rows: Iterable[Sequence[Any]], out: IO[str]) -> None:
    """Columns of equal width, numbers to the right. Unseen characters as escapes: a terminal obeys what it is sent."""
    rows = iter(rows)
    listed = [list(row) for row in islice(rows, MAX_TABLE_ROWS)]
    cells = [[_cell(value) for value in row] for row in listed]
    heads = [_shortened(visible(name)) for name in names]
    widths = [max(map(width, column)) for column in zip(heads, *cells, strict=True)]
    right = [all(_is_number(row[i]) for row in listed) and bool(listed) for i in range(len(heads))]
    for cells_of_row in (heads, ["-" * size for size in widths], *cells):
        padded = [
            " " * (size - width(cell)) + cell if at_right else cell + " " * (size - width(cell))
            for cell, size, at_right in zip(cells_of_row, widths, right, strict=True)
        ]
        print("  ".join(padded).rstrip(), file=out)
    if next(rows, None) is not None:
        print(f"... more than {MAX_TABLE_ROWS} rows; --format csv or json writes all of them", file=out)


def write_csv(names: Sequence[str], rows: Iterable[Sequence[Any]], out: IO[str]) -> None:
    """Lists and maps as JSON, absent values empty. Control characters are escapes, as a pipe may end in a terminal, and
    a ' stands before what a spreadsheet would compute; `--format json` has text as it is."""
    shown = visible if out.isatty() else lambda text: no_formula(piped(text))
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow([shown(name) for name in names])
    writer.writerows([_csv(value, shown) for value in row] for row in rows)


def write_json(names: Sequence[str], rows: Iterable[Sequence[Any]], out: IO[str]) -> None:
    """A list of objects, one a line, in ASCII."""
    mark = "["
    for row in rows:
        record = dict(zip(names, map(_json_value, row), strict=True))
        print(f"{mark}\n{encode(record).decode()}", end="", file=out)
        mark = ","
    print("[]" if mark == "[" else "\n]", file=out)


def _views(folder: Path, warn: Callable[[str], None]) -> tuple[dict[str, str], list[Path]]:
    """(table -> the query that reads it, for those whose files are there; all these files)"""
    views: dict[str, str] = {}
    every: list[Path] = []
    tables = folder / ROLLOUTS
    if tables.is_symlink():
        warn(f"{tables} was left out: it is a link, which is not followed")
    for name, phase in TABLES.items():
        found = () if tables.is_symlink() else sorted(tables.glob(f"{TABLE_STEMS[phase]}-*.parquet"))
        files = [path for path in found if _is_readable(path, warn, end=PARQUET_MAGIC)]
        if files:
            listed = ", ".join(_quoted(str(path)) for path in files)
            views[name] = f"select * from read_parquet([{listed}], union_by_name = true)"
            every += files
    for name, columns in LOGS.items():
        path = folder / log_name(name)
        if (path.exists() or path.is_symlink()) and _is_readable(path, warn):
            every.append(path)
            # A last line without its newline is still being written: errors are left out, not fatal.
            shape = f"columns = {{{columns}}}" if columns else "sample_size = -1, map_inference_threshold = -1"
            options = f"format = 'newline_delimited', ignore_errors = true, {shape}"
            where = " where state is not null" if name == "ledger" else " where step is not null" if not columns else ""
            views[name] = f"select * from read_json({_quoted(str(path))}, {options}){where}"
    return views, every


def _made(connection: "DuckDBPyConnection", name: str, statement: str, warn: Callable[[str], None]) -> bool:
    import duckdb

    try:
        connection.execute(f"create view {name} as {statement}")
    except duckdb.Error as error:
        warn(f"there is no table {name}, for its files cannot be read: {_first_line(error)}")
        return False
    return True


def _has_turns(connection: "DuckDBPyConnection", table: str) -> bool:
    there = {row[0] for row in connection.execute(f"select column_name from (describe {table})").fetchall()}
    return there.issuperset(NEEDED)


def _is_readable(path: Path, warn: Callable[[str], None], *, end: bytes = b"") -> bool:
    """Whether it is a file of the run itself (a link may lead out of it, a pipe never ends) and not an empty one.

    `end` is what it ends with when it is whole: a copy that was cut short would make all the others unreadable.
    """
    try:
        with open_inside(path) as file:
            size: int = file.seek(0, 2)
            file.seek(max(0, size - len(end)))
            whole: bool = file.read(len(end)) == end
    except OSError as error:
        warn(f"{path} was left out: it is a link, no plain file, or cannot be read ({error.strerror})")
        return False
    if not whole:
        warn(f"{path} was left out: it is cut short")
    return whole and size > 0


def _rows(connection: "DuckDBPyConnection") -> Iterator[tuple[Any, ...]]:
    import duckdb

    try:
        while batch := connection.fetchmany(BATCH_ROWS):
            yield from batch
    except duckdb.Error as error:
        raise _query_error(error, connection) from error


def _query_error(error: Exception, connection: "DuckDBPyConnection") -> QueryError:
    sentence = _first_line(error)
    if "Table with name" in sentence:
        there = ", ".join(row[0] for row in connection.execute("show tables").fetchall())
        sentence = f"{sentence.split('!')[0]}; this run has: {there}"
    return QueryError(f"the query failed: {sentence}")


def _first_line(error: Exception) -> str:
    """Without the excerpt of the query that follows after an empty line."""
    return visible(" ".join(str(error).split("\n\n")[0].split()))


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.6g}"
    return _shortened(visible(value if isinstance(value, str) else str(_json_value(value))))


def _shortened(text: str) -> str:
    return text if len(text) <= MAX_CELL else text[: MAX_CELL - 3] + "..."


def _is_number(value: Any) -> bool:
    return value is None or (isinstance(value, (int, float, decimal.Decimal)) and not isinstance(value, bool))


def _csv(value: Any, shown: Callable[[str], str]) -> Any:
    if isinstance(value, (list, tuple, Mapping)):
        return encode(_json_value(value)).decode()
    return shown(value) if isinstance(value, str) else value


def _json_value(value: Any) -> Any:
    """A DuckDB value as what JSON has; what it has not, such as a time, as text."""
    if isinstance(value, Mapping):
        return {str(key): _json_value(child) for key, child in value.items()}
    if isinstance(value, (list, tuple)):
        return [_json_value(child) for child in value]
    if isinstance(value, decimal.Decimal):
        return int(value) if value == value.to_integral_value() else float(value)
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, (datetime.date, datetime.time)):
        return value.isoformat()
    return value if value is None or isinstance(value, (bool, int, float, str)) else str(value)
