"""What is sampled together follows from the episodes alone, whatever the speed of their worlds."""

import asyncio
import random
from collections.abc import Awaitable, Sequence

import pytest

from rollout.rounds import Rounds

Round = tuple[tuple[int, int], ...]


def rounds_of(lengths: Sequence[int], *, room: int, seed: int, fail: tuple[int, int] | None = None) -> list[Round]:
    """Plays episodes of so many replies with worlds of random speed; what was sampled together."""
    draw, sampled = random.Random(seed), []

    def sample(wanted: Sequence[tuple[int, int]]) -> list[Awaitable[int]]:
        sampled.append(tuple(wanted))
        return [give(of) for of in wanted]

    async def give(of: tuple[int, int]) -> int:
        await asyncio.sleep(draw.random() / 500)
        if of == fail:
            raise RuntimeError("the engine has failed")
        return of[1]

    async def episode(rounds: Rounds[tuple[int, int], int], place: int) -> None:
        try:
            await rounds.begin(place)
            for turn in range(lengths[place]):
                await asyncio.sleep(draw.random() / 500)
                assert await rounds.reply(place, (place, turn)) == turn
        finally:
            rounds.end(place)

    async def run() -> None:
        rounds: Rounds[tuple[int, int], int] = Rounds(len(lengths), room=room, sample=sample)
        async with asyncio.timeout(10):
            await asyncio.gather(*(episode(rounds, place) for place in range(len(lengths))), return_exceptions=True)

    asyncio.run(run())
    return sampled


def test_a_round_has_all_that_wait() -> None:
    assert rounds_of([2, 1, 3], room=8, seed=0) == [((0, 0), (1, 0), (2, 0)), ((0, 1), (2, 1)), ((2, 2),)]


@pytest.mark.parametrize(("room", "lengths"), [(2, [1, 3, 2, 1, 2]), (3, [4, 1, 0, 2, 2, 1]), (1, [1, 2])])
def test_rounds_are_the_same_at_any_speed(room: int, lengths: list[int]) -> None:
    first = rounds_of(lengths, room=room, seed=0)
    assert all(len(one) <= room for one in first)
    assert sorted(of for one in first for of in one) == [(e, t) for e, n in enumerate(lengths) for t in range(n)]
    assert all(rounds_of(lengths, room=room, seed=seed) == first for seed in range(1, 20))


def test_an_episode_that_fails_leaves_the_others() -> None:
    sampled = rounds_of([3, 3], room=4, seed=1, fail=(0, 1))
    assert sampled == [((0, 0), (1, 0)), ((0, 1), (1, 1)), ((1, 2),)]


def test_who_was_cancelled_is_not_sampled_for() -> None:
    """Its world may take a while to end, and the others go on meanwhile."""

    async def run() -> list[list[int]]:
        sampled: list[list[int]] = []

        async def give(of: int) -> int:
            return of

        def sample(wanted: Sequence[int]) -> list[Awaitable[int]]:
            sampled.append(list(wanted))
            return [give(of) for of in wanted]

        rounds: Rounds[int, int] = Rounds(3, room=3, sample=sample)
        first, second = (asyncio.create_task(rounds.reply(place, place)) for place in range(2))
        await asyncio.sleep(0)
        first.cancel()
        await asyncio.sleep(0)
        assert await asyncio.wait_for(rounds.reply(2, 2), 5) == 2
        assert await second == 1
        return sampled

    assert asyncio.run(run()) == [[1, 2]]


def test_where_nothing_can_be_sampled_all_are_told() -> None:
    async def run() -> tuple[object, ...]:
        def sample(_: Sequence[int]) -> list[Awaitable[int]]:
            raise RuntimeError("the engine is gone")

        rounds: Rounds[int, int] = Rounds(2, room=2, sample=sample)
        async with asyncio.timeout(5):
            return await asyncio.gather(rounds.reply(0, 0), rounds.reply(1, 1), return_exceptions=True)

    assert [str(error) for error in asyncio.run(run())] == ["the engine is gone"] * 2


def test_one_that_has_ended_is_waited_for_no_more() -> None:
    async def run() -> int:
        async def give(of: int) -> int:
            return of

        rounds: Rounds[int, int] = Rounds(2, room=2, sample=lambda wanted: [give(of) for of in wanted])
        first = asyncio.create_task(rounds.reply(0, 7))
        await asyncio.sleep(0)
        assert not first.done()
        rounds.end(1)
        async with asyncio.timeout(5):
            return await first

    assert asyncio.run(run()) == 7
