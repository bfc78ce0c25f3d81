"""Where a task's raw rows come from: files, hub data sets, reasoning-gym. `rows` checks them, `tasks` splits.

A source that cannot be read at all raises DataError. A single row that cannot be read is yielded as a `RawRow` with
its problem, so that one place decides whether it ends the program or is counted.
"""

from collections.abc import Iterator
from pathlib import Path

from rollout.config import (
    ColumnMapping,
    EnvironmentTask,
    Gsm8kTask,
    HubTask,
    JsonlTask,
    ParquetTask,
    ReasoningGymTask,
    RowsTask,
    TaskConfig,
)
from rollout.errors import DataError
from rollout.prompts.jsonl import read_jsonl
from rollout.prompts.raw_rows import RawRow
from rollout.prompts.reasoning_gym import generate
from rollout.prompts.tables import read_hub, read_parquet

GSM8K_HUB_ID = "openai/gsm8k"


def read_rows(task: RowsTask, split: str) -> Iterator[RawRow]:
    """Rows of `split`, "train" or "eval", as the task keeps them. A task without an evaluation source has "train" only.

    Raises DataError when the source as a whole cannot be read.
    """
    match task:
        case ReasoningGymTask():
            return _read_reasoning_gym(task)
        case JsonlTask():
            return read_jsonl(_path(task.path, task.eval_path, split))
        case ParquetTask():
            return read_parquet(_path(task.path, task.eval_path, split), task.columns)
        case HubTask():
            name = task.split if split == "train" else task.eval_split
            assert name is not None, "only tasks with an evaluation split are asked for it"
            return read_hub(task.dataset, task.subset, name, task.columns)
        case Gsm8kTask(path=None):
            return read_hub(GSM8K_HUB_ID, "main", "train" if split == "train" else "test", ColumnMapping())
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
        case EnvironmentTask():
            return task.rows is not None and has_eval_source(task.rows)
        case ReasoningGymTask():
            return False


def _path(path: str, eval_path: str | None, split: str) -> Path:
    chosen = path if split == "train" else eval_path
    assert chosen is not None, "only tasks with an evaluation file are asked for it"
    return _existing_file(Path(chosen).expanduser())


def _existing_file(path: Path) -> Path:
    try:
        if path.is_dir():
            raise DataError(f"{path} is a folder, expected a file of rows; name the file")
        if path.exists() and not path.is_file():
            raise DataError(f"{path} is a device or a pipe, expected a file of rows: it is read more than once")
        if not path.is_file():
            raise DataError(f"{path} does not exist (looked in {Path.cwd()}); set task.path to a file of rows")
    except OSError as error:  # a name that is too long
        raise DataError(
            f"{str(path)[:200]} cannot be read: {error.strerror}; set task.path to a file of rows"
        ) from error
    return path


def _gsm8k_file(folder: str, split: str) -> Path:
    path = Path(folder).expanduser()
    if not path.is_dir():
        raise DataError(f"{path} is no folder; set task.path to the folder with GSM8K's train.jsonl and test.jsonl")
    return _existing_file(path / ("train.jsonl" if split == "train" else "test.jsonl"))


def _read_reasoning_gym(task: ReasoningGymTask) -> Iterator[RawRow]:
    for number, entry in enumerate(generate(task), start=1):
        yield RawRow(source=f"reasoning_gym/{task.generator}:{number}", columns=entry)
