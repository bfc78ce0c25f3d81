"""Groups whose sampler or reward worker fails on the way. Actors are fakes; nobody is restarted unless a test does."""

import asyncio
import gc
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any

import pytest

from cluster.config import RecoveryConfig, RunConfig
from cluster.errors import ActorFailedError
from cluster.groups.buffer import GroupBuffer
from cluster.groups.ledger import Ledger
from cluster.groups.pipeline import GroupPipeline, PipelineParts
from cluster.groups.reward_router import RewardRouter
from cluster.record.run_directory import RunDirectory
from cluster.types import ActorState
from reward.types import GroupScores
from rollout.config import ReasoningGymTask, RolloutConfig
from rollout.errors import EngineError
from rollout.types import GroupFacts, Prompt, RolloutGroup, SampleRequest
from tests.cluster.examples import ok, sampled_of
from tests.cluster.fakes import FakeReward, FakeSampler, Journal, fleet_of, recovery_of
from tests.cluster.groups.test_pipeline import prompt

Answer = Callable[[SampleRequest], Any]
"""Raises, or returns an awaitable to wait for, before a group is delivered."""


async def at_once(_: SampleRequest) -> None:
    return None


def died(actor: str, stage: str = "sample") -> ActorFailedError:
    return ActorFailedError(stage, actor, "a group", "ActorDiedError: killed", died=True)


class Sampler(FakeSampler):
    """Delivers groups as `answer` lets it."""

    def __init__(self, journal: Journal, name: str) -> None:
        super().__init__(journal, name=name)
        self.answer: Answer = at_once
        self.submit_error: Exception | None = None

    def submit(self, requests: Sequence[SampleRequest], sampling: object) -> None:
        super().submit(requests, sampling)
        if self.submit_error is not None:
            raise self.submit_error

    async def wait_group(self, key: tuple[str, str, int]) -> tuple[GroupFacts, RolloutGroup]:  # type: ignore[override]
        await self.answer(self._requests[key])
        return super().wait_group(key)


class Reward(FakeReward):
    """Counts what it is asked to score, and fails as often as it is told to."""

    def __init__(self, journal: Journal, name: str, failures: int = 0) -> None:
        super().__init__(lambda group: [ok(1), ok(0)])
        self._journal = journal
        self._name = name
        self.failures = failures

    def score(self, group: RolloutGroup, *, with_steps: bool = True) -> GroupScores:
        self._journal.append(("score", self._name, group.group_id, str(group.attempt)))
        if self.failures:
            self.failures -= 1
            raise died(self._name, "score")
        return super().score(group)


