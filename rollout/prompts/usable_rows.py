"""One source of a task -> its usable rows: each question once, malformed rows refused or counted."""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal

from rollout.config import (
    ColumnMapping,
    EnvironmentTask,
    Gsm8kTask,
    JsonlTask,
    ParquetTask,
    ReasoningGymTask,
    TaskConfig,
    task_name,
)
from rollout.errors import DataError
from rollout.prompts.environments import TITLE, TOOLS, openings
from rollout.prompts.raw_rows import BadRow, RawRow
from rollout.prompts.rows import RowSchema, TaskRow, parse_row
from rollout.prompts.sources import read_rows

Split = Literal["train", "eval"]


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskRows:
    """The usable rows of one split of a task, and what became of the others."""

    name: str
    """Name of the task."""
    split: Split
    rows: tuple[TaskRow, ...]
    """In the order of the source; each question once."""
    num_duplicates: int
    """Rows left out because their question had come before."""
    num_in_eval: int
    """Training rows left out because their question is an evaluation question; 0 for "eval". Questions held out by
    the hash are not counted: they are the evaluation split."""
    skipped: Mapping[str, int] = field(default_factory=dict)
    """Malformed rows left out (`on_bad_row: skip`): reason -> how many."""
    fingerprint: str
    """SHA-256 (hex) of the rows in order: the same data has the same fingerprint on every machine."""

    @property
    def num_skipped(self) -> int:
        """Malformed rows left out."""
        return sum(self.skipped.values())


def final_answer(solution: str) -> str:
    """GSM8K's final answer: what follows the last "#### ", without the commas that group thousands.

    Raises ValueError when there is none.
    """
    _, mark, answer = solution.rpartition("####")
    answer = answer.strip().replace(",", "")
    if not mark or not answer:
        raise ValueError("no final answer after '#### '")
    return answer


def load_source(task: TaskConfig, split: Split) -> TaskRows:
    """All rows of one source, malformed ones and duplicates left out."""
    schema = _schema(task)
    rows: dict[str, TaskRow] = {}
    skipped: Counter[str] = Counter()
    num_duplicates = 0
    for raw in _raw_rows(task, split):
        try:
            if raw.problem is not None:
                raise raw.problem
            assert raw.columns is not None
            row = parse_row(raw.columns, schema, raw.source)
        except BadRow as bad:
            if task.on_bad_row == "error":
                raise DataError(f"{raw.source}: {bad.detail}; mend the row, or set task.on_bad_row to skip") from bad
            skipped[bad.reason] += 1
            continue
        if row.question_text in rows:
            num_duplicates += 1
        else:
            rows[row.question_text] = row
    if not rows:
        raise DataError(_no_rows(task, split, skipped))
    return TaskRows(
        name=task_name(task),
        split=split,
        rows=tuple(rows.values()),
        num_duplicates=num_duplicates,
        num_in_eval=0,
        skipped=dict(sorted(skipped.items())),
        fingerprint="",
    )


def _raw_rows(task: TaskConfig, split: Split) -> Iterator[RawRow]:
    if isinstance(task, EnvironmentTask):
        return openings(task, load_source(task.rows, split).rows if task.rows is not None else ())
    return read_rows(task, split)


def _schema(task: TaskConfig) -> RowSchema:
    match task:
        case EnvironmentTask():
            columns = ColumnMapping(ground_truth="ground_truth")
            return RowSchema(columns=columns, allow_no_answer=True, title=TITLE, tools=TOOLS)
        case ReasoningGymTask():
            # The whole entry stays: a generator that scores answers itself reads it. Some give no answer at all.
            return RowSchema(columns=ColumnMapping(), allow_no_answer=True, keep=("question", "answer"))
        case Gsm8kTask():
            return RowSchema(columns=ColumnMapping(), keep=("answer",), final_answer=final_answer)
        case _:
            return RowSchema(columns=task.columns)


def _file_of(task: TaskConfig, split: Split) -> str:
    """The file of a split as part of a sentence; empty for a source that is no file of the user's choice."""
    match task:
        case JsonlTask() | ParquetTask():
            return f" ({task.eval_path if split == 'eval' and task.eval_path is not None else task.path})"
        case _:
            return ""


def _no_rows(task: TaskConfig, split: Split, skipped: Mapping[str, int]) -> str:
    """Why a source has no usable row."""
    source = f"the {split} source of task {task_name(task)!r}"
    if not skipped:
        return f"{source} is empty{_file_of(task, split)}; give it rows"
    reasons = ", ".join(f"{count} x {reason}" for reason, count in skipped.items())
    return f"{source} has no usable row, all were malformed and skipped ({reasons}); mend them or set task.columns"
