"""From prompt to scored group: lease, sample, score, judge. One task for each group, so scoring overlaps sampling.

launch(prompts) --> submit to samplers (one batch each) --> wait_group --> score --> buffer.put
                                                                             |
                                                      rejected, with a reason: buffer.drop
"""

import asyncio
import time
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

from cluster.actors import Actor, Fleet
from cluster.config import RunConfig
from cluster.deadlines import finish
from cluster.errors import RewardFailureError
from cluster.group_buffer import GroupBuffer
from cluster.ledger import Ledger, RejectReason
from cluster.run_directory import Event, RunDirectory
from reward.types import RewardOutcome, ScoredGroup
from rollout.config import SamplingConfig
from rollout.types import Prompt, RolloutGroup, SampleRequest

SUBMIT_DEADLINE_S = 120.0
# Groups that cannot be scored, without a step in between, after which the run ends: in multiples of P.
MAX_UNSCORED_BATCHES = 4

Spawn = Callable[[Coroutine[Any, Any, None]], object]


class RewardRouter:
    """Sends each group to the reward worker with the fewest groups."""

    def __init__(self, config: RunConfig, fleet: Fleet) -> None:
        self._fleet = fleet
        self._load = [0] * len(fleet.rewards)
        reward = config.reward
        # The worst case: every completion of every group that may be waiting is killed at its deadline, in turn.
        groups = (config.max_policy_lag + 1) * config.rollout.prompts_per_step + config.eval.num_prompts
        completions = groups * max(config.rollout.group_size, config.eval.num_samples)
        slots = reward.num_workers * reward.children_per_worker
        self._deadline_s = 60.0 + len(reward.functions) * reward.timeout_s * completions / slots

    async def score(self, group: RolloutGroup) -> ScoredGroup:
        index = min(range(len(self._load)), key=self._load.__getitem__)
        worker = self._fleet.rewards[index]
        self._load[index] += 1
        try:
            return await finish(
                worker.handle.score.remote(group),
                deadline_s=self._deadline_s,
                stage="score",
                actor=worker.name,
                item=f"group {group.group_id}",
            )
        finally:
            self._load[index] -= 1


async def submit_to(
    samplers: Sequence[Actor], requests: Sequence[SampleRequest], sampling: SamplingConfig
) -> list[tuple[Actor, SampleRequest]]:
    """Deals requests out in turn and submits each sampler's share as one batch, so that what an engine computes
    together depends on the requests alone. Returns who has what."""
    dealt = [(samplers[i % len(samplers)], request) for i, request in enumerate(requests)]
    for sampler in samplers:
        share = [request for owner, request in dealt if owner is sampler]
        if share:
            await finish(
                sampler.handle.submit.remote(share, sampling),
                deadline_s=SUBMIT_DEADLINE_S,
                stage="sample",
                actor=sampler.name,
                item=f"{len(share)} groups",
            )
    return dealt


async def wait_group(sampler: Actor, request: SampleRequest, deadline_s: float) -> RolloutGroup:
    return await finish(
        sampler.handle.wait_group.remote(request.key),
        deadline_s=deadline_s,
        stage="sample",
        actor=sampler.name,
        item=f"group {request.prompt.group_id}",
    )


