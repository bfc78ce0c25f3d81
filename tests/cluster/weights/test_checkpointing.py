import asyncio
import dataclasses
import errno
import json
from pathlib import Path
from typing import Any

import pytest

from cluster.config import CheckpointConfig
from cluster.errors import ResumeError
from cluster.groups.ledger import LedgerState
from cluster.weights.checkpointing import Checkpoints, check_fingerprints
from cluster.weights.run_state import RUN_STATE, Fingerprints, RunState, read_run_state, write_run_state
from learner.saving import files
from learner.saving.files import newest_valid
from rollout.errors import CheckpointError
from rollout.prompts.stream import PromptStreamState
from tests.cluster.examples import completion, failed, ok, scored
from tests.cluster.fakes import FakeLearner, fleet_of

FINGERPRINTS = Fingerprints(
    model="m" * 64, tokenizer="t" * 64, data="d" * 64, group_size=4, config="c" * 64, teacher=""
)
ODD = 'lone \ud83d surrogate, \x00 nul, "quotes"\n\u2028 \U0001f41f é'


def state_at(step: int) -> RunState:
    odd = scored(7, [ok(0.1), failed()], [completion(0, text=ODD), completion(1, num_tokens=0)], text=ODD)
    return RunState(
        step=step,
        policy_version=step,
        stream=PromptStreamState(index=9, seed=3, fingerprint="f"),
        ledger=LedgerState(
            dispatched=9,
            trained=6,
            rejected={"equal_rewards": 1},
            open_groups={"g": ("pending", 1), "h": ("scored", 2)},
        ),
        requeued=(dataclasses.replace(odd.group.prompt, ground_truth=None, row={"a": [1, None, ODD], ODD: 0.5}),),
        scored=(odd,),
        fingerprints=FINGERPRINTS,
        accuracy=1 / 3,
        evaluated_at=2,
        log_sizes={"metrics": 120},
    )


def saving(folder: Path, keep: int = 2) -> tuple[Checkpoints, list[str], FakeLearner]:
    warnings: list[str] = []
    checkpoints = Checkpoints(folder, CheckpointConfig(keep=keep), warn=warnings.append)
    return checkpoints, warnings, FakeLearner([])


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def damage(checkpoint: Path) -> None:
    (checkpoint / "learner-0.bin").write_bytes(b"w3ights")


def test_a_state_comes_back_as_it_was_odd_text_included(tmp_path: Path) -> None:
    state = state_at(3)
    write_run_state(tmp_path, state, [state.scored[0].group.payload])
    again = read_run_state(tmp_path)
    assert again == state
    assert again.scored[0].group.payload == state.scored[0].group.payload
    assert again.scored[0].group.payload.completions[0].text == ODD
    assert isinstance(again.requeued[0].token_ids, tuple)
    assert (tmp_path / RUN_STATE).read_bytes().isascii()


def test_groups_that_an_older_version_kept_in_the_state_are_sampled_again(tmp_path: Path) -> None:
    """Before they had a file of their own."""
    state = dataclasses.replace(state_at(3), scored=(), requeued=())
    waiting = dataclasses.asdict(scored(7, [ok(1.0), failed()]).group.prompt)
    group_id = scored(7, [ok(1.0), failed()]).group_id
    values = dataclasses.asdict(state) | {"scored": [{"group": {"prompt": waiting, "completions": []}, "rewards": []}]}
    values["ledger"]["open_groups"] = {group_id: ["scored", 2], "g": ["pending", 1]}
    (tmp_path / RUN_STATE).write_text(json.dumps(values))
    again = read_run_state(tmp_path)
    assert (again.scored, [prompt.group_id for prompt in again.requeued]) == ((), [group_id])
    assert again.ledger.open_groups == {group_id: ("pending", 2), "g": ("pending", 1)}


@pytest.mark.parametrize("text", ["", "[]", '{"step": 1}', "{not json"])
def test_a_state_that_cannot_be_read_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / RUN_STATE).write_text(text)
    with pytest.raises(CheckpointError, match=r"run_state.json cannot be read as the state of a run"):
        read_run_state(tmp_path)


def test_a_state_that_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="FileNotFoundError"):
        read_run_state(tmp_path)


def test_what_is_saved_is_found_again_and_loaded_by_every_rank(tmp_path: Path) -> None:
    checkpoints, warnings, _ = saving(tmp_path)
    journal: list[tuple[str, ...]] = []
    ranks = [FakeLearner(journal), FakeLearner(journal, name="learner-1")]
    path = asyncio.run(checkpoints.save(fleet_of(learners=ranks), state_at(3)))
    assert checkpoints.newest() == (path, state_at(3))
    assert path is not None
    asyncio.run(checkpoints.load_learners(fleet_of(learners=ranks), path))
    told = "hashed already"  # by who found the checkpoint: ranks need not read every byte again
    assert sorted(journal[2:]) == [("load", "learner-0", "weights", told), ("load", "learner-1", "weights", told)]
    assert warnings == []


