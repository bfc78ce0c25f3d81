import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from learner.saving import checkpoint
from learner.saving.files import (
    MANIFEST,
    checkpoint_name,
    newest_valid,
    publish,
    published,
    rotate,
    unfinished_path,
    verify_manifest,
    write_manifest,
)
from rollout.errors import CheckpointError


def make(directory: Path, step: int) -> Path:
    final = directory / checkpoint_name(step)
    unfinished = unfinished_path(final)
    (unfinished / "part").mkdir(parents=True)
    (unfinished / "weights").write_bytes(bytes(range(256)) * 40)
    (unfinished / "part" / "state").write_text(f"step {step}")
    write_manifest(unfinished)
    publish(unfinished, final)
    return final


def test_a_published_checkpoint_is_valid_and_nothing_unfinished_is_left(tmp_path: Path) -> None:
    final = make(tmp_path, 3)
    verify_manifest(final)
    assert [path.name for path in tmp_path.iterdir()] == ["step-00000003"]


def truncate(final: Path) -> str:
    path = final / "weights"
    path.write_bytes(path.read_bytes()[:-1])
    return "weights has 10239 bytes, 10240 were written"


def flip_a_bit(final: Path) -> str:
    path = final / "weights"
    data = bytearray(path.read_bytes())
    data[5000] ^= 1
    path.write_bytes(data)
    return "weights is not as it was written"


def remove_a_file(final: Path) -> str:
    (final / "part" / "state").unlink()
    return "part/state is missing"


def empty_the_manifest(final: Path) -> str:
    (final / MANIFEST).write_text("")
    return "manifest.json cannot be read"


def remove_the_manifest(final: Path) -> str:
    (final / MANIFEST).unlink()
    return "manifest.json is missing"


def add_a_file(final: Path) -> str:
    (final / "part" / "extra.pt").write_bytes(b"pickle")
    return "not part of it: part/extra.pt"


DAMAGES = [truncate, flip_a_bit, remove_a_file, empty_the_manifest, remove_the_manifest, add_a_file]


@pytest.mark.parametrize("damage", DAMAGES)
def test_damage_is_found_named_and_passed_over(tmp_path: Path, damage: Callable[[Path], str]) -> None:
    good, bad = make(tmp_path, 1), make(tmp_path, 2)
    message = damage(bad)
    with pytest.raises(CheckpointError, match=message):
        verify_manifest(bad)
    told: list[tuple[Path, str]] = []
    assert newest_valid(tmp_path, on_invalid=lambda path, error: told.append((path, str(error)))) == good
    assert [path for path, _ in told] == [bad]
    assert message in told[0][1]


def test_what_was_hashed_already_is_not_hashed_again_and_sizes_are_still_looked_at(tmp_path: Path) -> None:
    final = make(tmp_path, 1)
    flip_a_bit(final)
    verify_manifest(final, is_hashed=True)
    message = truncate(final)
    with pytest.raises(CheckpointError, match=message):
        verify_manifest(final, is_hashed=True)


@pytest.mark.parametrize("is_hashed", [False, True])
def test_a_rank_that_loads_hands_on_whether_it_was_hashed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_hashed: bool
) -> None:
    final = make(tmp_path, 1)
    told: list[bool] = []

    def looked_at(_: Path, *, is_hashed: bool = False) -> None:
        told.append(is_hashed)
        raise CheckpointError("the first thing that is done")

    monkeypatch.setattr(checkpoint, "verify_manifest", looked_at)
    nobody: Any = None
    with pytest.raises(CheckpointError, match="the first thing"):
        checkpoint.load(nobody, final, rank=0, world_size=1, is_hashed=is_hashed)
    assert told == [is_hashed]


def test_a_manifest_of_the_wrong_form_is_damage(tmp_path: Path) -> None:
    final = make(tmp_path, 1)
    (final / MANIFEST).write_text(json.dumps({"files": ["weights"]}))
    with pytest.raises(CheckpointError, match="cannot be read"):
        verify_manifest(final)


def test_nothing_there(tmp_path: Path) -> None:
    assert newest_valid(tmp_path) is None
    assert newest_valid(tmp_path / "absent") is None


def test_publishing_needs_a_manifest_and_replaces_nothing(tmp_path: Path) -> None:
    final = make(tmp_path, 1)
    unfinished = unfinished_path(final)
    unfinished.mkdir()
    with pytest.raises(CheckpointError, match="has no manifest"):
        publish(unfinished, final)
    write_manifest(unfinished)
    with pytest.raises(CheckpointError, match="exists already"):
        publish(unfinished, final)
    verify_manifest(final)


def test_rotation_keeps_the_newest_by_step_and_clears_what_was_left(tmp_path: Path) -> None:
    for step in (9, 10, 100, 2):
        make(tmp_path, step)
    unfinished_path(tmp_path / checkpoint_name(101)).mkdir()
    removed = rotate(tmp_path, keep=2)
    assert [path.name for path in removed] == ["step-00000002", "step-00000009"]
    assert [path.name for path in published(tmp_path)] == ["step-00000010", "step-00000100"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-00000010", "step-00000100"]
