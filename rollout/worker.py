"""A sampler: one engine, a thread that steps it, and the leases it serves.

    submit(requests) --> queue --> engine thread: add, step, step, ... --> group complete --> wait_group(key)
    begin_update, load_chunk, finish_update --> same queue, so they happen between two steps

A batch that is submitted together is added together, before the next step: then what the engine computes together is
the same in every run, and so are the last bits of its log-probabilities.

A worker serves only weights that were verified. It starts STALE, is STALE again from the first byte of an update, and
serves after `serve(version)`, which the controller sends when digest and canary agree.
"""

import asyncio
import queue
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, TypeVar

from rollout.config import SamplingConfig
from rollout.engines.answers import fail_all, shielded
from rollout.engines.failures import as_engine_error
from rollout.engines.outputs import Key, parse_request_id, request_id_of, to_completion
from rollout.engines.protocol import Engine, EngineOutput, SampleSpec
from rollout.engines.replies import Replies
from rollout.episode_desk import EpisodeDesk, EpisodeSetup, WantedReply, failed_completion
from rollout.errors import EngineError, WeightSyncError, WorldError
from rollout.leases import Leases
from rollout.prompts.stream import sample_seed
from rollout.transfer.delta import KeptBytes
from rollout.transfer.manifest import WeightChunk, WeightManifest, WeightReceiver
from rollout.types import (
    Completion,
    GroupFacts,
    Logprobs,
    RolloutGroup,
    SampleRequest,
    facts_of,
)

# How long the engine thread sleeps in its queue when nothing runs; only shutdown waits for it.
IDLE_WAIT_S = 0.2

R = TypeVar("R")


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerStatus:
    """What a worker says of itself."""

    name: str
    policy_version: int | None
    """Version of the weights that it serves; None while it is STALE."""
    num_running_groups: int
    num_tokens: int
    """Tokens sampled since the start."""
    busy_s: float
    """Seconds spent in engine steps since the start."""
    pid: int


