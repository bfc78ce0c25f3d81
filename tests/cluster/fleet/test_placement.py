import asyncio

import pytest
import ray

from cluster.config import RunConfig
from cluster.errors import ClusterError
from cluster.fleet.placement import Bundle, place, plan_bundles, total_resources
from learner.config import LearnerConfig
from reward.config import RewardConfig, RewardModelConfig
from rollout.config import ReasoningGymTask, RolloutConfig

CONFIG = RunConfig(
    task=ReasoningGymTask(generator="chain_sum"),
    rollout=RolloutConfig(num_engines=2, cpus_per_engine=3, gpus_per_engine=1),
    learner=LearnerConfig(num_ranks=2, cpus_per_rank=1.5, gpus_per_rank=0.5),
    reward=RewardConfig(num_workers=2, reward_model=RewardModelConfig(path="m", cpus=2, gpus=0.25)),
)


def test_there_is_a_bundle_for_each_actor() -> None:
    bundles = plan_bundles(CONFIG)
    assert [bundle.name for bundle in bundles] == [
        *("sampler-0", "sampler-1", "learner-0", "learner-1", "reward-0", "reward-1", "reward_model-0"),
    ]
    total = total_resources(bundles)
    assert total["CPU"] == pytest.approx(2 * 3 + 2 * 1.5 + 2 * 0.001 + 2)
    assert total["GPU"] == pytest.approx(2 * 1 + 2 * 0.5 + 0.25)


def test_an_evaluation_alone_has_no_learner() -> None:
    roles = [bundle.role for bundle in plan_bundles(CONFIG, with_learner=False)]
    assert roles == ["sampler", "sampler", "reward", "reward", "reward_model"]


def test_no_bundle_is_empty() -> None:
    assert Bundle(role="reward", index=0, cpus=0.0, gpus=0.0).resources == {"CPU": 0.001}
    assert Bundle(role="sampler", index=0, cpus=0.0, gpus=1.0).resources == {"GPU": 1.0}


@pytest.mark.parametrize(
    ("has", "message"),
    [
        (
            {"CPU": 4.0, "GPU": 8.0, "memory": 1e9},
            "asks for 11.002 CPU, 3.25 GPU, but the whole cluster has 4 CPU, 8 GPU",
        ),
        ({"CPU": 64.0}, "asks for 11.002 CPU, 3.25 GPU, but the whole cluster has 64 CPU; use fewer"),
        ({}, "but the whole cluster has nothing"),
    ],
)
def test_what_the_cluster_never_has_is_refused_with_both_amounts(
    monkeypatch: pytest.MonkeyPatch, has: dict[str, float], message: str
) -> None:
    monkeypatch.setattr(ray, "cluster_resources", lambda: has)
    with pytest.raises(ClusterError, match=message.replace(".", r"\.")):
        asyncio.run(place(plan_bundles(CONFIG)))
