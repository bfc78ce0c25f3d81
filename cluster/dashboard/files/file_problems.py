"""What is wrong with the files of a run as such: missing, torn, a link, not to be read. What their lines say is not
judged here. Looks at names and sizes alone, but for a file of which nothing could be read."""

import os
import stat
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from cluster.dashboard.files.tail import open_inside
from cluster.dashboard.records import Problem
from cluster.run_files import CHECKPOINTS, ROLLOUTS, Phase, log_name, table_name, table_of


class Tailed(Protocol):
    """An append-only file that is read as it grows."""

    @property
    def num_read(self) -> int | None:
        """Bytes of its whole lines; None while they are being read."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """What was read of a run's files."""

    logs: Mapping[str, Tailed]
    steps: Sequence[int]
    """Training steps that metrics.jsonl tells of."""
    evaluations: Sequence[int]
    tables: Collection[str]
    """Names of the files of rollouts that are there."""
    checkpoints: Sequence[Problem]
    """What is wrong with each."""


def file_problems(run: Path, seen: Seen, *, live: bool) -> list[Problem]:
    """Of a run's logs, tables and checkpoints."""
    steps, evaluations, tables = seen.steps, seen.evaluations, seen.tables
    phases = {table[0] for name in tables if (table := table_of(name)) is not None}
    trained = "train" in phases
    expected = {"metrics": trained, "events": trained or bool(steps), "ledger": trained or bool(steps)}
    expected["evaluations"] = "eval" in phases
    found = [
        log_problem(run / log_name(name), num_read=log.num_read, expected=expected[name], live=live)
        for name, log in seen.logs.items()
    ]
    return [
        *(problem for problem in (*found, folder_problem(run / CHECKPOINTS)) if problem is not None),
        *(() if live else seen.checkpoints),  # in a live run they are on their way, or being taken away
        *missing_tables(steps, evaluations, tables, live=live),
    ]


def source_of(problem: Problem) -> str:
    """Which of SOURCES the file is."""
    return problem.file.partition("/")[0].partition(".")[0]


def log_problem(path: Path, *, num_read: int | None, expected: bool, live: bool) -> Problem | None:
    """Of an append-only file; `expected`: the run has other files that are written about when its first line is."""
    try:
        status = os.lstat(path)
    except OSError:
        return Problem(file=path.name, message="is missing") if expected else None
    if num_read is None:
        return None
    why = unread(path, status.st_mode, size=status.st_size - num_read)
    if not why and expected and not status.st_size and not live:
        why = "is empty"
    # While the run goes on, its last line may be on its way.
    if not why and not live and status.st_size > num_read:
        why = f"ends within a line: its last {status.st_size - num_read} bytes are left out"
    return Problem(file=path.name, message=why) if why else None


def unread(path: Path, mode: int, *, size: int) -> str:
    """Why there is nothing of the file in the index; "" where it can be read. Tried only if `size` bytes are unread."""
    if stat.S_ISLNK(mode):
        return "is a link, which is not followed: it may lead out of the run"
    if not stat.S_ISREG(mode):
        return f"is a {'folder' if stat.S_ISDIR(mode) else 'special file'}, allowed: a file"
    if not size:
        return ""
    try:
        open_inside(path).close()
    except FileNotFoundError:
        return ""  # went away since it was listed
    except OSError as error:
        return f"cannot be read: {error.strerror or error}"
    return ""


def folder_problem(path: Path) -> Problem | None:
    """Of a folder of the run that is there and cannot be listed."""
    try:
        mode = os.lstat(path).st_mode
    except OSError:
        return None
    if stat.S_ISLNK(mode):
        return Problem(file=path.name, message="is a link, which is not followed: it may lead out of the run")
    if not stat.S_ISDIR(mode):
        return Problem(file=path.name, message="is a file, allowed: a folder")
    try:
        os.scandir(path).close()
    except FileNotFoundError:
        return None
    except OSError as error:
        return Problem(file=path.name, message=f"cannot be read: {error.strerror or error}")
    return None


def missing_tables(
    steps: Sequence[int], evaluations: Sequence[int], present: Collection[str], *, live: bool
) -> list[Problem]:
    """Tables of rollouts that the logs' steps had and that are not in `present`, the names of those that are there: the
    first of each phase, and how many more."""
    if live:
        evaluations = evaluations[:-1]  # the table of an evaluation is written after its line
    problems = []
    every: tuple[tuple[Phase, Sequence[int], str], ...] = (
        ("train", steps, log_name("metrics")),
        ("eval", evaluations, log_name("evaluations")),
    )
    for phase, all_steps, log in every:
        names = [name for step in all_steps if (name := table_name(phase, step)) not in present]
        if names:
            more = f", and so are {len(names) - 1} more that {log} tells of" if len(names) > 1 else ""
            problems.append(Problem(file=f"{ROLLOUTS}/{names[0]}", message="is missing" + more))
    return problems
