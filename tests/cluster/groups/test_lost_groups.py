"""Groups whose completions are gone from the object store, wherever they are by then: they are sampled again."""

import asyncio
from pathlib import Path

import pytest

from cluster.errors import GroupsLostError, ObjectLostError
from cluster.fleet.objects import open_groups
from cluster.groups.buffer import GroupBuffer
from rollout.types import GroupFacts, RolloutGroup, SampleRequest
from tests.cluster.examples import ok, scored
from tests.cluster.fakes import Stored, Vanishing
from tests.cluster.groups.test_pipeline import prompt
from tests.cluster.groups.test_pipeline_faults import Sampler, Scene, launch_and_end, play


class Forgetful(Sampler):
    """What it sampled of some prompts, by their index, is gone at the first attempt when `is_gone` says so."""

    lost: tuple[int, ...] = ()
    is_gone = True

    async def wait_group(self, key: tuple[str, str, int]) -> tuple[GroupFacts, RolloutGroup]:  # type: ignore[override]
        request: SampleRequest = self._requests[key]
        facts, group = await super().wait_group(key)
        if request.attempt == 1 and request.prompt.index in self.lost:
            return facts, Vanishing(group, lambda: self.is_gone)  # type: ignore[return-value]
        return facts, group


def forgetful(folder: Path, *lost: int, deterministic: bool = False) -> Scene:
    scene = Scene(folder, deterministic=deterministic)
    for actor, before in zip(scene.fleet.samplers, scene.samplers, strict=True):
        sampler = Forgetful(scene.journal, before._name)
        sampler.lost, sampler.served = lost, before.served
        actor.handle._worker = sampler  # type: ignore[attr-defined]
    return scene


def test_a_group_that_is_gone_before_it_is_scored_is_sampled_again(tmp_path: Path) -> None:
    ended = play(lambda: forgetful(tmp_path, 1), launch_and_end)
    assert {index: attempt for index, (attempt, _) in ended.in_buffer().items()} == {0: 1, 1: 2, 2: 1, 3: 1}
    assert ended.ledger.late_results == 0
    given_back = [line for line in ended.run.read_log("ledger") if line.get("state") == "pending"]
    assert [(line["group_id"], line["attempt"]) for line in given_back] == [(prompt(1).group_id, 1)]
    assert "gone" in given_back[0]["reason"]


def test_in_a_deterministic_run_its_whole_share_is(tmp_path: Path) -> None:
    """What an engine computes together decides the last bits: prompts 0 and 2 are of one sampler."""
    ended = play(lambda: forgetful(tmp_path, 2, deterministic=True), launch_and_end)
    assert ended.in_buffer() == {
        0: (2, "sampler-0"),
        1: (1, "sampler-1"),
        2: (2, "sampler-0"),
        3: (1, "sampler-1"),
    }


@pytest.mark.parametrize("deterministic", [False, True])
def test_one_that_is_gone_when_the_batch_is_taken_comes_again_in_its_place(tmp_path: Path, deterministic: bool) -> None:
    async def main(scene: Scene) -> None:
        for actor in scene.fleet.samplers:
            actor.handle._worker.is_gone = False  # type: ignore[attr-defined]
        await scene.launch()
        await scene.end()
        batch = await scene.buffer.take()
        for actor in scene.fleet.samplers:
            actor.handle._worker.is_gone = True  # type: ignore[attr-defined]
        with pytest.raises(GroupsLostError) as caught:
            await open_groups(scene.fleet.objects, [group.group for group in batch])
        assert caught.value.group_ids == (prompt(2).group_id,)
        lost = [group.group for group in batch if group.group_id in caught.value.group_ids]
        await scene.pipeline.lost(lost, ObjectLostError("gone"))
        assert scene.buffer.num_unscored == (2 if deterministic else 1)
        await scene.end()
        again = await scene.buffer.take()
        assert [group.group.prompt.index for group in again] == [0, 1, 2, 3]
        shares = [2, 1, 2, 1] if deterministic else [1, 1, 2, 1]
        assert [group.group.facts.attempt for group in again] == shares
        assert len(await open_groups(scene.fleet.objects, [group.group for group in again])) == 4
        scene.ledger.check()

    play(lambda: forgetful(tmp_path, 2, deterministic=deterministic), main)


def test_a_group_that_is_always_gone_is_rejected_in_the_end(tmp_path: Path) -> None:
    class NeverThere(Forgetful):
        async def wait_group(self, key: tuple[str, str, int]) -> tuple[GroupFacts, RolloutGroup]:  # type: ignore[override]
            request: SampleRequest = self._requests[key]
            facts, group = await super().wait_group(key)
            if request.prompt.index == 3:
                return facts, Vanishing(group, lambda: True)  # type: ignore[return-value]
            return facts, group

    def scene() -> Scene:
        made = forgetful(tmp_path)
        for actor in made.fleet.samplers:
            before = actor.handle._worker  # type: ignore[attr-defined]
            sampler = NeverThere(made.journal, before._name)
            sampler.served = before.served
            actor.handle._worker = sampler  # type: ignore[attr-defined]
        return made

    ended = play(scene, launch_and_end)
    assert ended.ledger.rejected == {"sampling_failed": 1}
    assert sorted(ended.in_buffer()) == [0, 1, 2]


def test_a_buffer_takes_a_batch_back_and_keeps_the_places() -> None:
    async def main() -> None:
        buffer = GroupBuffer(prompts_per_step=2, max_policy_lag=1)
        groups = [scored(index, [ok(1), ok(0)]) for index in range(4)]
        for group in groups:
            await buffer.admit(group.group_id)
        for group in groups[:3]:
            await buffer.put(group)
        assert await buffer.take() == groups[:2]
        await buffer.give_back([groups[1].group_id])
        assert (buffer.num_waiting, buffer.num_unscored, buffer.num_free) == (4, 2, 0)
        assert [scores is None for _, scores in buffer.waiting()] == [False, True, False, True]
        await buffer.put(groups[1])
        assert await buffer.take() == groups[:2]
        # One that waits, and one that has no scores yet anyway.
        await buffer.give_back([groups[2].group_id, groups[3].group_id])
        assert (buffer.num_waiting, buffer.num_unscored) == (2, 2)

    asyncio.run(main())


def test_what_vanishes_is_there_before() -> None:
    there = [True]
    stored = Stored(Vanishing("group", lambda: not there[0]))
    assert stored.get() == "group"
    there[0] = False
    with pytest.raises(ObjectLostError):
        stored.get()