def test_nothing_is_hashed_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A10: each file once when it is written, and once when the checkpoint is found again; ranks are told so."""
    hashed: list[str] = []
    sha256 = files.file_sha256

    def counted(path: Path) -> str:
        hashed.append(path.name)
        return sha256(path)

    monkeypatch.setattr(files, "file_sha256", counted)
    checkpoints, _, learner = saving(tmp_path)
    fleet = fleet_of(learners=[learner])
    path = asyncio.run(checkpoints.save(fleet, state_at(2)))
    written = sorted(hashed)
    assert len(set(written)) == len(written) >= 3
    assert asyncio.run(checkpoints.save(fleet, state_at(2))) == path, "stopped right after a periodic save"
    assert sorted(hashed) == written
    hashed.clear()
    newest, _ = checkpoints.newest()
    asyncio.run(checkpoints.load_learners(fleet, newest))
    assert sorted(hashed) == written


def test_only_the_newest_are_kept_and_an_equal_one_is_not_written_twice(tmp_path: Path) -> None:
    checkpoints, _, learner = saving(tmp_path)
    fleet = fleet_of(learners=[learner])
    for step in (1, 2, 3):
        asyncio.run(checkpoints.save(fleet, state_at(step)))
    assert names(tmp_path) == ["step-00000002", "step-00000003"]
    learner.save_error = OSError("must not be asked")
    assert asyncio.run(checkpoints.save(fleet, state_at(3))) == tmp_path / "step-00000003"


def test_a_full_disk_is_a_warning_and_the_next_save_works(tmp_path: Path) -> None:
    checkpoints, warnings, learner = saving(tmp_path)
    fleet = fleet_of(learners=[learner])
    first = asyncio.run(checkpoints.save(fleet, state_at(1)))
    learner.save_error = OSError(errno.ENOSPC, "No space left on device")
    assert asyncio.run(checkpoints.save(fleet, state_at(2))) is None
    assert warnings == [
        "checkpoint of step 2 was not written, the one before stays: [Errno 28] No space left on device"
    ]
    assert names(tmp_path) == ["step-00000001"]
    assert checkpoints.newest() == (first, state_at(1))
    learner.save_error = None
    assert asyncio.run(checkpoints.save(fleet, state_at(2))) == tmp_path / "step-00000002"
    assert names(tmp_path) == ["step-00000001", "step-00000002"]


def test_a_damaged_checkpoint_is_passed_over_and_written_anew(tmp_path: Path) -> None:
    checkpoints, warnings, learner = saving(tmp_path)
    fleet = fleet_of(learners=[learner])
    for step in (1, 2):
        asyncio.run(checkpoints.save(fleet, state_at(step)))
    damage(tmp_path / "step-00000002")
    assert checkpoints.newest()[0].name == "step-00000001"
    assert warnings[0].startswith("step-00000002 is passed over and set aside as set-aside-step-00000002: ")
    asyncio.run(checkpoints.save(fleet, state_at(2)))
    assert newest_valid(tmp_path) == tmp_path / "step-00000002"
    assert len(warnings) == 1


def test_a_damaged_newer_checkpoint_does_not_push_a_good_one_out(tmp_path: Path) -> None:
    checkpoints, _, learner = saving(tmp_path, keep=1)
    fleet = fleet_of(learners=[learner])
    asyncio.run(checkpoints.save(fleet, state_at(9)))
    damage(tmp_path / "step-00000009")
    saved = asyncio.run(checkpoints.save(fleet, state_at(4)))
    assert newest_valid(tmp_path) == saved == tmp_path / "step-00000004"


def test_without_a_whole_checkpoint_nothing_is_resumed(tmp_path: Path) -> None:
    checkpoints, _, learner = saving(tmp_path)
    with pytest.raises(ResumeError, match="has no complete checkpoint"):
        checkpoints.newest()
    asyncio.run(checkpoints.save(fleet_of(learners=[learner]), state_at(1)))
    damage(tmp_path / "step-00000001")
    with pytest.raises(ResumeError, match="has no complete checkpoint"):
        checkpoints.newest()


@pytest.mark.parametrize(
    ("field", "value", "named"),
    [
        ("model", "x" * 64, r"model changed \(was xxxxxxxxxxxx, is mmmmmmmmmmmm\)"),
        ("tokenizer", "x" * 64, "its tokenizer changed"),
        ("data", "x" * 64, "its data changed"),
        ("group_size", 8, r"rollout.group_size changed \(was 8, is 4\)"),
        ("teacher", "x" * 64, r"learner.teacher changed \(was xxxxxxxxxxxx, is none\)"),
    ],
)
def test_a_run_whose_inputs_changed_is_refused_naming_what(tmp_path: Path, field: str, value: Any, named: str) -> None:
    then = dataclasses.replace(FINGERPRINTS, **{field: value})
    with pytest.raises(ResumeError, match=named):
        check_fingerprints(FINGERPRINTS, then, tmp_path)


def test_a_checkpoint_of_before_teachers_were_recorded_goes_on(tmp_path: Path) -> None:
    now = dataclasses.replace(FINGERPRINTS, teacher="y" * 64)
    check_fingerprints(now, dataclasses.replace(FINGERPRINTS, teacher=None), tmp_path)


def test_another_configuration_alone_is_allowed(tmp_path: Path) -> None:
    check_fingerprints(FINGERPRINTS, dataclasses.replace(FINGERPRINTS, config="x"), tmp_path)