class GroupPipeline:
    """Leases prompts and follows their groups into the buffer."""

    def __init__(
        self,
        config: RunConfig,
        fleet: Fleet,
        *,
        buffer: GroupBuffer,
        ledger: Ledger,
        router: RewardRouter,
        run: RunDirectory,
        spawn: Spawn,
    ) -> None:
        self._config = config
        self._fleet = fleet
        self._buffer = buffer
        self._ledger = ledger
        self._router = router
        self._run = run
        self._spawn = spawn
        self._on_their_way: dict[str, Prompt] = {}
        self._rejected: list[ScoredGroup] = []
        self._num_unscored = 0
        self._num_resampled = 0

    async def launch(self, prompts: Sequence[Prompt]) -> None:
        """Leases prompts whose slots in the buffer are taken, and starts to follow their groups."""
        samplers = self._fleet.samplers
        # Known before they are leased: a checkpoint asks for the prompt of every slot, also when a lease fails.
        self._on_their_way |= {prompt.group_id: prompt for prompt in prompts}
        requests = [
            SampleRequest(
                prompt=prompt,
                attempt=self._ledger.lease(prompt.group_id, samplers[i % len(samplers)].name),
                group_size=self._config.rollout.group_size,
            )
            for i, prompt in enumerate(prompts)
        ]
        for sampler, request in await submit_to(samplers, requests, self._config.rollout.sampling):
            self._spawn(self._follow(sampler, request))

    def prompt_of(self, group_id: str) -> Prompt:
        """The prompt of a group that has no scores yet."""
        return self._on_their_way[group_id]

    def take_rejected(self) -> list[ScoredGroup]:
        """Groups rejected since the last call, for the record; called once a step, when a batch was trained."""
        rejected, self._rejected = self._rejected, []
        self._num_unscored = self._num_resampled = 0
        return rejected

    async def _follow(self, sampler: Actor, request: SampleRequest) -> None:
        group_id, attempt = request.prompt.group_id, request.attempt
        group = await wait_group(sampler, request, self._config.rollout.group_deadline_s)
        self._ledger.sampled(group_id, attempt, group.min_policy_version)
        self._record_span("generate", sampler.name, group.started_s, group.finished_s, group)
        scored = await self._router.score(group)
        self._record_span("score", scored.worker, scored.started_s, scored.finished_s, group)
        # Before the ledger moves: where this ends the run, its checkpoint has the group as one to sample again.
        reason = self._why_rejected(scored)
        self._ledger.scored(group_id, attempt)
        del self._on_their_way[group_id]
        if reason is None:
            await self._buffer.put(scored)
            return
        self._ledger.reject(group_id, attempt, reason)
        self._rejected.append(scored)
        await self._buffer.drop(group_id)

    def _why_rejected(self, scored: ScoredGroup) -> RejectReason | None:
        trainable = sum(
            result.outcome is RewardOutcome.OK and any(completion.loss_mask)
            for result, completion in zip(scored.rewards, scored.group.completions, strict=True)
        )
        if trainable < 2:
            self._num_unscored += 1
            self._check_rewards_work(scored)
            return RejectReason.TOO_FEW_SCORED if scored.num_scored < 2 else RejectReason.NOTHING_TO_TRAIN
        dynamic, num_prompts = self._config.dynamic_sampling, self._config.rollout.prompts_per_step
        budget = int((dynamic.max_resample_factor - 1) * num_prompts)
        if dynamic.enabled and scored.all_rewards_equal and self._num_resampled < budget:
            self._num_resampled += 1
            return RejectReason.EQUAL_REWARDS
        return None

    def _check_rewards_work(self, scored: ScoredGroup) -> None:
        limit = MAX_UNSCORED_BATCHES * self._config.rollout.prompts_per_step
        if self._num_unscored < limit:
            return
        failed = next((r for r in scored.rewards if r.outcome is not RewardOutcome.OK), None)
        why = (
            f"the last one failed with {failed.outcome}: {failed.detail}" if failed else "no token could be trained on"
        )
        raise RewardFailureError(
            f"{self._num_unscored} groups in a row could not be trained on, so no step can be made: {why}; mend the "
            "reward function and resume the run"
        )

    def _record_span(self, kind: Any, actor: str, start_s: float, end_s: float, group: RolloutGroup) -> None:
        extra = {"tokens": group.num_completion_tokens, "policy_version": group.min_policy_version}
        self._run.append_event(
            Event(kind=kind, actor=actor, start_s=start_s, end_s=end_s, ids=(group.group_id,), extra=extra)
        )


def now_s() -> float:
    """Unix time: what spans of different processes are compared by."""
    return time.time()


async def first_of(work: Coroutine[Any, Any, Any], stop: asyncio.Event) -> tuple[bool, Any]:
    """(True, result) when `work` ends; (False, None) when `stop` is set first, and `work` is then cancelled. A result
    that came in the same moment counts: what `work` took would be lost otherwise."""
    task, stopped = asyncio.ensure_future(work), asyncio.ensure_future(stop.wait())
    try:
        await asyncio.wait((task, stopped), return_when=asyncio.FIRST_COMPLETED)
        task.cancel()
        await asyncio.wait((task,))
        return (False, None) if task.cancelled() else (True, task.result())
    finally:
        for pending in (task, stopped):
            pending.cancel()
        await asyncio.gather(task, stopped, return_exceptions=True)
