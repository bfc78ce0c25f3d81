"""What is called of an actor is what its worker has. mypy says so too; this says it of the methods that run."""

import inspect

import pytest

from cluster.fleet import handles
from learner.worker import LearnerWorker
from reward.models.worker import RewardModelWorker
from reward.worker import RewardWorker
from rollout.worker import RolloutWorker

ROLES = [
    (handles.Sampler, handles.SamplerHandle, RolloutWorker),
    (handles.Learner, handles.LearnerHandle, LearnerWorker),
    (handles.Reward, handles.RewardHandle, RewardWorker),
    (handles.RewardModel, handles.RewardModelHandle, RewardModelWorker),
]


def methods(cls: type) -> set[str]:
    return {name for name in vars(cls) if not name.startswith("_")}


@pytest.mark.parametrize(("protocol", "handle", "worker"), ROLES, ids=lambda cls: cls.__name__)
def test_a_handle_has_what_the_protocol_has_and_the_worker_takes_the_same(
    protocol: type, handle: type, worker: type
) -> None:
    assert methods(handle) == methods(protocol)
    for name in methods(protocol):
        asked, there = getattr(protocol, name), getattr(worker, name)
        assert getattr(handle, name) is asked
        assert list(inspect.signature(asked).parameters) == list(inspect.signature(there).parameters), name
        assert inspect.iscoroutinefunction(asked) == inspect.iscoroutinefunction(there), name
