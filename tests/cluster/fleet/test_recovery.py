import asyncio
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from cluster.config import RecoveryConfig
from cluster.errors import ActorFailedError, NeverWorkedError, RestartsExhaustedError, StageTimeoutError
from cluster.fleet.actors import Actor, SamplerActor
from cluster.fleet.recovery import Recovery
from cluster.fleet.subscriptions import WaitedForSubscribers
from cluster.loop.background import BackgroundTasks
from cluster.types import ActorState, Transition
from rollout.errors import EngineError, ShoalError, WeightSyncError
from tests.cluster.examples import ok
from tests.cluster.fakes import FakeHandle, FakeReward, FakeSampler, Journal, fleet_of

DIED = ActorFailedError("sample", "sampler-0", "group 1", "ActorDiedError: killed", died=True)
SLOW = StageTimeoutError("sample", "sampler-0", "group 1", 5.0)
FAST = RecoveryConfig(probe_every_s=0.01, probe_deadline_s=0.05, unhealthy_after=2, max_restarts=3)


class Probed(FakeSampler):
    """Answers probes as it is told to."""

    def __init__(self, journal: Journal, answer: Callable[[], Any] = lambda: None) -> None:
        super().__init__(journal, name="sampler-0")
        self._answer = answer

    def probe(self) -> Any:
        return self._answer()


class Scene:
    """Recovery of one sampler and one reward worker. Restarts and syncs are in the journal; each takes its next
    failure from `start_errors` or `sync_errors`."""

    def __init__(self, *, answer: Callable[[], Any] = lambda: None, config: RecoveryConfig = FAST) -> None:
        self.journal: Journal = []
        self.start_errors: list[ShoalError] = []
        self.sync_errors: list[ShoalError] = []
        self.fleet = fleet_of(samplers=[Probed(self.journal, answer)], rewards=[FakeReward(lambda _: [ok(1), ok(0)])])
        object.__setattr__(self.fleet, "launcher", self)
        self.background = BackgroundTasks()
        self.recovery = Recovery(config, self.fleet, self.background.spawn)
        self.recovery.supervisor.changes.subscribe(self._on_change)
        self.recovery.hung.subscribe(self._on_hung)
        self.recovery.restarted.subscribe(self.sync_alone)
        self.recovery.supervisor.synced("sampler-0", 0)

    @property
    def sampler(self) -> SamplerActor:
        return self.fleet.samplers[0]

    def start(self, name: str) -> Any:
        self.journal.append(("start", name))
        worker = Probed(self.journal) if name == "sampler-0" else FakeReward(lambda _: [ok(1), ok(0)])
        worker.ready = worker.start = self._ready  # type: ignore[union-attr]
        return FakeHandle(worker)

    def start_deadline_s(self, _name: str) -> float:
        return 1.0

    def _ready(self) -> None:
        if self.start_errors:
            raise self.start_errors.pop(0)

    def _on_change(self, change: Transition) -> None:
        self.journal.append(("state", change.actor, str(change.new)))

    async def _on_hung(self, actors: Sequence[Actor[Any]]) -> None:
        self.journal.extend(("hung", actor.name) for actor in actors)

    async def sync_alone(self, actor: SamplerActor) -> None:
        self.journal.append(("sync", actor.name, str(actor.incarnation)))
        assert not self.recovery.supervisor.is_usable(actor.name)
        if self.sync_errors:
            raise self.sync_errors.pop(0)
        self.recovery.supervisor.synced(actor.name, 7)

    async def watched(self, work: Any) -> None:
        """Runs `work` while the recovery acts."""
        self.background.spawn(self.recovery.watch())
        try:
            await asyncio.wait_for(self.background.run_beside(work), 10)
        finally:
            await self.background.cancel()

    def states(self, name: str = "sampler-0") -> list[str]:
        return [entry[2] for entry in self.journal if entry[:2] == ("state", name)]


@pytest.fixture(autouse=True)
def no_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ray.kill", lambda *_, **__: None)
    monkeypatch.setattr("cluster.fleet.recovery.TICK_S", 0.005)


def play(main: Callable[[Scene], Any], **kwargs: Any) -> Scene:
    scene: list[Scene] = []

    async def run() -> None:
        scene.append(Scene(**kwargs))
        await scene[0].watched(main(scene[0]))

    asyncio.run(run())
    return scene[0]


async def usable(scene: Scene, actors: Sequence[Actor[Any]]) -> None:
    assert [actor.name for actor in await scene.recovery.usable(actors)] == [actor.name for actor in actors]