class RolloutWorker:
    """Samples groups on an engine that `build_engine` makes in the worker's own thread.

    Errors: `EngineError` from every method once the engine has failed; `WeightSyncError` for weights that are not as
    they were sent.
    """

    def __init__(
        self,
        build_engine: Callable[[], Engine],
        *,
        name: str,
        run_seed: int,
        has_seeds: bool = True,
        episodes: EpisodeSetup | None = None,
    ) -> None:
        """Without `has_seeds` only evaluations have a seed for each completion."""
        self.name = name
        self._run_seed = run_seed
        self._has_seeds = has_seeds
        self._commands: queue.SimpleQueue[tuple[Callable[[], Any], Future[Any]]] = queue.SimpleQueue()
        self._leases = Leases(name)
        self._engine: Engine | None = None
        self._receiver: WeightReceiver | None = None
        self._kept = KeptBytes()
        # The engine starts with the weights of the model directory; a run's learner may have others, so it syncs first.
        self._loaded_version: int | None = 0
        self._desk = EpisodeDesk(
            episodes or EpisodeSetup(),
            seed=self._drawn_seed,
            sample=self._sample_replies,
            deliver=lambda request, completion: self._leases.deliver(request.key, completion),
            failed=self._world_failed,
            gone=lambda request, error: self._leases.give_up([request.key], error),
        )
        self._replies = Replies()
        self._served_version: int | None = None
        self._failure: EngineError | None = None
        self._num_tokens = 0
        self._busy_s = 0.0
        self._closing = False
        self._started: Future[None] = Future()
        self._thread = threading.Thread(target=self._run, args=(build_engine,), name=f"{name}-engine", daemon=True)
        self._thread.start()

    # What the controller calls. All of it returns at once or when the engine thread has done it.

    async def ready(self) -> WorkerStatus:
        """Returns when the engine has started."""
        await asyncio.gather(shielded(self._started), asyncio.to_thread(self._desk.open))
        await asyncio.to_thread(self._desk.open_parsers)
        return await self.status()

    async def status(self) -> WorkerStatus:
        """What the worker says of itself; answered also while the engine computes."""
        import os

        return WorkerStatus(
            name=self.name,
            policy_version=self._served_version,
            num_running_groups=len(self._leases),
            num_tokens=self._num_tokens,
            busy_s=self._busy_s,
            pid=os.getpid(),
        )

    async def submit(self, requests: Sequence[SampleRequest], sampling: SamplingConfig) -> None:
        """Takes a batch of groups to sample; they are added to the engine together. Results come from `wait_group`."""
        await self._on_engine_thread(lambda: self._add(requests, sampling))
        self._desk.begin([request for request in requests if self._leases.future(request.key) is not None], sampling)

    async def wait_group(self, key: Key) -> tuple[GroupFacts, RolloutGroup]:
        """Returns the group of a lease, behind its facts, when its last completion has ended; a group is handed out
        once. They are two so that a caller can take the facts and leave the group where it is."""
        done = self._leases.future(key)
        if done is None:
            raise self._failure or EngineError(
                f"{self.name}: no group is leased under {key}; it was handed out already"
            )
        try:
            group = await shielded(done)
        except WorldError:
            self._leases.hand_out(key)  # nothing will come of it
            raise
        # Taken out only now: a caller that gave up waiting may ask again, and of two that wait one gets the group.
        if not self._leases.hand_out(key):
            raise EngineError(f"{self.name}: the group of {key} was handed out already")
        return facts_of(group), group

    async def give_up(self, requests: Sequence[SampleRequest]) -> None:
        """Takes leases back: of a `submit` whose caller stopped waiting for it, so that nothing is computed for nobody.
        Behind that `submit` in the queue, whenever it gets there."""
        for request in requests:
            self._desk.give_up(request.key)
        await self._on_engine_thread(lambda: self._give_up(requests))

    async def probe(self) -> None:
        """Returns when the engine has shown that it works: between two steps, or with a token where it is idle."""
        await self._on_engine_thread(self._probe)

    async def begin_update(self, manifest: WeightManifest, *, serving_continues: bool = False) -> str:
        """Starts a transfer; from here the worker is STALE. Groups may run on across it only if `serving_continues`.
        Returns the digest of the weights whose bytes it has kept: the transfer may tell what changed since."""
        return await self._on_engine_thread(lambda: self._begin_update(manifest, serving_continues))

    async def load_chunk(self, chunk: WeightChunk) -> None:
        """Checks and loads one chunk."""
        await self._on_engine_thread(lambda: self._load_chunk(chunk))

    async def finish_update(self, sent_digest: str) -> str:
        """Checks that the transfer is whole and makes it the engine's weights; returns the digest of what arrived."""
        return await self._on_engine_thread(lambda: self._finish_update(sent_digest))

    async def prompt_logprobs(self, sequences: Sequence[Sequence[int]]) -> list[Logprobs]:
        """The canary: [n - 1] log-probabilities of fixed sequences under the loaded weights (temperature 1)."""
        return await self._on_engine_thread(lambda: self._live_engine().prompt_logprobs(sequences))

    async def serve(self, policy_version: int) -> None:
        """The weights were verified: sampling may start."""
        await self._on_engine_thread(lambda: self._serve(policy_version))

    async def close(self) -> None:
        """Ends the engine thread; what runs is given up."""
        self._closing = True
        self._desk.close()
        await asyncio.to_thread(self._thread.join, 10.0)

    # What happens on the engine thread.

    def _run(self, build_engine: Callable[[], Engine]) -> None:
        try:
            self._engine = build_engine()
        except BaseException as error:  # noqa: BLE001 - thread boundary: the error goes to whoever waits for the start
            failure = as_engine_error(self.name, "could not start", error)
            self._fail(failure)
            self._started.set_exception(failure)
            return
        self._started.set_result(None)
        while not self._closing:
            try:
                self._run_commands()
                if self._can_step():
                    self._step()
            except BaseException as error:  # noqa: BLE001 - thread boundary: every lease learns of it
                self._fail(as_engine_error(self.name, "failed while sampling", error))
                return
        self._fail(EngineError(f"{self.name}: the worker was closed; what it was asked for is given up"))
        self._engine.close()

    def _can_step(self) -> bool:
        # Groups that run on across an update wait for `serve` too: nothing is sampled from unverified weights.
        assert self._engine is not None
        return self._served_version is not None and self._engine.has_unfinished()

    def _run_commands(self) -> None:
        """Runs everything that waits in the queue; when nothing samples, waits for it a moment."""
        block = not self._can_step()
        while True:
            try:
                command, done = self._commands.get(block=block, timeout=IDLE_WAIT_S)
            except queue.Empty:
                return
            block = False
            try:
                done.set_result(command())
            except BaseException as error:  # noqa: BLE001 - thread boundary: the caller gets the error
                done.set_exception(
                    error
                    if isinstance(error, EngineError | WeightSyncError)
                    else as_engine_error(self.name, "failed", error)
                )

    def _step(self) -> None:
        started = time.monotonic()
        outputs = self._live_engine().step()
        self._busy_s += time.monotonic() - started
        for output in outputs:
            self._finish_completion(output)

    def _add(self, requests: Sequence[SampleRequest], sampling: SamplingConfig) -> None:
        if self._served_version is None:
            raise EngineError(f"{self.name}: asked to sample with weights that were not verified")
        self._abort(self._leases.add(requests), group_size=max((r.group_size for r in requests), default=0))
        specs = []
        for request in requests:
            prompt = request.prompt
            if self._desk.plays(prompt):
                continue  # its replies come one by one
            specs += [
                SampleSpec(
                    request_id=request_id_of(request.key, i),
                    token_ids=prompt.token_ids,
                    sampling=sampling,
                    seed=self._seed(request, i),
                )
                for i in range(request.group_size)
            ]
        self._live_engine().add(specs)

    def _seed(self, request: SampleRequest, sample_index: int, turn: int = 0) -> int | None:
        has_seed = self._has_seeds or request.purpose != "train"
        return self._drawn_seed(request, sample_index, turn) if has_seed else None

    def _drawn_seed(self, request: SampleRequest, sample_index: int, turn: int = 0) -> int:
        prompt = request.prompt
        return sample_seed(self._run_seed, request.purpose, prompt.epoch, prompt.uid, sample_index, turn=turn)

    def _sample_replies(self, wanted: Sequence[WantedReply]) -> list[asyncio.Future[Completion]]:
        """Replies of episodes; the engine works on all of them from its next step on."""
        asked = [(of, self._reply_spec(of), Future[Completion]()) for of in wanted]

        def add() -> None:
            engine = self._live_engine()
            for of, spec, done in asked:
                if self._leases.future(of.request.key) is None:
                    done.set_exception(EngineError(f"{self.name}: the lease of {of.request.key} was given up"))
                else:
                    self._replies.add(engine, spec, done)

        added: Future[None] = Future()
        added.add_done_callback(lambda _: fail_all([done for *_, done in asked], added.exception()))
        self._put(add, added)
        return [shielded(done) for *_, done in asked]

    def _reply_spec(self, of: WantedReply) -> SampleSpec:
        return SampleSpec(
            request_id=f"{request_id_of(of.request.key, of.place)}|{of.asked.turn}",
            token_ids=of.asked.token_ids,
            sampling=of.sampling.model_copy(update={"max_tokens": of.asked.max_tokens}),
            seed=self._seed(of.request, of.place, of.asked.turn),
        )

    def _world_failed(self, request: SampleRequest, sample_index: int, error: WorldError) -> None:
        """An evaluation goes on with an episode that has no score; in training there is no group."""
        if request.purpose == "eval":
            self._leases.deliver(request.key, failed_completion(sample_index, self._loaded_version or 0, error))
            return
        self._leases.fail(request.key, error)
        self._desk.give_up(request.key)
        self._commands.put((lambda: self._abort([request.key], group_size=request.group_size), Future()))

    def _give_up(self, requests: Sequence[SampleRequest]) -> None:
        keys = [request.key for request in requests]
        self._leases.give_up(keys, EngineError(f"{self.name}: the lease was given up by who asked for it"))
        self._abort(keys, group_size=max((r.group_size for r in requests), default=0))

    def _abort(self, keys: Sequence[Key], *, group_size: int) -> None:
        if keys:
            replies = self._replies.of(keys, group_size=group_size)
            self._live_engine().abort([*(request_id_of(key, i) for key in keys for i in range(group_size)), *replies])
            self._replies.end(replies, EngineError(f"{self.name}: the lease of an episode was given up"))

    def _probe(self) -> None:
        engine = self._live_engine()
        if self._served_version is None or engine.has_unfinished():
            return  # without weights it must not sample, and an engine with work shows by it that it works
        sampling = SamplingConfig(max_tokens=1)
        engine.add([SampleSpec(request_id="probe", token_ids=(0,), sampling=sampling, seed=0)])
        while engine.has_unfinished():
            engine.step()

    def _finish_completion(self, output: EngineOutput) -> None:
        key, sample_index = parse_request_id(output.request_id)
        self._num_tokens += len(output.token_ids)
        completion = to_completion(output, sample_index, self._served_version)
        if not self._replies.deliver(output, completion):
            self._leases.deliver(key, completion)

    def _begin_update(self, manifest: WeightManifest, serving_continues: bool) -> str:
        engine = self._live_engine()
        if engine.has_unfinished() and not serving_continues:
            # The controller waited for every group that it still wants: what runs is of leases that it gave up.
            engine.abort_all()
            error = EngineError(f"{self.name}: its lease was given up, and then weights of another version came")
            self._leases.give_up_all(error)
            self._replies.end_all(error)
        self._served_version = None
        base = self._kept.digest
        self._receiver = WeightReceiver(manifest, receiver=self.name, kept=self._kept)
        engine.start_weight_update()
        return base

    def _load_chunk(self, chunk: WeightChunk) -> None:
        if self._receiver is None:
            raise WeightSyncError(f"{self.name}: chunk {chunk.index} came outside a transfer")
        self._live_engine().load_tensors(list(self._receiver.accept(chunk)))

    def _finish_update(self, sent_digest: str) -> str:
        if self._receiver is None:
            raise WeightSyncError(f"{self.name}: the end of a transfer came outside a transfer")
        digest = self._receiver.finish(sent_digest)
        self._live_engine().finish_weight_update(self._receiver.policy_version)
        self._loaded_version = self._receiver.policy_version
        self._receiver = None
        return digest

    def _serve(self, policy_version: int) -> None:
        if policy_version != self._loaded_version:
            raise WeightSyncError(
                f"{self.name}: told to serve version {policy_version}, but version {self._loaded_version} is loaded"
            )
        self._served_version = policy_version

    # Plumbing.

    def _live_engine(self) -> Engine:
        if self._failure is not None:
            raise self._failure
        assert self._engine is not None
        return self._engine

    async def _on_engine_thread(self, command: Callable[[], R]) -> R:
        done: Future[R] = Future()
        self._put(command, done)
        return await shielded(done)

    def _put(self, command: Callable[[], R], done: Future[R]) -> None:
        if self._failure is None:
            self._commands.put((command, done))
        # Asked again: had the engine failed in between, nobody would be left to empty the queue.
        if self._failure is not None:
            fail_all([done], self._failure)

    def _fail(self, error: EngineError) -> None:
        self._failure = error
        self._leases.give_up_all(error)
        self._replies.end_all(error)
        while True:
            try:
                _, done = self._commands.get(block=False)
            except queue.Empty:
                return
            fail_all([done], error)
