"""The order in which new weights reach the engines, and the proof that they compute with them.

    begin (samplers are STALE) -> chunks, each checked tensor by tensor -> digest of the whole -> canary -> serve

The canary compares log-probabilities of fixed prompts, computed by each engine and by the learner. A digest proves that
the bytes came; only the canary proves that the engine computes with them (on a CPU it computes with packed copies).
Whatever fails, no sampler that failed has served anything: it serves only after `serve`.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar, cast

import numpy as np
from numpy.typing import NDArray

from cluster.config import RunConfig
from cluster.errors import ActorFailedError, ObjectLostError, StageTimeoutError
from cluster.fleet.actors import Fleet, SamplerActor
from cluster.fleet.deadlines import finish, finish_all
from cluster.fleet.handles import LearnerHandle, SamplerHandle, by_reference
from rollout.errors import EngineError, ShoalError, WeightSyncError
from rollout.transfer.manifest import WeightChunk
from rollout.types import Logprobs, Prompt

T = TypeVar("T")

# Chunks on their way at once: the next is gathered while the engines load this one, and no more lie in shared memory.
CHUNKS_IN_FLIGHT = 2
NUM_CANARY_PROMPTS = 4
MAX_CANARY_TOKENS = 128

# Largest and mean difference (nats) that rounding may explain. Measured: 2e-6 at most in fp32; in bf16, on the chat
# template of a 135M model, 0.53 at most and 0.05 on average.
FP32_TOLERANCE = (1e-4, 1e-5)
BF16_TOLERANCE = (2.0, 0.15)


@dataclass(frozen=True, slots=True, kw_only=True)
class SyncReport:
    """A completed sync."""

    policy_version: int
    weights_digest: str
    num_bytes: int
    canary_max_error: float
    """Nats."""
    canary_mean_error: float
    """Nats."""
    synced: tuple[str, ...] = ()
    """Samplers that serve this version now."""
    failed: Mapping[str, ShoalError] = field(default_factory=dict)
    """Samplers that did not get through it, and why: they serve nothing."""


class WeightSync:
    """Moves the learner's weights to samplers, each all or nothing.

    A sampler whose process fails on the way is left behind, STALE, and named in the report; the others go on. An engine
    that lives and holds something else than was sent is an error: no restart would explain it.
    """

    def __init__(self, config: RunConfig, fleet: Fleet, canary_prompts: Sequence[Prompt]) -> None:
        assert canary_prompts, "without a prompt there is nothing to compare"
        self._config = config
        self._fleet = fleet
        self._deadline_s = config.weight_sync.deadline_s
        self._canary = [list(p.token_ids[:MAX_CANARY_TOKENS]) for p in canary_prompts[:NUM_CANARY_PROMPTS]]
        exact = config.rollout.dtype == "float32" and config.learner.dtype == "float32"
        max_error, mean_error = FP32_TOLERANCE if exact else BF16_TOLERANCE
        self._max_error = config.weight_sync.canary_max_error or max_error
        self._mean_error = config.weight_sync.canary_mean_error or mean_error

    async def publish(self, samplers: Sequence[SamplerActor]) -> SyncReport:
        """Sends the learner's current weights to `samplers`, verifies, and lets them serve.

        Nothing else may use the learners meanwhile: gathering is collective, and all ranks must see one order of calls.

        Errors: `WeightSyncError` when anything arrived otherwise than sent, or an engine does not compute with it; that
        of a learner that failed.
        """
        receivers = _Receivers(samplers, self._deadline_s)
        manifest = (await self._ranks(lambda rank: rank.weight_manifest.remote(), item="the manifest"))[0]
        version = manifest.policy_version
        keep = self._config.rollout.on_weight_sync == "keep"
        await receivers.call(
            lambda sampler: sampler.begin_update.remote(manifest, serving_continues=keep),
            item=f"the start of version {version}",
        )
        await self._send_chunks(receivers, len(manifest.chunks))
        sent_digest = (await self._ranks(lambda rank: rank.weights_digest.remote(), item="the digest"))[0]
        received = await receivers.call(
            lambda sampler: sampler.finish_update.remote(sent_digest), item=f"the end of version {version}"
        )
        assert set(received.values()) <= {sent_digest}, received
        max_error, mean_error = await self._run_canary(receivers, version)
        await receivers.call(lambda sampler: sampler.serve.remote(version), item=f"serving version {version}")
        return SyncReport(
            policy_version=version,
            weights_digest=sent_digest,
            num_bytes=manifest.num_bytes,
            canary_max_error=max_error,
            canary_mean_error=mean_error,
            synced=tuple(actor.name for actor in receivers.left),
            failed=receivers.failed,
        )

    async def _send_chunks(self, receivers: "_Receivers", num_chunks: int) -> None:
        loading: list[asyncio.Task[Any]] = []
        try:
            for index in range(num_chunks):
                chunk = await self._gather_chunk(index)
                if len(loading) >= CHUNKS_IN_FLIGHT:
                    await loading.pop(0)
                loading.append(asyncio.ensure_future(receivers.load(chunk, item=f"chunk {index}")))
            while loading:
                await loading.pop(0)
        finally:
            for task in loading:
                task.cancel()
            await asyncio.gather(*loading, return_exceptions=True)

    async def _gather_chunk(self, index: int) -> Awaitable[WeightChunk]:
        """Reference to a chunk in Ray's object store: rank 0's; the others only take part in the gathering.

        Not waited for. Where rank 0 is lost on the way the engines fail on the chunk, and the digest that rank 0 is
        asked for next tells whose fault it was.
        """
        learners = self._fleet.learners
        refs = [learner.handle.weight_chunk.remote(index) for learner in learners]
        names = [learner.name for learner in learners]
        if len(refs) > 1:
            await finish_all(
                refs[1:], deadline_s=self._deadline_s, stage="sync", actors=names[1:], item=f"chunk {index}"
            )
        return cast(Awaitable[WeightChunk], refs[0])  # it is the other ranks that answer None

    async def _run_canary(self, receivers: "_Receivers", version: int) -> tuple[float, float]:
        by_learner, by_samplers = await asyncio.gather(
            self._ranks(lambda rank: rank.score_tokens.remote(self._canary), item="the canary"),
            receivers.call(lambda sampler: sampler.prompt_logprobs.remote(self._canary), item="the canary"),
        )
        worst = (0.0, 0.0)
        for name, got in by_samplers.items():
            errors = canary_errors(by_learner[0], got)
            if not len(errors):
                raise WeightSyncError(
                    f"weights version {version} cannot be verified: the first {len(self._canary)} prompts have one "
                    "token each, so none has a log-probability; use a template with more text"
                )
            max_error, mean_error = float(np.max(errors)), float(np.mean(errors))
            # `not <=` rather than `>`: a NaN on either side must fail too.
            if not (max_error <= self._max_error and mean_error <= self._mean_error):
                raise WeightSyncError(
                    f"{name} does not compute with weights version {version} that it received: its "
                    f"log-probabilities of fixed prompts differ from the learner's by {max_error:.3g} nats at most and "
                    f"{mean_error:.3g} on average (allowed: {self._max_error:g}, {self._mean_error:g}); nothing was "
                    "sampled from them"
                )
            worst = (max(worst[0], max_error), max(worst[1], mean_error))
        return worst

    async def _ranks(self, ask: Callable[[LearnerHandle], Awaitable[T]], *, item: str) -> list[T]:
        learners = self._fleet.learners
        return await finish_all(
            [ask(actor.handle) for actor in learners],
            deadline_s=self._deadline_s,
            stage="sync",
            actors=[actor.name for actor in learners],
            item=item,
        )


class _Receivers:
    """The samplers of one transfer. Who fails is out of it, with the reason, and is asked nothing more."""

    def __init__(self, samplers: Sequence[SamplerActor], deadline_s: float) -> None:
        self.left = list(samplers)
        self.failed: dict[str, ShoalError] = {}
        self._deadline_s = deadline_s

    async def load(self, chunk: Awaitable[WeightChunk], *, item: str) -> None:
        """Has everyone who is left load a chunk. Errors: as `call`."""
        await self.call(lambda sampler: sampler.load_chunk.remote(by_reference(chunk)), item=item)

    async def call(self, ask: Callable[[SamplerHandle], Awaitable[T]], *, item: str) -> dict[str, T]:
        """Name -> answer of everyone who is left. Errors: `WeightSyncError` of any of them."""
        actors = list(self.left)
        answers = await asyncio.gather(
            *(
                finish(
                    ask(actor.handle),
                    deadline_s=self._deadline_s,
                    stage="sync",
                    actor=actor.name,
                    item=item,
                )
                for actor in actors
            ),
            return_exceptions=True,
        )
        answered: dict[str, T] = {}
        for actor, answer in zip(actors, answers, strict=True):
            # A chunk that is gone with rank 0: the digest that rank 0 is asked for next tells whose fault it was.
            if isinstance(answer, ActorFailedError | StageTimeoutError | EngineError | ObjectLostError):
                self.failed[actor.name] = answer
                if actor in self.left:
                    self.left.remove(actor)
            elif isinstance(answer, BaseException):
                raise answer
            else:
                answered[actor.name] = answer
        return answered


def canary_errors(by_learner: Sequence[Logprobs], by_sampler: Sequence[Logprobs]) -> NDArray[np.float64]:
    """Absolute differences (nats) of every token of every fixed prompt, end to end."""
    lengths = [[len(logprobs_T) for logprobs_T in side] for side in (by_learner, by_sampler)]
    if lengths[0] != lengths[1]:
        raise ValueError(f"the canary's sequences have {lengths[0]} and {lengths[1]} log-probabilities")
    if not sum(lengths[0]):
        return np.zeros(0)
    ours, theirs = (np.concatenate(side).astype(np.float64) for side in (by_learner, by_sampler))
    return np.abs(ours - theirs)


async def serve_as_loaded(fleet: Fleet, deadline_s: float) -> None:
    """Lets engines serve the weights of their model directory: an evaluation alone has no learner to verify against."""
    for sampler in fleet.samplers:
        await finish(
            sampler.handle.serve.remote(0), deadline_s=deadline_s, stage="start", actor=sampler.name, item="serving"
        )
