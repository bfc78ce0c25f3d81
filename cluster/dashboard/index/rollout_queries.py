"""What is asked of the rollouts in the index: rows of a step or a page, groups and their neighbours, prompts."""

import json
import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from cluster.dashboard.index.schema import FILE_SHIFT
from cluster.dashboard.records import GroupAddress, PromptStats, PromptVisit, RolloutRow
from cluster.run_files import Phase

_QUESTION_CHARS = 120
_ROW = (
    "select g.phase, g.step, g.group_id, r.sample_index, g.uid, g.epoch, r.reward, r.components, r.advantage,"
    " r.correct, r.outcome, r.finish, r.length, r.entropy, r.max_gap, r.k3, r.repetition, r.lag, g.worker, r.answer,"
    f" g.truth, substr(g.question, 1, {_QUESTION_CHARS}), r.turns, r.tool_calls, r.episode_outcome, r.preview"
    " from rows as r"
    f" join groups as g on g.id = (r.id >> {FILE_SHIFT} << {FILE_SHIFT}) + r.grp"
)
_PLACED = _ROW.replace("r.preview", "r.preview, r.row, f.name") + f" join files as f on f.id = (r.id >> {FILE_SHIFT})"
_STATS = (
    "select uid, count(*), sum(num_scored),"
    " case when sum(num_judged) then cast(sum(num_correct) as real) / sum(num_judged) end as pass_rate,"
    " case when sum(num_scored) then sum(reward_sum) / sum(num_scored) end as mean_reward"
    " from groups where phase = 'train'"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class PlacedRow:
    """A row of the index, and where it came from."""

    row: RolloutRow
    place: int
    """In its file, from 0."""
    file: str
    """For example "step-000004.parquet"."""


def table_steps(connection: sqlite3.Connection, phase: str) -> list[int]:
    """Steps whose rollouts are in the index, in order."""
    rows = connection.execute(
        "select distinct step from files where phase = ? and num_rows > 0 order by step", (phase,)
    )
    return [step for (step,) in rows]


def table_stamps(connection: sqlite3.Connection, phase: str) -> dict[int, tuple[int, int]]:
    """Step -> (id of its file, time at which it was written), in order; an index that is made anew has ids anew."""
    rows = connection.execute(
        "select step, id, mtime_ns from files where phase = ? and num_rows > 0 order by step", (phase,)
    )
    return {step: (id_, mtime_ns) for step, id_, mtime_ns in rows}


def step_rows(connection: sqlite3.Connection, phase: str, step: int) -> list[RolloutRow]:
    """Groups in order of dispatch, samples in order; empty where there is no such step."""
    found = _file(connection, phase, step)
    if found is None:
        return []
    return [row_of(row) for row in connection.execute(f"{_ROW} where r.id >= ? and r.id < ? order by r.id", found)]


def rows_by_id(connection: sqlite3.Connection, ids: Sequence[int]) -> list[RolloutRow]:
    """In the order of `ids`; those that are gone are left out."""
    rows = (connection.execute(f"{_ROW} where r.id = ?", (id_,)).fetchone() for id_ in ids)
    return [row_of(row) for row in rows if row is not None]


def placed_rows(connection: sqlite3.Connection, ids: Sequence[int]) -> list[PlacedRow]:
    """In the order of `ids`, with where each stands; those that are gone are left out."""
    statement = f"{_PLACED} where r.id = ?"
    rows = (connection.execute(statement, (id_,)).fetchone() for id_ in ids)
    return [PlacedRow(row=row_of(row[:-2]), place=row[-2], file=row[-1]) for row in rows if row is not None]


def group_rows(connection: sqlite3.Connection, address: GroupAddress) -> tuple[list[RolloutRow], list[int], str]:
    """(its rows, where each stands in the file, the file's name); empty where there is no such group."""
    group = _group_id(connection, address)
    if group is None:
        return [], [], ""
    file, number = group >> FILE_SHIFT, group & ((1 << FILE_SHIFT) - 1)
    rows = connection.execute(
        f"{_PLACED} where r.id >= ? and r.id < ? and r.grp = ? order by r.id",
        (file << FILE_SHIFT, (file + 1) << FILE_SHIFT, number),
    ).fetchall()
    return [row_of(row[:-2]) for row in rows], [row[-2] for row in rows], rows[0][-1] if rows else ""


def groups_of_rows(connection: sqlite3.Connection, ids: Sequence[int]) -> list[list[RolloutRow]]:
    """The whole group of each row with one of the `ids`; empty for one that is gone."""
    found: list[list[RolloutRow]] = []
    for id_ in ids:
        row = connection.execute(f"{_ROW} where r.id = ?", (id_,)).fetchone()
        found.append([] if row is None else group_rows(connection, row_of(row).address)[0])
    return found


def neighbours(
    connection: sqlite3.Connection, address: GroupAddress
) -> tuple[GroupAddress | None, GroupAddress | None]:
    """The groups before and after it in order of dispatch, of the same phase."""
    group = _group_id(connection, address)
    if group is None:
        return None, None
    file = group >> FILE_SHIFT
    one = "select phase, step, group_id from groups where id = ?"
    before = connection.execute(one, (group - 1,)).fetchone() if group & ((1 << FILE_SHIFT) - 1) else None
    after = connection.execute(one, (group + 1,)).fetchone() if (group + 1) >> FILE_SHIFT == file else None
    if before is None:
        before = _edge(connection, address, "<", "desc")
    if after is None:
        after = _edge(connection, address, ">", "asc")
    return _address(before), _address(after)


def find_groups(connection: sqlite3.Connection, ids: Sequence[str]) -> list[GroupAddress]:
    """In the order of `ids`; a group that is in more than one table comes as often."""
    found = []
    for group_id in ids:
        rows = connection.execute(
            "select phase, step, group_id from groups where group_id = ? order by step, id", (group_id,)
        )
        found += [address for row in rows if (address := _address(row)) is not None]
    return found


def prompt_table(connection: sqlite3.Connection) -> list[tuple[Any, ...]]:
    """(uid, groups, scored, pass rate, mean reward) of every prompt that was trained on, hardest first."""
    return connection.execute(
        f"{_STATS} group by uid order by pass_rate is null, pass_rate, mean_reward, uid"
    ).fetchall()


def prompt_stat(connection: sqlite3.Connection, uid: str) -> PromptStats | None:
    """None for a prompt that was not trained on."""
    row = connection.execute(f"{_STATS} and uid = ? group by uid", (uid,)).fetchone()
    return None if row is None else prompt_stats_of(connection, row)


def prompt_stats_of(connection: sqlite3.Connection, row: tuple[Any, ...]) -> PromptStats:
    """The record of a line of `prompt_table`."""
    last = connection.execute(
        "select phase, step, group_id, substr(question, 1, 120) from groups where uid = ? and phase = 'train'"
        " order by step desc, id desc limit 1",
        (row[0],),
    ).fetchone()
    address = _address(last) or GroupAddress(phase="train", step=0, group_id="")
    return PromptStats(
        uid=row[0],
        question=last[3] if last is not None else "",
        num_groups=row[1],
        num_scored=row[2],
        pass_rate=row[3],
        mean_reward=row[4],
        last=address,
    )


def prompt_history(connection: sqlite3.Connection, uid: str) -> list[PromptVisit]:
    """Every group of the prompt, in training and in evaluations, by step."""
    rows = connection.execute(
        "select phase, step, group_id, epoch, case when num_judged then cast(num_correct as real) / num_judged end,"
        " case when num_scored then reward_sum / num_scored end from groups where uid = ?"
        " order by step, phase = 'train', id",
        (uid,),
    )
    return [
        PromptVisit(
            address=GroupAddress(phase=phase, step=step, group_id=group_id),
            epoch=epoch,
            pass_rate=pass_rate,
            mean_reward=reward,
        )
        for phase, step, group_id, epoch, pass_rate, reward in rows
    ]


def row_of(values: Sequence[Any]) -> RolloutRow:
    """The record of a line of `_ROW`."""
    phase: Phase = values[0]
    return RolloutRow(
        phase=phase,
        step=values[1],
        group_id=values[2],
        sample_index=values[3],
        uid=values[4],
        epoch=values[5],
        reward=values[6],
        components=json.loads(values[7]),
        advantage=values[8],
        correct=None if values[9] is None else bool(values[9]),
        outcome=values[10],
        finish=values[11],
        length=values[12],
        entropy=values[13],
        max_gap=values[14],
        k3=values[15],
        repetition=values[16],
        lag=values[17],
        worker=values[18],
        answer=values[19],
        truth=values[20],
        question=values[21],
        turns=values[22],
        tool_calls=values[23],
        episode_outcome=values[24],
        preview=values[25],
    )


def _file(connection: sqlite3.Connection, phase: str, step: int) -> tuple[int, int] | None:
    """Bounds of the ids of a file's rows and groups."""
    found = connection.execute(
        "select id from files where phase = ? and step = ? and num_rows > 0", (phase, step)
    ).fetchone()
    return None if found is None else (found[0] << FILE_SHIFT, (found[0] + 1) << FILE_SHIFT)


def _group_id(connection: sqlite3.Connection, address: GroupAddress) -> int | None:
    found = connection.execute(
        "select id from groups where group_id = ? and phase = ? and step = ?",
        (address.group_id, address.phase, address.step),
    ).fetchone()
    return None if found is None else found[0]


def _edge(
    connection: sqlite3.Connection, address: GroupAddress, sign: Literal["<", ">"], order: Literal["asc", "desc"]
) -> tuple[Any, ...] | None:
    """The last group of the step before, or the first one of the step after."""
    found = connection.execute(
        f"select step from files where phase = ? and step {sign} ? and num_rows > 0 order by step {order} limit 1",
        (address.phase, address.step),
    ).fetchone()
    bounds = None if found is None else _file(connection, address.phase, found[0])
    if bounds is None:
        return None
    edge: tuple[Any, ...] | None = connection.execute(
        f"select phase, step, group_id from groups where id >= ? and id < ? order by id {order} limit 1", bounds
    ).fetchone()
    return edge


def _address(row: Sequence[Any] | None) -> GroupAddress | None:
    return None if row is None else GroupAddress(phase=row[0], step=row[1], group_id=row[2])
