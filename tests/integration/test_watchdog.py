"""A sampler that hangs for good is noticed by the missing progress; the stacks say in which function it is."""

from pathlib import Path
from typing import Any

import pytest

from tests.integration import runs

pytestmark = [pytest.mark.integration, pytest.mark.faults]

STALL_S = 8.0
WORDS = ("tiny", *runs.SHORT, "eval.at_start=false", "eval.at_end=false", f"recovery.stall_s={STALL_S}")


def hang(folder: Path, on_stall: str) -> runs.Run:
    marker = folder / "hung"
    words = [str(marker), "train", *WORDS, f"recovery.on_stall={on_stall}"]
    run = runs.start(folder / "run", *words, module="tests.integration.hanging_sampler")
    run.wait()
    assert marker.exists(), f"the fault did not happen:\n{run.output()}"
    return run


def instants(run: runs.Run, name: str) -> list[dict[str, Any]]:
    events = [e for e in runs.read_lines(run.path / "events.jsonl") if e["kind"] == "instant"]
    return [e for e in events if e["extra"].get("name") == name]


def assert_stacks_name_the_function(run: runs.Run) -> None:
    (stall,) = instants(run, "stall")
    assert STALL_S <= stall["extra"]["idle_s"] < STALL_S + 5
    stacks = {path.name: path.read_text() for path in (run.path / "stacks").iterdir()}
    assert set(stacks) == {f"000-{actor}.txt" for actor in ("controller", "learner-0", "reward-0", "sampler-0")}
    assert "in never_ends" in stacks["000-sampler-0.txt"]
    assert "in hang_once" in stacks["000-sampler-0.txt"]
    assert "never_ends" not in stacks["000-learner-0.txt"]
    assert "learner" in stacks["000-learner-0.txt"] or "worker" in stacks["000-learner-0.txt"]
    assert "_train_loop" in stacks["000-controller.txt"]


def test_abort_ends_the_run_with_a_checkpoint(tmp_path: Path) -> None:
    run = hang(tmp_path, "abort")
    assert run.process.returncode == 1, run.output()
    assert_stacks_name_the_function(run)
    summary = runs.summary(run.path)
    assert summary["status"] == "failed"
    assert summary["error"].startswith("no group was scored and no step trained for")
    steps = len(runs.read_lines(run.path / "metrics.jsonl"))
    assert 0 < steps < 7
    assert (run.path / "checkpoints" / f"step-{steps:08d}" / "manifest.json").exists()
    assert run.left_behind() == []


def test_restart_gives_the_sampler_up_and_the_run_completes(tmp_path: Path) -> None:
    run = hang(tmp_path, "restart")
    assert run.process.returncode == 0, run.output()
    assert_stacks_name_the_function(run)
    states = [(e["actor"], e["extra"]["state"]) for e in instants(run, "state")]
    assert states[:2] == [("sampler-0", "DEAD"), ("sampler-0", "RESTARTING")]
    assert sum(state == "RESTARTING" for _, state in states) == 1
    consumed = [e["group_id"] for e in runs.read_lines(run.path / "ledger.jsonl") if e.get("state") == "consumed"]
    assert len(consumed) == len(set(consumed)) == 7 * 4
    assert run.left_behind() == []


def test_a_rank_that_sleeps_costs_the_step_deadline_and_every_rank_says_where_it_was(tmp_path: Path) -> None:
    marker = tmp_path / "slept"
    deadline_s = 25.0
    ranks = ("learner.num_ranks=2", f"learner.step_deadline_s={deadline_s}", "recovery.stall_s=600")
    words = [str(marker), "train", *WORDS[:-1], *ranks, "checkpoint.every=2"]
    run = runs.start(tmp_path / "run", *words, module="tests.integration.hanging_learner")
    assert run.wait() == 0, run.output()
    assert marker.exists(), "the fault did not happen"
    stacks = {path.name: path.read_text() for path in (run.path / "stacks").iterdir()}
    assert set(stacks) == {f"000-{actor}.txt" for actor in ("controller", "learner-0", "learner-1")}
    assert "in falls_asleep" in stacks["000-learner-1.txt"]
    assert "falls_asleep" not in stacks["000-learner-0.txt"]
    assert "in train_step" in stacks["000-learner-0.txt"]
    texts = [e["extra"]["text"] for e in instants(run, "warning")]
    assert any(f"did not finish step 3 within {deadline_s:g} s" in text for text in texts)
    steps = [line["step"] for line in runs.read_lines(run.path / "metrics.jsonl")]
    assert steps == list(range(7))
    assert run.left_behind() == []