def test_a_dead_sampler_is_restarted_and_synced_alone_before_it_is_used() -> None:
    async def main(scene: Scene) -> None:
        old = scene.sampler.handle
        scene.recovery.failed(scene.sampler, 1, DIED)
        assert scene.recovery.reachable_samplers() == []
        await usable(scene, scene.fleet.samplers)
        assert scene.sampler.incarnation == 2
        assert scene.sampler.handle is not old

    scene = play(main)
    assert scene.journal == [
        ("state", "sampler-0", "DEAD"),
        ("state", "sampler-0", "RESTARTING"),
        ("start", "sampler-0"),
        ("state", "sampler-0", "STALE"),
        ("sync", "sampler-0", "2"),
        ("state", "sampler-0", "HEALTHY"),
    ]
    assert scene.recovery.supervisor.num_restarts == 1


def test_a_reward_worker_is_used_as_soon_as_it_has_started() -> None:
    async def main(scene: Scene) -> None:
        scene.recovery.failed(scene.fleet.rewards[0], 1, DIED)
        await usable(scene, scene.fleet.rewards)

    scene = play(main)
    assert scene.states("reward-0") == ["DEAD", "RESTARTING", "HEALTHY"]
    assert not any(entry[0] == "sync" for entry in scene.journal)


@pytest.mark.parametrize("stage", ["start", "sync"])
def test_a_restart_that_fails_is_tried_again(stage: str) -> None:
    async def main(scene: Scene) -> None:
        errors = scene.start_errors if stage == "start" else scene.sync_errors
        errors.append(EngineError("no memory"))
        scene.recovery.failed(scene.sampler, 1, DIED)
        await usable(scene, scene.fleet.samplers)

    scene = play(main)
    started = ["STALE"] if stage == "sync" else []
    assert scene.states() == ["DEAD", "RESTARTING", *started, "DEAD", "RESTARTING", "STALE", "HEALTHY"]
    assert (scene.recovery.supervisor.num_restarts, scene.sampler.incarnation) == (2, 3)


def test_restarts_that_go_on_failing_use_the_budget_up_and_the_last_cause_is_told() -> None:
    async def main(scene: Scene) -> None:
        scene.start_errors.extend(EngineError(f"no memory ({number})") for number in range(1, 9))
        scene.recovery.failed(scene.sampler, 1, DIED)
        await usable(scene, scene.fleet.samplers)

    with pytest.raises(
        RestartsExhaustedError, match=r"sampler-0 failed \(no memory \(3\)\) .* its 3 restarts"
    ) as caught:
        play(main)
    assert (caught.value.actor, caught.value.max_restarts) == ("sampler-0", 3)


IMPOSSIBLE = "sampler-0: the engine failed: VLLMValidationError: stop cannot contain an empty string"


@pytest.mark.parametrize("has_sampled", [False, True])
def test_what_an_engine_says_twice_is_final_in_a_run_that_has_sampled_nothing(has_sampled: bool) -> None:
    async def main(scene: Scene) -> None:
        if has_sampled:
            scene.recovery.succeeded(scene.sampler, 1)
        for incarnation in (1, 2, 3):
            scene.recovery.failed(scene.sampler, incarnation, EngineError(IMPOSSIBLE))
            await usable(scene, scene.fleet.samplers)

    if has_sampled:
        assert play(main).recovery.supervisor.num_restarts == 3
        return
    with pytest.raises(NeverWorkedError, match=r"sampler-0 has never worked: .* stop cannot contain an empty") as error:
        play(main)
    assert (error.value.actor, error.value.cause) == ("sampler-0", IMPOSSIBLE)


@pytest.mark.parametrize("error", [DIED, SLOW], ids=["died", "slow"])
def test_what_time_mends_is_tried_again_though_it_comes_twice(error: Any) -> None:
    async def main(scene: Scene) -> None:
        for incarnation in (1, 2):
            scene.recovery.sync_failed(scene.sampler, incarnation, error)
            await usable(scene, scene.fleet.samplers)

    assert play(main).recovery.supervisor.num_restarts == 2


def test_other_words_are_another_error() -> None:
    async def main(scene: Scene) -> None:
        for incarnation in (1, 2, 3):
            scene.recovery.failed(scene.sampler, incarnation, EngineError(f"no memory for {incarnation} blocks"))
            await usable(scene, scene.fleet.samplers)

    assert play(main).recovery.supervisor.num_restarts == 3


def test_an_error_that_no_restart_would_mend_ends_the_run() -> None:
    async def main(scene: Scene) -> None:
        scene.sync_errors.append(WeightSyncError("it computes otherwise"))
        scene.recovery.failed(scene.sampler, 1, DIED)
        await usable(scene, scene.fleet.samplers)

    with pytest.raises(WeightSyncError, match="it computes otherwise"):
        play(main)


