"""What a teacher's server says of a group that was scored; its log-probabilities go with the completions."""

from collections.abc import Callable
from dataclasses import replace

from cluster.config import RunConfig
from cluster.errors import ActorFailedError, StageTimeoutError, TeacherFailureError
from cluster.fleet.actors import Fleet
from cluster.fleet.deadlines import finish
from cluster.fleet.recovery import Recovery
from cluster.groups.deadlines import max_scoring_attempts, teacher_deadline_s
from learner.types import Taught
from reward.types import ScoredGroup
from rollout.types import SampledGroup

MAX_UNTAUGHT_BATCHES = 4
"""Groups in a row that the teacher did not score, after which the run ends: in multiples of P."""


class Teaching:
    """Asks about one group after the other. A run without a teacher's server has nobody to ask."""

    def __init__(
        self,
        config: RunConfig,
        fleet: Fleet,
        recovery: Recovery,
        *,
        warn: Callable[[str], None],
        on_taught: Callable[[], None],
    ) -> None:
        self._config = config
        self._fleet = fleet
        self._recovery = recovery
        self._warn = warn
        self._on_taught = on_taught
        self._num_waiting = 0
        self._num_untaught = 0

    @property
    def is_needed(self) -> bool:
        """Whether groups are trained on with what a server says of them alone."""
        return bool(self._fleet.teachers)

    async def teach(self, scored: ScoredGroup) -> ScoredGroup | None:
        """The group whose completions have the teacher's log-probabilities; None where it cannot be had.

        Asking has no effect but its answer, so a group is simply asked about again when the process that asks was lost.

        Errors: `TeacherFailureError` for the last of too many groups in a row; `EndpointError` where no other group
        would fare better; `ObjectLostError` where the completions are gone; of the process, after several attempts.
        """
        taught, group = await self._asked(scored)
        self._on_taught()
        if not taught.reason:
            self._num_untaught = 0
            return replace(scored, group=group)
        self._num_untaught += 1
        said = f"group {scored.group_id} is rejected, as the teacher did not score it: {taught.reason}"
        if self._num_untaught == 1:  # once for a streak; the ledger has every one
            self._warn(said)
        if self._num_untaught >= MAX_UNTAUGHT_BATCHES * self._config.rollout.prompts_per_step:
            raise TeacherFailureError(
                f"{self._num_untaught} groups in a row were not scored by the teacher, the last one: {taught.reason}; "
                "mend the server of learner.teacher.base_url and resume the run"
            )
        return None

    async def _asked(self, scored: ScoredGroup) -> tuple[Taught, SampledGroup]:
        attempts, num_completions = max_scoring_attempts(self._config), scored.group.facts.num_completions
        self._num_waiting += num_completions
        try:
            for attempt in range(1, attempts + 1):
                worker = (await self._recovery.usable(self._fleet.teachers))[0]
                incarnation = worker.incarnation
                answer, payload = worker.handle.score.options(num_returns=2).remote(scored.group.payload)
                try:
                    taught = await finish(
                        answer,
                        deadline_s=teacher_deadline_s(self._config, self._num_waiting),
                        stage="teach",
                        actor=worker.name,
                        item=f"group {scored.group_id}",
                    )
                except (ActorFailedError, StageTimeoutError) as error:
                    self._recovery.failed(worker, incarnation, error)
                    if attempt == attempts:
                        raise
                else:
                    self._recovery.succeeded(worker, incarnation)
                    return taught, replace(scored.group, payload=payload)
        finally:
            self._num_waiting -= num_completions
        raise AssertionError("unreachable: the last attempt returns or raises")
