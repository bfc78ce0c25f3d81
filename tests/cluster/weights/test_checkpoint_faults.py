"""Checkpoints that are damaged are set aside and never loaded; a full disk does not stop the training."""

import asyncio
import errno
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cluster.config import CheckpointConfig
from cluster.errors import ResumeError
from cluster.weights.checkpointing import REASON, Checkpoints
from cluster.weights.run_state import RUN_STATE
from learner.saving import files as checkpoint_files
from learner.saving.files import MANIFEST
from tests.cluster.fakes import FakeLearner, fleet_of
from tests.cluster.weights.test_checkpointing import names, state_at


class Saving:
    """Checkpoints of steps 1 and 2 of a run with one learner rank."""

    def __init__(self, folder: Path, keep: int = 2) -> None:
        self.warnings: list[str] = []
        self.set_aside: list[tuple[str, str]] = []
        self.journal: list[tuple[str, ...]] = []
        self.learner = FakeLearner(self.journal)
        self.fleet = fleet_of(learners=[self.learner])
        self.checkpoints = Checkpoints(
            folder,
            CheckpointConfig(keep=keep),
            warn=self.warnings.append,
            on_set_aside=lambda name, reason: self.set_aside.append((name, reason)),
        )
        for step in (1, 2):
            assert self.save(step) == folder / f"step-{step:08d}"

    def save(self, step: int) -> Path | None:
        return asyncio.run(self.checkpoints.save(self.fleet, state_at(step)))


def truncate(checkpoint: Path) -> None:
    data = (checkpoint / "learner-0.bin").read_bytes()
    (checkpoint / "learner-0.bin").write_bytes(data[:-1])


def flip_one_bit(checkpoint: Path) -> None:
    data = bytearray((checkpoint / "learner-0.bin").read_bytes())
    data[3] ^= 1
    (checkpoint / "learner-0.bin").write_bytes(data)


def delete_one_file(checkpoint: Path) -> None:
    (checkpoint / RUN_STATE).unlink()


def empty_manifest(checkpoint: Path) -> None:
    (checkpoint / MANIFEST).write_bytes(b"")


@pytest.mark.parametrize(
    ("damage", "why"),
    [
        (truncate, "learner-0.bin has 6 bytes, 7 were written"),
        (flip_one_bit, "learner-0.bin is not as it was written (its SHA-256 differs)"),
        (delete_one_file, f"{RUN_STATE} is missing"),
        (empty_manifest, f"{MANIFEST} cannot be read"),
    ],
)
def test_a_torn_checkpoint_is_set_aside_with_its_reason_and_the_one_before_is_loaded(
    tmp_path: Path, damage: Callable[..., Any], why: Any
) -> None:
    saving = Saving(tmp_path)
    damage(tmp_path / "step-00000002")
    path, state = saving.checkpoints.newest()
    assert (path.name, state) == ("step-00000001", state_at(1))
    asyncio.run(saving.checkpoints.load_learners(saving.fleet, path))
    assert saving.journal[-1] == ("load", "learner-0", "weights", "hashed already")
    assert names(tmp_path) == ["set-aside-step-00000002", "step-00000001"]
    assert why in (tmp_path / "set-aside-step-00000002" / REASON).read_text()
    assert [(name, why in reason) for name, reason in saving.set_aside] == [("step-00000002", True)]
    assert len(saving.warnings) == 1
    assert why in saving.warnings[0]
    # Once: it is out of the way now, and neither a save nor the rotation touches it.
    assert saving.checkpoints.newest()[0].name == "step-00000001"
    assert len(saving.set_aside) == 1
    for step in (2, 3, 4):
        assert saving.save(step) is not None
    assert names(tmp_path) == ["set-aside-step-00000002", "step-00000003", "step-00000004"]


def test_the_same_step_may_be_set_aside_twice(tmp_path: Path) -> None:
    saving = Saving(tmp_path)
    for _ in range(2):
        truncate(tmp_path / "step-00000002")
        saving.checkpoints.newest()
        saving.save(2)
    assert names(tmp_path) == [
        "set-aside-step-00000002",
        "set-aside-step-00000002-2",
        "step-00000001",
        "step-00000002",
    ]


def test_one_that_is_damaged_after_it_was_loaded_is_not_in_the_way_of_its_successor(tmp_path: Path) -> None:
    saving = Saving(tmp_path)
    empty_manifest(tmp_path / "step-00000002")
    assert saving.save(2) == tmp_path / "step-00000002"
    assert names(tmp_path)[0] == "set-aside-step-00000002"
    assert saving.checkpoints.newest() == (tmp_path / "step-00000002", state_at(2))


def test_when_all_are_damaged_nothing_is_loaded(tmp_path: Path) -> None:
    saving = Saving(tmp_path)
    for step in (1, 2):
        flip_one_bit(tmp_path / f"step-{step:08d}")
    with pytest.raises(ResumeError, match="no complete checkpoint"):
        saving.checkpoints.newest()
    assert [name for name, _ in saving.set_aside] == ["step-00000002", "step-00000001"]
    assert not any(entry[0] == "load" for entry in saving.journal)


def test_one_that_cannot_be_moved_is_passed_over_all_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    saving = Saving(tmp_path)
    truncate(tmp_path / "step-00000002")

    def refuse(*_: Any) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(Path, "rename", refuse)
    assert saving.checkpoints.newest()[0].name == "step-00000001"
    assert saving.set_aside == []
    assert "could not be set aside (Permission denied)" in saving.warnings[0]


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
@pytest.mark.parametrize("place", ["learner", "run state", "manifest", "flush"])
def test_a_disk_that_is_full_anywhere_in_a_save_is_an_alert_and_the_next_save_works(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, place: Any
) -> None:
    saving = Saving(tmp_path)
    error = OSError(code, "no room")
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}

    def full(*_: Any) -> None:
        raise error

    with monkeypatch.context() as patch:
        if place == "learner":
            saving.learner.save_error = error
        elif place == "run state":
            patch.setattr("cluster.weights.checkpointing.write_run_state", full)
        elif place == "manifest":
            patch.setattr("cluster.weights.checkpointing.write_manifest", full)
        else:
            patch.setattr(checkpoint_files, "_fsync", full)
        assert saving.save(3) is None
    assert saving.warnings == [f"checkpoint of step 3 was not written, the one before stays: [Errno {code}] no room"]
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before
    assert names(tmp_path) == ["step-00000001", "step-00000002"]
    assert saving.checkpoints.newest() == (tmp_path / "step-00000002", state_at(2))
    saving.learner.save_error = None
    assert saving.save(3) == tmp_path / "step-00000003"
    assert json.loads((tmp_path / "step-00000003" / MANIFEST).read_text())["files"].keys() >= {RUN_STATE}
    assert saving.set_aside == []
