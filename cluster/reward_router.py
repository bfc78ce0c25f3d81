"""Which reward worker scores which group."""

from collections.abc import Callable

from cluster.actors import Fleet
from cluster.config import RunConfig
from cluster.deadlines import finish
from cluster.errors import ActorFailedError, StageTimeoutError
from cluster.recovery import Recovery
from reward.types import ScoredGroup
from rollout.types import RolloutGroup

MAX_SCORING_ATTEMPTS = 3


class RewardRouter:
    """Sends each group to the reward worker with the fewest groups, and to another one when that fails."""

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
        reward = config.reward
        # The worst case: every completion of every group that may be waiting is killed at its deadline, in turn.
        groups = (config.max_policy_lag + 1) * config.rollout.prompts_per_step + config.eval.num_prompts
        completions = groups * max(config.rollout.group_size, config.eval.num_samples)
        slots = reward.num_workers * reward.children_per_worker
        self._deadline_s = 60.0 + len(reward.functions) * reward.timeout_s * completions / slots

    async def score(self, group: RolloutGroup) -> ScoredGroup:
        """Scoring has no effect but its result, so a group is simply scored again when its worker was lost.

        Errors: of the last worker, after MAX_SCORING_ATTEMPTS; `RewardError` of a worker at once.
        """
        for attempt in range(1, MAX_SCORING_ATTEMPTS + 1):
            workers = (
                self._fleet.rewards if self._recovery is None else await self._recovery.usable(self._fleet.rewards)
            )
            worker = min(workers, key=lambda actor: self._load[actor.name])
            incarnation = worker.incarnation
            self._load[worker.name] += 1
            try:
                scored = await finish(
                    worker.handle.score.remote(group),
                    deadline_s=self._deadline_s,
                    stage="score",
                    actor=worker.name,
                    item=f"group {group.group_id}",
                )
            except (ActorFailedError, StageTimeoutError) as error:
                if self._recovery is None or attempt == MAX_SCORING_ATTEMPTS:
                    raise
                self._recovery.failed(worker, incarnation, error)
            else:
                if self._recovery is not None:
                    self._recovery.succeeded(worker, incarnation)
                if self._on_scored is not None:
                    self._on_scored()
                return scored
            finally:
                self._load[worker.name] -= 1
        raise AssertionError("unreachable: the last attempt returns or raises")
