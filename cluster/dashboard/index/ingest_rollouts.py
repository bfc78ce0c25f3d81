"""Puts a rollouts file into the index, and takes it out again."""

import json
import sqlite3
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cluster.dashboard.files.rollout_file import RolloutFile
from cluster.dashboard.index.schema import FILE_SHIFT

MAX_COMPONENTS = 32
"""Names of reward components in a file that can be filtered by; a foreign file could have one for each row."""
_ABSENT = -1


@dataclass(frozen=True, slots=True, kw_only=True)
class FileKey:
    """A rollouts file and the state in which it was seen."""

    phase: str
    step: int
    name: str
    """For example "step-000004.parquet"."""
    inode: int
    size: int
    mtime_ns: int

    @property
    def state(self) -> tuple[int, int, int]:
        """Another where the file is another."""
        return self.inode, self.size, self.mtime_ns


def remove_file(connection: sqlite3.Connection, name: str) -> None:
    """Takes out everything that came from a file."""
    found = connection.execute("select id from files where name = ?", (name,)).fetchone()
    if found is None:
        return
    first, end = found[0] << FILE_SHIFT, (found[0] + 1) << FILE_SHIFT
    connection.execute("delete from rows where id >= ? and id < ?", (first, end))
    connection.execute("delete from groups where id >= ? and id < ?", (first, end))
    connection.execute("delete from chunks where file = ?", found)
    connection.execute("delete from texts where file = ?", found)
    connection.execute("delete from files where id = ?", found)


def insert_problem(connection: sqlite3.Connection, key: FileKey, problem: str) -> None:
    """Notes that a file cannot be read, so that it is tried again only when it changes."""
    _insert_file(connection, key, 0, 0, problem)


def insert_file(connection: sqlite3.Connection, key: FileKey, content: RolloutFile, *, version: int) -> None:
    """`version` is that of the weights that the step started from."""
    file_id = _insert_file(connection, key, len(content.row), content.num_groups, "")
    groups = _Groups(content)
    lag = _lag(key, content, version)
    _insert_rows(connection, file_id, content, lag)
    _insert_groups(connection, file_id, key, content, groups)
    chunks = _columns(content, groups, lag) | _word_columns(connection, content)
    connection.executemany(
        "insert into chunks (file, name, data) values (?, ?, ?)",
        [(file_id, name, array.tobytes()) for name, array in chunks.items()],
    )
    connection.executemany(
        "insert into texts (file, positions, offsets, data) values (?, ?, ?, ?)",
        [(file_id, part.positions.tobytes(), part.offsets.tobytes(), part.data) for part in content.texts],
    )


class _Groups:
    """Sums over the rows of each group; all arrays are [number of groups]."""

    def __init__(self, content: RolloutFile) -> None:
        self.size = content.num_groups
        self._group = content.group
        scalars = content.scalars
        reward = floats(scalars["reward"])
        correct = floats(scalars["correct"])
        scored, judged = np.isfinite(reward), np.isfinite(correct)
        self.num_rows = self._count(np.ones(len(reward), dtype=bool))
        self.num_scored = self._count(scored)
        self.num_judged = self._count(judged)
        self.num_correct = self._count(correct == 1)
        self.reward_sum = np.bincount(content.group[scored], weights=reward[scored], minlength=self.size)
        self.trained = self._count(np.isfinite(floats(scalars["advantage"]))) > 0
        with np.errstate(invalid="ignore"):
            self.pass_rate = self.num_correct / self.num_judged
            mean = self.reward_sum / self.num_scored
            spread = np.bincount(
                content.group[scored], weights=(reward - mean[content.group])[scored] ** 2, minlength=self.size
            )
            self.reward_std = np.sqrt(spread / self.num_scored)
        attempt = np.array([value or 0 for value in scalars["attempt"]], dtype=np.int64)
        self.first = np.unique(content.group, return_index=True)[1]
        self.mixed_attempts = self._count(attempt != attempt[self.first][content.group]) > 0

    def _count(self, flags: NDArray[np.bool_]) -> NDArray[np.int64]:
        return np.bincount(self._group[flags], minlength=self.size)


def _insert_file(connection: sqlite3.Connection, key: FileKey, num_rows: int, num_groups: int, problem: str) -> int:
    cursor = connection.execute(
        "insert into files (phase, step, name, inode, size, mtime_ns, num_rows, num_groups, problem)"
        " values (?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (key.phase, key.step, key.name, key.inode, key.size, key.mtime_ns, num_rows, num_groups, problem),
    )
    assert cursor.lastrowid is not None
    return cursor.lastrowid


