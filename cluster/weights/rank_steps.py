"""A training step as calls to all ranks of the learner at once; as a whole, or group by group while others are sampled.

    accumulate(some groups) --> the ranks add up their gradient --.
    accumulate(more)        --> ...                               +--> train(whole batch) --> the rest, optimizer step

Nobody else asks the ranks for anything within a call; between two, anything that leaves the weights as they are.
"""

import asyncio
from collections.abc import Awaitable, Sequence
from typing import Any

from cluster.config import RunConfig
from cluster.errors import ActorFailedError, ObjectLostError, StageTimeoutError
from cluster.fleet.actors import Fleet
from cluster.fleet.deadlines import finish, finish_all
from cluster.fleet.objects import OPEN_DEADLINE_S
from cluster.record.run_record import TrainedStep
from learner.algorithm.plan import PlanSettings, plan_step, shares
from learner.types import ComputedTokens, RankShare, StepPlan, TrainBatch
from rollout.errors import StepGivenUpError
from rollout.types import RolloutGroup

GIVE_UP_DEADLINE_S = 30.0


class RankSteps:
    """Of the ranks that a fleet has now; what they have added up is forgotten when they are replaced."""

    def __init__(self, config: RunConfig, fleet: Fleet) -> None:
        self._config = config
        self._fleet = fleet
        self._settings: PlanSettings | None = None
        """Known when a rank has said what its model can."""
        self._accumulated: dict[str, int] = {}
        """Group id -> attempt, of all whose gradients the ranks hold."""
        self._tokens: list[ComputedTokens] = []
        """What was computed for these."""

    def forget(self) -> None:
        """The ranks were replaced, and hold no gradients."""
        self._accumulated, self._tokens = {}, []

    async def accumulate(self, part: TrainBatch) -> None:
        """Adds the gradients of these groups to those of the step. Errors: as `train`."""
        settings = await self._plan_settings()
        plan, dealt = await asyncio.to_thread(self._plan, part, settings)
        if not plan.computed:
            return  # there is no gradient of it, and nothing to be seen
        payloads = {scored.group_id: scored.group.payload for scored in part.groups}
        learners, item = self._fleet.learners, f"{len(part.groups)} groups of step {part.step}"
        calls = [
            learner.handle.accumulate.remote(share, *(payloads[i] for i in share.group_ids))
            for learner, share in zip(learners, dealt, strict=True)
        ]
        try:
            self._tokens += await finish_all(
                calls,
                deadline_s=self._config.learner.step_deadline_s,
                stage="train",
                actors=[learner.name for learner in learners],
                item=item,
            )
        except StepGivenUpError:
            await self._all_at_rest(calls, part.step, may_be_done=True)
            raise
        except ObjectLostError as error:
            # The other ranks are in the pass, and wait for the one that could not begin: all are replaced.
            raise ActorFailedError("train", learners[0].name, item, str(error)) from error
        self._accumulated |= {scored.group_id: scored.group.facts.attempt for scored in part.groups}

    async def train(self, batch: TrainBatch, groups: Sequence[RolloutGroup]) -> TrainedStep:
        """The optimizer step on a batch, of whose groups some may have been accumulated. `groups` are its completions,
        for the record.

        Errors: `ActorFailedError`, `StageTimeoutError`; what a rank raises as a `ShoalError`.
        """
        settings = await self._plan_settings()
        self._check_accumulated(batch)
        plan, dealt = await asyncio.to_thread(self._plan, batch, settings)
        learners, item = self._fleet.learners, f"step {batch.step}"
        payloads = {scored.group_id: scored.group.payload for scored in batch.groups}
        calls = [
            learner.handle.train_step.options(num_returns=2).remote(share, *(payloads[i] for i in share.group_ids))
            for learner, share in zip(learners, dealt, strict=True)
        ]
        try:
            outputs = await finish_all(
                [output for output, _ in calls],
                deadline_s=self._config.learner.step_deadline_s,
                stage="train",
                actors=[learner.name for learner in learners],
                item=item,
            )
            tokens = [*self._tokens, *await self._computed([tokens for _, tokens in calls])]
        except StepGivenUpError:
            await self._all_at_rest([output for output, _ in calls], batch.step)
            raise
        except ObjectLostError as error:
            # The other ranks are in the step, and wait for the one that could not begin: all are replaced.
            raise ActorFailedError("train", learners[0].name, item, str(error)) from error
        self.forget()
        return TrainedStep(
            batch=batch,
            groups=tuple(groups),
            advantages=plan.advantages,
            outputs=tuple(outputs),
            tokens=tuple(tokens),
        )

    def _check_accumulated(self, batch: TrainBatch) -> None:
        """Errors: `ActorFailedError` where the ranks hold the gradient of other completions, so that they are
        replaced: a group whose gradient was computed is not sampled again, and should it be, it must not count twice.
        """
        attempts = {scored.group_id: scored.group.facts.attempt for scored in batch.groups}
        for group_id, attempt in self._accumulated.items():
            if attempts.get(group_id) != attempt:
                reason = f"it has the gradient of group {group_id}, of other completions than those of the batch"
                raise ActorFailedError("train", self._fleet.learners[0].name, f"step {batch.step}", reason)

    async def _all_at_rest(self, calls: Sequence[Awaitable[object]], step: int, *, may_be_done: bool = False) -> None:
        """Returns when every rank has given the step up; `may_be_done`: or has done its part of what leaves the weights
        as they are. Errors: `ActorFailedError` of one that did not, and is now alone in the step: all have to be
        started again before they are saved."""
        learners = self._fleet.learners
        for learner, call in zip(learners, calls, strict=True):
            item = f"the end of step {step}"
            try:
                await finish(call, deadline_s=GIVE_UP_DEADLINE_S, stage="train", actor=learner.name, item=item)
            except StepGivenUpError:
                continue
            except StageTimeoutError as error:
                raise ActorFailedError("train", learner.name, item, str(error)) from error
            if not may_be_done:
                raise ActorFailedError("train", learner.name, item, "it took the step, which others gave up")

    async def _computed(self, references: Sequence[Any]) -> list[ComputedTokens]:
        """What the ranks computed. Errors: `ObjectLostError`, also where it does not come in time: then the step is
        taken again, and not lost."""
        try:
            return await asyncio.to_thread(self._fleet.objects.get, references, deadline_s=OPEN_DEADLINE_S)
        except StageTimeoutError as error:
            raise ObjectLostError(str(error)) from error

    async def _plan_settings(self) -> PlanSettings:
        if self._settings is not None:
            return self._settings
        config, learner = self._config, self._fleet.learners[0]
        asked = learner.handle.can_pack.remote()
        can_pack = await finish(
            asked, deadline_s=config.learner.step_deadline_s, stage="train", actor=learner.name, item="its layout"
        )
        self._settings = PlanSettings(
            learner=config.learner,
            max_tokens=config.rollout.sampling.max_tokens,
            seed=config.seed,
            component_weights={part.component: part.weight for part in config.reward.components},
            packed=can_pack,
        )
        return self._settings

    def _plan(self, batch: TrainBatch, settings: PlanSettings) -> tuple[StepPlan, tuple[RankShare, ...]]:
        plan, num_ranks = plan_step(batch, settings), len(self._fleet.learners)
        return plan, shares(batch, plan, settings, num_ranks=num_ranks, accumulated=self._accumulated)
