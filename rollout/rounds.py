"""Replies of episodes in rounds, so that what an engine computes together does not follow from how fast worlds answer.

The last bits of a reply depend on what is computed with it. In a deterministic run all episodes of a launch are
played in step: a round is sampled when each of them waits for a reply or has ended, with its requests in the order of
the launch; one that had no room before begins between two rounds.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, Protocol, TypeVar

Wanted = TypeVar("Wanted")
Given = TypeVar("Given")
Asks = TypeVar("Asks", contravariant=True)
Gets = TypeVar("Gets", covariant=True)


class Seat(Protocol[Asks, Gets]):
    """An episode's place among those that are played."""

    async def begin(self) -> None:
        """Returns when there is room for it."""

    async def reply(self, wanted: Asks) -> Gets:
        """What was sampled for it."""
        ...

    def end(self) -> None:
        """It wants no more; also of one that never began. Idempotent."""


class Room(Generic[Wanted, Given]):
    """Room for so many episodes, each of which is sampled for when it asks."""

    def __init__(self, room: int, sample: Callable[[Sequence[Wanted]], Sequence[Awaitable[Given]]]) -> None:
        self._free = asyncio.Semaphore(room)
        self._sample = sample

    def seat(self) -> Seat[Wanted, Given]:
        """For one more."""
        return _FreeSeat(self._free, self._sample)


class _FreeSeat(Generic[Wanted, Given]):
    def __init__(
        self, free: asyncio.Semaphore, sample: Callable[[Sequence[Wanted]], Sequence[Awaitable[Given]]]
    ) -> None:
        self._free = free
        self._sample = sample
        self._is_taken = False

    async def begin(self) -> None:
        await self._free.acquire()
        self._is_taken = True

    async def reply(self, wanted: Wanted) -> Given:
        (reply,) = self._sample([wanted])
        return await reply

    def end(self) -> None:
        if self._is_taken:
            self._free.release()
        self._is_taken = False


class Rounds(Generic[Wanted, Given]):
    """Of episodes 0 to `num_episodes` - 1, of which at most `room` are played at once. Everything happens on one event
    loop. Each is begun, asks for replies one after the other, and ends; nobody is sampled for before all have spoken,
    so that an episode that never ends has to be cancelled by who began it."""

    def __init__(
        self, num_episodes: int, *, room: int, sample: Callable[[Sequence[Wanted]], Sequence[Awaitable[Given]]]
    ) -> None:
        """`sample` is given what a round wants, in the order of the episodes."""
        self._room = room
        self._sample = sample
        self._unbegun = deque(range(num_episodes))
        self._doors = [asyncio.Event() for _ in range(num_episodes)]
        self._thinking: set[int] = set()
        """Episodes whose world, or whose engine, has yet to answer."""
        self._waiting: dict[int, tuple[Wanted, asyncio.Future[Awaitable[Given]]]] = {}
        self._go_on()

    def seat(self, episode: int) -> Seat[Wanted, Given]:
        """Of that episode."""
        return _RoundsSeat(self, episode)

    async def begin(self, episode: int) -> None:
        """Returns when there is room for it."""
        await self._doors[episode].wait()

    async def reply(self, episode: int, wanted: Wanted) -> Given:
        """What was sampled for it in the next round. Errors: those of `sample`."""
        place: asyncio.Future[Awaitable[Given]] = asyncio.get_running_loop().create_future()
        self._thinking.discard(episode)
        self._waiting[episode] = (wanted, place)
        self._go_on()
        return await (await place)

    def end(self, episode: int) -> None:
        """It wants no more; also of one that never began. Idempotent."""
        self._thinking.discard(episode)
        self._waiting.pop(episode, None)
        if episode in self._unbegun:
            self._unbegun.remove(episode)
        self._go_on()

    def _go_on(self) -> None:
        # Who was cancelled is about to end, and waits for its world to do so.
        self._waiting = {episode: of for episode, of in self._waiting.items() if not of[1].done()}
        if self._thinking:
            return
        while self._unbegun and len(self._thinking) + len(self._waiting) < self._room:
            begun = self._unbegun.popleft()
            self._thinking.add(begun)
            self._doors[begun].set()
        if self._thinking or not self._waiting:
            return
        order = sorted(self._waiting)
        round_of, self._waiting = self._waiting, {}
        self._thinking = set(order)
        try:
            given = self._sample([round_of[episode][0] for episode in order])
        except Exception as error:  # noqa: BLE001  # who spoke last is not the only one to be told
            for _, place in round_of.values():
                place.set_exception(error)
            return
        for episode, answer in zip(order, given, strict=True):
            round_of[episode][1].set_result(answer)


class _RoundsSeat(Generic[Wanted, Given]):
    def __init__(self, rounds: Rounds[Wanted, Given], episode: int) -> None:
        self._rounds = rounds
        self._episode = episode

    async def begin(self) -> None:
        await self._rounds.begin(self._episode)

    async def reply(self, wanted: Wanted) -> Given:
        return await self._rounds.reply(self._episode, wanted)

    def end(self) -> None:
        self._rounds.end(self._episode)
