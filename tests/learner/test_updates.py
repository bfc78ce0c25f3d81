"""The optimizer steps of a training step, on a policy that moves as the test says."""

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from learner.algorithm.loss import means
from learner.algorithm.plan import PlanSettings, plan_step, shares
from learner.config import LearnerConfig
from learner.types import TrainBatch
from learner.updates import Updates
from tests.learner.samples import collated, train_batch


class MovedPolicy:
    """Gives every token the sampler's log-probability, less `fall` for each step that was taken."""

    device = torch.device("cpu")

    def __init__(self, sampler_N: Tensor, fall: float) -> None:
        self.sampler_N, self.fall, self.num_steps = sampler_N, fall, 0

    def __call__(self, *_: Any) -> tuple[Tensor, Tensor]:
        policy_N = (self.sampler_N - self.fall * self.num_steps).requires_grad_()
        return policy_N, torch.ones_like(self.sampler_N)

    def backward(self, loss: Tensor) -> None:
        loss.backward()

    def step(self, lr: float, *, denominator: int = 1) -> Any:
        self.num_steps += 1
        return SimpleNamespace(applied=True, grad_norm=1.0)


@pytest.fixture(autouse=True)
def alone() -> Iterator[None]:
    store = torch.distributed.HashStore()
    torch.distributed.init_process_group("gloo", store=store, rank=0, world_size=1)
    yield
    torch.distributed.destroy_process_group()


def masked_fractions(batch: TrainBatch, objective: dict[str, Any], *, fall: float, num_updates: int) -> list[float]:
    """Of each update."""
    config = LearnerConfig.model_validate({"objective": objective, "updates_per_batch": num_updates})
    settings = PlanSettings(learner=config, max_tokens=12)
    (share,) = shares(batch, plan_step(batch, settings), settings, num_ranks=1)
    micro_batches = [[collated(batch, sequences) for sequences in part] for part in share.mini_batches]
    ((tokens,),) = micro_batches
    engine: Any = MovedPolicy(tokens.rollout_logprobs_N, fall)
    updates, _ = Updates(config, engine, None, 1.0).run(share, micro_batches, total_optimizer_steps=10)
    return [means(update.sums)["masked_fraction"] for update in updates]


MASK: dict[str, Any] = {
    "corrections": [{"kind": "off_policy_sequence", "threshold": 0.5}],
    "kl": {"coef": 0.0},
}


def test_the_off_policy_mask_follows_the_policy_from_update_to_update() -> None:
    # The policy falls by 0.3 a step: by the third update every token is 0.6 below the sampler, past the threshold of
    # 0.5, and the completions of negative advantage are left out.
    batch = train_batch(0)
    config = LearnerConfig.model_validate({"objective": MASK})
    planned = plan_step(batch, PlanSettings(learner=config, max_tokens=12)).sequences
    tokens = collated(batch, planned)
    share = float((tokens.advantages_N[tokens.mask_N] < 0).float().mean())
    assert 0.1 < share < 0.9
    found = masked_fractions(batch, MASK, fall=0.3, num_updates=3)
    assert found == pytest.approx([0.0, 0.0, share], abs=1e-6)


def test_with_kept_tokens_alone_counted_it_is_of_the_policy_before_the_first() -> None:
    kept = {**MASK, "aggregation": {"kind": "sequence_mean", "count": "kept"}}
    assert masked_fractions(train_batch(0), kept, fall=0.3, num_updates=3) == [0.0, 0.0, 0.0]


def test_other_corrections_stay_as_they_were_before_the_step() -> None:
    far = {**MASK, "corrections": [{"kind": "ratio_mask", "min": 0.9, "max": 1.1}]}
    assert masked_fractions(train_batch(0), far, fall=0.3, num_updates=3) == [0.0, 0.0, 0.0]
