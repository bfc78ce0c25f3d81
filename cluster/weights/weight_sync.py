"""The order in which new weights reach the engines, and the proof that they compute with them.

    begin (samplers are STALE) -> chunks, each checked tensor by tensor -> digest of the whole -> canary -> serve

With `weight_sync.delta` the chunks tell what changed since the transfer before, where every sampler has kept that.

The canary compares log-probabilities of fixed prompts, computed by each engine and by the learner
(`cluster/weights/canary.py`). A digest proves that the bytes came; only the canary proves that the engine computes with
them (on a CPU it computes with packed copies).
Whatever fails, no sampler that failed has served anything: it serves only after `serve`.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar, cast

import numpy as np

from cluster.config import RunConfig
from cluster.errors import ActorFailedError, ObjectLostError, StageTimeoutError
from cluster.fleet.actors import Fleet, SamplerActor
from cluster.fleet.deadlines import finish, finish_all
from cluster.fleet.handles import LearnerHandle, SamplerHandle, by_reference
from cluster.weights.canary import (
    Errors,
    Limits,
    canary_errors,
    fp32_limits,
    long_limits,
    longest_text,
    rounding_limits,
    stale_share,
)
from rollout.errors import EngineError, ShoalError, WeightSyncError
from rollout.transfer.manifest import WeightChunk
from rollout.types import Logprobs, Prompt

T = TypeVar("T")

# Chunks on their way at once: the next is gathered while the engines load this one, and no more lie in shared memory.
CHUNKS_IN_FLIGHT = 2
NUM_CANARY_PROMPTS = 4
MAX_CANARY_TOKENS = 128


@dataclass(frozen=True, slots=True, kw_only=True)
class SyncReport:
    """A completed sync."""

    policy_version: int
    weights_digest: str
    num_bytes: int
    """Of the weights."""
    num_bytes_sent: int
    """To each sampler; less than `num_bytes` where it was told what changed."""
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
        self._long = longest_text([p.token_ids for p in canary_prompts], config.model.max_context_tokens)
        self._is_exact = config.rollout.dtype == "float32" and config.learner.dtype == "float32"
        self._limits: Limits | None = fp32_limits(*self._configured_limits()) if self._is_exact else None
        self._first: _FirstSync | None = None

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
        bases = await receivers.call(
            lambda sampler: sampler.begin_update.remote(manifest, serving_continues=keep),
            item=f"the start of version {version}",
        )
        # One that was started since has none, or those of a transfer to it alone.
        as_delta = bool(manifest.base) and set(bases.values()) == {manifest.base}
        await self._send_chunks(receivers, len(manifest.chunks), as_delta=as_delta)
        sent_digest = (await self._ranks(lambda rank: rank.weights_digest.remote(), item="the digest"))[0]
        num_bytes_sent = manifest.num_bytes
        if as_delta:
            sent = await self._ranks(lambda rank: rank.weight_bytes_sent.remote(), item="the bytes sent")
            num_bytes_sent = sum(sent)
        # The learner computes the fixed prompts while the engines turn what came into their layers.
        by_learner = asyncio.ensure_future(
            self._ranks(lambda rank: rank.score_tokens.remote(self._canary), item="the canary")
        )
        try:
            received = await receivers.call(
                lambda sampler: sampler.finish_update.remote(sent_digest), item=f"the end of version {version}"
            )
            assert set(received.values()) <= {sent_digest}, received
            max_error, mean_error = await self._run_canary(receivers, version, by_learner)
        finally:
            by_learner.cancel()
            await asyncio.gather(by_learner, return_exceptions=True)
        await receivers.call(lambda sampler: sampler.serve.remote(version), item=f"serving version {version}")
        return SyncReport(
            policy_version=version,
            weights_digest=sent_digest,
            num_bytes=manifest.num_bytes,
            num_bytes_sent=num_bytes_sent,
            canary_max_error=max_error,
            canary_mean_error=mean_error,
            synced=tuple(actor.name for actor in receivers.left),
            failed=receivers.failed,
        )

    async def _send_chunks(self, receivers: "_Receivers", num_chunks: int, *, as_delta: bool) -> None:
        loading: list[asyncio.Task[Any]] = []
        try:
            for index in range(num_chunks):
                chunk = await self._gather_chunk(index, as_delta=as_delta)
                if len(loading) >= CHUNKS_IN_FLIGHT:
                    await loading.pop(0)
                loading.append(asyncio.ensure_future(receivers.load(chunk, item=f"chunk {index}")))
            while loading:
                await loading.pop(0)
        finally:
            for task in loading:
                task.cancel()
            await asyncio.gather(*loading, return_exceptions=True)

    async def _gather_chunk(self, index: int, *, as_delta: bool) -> Awaitable[WeightChunk]:
        """Reference to a chunk in Ray's object store: rank 0's; the others only take part in the gathering.

        Not waited for. Where rank 0 is lost on the way the engines fail on the chunk, and the digest that rank 0 is
        asked for next tells whose fault it was.
        """
        learners = self._fleet.learners
        refs = [learner.handle.weight_chunk.remote(index, as_delta=as_delta) for learner in learners]
        names = [learner.name for learner in learners]
        if len(refs) > 1:
            await finish_all(
                refs[1:], deadline_s=self._deadline_s, stage="sync", actors=names[1:], item=f"chunk {index}"
            )
        return cast(Awaitable[WeightChunk], refs[0])  # it is the other ranks that answer None

    async def _run_canary(
        self, receivers: "_Receivers", version: int, scoring: Awaitable[list[list[Logprobs]]]
    ) -> tuple[float, float]:
        """(largest, mean) difference of all samplers. Errors: `WeightSyncError`."""
        if self._first is None and self._long:
            await self._check_longest_text(receivers)
        by_learner, by_samplers = await asyncio.gather(
            scoring,
            receivers.call(lambda sampler: sampler.prompt_logprobs.remote(self._canary), item="the canary"),
        )
        errors = {name: canary_errors(by_learner[0], got) for name, got in by_samplers.items()}
        if any(not len(errors_N) for errors_N in errors.values()):
            raise WeightSyncError(
                f"weights version {version} cannot be verified: the first {len(self._canary)} prompts have one "
                "token each, so none has a log-probability; use a template with more text"
            )
        for name, errors_N in errors.items():
            await self._check_size(name, errors_N, version)
        learner_N = np.concatenate(by_learner[0]).astype(np.float64)
        if errors:
            self._first = self._first or _FirstSync.of(version, learner_N, list(errors.values()))
        for name, errors_N in errors.items():
            await self._check_staleness(name, errors_N, learner_N, version)
        sizes = [np.abs(errors_N) for errors_N in errors.values()]
        return (
            max((float(np.max(sizes_N)) for sizes_N in sizes), default=0.0),
            max((float(np.mean(sizes_N)) for sizes_N in sizes), default=0.0),
        )

    async def _check_longest_text(self, receivers: "_Receivers") -> None:
        """Once: windows and positions show their differences far into a text, where no fixed prompt reaches."""
        text = [self._long]
        by_learner, by_samplers = await asyncio.gather(
            self._ranks(lambda rank: rank.score_tokens.remote(text), item="the canary"),
            receivers.call(lambda sampler: sampler.prompt_logprobs.remote(text), item="the canary"),
        )
        limits = long_limits(fp32_limits(*self._configured_limits()))
        if not self._is_exact:
            rounding = await self._ranks(lambda rank: rank.rounding_errors.remote(text), item="the canary")
            limits = rounding_limits(rounding[0], *self._configured_limits())
        for name, got in by_samplers.items():
            errors_N = canary_errors(by_learner[0], got)
            if limits.allow(errors_N):
                continue
            over = np.flatnonzero(~(np.abs(errors_N) <= limits.largest))
            largest, mean = np.max(np.abs(errors_N)), np.mean(np.abs(errors_N))
            where = f", over that from token {over[0] + 1} on" if len(over) else ""
            raise WeightSyncError(
                f"{name} does not compute as the learner does: in a text of {len(self._long)} tokens, which "
                "model.max_context_tokens allows, their log-probabilities differ by "
                f"{largest:.3g} nats at most and {mean:.3g} on average, where rounding explains "
                f"{limits.largest:.3g} and {limits.mean:.3g}{where}; lower model.max_context_tokens if they differ "
                "far into a text alone, or take another model"
            )

    async def _check_size(self, name: str, errors_N: Errors, version: int) -> None:
        if self._limits is None or not (self._limits.allow(errors_N) or self._is_exact):
            # Measured once, and again before anybody is blamed: how much rounding makes changes with the weights.
            rounding = await self._ranks(lambda rank: rank.rounding_errors.remote(self._canary), item="the canary")
            self._limits = rounding_limits(rounding[0], *self._configured_limits(), has_ceiling=True)
        if not self._limits.allow(errors_N):
            raise WeightSyncError(
                f"{name} does not compute with weights version {version} that it received: its log-probabilities of "
                f"fixed prompts differ from the learner's by {np.max(np.abs(errors_N)):.3g} nats at most and "
                f"{np.mean(np.abs(errors_N)):.3g} on average, where rounding explains {self._limits.largest:.3g} and "
                f"{self._limits.mean:.3g}; nothing was sampled from them"
            )

    async def _check_staleness(self, name: str, errors_N: Errors, learner_N: Errors, version: int) -> None:
        first = self._first
        assert first is not None
        moved_N = learner_N - first.logprobs_N
        share = 0.0 if self._is_exact else stale_share(errors_N, moved_N, noise=first.noise)
        if share and self._config.learner.dtype == "float32":
            # A weight in bf16 stays where it is until half a unit of its last place has gathered in the learner's, and
            # files in bf16 begin on that grid. What rounding keeps of the learner itself is no fault of the engine.
            rounding = await self._ranks(lambda rank: rank.rounding_errors.remote(self._canary), item="the canary")
            kept_N = np.concatenate(rounding[0]).astype(np.float64)
            share = stale_share(errors_N - kept_N, moved_N, noise=first.noise)
        if share:
            raise WeightSyncError(
                f"{name} computes with old weights in part: its log-probabilities of fixed prompts took no part in "
                f"{share:.0%} of their change from version {first.version} to version {version}, which rounding does "
                "not explain; nothing was sampled from them"
            )

    def _configured_limits(self) -> tuple[float | None, float | None]:
        return self._config.weight_sync.canary_max_error, self._config.weight_sync.canary_mean_error

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


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _FirstSync:
    """What later ones are compared with."""

    version: int
    logprobs_N: Errors
    """The learner's, of the fixed prompts."""
    noise: float
    """Root mean square of what separated engines and learner (nats)."""

    @classmethod
    def of(cls, version: int, logprobs_N: Errors, errors: Sequence[Errors]) -> "_FirstSync":
        return cls(version=version, logprobs_N=logprobs_N, noise=float(np.sqrt(np.mean(np.concatenate(errors) ** 2))))


async def serve_as_loaded(fleet: Fleet, deadline_s: float) -> None:
    """Lets engines serve the weights of their model directory: an evaluation alone has no learner to verify against."""
    for sampler in fleet.samplers:
        await finish(
            sampler.handle.serve.remote(0), deadline_s=deadline_s, stage="start", actor=sampler.name, item="serving"
        )
