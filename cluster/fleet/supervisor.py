"""Health of the actors: a pure state machine. Time comes from outside, and nothing here waits, kills or starts.

               failure, or a probe unanswered                 unhealthy_after of them in a row, or a death
    HEALTHY ------------------------------------> SUSPECT ---------------------------------------------> DEAD
       ^  ^------------ a group or a probe answered --+                                                   |
       |                                                                          begin_restart (budget)  |
       | synced                                  started                                                  v
       +---------------------------- STALE <--------------------------------------------------------- RESTARTING
                                       |                                 it could not start: DEAD again
                                       +--- a failed sync, or a death: DEAD

A sampler that holds no verified weights is STALE and gets no work: only a verified weight sync makes it HEALTHY. An
actor without weights (a reward worker) is HEALTHY as soon as it has started.

Two streaks are counted apart, since a wedged engine still answers: failed probes, which an answered probe ends, and
reported failures of real work, which only real work that succeeds ends.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from cluster.errors import RestartsExhaustedError
from cluster.fleet.subscriptions import Subscribers
from cluster.types import ActorState, Transition


@dataclass(frozen=True, slots=True, kw_only=True)
class HealthPolicy:
    """When an actor is given up, and how often one may be started again."""

    unhealthy_after: int = 3
    """Failed probes in a row, or reported failures in a row, after which an actor is DEAD."""
    probe_every_s: float = 10.0
    max_restarts: int = 10
    """Restarts of all actors together over the run."""


@dataclass(slots=True)
class _Actor:
    has_weights: bool
    state: ActorState
    told: ActorState | None = None
    """The state that is on record; None before the first change."""
    failed_probes: int = 0
    reported_failures: int = 0
    failed_s: float = 0.0
    """Time of the newest reported failure."""
    restarts: int = 0
    probed_s: float = 0.0


class Supervisor:
    """States of a run's actors. Every method that changes one tells the subscribers of `changes`."""

    def __init__(
        self,
        policy: HealthPolicy,
        clock: Callable[[], float],
        *,
        samplers: tuple[str, ...],
        others: tuple[str, ...] = (),
    ) -> None:
        self._policy = policy
        self._clock = clock
        self.changes: Subscribers[Transition] = Subscribers()
        started = clock()
        self._actors = {name: _Actor(has_weights=True, state=ActorState.STALE, probed_s=started) for name in samplers}
        self._actors |= {name: _Actor(has_weights=False, state=ActorState.HEALTHY, probed_s=started) for name in others}

    # What is asked.

    def state(self, name: str) -> ActorState:
        """That of one actor now."""
        return self._actors[name].state

    def states(self) -> Mapping[str, ActorState]:
        """Those of all, by name."""
        return {name: actor.state for name, actor in self._actors.items()}

    def is_usable(self, name: str) -> bool:
        """Whether it may be given work. One that failed at some, and answers, is tried again a probe's interval later:
        only work that succeeds ends that streak, and there would be none while nobody else is left to ask."""
        actor = self._actors[name]
        if actor.state is ActorState.SUSPECT and actor.failed_probes == 0:
            return self._clock() - actor.failed_s >= self._policy.probe_every_s
        return actor.state is ActorState.HEALTHY

    @property
    def num_restarts(self) -> int:
        """Of all actors together."""
        return sum(actor.restarts for actor in self._actors.values())

    def dead(self) -> list[str]:
        """Actors that wait to be restarted."""
        return [name for name, actor in self._actors.items() if actor.state is ActorState.DEAD]

    def due_probes(self) -> list[str]:
        """Actors to probe now; the clock of each starts again. A STALE one is waited for by its sync instead."""
        now = self._clock()
        due = [
            name
            for name, actor in self._actors.items()
            if actor.state in (ActorState.HEALTHY, ActorState.SUSPECT)
            and now - actor.probed_s >= self._policy.probe_every_s
        ]
        for name in due:
            self._actors[name].probed_s = now
        return due

    # What is told.

    def probe_answered(self, name: str) -> None:
        """It answers."""
        actor = self._actors[name]
        actor.failed_probes = 0
        # Failures of real work weigh more than probes: an engine may answer these and fail at everything else.
        if actor.state is ActorState.SUSPECT and actor.reported_failures == 0:
            self._move(name, ActorState.HEALTHY, "it answers again")

    def probe_failed(self, name: str, reason: str) -> None:
        """It did not answer in time, or not as it should."""
        actor = self._actors[name]
        if actor.state not in (ActorState.HEALTHY, ActorState.SUSPECT):
            return
        actor.failed_probes += 1
        self._worsen(name, actor.failed_probes, f"probe: {reason}")

    def work_succeeded(self, name: str) -> None:
        """Work that was given to it was done."""
        actor = self._actors[name]
        actor.reported_failures = actor.failed_probes = 0
        if actor.state is ActorState.SUSPECT:
            self._move(name, ActorState.HEALTHY, "its work succeeds again")

    def work_failed(self, name: str, reason: str) -> None:
        """Work that was given to it failed, or its answer did not come in time."""
        actor = self._actors[name]
        if actor.state not in (ActorState.HEALTHY, ActorState.SUSPECT):
            return  # of a process that was given up already
        actor.reported_failures += 1
        actor.failed_s = self._clock()
        self._worsen(name, actor.reported_failures, reason)

    def died(self, name: str, reason: str) -> None:
        """Its process has ended, or it is to be treated as if."""
        if self._actors[name].state is not ActorState.DEAD:
            self._move(name, ActorState.DEAD, reason)

    def begin_restart(self, name: str) -> None:
        """Errors: `RestartsExhaustedError` when the budget is used up; the state stays DEAD."""
        actor = self._actors[name]
        assert actor.state is ActorState.DEAD, (name, actor.state)
        if self.num_restarts >= self._policy.max_restarts:
            raise RestartsExhaustedError(name, self._policy.max_restarts)
        actor.restarts += 1
        self._move(name, ActorState.RESTARTING, f"restart {self.num_restarts} of at most {self._policy.max_restarts}")

    def started(self, name: str) -> None:
        """Its new process is ready."""
        actor = self._actors[name]
        assert actor.state is ActorState.RESTARTING, (name, actor.state)
        actor.failed_probes = actor.reported_failures = 0
        actor.probed_s = self._clock()
        self._move(name, ActorState.STALE if actor.has_weights else ActorState.HEALTHY, "it has started")

    def update_began(self, name: str) -> None:
        """Its weights are being replaced: from here it holds none that were verified."""
        if self._actors[name].state in (ActorState.HEALTHY, ActorState.SUSPECT):
            self._actors[name].state = ActorState.STALE  # every sync does this: no transition to tell of

    def synced(self, name: str, policy_version: int) -> None:
        """Digest and canary agree: it serves this version."""
        actor = self._actors[name]
        assert actor.has_weights, name
        if actor.state is not ActorState.STALE:
            return  # it died while the others were still verified
        actor.probed_s = self._clock()
        # Every sync ends so: it is on record only where the last thing on record was that something is wrong.
        is_known = actor.told in (None, ActorState.HEALTHY)
        self._move(name, ActorState.HEALTHY, f"serves version {policy_version}", quiet=is_known)

    def _worsen(self, name: str, failures: int, reason: str) -> None:
        if failures >= self._policy.unhealthy_after:
            self._move(name, ActorState.DEAD, f"{reason} ({failures} in a row)")
        elif self._actors[name].state is ActorState.HEALTHY:
            self._move(name, ActorState.SUSPECT, reason)

    def _move(self, name: str, new: ActorState, reason: str, *, quiet: bool = False) -> None:
        actor = self._actors[name]
        old, actor.state = actor.state, new
        if not quiet:
            actor.told = new
            self.changes.tell(Transition(actor=name, old=old, new=new, reason=reason, at_s=self._clock()))
