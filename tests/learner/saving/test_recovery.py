"""Bad numbers and checkpoints, on two ranks with every ZeRO stage."""

import errno
import math
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from learner.backend.engine import RendezvousAddress
from learner.saving.checkpoint import export_checkpoint
from learner.saving.files import checkpoint_name, publish, unfinished_path, verify_manifest, write_manifest
from learner.types import TrainBatch
from rollout.errors import CheckpointError, ModelError
from tests.learner.ranks import run_ranks
from tests.learner.samples import save_toy_model, scored_group, train_batch, train_step
from tests.learner.test_worker import make_worker, weights_of

pytestmark = pytest.mark.integration

STAGES = [0, 1, 2, 3]


def batch_with_infinite_loss(version: int) -> TrainBatch:
    """Rewards that are finite in fp64 and, not divided by their deviation, infinite as an fp32 advantage."""
    import random

    group = scored_group(7, [1e300, -1e300], rng=random.Random(0))
    return TrainBatch(step=9, policy_version=version, groups=(group,))


def bad_gradient_on_rank(worker: Any, rank: int, bad_rank: int) -> Any:
    """Makes the gradient NaN on one rank alone, at the last norm; returns what undoes it."""

    def poison(module: Any, args: Any, output: Any) -> None:
        if rank == bad_rank and output.requires_grad:
            output.register_hook(lambda grad: grad * math.nan)

    return worker._model.policy.model.norm.register_forward_hook(poison)


def bad_steps(
    rank: int, world_size: int, addresses: list[RendezvousAddress], stage: int, model_dir: str
) -> dict[str, Any]:
    settings = {"zero_stage": stage, "objective": {"advantage": {"kind": "group", "scale": "none"}}}
    worker = make_worker(rank, world_size, addresses[0], model_dir, **settings)
    for step in range(3):
        train_step(worker, train_batch(step))
    wanted = weights_of(worker)[1]
    worker.close()

    worker = make_worker(rank, world_size, addresses[1], model_dir, **settings)
    for step in range(2):
        train_step(worker, train_batch(step))
    before = weights_of(worker)[1]
    infinite_loss = train_step(worker, batch_with_infinite_loss(2))[0]
    handle = bad_gradient_on_rank(worker, rank, bad_rank=1)
    nan_gradient = train_step(worker, train_batch(2))[0]
    handle.remove()
    after = weights_of(worker)[1]
    good = train_step(worker, train_batch(2))[0]
    got = weights_of(worker)[1]
    worker.close()
    return {
        "wanted": wanted,
        "got": got,
        "before": before,
        "after": after,
        "infinite_loss": infinite_loss,
        "nan_gradient": nan_gradient,
        "good": good,
    }


def save_and_resume(
    rank: int, world_size: int, addresses: list[RendezvousAddress], stage: int, model_dir: str
) -> dict[str, Any]:
    import torch

    fields = {"zero_stage": stage, "schedule": {"kind": "linear", "warmup_steps": 2}}
    final = Path(model_dir).parent / f"checkpoints-{stage}" / checkpoint_name(2)
    worker = make_worker(rank, world_size, addresses[2], model_dir, **fields)
    for step in range(2):
        train_step(worker, train_batch(step))
    saved_weights = weights_of(worker)[0]
    full_disks = [full_disk(worker, rank, unfinished_path(final), at) for at in ("weights", "optimizer", "folder")]
    worker.save(str(unfinished_path(final)))
    if rank == 0:
        write_manifest(unfinished_path(final))
        publish(unfinished_path(final), final)
    torch.distributed.barrier()
    wanted = [train_step(worker, train_batch(step))[0].metrics["train/lr"] for step in (2, 3)]
    wanted_digest = weights_of(worker)[1]
    worker.close()

    worker = make_worker(rank, world_size, addresses[3], model_dir, **fields)
    refused = refused_loads(worker, rank, model_dir) if stage == 2 else []
    worker.load(str(final))
    assert worker.policy_version == 2
    got = [train_step(worker, train_batch(step))[0].metrics["train/lr"] for step in (2, 3)]
    got_digest = weights_of(worker)[1]
    worker.close()
    return {
        "wanted": (wanted, wanted_digest),
        "got": (got, got_digest),
        "weights": saved_weights,
        "checkpoint": str(final),
        "refused": refused,
        "full disks": full_disks,
    }


