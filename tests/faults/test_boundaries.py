"""What the controller checks and saves between two steps, in virtual time."""

from pathlib import Path

import pytest

from cluster.errors import LedgerError, RestartsExhaustedError
from cluster.ledger import LedgerState
from cluster.run_directory import RunDirectory, RunSummary
from cluster.run_state import read_run_state
from tests.faults import world as worlds
from tests.faults.schedules import Fault, Schedule
from tests.faults.virtual import in_virtual_time
from tests.faults.world import PROMPTS_PER_STEP, World, run_schedule

STEPS = 4


def run(folder: Path, *faults: Fault, max_policy_lag: int = 0) -> RunSummary:
    """Four steps with one actor of each kind, and no restarts."""
    schedule = Schedule(
        seed=0,
        faults=faults,
        steps=STEPS,
        num_samplers=1,
        num_learners=1,
        num_rewards=1,
        max_policy_lag=max_policy_lag,
        deterministic=False,
        max_restarts=0,
    )
    return in_virtual_time(lambda: run_schedule(World(schedule), folder, []))


def assert_prompts_are_told_once(folder: Path, num_checkpoints: int) -> int:
    """In each checkpoint the prompts up to the cursor were trained on or are kept; returns how many the last keeps."""
    consumed = {
        int(line["group_id"].split("-")[0]): line["step"]
        for line in RunDirectory(folder).read_log("ledger")
        if line.get("state") == "consumed"
    }
    checkpoints = sorted((folder / "checkpoints").glob("step-*"))
    assert len(checkpoints) == num_checkpoints
    kept: list[int] = []
    for path in checkpoints:
        state = read_run_state(path)
        trained = [index for index, step in consumed.items() if step < state.step]
        assert len(trained) == PROMPTS_PER_STEP * state.step
        kept = [group.group.prompt.index for group in state.scored] + [prompt.index for prompt in state.requeued]
        assert sorted(trained + kept) == list(range(state.stream.index))
    return len(kept)


@pytest.mark.parametrize("max_policy_lag", [0, 1])
def test_the_cursor_of_a_checkpoint_is_that_of_the_next_prompt(max_policy_lag, tmp_path):
    assert run(tmp_path, max_policy_lag=max_policy_lag).status == "finished"
    # Nothing was sampled that no step would have trained on.
    assert assert_prompts_are_told_once(tmp_path, num_checkpoints=2) == 0


def test_a_run_that_samples_ahead_and_ends_early_keeps_the_prompts_it_was_sampling(tmp_path):
    kill = Fault(actor="sampler-0", kind="kill", method="wait_group", nth=5)
    with pytest.raises(RestartsExhaustedError):
        run(tmp_path, kill, max_policy_lag=1)
    # Six slots, all of them in use, and no step was taken.
    assert assert_prompts_are_told_once(tmp_path, num_checkpoints=1) == 6


def test_a_run_whose_groups_do_not_add_up_ends_after_its_step(tmp_path, monkeypatch):
    monkeypatch.setattr(worlds, "LedgerState", lambda: LedgerState(dispatched=1))
    with pytest.raises(LedgerError, match="4 groups dispatched, 3 trained, 0 rejected, 0 in flight"):
        run(tmp_path)
    assert [line["step"] for line in RunDirectory(tmp_path).read_log("metrics")] == [0]
