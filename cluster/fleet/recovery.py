"""What acts on the supervisor: probes actors, starts lost ones again, and lets nobody use one that is not healthy.

    watch --probe--> supervisor --dead--> restart the process --sampler--> weight sync with it alone --> HEALTHY
    pipeline, router, sync --failed, succeeded--> supervisor
    pipeline, router, evaluation <--usable-- (waits while nobody is)

Samplers, reward workers and reward models recover while the run goes on; `LearnerGroup` does the same for the learner.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any

from cluster.config import RecoveryConfig
from cluster.errors import ActorFailedError, NeverWorkedError, RestartsExhaustedError, StageTimeoutError
from cluster.fleet.actors import Actor, Fleet, SamplerActor
from cluster.fleet.deadlines import RECOVERABLE, finish
from cluster.fleet.roles import H, role_of
from cluster.fleet.subscriptions import WaitedForSubscribers
from cluster.fleet.supervisor import HealthPolicy, Supervisor
from cluster.types import ActorState, Transition
from rollout.errors import EngineError, ShoalError

TICK_S = 0.2
"""How often the states are looked at: a death is acted on within it."""

Spawn = Callable[[Coroutine[Any, Any, None]], object]


class Recovery:
    """Keeps the samplers, reward workers and reward models of a fleet alive, with tasks that `spawn` starts."""

    def __init__(
        self, config: RecoveryConfig, fleet: Fleet, spawn: Spawn, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._config = config
        self._spawn = spawn
        self.fleet = fleet
        self.hung: WaitedForSubscribers[Sequence[Actor[Any]]] = WaitedForSubscribers()
        """Told of actors that did not answer in time, before their processes are replaced."""
        self.restarted: WaitedForSubscribers[SamplerActor] = WaitedForSubscribers()
        """Told of a sampler whose process is a new one: here it is given weights, verified, and called synced."""
        self._samplers = {actor.name: actor for actor in fleet.samplers}
        self._others = fleet.others
        self._changed = asyncio.Event()
        self._last_error: dict[str, ShoalError] = {}
        self._last_failed: dict[str, int] = {}
        """The incarnation of each that failed last."""
        self._has_sampled = False
        """Whether any sampler has done any work. What fails before that is more likely asked for what it cannot do."""
        self._never_worked: NeverWorkedError | None = None
        self.supervisor = Supervisor(
            HealthPolicy(
                unhealthy_after=config.unhealthy_after,
                probe_every_s=config.probe_every_s,
                max_restarts=config.max_restarts,
            ),
            clock,
            samplers=tuple(actor.name for actor in fleet.samplers),
            others=(*self._others, *(learner.name for learner in fleet.learners)),
        )
        self.supervisor.changes.subscribe(self._note_change)

    # Who may be used.

    async def usable(self, actors: Sequence[Actor[H]]) -> list[Actor[H]]:
        """Those that may be given work; waits until there is one. It has no deadline of its own: an actor is either
        restarted within its start deadline, or the budget of restarts ends the run."""
        while not (found := [actor for actor in actors if self.supervisor.is_usable(actor.name)]):
            await self._next_change()
        return found

    async def all_usable(self, actors: Sequence[Actor[Any]]) -> None:
        """Waits until all of them may be given work."""
        while not all(self.supervisor.is_usable(actor.name) for actor in actors):
            await self._next_change()

    def reachable_samplers(self) -> list[SamplerActor]:
        """Those that a weight sync includes: their process runs."""
        gone = (ActorState.DEAD, ActorState.RESTARTING)
        return [actor for actor in self.fleet.samplers if self.supervisor.state(actor.name) not in gone]

    # What is told.

    def failed(self, actor: Actor[Any], incarnation: int, error: ShoalError) -> None:
        """Work given to `actor` failed. `incarnation` is that of the process it was given to: news of one that was
        replaced since, or is being replaced, says nothing of the new one."""
        if self._is_replaced(actor, incarnation):
            return
        self._note_error(actor, error)
        # An engine that failed has failed for good; its process only lives on to say so.
        if isinstance(error, EngineError) or (isinstance(error, ActorFailedError) and error.died):
            self.supervisor.died(actor.name, str(error))
        else:
            self.supervisor.work_failed(actor.name, str(error))

    def sync_failed(self, actor: Actor[Any], incarnation: int, error: ShoalError) -> None:
        """It did not get through a weight sync: it holds nothing that it may serve, and would stay STALE."""
        if not self._is_replaced(actor, incarnation):
            self._note_error(actor, error)
            self.supervisor.died(actor.name, str(error))

    def _note_error(self, actor: Actor[Any], error: ShoalError) -> None:
        before = self._last_error.get(actor.name)
        is_another_process = self._last_failed.get(actor.name, actor.incarnation) != actor.incarnation
        self._last_error[actor.name], self._last_failed[actor.name] = error, actor.incarnation
        # A process that ended, or did not answer, may fare better the next time; what an engine itself says twice it
        # says a third time.
        is_same = isinstance(error, EngineError) and str(before) == str(error)
        if is_same and is_another_process and not self._has_sampled:
            self._never_worked = NeverWorkedError(actor.name, str(error))

    def _is_replaced(self, actor: Actor[Any], incarnation: int) -> bool:
        # One that is RESTARTING has the old number for a moment. A second restart would kill the first one's process.
        return incarnation != actor.incarnation or self.supervisor.state(actor.name) is ActorState.RESTARTING

    def learner_failed(self, name: str, error: ShoalError) -> None:
        """A rank failed, or did not answer in time: its group is restarted in any case."""
        self._last_error[name] = error
        self.supervisor.died(name, str(error))

    def succeeded(self, actor: Actor[Any], incarnation: int) -> None:
        """Work given to `actor`, in that incarnation, was done."""
        self._has_sampled = self._has_sampled or actor.name in self._samplers
        if incarnation == actor.incarnation:
            self.supervisor.work_succeeded(actor.name)

    # What it does.

    async def watch(self) -> None:
        """Probes and restarts, until it is cancelled. Errors: `RestartsExhaustedError`, `NeverWorkedError`."""
        while True:
            if self._never_worked is not None:
                raise self._never_worked
            for name in self.supervisor.due_probes():
                actor = self._restarted_alone(name)
                probe = role_of(name).probe
                if actor is not None and probe is not None:
                    self._spawn(self._probe(actor, probe))
            for name in self.supervisor.dead():
                actor = self._restarted_alone(name)
                if actor is not None:  # else it is a learner, which `LearnerGroup` restarts with its group
                    self.begin_restart(name)
                    self._spawn(self._restart(actor))
            await asyncio.sleep(TICK_S)

    def _restarted_alone(self, name: str) -> Actor[Any] | None:
        return self._samplers.get(name) or self._others.get(name)

    async def _probe(self, actor: Actor[H], probe: Callable[[H], Awaitable[object]]) -> None:
        incarnation = actor.incarnation
        try:
            await finish(
                probe(actor.handle),
                deadline_s=self._config.probe_deadline_s,
                stage="probe",
                actor=actor.name,
                item="a probe",
            )
        except RECOVERABLE as error:
            if self._is_replaced(actor, incarnation):
                return
            self._note_error(actor, error)
            if isinstance(error, EngineError) or (isinstance(error, ActorFailedError) and error.died):
                self.supervisor.died(actor.name, f"probe: {error}")
            else:
                self.supervisor.probe_failed(actor.name, str(error))
        else:
            if incarnation == actor.incarnation:
                self.supervisor.probe_answered(actor.name)

    def begin_restart(self, name: str) -> None:
        """Errors: `RestartsExhaustedError`, with what went wrong last."""
        try:
            self.supervisor.begin_restart(name)
        except RestartsExhaustedError as error:
            raise RestartsExhaustedError(name, error.max_restarts, str(self._last_error.get(name, ""))) from error

    async def _restart(self, actor: Actor[Any]) -> None:
        if isinstance(self._last_error.get(actor.name), StageTimeoutError):
            await self.hung.tell([actor])
        try:
            await self.fleet.restart(actor)
        except RECOVERABLE as error:
            self._note_error(actor, error)
            self.supervisor.died(actor.name, f"after its restart: {error}")
            return
        self.supervisor.started(actor.name)
        incarnation = actor.incarnation
        if actor.name not in self._samplers:
            return
        try:
            await self.restarted.tell(actor)
        except RECOVERABLE as error:
            # A sync of all samplers may have met it meanwhile, and had it restarted again.
            self.sync_failed(actor, incarnation, error)

    def _note_change(self, _: Transition) -> None:
        self._changed.set()

    async def _next_change(self) -> None:
        self._changed.clear()
        try:
            # A sync of all samplers changes states quietly, so the event alone would not do.
            await asyncio.wait_for(self._changed.wait(), TICK_S)
        except TimeoutError:
            return