def full_disk(worker: Any, rank: int, directory: Path, at: str) -> str:
    """What a rank says to a save in which one rank cannot write: rank 0 its weights, rank 1 its share of the optimizer
    (where there are shares), rank 0 the folder of DeepSpeed's files."""
    import torch

    from learner.saving import checkpoint

    def no_space(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    writes = worker._engine.deepspeed.checkpoint_engine
    owner, name = {
        "weights": (checkpoint, "save_file"),
        "optimizer": (type(writes), "save"),
        "folder": (type(writes), "makedirs"),
    }[at]
    with pytest.MonkeyPatch.context() as patch:
        if rank == (at == "optimizer" and worker._config.zero_stage > 0):
            patch.setattr(owner, name, no_space)
        with pytest.raises(CheckpointError) as caught:
            worker.save(str(directory))
    torch.distributed.barrier()  # both are there, and neither waits elsewhere
    if rank == 0:
        shutil.rmtree(directory)
    torch.distributed.barrier()
    return str(caught.value)


def refused_loads(worker: Any, rank: int, model_dir: str) -> list[str]:
    """What a worker says to the checkpoint of stage 1, and to a damaged copy of the one of stage 2."""
    import torch

    root = Path(model_dir).parent
    damaged = root / "damaged"
    if rank == 0:
        shutil.copytree(root / "checkpoints-2" / checkpoint_name(2), damaged)
        path = next(damaged.rglob("*optim_states.pt"))
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 1
        path.write_bytes(data)
    torch.distributed.barrier()
    before = weights_of(worker)[1]
    messages = []
    for checkpoint in (root / "checkpoints-1" / checkpoint_name(2), damaged):
        with pytest.raises(CheckpointError) as caught:
            worker.load(str(checkpoint))
        messages.append(str(caught.value))
    assert weights_of(worker)[1] == before
    return messages


def all_stages(rank: int, world_size: int, addresses: list[RendezvousAddress], model_dir: str) -> dict[str, Any]:
    return {
        f"{case.__name__} {stage}": case(rank, world_size, addresses[4 * stage : 4 * stage + 4], stage, model_dir)
        for stage in STAGES
        for case in (bad_steps, save_and_resume)
    }


@pytest.fixture(scope="module")
def model_dir(tmp_path_factory: pytest.TempPathFactory) -> str:
    return save_toy_model(tmp_path_factory.mktemp("recovery") / "model")


@pytest.fixture(scope="module")
def results(model_dir: str) -> list[dict[str, Any]]:
    return run_ranks(all_stages, 2, 4 * len(STAGES), model_dir)


@pytest.mark.parametrize("stage", STAGES)
def test_a_bad_step_changes_nothing_and_the_next_one_is_as_if_it_had_never_come(
    results: list[dict[str, Any]], stage: int
) -> None:
    result = results[0][f"bad_steps {stage}"]
    assert result["after"] == result["before"]
    assert result["got"] == result["wanted"]
    assert result["got"] != result["before"]


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("rank", [0, 1])
def test_bad_steps_are_reported_by_every_rank_and_counted(results: list[dict[str, Any]], stage: int, rank: int) -> None:
    result = results[rank][f"bad_steps {stage}"]
    first, second, good = result["infinite_loss"], result["nan_gradient"], result["good"]
    assert [output.skipped for output in (first, second, good)] == [True, True, False]
    assert [output.bad_steps_in_a_row for output in (first, second, good)] == [1, 2, 0]
    assert [output.policy_version for output in (first, second, good)] == [2, 2, 3]
    # Never hidden: the loss is not finite where it was not, and was fine where only the gradient was not.
    assert not math.isfinite(first.metrics["train/loss"])
    assert math.isfinite(second.metrics["train/loss"])
    assert not math.isfinite(first.metrics["train/grad_norm"])
    assert not math.isfinite(second.metrics["train/grad_norm"])
    assert "was not applied" in first.reason
    assert good.reason == ""


@pytest.mark.parametrize("stage", STAGES)
def test_a_rank_that_cannot_write_leaves_no_rank_waiting(results: list[dict[str, Any]], stage: int) -> None:
    told = [results[rank][f"save_and_resume {stage}"]["full disks"] for rank in range(2)]
    for at, (first, second) in enumerate(zip(*told, strict=True)):
        victim = int(at == 1 and stage > 0)
        victims, others = (first, second) if victim == 0 else (second, first)
        assert victims.endswith(f"rank {victim} could not write: [Errno 28] No space left on device")
        assert others.endswith("is not complete: another rank could not write")


@pytest.mark.parametrize("stage", STAGES)
def test_resuming_is_bit_for_bit_the_run_that_was_not_interrupted(results: list[dict[str, Any]], stage: int) -> None:
    result = results[0][f"save_and_resume {stage}"]
    assert result["got"] == result["wanted"]
    # Linear after two steps of warm-up, from 1e-3 at step 1 to 0 at step 4.
    assert result["got"][0] == pytest.approx([2e-3 / 3, 1e-3 / 3])


@pytest.mark.parametrize("stage", STAGES)
def test_a_checkpoint_is_exported_without_a_learner(
    results: list[dict[str, Any]], stage: int, model_dir: str, tmp_path: Path
) -> None:
    from transformers import AutoModelForCausalLM

    result = results[0][f"save_and_resume {stage}"]
    export_checkpoint(Path(result["checkpoint"]), Path(model_dir), tmp_path / "export")
    named = dict(AutoModelForCausalLM.from_pretrained(tmp_path / "export").named_parameters())
    assert set(named) == set(result["weights"])
    for name, weight in result["weights"].items():
        assert np.array_equal(named[name].detach().numpy(), weight), name
    with pytest.raises(ModelError, match="not empty"):
        export_checkpoint(Path(result["checkpoint"]), Path(model_dir), tmp_path / "export")


def test_checkpoints_of_another_shape_and_damaged_ones_are_refused(results: list[dict[str, Any]]) -> None:
    verify_manifest(Path(results[0]["save_and_resume 1"]["checkpoint"]))
    for rank in (0, 1):
        other_shape, damaged = results[rank]["save_and_resume 2"]["refused"]
        assert "2 ranks with ZeRO stage 1" in other_shape
        assert "cannot go on with 2 ranks and stage 2" in other_shape
        assert "optim_states.pt is not as it was written" in damaged
