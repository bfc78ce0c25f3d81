"""Groups go to the worker with the least to do, and wait in turn as long as those in front of them may take."""

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from cluster.configuration.loading import load_config
from cluster.errors import StageTimeoutError
from cluster.fleet.actors import Actor
from cluster.groups.deadlines import longest_scoring_s, max_scoring_attempts, scoring_deadline_s
from cluster.groups.reward_router import RewardRouter
from reward.types import GroupScores
from rollout.types import RolloutGroup
from tests.cluster.examples import ok, scored
from tests.faults.virtual import in_virtual_time

TIMEOUT_S = 30.0
CONFIG = load_config("tiny", [f"reward.timeout_s={TIMEOUT_S:g}", "reward.children_per_worker=1"])


class SlowWorker:
    """Takes groups one after another, and `seconds` for each completion."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._turn = asyncio.Lock()
        self.scored: list[str] = []
        self.score = SimpleNamespace(remote=self._score)

    async def _score(self, given: RolloutGroup, *, with_steps: bool) -> GroupScores:
        assert with_steps
        async with self._turn:
            await asyncio.sleep(self._seconds * len(given.completions))
        self.scored.append(given.group_id)
        rewards = (ok(0.0), ok(1.0))
        return GroupScores(rewards=rewards, worker="reward-0", started_s=1.0, finished_s=2.0)


def score_at_once(num_groups: int, *seconds: float) -> list[SlowWorker]:
    """Groups that all come together to workers of the given speeds, without anybody who restarts one."""

    async def main() -> list[SlowWorker]:
        workers = [SlowWorker(s) for s in seconds]
        fleet: Any = SimpleNamespace(
            rewards=tuple(Actor(name=f"reward-{i}", handle=worker) for i, worker in enumerate(workers))
        )
        router = RewardRouter(CONFIG, fleet)
        groups = [scored(index, [ok(0.0), ok(1.0)]).group for index in range(num_groups)]
        await asyncio.gather(*(router.score(group) for group in groups))
        return workers

    return in_virtual_time(main)


def test_a_group_behind_forty_others_is_waited_for() -> None:
    (worker,) = score_at_once(40, TIMEOUT_S)
    assert len(worker.scored) == len(set(worker.scored)) == 40


def test_a_worker_that_takes_longer_than_its_children_may_is_given_up() -> None:
    with pytest.raises(StageTimeoutError, match="reward-0"):
        score_at_once(40, 2 * TIMEOUT_S)


def test_workers_share_the_groups() -> None:
    first, second = score_at_once(10, 1.0, 1.0)
    assert len(first.scored) == len(second.scored) == 5


def test_the_longest_wait_is_that_of_the_last_attempt_behind_every_other_group() -> None:
    groups = (CONFIG.max_policy_lag + 1) * CONFIG.rollout.prompts_per_step
    behind_all = scoring_deadline_s(CONFIG, groups * CONFIG.rollout.group_size, num_children=1)
    assert longest_scoring_s(CONFIG) > max_scoring_attempts(CONFIG) * behind_all
    assert max_scoring_attempts(CONFIG) > CONFIG.recovery.unhealthy_after
