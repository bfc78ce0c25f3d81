"""From prompt to scored group: lease, sample, score, judge. One task for each group, so scoring overlaps sampling.

launch(prompts) --> submit to samplers (one batch each) --> wait_group --> score (--> teach) --> buffer.put
                                                                             |
                                                      rejected, with a reason: buffer.reject
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass

import ray.exceptions

from cluster.config import RunConfig
from cluster.errors import ObjectLostError, RewardFailureError, StageTimeoutError
from cluster.fleet.actors import Fleet, SamplerActor
from cluster.fleet.deadlines import RECOVERABLE, finish
from cluster.fleet.recovery import Recovery, Spawn
from cluster.groups.buffer import GroupBuffer
from cluster.groups.ledger import Ledger
from cluster.groups.reward_health import RewardHealth
from cluster.groups.reward_router import RewardRouter
from cluster.groups.sampling import answer_of, deal, submit, wait_group
from cluster.groups.teaching import Teaching
from cluster.record.run_directory import RunDirectory
from cluster.types import Event, EventKind, RejectReason
from reward.types import RewardOutcome, ScoredGroup
from rollout.errors import ShoalError, WorldError
from rollout.types import Prompt, SampledGroup, SampleRequest

FOLLOWED_AT_ONCE = 16
"""Groups of a share whose tasks begin in one turn of the loop."""
LATE_LEASES = 10
"""How many times the deadline of a lease its answer is listened for after it was given up."""
# Groups in a row that cannot be trained on, after which the run ends: in multiples of P.
MAX_UNSCORED_BATCHES = 4


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Share:
    """What one sampler was given together."""

    sampler: SamplerActor
    requests: tuple[SampleRequest, ...]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PipelineParts:
    """What a pipeline works with; one of each in a run."""

    buffer: GroupBuffer
    ledger: Ledger
    router: RewardRouter
    recovery: Recovery
    run: RunDirectory
    spawn: Spawn
    on_taught: Callable[[], None] = lambda: None
    """Called for each group that a teacher's server has answered about."""


