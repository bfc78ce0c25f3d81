"""The batch of a step: taken from the buffer, its completions opened.

Where learning is streamed, the learner is given groups of the next batch while the others are sampled:

    wait for a scored group of the P oldest --> open --> accumulate its gradient --> ... --> all P scored: the batch
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass

from cluster.config import RunConfig
from cluster.errors import GroupsLostError
from cluster.fleet.actors import Fleet
from cluster.fleet.deadlines import finish
from cluster.fleet.objects import open_groups
from cluster.groups.buffer import GroupBuffer
from cluster.groups.deadlines import batch_deadline_s
from cluster.groups.pipeline import GroupPipeline
from cluster.record.group_table import OpenGroup
from cluster.types import now_s
from cluster.weights.learner_group import LearnerGroup
from learner.types import TrainBatch
from reward.types import ScoredGroup
from rollout.errors import StepGivenUpError
from rollout.types import RolloutGroup


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class BatchParts:
    """What batches are taken with; one of each in a run."""

    buffer: GroupBuffer
    pipeline: GroupPipeline
    learners: LearnerGroup
    on_accumulated: Callable[[Sequence[ScoredGroup], float, int], None]
    """Called with groups whose gradients were accumulated, the Unix time at which that began, and the step."""
    warn: Callable[[str], None]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TakenBatch:
    """The groups of a step. From here on nothing of them can be lost."""

    groups: list[OpenGroup]
    wait_s: float
    """Seconds in which the learner had nothing to do."""
    accumulate_s: float
    """Seconds in which it computed gradients of some of them."""
    streamed_s: float
    """Of these, seconds before the last group was scored."""


class Batches:
    """Takes one batch after the other."""

    def __init__(self, config: RunConfig, fleet: Fleet, parts: BatchParts) -> None:
        self._config = config
        self._objects = fleet.objects
        self._parts = parts
        self._opened: dict[str, RolloutGroup] = {}
        """By group id, of the batch that comes: what was accumulated."""
        self._accumulating: list[tuple[float, float]] = []
        """When that began and ended, Unix times."""
        self._wait_until_s = 0.0
        """On the monotonic clock: when waiting for groups has taken too long."""

    async def take(self, step: int, policy_version: int, on_taken: Callable[[int], None]) -> TakenBatch:
        """Waits for the next P groups. `on_taken` is told at once of a batch that was taken (1), and of one that had
        to be given back (-1), as some of it was lost.

        Errors: `StageTimeoutError`; those of `LearnerGroup.accumulate`.
        """
        started_s = time.monotonic()
        self._opened, self._accumulating = {}, []
        self._begin_waiting()
        if self._config.learner.streaming:
            await self._stream(step, policy_version)
        while True:
            groups = await self._in_time(self._parts.buffer.take(), step)
            on_taken(1)
            if (opened := await self._open(groups)) is not None:
                break
            on_taken(-1)
        scored_s = max(scored.scores.finished_s for scored in groups)
        return TakenBatch(
            groups=[OpenGroup(scored=scored, group=group) for scored, group in zip(groups, opened, strict=True)],
            wait_s=time.monotonic() - started_s - self._accumulate_s(),
            accumulate_s=self._accumulate_s(),
            streamed_s=sum(max(0.0, min(end_s, scored_s) - begin_s) for begin_s, end_s in self._accumulating),
        )

    def _accumulate_s(self) -> float:
        return sum(end_s - begin_s for begin_s, end_s in self._accumulating)

    def _begin_waiting(self) -> None:
        """For groups that are all still to come, as far as the deadline is concerned."""
        self._wait_until_s = time.monotonic() + batch_deadline_s(self._config)

    async def _in_time(self, groups: Awaitable[list[ScoredGroup]], step: int) -> list[ScoredGroup]:
        return await finish(
            groups,
            deadline_s=max(0.0, self._wait_until_s - time.monotonic()),
            stage="sample",
            actor="the group buffer",
            item=f"the batch of step {step}",
        )

    async def _stream(self, step: int, policy_version: int) -> None:
        """Until the batch is complete; what came last is left to the training step, which computes it with the rest."""
        parts = self._parts
        while ready := await self._in_time(parts.buffer.next_scored(self._opened.keys()), step):
            if (opened := await self._open(ready)) is None:
                continue
            began_s = now_s()
            await self._accumulate(TrainBatch(step=step, policy_version=policy_version, groups=tuple(ready)), opened)
            self._accumulating.append((began_s, now_s()))
            self._wait_until_s += now_s() - began_s
            self._opened |= {scored.group_id: group for scored, group in zip(ready, opened, strict=True)}
            parts.on_accumulated(ready, began_s, step)

    async def _accumulate(self, batch: TrainBatch, groups: Sequence[RolloutGroup]) -> None:
        """Cancelled, as by a stop, the ranks give the pass up, so that a checkpoint need not wait for it."""
        work = asyncio.ensure_future(self._parts.learners.accumulate(batch, groups))
        try:
            await asyncio.shield(work)
        except asyncio.CancelledError:
            if self._parts.learners.is_accumulating:
                await self._parts.learners.give_up(batch.step)
                with suppress(StepGivenUpError):
                    await work
            work.cancel()  # it may wait for a sync, or for ranks that start: nobody was asked for anything
            await asyncio.gather(work, return_exceptions=True)
            raise

    async def _open(self, groups: Sequence[ScoredGroup]) -> list[RolloutGroup] | None:
        """The completions; None where some were lost, which are sampled again."""
        closed = [scored.group for scored in groups if scored.group_id not in self._opened]
        try:
            found = await open_groups(self._objects, closed)
        except GroupsLostError as error:
            self._parts.warn(f"{error}; they are sampled again")
            self._begin_waiting()
            await self._parts.pipeline.lost([group for group in closed if group.group_id in error.group_ids], error)
            return None
        by_id = self._opened | {group.group_id: group for group in found}
        return [by_id[scored.group_id] for scored in groups]
