"""A run that is resumed where there is something special: before its first step, between two epochs, after its end."""

import signal
from pathlib import Path

import pytest

from tests.faults import faults
from tests.faults.faults import Faults
from tests.integration import runs

pytestmark = pytest.mark.faults

EPOCH = ("task.size=8", "task.eval_fraction=0", "task.data_seed=1")
"""Eight prompts to train on: an epoch is two steps of four."""


def test_stopped_before_its_first_step(undisturbed: Path, tmp_path: Path) -> None:
    path = tmp_path / "run"
    run = faults.start(path, Faults.at("sampler", step=0, event="serving").do("hang"), "tiny", *faults.SHORT)
    runs.wait_until(lambda: faults.record_path(path).exists(), run)
    assert runs.stop(run, signal.SIGTERM) == 143, run.output()
    assert [p.name for p in (path / "checkpoints").iterdir()] == ["step-00000000"]
    faults.resume(path)
    assert [e["step"] for e in faults.instants(path, "resumed")] == [0]
    faults.assert_same_end(path, undisturbed)
    faults.assert_exactly_once(path)


def test_killed_before_its_first_checkpoint(undisturbed: Path, tmp_path: Path) -> None:
    path = tmp_path / "run"
    run = faults.start(path, Faults.at("job", step=2, event="scored").do("kill"), "tiny", *faults.SHORT)
    assert run.wait() == -signal.SIGKILL, run.output()
    assert run.left_behind() == []
    resumed = faults.resume(path)
    assert "beginning again with step 1: the run was ended before its first checkpoint" in resumed.output()
    assert [e["step"] for e in faults.instants(path, "resumed")] == [0]
    assert list((path / "superseded").iterdir()), "what was computed before is kept"
    faults.assert_same_end(path, undisturbed)
    faults.assert_exactly_once(path)


def test_killed_between_two_epochs(tmp_path: Path) -> None:
    words = ("tiny", *faults.SHORT, *EPOCH)
    whole = runs.train(tmp_path / "whole", *words)
    uids = [line["group_id"].split("-")[1] for line in faults.ledger(whole.path, "consumed")]
    epochs = [frozenset(uids[i : i + 8]) for i in (0, 8, 16)]
    assert len(set(epochs)) == 1
    assert len(epochs[0]) == 8, "each prompt once in two steps: an epoch"
    path = tmp_path / "run"
    run = faults.start(path, Faults.at("job", step=2, event="saved").do("kill"), *words, "checkpoint.every=2")
    assert run.wait() == -signal.SIGKILL, run.output()
    faults.resume(path)
    assert [e["step"] for e in faults.instants(path, "resumed")] == [2]
    faults.assert_same_end(path, whole.path)
    faults.assert_exactly_once(path)


def test_after_its_last_step(undisturbed: Path, tmp_path: Path) -> None:
    path = tmp_path / "run"
    faults.copy(undisturbed, path)
    lock = path / "run.lock"  # says who had the run last
    before = {file: file.read_bytes() for file in path.rglob("*") if file.is_file() and file != lock}
    run = faults.resume(path)
    assert "has finished all its 6 steps: 0 steps to train" in run.output()
    assert {file: file.read_bytes() for file in path.rglob("*") if file.is_file() and file != lock} == before
    faults.resume(path, "steps=7")
    assert [line["step"] for line in runs.read_lines(path / "metrics.jsonl")] == list(range(7))
    faults.assert_exactly_once(path, num_groups=28)
