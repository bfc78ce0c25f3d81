"""A run of `tiny` with a reward for each step: what was trained on is what the recorded steps give by hand."""

import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from tests.integration import runs

pytestmark = pytest.mark.integration


def check_advantages(run: Path, step: int) -> int:
    """Compares the recorded advantages of a training step with its recorded steps; the number of those that are not 0.

    A completion's is that of its first token: the sum over its steps, each normalised over the steps of the group.
    """
    rows = pq.read_table(run / "rollouts" / f"step-{step:06d}.parquet").to_pylist()
    groups: dict[str, list[dict[str, object]]] = {}
    for row in rows:
        groups.setdefault(row["group_id"], []).append(row)
    num_nonzero = 0
    for group in groups.values():
        steps = [json.loads(str(row["steps"])) for row in group]
        rewards = [reward for of in steps for _, reward in of]
        for row, of in zip(group, steps, strict=True):
            ends = [end for end, _ in of]
            assert ends == sorted(ends)
            assert not ends or ends[-1] == len(row["token_ids"])  # type: ignore[arg-type]
            equal = len(set(rewards)) <= 1
            expected = 0.0 if equal else sum((r - np.mean(rewards)) / np.std(rewards, ddof=1) for _, r in of)
            assert row["advantage"] == pytest.approx(expected, abs=1e-12)
            num_nonzero += row["advantage"] != 0.0
    return num_nonzero


def test_steps_are_scored_recorded_and_trained_on(tmp_path: Path) -> None:
    words = ["objective=deepseekmath_process", "steps=2", "eval.at_start=false", "eval.at_end=false"]
    words += ["rollout.prompts_per_step=4", "reward.steps.function=tests.reward.step_functions:right_steps"]
    run = runs.train(tmp_path / "run", "tiny", *words)
    assert sum(check_advantages(run.path, step) for step in range(2)) > 0
    assert [line["train/skipped"] for line in runs.read_lines(run.path / "metrics.jsonl")] == [0, 0]