class Scene:
    """A pipeline over two samplers and two reward workers."""

    def __init__(self, folder: Path, *, deterministic: bool = False, deadline_s: float = 5.0) -> None:
        self.journal: Journal = []
        self.samplers = [Sampler(self.journal, f"sampler-{i}") for i in range(2)]
        self.rewards = [Reward(self.journal, f"reward-{i}") for i in range(2)]
        config = RunConfig(
            task=ReasoningGymTask(generator="chain_sum"),
            rollout=RolloutConfig(group_size=2, prompts_per_step=4, group_deadline_s=deadline_s),
            deterministic=deterministic,
            recovery=RecoveryConfig(max_attempts=3, unhealthy_after=50),
        )
        self.fleet = fleet_of(samplers=self.samplers, rewards=self.rewards)
        self.recovery = recovery_of(self.fleet, probe_every_s=0.01, unhealthy_after=50)
        self.run = RunDirectory.create(folder / "run", config)
        self.buffer = GroupBuffer(prompts_per_step=4, max_policy_lag=0)
        self.ledger = Ledger(self.run.append_ledger, lambda: 0.0)
        self._tasks: set[asyncio.Future[None]] = set()
        self.pipeline = GroupPipeline(
            config,
            self.fleet,
            PipelineParts(
                buffer=self.buffer,
                ledger=self.ledger,
                router=RewardRouter(config, self.fleet, self.recovery),
                recovery=self.recovery,
                run=self.run,
                spawn=self._spawn,
            ),
        )

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        self._tasks.add(asyncio.ensure_future(work))

    async def cancel(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks.clear()

    async def launch(self) -> None:
        prompts = [prompt(i) for i in range(4)]
        for one in prompts:
            await self.buffer.admit(one.group_id)
        async with self.pipeline.launching:
            await self.pipeline.launch(prompts)

    async def end(self) -> None:
        """Waits until nothing is on its way. Errors: the first of a task."""
        while self._tasks:
            done, self._tasks = self._tasks, set()
            await asyncio.wait_for(asyncio.gather(*done), 5)
        self.ledger.check()

    def revive(self, index: int) -> None:
        """Another process in the place of a dead sampler, synced."""
        actor, supervisor = self.fleet.samplers[index], self.recovery.supervisor
        supervisor.begin_restart(actor.name)
        actor.incarnation += 1
        supervisor.started(actor.name)
        supervisor.synced(actor.name, 0)

    def in_buffer(self) -> dict[int, tuple[int, str]]:
        """Prompt index -> (attempt, sampler) of the groups that are scored."""
        groups = [scored.group for _, scored in self.buffer.waiting() if scored is not None]
        return {group.prompt.index: (group.facts.attempt, group.facts.worker) for group in groups}

    def scored(self) -> list[str]:
        return [entry[2][:6] for entry in self.journal if entry[0] == "score"]


def play(scene: Callable[[], Scene], main: Callable[[Scene], Coroutine[Any, Any, None]]) -> Scene:
    async def run() -> Scene:
        made = scene()
        await main(made)
        return made

    return asyncio.run(run())


async def launch_and_end(scene: Scene) -> None:
    await scene.launch()
    await scene.end()


def test_the_groups_of_a_sampler_that_dies_are_sampled_by_another_and_nothing_twice(tmp_path: Path) -> None:
    async def dies_with_the_second(request: SampleRequest) -> None:
        if request.prompt.index == 2:
            raise died("sampler-0")

    def scene() -> Scene:
        made = Scene(tmp_path)
        made.samplers[0].answer = dies_with_the_second
        return made

    ended = play(scene, launch_and_end)
    assert ended.in_buffer() == {
        0: (1, "sampler-0"),
        1: (1, "sampler-1"),
        2: (2, "sampler-1"),
        3: (1, "sampler-1"),
    }
    assert sorted(ended.scored()) == ["000000", "000001", "000002", "000003"]
    assert (ended.ledger.dispatched, ended.ledger.in_flight, ended.ledger.late_results) == (4, 4, 0)
    assert ended.recovery.supervisor.state("sampler-0") is ActorState.DEAD
    lives = [line for line in ended.run.read_log("ledger") if line["group_id"] == prompt(2).group_id]
    assert [(line["state"], line["attempt"]) for line in lives] == [
        ("leased", 1),
        ("pending", 1),
        ("leased", 2),
        ("sampled", 2),
        ("scored", 2),
    ]
    assert "killed" in lives[1]["reason"]


@pytest.mark.parametrize("deterministic", [False, True])
def test_groups_that_are_given_up_leave_no_error_that_nobody_read(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, deterministic: bool
) -> None:
    """A run that is stopped ends its tasks, then closes its samplers, which fail what they were asked for."""

    async def main(scene: Scene) -> None:
        closed = asyncio.Event()

        async def until_closed(_: SampleRequest) -> None:
            await closed.wait()
            raise EngineError("the worker was closed")

        for sampler in scene.samplers:
            sampler.answer = until_closed
        await scene.launch()
        await asyncio.sleep(0.01)
        await scene.cancel()
        closed.set()
        await asyncio.sleep(0.01)

    play(lambda: Scene(tmp_path, deterministic=deterministic), main)
    gc.collect()
    assert [record.getMessage() for record in caplog.records] == []


@pytest.mark.parametrize("deterministic", [False, True])
def test_a_process_that_came_in_between_is_not_blamed_for_the_leases_of_the_one_before(
    tmp_path: Path, deterministic: bool
) -> None:
    """The groups are followed by tasks, which start when the sampler may have been replaced already."""

    class Replaced(Scene):
        def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
            if self.fleet.samplers[0].incarnation == 1:
                self.recovery.supervisor.died("sampler-0", "killed")
                self.revive(0)
            super()._spawn(work)

    async def knows_only_its_own(request: SampleRequest) -> None:
        if request.attempt == 1:
            raise EngineError("no group is leased")

    def scene() -> Scene:
        made = Replaced(tmp_path, deterministic=deterministic)
        made.samplers[0].answer = knows_only_its_own
        return made

    ended = play(scene, launch_and_end)
    assert ended.recovery.supervisor.state("sampler-0") is ActorState.HEALTHY
    assert ended.recovery.supervisor.num_restarts == 1
    assert sorted(ended.in_buffer()) == [0, 1, 2, 3]


def test_a_submit_that_fails_gives_all_its_leases_back(tmp_path: Path) -> None:
    def scene() -> Scene:
        made = Scene(tmp_path)
        made.samplers[1].submit_error = EngineError("no memory")
        return made

    ended = play(scene, launch_and_end)
    assert ended.in_buffer() == {
        0: (1, "sampler-0"),
        1: (2, "sampler-0"),
        2: (1, "sampler-0"),
        3: (2, "sampler-0"),
    }


def test_a_deterministic_run_samples_the_whole_share_again_on_its_sampler_and_scores_nothing_before(
    tmp_path: Path,
) -> None:
    async def dies_with_the_second(request: SampleRequest) -> None:
        if request.prompt.index == 2:
            await asyncio.sleep(0.02)  # the first is delivered by then
            raise died("sampler-0")

    async def main(scene: Scene) -> None:
        scene.samplers[0].answer = dies_with_the_second
        await scene.launch()
        while scene.recovery.supervisor.state("sampler-0") is not ActorState.DEAD:
            await asyncio.sleep(0.005)
        await asyncio.sleep(0.02)
        assert sorted(scene.scored()) == ["000001", "000003"]
        scene.samplers[0].answer = at_once
        scene.revive(0)
        await scene.end()

    ended = play(lambda: Scene(tmp_path, deterministic=True), main)
    assert ended.in_buffer() == {
        0: (2, "sampler-0"),
        1: (1, "sampler-1"),
        2: (2, "sampler-0"),
        3: (1, "sampler-1"),
    }
    assert sorted(ended.scored()) == ["000000", "000001", "000002", "000003"]
    submits = [entry[1:] for entry in ended.journal if entry[0] == "submit"]
    assert submits == [("sampler-0", "2"), ("sampler-1", "2"), ("sampler-0", "2")]


def test_a_group_that_fails_every_time_is_rejected_and_its_slot_is_free(tmp_path: Path) -> None:
    attempts: list[int] = []

    async def refuses_the_third(request: SampleRequest) -> None:
        if request.prompt.index == 3:
            attempts.append(request.attempt)
            raise ActorFailedError("sample", "a sampler", "group 3", "RuntimeError: bad prompt")

    def scene() -> Scene:
        made = Scene(tmp_path)
        for sampler in made.samplers:
            sampler.answer = refuses_the_third
        return made

    ended = play(scene, launch_and_end)
    assert attempts == [1, 2, 3]
    assert ended.ledger.rejected == {"sampling_failed": 1}
    assert (ended.ledger.in_flight, ended.buffer.num_waiting, ended.buffer.num_free) == (3, 3, 1)
    assert sorted(ended.scored()) == ["000000", "000001", "000002"]
    with pytest.raises(KeyError):
        ended.pipeline.prompt_of(prompt(3).group_id)


def test_a_late_result_is_refused_and_counted_once(tmp_path: Path) -> None:
    async def too_late(request: SampleRequest) -> None:
        if (request.prompt.index, request.attempt) == (0, 1):
            await asyncio.sleep(0.3)

    def scene() -> Scene:
        made = Scene(tmp_path, deadline_s=0.1)
        made.samplers[0].answer = too_late
        return made

    ended = play(scene, launch_and_end)
    assert ended.ledger.late_results == 1
    assert ended.in_buffer()[0] == (2, "sampler-1")
    assert sorted(ended.scored()) == ["000000", "000001", "000002", "000003"]
    refused = [line for line in ended.run.read_log("ledger") if line.get("event") == "late_result_refused"]
    assert [(line["group_id"], line["attempt"]) for line in refused] == [(prompt(0).group_id, 1)]


def test_a_group_whose_reward_worker_dies_is_scored_by_another_and_not_sampled_again(tmp_path: Path) -> None:
    def scene() -> Scene:
        made = Scene(tmp_path)
        made.rewards[0].failures = 1
        return made

    ended = play(scene, launch_and_end)
    assert {attempt for attempt, _ in ended.in_buffer().values()} == {1}
    assert len(ended.in_buffer()) == 4
    assert len(ended.scored()) == 5
    assert ended.recovery.supervisor.state("reward-0") is ActorState.DEAD
    assert [len([e for e in ended.journal if e[0] == "submit"]), ended.ledger.late_results] == [2, 0]


def test_scoring_that_fails_everywhere_ends_the_run(tmp_path: Path) -> None:
    async def main(scene: Scene) -> None:
        group = Sampler([], "sampler-0")
        request = SampleRequest(prompt=_prompt(), attempt=1, group_size=2)
        group.submit([request], None)
        sampled = sampled_of((await group.wait_group(request.key))[1])
        for reward in scene.rewards:
            reward.failures = 99
        # A worker that is not dead, or the router would wait for another process.
        scene.recovery.failed = lambda *_: None  # type: ignore[method-assign]
        with pytest.raises(ActorFailedError, match="score: reward-0 failed"):
            await scene.pipeline._router.score(sampled)
        assert len(scene.scored()) == 51, "once more than what makes a worker that hangs be restarted"

    play(lambda: Scene(tmp_path), main)


def _prompt() -> Prompt:
    return prompt(0)
