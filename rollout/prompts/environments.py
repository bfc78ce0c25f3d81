"""Rows of an environment: the opening of each of its worlds."""

import asyncio
import hashlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from rollout.config import EnvironmentTask
from rollout.episodes.environment import Message, Task
from rollout.episodes.hosted import WorldTemplate
from rollout.episodes.runner import opening_text
from rollout.errors import DataError, WorldError
from rollout.prompts.raw_rows import RawRow
from rollout.prompts.rows import TaskRow

OPENINGS_AT_ONCE = 256
"""Asked for together: an answer of a process has a limit, and a row's opening may be pages."""
OPENING, ASKED, TITLE, TOOLS = "episode_opening", "episode_question", "episode_title", "episode_tools"
"""Columns that an episode's row has besides those of the row that it is about: what the world begins with as one text,
the row's question, what tells worlds apart that begin alike, and the schemas of the tools."""
OF_EPISODES = (OPENING, ASKED, TITLE, TOOLS)


def openings(task: EnvironmentTask, rows: Sequence[TaskRow] = ()) -> Iterator[RawRow]:
    """A row for each world, with what it begins with: for each of `rows`, or for each seed where there are none. Worlds
    that begin alike are told apart by their seeds.

    Raises DataError for a world that cannot be started, or a row with a column that only episodes have.
    """
    tasks = [_of_row(task, row) for row in rows] if rows else [_of_seed(seed) for seed in _seeds(task)]
    sources = [row.source for row in rows] or [f"{task.environment}:{one.seed}" for one in tasks]
    # A loop of its own, in a thread: the caller may have one that runs.
    with ThreadPoolExecutor(1) as thread:
        try:
            schemas, found = thread.submit(asyncio.run, _begun(task, tasks)).result()
        except WorldError as error:
            raise DataError(f"environment {task.environment!r}: {error}") from error
    alike = Counter(opening_text(messages) for messages in found)
    for source, one, messages in zip(sources, tasks, found, strict=True):
        text = opening_text(messages)
        columns: dict[str, object] = {
            **one.row,
            "question": [message.as_template_input() for message in messages],
            "ground_truth": one.ground_truth,
            "seed": one.seed,
            OPENING: text,
        }
        if one.question:
            columns[ASKED] = one.question
        if schemas:
            columns[TOOLS] = schemas
        if alike[text] > 1:
            columns[TITLE] = f"{text} (world {one.seed})"
        yield RawRow(source=source, columns=columns)


def task_of_row(row: Mapping[str, Any], ground_truth: str | None, *, sample_seed: int) -> Task:
    """What the world of a row is told, which is what it was told when its opening was made, but for `sample_seed`."""
    return Task(
        question=str(row.get(ASKED, "")),
        ground_truth=ground_truth,
        row={name: value for name, value in row.items() if name not in OF_EPISODES},
        seed=int(row["seed"]),
        sample_seed=sample_seed,
    )


def _seeds(task: EnvironmentTask) -> range:
    return range(task.data_seed, task.data_seed + task.size)


def _of_seed(seed: int) -> Task:
    return Task(question="", row={"seed": seed}, seed=seed, sample_seed=seed)


def _of_row(task: EnvironmentTask, row: TaskRow) -> Task:
    clash = sorted(set(OF_EPISODES).intersection(row.columns))
    if clash:
        raise DataError(f"{row.source}: column {clash[0]!r} has a name that episodes use themselves; rename it")
    columns = {name: value for name, value in row.columns.items() if name not in ("question", "ground_truth")}
    digest = hashlib.sha256(row.question_text.encode()).digest()
    seed = columns.get("seed", task.data_seed + int.from_bytes(digest[:4]))
    if not isinstance(seed, int) or seed < 0:
        raise DataError(f"{row.source}: column 'seed' is {seed!r}; a world's seed is a whole number from 0 on")
    return Task(
        question=row.question_text,
        ground_truth=row.ground_truth,
        row={**columns, "seed": seed},
        seed=seed,
        sample_seed=seed,
    )


async def _begun(
    task: EnvironmentTask, tasks: Sequence[Task]
) -> tuple[list[dict[str, Any]], list[tuple[Message, ...]]]:
    """Schemas of the tools, and the opening of each."""
    worlds = await asyncio.to_thread(
        WorldTemplate, task.environment, task.params, start_deadline_s=task.start_deadline_s
    )
    found: list[tuple[Message, ...]] = []
    try:
        for start in range(0, len(tasks), OPENINGS_AT_ONCE):
            some = tasks[start : start + OPENINGS_AT_ONCE]
            found += await worlds.openings(some, deadline_s=task.start_deadline_s)
    finally:
        worlds.close()
    return worlds.schemas, found
