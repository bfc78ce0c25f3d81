"""The learner's ranks as one: their calls in one order, and all of them started again when one is lost.

    use(work) --lock--> work() --a rank fails--> restart all ranks -> newest checkpoint -> replay -> work() again

Ranks meet in collective calls, so one that is lost leaves the others waiting: they are replaced together. The steps
since the newest checkpoint are trained again on the groups that were recorded with them, so nothing is sampled twice;
where arithmetic is deterministic, the weights are the same to the last bit.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from itertools import count
from typing import Any, TypeVar

from cluster.config import RunConfig
from cluster.errors import ActorFailedError, LedgerError, ObjectLostError, StageTimeoutError
from cluster.fleet.actors import Fleet
from cluster.fleet.deadlines import finish_all
from cluster.fleet.objects import OPEN_DEADLINE_S
from cluster.fleet.recovery import Recovery
from cluster.record.run_directory import RunDirectory
from cluster.record.run_record import TrainedStep
from cluster.weights.checkpointing import Checkpoints
from learner.algorithm.plan import PlanSettings, plan_step, shares
from learner.types import ComputedTokens, RankShare, StepPlan, TrainBatch
from rollout.types import RolloutGroup

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LearnerParts:
    """What a learner group works with; one of each in a run."""

    recovery: Recovery
    checkpoints: Checkpoints
    run: RunDirectory


class LearnerGroup:
    """All ranks of the learner. `start_step` training steps are in the weights that they hold now."""

    def __init__(
        self,
        config: RunConfig,
        fleet: Fleet,
        parts: LearnerParts,
        *,
        start_step: int,
        on_restart: Callable[[str], None],
    ) -> None:
        """`on_restart` is told, in one sentence, of each restart."""
        self._config = config
        self._fleet = fleet
        self._recovery = parts.recovery
        self._checkpoints = parts.checkpoints
        self._run = parts.run
        self._on_restart = on_restart
        self._settings = PlanSettings(
            learner=config.learner,
            max_tokens=config.rollout.sampling.max_tokens,
            seed=config.seed,
            component_weights={part.component: part.weight for part in config.reward.components},
        )
        self._steps_done = start_step
        self._last: tuple[TrainBatch, Sequence[RolloutGroup]] | None = None
        # Every rank must see one order of calls: a collective call of one kind never meets another's.
        self._lock = asyncio.Lock()
        self.is_whole = True
        """Whether the ranks stand at the end of a step: False within one, and after a failure that was not mended."""

    async def train(self, batch: TrainBatch, groups: Sequence[RolloutGroup]) -> TrainedStep:
        """One training step on every rank. `groups` are the completions of the batch: a rank fetches what it needs by
        reference, but they are opened before the first rank is asked. Ranks meet in collective calls, so a group that
        only one of them cannot have would leave the others waiting.

        Errors: `RestartsExhaustedError`; what a rank raises as a `ShoalError`.
        """
        tries = count()

        async def work() -> TrainedStep:
            # After a failure from here: what a rank could not have may be what was lost with a node.
            return await self._train(self._put(batch, groups) if next(tries) else batch, groups)

        trained = await self.use(work, moves_weights=True)
        self._steps_done, self._last = batch.step + 1, (batch, groups)
        return trained

    async def use(self, work: Callable[[], Awaitable[T]], *, moves_weights: bool = False) -> T:
        """Runs something that calls the ranks, alone; once more whenever a rank was lost in it and all were restarted.
        Where it moves no weights, the ranks may still be saved after it was cancelled: each does what it was asked.

        Errors: of `work`; `RestartsExhaustedError`.
        """
        names = {learner.name for learner in self._fleet.learners}
        async with self._lock:
            while True:
                try:
                    self.is_whole = not moves_weights
                    result = await work()
                except (ActorFailedError, StageTimeoutError) as error:
                    if error.actor not in names:
                        self.is_whole = True
                        raise
                    self.is_whole = False
                    await self._restart(error)
                except asyncio.CancelledError:
                    raise  # in the middle of what the ranks do: not whole, if it was a step
                except BaseException:
                    self.is_whole = True  # the ranks answered; what they were used for failed elsewhere
                    raise
                else:
                    self.is_whole = True
                    return result

    async def _train(self, batch: TrainBatch, groups: Sequence[RolloutGroup]) -> TrainedStep:
        learners, deadline_s = self._fleet.learners, self._config.learner.step_deadline_s
        plan, dealt = await asyncio.to_thread(self._plan, batch)
        payloads = {scored.group_id: scored.group.payload for scored in batch.groups}
        calls = [
            learner.handle.train_step.options(num_returns=2).remote(share, *(payloads[i] for i in share.group_ids))
            for learner, share in zip(learners, dealt, strict=True)
        ]
        try:
            outputs = await finish_all(
                [output for output, _ in calls],
                deadline_s=deadline_s,
                stage="train",
                actors=[learner.name for learner in learners],
                item=f"step {batch.step}",
            )
            tokens = await self._tokens([tokens for _, tokens in calls])
        except ObjectLostError as error:
            # The other ranks are in the step, and wait for the one that could not begin: all are replaced.
            raise ActorFailedError("train", learners[0].name, f"step {batch.step}", str(error)) from error
        return TrainedStep(
            batch=batch,
            groups=tuple(groups),
            advantages=plan.advantages,
            outputs=tuple(outputs),
            tokens=tuple(tokens),
        )

    async def _tokens(self, references: Sequence[Any]) -> list[ComputedTokens]:
        """What the ranks computed. Errors: `ObjectLostError`, also where it does not come in time: then the step is
        taken again, and not lost."""
        try:
            return await asyncio.to_thread(self._fleet.objects.get, references, deadline_s=OPEN_DEADLINE_S)
        except StageTimeoutError as error:
            raise ObjectLostError(str(error)) from error

    def _plan(self, batch: TrainBatch) -> tuple[StepPlan, tuple[RankShare, ...]]:
        plan = plan_step(batch, self._settings)
        return plan, shares(batch, plan, self._settings, num_ranks=len(self._fleet.learners))

    async def _restart(self, error: ActorFailedError | StageTimeoutError) -> None:
        """Until the ranks are back where they were. Errors: `RestartsExhaustedError`."""
        supervisor = self._recovery.supervisor
        failure: ActorFailedError | StageTimeoutError | None = error
        restarting: set[str] = set()
        while failure is not None:
            if isinstance(failure, StageTimeoutError):
                await self._recovery.hung.tell(self._fleet.learners)
            self._recovery.learner_failed(failure.actor, failure)
            self._recovery.begin_restart(failure.actor)
            restarting.add(failure.actor)
            try:
                await self._fleet.restart_learners()
                replayed = await self._replay()
            except (ActorFailedError, StageTimeoutError) as again:
                failure = again
            else:
                for name in sorted(restarting):
                    supervisor.started(name)
                restarted = f"all ranks were restarted and {replayed} steps trained again"
                self._on_restart(f"{failure}; {restarted}{self._caveat(replayed)}")
                failure = None

    def _caveat(self, replayed: int) -> str:
        """Where arithmetic may differ from one time to the next, a version is not one set of weights any more."""
        if not replayed or self._config.deterministic:
            return ""
        return (
            f"; without `deterministic` the weights of version {self._steps_done} that come of it may differ in their "
            "last digits from those that were sampled from before"
        )

    async def _replay(self) -> int:
        """Loads the newest checkpoint (of a run without one: nothing, the ranks start with the model) and trains what
        came after it again; returns how many steps."""
        step = version = 0
        if self._checkpoints.exists():
            path, state = await self._checkpoints.newest_beside()
            await self._checkpoints.load_learners(self._fleet, path)
            step, version = state.step, state.policy_version
        first = step
        while step < self._steps_done:
            # The last one may not be on record yet: it is, once its weights were published.
            if self._last is not None and self._last[0].step == step:
                last, groups = self._last
                batch = self._put(last, groups)
            else:
                opened = await asyncio.to_thread(self._run.read_batch, step)
                groups = tuple(of.group for of in opened)
                recorded = TrainBatch(step=step, policy_version=version, groups=tuple(of.scored for of in opened))
                batch = self._put(recorded, groups)
            if batch.policy_version != version:
                raise LedgerError(
                    f"step {step} was trained from version {batch.policy_version}, but its replay came to version "
                    f"{version}; resume the run from its checkpoint"
                )
            version = (await self._train(batch, groups)).outputs[0].policy_version
            step += 1
        return step - first

    def _put(self, batch: TrainBatch, groups: Sequence[RolloutGroup]) -> TrainBatch:
        """The batch with its groups in the object store anew, owned by this process."""
        put = self._fleet.objects.put
        return replace(
            batch,
            groups=tuple(
                replace(scored, group=replace(scored.group, payload=put(group)))
                for scored, group in zip(batch.groups, groups, strict=True)
            ),
        )
