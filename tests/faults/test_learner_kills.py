"""SIGKILL of a rank of the learner, and of a reward worker: nothing is sampled again; the weights are the same."""

from pathlib import Path
from typing import Any

import pytest

from tests.faults import faults
from tests.faults.faults import Faults
from tests.integration import runs

pytestmark = pytest.mark.faults

TWO_RANKS = ("learner.num_ranks=2", "learner.zero_stage=1")


def assert_nothing_was_sampled_again(path: Path) -> None:
    assert {line["attempt"] for line in faults.ledger(path, "leased")} == {1}
    assert len(faults.ledger(path, "sampled")) == faults.NUM_GROUPS


def assert_replayed(path: Path, rank: str, *, num_steps: int) -> None:
    told = [e["extra"]["text"] for e in faults.instants(path, "warning")]
    assert len(told) == 1
    assert told[0].startswith(f"train: {rank} failed on step 3")
    assert told[0].endswith(f"all ranks were restarted and {num_steps} steps trained again")


@pytest.mark.parametrize(
    ("words", "num_replayed"),
    [
        pytest.param((), 3, id="from the model, without a checkpoint"),
        pytest.param(("checkpoint.every=2",), 1, id="from the checkpoint of step 2", marks=pytest.mark.quick),
    ],
)
def test_a_killed_rank_is_restarted_and_trains_again(
    words: Any, num_replayed: int, undisturbed: Path, tmp_path: Path
) -> None:
    path = tmp_path / "run"
    fault = Faults.at("learner", step=3, event="training").do("kill")
    run = faults.start(path, fault, "tiny", *faults.SHORT, *words)
    assert run.wait() == 0, run.output()
    assert faults.struck(path)["victim"] == "learner-0"
    faults.assert_same_end(path, undisturbed)
    faults.assert_exactly_once(path)
    assert_nothing_was_sampled_again(path)
    assert_replayed(path, "learner-0", num_steps=num_replayed)
    assert run.left_behind() == []


def test_one_of_two_ranks_takes_the_other_along(tmp_path: Path) -> None:
    whole = runs.train(tmp_path / "whole", "tiny", *faults.SHORT, *TWO_RANKS)
    path = tmp_path / "run"
    fault = Faults.at("learner", 1, step=3, event="training").do("kill")
    run = faults.start(path, fault, "tiny", *faults.SHORT, *TWO_RANKS, "checkpoint.every=2")
    assert run.wait() == 0, run.output()
    assert faults.struck(path)["victim"] == "learner-1"
    faults.assert_same_end(path, whole.path)
    faults.assert_exactly_once(path)
    assert_nothing_was_sampled_again(path)
    assert run.left_behind() == []


def test_a_killed_reward_worker_is_restarted_and_scores_again(undisturbed: Path, tmp_path: Path) -> None:
    path = tmp_path / "run"
    fault = Faults.at("reward", step=3, event="scoring").do("kill")
    run = faults.start(path, fault, "tiny", *faults.SHORT)
    assert run.wait() == 0, run.output()
    assert faults.struck(path)["victim"] == "reward-0"
    faults.assert_same_end(path, undisturbed)
    faults.assert_exactly_once(path)
    assert_nothing_was_sampled_again(path)
    assert faults.states(path, "reward-0") == ["DEAD", "RESTARTING", "HEALTHY"]
    assert run.left_behind() == []
