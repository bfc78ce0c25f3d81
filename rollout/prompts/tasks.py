"""Tasks: where questions come from, and which of them are held out.

Two rules hold for every kind of task. A question that comes twice is kept once. And no evaluation question is ever
trained on: without an evaluation source of its own a task is split by a hash of the question, so that the side a
question falls on depends on nothing but the question, and stays the same when rows are added, removed or reordered;
with one, a question that is in both is left out of training. Two questions are the same when their normal forms are
(`normal_form`), whichever task they come from: what one task of a run holds out, no other may train on.
"""

import hashlib
import json
import unicodedata
from collections.abc import Collection, Iterable
from dataclasses import replace

from rollout.config import TaskConfig
from rollout.errors import DataError
from rollout.prompts.rows import TaskRow
from rollout.prompts.sources import has_eval_source
from rollout.prompts.usable_rows import Split, TaskRows, load_source


def load_rows(task: TaskConfig, *, split: Split, held_out: Collection[str] = ()) -> TaskRows:
    """Reads, checks and splits the rows of `task`. Training rows are without the questions of `held_out`, which other
    tasks of the run hold out (`held_out_questions`).

    Raises DataError when a source cannot be read, a row is malformed (unless `on_bad_row` is "skip"), or nothing
    is left.
    """
    rows = _load_split(task, split)
    if split == "train":
        asked = load_source(task, "eval").rows if has_eval_source(task) else ()
        never = {normal_form(row.question_text) for row in asked}.union(held_out)
        kept = tuple(row for row in rows.rows if normal_form(row.question_text) not in never)
        rows = replace(rows, rows=kept, num_in_eval=len(rows.rows) - len(kept))
    if not rows.rows:
        raise DataError(_nothing_left(task, rows))
    return replace(rows, fingerprint=_fingerprint(rows.rows))


def held_out_questions(tasks: Iterable[TaskConfig]) -> frozenset[str]:
    """Normal forms of all questions that these tasks hold out. Which of them an evaluation really asks does not matter:
    that may change on resume, and what is trained on may not.

    Raises DataError as `load_rows` does.
    """
    return frozenset(normal_form(row.question_text) for task in tasks for row in _load_split(task, "eval").rows)


def _load_split(task: TaskConfig, split: Split) -> TaskRows:
    """One side of a task's own split; there may be nothing on it."""
    if has_eval_source(task):
        return load_source(task, split)
    rows = load_source(task, "train")
    kept = tuple(row for row in rows.rows if is_held_out(row.question_text, task) == (split == "eval"))
    return replace(rows, rows=kept, split=split)


def is_held_out(question: str, task: TaskConfig) -> bool:
    """Whether the hash puts a question into the evaluation split: a share `eval_fraction` of all questions."""
    digest = hashlib.sha256(f"{task.split_salt}\0{normal_form(question)}".encode()).digest()
    return int.from_bytes(digest[:8]) < task.eval_fraction * 2**64


def normal_form(question: str) -> str:
    """The same for two questions that must not end on different sides: they differ in case, blanks or width only."""
    return " ".join(unicodedata.normalize("NFKC", question).casefold().split())


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
