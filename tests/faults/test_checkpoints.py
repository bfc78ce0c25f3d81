"""Checkpoints that are not what was written, and disks that are full."""

import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from learner.saving.files import MANIFEST
from tests.faults import faults
from tests.faults.faults import Faults
from tests.faults.program import flip_bit

pytestmark = pytest.mark.faults


def empty_manifest(checkpoint: Path) -> None:
    (checkpoint / MANIFEST).write_bytes(b"")


def flip(checkpoint: Path) -> None:
    flip_bit(next((checkpoint / "deepspeed").rglob("*.pt")))


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that was killed right after its second checkpoint."""
    path = tmp_path_factory.mktemp("killed") / "run"
    fault = Faults.at("job", step=4, event="saved").do("kill")
    run = faults.start(path, fault, "tiny", *faults.SHORT, "checkpoint.every=2")
    assert run.wait() == -signal.SIGKILL, run.output()
    assert run.left_behind() == []
    return path


# A file that is truncated or lost: tests/learner/saving/test_files.py.
@pytest.mark.parametrize("damage", [empty_manifest, flip])
def test_a_damaged_checkpoint_is_not_loaded_but_the_one_before(
    damage: Callable[..., Any], killed: Path, undisturbed: Path, tmp_path: Path
) -> None:
    path = tmp_path / "run"
    faults.copy(killed, path)
    damage(path / "checkpoints" / "step-00000004")
    run = faults.resume(path)
    assert "step-00000004 is passed over" in run.output()
    assert [e["step"] for e in faults.instants(path, "resumed")] == [2]
    faults.assert_same_end(path, undisturbed)
    faults.assert_exactly_once(path)


def test_a_full_disk_costs_one_checkpoint_and_nothing_else(undisturbed: Path, tmp_path: Path) -> None:
    path = tmp_path / "run"
    fault = Faults.at("checkpoint", step=2, event="saving").do("no_space")
    run = faults.start(path, fault, "tiny", *faults.SHORT, "checkpoint.every=2")
    assert run.wait() == 0, run.output()
    assert faults.struck(path)["action"] == "no_space"
    told = [e["extra"]["text"] for e in faults.instants(path, "warning")]
    assert len(told) == 1
    assert told[0].startswith("checkpoint of step 2 was not written")
    assert "No space left on device" in told[0]
    names = sorted(p.name for p in (path / "checkpoints").iterdir())
    assert names == ["step-00000004", "step-00000006"]
    faults.assert_same_end(path, undisturbed)
    faults.assert_exactly_once(path)
