"""The checker finds what it is for: a run in order is altered in one place, and the violation is named."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet
import pytest

from cluster.config import RunConfig
from tests.faults.checker import check_run
from tests.faults.running import run_schedule
from tests.faults.schedules import Schedule
from tests.faults.virtual import in_virtual_time
from tests.faults.world import World, config_of

SCHEDULE = Schedule(
    seed=1,
    faults=(),
    steps=2,
    num_samplers=2,
    num_learners=1,
    num_rewards=1,
    max_policy_lag=1,
    deterministic=False,
    max_restarts=0,
)
Lines = list[dict[str, Any]]


@pytest.fixture
def run(tmp_path: Path) -> tuple[Path, World, RunConfig]:
    world = World(SCHEDULE)
    in_virtual_time(lambda: run_schedule(world, tmp_path / "run", []))
    return tmp_path / "run", world, config_of(SCHEDULE)


def alter_log(run: Path, name: str, change: Callable[[Lines], Lines]) -> None:
    path = run / f"{name}.jsonl"
    lines = change([json.loads(line) for line in path.read_text().splitlines()])
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))


def alter_rows(run: Path, change: Callable[[Lines], Lines], step: int = 1) -> None:
    path = run / "rollouts" / f"step-{step:06d}.parquet"
    table = pyarrow.parquet.read_table(path)
    rows = pyarrow.Table.from_pylist(change(table.to_pylist()), schema=table.schema)
    pyarrow.parquet.write_table(rows, path)


def with_first(rows: Lines, **columns: Any) -> Lines:
    return [{**rows[0], **columns}, *rows[1:]]


def consumed_twice(lines: Lines) -> Lines:
    return lines + [line for line in lines if line.get("state") == "consumed"][:1]


def never_consumed(lines: Lines) -> Lines:
    gone = next(line for line in lines if line.get("state") == "consumed")
    return [line for line in lines if line is not gone]


def of_a_late_attempt(lines: Lines) -> Lines:
    return [{**line, "attempt": 2} if line.get("state") == "sampled" else line for line in lines]


def uncommitted(lines: Lines) -> Lines:
    return [line for line in lines if line.get("event") != "committed"]


def unsynced(lines: Lines) -> Lines:
    return [line for line in lines if not (line["kind"] == "sync" and line["extra"]["policy_version"] == 0)]


def backwards(lines: Lines) -> Lines:
    syncs = [line for line in lines if line["kind"] == "sync"]
    return [*lines, syncs[0]]


def test_a_run_in_order_has_no_violations(run: tuple[Path, World, RunConfig]) -> None:
    path, world, config = run
    assert check_run(path, config=config, sampled=world.sampled) == []
    assert len(world.sampled) == 6


@pytest.mark.parametrize(
    ("name", "change", "found"),
    [
        ("ledger", consumed_twice, "I1: .* became consumed while it was consumed"),
        ("ledger", never_consumed, "I1: step 0 has rollouts of"),
        ("ledger", of_a_late_attempt, "I2: .* became sampled by attempt 2, expected 1"),
        ("ledger", uncommitted, r"I1: finished, but no checkpoint holds step 2: \[\]"),
        ("events", unsynced, "I5: sampler-. sampled .* from version 0, unsynced"),
        ("events", backwards, "I5: sampler-. went from version . back to 0"),
    ],
)
def test_an_altered_log_is_found(
    run: tuple[Path, World, RunConfig], name: str, change: Callable[..., Any], found: Any
) -> None:
    path, world, config = run
    alter_log(path, name, change)
    with pytest.raises(AssertionError, match=found):
        raise AssertionError("; ".join(check_run(path, config=config, sampled=world.sampled)))


@pytest.mark.parametrize(
    ("change", "found"),
    [
        (lambda rows: rows[1:], r"I2: .* has samples \[1\]"),
        (lambda rows: with_first(rows, attempt=2), "I2: .* is of attempt 2"),
        (lambda rows: with_first(rows, reward=None), "I2: .* has outcome ok and reward None"),
        (lambda rows: with_first(rows, token_ids=[1, 2, 3]), "I3: .* was trained on other tokens than were sampled"),
        (lambda rows: with_first(rows, min_policy_version=-1), "I4: .* has lag 2"),
        (lambda rows: with_first(rows, max_policy_version=9), "I5: .* mixes versions"),
    ],
)
def test_an_altered_table_is_found(run: tuple[Path, World, RunConfig], change: Callable[..., Any], found: Any) -> None:
    path, world, config = run
    alter_rows(path, change)
    with pytest.raises(AssertionError, match=found):
        raise AssertionError("; ".join(check_run(path, config=config, sampled=world.sampled)))


def test_sums_and_leftovers_are_found(run: tuple[Path, World, RunConfig]) -> None:
    path, _, config = run
    summary = json.loads((path / "summary.json").read_text())
    (path / "summary.json").write_text(json.dumps({**summary, "groups_dispatched": 99}))
    (path / "checkpoints" / ".unfinished-step-00000009").mkdir()
    problems = check_run(path, config=config)
    assert [problem.split(":")[0] for problem in problems] == ["I6", "I6", "I7"]
