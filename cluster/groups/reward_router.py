"""Which reward worker scores which group."""

from collections.abc import Callable

from cluster.config import RunConfig
from cluster.errors import ActorFailedError, StageTimeoutError
from cluster.fleet.actors import Fleet
from cluster.fleet.deadlines import finish
from cluster.fleet.recovery import Recovery
from cluster.groups.deadlines import max_scoring_attempts, scoring_deadline_s
from reward.types import ScoredGroup
from rollout.types import SampledGroup


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

    async def score(self, group: SampledGroup, *, with_steps: bool = True) -> ScoredGroup:
        """Scoring has no effect but its result, so a group is simply scored again when its worker was lost.
        `with_steps`: also the steps, where the configuration has something that scores them.

        Errors: of the last worker, after `max_scoring_attempts`; `RewardError` of a worker at once; `ObjectLostError`
        where the completions are gone.
        """
        for attempt in range(1, self._attempts + 1):
            workers = (
                self._fleet.rewards if self._recovery is None else await self._recovery.usable(self._fleet.rewards)
            )
            worker = min(workers, key=lambda actor: self._load[actor.name])
            incarnation = worker.incarnation
            self._load[worker.name] += group.facts.num_completions
            # Its children take completions in the order in which they came: those in front are waited for.
            deadline_s = scoring_deadline_s(
                self._config, self._load[worker.name], num_children=self._config.reward.children_per_worker
            )
            try:
                scores = await finish(
                    worker.handle.score.remote(group.payload, with_steps=with_steps),
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
                return ScoredGroup(group=group, scores=scores)
            finally:
                self._load[worker.name] -= group.facts.num_completions
        raise AssertionError("unreachable: the last attempt returns or raises")
