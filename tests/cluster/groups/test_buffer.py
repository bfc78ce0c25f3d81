import asyncio
import dataclasses
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cluster.groups.buffer import GroupBuffer
from reward.types import ScoredGroup
from tests.cluster.examples import completion, ok, scored


def scored_group(index: int, version: int = 0) -> ScoredGroup:
    return scored(index, [ok(1), ok(0)], [completion(i, version=version) for i in range(2)])


def test_slots_are_bounded_and_come_back_only_when_released() -> None:
    async def main() -> None:
        buffer = GroupBuffer(prompts_per_step=2, max_policy_lag=1)
        groups = [scored_group(i) for i in range(4)]
        assert buffer.num_free == 4
        for group in groups:
            await buffer.admit(group.group_id)
        assert (buffer.num_free, buffer.num_unscored, buffer.num_waiting) == (0, 4, 4)
        with pytest.raises(AssertionError, match="admission"):
            await buffer.admit("one more")
        for group in groups[:2]:
            await buffer.put(group)
        assert await buffer.take() == groups[:2]
        assert (buffer.num_free, buffer.num_waiting) == (0, 2)
        await buffer.release()
        assert buffer.num_free == 2

    asyncio.run(main())


def test_groups_are_taken_in_the_order_of_dispatch_whatever_the_order_of_scoring() -> None:
    async def main() -> None:
        buffer = GroupBuffer(prompts_per_step=3, max_policy_lag=1)
        groups = [scored_group(i) for i in range(6)]
        for group in groups:
            await buffer.admit(group.group_id)
        taking = asyncio.ensure_future(buffer.take())
        for index in (5, 3, 2, 4, 1):
            await buffer.put(groups[index])
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            assert not taking.done()
        await buffer.put(groups[0])
        assert await asyncio.wait_for(taking, 1) == groups[:3]
        assert [group_id for group_id, _ in buffer.waiting()] == [g.group_id for g in groups], "not trained on yet"
        buffer.consume()
        assert [group_id for group_id, _ in buffer.waiting()] == [g.group_id for g in groups[3:]]

    asyncio.run(main())


def test_those_behind_a_rejected_group_move_up_and_its_slot_is_free_at_once() -> None:
    async def main() -> None:
        buffer = GroupBuffer(prompts_per_step=2, max_policy_lag=0)
        groups = [scored_group(i) for i in range(3)]
        for group in groups[:2]:
            await buffer.admit(group.group_id)
        await buffer.put(groups[1])
        taking = asyncio.ensure_future(buffer.take())
        await buffer.reject(groups[0].group_id)
        assert buffer.num_free == 1
        await buffer.admit(groups[2].group_id)
        await buffer.put(groups[2])
        assert await asyncio.wait_for(taking, 1) == groups[1:]

    asyncio.run(main())


def test_a_pause_stops_admission_until_the_release() -> None:
    async def main() -> None:
        buffer = GroupBuffer(prompts_per_step=2, max_policy_lag=1)
        await buffer.admit("a")
        waiting = asyncio.ensure_future(buffer.wait_until(lambda: buffer.num_free > 0 and buffer.num_waiting == 0))
        await buffer.pause()
        assert buffer.num_free == 0
        with pytest.raises(AssertionError, match="admission"):
            await buffer.admit("b")
        await buffer.reject("a")
        await asyncio.sleep(0.01)
        assert not waiting.done()
        await buffer.release()
        await asyncio.wait_for(waiting, 1)
        assert buffer.num_free == 4

    asyncio.run(main())


def test_a_caller_that_gives_up_takes_nothing() -> None:
    async def main() -> None:
        buffer = GroupBuffer(prompts_per_step=1, max_policy_lag=0)
        await buffer.admit(scored_group(0).group_id)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(buffer.take(), 0.01)
        await buffer.put(scored_group(0))
        assert await buffer.take() == [scored_group(0)]

    asyncio.run(main())


