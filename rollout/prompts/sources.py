"""Readers of raw rows: JSON lines, Parquet, hub data sets, reasoning-gym. They read; `rows` checks, `tasks` splits.

A source that cannot be read at all raises DataError. A single row that cannot be read is yielded as a `RawRow` with
its problem, so that one place decides whether it ends the program or is counted.
"""

import difflib
import json
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from rollout.config import ColumnMapping, Gsm8kTask, HubTask, JsonlTask, ParquetTask, ReasoningGymTask, TaskConfig
from rollout.errors import DataError
from rollout.prompts.reasoning_gym import generate
from rollout.prompts.rows import BadRow

MAX_LINE_BYTES = 16 * 2**20
"""A longer line is no row: it is a file without line breaks, or an archive; reading on would fill the memory."""

GSM8K_HUB_ID = "openai/gsm8k"


@dataclass(frozen=True, slots=True, kw_only=True)
class RawRow:
    """A row as it was read; exactly one of `columns` and `problem` is given."""

    source: str
    columns: Mapping[str, object] | None = None
    problem: BadRow | None = None


def read_rows(task: TaskConfig, split: str) -> Iterator[RawRow]:
    """Rows of `split`, "train" or "eval", as the task keeps them. A task without an evaluation source has "train" only.

    Raises DataError when the source as a whole cannot be read.
    """
    match task:
        case ReasoningGymTask():
            return _read_reasoning_gym(task)
        case JsonlTask():
            return read_jsonl(_path(task.path, task.eval_path, split))
        case ParquetTask():
            return _read_parquet(_path(task.path, task.eval_path, split), task.columns)
        case HubTask():
            name = task.split if split == "train" else task.eval_split
            assert name is not None, "only tasks with an evaluation split are asked for it"
            return _read_hub(task.dataset, task.subset, name, task.columns)
        case Gsm8kTask(path=None):
            return _read_hub(GSM8K_HUB_ID, "main", "train" if split == "train" else "test", ColumnMapping())
        case Gsm8kTask():
            return read_jsonl(_gsm8k_file(str(task.path), split))


def has_eval_source(task: TaskConfig) -> bool:
    """Whether evaluation rows come from a file or split of their own."""
    match task:
        case JsonlTask() | ParquetTask():
            return task.eval_path is not None
        case HubTask():
            return task.eval_split is not None
        case Gsm8kTask():
            return True
        case ReasoningGymTask():
            return False


def _path(path: str, eval_path: str | None, split: str) -> Path:
    chosen = path if split == "train" else eval_path
    assert chosen is not None, "only tasks with an evaluation file are asked for it"
    return _existing_file(Path(chosen).expanduser())


def _existing_file(path: Path) -> Path:
    if path.is_dir():
        raise DataError(f"{path} is a folder, expected a file of rows; name the file")
    if not path.is_file():
        raise DataError(f"{path} does not exist (looked in {Path.cwd()}); set task.path to a file of rows")
    return path


def _gsm8k_file(folder: str, split: str) -> Path:
    path = Path(folder).expanduser()
    if not path.is_dir():
        raise DataError(f"{path} is no folder; set task.path to the folder with GSM8K's train.jsonl and test.jsonl")
    return _existing_file(path / ("train.jsonl" if split == "train" else "test.jsonl"))


def read_jsonl(path: Path) -> Iterator[RawRow]:
    """One row for each line that is not blank. A byte-order mark that starts the file is no part of the first row."""
    try:
        stream = path.open("rb")
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}") from error
    with closing(stream):
        number = 0
        while line := stream.readline(MAX_LINE_BYTES + 1):
            number += 1
            source = f"{path}:{number}"
            if len(line) > MAX_LINE_BYTES:
                while line and not line.endswith(b"\n"):
                    line = stream.readline(MAX_LINE_BYTES)
                detail = f"the line is longer than {MAX_LINE_BYTES // 2**20} MiB; is this a JSON-lines file?"
                yield RawRow(source=source, problem=BadRow("line too long", detail))
                continue
            if number == 1:
                line = line.removeprefix(b"\xef\xbb\xbf")
            line = line.rstrip(b"\r\n")  # else a line that breaks off would be told as column 1 of the next one
            if line.strip():
                yield _parse_line(line, source)


def _parse_line(line: bytes, source: str) -> RawRow:
    try:
        value = json.loads(line.decode("utf-8"), parse_constant=_refuse_constant)
    except UnicodeDecodeError as error:
        detail = f"byte 0x{line[error.start]:02x} at offset {error.start} is not UTF-8; save the file as UTF-8"
        return RawRow(source=source, problem=BadRow("not UTF-8", detail))
    except json.JSONDecodeError as error:
        return RawRow(
            source=source, problem=BadRow("invalid JSON", f"invalid JSON, {error.msg} (column {error.colno})")
        )
    except ValueError as error:  # NaN, or an integer of thousands of digits
        return RawRow(source=source, problem=BadRow("invalid JSON", f"invalid JSON, {error}"))
    except RecursionError:
        return RawRow(source=source, problem=BadRow("invalid JSON", "the JSON is nested too deeply"))
    if not isinstance(value, dict):
        detail = f"the line holds a JSON {type(value).__name__}, expected an object with columns"
        return RawRow(source=source, problem=BadRow("not an object", detail))
    return RawRow(source=source, columns=value)


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name} is no JSON number")


def _read_parquet(path: Path, columns: ColumnMapping) -> Iterator[RawRow]:
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


def _read_hub(dataset: str, subset: str | None, split: str, columns: ColumnMapping) -> Iterator[RawRow]:
    import datasets
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    where = f"{dataset}[{split}]" if subset is None else f"{dataset}/{subset}[{split}]"
    try:
        table = datasets.load_dataset(dataset, subset, split=split)
    except datasets.exceptions.DatasetNotFoundError as error:
        raise DataError(f"data set {dataset!r} is not on the hub, or needs a token: {_first_line(error)}") from error
    except HFValidationError as error:
        raise DataError(f"task.dataset is {dataset!r}, which is no hub id: {_first_line(error)}") from error
    except (ConnectionError, TimeoutError, HfHubHTTPError) as error:
        raise DataError(
            f"data set {dataset!r} cannot be fetched and is not in the local cache: {_first_line(error)}; go online "
            "or use files (kind: jsonl or parquet)"
        ) from error
    except (ValueError, OSError, datasets.exceptions.DatasetsError) as error:
        raise DataError(f"data set {where} cannot be loaded: {_first_line(error)}") from error
    _check_columns(where, table.column_names, columns)
    for number, row in enumerate(table, start=1):
        yield RawRow(source=f"{where}:{number}", columns=row)


def _read_reasoning_gym(task: ReasoningGymTask) -> Iterator[RawRow]:
    for number, entry in enumerate(generate(task), start=1):
        yield RawRow(source=f"reasoning_gym/{task.generator}:{number}", columns=entry)


def _first_line(error: BaseException) -> str:
    """A library's error as part of one sentence: its first line, shortened, or its name where it says nothing."""
    line = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
    return line if len(line) <= 200 else line[:197] + "..."
