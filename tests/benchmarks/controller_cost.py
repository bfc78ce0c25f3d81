"""What the controller costs: the real loop, ledger, buffer, pipeline, sync and record, over actors that cost nothing.

    python -m tests.benchmarks.controller_cost 512 16 4096 8     # prompts, completions, tokens, samplers

Printed: processor time of the controller for each completion (what the fakes take is measured and taken off), the
longest hold of its event loop, and its memory. The fakes live in the same process, so their tokens count as memory.

Dimensions: P prompts of a step, G completions of each, T tokens of a completion.
"""

import asyncio
import resource
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, TypeVar

import numpy as np

from cluster.config import CheckpointConfig, EvalConfig, RunConfig
from cluster.fleet.actors import Actor, Fleet
from cluster.groups.ledger import LedgerState
from cluster.loop.background import settle
from cluster.loop.controller import Controller
from cluster.loop.parts import RunParts
from cluster.record.run_directory import RunDirectory
from cluster.weights.checkpointing import Checkpoints
from cluster.weights.run_state import RunState
from learner.config import LearnerConfig
from learner.types import ComputedTokens, RankShare, StepOutput
from reward.types import GroupScores, RewardOutcome, RewardResult
from rollout.config import ReasoningGymTask, RolloutConfig
from rollout.types import (
    Completion,
    FinishReason,
    GroupFacts,
    Logprobs,
    LossMask,
    Prompt,
    RolloutGroup,
    TokenIds,
    VersionSpan,
    facts_of,
)
from tests.cluster.fakes import FakeHandle, FakeLearner, FakeObjects, FakeSampler, NoLauncher
from tests.faults.prompts import Stream
from tests.faults.world import FINGERPRINTS

STEPS = 4
SAMPLING_S = 2.0
TICK_S = 0.002

R = TypeVar("R")


class Clock:
    """Processor time of the fakes, which is not the controller's."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def __call__(self, call: Callable[[], R]) -> R:
        started = time.thread_time()
        try:
            return call()
        finally:
            self.seconds += time.thread_time() - started


class Learner(FakeLearner):
    """Trains at once, and answers for every token."""

    def __init__(self, clock: Clock, max_tokens: int) -> None:
        super().__init__([])
        self.version = 0
        self._clock = clock
        # Made once: new memory of this size takes the loop 0.2 s, which a learner in its own process does not.
        self._values_N = np.full(max_tokens, -1.0, np.float32)

    def train_step(self, share: RankShare, *_groups: RolloutGroup) -> tuple[StepOutput, ComputedTokens]:
        self.version += 1
        return self._clock(lambda: self._answer(share))

    def _answer(self, share: RankShare) -> tuple[StepOutput, ComputedTokens]:
        sequences = share.sequences
        lengths = tuple(sequence.num_completion_tokens for sequence in sequences)
        values_N = self._values_N[: sum(lengths)]
        tokens = ComputedTokens(
            keys=tuple(sequence.key for sequence in sequences),
            lengths=lengths,
            policy_logprobs_N=values_N,
            ref_logprobs_N=values_N,
            entropies_N=values_N,
        )
        metrics = {"train/sequence_tokens": float(share.num_sequence_tokens)}
        output = StepOutput(
            step=share.step, policy_version=self.version, skipped=False, bad_steps_in_a_row=0, metrics=metrics
        )
        return output, tokens

    def save(self, directory: str) -> None:
        (Path(directory) / "learner-0.bin").write_bytes(b"weights")


class SharedMemory:
    """Where groups lie, as in Ray's store: one mapping of two steps' tokens, of which each group has views. Memory of a
    group's own would go back to the system when nobody holds it, which costs the loop 45 ms a step and no real run."""

    def __init__(self, num_groups: int, group_size: int, num_tokens: int) -> None:
        rng = np.random.default_rng(0)
        shape = (2 * num_groups, group_size, num_tokens)
        self._token_ids, self._logprobs = rng.integers(0, 50_000, shape, np.int32), -rng.random(shape, np.float32)
        self._mask = np.ones(num_tokens, np.bool_)
        self._next = 0

    def group(self) -> tuple[TokenIds, Logprobs, LossMask]:
        """Token ids and log-probabilities of [G, T], and a mask of [T] for each."""
        slot = self._next
        self._next = (slot + 1) % len(self._token_ids)
        return self._token_ids[slot], self._logprobs[slot], self._mask


