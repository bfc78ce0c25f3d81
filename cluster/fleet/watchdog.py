"""Notices when a run makes no progress, whatever the cause, and writes down what every process is doing.

    pipeline, evaluation --a scored group--> Progress <--a step-- learner
                                                | nothing for stall_s, once per stall
                                                v
           RUN/stacks/NNN-ACTOR.txt, an event, then as configured: warn | restart who has work | end the run

Every single wait has a deadline of its own; the watchdog is for what these do not cover, and for learning why.
"""

import asyncio
from collections.abc import Awaitable, Callable

from cluster.config import RecoveryConfig
from cluster.errors import StallError
from cluster.fleet.actors import Actor, RewardActor, SamplerActor
from cluster.fleet.deadlines import finish
from cluster.fleet.progress import Progress
from cluster.fleet.recovery import Recovery
from cluster.fleet.roles import H
from cluster.fleet.stack_files import StackFiles
from cluster.types import ActorState
from rollout.errors import ShoalError

STATUS_DEADLINE_S = 5.0
MIN_TICK_S, MAX_TICK_S = 0.2, 10.0


class Watchdog:
    """Watches the progress of one run and acts on a stall. `is_scoring` tells whether the reward worker of that name
    has groups."""

    def __init__(
        self,
        config: RecoveryConfig,
        recovery: Recovery,
        progress: Progress,
        stacks: StackFiles,
        is_scoring: Callable[[str], bool] = lambda _: False,
    ) -> None:
        self._config = config
        self._fleet = recovery.fleet
        self._recovery = recovery
        self._progress = progress
        self._stacks = stacks
        self._is_scoring = is_scoring

    async def watch(self) -> None:
        """Until it is cancelled. Errors: `StallError` where the configuration says that a stall ends the run."""
        tick_s = min(MAX_TICK_S, max(MIN_TICK_S, self._config.stall_s / 20))
        while True:
            if self._progress.new_stall():
                await self._act()
            await asyncio.sleep(tick_s)

    async def _act(self) -> None:
        fleet, action, progress = self._fleet, self._config.on_stall, self._progress
        idle_s = progress.idle_s
        place = await self._stacks.write(fleet.actors)
        text = (
            f"no group was scored and no step trained for {idle_s:.0f} s (recovery.stall_s), after "
            f"{progress.groups_scored} groups and {progress.steps_trained} steps; the stacks of all actors are in "
            f"{place}"
        )
        self._stacks.record_stall(text, action=action, stacks=place, idle_s=idle_s)
        if action == "abort":
            raise StallError(f"{text}; see there what waits for what, then resume the run")
        if action == "restart":
            for sampler in self._fleet.samplers:
                await self._give_up_if(sampler, _has_work)
            for worker in self._fleet.rewards:
                await self._give_up_if(worker, self._scores)

    async def _scores(self, worker: RewardActor) -> bool:
        return self._is_scoring(worker.name)

    async def _give_up_if(self, actor: Actor[H], has_work: Callable[[Actor[H]], Awaitable[bool]]) -> None:
        # One that is STALE is in the middle of a sync or a restart, which have deadlines of their own.
        usable = (ActorState.HEALTHY, ActorState.SUSPECT)
        supervisor = self._recovery.supervisor
        incarnation = actor.incarnation
        if supervisor.state(actor.name) not in usable or not await has_work(actor):
            return
        if incarnation == actor.incarnation and supervisor.state(actor.name) in usable:
            supervisor.died(actor.name, f"given up: it has work and nothing came for {self._progress.idle_s:.0f} s")


async def _has_work(sampler: SamplerActor) -> bool:
    """Also when it does not say: an idle sampler answers."""
    try:
        status = await finish(
            sampler.handle.status.remote(),
            deadline_s=STATUS_DEADLINE_S,
            stage="stall",
            actor=sampler.name,
            item="its status",
        )
    except ShoalError:
        return True
    return bool(status.num_running_groups > 0)
