"""Whole training steps against those of TRL's GRPOTrainer: parameters after three of them."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from learner.algorithm.plan import PlanSettings, plan_step, shares
from learner.backend.engine import RendezvousAddress
from tests.learner.parity.training_cases import (
    BETAS,
    CASES,
    LR,
    MAX_TOKENS,
    NUM_STEPS,
    TEMPERATURE,
    TrainingCase,
    batches,
    kept,
    model_in,
)
from tests.learner.ranks import run_ranks
from tests.learner.samples import groups_of
from tests.learner.test_worker import weights_of

pytestmark = pytest.mark.integration

TOLERANCE = 1e-5


def train(rank: int, world_size: int, addresses: list[RendezvousAddress], model_dir: str) -> list[Any]:
    """[case] (weights, clip fractions), each by a worker of its own."""
    from learner.backend.engine import RankPlace
    from learner.config import LearnerConfig
    from learner.types import TrainingSetup
    from learner.worker import LearnerWorker

    of_steps, results = batches(model_dir), []
    for address, case in zip(addresses, CASES, strict=True):
        settings = {
            "objective": case.shoal,
            "lr": LR,
            "betas": BETAS,
            "updates_per_batch": case.updates_per_batch,
            "threads": 1,
            **case.learner,
        }
        config = LearnerConfig.model_validate(settings)
        setup = TrainingSetup(
            model_dir=model_dir,
            seed=0,
            temperature=TEMPERATURE,
            total_steps=NUM_STEPS,
            weight_dtype="float32",
            chunk_mib=1,
            deterministic=True,
        )
        place = RankPlace(rank=rank, world_size=world_size, local_rank=0, on_gpu=False, rendezvous=address)
        worker = LearnerWorker(config, setup, place)
        plan_settings = PlanSettings(learner=config, max_tokens=MAX_TOKENS)
        metrics = []
        for batch in of_steps:
            (share,) = shares(batch, plan_step(batch, plan_settings), plan_settings, num_ranks=1)
            groups = groups_of(batch)
            output, _ = worker.train_step(share, *(groups[i] for i in share.group_ids))
            metrics.append(dict(output.metrics))
        weights, _ = weights_of(worker)
        worker.close()
        results.append((weights, metrics))
    return results


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> list[Any]:
    model_dir = model_in(tmp_path_factory.mktemp("parity") / "model")
    (results,) = run_ranks(train, 1, len(CASES), model_dir)
    found: list[Any] = results
    return found


@pytest.fixture(scope="module")
def stored() -> dict[str, np.ndarray]:
    with np.load(Path(__file__).with_name("training.npz")) as arrays:
        return dict(arrays)


def test_both_start_from_the_same_weights(stored: dict[str, np.ndarray], tmp_path: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM

    start = AutoModelForCausalLM.from_pretrained(model_in(tmp_path / "model"), dtype=torch.float32)
    for name, weight in start.named_parameters():
        assert np.array_equal(kept(weight.detach().numpy()), stored[f"start/{name}"]), name


@pytest.mark.parametrize("number", range(len(CASES)), ids=[case.name for case in CASES])
def test_three_steps_give_the_parameters_of_trl(trained: list[Any], stored: dict[str, np.ndarray], number: int) -> None:
    case: TrainingCase = CASES[number]
    weights, metrics = trained[number]
    expected = {
        name.removeprefix(f"{case.name}/"): values for name, values in stored.items() if name.startswith(case.name)
    }
    assert set(weights) == set(expected)
    moved = max(float(np.abs(values - stored[f"start/{name}"]).max()) for name, values in expected.items())
    assert moved > 100 * TOLERANCE, "the steps must be larger than what is allowed between them"
    assert any(of["train/clip_fraction"] > 0.01 for of in metrics), "the clip has work to do"
    errors = {name: float(np.abs(kept(weights[name]) - values).max()) for name, values in expected.items()}
    assert max(errors.values()) <= TOLERANCE, errors
