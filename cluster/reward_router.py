"""Which reward worker scores which group."""

from collections.abc import Callable

from cluster.actors import REWARD_START_DEADLINE_S, Fleet
from cluster.config import RunConfig
from cluster.deadlines import finish
from cluster.errors import ActorFailedError, StageTimeoutError
from cluster.recovery import Recovery
from reward.types import ScoredGroup
from rollout.types import RolloutGroup

MIN_SCORING_ATTEMPTS = 3


def max_scoring_attempts(config: RunConfig) -> int:
    """Times that a group is given to a reward worker: one more than it takes to have a worker that hangs restarted."""
    return max(MIN_SCORING_ATTEMPTS, config.recovery.unhealthy_after + 1)


def scoring_deadline_s(config: RunConfig, num_completions: int, *, num_children: int) -> float:
    """Seconds for that many completions on that many children, if each is killed at its deadline, in turn."""
    reward = config.reward
    return 60.0 + len(reward.functions) * reward.timeout_s * num_completions / num_children


def longest_scoring_s(config: RunConfig) -> float:
    """Seconds until a group has its scores or the run has an error, behind every group that may be waiting."""
    groups = (config.max_policy_lag + 1) * config.rollout.prompts_per_step + config.eval.num_prompts
    completions = groups * max(config.rollout.group_size, config.eval.num_samples)
    once = scoring_deadline_s(config, completions, num_children=config.reward.children_per_worker)
    return max_scoring_attempts(config) * (once + REWARD_START_DEADLINE_S)


class RewardRouter:
    """Sends each group to the reward worker with the fewest completions, and to another one when that fails."""

    def __init__(
        self,
        config: RunConfig,
        fleet: Fleet,
        recovery: Recovery | None = None,
        *,
        on_scored: Callable[[], None] | None = None,
    ) -> None:
        """Without a `recovery` (an evaluation alone) the first failure is an error. `on_scored`: of each group."""
        self._fleet = fleet
        self._recovery = recovery
        self._on_scored = on_scored
        self._load = {actor.name: 0 for actor in fleet.rewards}
        self._config = config
        self._attempts = max_scoring_attempts(config)

    def is_busy(self, name: str) -> bool:
        """Whether a worker has groups to score."""
        return self._load[name] > 0

    async def score(self, group: RolloutGroup) -> ScoredGroup:
        """Scoring has no effect but its result, so a group is simply scored again when its worker was lost.

        Errors: of the last worker, after `max_scoring_attempts`; `RewardError` of a worker at once.
        """
        for attempt in range(1, self._attempts + 1):
            workers = (
                self._fleet.rewards if self._recovery is None else await self._recovery.usable(self._fleet.rewards)
            )
            worker = min(workers, key=lambda actor: self._load[actor.name])
            incarnation = worker.incarnation
            self._load[worker.name] += len(group.completions)
            # Its children take completions in the order in which they came: those in front are waited for.
            deadline_s = scoring_deadline_s(
                self._config, self._load[worker.name], num_children=self._config.reward.children_per_worker
            )
            try:
                scored = await finish(
                    worker.handle.score.remote(group),
                    deadline_s=deadline_s,
                    stage="score",
                    actor=worker.name,
                    item=f"group {group.group_id}",
                )
            except (ActorFailedError, StageTimeoutError) as error:
                if self._recovery is None:
                    raise
                self._recovery.failed(worker, incarnation, error)
                if attempt == self._attempts:
                    raise
            else:
                if self._recovery is not None:
                    self._recovery.succeeded(worker, incarnation)
                if self._on_scored is not None:
                    self._on_scored()
                return scored
            finally:
                self._load[worker.name] -= len(group.completions)
        raise AssertionError("unreachable: the last attempt returns or raises")
