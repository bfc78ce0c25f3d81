"""What the controller may call of each role's actor, and what comes back: the only names that go over to a process.

    Sampler (a Protocol)  <-- RolloutWorker keeps it: mypy compares them where `cluster.fleet.roles` names the class
    SamplerHandle         --> handle.submit.remote(requests, sampling): the same signature, answered by a reference

A method that is renamed in a worker, or takes something else, is a type error here and at every call.
"""

from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any, Concatenate, Literal, ParamSpec, Protocol, TypeVar, cast, overload

from learner.types import ComputedTokens, RankShare, StepOutput, Taught
from reward.types import GroupScores, RewardInput
from rollout.config import SamplingConfig
from rollout.transfer.manifest import WeightChunk, WeightManifest
from rollout.types import GroupFacts, Logprobs, RolloutGroup, SampleRequest
from rollout.worker import WorkerStatus

P = ParamSpec("P")
R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)
A = TypeVar("A")
B = TypeVar("B")
A_co = TypeVar("A_co", covariant=True)
B_co = TypeVar("B_co", covariant=True)


class Remote(Protocol[P, R_co]):
    """A method of an actor. `remote` sends the call and returns at once; the answer is awaited."""

    def remote(self, *args: P.args, **kwargs: P.kwargs) -> Awaitable[R_co]:
        """The reference of the answer."""
        ...


class RemoteParts(Protocol[P, A_co, B_co]):
    """A method of an actor whose two results can be referred to apart: who needs one does not fetch the other."""

    def options(self, *, num_returns: Literal[2]) -> "PartsCall[P, A_co, B_co]":
        """The method, answering with one reference for each result."""
        ...


class PartsCall(Protocol[P, A_co, B_co]):
    """`RemoteParts` on its way."""

    def remote(self, *args: P.args, **kwargs: P.kwargs) -> tuple[Awaitable[A_co], Awaitable[B_co]]:
        """The references of the two results."""
        ...


class RemoteBeside(Protocol[P, R_co]):
    """A method that an actor answers while another call of it goes on, in a thread of its own."""

    def options(self, *, concurrency_group: Literal["beside"]) -> Remote[P, R_co]:
        """The method, on its way past the other calls."""
        ...


@overload
def _remote(method: Callable[Concatenate[Any, P], Coroutine[Any, Any, R]]) -> Remote[P, R]: ...
@overload
def _remote(method: Callable[Concatenate[Any, P], R]) -> Remote[P, R]: ...
def _remote(method: Any) -> Any:
    """The type of `handle.method`. A handle is Ray's object, which has the method of this name."""
    return method


@overload
def remote_parts(method: Callable[Concatenate[Any, P], Coroutine[Any, Any, tuple[A, B]]]) -> RemoteParts[P, A, B]: ...
@overload
def remote_parts(method: Callable[Concatenate[Any, P], tuple[A, B]]) -> RemoteParts[P, A, B]: ...
def remote_parts(method: Any) -> Any:
    """As `_remote`, of a method that returns a pair."""
    return method


def _remote_beside(method: Callable[Concatenate[Any, P], R]) -> RemoteBeside[P, R]:
    """As `_remote`, of a method that must not wait for the others."""
    return cast(RemoteBeside[P, R], method)


def by_reference(reference: Awaitable[R]) -> R:
    """A reference as an argument of a call: the worker is handed what it refers to, and the controller never holds it.

    Example:
        learner.handle.train_step.remote(by_reference(ray.put(batch)))
    """
    return cast(R, reference)


class Sampler(Protocol):
    """What is called of a sampler; `rollout.worker.RolloutWorker` has it, and says what each does."""

    async def ready(self) -> WorkerStatus:
        """Returns when the engine has started."""
        ...

    async def status(self) -> WorkerStatus:
        """What it says of itself."""
        ...

    async def probe(self) -> None:
        """Returns when it has shown that it works."""

    async def submit(self, requests: Sequence[SampleRequest], sampling: SamplingConfig) -> None:
        """Takes a batch of leases."""

    async def wait_group(self, key: tuple[str, str, int]) -> tuple[GroupFacts, RolloutGroup]:
        """The facts of a lease's group, and the group, once."""
        ...

    async def give_up(self, requests: Sequence[SampleRequest]) -> None:
        """Ends leases that nobody waits for any more."""

    async def begin_update(self, manifest: WeightManifest, *, serving_continues: bool = False) -> str:
        """New weights are coming; the digest of those whose bytes it has kept, if any."""
        ...

    async def load_chunk(self, chunk: WeightChunk) -> None:
        """A part of them."""

    async def finish_update(self, sent_digest: str) -> str:
        """All of them are there; their digest."""
        ...

    async def prompt_logprobs(self, sequences: Sequence[Sequence[int]]) -> list[Logprobs]:
        """Log-probabilities (nats) of fixed sequences: the canary."""
        ...

    async def serve(self, policy_version: int) -> None:
        """They were verified: sampling may start."""

    async def close(self) -> None:
        """Ends what it has started."""


