"""The learner's ranks as one: their calls in one order, and all of them started again when one is lost.

    use(work) --lock--> work() --a rank fails--> restart all ranks -> newest checkpoint -> replay -> work() again

Ranks meet in collective calls, so one that is lost leaves the others waiting: they are replaced together. The steps
since the newest checkpoint are trained again on the groups that were recorded with them, so nothing is sampled twice;
where arithmetic is deterministic, the weights are the same to the last bit.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import count
from typing import TypeVar

from cluster.config import RunConfig
from cluster.errors import ActorFailedError, LedgerError, StageTimeoutError
from cluster.fleet.actors import Fleet
from cluster.fleet.deadlines import finish_all
from cluster.fleet.recovery import Recovery
from cluster.record.run_directory import RunDirectory
from cluster.record.run_record import TrainedStep
from cluster.weights.checkpointing import Checkpoints
from cluster.weights.rank_steps import GIVE_UP_DEADLINE_S, RankSteps
from learner.types import TrainBatch
from rollout.errors import StepGivenUpError
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
        self._ranks = RankSteps(config, fleet)
        self._steps_done = start_step
        self._last: tuple[TrainBatch, Sequence[RolloutGroup]] | None = None
        # Every rank must see one order of calls: a collective call of one kind never meets another's.
        self._lock = asyncio.Lock()
        self._is_whole = True
        self.is_accumulating = False
        """Whether the ranks were asked for gradients that they are still computing."""
        self._given_up = -1
        """The step that was asked to be given up."""
        self._restarting: set[str] = set()
        """Ranks whose restart was counted and has not ended."""
        self._lost: ActorFailedError | StageTimeoutError | None = None
        """Why the ranks must be started again before anything else is asked of them."""

    @property
    def is_whole(self) -> bool:
        """Whether the ranks stand at the end of a step, or `use` brings them there first: False within a step, and
        after a failure that could not be mended."""
        return self._is_whole or self._lost is not None

    async def train(self, batch: TrainBatch, groups: Sequence[RolloutGroup]) -> TrainedStep:
        """One training step on every rank. `groups` are the completions of the batch: a rank fetches what it needs by
        reference, but they are opened before the first rank is asked. Ranks meet in collective calls, so a group that
        only one of them cannot have would leave the others waiting.

        Errors: `RestartsExhaustedError`; what a rank raises as a `ShoalError`, `StepGivenUpError` among it.
        """
        tries = count()

        async def work() -> TrainedStep:
            if self._given_up == batch.step:  # asked for while the ranks were started again
                raise StepGivenUpError(f"step {batch.step} was given up")
            # After a failure from here: what a rank could not have may be what was lost with a node.
            return await self._ranks.train(self._put(batch, groups) if next(tries) else batch, groups)

        trained = await self.use(work, moves_weights=True)
        self._steps_done, self._last = batch.step + 1, (batch, groups)
        return trained

    async def accumulate(self, part: TrainBatch, groups: Sequence[RolloutGroup]) -> None:
        """Adds up the gradients of some groups of the step that comes, while others are sampled
        (`LearnerConfig.streaming`). Ranks that are replaced afterwards hold none: then `train` computes them again.

        Errors: as `train`.
        """
        tries = count()

        async def work() -> None:
            if self._given_up == part.step:
                raise StepGivenUpError(f"step {part.step} was given up")
            self.is_accumulating = True
            try:
                await self._ranks.accumulate(self._put(part, groups) if next(tries) else part)
            finally:
                self.is_accumulating = False

        await self.use(work)

    async def give_up(self, step: int) -> None:
        """Asks the ranks to end a step that `train` was asked for before it moves the weights; `train` raises
        `StepGivenUpError` then. Where that is too late, or a rank does not answer, the step goes on to its end."""
        learners = self._fleet.learners
        self._given_up = step

        async def ask(calls: Sequence[Awaitable[T]]) -> list[T]:
            names = [learner.name for learner in learners]
            return await finish_all(
                calls, deadline_s=GIVE_UP_DEADLINE_S, stage="train", actors=names, item=f"the end of step {step}"
            )

        async def decide(at: int | None) -> None:
            deciding = [one.handle.decide_step.options(concurrency_group="beside") for one in learners]
            await ask([method.remote(step, at) for method in deciding])

        try:
            held = await ask(
                [one.handle.hold_step.options(concurrency_group="beside").remote(step) for one in learners]
            )
            passes = [number for number in held if number is not None]
            await decide(max(passes) if len(passes) == len(held) else None)
        except (ActorFailedError, StageTimeoutError):
            # A rank that is gone: `train` finds out by itself. Those that wait for a decision go on meanwhile.
            with suppress(ActorFailedError, StageTimeoutError):
                await decide(None)

    async def use(self, work: Callable[[], Awaitable[T]], *, moves_weights: bool = False) -> T:
        """Runs something that calls the ranks, alone; once more whenever a rank was lost in it and all were restarted.
        Where it moves no weights, the ranks may still be saved after it was cancelled: each does what it was asked. A
        restart that was cancelled is made up for by the next use: new ranks hold the model's weights until then.

        Errors: of `work`; `RestartsExhaustedError`.
        """
        names = {learner.name for learner in self._fleet.learners}
        async with self._lock:
            while True:
                if self._lost is not None:
                    await self._make_whole(self._lost)
                try:
                    self._is_whole = not moves_weights
                    result = await work()
                except (ActorFailedError, StageTimeoutError) as error:
                    self._is_whole = error.actor not in names
                    if self._is_whole:
                        raise
                    self._lost = error
                except asyncio.CancelledError:
                    raise  # in the middle of what the ranks do: not whole, if it was a step
                except BaseException:
                    self._is_whole = True  # the ranks answered; what they were used for failed elsewhere
                    raise
                else:
                    self._is_whole = True
                    return result

    async def _make_whole(self, lost: ActorFailedError | StageTimeoutError) -> None:
        try:
            await self._restart(lost)
        except asyncio.CancelledError:
            raise  # it is still to be done
        except BaseException:
            self._lost = None
            self._restarting.clear()
            raise
        self._lost = None

    async def _restart(self, error: ActorFailedError | StageTimeoutError) -> None:
        """Until the ranks are back where they were. Errors: `RestartsExhaustedError`."""
        supervisor = self._recovery.supervisor
        failure: ActorFailedError | StageTimeoutError | None = error
        while failure is not None:
            if failure is not error or not self._restarting:  # else it was counted before the restart was cut short
                if isinstance(failure, StageTimeoutError):
                    await self._recovery.hung.tell(self._fleet.learners)
                self._recovery.learner_failed(failure.actor, failure)
                self._recovery.begin_restart(failure.actor)
                self._restarting.add(failure.actor)
            try:
                self._ranks.forget()
                await self._fleet.restart_learners()
                replayed = await self._replay()
            except (ActorFailedError, StageTimeoutError) as again:
                failure = again
            else:
                for name in sorted(self._restarting):
                    supervisor.started(name)
                self._restarting.clear()
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
            version = (await self._ranks.train(batch, groups)).outputs[0].policy_version
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
