"""Raw rows of tables whose columns have names: Parquet files, and data sets of the hub."""

import difflib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rollout.config import ColumnMapping
from rollout.errors import DataError
from rollout.prompts.raw_rows import RawRow


def read_parquet(path: Path, columns: ColumnMapping) -> Iterator[RawRow]:
    """Rows of a Parquet file, in its order. Raises DataError."""
    import pyarrow
    import pyarrow.parquet

    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            _check_columns(str(path), file.schema_arrow.names, columns)
            number = 0
            for batch in file.iter_batches(batch_size=1024):
                for row in batch.to_pylist():
                    number += 1
                    yield RawRow(source=f"{path}:{number}", columns=row)
    except (pyarrow.ArrowException, OSError) as error:
        raise DataError(f"{path} cannot be read as a Parquet file: {_first_line(error)}") from error


def _check_columns(where: str, names: list[str], columns: ColumnMapping) -> None:
    """A table lacks a column for all rows or for none, so that skipping bad rows would leave nothing."""
    for name in (columns.question, columns.ground_truth):
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
    for number, row in enumerate(table, start=1):
        yield RawRow(source=f"{where}:{number}", columns=row)


def _first_line(error: BaseException) -> str:
    """A library's error as part of one sentence: its first line, shortened, or its name where it says nothing."""
    line = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
    return line if len(line) <= 200 else line[:197] + "..."
