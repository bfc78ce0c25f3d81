"""Rows of an environment: the opening of each of its worlds."""

import asyncio
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

from rollout.config import EnvironmentTask
from rollout.episodes.environment import Message, Task
from rollout.episodes.hosted import WorldTemplate
from rollout.episodes.runner import opening_text
from rollout.errors import DataError, WorldError
from rollout.prompts.raw_rows import RawRow


def openings(task: EnvironmentTask) -> Iterator[RawRow]:
    """A row for each seed: what its world begins with, and the seed. Worlds that begin alike are told apart by it.

    Raises DataError for a world that cannot be started.
    """
    seeds = range(task.data_seed, task.data_seed + task.size)
    # A loop of its own, in a thread: the caller may have one that runs.
    with ThreadPoolExecutor(1) as thread:
        try:
            found = thread.submit(asyncio.run, _begun(task, seeds)).result()
        except WorldError as error:
            raise DataError(f"environment {task.environment!r}: {error}") from error
    alike = Counter(opening_text(messages) for messages in found)
    for seed, messages in zip(seeds, found, strict=True):
        text = opening_text(messages)
        columns: dict[str, object] = {
            "question": [{"role": message.role, "content": message.content} for message in messages],
            "seed": seed,
            "opening": text,
        }
        if alike[text] > 1:
            columns["title"] = f"{text} (world {seed})"
        yield RawRow(source=f"{task.environment}:{seed}", columns=columns)


async def _begun(task: EnvironmentTask, seeds: range) -> list[tuple[Message, ...]]:
    worlds = await asyncio.to_thread(
        WorldTemplate, task.environment, task.params, start_deadline_s=task.start_deadline_s
    )
    try:
        if worlds.schemas:
            raise DataError(
                f"environment {task.environment!r} has tools, and they are not offered to the model yet; leave them out"
            )
        tasks = [Task(question="", row={"seed": seed}, seed=seed, sample_seed=seed) for seed in seeds]
        return await worlds.openings(tasks, deadline_s=task.start_deadline_s)
    finally:
        worlds.close()
