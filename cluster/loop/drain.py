"""Engines at rest, for new weights: no group is given to one, and where they are drained none is being sampled.

pause admission -> (drain: every group has its scores) -> hold `launching` -> weights -> release
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from cluster.config import RunConfig
from cluster.fleet.deadlines import first_of
from cluster.groups.buffer import GroupBuffer
from cluster.groups.pipeline import GroupPipeline
from cluster.loop.background import BackgroundTasks


class Drain:
    """Brings the engines to rest between two steps. `stop` is set when the run was asked to end."""

    def __init__(
        self,
        config: RunConfig,
        buffer: GroupBuffer,
        pipeline: GroupPipeline,
        background: BackgroundTasks,
        stop: asyncio.Event,
    ) -> None:
        self._config = config
        self._buffer = buffer
        self._pipeline = pipeline
        self._background = background
        self._stop = stop

    @asynccontextmanager
    async def at_rest(self) -> AsyncIterator[bool]:
        """True while the engines rest. False, and nothing is held, where the run is about to end, for a stop or for the
        error of a task beside it: a group that is waited for may then never come."""
        await self._buffer.pause()
        in_time, is_at_rest = await first_of(self._background.unless_failed(self._come_to_rest()), self._stop)
        if not (in_time and is_at_rest):
            yield False
            return
        try:
            yield True
        finally:
            self._pipeline.launching.release()

    async def _come_to_rest(self) -> None:
        """Returns with `launching` held."""
        if self._config.rollout.on_weight_sync == "drain":
            await self._buffer.wait_until(lambda: self._buffer.num_unscored == 0)
        await self._pipeline.launching.acquire()
