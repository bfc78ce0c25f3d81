from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cluster.errors import RestartsExhaustedError
from cluster.fleet.supervisor import HealthPolicy, Supervisor
from cluster.types import ActorState, Transition

HEALTHY, SUSPECT, DEAD = ActorState.HEALTHY, ActorState.SUSPECT, ActorState.DEAD
RESTARTING, STALE = ActorState.RESTARTING, ActorState.STALE


class Watched:
    """A supervisor of a sampler, which serves, and a reward worker; its clock and what it told."""

    def __init__(self, *, max_restarts: int = 2) -> None:
        self.now_s = 100.0
        self.told: list[Transition] = []
        self.it = Supervisor(
            HealthPolicy(unhealthy_after=3, probe_every_s=10.0, max_restarts=max_restarts),
            lambda: self.now_s,
            samplers=("s",),
            others=("r",),
        )
        self.it.changes.subscribe(self.told.append)
        self.it.synced("s", 0)

    def state(self) -> ActorState:
        return self.it.state("s")


def test_a_sampler_is_stale_until_its_first_sync_and_a_reward_worker_needs_none() -> None:
    supervisor = Supervisor(HealthPolicy(), lambda: 0.0, samplers=("s",), others=("r",))
    assert supervisor.states() == {"s": STALE, "r": HEALTHY}
    assert not supervisor.is_usable("s")
    supervisor.synced("s", 0)
    assert supervisor.is_usable("s")


def test_failures_in_a_row_make_it_suspect_and_then_dead() -> None:
    watched = Watched()
    for expected in (SUSPECT, SUSPECT, DEAD):
        watched.it.work_failed("s", "no answer")
        assert watched.state() is expected
    assert [(t.old, t.new, t.at_s) for t in watched.told] == [(HEALTHY, SUSPECT, 100.0), (SUSPECT, DEAD, 100.0)]
    assert watched.told[-1].reason == "no answer (3 in a row)"
    watched.it.work_failed("s", "again")
    assert len(watched.told) == 2


def test_an_engine_that_answers_probes_and_fails_at_all_work_is_given_up() -> None:
    watched = Watched()
    for _ in range(3):
        watched.it.probe_answered("s")
        watched.it.work_failed("s", "no answer")
    assert watched.state() is DEAD


def test_the_streaks_are_apart() -> None:
    watched = Watched()
    for _ in range(2):
        watched.it.work_failed("s", "no answer")
        watched.it.probe_failed("s", "silence")
    assert watched.state() is SUSPECT  # two and two, none of three
    watched.it.probe_answered("s")
    assert watched.state() is SUSPECT  # only work ends a streak of work
    watched.it.work_succeeded("s")
    assert watched.state() is HEALTHY
    watched.it.probe_failed("s", "silence")
    assert watched.state() is SUSPECT
    watched.it.probe_answered("s")
    assert watched.state() is HEALTHY


def test_a_suspect_is_tried_again_a_probes_interval_after_its_failure_unless_its_probes_fail() -> None:
    watched = Watched()
    watched.it.work_failed("s", "no answer")
    watched.now_s += 9.9
    assert not watched.it.is_usable("s")
    watched.now_s += 0.1
    assert watched.it.is_usable("s")
    watched.it.probe_failed("s", "silence")
    assert not watched.it.is_usable("s")
    watched.it.probe_answered("s")
    assert watched.it.is_usable("s")
    assert watched.state() is SUSPECT


def test_a_dead_sampler_serves_again_only_after_a_sync_and_a_reward_worker_at_once() -> None:
    watched = Watched()
    for name, then in (("s", STALE), ("r", HEALTHY)):
        watched.it.died(name, "killed")
        assert watched.it.dead() == [name]
        watched.it.begin_restart(name)
        assert (watched.it.state(name), watched.it.dead()) == (RESTARTING, [])
        watched.it.synced("s", 3) if name == "s" else None
        assert watched.it.state(name) is RESTARTING
        watched.it.started(name)
        assert watched.it.state(name) is then
    watched.it.synced("s", 3)
    assert watched.state() is HEALTHY
    assert watched.told[-1].reason == "serves version 3"


