"""Between two steps: what a checkpoint holds of the groups that are on their way, and how they come back."""

from dataclasses import replace

from cluster.errors import GroupsLostError, StageTimeoutError
from cluster.fleet.objects import open_groups
from cluster.groups.buffer import GroupBuffer
from cluster.groups.ledger import Ledger
from cluster.groups.pipeline import GroupPipeline
from cluster.loop.parts import RunParts
from cluster.record.group_table import OpenGroup
from cluster.weights.run_state import RunState
from reward.types import ScoredGroup


class Boundary:
    """The groups of a run, seen from between its steps."""

    def __init__(self, parts: RunParts, buffer: GroupBuffer, ledger: Ledger, pipeline: GroupPipeline) -> None:
        self._parts = parts
        self._buffer = buffer
        self._ledger = ledger
        self._pipeline = pipeline

    def snapshot(self, state: RunState) -> RunState:
        """The state as it can be resumed from.

        A synchronous run goes back to the boundary of the step: its groups are sampled again, all together, because
        what an engine computes together decides the last bits. A run that samples ahead keeps what is scored, and what
        is still being sampled is sampled again.
        """
        if self._parts.config.max_policy_lag == 0:
            return state
        waiting = self._buffer.waiting()
        return replace(
            state,
            log_sizes=self._parts.run.sizes(),
            stream=self._parts.stream.state(),
            ledger=self._ledger.state(),
            scored=tuple(scored for _, scored in waiting if scored is not None),
            requeued=tuple(self._pipeline.prompt_of(group_id) for group_id, scored in waiting if scored is None),
        )

    async def restore(self, start: RunState) -> None:
        """Puts what the checkpoint held of unfinished groups back, in the order of dispatch."""
        scored = {group.group_id: group for group in start.scored}
        prompts = sorted([*(g.group.prompt for g in start.scored), *start.requeued], key=lambda p: p.index)
        for prompt in prompts:
            await self._buffer.admit(prompt.group_id)
            if prompt.group_id in scored:
                await self._buffer.put(self._stored(scored[prompt.group_id]))
        if start.requeued:
            await self._pipeline.launch(start.requeued)

    async def opened(self, rejected: list[tuple[ScoredGroup, str]]) -> list[OpenGroup]:
        """Groups that were rejected. Those whose completions are gone are counted in the ledger and nowhere else."""
        while rejected:
            try:
                return await self._open(rejected)
            except GroupsLostError as error:
                gone, why = set(error.group_ids), str(error)
            except StageTimeoutError as error:
                gone, why = {scored.group_id for scored, _ in rejected}, str(error)
            # Nobody trains on them: what is wrong with them costs no step.
            self._parts.warn(f"{why}: {len(gone)} groups that were rejected are not among the rollouts on record")
            rejected = [pair for pair in rejected if pair[0].group_id not in gone]
        return []

    async def _open(self, rejected: list[tuple[ScoredGroup, str]]) -> list[OpenGroup]:
        groups = await open_groups(self._parts.fleet.objects, [scored.group for scored, _ in rejected])
        return [
            OpenGroup(scored=scored, group=group, rejected=reason)
            for (scored, reason), group in zip(rejected, groups, strict=True)
        ]

    def _stored(self, scored: ScoredGroup) -> ScoredGroup:
        """A group that was read from a checkpoint, with its completions in the object store."""
        reference = self._parts.fleet.objects.put(scored.group.payload)
        return replace(scored, group=replace(scored.group, payload=reference))
