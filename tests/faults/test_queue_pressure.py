"""A learner, then a sampler, that is ten times slower for a while: what waits stays within its bound, and passes."""

from pathlib import Path

import pytest

from tests.faults import faults
from tests.faults.faults import Faults
from tests.faults.program import SLOW_STEP_S, SLOW_TRAINING_S, SLOW_TRAINING_STEPS
from tests.faults.test_sync_faults import AHEAD
from tests.integration import runs

pytestmark = pytest.mark.faults

P, LAG, STEPS = 2, 1, 12


def test_slow_stages_are_waited_for_within_the_bound_on_lag(tmp_path: Path) -> None:
    path = tmp_path / "run"
    slow_learner = Faults.at("learner", step=2, event="training").do("slow")
    slow_sampler = Faults.at("sampler", 0, step=8, event="idle").do("slow")
    run = faults.start(path, [slow_learner, slow_sampler], "tiny", *AHEAD, f"steps={STEPS}")
    assert run.wait() == 0, run.output()
    assert [one["action"] for one in faults.all_struck(path)] == ["slow", "slow"]
    faults.assert_exactly_once(path, num_groups=STEPS * P)
    assert not faults.states(path, "sampler-0"), "slow is not broken"

    metrics = runs.read_lines(path / "metrics.jsonl")
    slow_steps = [line["step"] for line in metrics if line["time/train_s"] >= SLOW_TRAINING_S]
    assert slow_steps == [3, 4, 5][:SLOW_TRAINING_STEPS]
    # The bound: (k + 1) * P groups outside a training step, whoever is slow; and nothing older than k versions.
    assert max(line["groups/in_flight"] for line in metrics) <= (LAG + 1) * P
    assert max(line["lag/max"] for line in metrics) == LAG
    # Behind the slow learner sampling was ahead: it waited for a slot, the learner never for groups.
    assert all(metrics[step]["time/wait_s"] < 0.5 for step in slow_steps[1:])
    # The slow sampler's groups were waited for (before a weight sync, which drains), and then nobody waited any more.
    steps_s = [line["time/step_s"] for line in metrics[8:]]
    assert max(steps_s) > 2 * SLOW_STEP_S  # a completion takes several steps of its engine
    assert steps_s[-1] < max(steps_s) / 2
    assert run.left_behind() == []
