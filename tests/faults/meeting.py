"""Where virtual learner ranks meet, as real ones do in collective calls."""

import asyncio
from collections import defaultdict

from learner.types import CompletionKey

Facts = list[tuple[CompletionKey, list[list[float]], float, float]]
"""Everything that one completion adds to a step."""


class Meeting:
    """Where the ranks of one start exchange what they computed."""

    def __init__(self, num_ranks: int) -> None:
        self._num_ranks = num_ranks
        self._brought: dict[int, dict[str, Facts]] = defaultdict(dict)
        self._changed = asyncio.Condition()

    async def exchange(self, step: int, name: str, facts: Facts) -> Facts:
        """What all ranks bring, when the last has come."""
        async with self._changed:
            self._brought[step][name] = facts
            self._changed.notify_all()
            await self._changed.wait_for(lambda: len(self._brought[step]) == self._num_ranks)
        return [fact for brought in self._brought[step].values() for fact in brought]
