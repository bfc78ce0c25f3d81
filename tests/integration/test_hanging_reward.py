"""Rewards that hang are killed at their deadline, counted as `timeout`, and the run completes. The function is a
user's, in a folder with files that are named like packages of ours, of Python's and of others."""

from pathlib import Path

import pyarrow.parquet as pq
import pytest

from tests.integration import runs

pytestmark = pytest.mark.integration

TIMEOUT_S = 1.0


SHADOWING = ("rollout", "reward", "learner", "cluster", "types", "json", "random", "code", "torch", "datasets", "numpy")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where a user starts: with a reward function that hangs, and files that no process may load."""
    here = tmp_path / "theirs"
    here.mkdir()
    for name in SHADOWING:
        (here / f"{name}.py").write_text(f"raise RuntimeError('{name}.py of the user was loaded')\n")
    (here / "my_reward.py").write_text((Path(__file__).parent / "hanging_reward.py").read_text())
    return here


def test_run_completes_with_timeouts_counted(tmp_path: Path, folder: Path) -> None:
    words = ('reward.functions=[{function: "my_reward:score"}]', f"reward.timeout_s={TIMEOUT_S}")
    run = runs.train(tmp_path / "run", "tiny", *runs.SHORT, *words, folder=folder)
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
