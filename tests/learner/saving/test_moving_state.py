"""What moves beside the weights: a reference that follows the policy, and an entropy coefficient that adapts.

Two ranks, with ZeRO and without.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from learner.backend.engine import RendezvousAddress
from learner.saving.checkpoint import REFERENCE, STATE
from learner.saving.files import write_manifest
from tests.learner.ranks import run_ranks
from tests.learner.samples import save_toy_model, train_batch, train_step
from tests.learner.test_worker import make_worker, weights_of

pytestmark = pytest.mark.integration

STAGES = [0, 3]
ENTROPY = {"coef": 0.01, "target": 3.0, "step": 0.002}
COPY = {"update": "copy", "every": 2}
AVERAGE = {"update": "average", "every": 1, "decay": 0.75}
COUNTERS = {"policy_version", "optimizer_steps", "bad_steps_in_a_row", "world_size", "zero_stage"}


def fields_of(stage: int, reference: dict[str, Any] | None, **more: Any) -> dict[str, Any]:
    objective = {"reference": reference, "entropy": ENTROPY} if reference else {}
    return {"zero_stage": stage, "objective": objective, **more}


def reference_of(worker: Any) -> dict[str, np.ndarray]:
    return {name: weight.numpy().copy() for name, weight in worker._reference.weights().items()}


def saved(worker: Any, rank: int, directory: Path) -> Path:
    """Collective."""
    import torch

    worker.save(str(directory))
    if rank == 0:
        write_manifest(directory)
    torch.distributed.barrier()
    return directory


def followed(
    rank: int, world_size: int, addresses: list[RendezvousAddress], stage: int, model_dir: str
) -> dict[str, Any]:
    """Weights and reference after each step; the third step is skipped."""
    found = {}
    for (name, reference), meeting in zip({"copy": COPY, "average": AVERAGE}.items(), addresses, strict=True):
        worker = make_worker(rank, world_size, meeting, model_dir, **fields_of(stage, reference))
        trace = [(weights_of(worker)[0], reference_of(worker))]
        for step in range(4):
            spoils = [worker._model.policy.model.norm.register_forward_hook(spoiled)] if step == 2 else []
            output, _ = train_step(worker, train_batch(step, policy_version=min(step, 2)))
            assert output.skipped == bool(spoils)
            for hook in spoils:
                hook.remove()
            trace.append((weights_of(worker)[0], reference_of(worker)))
        found[name] = trace
        worker.close()
    return found


def spoiled(_module: Any, _args: Any, output: Any) -> None:
    if output.requires_grad:
        output.register_hook(lambda grad: grad * float("nan"))


def resumed(
    rank: int, world_size: int, addresses: list[RendezvousAddress], stage: int, model_dir: str, reference: Any
) -> dict[str, Any]:
    """A run of five steps, and the same from its checkpoint after three."""
    kind = reference["update"] if reference else "never"
    more = {"mini_batches": 2, "updates_per_batch": 2, "schedule": {"kind": "linear"}} if kind == "copy" else {}
    fields = fields_of(stage, reference, **more)
    worker = make_worker(rank, world_size, addresses[0], model_dir, **fields)
    start = reference_of(worker)
    for step in range(3):
        train_step(worker, train_batch(step))
    directory = saved(worker, rank, Path(model_dir).parent / f"{kind}-{stage}")
    wanted = rest_of(worker)
    worker.close()
    worker = make_worker(rank, world_size, addresses[1], model_dir, **fields)
    worker.load(str(directory))
    loaded = reference_of(worker)
    got = rest_of(worker)
    worker.close()
    return {"wanted": wanted, "got": got, "directory": str(directory), "start": start, "loaded": loaded}


def rest_of(worker: Any) -> tuple[Any, ...]:
    """Steps 3 and 4: all figures but the times, the digests of the weights, the references and the coefficient."""
    steps = []
    for step in (3, 4):
        metrics = dict(train_step(worker, train_batch(step))[0].metrics)
        metrics.pop("train/seconds")
        of_reference = {name: weight.tobytes() for name, weight in reference_of(worker).items()}
        steps.append((metrics, weights_of(worker)[1], of_reference))
    return steps, worker._updates.entropy.coef, worker._updates.entropy.last_entropy, worker._updates.optimizer_steps


def without_new_fields(
    rank: int, world_size: int, address: RendezvousAddress, stage: int, model_dir: str, directory: str
) -> Any:
    """What a worker whose reference and entropy move makes of a checkpoint that knows of neither."""
    worker = make_worker(rank, world_size, address, model_dir, **fields_of(stage, COPY))
    worker.load(directory)
    found = reference_of(worker), worker._updates.entropy
    worker.close()
    return found


def all_cases(rank: int, world_size: int, addresses: list[RendezvousAddress], model_dir: str) -> dict[Any, Any]:
    rest = iter(addresses)
    found: dict[Any, Any] = {}
    for stage in STAGES:
        found["followed", stage] = followed(rank, world_size, [next(rest), next(rest)], stage, model_dir)
        for reference in (COPY, None):
            kind = reference["update"] if reference else "never"
            pair = [next(rest), next(rest)]
            found[kind, stage] = resumed(rank, world_size, pair, stage, model_dir, reference)
        directory = found["never", stage]["directory"]
        found["old", stage] = without_new_fields(rank, world_size, next(rest), stage, model_dir, directory)
    return found


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> list[dict[Any, Any]]:
    model_dir = save_toy_model(tmp_path_factory.mktemp("moving") / "model")
    return run_ranks(all_cases, 2, 7 * len(STAGES), model_dir)


def same(a: dict[str, np.ndarray], b: dict[str, np.ndarray]) -> bool:
    assert a.keys() == b.keys()
    return all(np.array_equal(a[name], b[name]) for name in a)


@pytest.mark.parametrize("stage", STAGES)
def test_a_copied_reference_is_the_policy_of_every_second_version(results: list[dict[Any, Any]], stage: int) -> None:
    """Versions after the steps: 1, 2, 2 (skipped), 3. Rank 0 has the whole weights, both have the whole reference."""
    trace = results[0]["followed", stage]["copy"]
    policies, references = [policy for policy, _ in trace], [reference for _, reference in trace]
    assert not same(policies[0], policies[1])
    assert [same(references[step], policies[0]) for step in range(5)] == [True, True, False, False, False]
    assert [same(references[step], policies[2]) for step in range(5)] == [False, False, True, True, True]
    assert same(references[4], results[1]["followed", stage]["copy"][4][1])


@pytest.mark.parametrize("stage", STAGES)
def test_an_averaged_reference_moves_by_its_share_and_not_in_a_skipped_step(
    results: list[dict[Any, Any]], stage: int
) -> None:
    trace = results[0]["followed", stage]["average"]
    expected = {name: weight.astype(np.float64) for name, weight in trace[0][0].items()}
    for step, (policy, reference) in enumerate(trace[1:]):
        if step != 2:
            expected = {name: 0.75 * expected[name] + 0.25 * policy[name] for name in expected}
        for name, weight in expected.items():
            np.testing.assert_allclose(reference[name], weight, rtol=0, atol=3e-7, err_msg=name)
    assert same(trace[2][1], trace[3][1])
    moved = max(float(np.abs(trace[4][1][name] - trace[3][1][name]).max()) for name in expected)
    assert moved > 1e-4


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("kind", ["copy", "never"])
@pytest.mark.parametrize("rank", [0, 1])
def test_resuming_is_bit_for_bit_the_run_that_was_not_interrupted(
    results: list[dict[Any, Any]], stage: int, kind: str, rank: int
) -> None:
    result = results[rank][kind, stage]
    assert result["got"] == result["wanted"]
    (first, second), coef, entropy, optimizer_steps = result["wanted"]
    assert first[1:] != second[1:] or rank
    assert optimizer_steps == (20 if kind == "copy" else 5)
    if kind == "copy":
        # Four optimizer steps for each training step: the 16th and the 20th of 20, down from 1e-3 at the first to 0.
        assert [step[0]["train/lr"] for step in (first, second)] == pytest.approx([1e-3 * 4 / 19, 0.0])
    if kind == "never":
        assert (coef, entropy) == (0.0, None)
    else:
        assert coef != ENTROPY["coef"]
        assert entropy is not None
        assert "train/entropy_coef" in first[0]


@pytest.mark.parametrize("stage", STAGES)
def test_a_reference_that_never_moves_is_the_starting_weights_after_resuming(
    results: list[dict[Any, Any]], stage: int
) -> None:
    for rank in (0, 1):
        assert same(results[rank]["never", stage]["loaded"], results[rank]["never", stage]["start"])
        assert not same(results[rank]["copy", stage]["loaded"], results[rank]["copy", stage]["start"])
        assert results[rank]["never", stage]["got"][0][0][0]["train/kl_ref"] > 0


@pytest.mark.parametrize("stage", STAGES)
def test_checkpoints_hold_what_moves_and_nothing_else(results: list[dict[Any, Any]], stage: int) -> None:
    never, copy = (Path(results[0][kind, stage]["directory"]) for kind in ("never", "copy"))
    assert {path.name for path in copy.iterdir()} - {path.name for path in never.iterdir()} == {REFERENCE}
    assert json.loads((never / STATE).read_text()).keys() == COUNTERS
    assert json.loads((copy / STATE).read_text()).keys() == COUNTERS | {"entropy_coef", "last_entropy"}


@pytest.mark.parametrize("stage", STAGES)
def test_a_checkpoint_without_moving_state_loads_into_a_run_that_has_some(
    results: list[dict[Any, Any]], stage: int
) -> None:
    reference, entropy = results[0]["old", stage]
    assert same(reference, results[0]["never", stage]["start"])
    assert (entropy.coef, entropy.last_entropy) == (ENTROPY["coef"], None)