class Sampler(FakeSampler):
    """Samples random tokens."""

    def __init__(self, name: str, memory: SharedMemory, clock: Clock) -> None:
        super().__init__([], name=name)
        self._memory = memory
        self._clock = clock
        self._rng = np.random.default_rng(0)
        self._facts: GroupFacts | None = None

    def probe(self) -> None:
        return None

    async def wait_group(self, key: tuple[str, str, int]) -> tuple[GroupFacts, RolloutGroup]:  # type: ignore[override]
        # Groups of an engine end one after another, not all in one moment.
        await asyncio.sleep(self._rng.uniform(0.0, SAMPLING_S))
        return self._clock(lambda: self._group(key))

    def _group(self, key: tuple[str, str, int]) -> tuple[GroupFacts, RolloutGroup]:
        request, (token_ids, logprobs, mask) = self._requests.pop(key), self._memory.group()
        length = len(mask)
        completions = tuple(
            Completion(
                sample_index=i,
                token_ids=token_ids[i],
                logprobs=logprobs[i],
                loss_mask=mask,
                text="3",
                finish_reason=FinishReason.STOP,
                version_spans=(VersionSpan(policy_version=self.served or 0, start=0, end=length),),
            )
            for i in range(request.group_size)
        )
        now = time.time()
        group = RolloutGroup(
            prompt=request.prompt,
            completions=completions,
            attempt=request.attempt,
            worker=self._name,
            started_s=now,
            finished_s=now,
        )
        # What a group's tokens say is worked out in the sampler's process: here once, for it would hold the loop.
        self._facts = facts_of(group) if self._facts is None else self._facts
        lease: Any = {"group_id": group.group_id, "attempt": group.attempt, "started_s": now, "finished_s": now}
        return replace(self._facts, **lease), group


class Reward:
    """Scores at once."""

    def __init__(self, name: str, clock: Clock) -> None:
        self._name = name
        self._clock = clock

    def close(self) -> None:
        return None

    def probe(self) -> None:
        return None

    def score(self, group: RolloutGroup, *, with_steps: bool = True) -> GroupScores:
        return self._clock(lambda: self._scores(group))

    def _scores(self, group: RolloutGroup) -> GroupScores:
        rewards = tuple(
            RewardResult(outcome=RewardOutcome.OK, reward=value, components={"math": value}, correct=value > 0)
            for value in (float(i % 2) for i in range(len(group.completions)))
        )
        now = time.time()
        return GroupScores(rewards=rewards, worker=self._name, started_s=now, finished_s=now)


async def watch_loop(holds: list[tuple[float, float]], clock: Clock) -> None:
    """How long the loop did not come back, beyond what was asked for: by the clock, and by the processor time of its
    thread, which other programs on the machine cannot stretch, without that of the fakes."""
    while True:
        started, used = time.monotonic(), time.thread_time() - clock.seconds
        await asyncio.sleep(TICK_S)
        holds.append((time.monotonic() - started - TICK_S, time.thread_time() - clock.seconds - used))