class GroupPipeline:
    """Leases prompts and follows their groups into the buffer. A group whose sampler fails is sampled again.

    The unit of retry is a group. In a deterministic run it is a sampler's whole share of a launch, all or nothing,
    since what an engine computes together decides the last bits: there nothing is scored before the share is complete.
    """

    def __init__(
        self,
        config: RunConfig,
        fleet: Fleet,
        parts: PipelineParts,
        *,
        warn: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._config = config
        self._fleet = fleet
        self._buffer = parts.buffer
        self._ledger = parts.ledger
        self._router = parts.router
        self._recovery = parts.recovery
        self._run = parts.run
        self._spawn = parts.spawn
        self._warn = warn
        self._reward_health = RewardHealth(
            prompts_per_step=config.rollout.prompts_per_step,
            warn_fraction=config.reward.warn_failure_fraction,
            max_fraction=config.reward.max_failure_fraction,
        )
        self._teaching = Teaching(config, fleet, parts.recovery, warn=warn, on_taught=parts.on_taught)
        self._on_their_way: dict[str, Prompt] = {}
        self._shares: dict[str, _Share] = {}
        self._rejected: list[tuple[ScoredGroup, str]] = []
        self._num_unscored = 0
        self._num_world_failures = 0
        """Groups in a row."""
        self._num_resampled = 0
        self._equal: list[ScoredGroup] = []
        """Groups of equal rewards that wait for the others of their step."""
        self.launching = asyncio.Lock()
        """A launch and a weight sync exclude each other: half of a batch would meet samplers that are STALE."""

    async def launch(self, prompts: Sequence[Prompt]) -> None:
        """Leases prompts whose slots in the buffer are taken, and starts to follow their groups. The caller holds
        `launching`."""
        # Known before they are leased: a checkpoint asks for the prompt of every slot, also when a lease fails.
        self._on_their_way |= {prompt.group_id: prompt for prompt in prompts}
        samplers = self._fleet.samplers
        if self._config.deterministic:
            await self._recovery.all_usable(samplers)
        shares = deal(await self._recovery.usable(samplers), prompts)
        # All at once: one that is waited for gives another the time to be replaced by a process without weights.
        await asyncio.gather(*(self._launch_share(sampler, share) for sampler, share in shares))

    def prompt_of(self, group_id: str) -> Prompt:
        """The prompt of a group that has no scores yet."""
        return self._on_their_way[group_id]

    def take_rejected(self) -> list[tuple[ScoredGroup, str]]:
        """Groups rejected since the last call, with the reason; called once a step, when a batch was trained."""
        rejected, self._rejected = self._rejected, []
        self._shares = {group_id: share for group_id, share in self._shares.items() if self._ledger.has(group_id)}
        self._num_resampled = 0
        return rejected

    async def lost(self, groups: Sequence[SampledGroup], error: ShoalError) -> None:
        """The completions of these groups are gone, wherever the groups are by now: they are sampled again. In a
        deterministic run their whole shares are, since what was computed together is computed together again."""
        shares: dict[int, tuple[_Share, set[str]]] = {}
        for group in groups:
            share = self._shares.get(group.group_id) or self._share_of_one(group)
            together = share.requests if self._config.deterministic else ()
            members = {group.group_id, *(request.prompt.group_id for request in together)}
            shares.setdefault(id(share), (share, set()))[1].update(members)
        for share, members in shares.values():
            # One that ended meanwhile stays ended: a group that was rejected does not come back.
            again = [r for r in share.requests if r.prompt.group_id in members and self._ledger.has(r.prompt.group_id)]
            self._on_their_way |= {r.prompt.group_id: r.prompt for r in again}
            await self._buffer.give_back([r.prompt.group_id for r in again])
            await self._sample_again(share.sampler, again, error)

    def _share_of_one(self, group: SampledGroup) -> _Share:
        """Of a group that came from a checkpoint: nobody knows any more what it was sampled with."""
        request = SampleRequest(
            prompt=group.prompt,
            attempt=self._ledger.attempt(group.group_id),
            group_size=self._config.rollout.group_size,
        )
        return _Share(sampler=self._fleet.samplers[0], requests=(request,))

    async def _launch_share(self, sampler: SamplerActor, prompts: Sequence[Prompt]) -> None:
        """One sampler's part of a launch."""
        deadline_s = self._config.rollout.group_deadline_s
        requests = [
            SampleRequest(
                prompt=prompt,
                attempt=self._ledger.lease(prompt.group_id, sampler.name, deadline_s=deadline_s),
                group_size=self._config.rollout.group_size,
            )
            for prompt in prompts
        ]
        share = _Share(sampler=sampler, requests=tuple(requests))
        self._shares |= {request.prompt.group_id: share for request in requests}
        incarnation = sampler.incarnation
        try:
            await submit(sampler, requests, self._config.rollout.sampling)
        except RECOVERABLE as error:
            self._recovery.failed(sampler, incarnation, error)
            await self._sample_again(sampler, requests, error)
            return
        if self._config.deterministic:
            self._spawn(self._follow_share(sampler, incarnation, requests))
        else:
            for number, request in enumerate(requests, start=1):
                if number % FOLLOWED_AT_ONCE == 0:
                    await asyncio.sleep(0)  # each costs the loop a tenth of a millisecond, and there may be thousands
                self._spawn(self._follow(sampler, incarnation, request))

    # A task starts later than it is spawned, and the sampler may have been replaced by then: `incarnation` is that of
    # the process that was given the leases.

    async def _follow_share(self, sampler: SamplerActor, incarnation: int, requests: Sequence[SampleRequest]) -> None:
        deadline_s = self._config.rollout.group_deadline_s
        waits = [asyncio.ensure_future(wait_group(sampler, request, deadline_s)) for request in requests]
        try:
            groups = await asyncio.gather(*waits)
        except RECOVERABLE as error:
            self._recovery.failed(sampler, incarnation, error)
            await self._sample_again(sampler, requests, error)
            return
        except WorldError as error:
            raise WorldError(
                f"{error}; a deterministic run cannot go on without the group, since others would be computed "
                "together: mend the environment and resume the run, or set deterministic to false in a new one"
            ) from error
        finally:
            for wait in waits:
                wait.cancel()
        self._recovery.succeeded(sampler, incarnation)
        await asyncio.gather(*(self._take_in(sampler, group) for group in groups))

    async def _follow(self, sampler: SamplerActor, incarnation: int, request: SampleRequest) -> None:
        answer = asyncio.ensure_future(answer_of(sampler, request))
        try:
            group = await finish(
                asyncio.shield(answer),
                deadline_s=self._config.rollout.group_deadline_s,
                stage="sample",
                actor=sampler.name,
                item=f"group {request.prompt.group_id}",
            )
        except RECOVERABLE as error:
            self._recovery.failed(sampler, incarnation, error)
            if isinstance(error, StageTimeoutError):
                self._spawn(self._refuse_late(answer, request))
            await self._sample_again(sampler, [request], error)
            return
        except WorldError as error:
            await self._reject_world(request, error)
            return
        except asyncio.CancelledError:
            answer.cancel()  # it is shielded, and would fail unread when the sampler is closed
            raise
        self._recovery.succeeded(sampler, incarnation)
        self._num_world_failures = 0
        await self._take_in(sampler, group)

    async def _reject_world(self, request: SampleRequest, error: WorldError) -> None:
        """A group whose world failed each time. Raises the error itself where no group gets through."""
        self._num_world_failures += 1
        limit = MAX_UNSCORED_BATCHES * self._config.rollout.prompts_per_step
        if self._num_world_failures >= limit:
            raise WorldError(
                f"{self._num_world_failures} groups in a row could not be sampled, so no step can be made: {error}; "
                "mend the environment and resume the run"
            )
        self._warn(str(error))
        self._ledger.requeue(request.prompt.group_id, request.attempt, str(error))
        await self._reject_unsampled(request, RejectReason.ENVIRONMENT)

    async def _reject_unsampled(self, request: SampleRequest, reason: RejectReason) -> None:
        group_id = request.prompt.group_id
        self._ledger.reject(group_id, request.attempt, reason)
        del self._on_their_way[group_id]
        await self._buffer.reject(group_id)
        await self._decide_on_equal()

    async def _refuse_late(self, answer: "asyncio.Future[SampledGroup]", request: SampleRequest) -> None:
        """A worker that was too slow may still answer: the ledger refuses it, and counts. What comes later still is
        read by nobody."""
        late_s = LATE_LEASES * self._config.rollout.group_deadline_s
        with suppress(TimeoutError, *RECOVERABLE, ray.exceptions.RayError):
            group = await asyncio.wait_for(answer, late_s)
            accepted = self._ledger.sampled(request.prompt.group_id, request.attempt, group.facts.min_policy_version)
            assert not accepted, f"the lease of {request.key} was given up and is open again"

    async def _sample_again(self, sampler: SamplerActor, requests: Sequence[SampleRequest], error: ShoalError) -> None:
        """Gives the leases back and has their prompts leased anew, unless they failed too often."""
        again: list[Prompt] = []
        for request in requests:
            group_id = request.prompt.group_id
            self._ledger.requeue(group_id, request.attempt, str(error))
            if request.attempt < self._config.recovery.max_attempts or self._config.deterministic:
                again.append(request.prompt)
                continue
            await self._reject_unsampled(request, RejectReason.SAMPLING_FAILED)
        if again:
            self._spawn(self._launch_again(sampler, again))

    async def _launch_again(self, sampler: SamplerActor, prompts: Sequence[Prompt]) -> None:
        if not self._config.deterministic:
            await self._recovery.usable(self._fleet.samplers)
            async with self.launching:
                await self.launch(prompts)
            return
        # The same share on the same engine: another place would change what is computed together.
        await self._recovery.usable([sampler])
        async with self.launching:
            await self._recovery.usable([sampler])  # it may have been lost while a sync was waited for
            await self._launch_share(sampler, prompts)

    async def _take_in(self, sampler: SamplerActor, group: SampledGroup) -> None:
        """From sampled to scored, and into the buffer or out of the run."""
        group_id, attempt, facts = group.group_id, group.facts.attempt, group.facts
        if not self._ledger.sampled(group_id, attempt, facts.min_policy_version):
            return
        self._record_span(EventKind.GENERATE, sampler.name, facts.started_s, facts.finished_s, group)
        try:
            scored = await self._router.score(group)
        except ObjectLostError as error:
            if self._ledger.is_open(group_id, attempt):
                await self.lost([group], error)
            return
        if not self._ledger.is_open(group_id, attempt):
            return  # another group of its share was lost meanwhile, and the share is sampled again
        scores = scored.scores
        asked = {} if scores.cost is None else {f"judge_{name}": value for name, value in asdict(scores.cost).items()}
        self._record_span(EventKind.SCORE, scores.worker, scores.started_s, scores.finished_s, group, asked)
        # Before the ledger moves: where this ends the run, its checkpoint has the group as one to sample again.
        if warning := self._reward_health.note(scored):
            self._warn(warning)
        reason = self._why_rejected(scored)
        if reason is None and self._config.dynamic_sampling.enabled and scored.all_rewards_equal:
            self._equal.append(scored)
        else:
            await self._settle(scored, reason)
        await self._decide_on_equal()

    async def _settle(self, scored: ScoredGroup, reason: RejectReason | None) -> None:
        """Into the buffer, or out of the run for a reason."""
        group, group_id, attempt = scored.group, scored.group_id, scored.group.facts.attempt
        if reason is None and self._teaching.is_needed:
            try:
                taught = await self._teaching.teach(scored)
            except ObjectLostError as error:
                if self._ledger.is_open(group_id, attempt):
                    await self.lost([group], error)
                return
            if not self._ledger.is_open(group_id, attempt):
                return
            scored, reason = (scored, RejectReason.TEACHER_FAILED) if taught is None else (taught, None)
        self._ledger.scored(group_id, attempt)
        del self._on_their_way[group_id]
        if reason is None:
            await self._buffer.put(scored)
            return
        self._ledger.reject(group_id, attempt, reason)
        self._rejected.append((scored, str(reason)))
        await self._buffer.reject(group_id)

    async def _decide_on_equal(self) -> None:
        """Which groups of equal rewards are rejected, and which trained on since a step samples no more. In a
        synchronous run that is decided when all that it waits for are scored, in the order of dispatch: else the last
        ones to arrive would be those that are trained on, and no two runs need be alike."""
        if self._config.max_policy_lag == 0 and self._buffer.num_unscored > len(self._equal):
            return
        waiting, self._equal = sorted(self._equal, key=lambda scored: scored.group.prompt.index), []
        dynamic, num_prompts = self._config.dynamic_sampling, self._config.rollout.prompts_per_step
        budget = int((dynamic.max_resample_factor - 1) * num_prompts)
        for scored in waiting:
            if not self._ledger.is_open(scored.group_id, scored.group.facts.attempt):
                continue  # it is sampled again
            is_resampled = self._num_resampled < budget
            self._num_resampled += is_resampled
            await self._settle(scored, RejectReason.EQUAL_REWARDS if is_resampled else None)

    def _why_rejected(self, scored: ScoredGroup) -> RejectReason | None:
        trainable = sum(
            reward is not None and num_trainable > 0
            for reward, num_trainable in zip(
                scored.compared_rewards, scored.group.facts.num_trainable_tokens_G, strict=True
            )
        )
        if trainable < 2:
            self._num_unscored += 1
            self._check_rewards_work(scored)
            return RejectReason.TOO_FEW_SCORED if scored.num_scored < 2 else RejectReason.NOTHING_TO_TRAIN
        self._num_unscored = 0
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

    def _record_span(  # one argument for each column
        self,
        kind: EventKind,
        actor: str,
        start_s: float,
        end_s: float,
        group: SampledGroup,
        more: Mapping[str, float] | None = None,
    ) -> None:
        facts = group.facts
        extra: dict[str, float] = {"tokens": facts.num_sampled_tokens, "policy_version": facts.min_policy_version}
        played = [episode for episode in facts.episodes_G if episode is not None]
        if played and kind is EventKind.GENERATE:
            extra["turns"] = sum(episode.num_turns for episode in played)
            # Of episodes that ran side by side: together they may have waited longer than the span lasts.
            extra["world_s"] = round(sum(episode.world_s for episode in played), 3)
        extra |= more or {}
        self._run.append_event(
            Event(kind=kind, actor=actor, start_s=start_s, end_s=end_s, ids=(group.group_id,), extra=extra)
        )
