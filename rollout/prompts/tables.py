"""Raw rows of tables whose columns have names: Parquet files, and data sets of the hub."""

import difflib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from rollout.config import ColumnMapping
from rollout.errors import DataError
from rollout.prompts.raw_rows import BadRow, RawRow

BATCH_ROWS = 1024
# What Arrow raises for a value that has no form in Python: text that is no UTF-8, a date beyond the year 9999, a time
# zone that nobody knows (a KeyError).
_VALUE_ERRORS = (ValueError, OverflowError, KeyError, TypeError)


def read_parquet(path: Path, columns: ColumnMapping) -> Iterator[RawRow]:
    """Rows of a Parquet file, in its order. Raises DataError."""
    import pyarrow
    import pyarrow.parquet

    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            _check_columns(str(path), file.schema_arrow.names, columns)
            yield from _rows_of(file.iter_batches(batch_size=BATCH_ROWS), str(path))
    except (pyarrow.ArrowException, OSError) as error:
        raise DataError(f"{path} cannot be read as a Parquet file: {_first_line(error)}") from error


def _rows_of(batches: Iterable[Any], where: str) -> Iterator[RawRow]:
    """The rows of Arrow's tables, numbered from 1."""
    number = 0
    for batch in batches:
        try:
            rows: Sequence[Mapping[str, object] | BadRow] = batch.to_pylist()
        except _VALUE_ERRORS:  # one value costs Arrow the whole batch: the row is found one by one
            rows = [_row_of(batch, place) for place in range(batch.num_rows)]
        for row in rows:
            number += 1
            source = f"{where}:{number}"
            yield RawRow(source=source, problem=row) if isinstance(row, BadRow) else RawRow(source=source, columns=row)


def _row_of(batch: Any, place: int) -> dict[str, object] | BadRow:
    """A row of a table, or why it cannot be read. Values of columns that nobody asks for count too: rewards are given
    the whole row."""
    row: dict[str, object] = {}
    for name in batch.column_names:
        try:
            row[name] = batch.column(name)[place].as_py()
        except UnicodeDecodeError as error:
            byte = f"byte 0x{error.object[error.start]:02x} at offset {error.start}"
            return BadRow("not UTF-8", f"column {name!r} holds text that is not UTF-8 ({byte})")
        except _VALUE_ERRORS as error:
            kind = batch.schema.field(name).type
            return BadRow("unreadable value", f"column {name!r} has no readable {kind}: {_first_line(error)}")
    return row


def _check_columns(where: str, names: list[str], columns: ColumnMapping) -> None:
    """A table lacks a column for all rows or for none, so that skipping bad rows would leave nothing."""
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise DataError(f"{where} has two columns named {twice!r}; give one of them another name")
    for wanted in (columns.question, columns.ground_truth):
        name = wanted if wanted is None or wanted in names else wanted.partition(".")[0]
        if name is not None and name not in names:
            hint = difflib.get_close_matches(name, names, n=1)
            meant = f"did you mean {hint[0]!r}?" if hint else "set task.columns"
            raise DataError(f"{where} has no column {name!r}, its columns are {names}; {meant}")


def read_hub(dataset: str, subset: str | None, split: str, columns: ColumnMapping) -> Iterator[RawRow]:
    """Rows of a split of a data set on the hub, or in its cache. Raises DataError."""
    import datasets
    from datasets.exceptions import DatasetNotFoundError, DatasetsError
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    where = f"{dataset}[{split}]" if subset is None else f"{dataset}/{subset}[{split}]"
    try:
        table: Any = datasets.load_dataset(dataset, subset, split=split)
    except DatasetNotFoundError as error:
        raise DataError(f"data set {dataset!r} is not on the hub, or needs a token: {_first_line(error)}") from error
    except HFValidationError as error:
        raise DataError(f"task.dataset is {dataset!r}, which is no hub id: {_first_line(error)}") from error
    except (ConnectionError, TimeoutError, HfHubHTTPError) as error:
        raise DataError(
            f"data set {dataset!r} cannot be fetched and is not in the local cache: {_first_line(error)}; go online "
            "or use files (kind: jsonl or parquet)"
        ) from error
    except (ValueError, OSError, DatasetsError) as error:
        raise DataError(f"data set {where} cannot be loaded: {_first_line(error)}") from error
    _check_columns(where, table.column_names, columns)
    yield from _rows_of(table.with_format("arrow").iter(batch_size=BATCH_ROWS), where)


def _first_line(error: BaseException) -> str:
    """A library's error as part of one sentence: its first line, shortened, or its name where it says nothing."""
    line = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
    return line if len(line) <= 200 else line[:197] + "..."
