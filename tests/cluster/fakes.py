"""Actors that keep the contracts of the workers and write down what is asked of them. No Ray: a handle's
`.method.remote(...)` returns an awaitable, as a Ray handle's does."""

import asyncio
import inspect
from collections.abc import Awaitable, Callable, Generator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from cluster.config import RecoveryConfig
from cluster.errors import ObjectLostError
from cluster.fleet.actors import Actor, Fleet
from cluster.fleet.handles import Handle
from cluster.fleet.recovery import Recovery
from cluster.fleet.roles import Role
from reward.types import GroupScores, RewardResult, ServerCost
from rollout.errors import WeightSyncError
from rollout.transfer.delta import KeptBytes
from rollout.transfer.manifest import (
    TensorSpec,
    WeightChunk,
    WeightManifest,
    WeightReceiver,
    tensor_digest,
    weights_digest,
)
from rollout.types import GroupFacts, Logprobs, RolloutGroup, SampleRequest, facts_of
from tests.cluster.examples import completion

Journal = list[tuple[str, ...]]

SPECS = tuple(TensorSpec(name=f"w{i}", dtype="float32", shape=(2,)) for i in range(5))


@dataclass(frozen=True, slots=True)
class Vanishing:
    """A result that can be had for a while."""

    value: Any
    is_gone: Callable[[], bool]


class Stored:
    """A reference into a store that is this process: to a value, or to the second result of a call."""

    def __init__(self, value: Any) -> None:
        self._value = value

    def get(self) -> Any:
        value = self._value.result()[1] if isinstance(self._value, asyncio.Future) else self._value
        if isinstance(value, Vanishing):
            if value.is_gone():
                raise ObjectLostError("an object is gone with the process or node that had it")
            return value.value
        return value

    def __await__(self) -> Generator[Any, None, Any]:
        if isinstance(self._value, asyncio.Future):
            yield from asyncio.wait((self._value,)).__await__()
        return self.get()


class FakeObjects:
    """`cluster.fleet.objects.Objects` of this process."""

    def put(self, value: Any) -> Stored:
        return Stored(value)

    def get(self, references: Sequence[Any], *, deadline_s: float) -> list[Any]:
        assert deadline_s > 0
        return [reference.get() if isinstance(reference, Stored) else reference for reference in references]


async def first_result(call: "asyncio.Future[Any]") -> Any:
    """Of a call that answers with two."""
    return (await asyncio.shield(call))[0]


class Reference:
    """To what a call will return. Who gives up waiting for it ends neither the call nor the wait of another."""

    def __init__(self, call: "asyncio.Future[Any]") -> None:
        self._call = call

    def __await__(self) -> Generator[Any, None, Any]:
        return asyncio.shield(self._call).__await__()