def test_news_of_a_process_that_was_replaced_says_nothing_of_the_new_one() -> None:
    async def main(scene: Scene) -> None:
        scene.recovery.failed(scene.sampler, 1, DIED)
        await usable(scene, scene.fleet.samplers)
        for error in (DIED, SLOW, EngineError("broken")):
            scene.recovery.failed(scene.sampler, 1, error)
            scene.recovery.sync_failed(scene.sampler, 1, error)
        assert scene.recovery.supervisor.is_usable("sampler-0")
        scene.recovery.failed(scene.sampler, 2, SLOW)
        scene.recovery.succeeded(scene.sampler, 1)
        assert scene.recovery.supervisor.state("sampler-0") is ActorState.SUSPECT
        scene.recovery.succeeded(scene.sampler, 2)
        assert scene.recovery.supervisor.state("sampler-0") is ActorState.HEALTHY

    # The probes of this one come too late to have a say.
    assert play(main, config=FAST.model_copy(update={"probe_every_s": 60.0})).recovery.supervisor.num_restarts == 1


def test_an_engines_own_error_is_its_end_and_a_late_answer_is_not() -> None:
    async def main(scene: Scene) -> None:
        scene.recovery.failed(scene.sampler, 1, SLOW)
        assert scene.recovery.supervisor.state("sampler-0") is ActorState.SUSPECT
        scene.recovery.failed(scene.sampler, 1, EngineError("broken"))
        assert scene.recovery.supervisor.state("sampler-0") is ActorState.DEAD

    play(main)


def test_a_sampler_that_is_left_behind_by_a_sync_is_restarted() -> None:
    async def main(scene: Scene) -> None:
        scene.recovery.supervisor.update_began("sampler-0")
        scene.recovery.sync_failed(scene.sampler, 1, SLOW)
        await usable(scene, scene.fleet.samplers)

    assert play(main).states() == ["DEAD", "RESTARTING", "STALE", "HEALTHY"]


def test_a_sync_of_all_that_loses_a_restarted_sampler_leaves_one_restart_to_go_on() -> None:
    async def main(scene: Scene) -> None:
        gate = asyncio.Event()

        async def held(actor: SamplerActor) -> None:
            incarnation = actor.incarnation
            scene.journal.append(("sync", actor.name, str(incarnation)))
            if incarnation == 2:
                await gate.wait()
                raise EngineError("an old process")
            scene.recovery.supervisor.synced(actor.name, 7)

        scene.recovery.restarted = WaitedForSubscribers()
        scene.recovery.restarted.subscribe(held)
        scene.recovery.failed(scene.sampler, 1, DIED)
        while ("sync", "sampler-0", "2") not in scene.journal:
            await asyncio.sleep(0.001)
        scene.recovery.sync_failed(scene.sampler, 2, SLOW)  # of a sync of all samplers
        await usable(scene, scene.fleet.samplers)
        gate.set()
        await asyncio.sleep(0.05)
        assert scene.recovery.supervisor.is_usable("sampler-0")

    assert play(main).states() == ["DEAD", "RESTARTING", "STALE", "DEAD", "RESTARTING", "STALE", "HEALTHY"]


def test_probes_that_time_out_are_a_death_after_as_many_as_configured() -> None:
    async def main(scene: Scene) -> None:
        while scene.sampler.incarnation == 1:
            await asyncio.sleep(0.005)
        await usable(scene, scene.fleet.samplers)

    scene = play(main, answer=lambda: asyncio.sleep(30))
    assert scene.states() == ["SUSPECT", "DEAD", "RESTARTING", "STALE", "HEALTHY"]
    assert "did not finish a probe within 0.05 s" in str(scene.recovery._last_error["sampler-0"])
    assert scene.journal.index(("hung", "sampler-0")) < scene.journal.index(("start", "sampler-0"))


def test_a_probe_that_finds_the_engine_broken_is_a_death_at_once() -> None:
    def broken() -> None:
        raise EngineError("the engine has stopped")

    async def main(scene: Scene) -> None:
        while scene.sampler.incarnation == 1:
            await asyncio.sleep(0.005)

    assert play(main, answer=broken).states()[:2] == ["DEAD", "RESTARTING"]


def test_who_waits_for_all_waits_for_the_last() -> None:
    async def main(scene: Scene) -> None:
        await scene.recovery.all_usable([*scene.fleet.samplers, *scene.fleet.rewards])
        scene.recovery.failed(scene.sampler, 1, DIED)
        await scene.recovery.all_usable([*scene.fleet.samplers, *scene.fleet.rewards])
        assert scene.sampler.incarnation == 2

    play(main)


def test_news_of_a_process_that_is_being_replaced_does_not_replace_its_successor() -> None:
    """Several groups are with a sampler that dies, and their errors come one after the other."""

    async def main() -> None:
        scene = Scene()
        incarnation = scene.sampler.incarnation
        scene.recovery.failed(scene.sampler, incarnation, DIED)
        scene.recovery.begin_restart("sampler-0")  # as `watch` does; the new process is not there yet
        scene.recovery.failed(scene.sampler, incarnation, DIED)
        scene.recovery.sync_failed(scene.sampler, incarnation, DIED)
        assert scene.recovery.supervisor.state("sampler-0") is ActorState.RESTARTING
        assert scene.recovery.supervisor.num_restarts == 1

    asyncio.run(main())
