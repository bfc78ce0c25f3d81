"""Admission and order: how far sampling may run ahead, and which groups a step trains on.

A slot is taken when a prompt is dispatched and given back only when the engines hold the weights that the group's step
made (or at once when the group is rejected), so that a new group is born on new weights. With (k + 1) * P slots and
groups consumed in the order of dispatch, the n-th group outstanding is consumed n // P steps later: at most k. So lag
is bounded by admission, and no sampled group is ever rejected for its age while engines drain at each sync.

Pure: no clock, no processes.
"""

import asyncio
from collections.abc import Callable, Collection
from dataclasses import dataclass
from itertools import islice

from reward.types import ScoredGroup


@dataclass(slots=True)
class _Slot:
    scored: ScoredGroup | None = None


class GroupBuffer:
    """Outstanding groups in the order of dispatch."""

    def __init__(self, *, prompts_per_step: int, max_policy_lag: int) -> None:
        self._prompts_per_step = prompts_per_step
        self._num_slots = (max_policy_lag + 1) * prompts_per_step
        self._slots: dict[str, _Slot] = {}
        self._num_unscored = 0
        self._num_in_training = 0
        self._taken: list[ScoredGroup] = []
        self._is_paused = False
        self._changed = asyncio.Condition()

    @property
    def num_free(self) -> int:
        """Groups that may be dispatched now; none while admission is paused."""
        return 0 if self._is_paused else self._num_slots - len(self._slots) - self._num_in_training

    @property
    def num_unscored(self) -> int:
        """Groups being sampled or scored."""
        return self._num_unscored

    @property
    def num_waiting(self) -> int:
        """Groups that wait to be trained on, scored or not."""
        return len(self._slots)

    def waiting(self) -> list[tuple[str, ScoredGroup | None]]:
        """(group id, scores if there are any) in the order of dispatch, of all that is not trained on yet: a batch that
        was taken, too, until it is."""
        taken = [(scored.group_id, scored) for scored in self._taken]
        return [*taken, *((group_id, slot.scored) for group_id, slot in self._slots.items())]

    async def admit(self, group_id: str) -> None:
        """Takes a slot."""
        assert self.num_free > 0, "admission must be asked for first"
        assert group_id not in self._slots, group_id
        async with self._changed:
            self._slots[group_id] = _Slot()
            self._num_unscored += 1
            self._changed.notify_all()

    async def put(self, scored: ScoredGroup) -> None:
        """The group of a slot has its scores."""
        async with self._changed:
            slot = self._slots[scored.group_id]
            self._num_unscored -= slot.scored is None
            slot.scored = scored
            self._changed.notify_all()

    async def reject(self, group_id: str) -> None:
        """Gives the slot of a rejected group back; those behind it move up."""
        async with self._changed:
            self._num_unscored -= self._slots.pop(group_id).scored is None
            self._changed.notify_all()

    async def give_back(self, group_ids: Collection[str]) -> None:
        """These groups have to be sampled again: they keep their places and wait for new scores. Where some are of the
        batch that was taken, it is taken back as a whole."""
        async with self._changed:
            if any(scored.group_id in group_ids for scored in self._taken):
                self._slots = {scored.group_id: _Slot(scored=scored) for scored in self._taken} | self._slots
                self._taken, self._num_in_training = [], 0
            for group_id in group_ids:
                slot = self._slots[group_id]
                self._num_unscored += slot.scored is not None
                slot.scored = None
            self._changed.notify_all()

    async def take(self) -> list[ScoredGroup]:
        """Waits for the P oldest groups to be scored and takes them; their slots stay taken until `release`."""
        async with self._changed:
            await self._changed.wait_for(lambda: self._ready() is not None)
            batch = self._ready()
            assert batch is not None
            for scored in batch:
                del self._slots[scored.group_id]
            self._taken = batch
            self._num_in_training = len(batch)
            return batch

    async def next_scored(self, known: Collection[str]) -> list[ScoredGroup]:
        """Waits for scored groups of the next batch beside those with `known` ids; none once all of it are scored. They
        stay where they are, and are of that batch whatever becomes of the others: who has scores is not rejected."""
        async with self._changed:
            while self._ready() is None:
                first = islice(self._slots.items(), self._prompts_per_step)
                fresh = [slot.scored for group_id, slot in first if slot.scored is not None and group_id not in known]
                if fresh:
                    return fresh
                await self._changed.wait()
            return []

    def consume(self) -> None:
        """The batch that was taken has been trained on: until then a checkpoint still has to hold it."""
        self._taken = []

    async def pause(self) -> None:
        """Stops admission, so that running groups drain."""
        async with self._changed:
            self._is_paused = True

    async def release(self) -> None:
        """The engines hold the new weights: the slots of the batch are free and admission goes on."""
        async with self._changed:
            self._num_in_training = 0
            self._is_paused = False
            self._changed.notify_all()

    async def wait_until(self, predicate: Callable[[], bool]) -> None:
        """Waits until `predicate` holds; it is asked again after every change."""
        async with self._changed:
            await self._changed.wait_for(predicate)

    def _ready(self) -> list[ScoredGroup] | None:
        batch: list[ScoredGroup] = []
        for slot in islice(self._slots.values(), self._prompts_per_step):
            if slot.scored is None:
                return None  # asked after every change: most often the oldest of all is what is waited for
            batch.append(slot.scored)
        return batch if len(batch) == self._prompts_per_step else None
