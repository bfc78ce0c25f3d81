"""Completions of a step as a table in Weights & Biases and trackio, by stand-ins of both."""

import asyncio
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from cluster.config import TrackerConfig
from cluster.configuration.loading import load_config
from cluster.record import trackers as trackers_module
from cluster.record.run_directory import RunDirectory
from cluster.record.run_record import RunRecord, TrainedStep
from cluster.record.tracker_tables import COLUMNS, MAX_CHARS, TrackerTable, tracker_table
from cluster.record.trackers import MAX_WAITING_FOR_TABLE, Trackers, check_trackers, start_trackers
from cluster.types import GroupCounts, StepTimings
from learner.types import StepOutput, TrainBatch
from rollout.errors import ConfigError
from rollout.prompts.stream import StreamFacts
from tests.cluster.examples import completion, failed, ok, opened, scored


def made(num_rows: int, text: str = "three") -> TrackerTable:
    groups = [opened(scored(i, [ok(1.0), failed()], [completion(0, text=text), completion(1)])) for i in range(2)]
    return tracker_table(7, groups, {(groups[0].group.group_id, 0): 0.5}, num_rows)


def test_a_row_has_what_the_step_has() -> None:
    table = made(3)
    rows = [dict(zip(COLUMNS, row, strict=True)) for row in table.rows]
    places = [(str(row["group_id"])[:6], row["sample_index"]) for row in rows]
    assert places == [("000000", 0), ("000000", 1), ("000001", 0)]
    assert rows[0] | {"group_id": ""} == {
        "step": 7,
        "group_id": "",
        "sample_index": 0,
        "question": "1 + 2",
        "completion": "three",
        "answer": None,
        "ground_truth": "3",
        "reward": 1.0,
        "correct": True,
        "advantage": 0.5,
        "finish": "stop",
        "tokens": 2,
    }
    assert (rows[1]["reward"], rows[1]["correct"], rows[1]["advantage"]) == (None, None, None)
    assert len(made(100).rows) == 4


def test_text_is_what_a_service_takes() -> None:
    cell = made(1, "\ud800" + "x" * MAX_CHARS).rows[0][COLUMNS.index("completion")]
    assert cell == "\\ud800" + "x" * (MAX_CHARS - 1) + " ... 1 more characters"


def test_both_services_get_the_table_at_its_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wandb_rows: list[tuple[int | None, dict[str, Any]]] = []
    trackio_rows: list[tuple[int, dict[str, Any]]] = []

    class Table:
        def __init__(self, *, columns: list[str], data: list[list[Any]], allow_mixed_types: bool) -> None:
            assert all(len(row) == len(columns) for row in data)
            self.columns, self.data = columns, data

    def log(metrics: dict[str, Any], step: int | None = None) -> None:
        wandb_rows.append((step, metrics))

    run = SimpleNamespace(step=0, define_metric=lambda *_, **__: None, log=log, finish=lambda: None)
    monkeypatch.setitem(sys.modules, "wandb", SimpleNamespace(init=lambda **_: run, Table=Table))
    trackio = SimpleNamespace(
        init=lambda **named: SimpleNamespace(name=named["name"]),
        log=lambda metrics, step: trackio_rows.append((step, metrics)),
        finish=lambda: None,
        Table=lambda dataframe: dataframe,
    )
    monkeypatch.setitem(sys.modules, "trackio", trackio)
    monkeypatch.setattr(trackers_module, "check_trackers", lambda _: None)
    config = load_config("tiny", ["trackers.wandb=true", "trackers.trackio=true", "trackers.rollouts=3"])
    warnings: list[str] = []
    trackers = start_trackers(config, tmp_path, warnings.append)
    trackers.table(made(3))
    trackers.log(7, {"reward/mean": 0.5})
    trackers.close()
    assert warnings == []
    (count, shown), (metrics_count, metrics) = wandb_rows
    assert (count, shown["step"]) == (15, 7)  # 2 s + 1, as the step's metrics
    assert (metrics_count, metrics["reward/mean"]) == (15, 0.5)
    assert (shown["rollouts"].columns, len(shown["rollouts"].data)) == (list(COLUMNS), 3)
    (step, sent), (_, _) = trackio_rows
    assert (step, list(sent["rollouts"].columns)) == (7, list(COLUMNS))
    assert sent["rollouts"]["reward"].tolist() == [1.0, None, 1.0]


def test_a_step_on_record_sends_its_table_before_its_metrics(tmp_path: Path) -> None:
    calls: list[tuple[str, int, int]] = []
    trackers = SimpleNamespace(
        table=lambda table: calls.append(("table", table.step, len(table.rows))),
        log=lambda step, metrics: calls.append(("log", step, len(metrics) > 0)),
    )
    reporter = SimpleNamespace(step=lambda view: None)
    group = scored(0, [ok(1.0), ok(0.0)])
    batch = TrainBatch(step=4, policy_version=4, groups=(group,))
    keys = {(group.group_id, 0): 0.5, (group.group_id, 1): -0.5}
    output = StepOutput(step=4, policy_version=5, skipped=False, bad_steps_in_a_row=0, metrics={"loss": 0.0})
    counts = GroupCounts(dispatched=1, trained=1, in_flight=0)
    timings = StepTimings(step_s=1.0, generate_s=1.0, score_s=1.0, train_s=1.0, sync_s=1.0)
    trained = TrainedStep(batch=batch, groups=(opened(group).group,), advantages=keys, outputs=(output,), tokens=())
    for rollouts in (0, 1):
        config = load_config("tiny", ["trackers.wandb=true", f"trackers.rollouts={rollouts}"])
        run = RunDirectory.create(tmp_path / str(rollouts), config)
        record = RunRecord(config, run, cast(Any, reporter), cast(Any, trackers))
        asyncio.run(record.step(trained, [], counts, timings, StreamFacts(tasks=("sums",))))
    assert calls == [("log", 4, True), ("table", 4, 1), ("log", 4, True)]


def test_a_tracker_that_is_behind_gets_its_metrics_and_no_table() -> None:
    release = threading.Event()
    got: list[object] = []

    class Slow:
        note: str | None = None

        def log(self, step: int, metrics: Mapping[str, float]) -> None:
            release.wait(30)
            got.append(step)

        def table(self, table: TrackerTable) -> None:
            got.append("table")

        def close(self) -> None: ...

    warnings: list[str] = []
    trackers = Trackers({"slow": Slow}, warnings.append)
    for step in range(MAX_WAITING_FOR_TABLE + 2):
        trackers.log(step, {"a": 1.0})
    trackers.table(made(1))
    release.set()
    trackers.close()
    assert got == list(range(MAX_WAITING_FOR_TABLE + 2))
    assert warnings == []


def test_a_table_that_nobody_takes_is_refused_before_the_run() -> None:
    with pytest.raises(
        ConfigError, match=r"trackers\.rollouts is 16, and only Weights & Biases and trackio have tables"
    ):
        check_trackers(TrackerConfig(rollouts=16))
    check_trackers(TrackerConfig())