def parts_of(folder: Path, sizes: Sequence[int], clock: Clock) -> RunParts:
    """A run of `STEPS` steps over fakes."""
    num_prompts, group_size, num_tokens, num_samplers = sizes
    config = RunConfig(
        task=ReasoningGymTask(generator="chain_sum"),
        steps=STEPS,
        rollout=RolloutConfig(group_size=group_size, prompts_per_step=num_prompts, dtype="float32"),
        learner=LearnerConfig(dtype="float32"),
        eval=EvalConfig(at_start=False, at_end=False),
        checkpoint=CheckpointConfig(every=0),
    )
    run = RunDirectory.create(folder / "run", config)
    memory = SharedMemory(num_prompts, group_size, num_tokens)
    fleet = Fleet(
        samplers=tuple(
            Actor(name=f"sampler-{i}", handle=FakeHandle(Sampler(f"sampler-{i}", memory, clock)))  # type: ignore[arg-type]
            for i in range(num_samplers)
        ),
        learners=(Actor(name="learner-0", handle=FakeHandle(Learner(clock, num_prompts * group_size * num_tokens))),),  # type: ignore[arg-type]
        rewards=tuple(
            Actor(name=f"reward-{i}", handle=FakeHandle(Reward(f"reward-{i}", clock)))  # type: ignore[arg-type]
            for i in range(num_samplers)
        ),
        placement_group=None,
        launcher=NoLauncher(),
        objects=FakeObjects(),
    )
    state = RunState(step=0, policy_version=0, stream=Stream().state(), ledger=LedgerState(), fingerprints=FINGERPRINTS)
    silent: Any = SimpleNamespace(
        warn=print, phase=lambda *_: None, step=lambda _: None, evaluation=lambda _: None, log=lambda *_: None
    )
    stream: Any = Stream()
    prompt = Prompt(
        uid="0" * 16, epoch=0, index=0, token_ids=(1, 2, 3), text="q", question="q", ground_truth="3", task="t"
    )
    return RunParts(
        config=config,
        fleet=fleet,
        stream=stream,
        eval_prompts=(),
        canary_prompts=(prompt,),
        run=run,
        checkpoints=Checkpoints(run.checkpoints_path, config.checkpoint, warn=print),
        reporter=silent,
        warn=print,
        trackers=silent,
        start=state,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """What the controller took in one run."""

    sizes: tuple[int, ...]
    """Prompts, completions, tokens, samplers."""
    completion_s: float
    """Its processor time for each completion."""
    step_s: float
    """By the clock."""
    hold_s: float
    """The longest of its event loop, by the clock."""
    hold_cpu_s: float
    """The same by the processor time of its thread."""
    peak_bytes: int

    def __str__(self) -> str:
        num_prompts, group_size, num_tokens, num_samplers = self.sizes
        return (
            f"P={num_prompts} G={group_size} T={num_tokens} samplers={num_samplers}: "
            f"{self.completion_s * 1e3:.3f} ms of processor time a completion, {self.step_s:.2f} s a step, "
            f"longest hold of the loop {self.hold_s * 1e3:.0f} ms ({self.hold_cpu_s * 1e3:.0f} ms of processor time), "
            f"{self.peak_bytes / 2**30:.2f} GiB at most"
        )


async def measure(folder: Path, sizes: Sequence[int]) -> Cost:
    """Of a run of a few steps, in this process: its peak of memory is that of the process."""
    clock, holds = Clock(), list[tuple[float, float]]()
    parts = parts_of(folder, sizes, clock)
    settle()
    watching = asyncio.ensure_future(watch_loop(holds, clock))
    started, wall = time.process_time(), time.monotonic()
    summary = await Controller(parts, asyncio.Event()).run()
    used, wall = time.process_time() - started - clock.seconds, time.monotonic() - wall
    watching.cancel()
    num_prompts, group_size, *_ = sizes
    assert summary.groups_trained == STEPS * num_prompts, summary
    by_clock, by_thread = zip(*holds, strict=True)
    return Cost(
        sizes=tuple(sizes),
        completion_s=used / (STEPS * num_prompts * group_size),
        step_s=wall / STEPS,
        hold_s=max(by_clock),
        hold_cpu_s=max(by_thread),
        peak_bytes=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
    )


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as place:
        print(asyncio.run(measure(Path(place), [int(word) for word in sys.argv[1:5]])))
