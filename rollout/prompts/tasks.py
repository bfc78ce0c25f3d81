"""Tasks: where questions come from, and which of them are held out.

Two rules hold for every kind of task. A question that comes twice is kept once. And no evaluation question is ever
trained on: without an evaluation source of its own a task is split by a hash of the question, so that the side a
question falls on depends on nothing but the question, and stays the same when rows are added, removed or reordered;
with one, a question that is in both is left out of training. Two questions are the same when their normal forms are
(`normal_form`), whichever task they come from.
"""

import hashlib
import json
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from rollout.config import ColumnMapping, Gsm8kTask, HubTask, JsonlTask, ParquetTask, ReasoningGymTask, TaskConfig
from rollout.errors import DataError
from rollout.prompts.rows import BadRow, RowSchema, TaskRow, parse_row
from rollout.prompts.sources import has_eval_source, read_rows

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


def load_rows(task: TaskConfig, *, split: Split, eval_task: TaskConfig | None = None) -> TaskRows:
    """Reads, checks and splits the rows of `task`.

    With an `eval_task`, training rows are without all of its held-out questions. Which of them an evaluation really
    asks does not matter: that may change on resume, and the rows may not.

    Raises DataError when a source cannot be read, a row is malformed (unless `on_bad_row` is "skip"), or nothing
    is left.
    """
    rows = _load_split(task, split)
    if split == "train":
        asked = _load_source(task, "eval").rows if has_eval_source(task) else ()
        if eval_task is not None:
            asked += _load_split(eval_task, "eval").rows
        held_out = {normal_form(row.question_text) for row in asked}
        kept = tuple(row for row in rows.rows if normal_form(row.question_text) not in held_out)
        rows = replace(rows, rows=kept, num_in_eval=len(rows.rows) - len(kept))
    if not rows.rows:
        raise DataError(_nothing_left(task, rows))
    return replace(rows, fingerprint=_fingerprint(rows.rows))


def _load_split(task: TaskConfig, split: Split) -> TaskRows:
    """One side of a task's own split; there may be nothing on it."""
    if has_eval_source(task):
        return _load_source(task, split)
    rows = _load_source(task, "train")
    kept = tuple(row for row in rows.rows if is_held_out(row.question_text, task) == (split == "eval"))
    return replace(rows, rows=kept, split=split)


def task_name(task: TaskConfig) -> str:
    """Name of the task in records and metrics: its own, or the generator's, file's or data set's."""
    if task.name is not None:
        return task.name
    match task:
        case ReasoningGymTask():
            return task.generator
        case HubTask():
            return task.dataset
        case Gsm8kTask():
            return "gsm8k"
        case _:
            return Path(task.path).stem


def is_held_out(question: str, task: TaskConfig) -> bool:
    """Whether the hash puts a question into the evaluation split: a share `eval_fraction` of all questions."""
    digest = hashlib.sha256(f"{task.split_salt}\0{normal_form(question)}".encode()).digest()
    return int.from_bytes(digest[:8]) < task.eval_fraction * 2**64


def normal_form(question: str) -> str:
    """The same for two questions that must not end on different sides: they differ in case, blanks or width only."""
    return " ".join(unicodedata.normalize("NFKC", question).casefold().split())


def final_answer(solution: str) -> str:
    """GSM8K's final answer: what follows the last "#### ", without the commas that group thousands.

    Raises ValueError when there is none.
    """
    _, mark, answer = solution.rpartition("####")
    answer = answer.strip().replace(",", "")
    if not mark or not answer:
        raise ValueError("no final answer after '#### '")
    return answer


def _load_source(task: TaskConfig, split: Split) -> TaskRows:
    """All rows of one source, malformed ones and duplicates left out."""
    schema = _schema(task)
    rows: dict[str, TaskRow] = {}
    skipped: Counter[str] = Counter()
    num_duplicates = 0
    for raw in read_rows(task, split):
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


def _schema(task: TaskConfig) -> RowSchema:
    match task:
        case ReasoningGymTask():
            # The whole entry stays: a generator that scores answers itself reads it. Some give no answer at all.
            return RowSchema(columns=ColumnMapping(), allow_no_answer=True, keep=("question", "answer"))
        case Gsm8kTask():
            return RowSchema(columns=ColumnMapping(), keep=("answer",), final_answer=final_answer)
        case _:
            return RowSchema(columns=task.columns)


def _fingerprint(rows: Iterable[TaskRow]) -> str:
    digest = hashlib.sha256()
    for row in rows:
        record = [row.question_text, row.ground_truth, row.columns]
        digest.update(json.dumps(record, sort_keys=True, separators=(",", ":")).encode())
        digest.update(b"\n")
    return digest.hexdigest()


def _nothing_left(task: TaskConfig, rows: TaskRows) -> str:
    """Why a split of a source with usable rows is empty, and what to change."""
    if rows.num_in_eval:
        return (
            f"task {rows.name!r} has no row left to train on: all {rows.num_in_eval} questions are evaluation "
            "questions too; use another evaluation file, split or task"
        )
    if rows.split == "eval":
        return (
            f"task {rows.name!r} holds out no question for evaluation (eval_fraction {task.eval_fraction}); raise "
            "task.eval_fraction, add rows, or give an evaluation source"
        )
    return (
        f"task {rows.name!r} holds out all its questions for evaluation (eval_fraction {task.eval_fraction}) and has "
        "none to train on; lower task.eval_fraction or add rows"
    )


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