class _Method:
    def __init__(self, call: Callable[..., Any]) -> None:
        self._call = call

    def options(self, *, num_returns: int = 1, concurrency_group: str = "") -> Any:
        if concurrency_group:
            assert concurrency_group == "beside"
            return self
        assert num_returns == 2
        return _TwoResults(self)

    def remote(self, *args: Any, **kwargs: Any) -> Awaitable[Any]:
        return Reference(self.start(*args, **kwargs))

    def start(self, *args: Any, **kwargs: Any) -> "asyncio.Future[Any]":
        return asyncio.ensure_future(self._run(args, kwargs))

    async def _run(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        # References among the arguments arrive as what they refer to.
        values = [await arg if inspect.isawaitable(arg) else arg for arg in args]
        result = self._call(*values, **kwargs)
        return await result if inspect.isawaitable(result) else result


class _TwoResults:
    def __init__(self, method: _Method) -> None:
        self._method = method

    def remote(self, *args: Any, **kwargs: Any) -> tuple[Awaitable[Any], Stored]:
        call = self._method.start(*args, **kwargs)
        # As with a reference: an answer that nobody waits for any more is nobody's error.
        call.add_done_callback(lambda ended: ended.cancelled() or ended.exception())
        first = asyncio.ensure_future(first_result(call))
        first.add_done_callback(lambda ended: ended.cancelled() or ended.exception())
        return Reference(first), Stored(call)


class FakeHandle(Handle):
    """Stands for a Ray handle of `worker`."""

    def __init__(self, worker: object) -> None:
        self._worker = worker

    def __getattr__(self, name: str) -> _Method:
        return _Method(getattr(self._worker, name))


class FakeLearner:
    """Rank 0 of a learner with five tensors of 8 bytes, one to a chunk."""

    def __init__(self, journal: Journal, *, name: str = "learner-0") -> None:
        self.version = 4
        self.save_error: Exception | None = None
        self._journal = journal
        self._name = name
        self._sent: list[tuple[TensorSpec, str]] = []

    def can_pack(self) -> bool:
        return False

    def hold_step(self, step: int) -> int | None:
        return None

    def decide_step(self, step: int, at: int | None) -> None:
        assert at is None

    def weight_manifest(self) -> WeightManifest:
        self._sent = []
        return WeightManifest(policy_version=self.version, chunks=tuple((spec,) for spec in SPECS))

    def weight_chunk(self, index: int, *, as_delta: bool) -> WeightChunk:
        assert not as_delta  # its manifest has no base
        self._journal.append(("gather", self._name, str(index)))
        data = np.full(8, index, dtype=np.uint8)
        self._sent.append((SPECS[index], tensor_digest(data)))
        return WeightChunk(policy_version=self.version, index=index, digests=(tensor_digest(data),), data=data)

    def weights_digest(self) -> str:
        self._journal.append(("digest", self._name))
        return weights_digest(self._sent)

    def score_tokens(self, sequences: Sequence[Sequence[int]]) -> list[Logprobs]:
        return [np.full(len(sequence) - 1, -0.5, np.float32) for sequence in sequences]

    def rounding_errors(self, sequences: Sequence[Sequence[int]]) -> list[Logprobs]:
        return [np.full(len(sequence) - 1, 0.05, np.float32) for sequence in sequences]

    def save(self, directory: str) -> None:
        self._journal.append(("save", self._name))
        (Path(directory) / f"{self._name}.bin").write_bytes(b"weights")
        if self.save_error is not None:
            raise self.save_error

    def load(self, directory: str, *, is_hashed: bool = False) -> None:
        told = "hashed already" if is_hashed else "to be hashed"
        self._journal.append(("load", self._name, (Path(directory) / f"{self._name}.bin").read_text(), told))


class FakeSampler:
    """Receives weights through a real `WeightReceiver`; samples what it is told at once."""

    def __init__(self, journal: Journal, *, name: str, canary_shift: float = 0.0, altered: int | None = None) -> None:
        self.served: int | None = None
        self.forgets = False
        self._journal = journal
        self._name = name
        self._canary_shift = canary_shift
        self._altered = altered
        self._requests: dict[tuple[str, str, int], SampleRequest] = {}
        self._receiver: WeightReceiver | None = None
        self._kept = KeptBytes()

    def close(self) -> None:
        return None

    def begin_update(self, manifest: WeightManifest, *, serving_continues: bool) -> str:
        del serving_continues  # nothing runs here
        self._journal.append(("begin", self._name, str(manifest.policy_version)))
        self.served = None
        base = self._kept.digest
        self._receiver = WeightReceiver(manifest, receiver=self._name, kept=self._kept)
        return base

    def load_chunk(self, chunk: WeightChunk) -> None:
        assert self._receiver is not None
        self._journal.append(("chunk", self._name, str(chunk.index)))
        if chunk.index == self._altered:
            chunk.data[0] ^= 1
        list(self._receiver.accept(chunk))

    def finish_update(self, sent_digest: str) -> str:
        assert self._receiver is not None
        self._journal.append(("finish", self._name))
        if self.forgets:
            raise WeightSyncError(f"{self._name}: differ from what the learner sent")
        return self._receiver.finish(sent_digest)

    def prompt_logprobs(self, sequences: Sequence[Sequence[int]]) -> list[Logprobs]:
        self._journal.append(("canary", self._name))
        return [np.full(len(sequence) - 1, -0.5 + self._canary_shift, np.float32) for sequence in sequences]

    def serve(self, version: int) -> None:
        self._journal.append(("serve", self._name, str(version)))
        self.served = version

    def submit(self, requests: Sequence[SampleRequest], _sampling: object) -> None:
        self._journal.append(("submit", self._name, str(len(requests))))
        self._requests |= {request.key: request for request in requests}

    def wait_group(self, key: tuple[str, str, int]) -> tuple[GroupFacts, RolloutGroup]:
        request = self._requests.pop(key)
        group = RolloutGroup(
            prompt=request.prompt,
            completions=tuple(completion(i) for i in range(request.group_size)),
            attempt=request.attempt,
            worker=self._name,
            started_s=1.0,
            finished_s=2.0,
        )
        return facts_of(group), group

    def give_up(self, requests: Sequence[SampleRequest]) -> None:
        self._journal.append(("give up", self._name, str(len(requests))))
        for request in requests:
            self._requests.pop(request.key, None)


class FakeReward:
    """Gives the rewards that `results_of` a group says."""

    def __init__(self, results_of: Callable[[RolloutGroup], Sequence[RewardResult]]) -> None:
        self._results_of = results_of

    def close(self) -> None:
        return None

    def score(self, group: RolloutGroup, *, with_steps: bool = True) -> GroupScores:
        rewards = tuple(self._results_of(group))
        return GroupScores(
            rewards=rewards, worker="reward-0", started_s=2.0, finished_s=3.0, cost=ServerCost(calls=2, waited_s=0.5)
        )


def fleet_of(
    *,
    samplers: Sequence[FakeSampler] = (),
    learners: Sequence[FakeLearner] = (),
    rewards: Sequence[FakeReward] = (),
    teachers: Sequence[object] = (),
) -> Fleet:
    def actors(role: str, workers: Sequence[object]) -> tuple[Actor[Any], ...]:
        return tuple(Actor(name=f"{role}-{i}", handle=FakeHandle(worker)) for i, worker in enumerate(workers))

    return Fleet(
        samplers=actors("sampler", samplers),
        learners=actors("learner", learners),
        rewards=actors("reward", rewards),
        teachers=actors("teacher", teachers),
        placement_group=None,
        launcher=NoLauncher(),
        objects=FakeObjects(),
    )


class NoLauncher:
    """Of a fleet in which nobody is ever restarted."""

    def start(self, name: str) -> Any:
        raise AssertionError(f"{name} is not restarted here")

    def start_together(self, role: Role[Any, Any]) -> Sequence[Any]:
        raise AssertionError(f"no {role.name} is restarted here")

    def start_deadline_s(self, _name: str) -> float:
        return 1.0

    async def stacks(self, name: str) -> str:
        raise AssertionError(f"nobody looks at {name} here")


def recovery_of(fleet: Fleet, **config: Any) -> Recovery:
    """Everyone in `fleet` is healthy; nobody watches."""
    recovery = Recovery(RecoveryConfig(**config), fleet, asyncio.ensure_future)
    for sampler in fleet.samplers:
        recovery.supervisor.synced(sampler.name, 0)
    return recovery


class Clock:
    """Stands still until it is moved."""

    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s