async def simulate(k: int, num_prompts: int, num_steps: int, rng: random.Random, *, keep: bool) -> list[int]:
    """Runs the loop's order of events with random scoring orders and rejections; returns the lag of each group that
    was trained on. Groups are stamped with the oldest weights that they can have been sampled with."""
    buffer = GroupBuffer(prompts_per_step=num_prompts, max_policy_lag=k)
    engine_version, next_index = 0, 0
    born: dict[str, int] = {}
    lags: list[int] = []

    async def sample(budget: int) -> None:
        """Up to `budget` random events of the sampling side."""
        nonlocal next_index
        for _ in range(budget):
            unscored = [group_id for group_id, group in buffer.waiting() if group is None]
            if buffer.num_free and (not unscored or rng.random() < 0.5):
                group = scored_group(next_index)
                next_index += 1
                born[group.group_id] = engine_version
                await buffer.admit(group.group_id)
            elif unscored:
                group_id = rng.choice(unscored)
                group = scored_group(int(group_id.split("-")[0]), born[group_id])
                await (buffer.reject(group_id) if rng.random() < 0.2 else buffer.put(group))

    for version in range(num_steps):
        taking = asyncio.ensure_future(buffer.take())
        while not taking.done():
            await sample(1)
            await asyncio.sleep(0)
        batch = taking.result()
        assert [g.group.prompt.index for g in batch] == sorted(g.group.prompt.index for g in batch)
        lags += [version - group.group.facts.min_policy_version for group in batch]
        await sample(rng.randrange(8))
        await buffer.pause()
        while not keep and buffer.num_unscored:
            await sample(1)
        await sample(rng.randrange(3))
        engine_version = version + 1
        await buffer.release()
    return lags


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 3), st.integers(1, 4), st.integers(0, 10**6), st.booleans())
def test_no_group_is_older_than_the_bound_when_it_is_trained_on(
    k: int, num_prompts: int, seed: int, keep: bool
) -> None:
    num_steps = 6
    lags = asyncio.run(simulate(k, num_prompts, num_steps, random.Random(seed), keep=keep))
    assert len(lags) == num_steps * num_prompts
    assert min(lags) >= 0
    assert max(lags) <= k


def test_the_bound_is_reached() -> None:
    lags = asyncio.run(simulate(2, 2, 30, random.Random(0), keep=False))
    assert max(lags) == 2


def test_waiting_names_what_has_no_scores_yet() -> None:
    async def main() -> None:
        buffer = GroupBuffer(prompts_per_step=2, max_policy_lag=0)
        first, second = scored_group(0), scored_group(1)
        for group in (first, second):
            await buffer.admit(group.group_id)
        changed = dataclasses.replace(second, scores=dataclasses.replace(second.scores, worker="reward-9"))
        await buffer.put(changed)
        assert buffer.waiting() == [(first.group_id, None), (second.group_id, changed)]
        assert buffer.num_unscored == 1

    asyncio.run(main())


def test_scored_groups_of_the_next_batch_are_told_of_as_they_come() -> None:
    async def main() -> None:
        buffer = GroupBuffer(prompts_per_step=3, max_policy_lag=1)
        groups = [scored_group(i) for i in range(6)]
        for group in groups:
            await buffer.admit(group.group_id)
        waiting = asyncio.ensure_future(buffer.next_scored(()))
        await buffer.put(groups[3])  # of the batch after
        await asyncio.sleep(0.01)
        assert not waiting.done()
        await buffer.put(groups[2])
        assert await asyncio.wait_for(waiting, 1) == [groups[2]]
        known = {groups[2].group_id}
        await buffer.reject(groups[0].group_id)  # the first of the batch after moves up
        assert await asyncio.wait_for(buffer.next_scored(known), 1) == [groups[3]]
        await buffer.put(groups[1])
        assert await asyncio.wait_for(buffer.next_scored(known), 1) == [], "the batch is complete"
        assert await asyncio.wait_for(buffer.take(), 1) == groups[1:4]

    asyncio.run(main())
