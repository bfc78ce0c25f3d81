"""Rewards that hang are killed at their deadline, counted as `timeout`, and the run completes."""

from pathlib import Path

import pyarrow.parquet as pq
import pytest

from tests.integration import runs

pytestmark = pytest.mark.integration

TIMEOUT_S = 1.0


def test_run_completes_with_timeouts_counted(tmp_path: Path) -> None:
    functions = 'reward.functions=[{function: "tests.integration.hanging_reward:score"}]'
    run = runs.train(tmp_path / "run", "tiny", *runs.SHORT, functions, f"reward.timeout_s={TIMEOUT_S}")
    metrics = runs.read_lines(run.path / "metrics.jsonl")
    assert len(metrics) == 7
    assert max(line["reward/score_s_max"] for line in metrics) < TIMEOUT_S + 0.5
    rows = [row for path in (run.path / "rollouts").glob("*.parquet") for row in pq.read_table(path).to_pylist()]
    timeouts = [row for row in rows if row["outcome"] == "timeout"]
    assert timeouts, "the function hangs for one completion in twenty"
    assert {row["outcome"] for row in rows} == {"ok", "timeout"}
    assert all(row["reward"] is None for row in timeouts)
    assert all(row["advantage"] is None for row in timeouts)
    assert run.left_behind() == []