def _insert_rows(connection: sqlite3.Connection, file_id: int, content: RolloutFile, lag: NDArray[Any]) -> None:
    scalars, features = content.scalars, content.features
    first = file_id << FILE_SHIFT
    connection.executemany(
        f"insert into rows values ({', '.join('?' * 21)})",
        zip(
            range(first, first + len(content.row)),
            content.row.tolist(),
            content.group.tolist(),
            (sample or 0 for sample in scalars["sample_index"]),
            _numbers(floats(scalars["reward"])),
            _json_texts(content.components),
            _numbers(floats(scalars["advantage"])),
            scalars["correct"],
            (outcome or "" for outcome in scalars["outcome"]),
            (finish or "" for finish in scalars["finish_reason"]),
            features["length"].astype(np.int64).tolist(),
            _numbers(features["entropy"]),
            _numbers(features["max_gap"]),
            _numbers(features["k3"]),
            features["repetition"].tolist(),
            _whole_numbers(lag),
            content.answers,
            content.previews,
            _whole_numbers(features["turns"]),
            _whole_numbers(features["tool_calls"]),
            content.episode_outcomes,
            strict=True,
        ),
    )


def _insert_groups(
    connection: sqlite3.Connection, file_id: int, key: FileKey, content: RolloutFile, groups: _Groups
) -> None:
    scalars = content.scalars
    first_id = file_id << FILE_SHIFT
    connection.executemany(
        f"insert into groups values ({', '.join('?' * 18)})",
        [
            (
                first_id + number,
                key.phase,
                key.step,
                scalars["group_id"][row] or "",
                scalars["uid"][row] or "",
                scalars["epoch"][row] or 0,
                scalars["task"][row] or "",
                scalars["worker"][row] or "",
                scalars["attempt"][row] or 0,
                int(groups.mixed_attempts[number]),
                scalars["question"][row] or "",
                scalars["ground_truth"][row],
                int(groups.trained[number]),
                int(groups.num_rows[number]),
                int(groups.num_scored[number]),
                int(groups.num_judged[number]),
                int(groups.num_correct[number]),
                float(groups.reward_sum[number]),
            )
            for number, row in enumerate(groups.first.tolist())
        ],
    )


def _lag(key: FileKey, content: RolloutFile, version: int) -> NDArray[np.float64]:
    """[N] versions between sampling and training; NaN for an evaluation."""
    if key.phase == "eval":
        return np.full(len(content.row), np.nan)
    return version - floats(content.scalars["min_policy_version"])


def _columns(content: RolloutFile, groups: _Groups, lag: NDArray[Any]) -> dict[str, NDArray[Any]]:
    scalars = content.scalars
    names = dict.fromkeys(name for components in content.components for name in components)
    columns: dict[str, NDArray[Any]] = {
        name: values.astype(np.float32)
        for name, values in {
            **content.features,
            "reward": floats(scalars["reward"]),
            "advantage": floats(scalars["advantage"]),
            "correct": floats(scalars["correct"]),
            "lag": lag,
            "epoch": floats(scalars["epoch"]),
            "sample": floats(scalars["sample_index"]),
            "pass_rate": groups.pass_rate[content.group],
            "reward_std": groups.reward_std[content.group],
            "disagreed": _disagreed(content).astype(np.float64),
            **{
                f"reward.{name}": floats([c.get(name) for c in content.components])
                for name in list(names)[:MAX_COMPONENTS]
            },
        }.items()
    }
    columns["group"] = content.group.astype(np.int32)
    return columns


def _word_columns(connection: sqlite3.Connection, content: RolloutFile) -> dict[str, NDArray[Any]]:
    """outcome, finish, answer and the end of an episode as numbers of `words`; -1 is absent."""
    lists = {
        "outcome": content.scalars["outcome"],
        "finish": content.scalars["finish_reason"],
        "answer": content.answers,
        "episode_outcome": content.episode_outcomes,
    }
    distinct = {value for values in lists.values() for value in values if value is not None}
    connection.executemany("insert or ignore into words (value) values (?)", [(value,) for value in sorted(distinct)])
    number = {
        value: connection.execute("select id from words where value = ?", (value,)).fetchone()[0] for value in distinct
    }
    return {
        name: np.array([_ABSENT if value is None else number[value] for value in values], dtype=np.int32)
        for name, values in lists.items()
    }


def _json_texts(components: Sequence[dict[str, float]]) -> list[str]:
    """Equal ones are one object, so each of them is written once."""
    texts = {id(values): json.dumps(values) for values in {id(values): values for values in components}.values()}
    return [texts[id(values)] for values in components]


def _disagreed(content: RolloutFile) -> NDArray[np.bool_]:
    """[N] whether another completion of the group gave the same answer and got another reward."""
    rewards: dict[tuple[int, str], set[float]] = {}
    keys = list(zip(content.group.tolist(), content.answers, strict=True))
    for (group, answer), reward in zip(keys, content.scalars["reward"], strict=True):
        if answer is not None and reward is not None:
            rewards.setdefault((group, answer), set()).add(round(reward, 6))
    return np.array([answer is not None and len(rewards.get((group, answer), ())) > 1 for group, answer in keys], bool)


def floats(values: Sequence[float | bool | None]) -> NDArray[np.float64]:
    """NaN for None and for what is not finite."""
    array = np.array([np.nan if value is None else value for value in values], dtype=np.float64)
    array[~np.isfinite(array)] = np.nan
    return array


def _numbers(array: NDArray[np.float64]) -> Iterable[float | None]:
    return [value if value == value else None for value in array.tolist()]


def _whole_numbers(array: NDArray[np.float64]) -> Iterable[int | None]:
    return (None if value is None else int(value) for value in _numbers(array))