class Learner(Protocol):
    """What is called of a learner rank; `learner.worker.LearnerWorker` has it."""

    def can_pack(self) -> bool:
        """Whether its model computes sequences that share a row."""
        ...

    def accumulate(self, share: RankShare, *groups: RolloutGroup) -> ComputedTokens:
        """The gradient of some groups of a step."""
        ...

    def train_step(self, share: RankShare, *groups: RolloutGroup) -> tuple[StepOutput, ComputedTokens]:
        """One training step."""
        ...

    def hold_step(self, step: int) -> int | None:
        """The pass before which it waits for `decide_step`; None when the step cannot be given up any more."""

    def decide_step(self, step: int, at: int | None) -> None:
        """The pass before which the step is given up; None: it goes on."""

    def weight_manifest(self) -> WeightManifest:
        """Begins a transfer."""
        ...

    def weight_chunk(self, index: int, *, as_delta: bool = False) -> WeightChunk | None:
        """A part of it, on rank 0."""

    def weight_bytes_sent(self) -> int:
        """Of the last transfer, by this rank."""
        ...

    def weights_digest(self) -> str:
        """Of the transfer, on rank 0."""
        ...

    def score_tokens(self, sequences: Sequence[Sequence[int]]) -> list[Logprobs]:
        """Log-probabilities (nats) of sequences, computed as in training."""
        ...

    def rounding_errors(self, sequences: Sequence[Sequence[int]]) -> list[Logprobs]:
        """What rounding to bf16 alone makes of them (nats)."""
        ...

    def save(self, directory: str) -> None:
        """Writes its part of a checkpoint."""

    def load(self, directory: str, *, is_hashed: bool = False) -> None:
        """Goes on from a checkpoint."""

    def close(self) -> None:
        """Ends what it has started."""


class Reward(Protocol):
    """What is called of a reward worker; `reward.worker.RewardWorker` has it."""

    def start(self) -> None:
        """Returns when the scoring children have started."""

    def score(self, group: RolloutGroup, *, with_steps: bool = True) -> GroupScores:
        """The scores of a group, and of its steps where they are scored at all."""
        ...

    def close(self) -> None:
        """Ends what it has started."""


class RewardModel(Protocol):
    """What is called of a reward model; `reward.models.worker.RewardModelWorker` has it."""

    def score(self, items: Sequence[RewardInput]) -> list[float]:
        """One score for each completion, in order."""
        ...

    def num_batches(self) -> int:
        """Batches done since the start."""
        ...

    def probe(self) -> None:
        """Returns when it has shown that it works."""

    def close(self) -> None:
        """Ends what it has started."""


class Teacher(Protocol):
    """What is called of who asks a teacher's server; `learner.endpoint.worker.TeacherWorker` has it."""

    async def ready(self) -> None:
        """Returns when it has started."""

    async def score(self, group: RolloutGroup) -> tuple[Taught, RolloutGroup]:
        """What became of a group, and the group with what the teacher says of it."""
        ...

    async def close(self) -> None:
        """Ends what it has started."""


class Handle:
    """What Ray gives every actor beside its own methods, and the end that each of ours has."""

    close: Remote[[], Any]

    __ray_ready__: Remote[[], object]
    __ray_call__: Any
    """Runs a function in the actor's process; what it returns depends on the function."""


class SamplerHandle(Handle):
    """A sampler's process, from outside."""

    ready = _remote(Sampler.ready)
    status = _remote(Sampler.status)
    probe = _remote(Sampler.probe)
    submit = _remote(Sampler.submit)
    wait_group = remote_parts(Sampler.wait_group)
    give_up = _remote(Sampler.give_up)
    begin_update = _remote(Sampler.begin_update)
    load_chunk = _remote(Sampler.load_chunk)
    finish_update = _remote(Sampler.finish_update)
    prompt_logprobs = _remote(Sampler.prompt_logprobs)
    serve = _remote(Sampler.serve)
    close = _remote(Sampler.close)


class LearnerHandle(Handle):
    """The process of a learner rank, from outside."""

    can_pack = _remote(Learner.can_pack)
    accumulate = _remote(Learner.accumulate)
    train_step = remote_parts(Learner.train_step)
    hold_step = _remote_beside(Learner.hold_step)
    decide_step = _remote_beside(Learner.decide_step)
    weight_manifest = _remote(Learner.weight_manifest)
    weight_chunk = _remote(Learner.weight_chunk)
    weight_bytes_sent = _remote(Learner.weight_bytes_sent)
    weights_digest = _remote(Learner.weights_digest)
    score_tokens = _remote(Learner.score_tokens)
    rounding_errors = _remote(Learner.rounding_errors)
    save = _remote(Learner.save)
    load = _remote(Learner.load)
    close = _remote(Learner.close)


class RewardHandle(Handle):
    """A reward worker's process, from outside."""

    start = _remote(Reward.start)
    score = _remote(Reward.score)
    close = _remote(Reward.close)


class RewardModelHandle(Handle):
    """A reward model's process, from outside."""

    score = _remote(RewardModel.score)
    num_batches = _remote(RewardModel.num_batches)
    probe = _remote(RewardModel.probe)
    close = _remote(RewardModel.close)


class TeacherHandle(Handle):
    """The process that asks a teacher's server, from outside."""

    ready = _remote(Teacher.ready)
    score = remote_parts(Teacher.score)
    close = _remote(Teacher.close)