def test_a_start_or_a_sync_that_fails_is_a_death_again() -> None:
    watched = Watched()
    watched.it.died("s", "killed")
    watched.it.begin_restart("s")
    watched.it.died("s", "it could not start")
    watched.it.begin_restart("s")
    watched.it.started("s")
    watched.it.died("s", "its sync failed")
    assert watched.state() is DEAD
    assert watched.it.num_restarts == 2


def test_restarts_of_all_actors_together_have_a_budget() -> None:
    watched = Watched(max_restarts=2)
    for name in ("s", "r"):
        watched.it.died(name, "killed")
        watched.it.begin_restart(name)
        watched.it.started(name)
    watched.it.died("r", "killed")
    with pytest.raises(RestartsExhaustedError, match=r"used up its 2 restarts \(recovery.max_restarts\)"):
        watched.it.begin_restart("r")
    assert (watched.it.state("r"), watched.it.num_restarts) == (DEAD, 2)


def test_probes_are_due_by_the_clock_and_of_those_that_may_serve() -> None:
    watched = Watched()
    watched.now_s = 109.9
    assert watched.it.due_probes() == []
    watched.now_s = 110.0
    assert watched.it.due_probes() == ["s", "r"]
    assert watched.it.due_probes() == []
    watched.it.work_failed("s", "no answer")
    watched.it.died("r", "killed")
    watched.now_s = 120.0
    assert watched.it.due_probes() == ["s"]
    watched.now_s = 125.0
    watched.it.update_began("s")
    watched.now_s = 135.0
    assert watched.it.due_probes() == []
    watched.it.synced("s", 1)
    watched.now_s = 144.9
    assert watched.it.due_probes() == []  # a sync is a sign of life: the clock starts there
    watched.now_s = 145.0
    assert watched.it.due_probes() == ["s"]


def test_an_update_makes_it_stale_without_a_word_and_nothing_counts_until_it_is_synced() -> None:
    watched = Watched()
    watched.it.update_began("s")
    assert (watched.state(), watched.told) == (STALE, [])
    for _ in range(3):
        watched.it.work_failed("s", "no answer")
        watched.it.probe_failed("s", "silence")
    watched.it.probe_answered("s")
    watched.it.work_succeeded("s")
    assert watched.state() is STALE
    watched.it.synced("s", 1)
    assert (watched.state(), watched.told) == (HEALTHY, [])


CALLS = st.lists(
    st.sampled_from(
        (
            *("probe_answered", "probe_failed", "work_succeeded", "work_failed", "died", "restart", "started"),
            *("update_began", "synced", "wait"),
        )
    ),
    max_size=60,
)
ALLOWED = {
    (HEALTHY, SUSPECT),
    (HEALTHY, DEAD),
    (SUSPECT, HEALTHY),
    (SUSPECT, DEAD),
    (DEAD, RESTARTING),
    (RESTARTING, STALE),
    (RESTARTING, DEAD),
    (STALE, HEALTHY),
    (STALE, DEAD),
    # Quietly, at the begin of a weight sync.
    (HEALTHY, STALE),
    (SUSPECT, STALE),
}


@given(calls=CALLS, max_restarts=st.integers(0, 5))
@settings(max_examples=400, deadline=None)
def test_no_sequence_of_calls_leads_around_restart_and_sync(calls: list[Any], max_restarts: int) -> None:
    watched = Watched(max_restarts=max_restarts)
    verified = True  # whether the process holds weights that were verified
    for call in calls:
        before = watched.state()
        if call == "wait":
            watched.now_s += 7.0
        elif call == "restart":
            if before is DEAD and watched.it.num_restarts < max_restarts:
                watched.it.begin_restart("s")
        elif call == "started":
            if before is RESTARTING:
                watched.it.started("s")
        elif call == "synced":
            watched.it.synced("s", 1)
            verified = verified or before is STALE
        else:
            reason = ("why",) if call in ("probe_failed", "work_failed", "died") else ()
            getattr(watched.it, call)("s", *reason)
        after = watched.state()
        assert before is after or (before, after) in ALLOWED, (call, before, after)
        verified = verified and after not in (DEAD, RESTARTING, STALE)
        assert not watched.it.is_usable("s") or verified
        assert watched.it.num_restarts <= max_restarts
        if after is HEALTHY and before is not HEALTHY:
            assert call in ("synced", "probe_answered", "work_succeeded")
