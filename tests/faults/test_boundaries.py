"""What the controller checks and saves between two steps, in virtual time."""

import errno
import itertools
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cluster.config import RecoveryConfig
from cluster.errors import LedgerError, RestartsExhaustedError, UnsavedError
from cluster.groups.ledger import LedgerState
from cluster.record.append_log import RunWriteError
from cluster.record.run_directory import RunDirectory
from cluster.types import RunSummary
from cluster.weights import checkpointing
from cluster.weights.run_state import read_run_state
from learner.saving import files
from tests.faults import running
from tests.faults.running import run_schedule
from tests.faults.schedules import Fault, Schedule
from tests.faults.virtual import in_virtual_time
from tests.faults.world import PROMPTS_PER_STEP, World

STEPS = 4


def run(folder: Path, *faults: Fault, max_policy_lag: int = 0, max_restarts: int = 0) -> RunSummary:
    """Four steps with one actor of each kind."""
    schedule = Schedule(
        seed=0,
        faults=faults,
        steps=STEPS,
        num_samplers=1,
        num_learners=1,
        num_rewards=1,
        max_policy_lag=max_policy_lag,
        deterministic=False,
        max_restarts=max_restarts,
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
def test_the_cursor_of_a_checkpoint_is_that_of_the_next_prompt(max_policy_lag: int, tmp_path: Path) -> None:
    assert run(tmp_path, max_policy_lag=max_policy_lag).status == "finished"
    # Nothing was sampled that no step would have trained on.
    assert assert_prompts_are_told_once(tmp_path, num_checkpoints=2) == 0


def test_a_run_that_samples_ahead_and_ends_early_keeps_the_prompts_it_was_sampling(tmp_path: Path) -> None:
    kill = Fault(actor="sampler-0", kind="kill", method="wait_group", nth=5)
    with pytest.raises(RestartsExhaustedError):
        run(tmp_path, kill, max_policy_lag=1)
    # Six slots, all of them in use, and no step was taken.
    assert assert_prompts_are_told_once(tmp_path, num_checkpoints=1) == 6


@pytest.mark.parametrize("victim", ["sampler-0", "reward-0", "learner-0"])
@pytest.mark.parametrize("max_policy_lag", [0, 1, 2])
def test_whoever_dies_when_no_restart_is_left_ends_the_run(max_policy_lag: int, victim: str, tmp_path: Path) -> None:
    """At every time of a run: also while a sync waits for groups that will never come."""
    ended = 0
    for tenths in range(5, 300, 5):
        folder = tmp_path / str(tenths)
        try:
            run(folder, Fault(actor=victim, kind="kill", at_s=tenths / 10), max_policy_lag=max_policy_lag)
        except RestartsExhaustedError:
            ended += 1
            assert_checkpoints_are_exact(folder)
    assert ended > 10


@pytest.mark.parametrize("max_policy_lag", [0, 1])
@pytest.mark.parametrize("write", ["append_ledger", "append_event", "append_metrics", "write_rollouts"])
def test_a_write_that_fails_leaves_exact_checkpoints(
    write: str, max_policy_lag: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = getattr(RunDirectory, write)
    num_failed = 0
    for failing in range(60):
        calls = itertools.count()

        def once(*args: Any, failing: int = failing, calls: Iterator[int] = calls, **kwargs: Any) -> Any:
            if next(calls) == failing:
                raise RunWriteError("planted by a fault test")
            return original(*args, **kwargs)

        monkeypatch.setattr(RunDirectory, write, once)
        folder = tmp_path / str(failing)
        try:
            run(folder, max_policy_lag=max_policy_lag)
        except RunWriteError:
            num_failed += 1
        assert_checkpoints_are_exact(folder)
    assert num_failed >= STEPS


def assert_checkpoints_are_exact(folder: Path) -> None:
    """What a checkpoint says of the run is what its learner's files hold, and every group of it is accounted for."""
    for path in (folder / "checkpoints").glob("step-*"):
        state = read_run_state(path)
        (learner,) = (file.read_text() for file in path.glob("learner-*.txt"))
        assert int(learner.split()[0]) == state.policy_version == state.step
        kept = [group.group_id for group in state.scored] + [prompt.group_id for prompt in state.requeued]
        # What was admitted, and not leased yet, is kept too.
        assert set(state.ledger.open_groups) <= set(kept)
        assert state.ledger.trained == PROMPTS_PER_STEP * state.step
        assert state.ledger.trained + len(set(kept)) == state.ledger.trained + len(kept) == state.stream.index
        metrics = (folder / "metrics.jsonl").read_bytes() if state.step else b""
        assert metrics[: state.log_sizes["metrics"]].count(b"\n") == state.step


def test_a_last_checkpoint_that_cannot_be_written_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def publish(unfinished: Path, final: Path) -> None:
        if final.name == f"step-{STEPS:08d}":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        original(unfinished, final)

    original = files.publish
    monkeypatch.setattr(checkpointing, "publish", publish)
    with pytest.raises(UnsavedError, match="ended after 4 steps, and no checkpoint of them was written"):
        run(tmp_path)
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["step-00000002"]


@pytest.mark.parametrize("max_policy_lag", [0, 1])
def test_sampling_goes_on_while_a_checkpoint_is_written(max_policy_lag: int, tmp_path: Path) -> None:
    slow = Fault(actor="learner-0", kind="slow", method="save", nth=1, duration_s=30.0)
    assert run(tmp_path, slow, max_policy_lag=max_policy_lag).status == "finished"
    events = RunDirectory(tmp_path).read_log("events")
    save = next(event for event in events if event["kind"] == "save")
    assert save["end_s"] - save["start_s"] >= 30.0
    sampled = [e for e in events if e["kind"] == "generate" and save["start_s"] <= e["start_s"] < save["end_s"]]
    assert len(sampled) >= PROMPTS_PER_STEP, "the groups of the next step are sampled meanwhile"


@pytest.mark.parametrize(("actor", "method"), [("sampler-0", "wait_group"), ("reward-0", "score")])
def test_an_actor_that_hangs_says_where_before_it_is_replaced(actor: str, method: str, tmp_path: Path) -> None:
    hang = Fault(actor=actor, kind="hang", method=method, nth=PROMPTS_PER_STEP + 1, duration_s=1e6)
    assert run(tmp_path, hang, max_restarts=1).status == "finished"
    assert (tmp_path / "stacks" / f"000-{actor}.txt").read_text() == f"the stacks of {actor}"
    assert "Thread" in (tmp_path / "stacks" / "000-controller.txt").read_text()


def test_a_batch_in_which_every_lease_runs_out_is_waited_for(tmp_path: Path) -> None:
    """Each group of the second batch is late as often as it may be: the wait for the batch is longer than all that."""
    per_group = RecoveryConfig().max_attempts - 1
    late = [
        Fault(actor="sampler-0", kind="slow", method="wait_group", nth=PROMPTS_PER_STEP + 1 + i, duration_s=50.0)
        for i in range(PROMPTS_PER_STEP * per_group)
    ]
    summary = run(tmp_path, *late, max_restarts=9)
    assert summary.status == "finished"
    assert (summary.groups_trained, summary.groups_rejected) == (STEPS * PROMPTS_PER_STEP, {})
    requeued = [line for line in RunDirectory(tmp_path).read_log("ledger") if line.get("state") == "pending"]
    assert len(requeued) >= len(late)


def test_a_run_whose_groups_do_not_add_up_ends_after_its_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(running, "LedgerState", lambda: LedgerState(dispatched=1))
    with pytest.raises(LedgerError, match="4 groups dispatched, 3 trained, 0 rejected, 0 in flight"):
        run(tmp_path)
    assert [line["step"] for line in RunDirectory(tmp_path).read_log("metrics")] == [0]
