"""The real controller on actors that only pretend: engines that sleep, a learner whose weights are a digest of all that
it was trained on. Two runs that trained on the same groups in the same order end with the same weights."""

import asyncio
import hashlib
import random
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from cluster.config import CheckpointConfig, EvalConfig, RecoveryConfig, RunConfig
from cluster.config import WeightSyncConfig as SyncConfig
from cluster.fleet.actors import Actor, Fleet
from cluster.fleet.roles import Role
from cluster.weights.run_state import Fingerprints
from learner.algorithm.plan import PlanSettings, plan_step, shares
from learner.config import LearnerConfig
from learner.types import ComputedTokens, RankShare, StepOutput, TrainBatch
from reward.types import GroupScores, ScoredGroup
from rollout.config import ReasoningGymTask, RolloutConfig
from rollout.errors import StepGivenUpError
from rollout.transfer.delta import KeptBytes, difference
from rollout.transfer.manifest import WeightChunk, WeightManifest, tensor_digest
from rollout.types import (
    Completion,
    FinishReason,
    GroupFacts,
    Prompt,
    RolloutGroup,
    SampleRequest,
    VersionSpan,
    facts_of,
    read_only,
)
from tests.cluster.examples import ok, scored_of
from tests.cluster.fakes import SPECS, FakeLearner, FakeObjects, FakeReward, FakeSampler
from tests.faults.meeting import Facts, Meeting
from tests.faults.prompts import prompt_of
from tests.faults.schedules import Fault, Schedule
from tests.faults.virtual import Process

FIRST_WEIGHTS = "0" * 64
PROMPTS_PER_STEP = 3
NO_NUMBERS = np.zeros(0, np.float32)
NOTHING_COMPUTED = ComputedTokens(
    keys=(), lengths=(), policy_logprobs_N=NO_NUMBERS, ref_logprobs_N=NO_NUMBERS, entropies_N=NO_NUMBERS
)
FINGERPRINTS = Fingerprints(model="m", tokenizer="t", data="d", group_size=2, config="c")


def facts_of_share(share: RankShare, groups: Sequence[RolloutGroup]) -> Facts:
    """Of every completion that a rank computes; weights of tokens before they are divided by what they share."""
    by_id, facts = {group.group_id: group for group in groups}, []
    assert set(by_id) == set(share.group_ids), (set(by_id), share.group_ids)
    for sequence in share.sequences:
        completion = by_id[sequence.group_id].completions[sequence.sample_index]
        arrays = (completion.token_ids, completion.logprobs, completion.loss_mask)
        facts.append((sequence.key, [array.tolist() for array in arrays], sequence.advantage, sequence.token_weight))
    return facts


def trained_weights(weights: str, step: int, facts: Facts, denominator: int) -> str:
    """Digest of the weights after a step: of those before and of everything that all ranks trained on."""
    assert len({key for key, *_ in facts}) == len(facts), "a completion was computed twice"
    facts = [(key, arrays, advantage, round(weight / denominator, 12)) for key, arrays, advantage, weight in facts]
    return hashlib.sha256(f"{weights} {step} {sorted(facts)}".encode()).hexdigest()


def weights_after(weights: str, step: int, groups: Sequence[ScoredGroup]) -> str:
    """As one rank would train them; the groups themselves are their payloads."""
    batch = TrainBatch(step=step, policy_version=step, groups=tuple(groups))
    settings = PlanSettings(learner=LearnerConfig(), max_tokens=64)
    (share,) = shares(batch, plan_step(batch, settings), settings, num_ranks=1)
    needed = [scored.group.payload for scored in groups if scored.group_id in share.group_ids]
    return trained_weights(weights, step, facts_of_share(share, needed), share.denominator)


class VirtualLearner(FakeLearner):
    """A rank; `version` counts its steps. In each it meets the others: what one of them trains on moves the weights of
    all, and one that is alone waits."""

    def __init__(self, name: str, world: "World") -> None:
        super().__init__([], name=name)
        self.version, self.weights = 0, FIRST_WEIGHTS
        self._kept = KeptBytes()
        self._world, self._meeting = world, world.meeting
        self._decided = asyncio.Event()
        self._decided.set()
        self._given_up, self._committed = -1, -1
        self._accumulated: Facts = []

    async def accumulate(self, share: RankShare, *groups: RolloutGroup) -> ComputedTokens:
        assert share.policy_version == self.version == share.step, (share.policy_version, self.version, share.step)
        self._committed = -1
        await self._compute(share)
        self._committed = share.step  # between two parts there is nothing to give up
        self._accumulated += facts_of_share(share, groups)
        self._world.num_accumulated += len(groups)
        return NOTHING_COMPUTED

    async def train_step(self, share: RankShare, *groups: RolloutGroup) -> tuple[StepOutput, ComputedTokens]:
        assert share.policy_version == self.version == share.step, (share.policy_version, self.version, share.step)
        self._committed = -1
        await self._compute(share)
        self._committed = share.step
        mine, self._accumulated = self._accumulated + facts_of_share(share, groups), []
        facts = await self._meeting.exchange(share.step, self._name, mine)
        self.weights = trained_weights(self.weights, share.step, facts, share.denominator)
        self.version += 1
        output = StepOutput(step=share.step, policy_version=self.version, skipped=False, bad_steps_in_a_row=0)
        return output, NOTHING_COMPUTED

    async def _compute(self, share: RankShare) -> None:
        streaming = self._world.schedule.streaming
        await self._world.learning(len(share.group_ids) / self._world.prompts_per_step if streaming else 1.0)
        await self._decided.wait()
        if self._given_up == share.step:
            self._world.num_given_up += 1
            raise StepGivenUpError(f"step {share.step} was given up")

    def hold_step(self, step: int) -> int | None:
        if self._committed >= step:
            return None
        self._decided.clear()
        return 0

    def decide_step(self, step: int, at: int | None) -> None:
        self._given_up = -1 if at is None else step
        self._decided.set()

    def weight_manifest(self) -> WeightManifest:
        base, keeps = self._kept.digest, self._world.schedule.seed % 2 == 0
        self._kept.begin(keeps=keeps)
        return replace(super().weight_manifest(), keeps=keeps, base=base)

    def weight_chunk(self, index: int, *, as_delta: bool) -> WeightChunk:
        data = np.frombuffer(bytes.fromhex(self.weights)[index : index + 8], dtype=np.uint8).copy()
        old = self._kept.chunk(index)
        delta = difference(old, data, word_bytes=2, most=1.0) if as_delta and old is not None else None
        assert (delta is not None) == as_delta
        self._kept.keep(index, data)
        self._sent.append((SPECS[index], tensor_digest(data)))
        self._world.num_deltas += as_delta
        return WeightChunk(
            policy_version=self.version,
            index=index,
            digests=(tensor_digest(data),),
            data=data.copy() if delta is None else data[:0].copy(),
            delta=delta,
        )

    def weights_digest(self) -> str:
        self._kept.finish(digest := super().weights_digest())
        return digest

    def weight_bytes_sent(self) -> int:
        return 1

    def save(self, directory: str) -> None:
        (Path(directory) / f"{self._name}.txt").write_text(f"{self.version} {self.weights}")

    def load(self, directory: str, *, is_hashed: bool = False) -> None:
        version, self.weights = (Path(directory) / f"{self._name}.txt").read_text().split()
        self.version = int(version)


class VirtualSampler(FakeSampler):
    """An engine whose answers depend on prompt and weights alone; how long they take, on the seed."""

    def __init__(self, name: str, world: "World") -> None:
        super().__init__([], name=name)
        self._world = world
        self._versions: dict[tuple[str, str, int], int] = {}

    def probe(self) -> None:
        return None

    def submit(self, requests: Sequence[SampleRequest], sampling: object) -> None:
        assert self.served is not None, f"{self._name} was asked to sample without weights that were verified"
        super().submit(requests, sampling)
        self._versions |= {request.key: self.served for request in requests}

    async def wait_group(self, key: tuple[str, str, int]) -> tuple[GroupFacts, RolloutGroup]:  # type: ignore[override]
        request, version = self._requests.pop(key), self._versions[key]
        started_s = self._world.now_s()
        await self._world.sampling(self._name)
        group = RolloutGroup(
            prompt=request.prompt,
            completions=tuple(_completion(request.prompt, i, version) for i in range(request.group_size)),
            attempt=request.attempt,
            worker=self._name,
            started_s=started_s,
            finished_s=self._world.now_s(),
        )
        self._world.sampled[group.group_id, group.attempt] = [tuple(c.token_ids.tolist()) for c in group.completions]
        return facts_of(group), group


class VirtualReward(FakeReward):
    def __init__(self, name: str, world: "World") -> None:
        super().__init__(lambda group: [ok(float(i % 2)) for i, _ in enumerate(group.completions)])
        self._name = name
        self._world = world

    async def score(  # type: ignore[override]
        self, group: RolloutGroup, *, with_steps: bool = True
    ) -> GroupScores:
        await self._world.scoring()
        rewards = tuple(self._results_of(group))
        now = self._world.now_s()
        return GroupScores(rewards=rewards, worker=self._name, started_s=now, finished_s=now)


def _completion(prompt: Prompt, sample_index: int, version: int) -> Completion:
    digest = hashlib.sha256(f"{prompt.index} {sample_index} {version}".encode()).digest()
    length = 1 + digest[0] % 4
    return Completion(
        sample_index=sample_index,
        token_ids=read_only(tuple(digest[1 : 1 + length]), np.int32),
        logprobs=read_only(tuple(float(np.float32(-byte / 77)) for byte in digest[9 : 9 + length]), np.float32),
        loss_mask=read_only((True,) * length, np.bool_),
        text="3",
        finish_reason=FinishReason.STOP,
        version_spans=(VersionSpan(policy_version=version, start=0, end=length),),
    )


def weights_without_faults(steps: int) -> str:
    """Those that a synchronous run must end with whatever happens to it, unless a group is rejected."""
    weights = FIRST_WEIGHTS
    for step in range(steps):
        prompts = [prompt_of(step * PROMPTS_PER_STEP + place) for place in range(PROMPTS_PER_STEP)]
        groups = [
            RolloutGroup(
                prompt=prompt,
                completions=tuple(_completion(prompt, i, step) for i in range(2)),
                attempt=1,
                worker="",
                started_s=0.0,
                finished_s=0.0,
            )
            for prompt in prompts
        ]
        weights = weights_after(weights, step, [scored_of(group, (ok(0.0), ok(1.0))) for group in groups])
    return weights


@dataclass
class World:
    """The actors of one run, and what is done to them. As a launcher it starts processes for `Fleet`."""

    schedule: Schedule
    prompts_per_step: int = PROMPTS_PER_STEP
    fired: list[Fault] = field(default_factory=list)
    sampled: dict[tuple[str, int], list[tuple[int, ...]]] = field(default_factory=dict)
    """(group, attempt) -> token ids that an engine sampled."""
    deaths: list[str] = field(default_factory=list)
    num_given_up: int = 0
    """Of steps, by rank, for a stop."""
    num_accumulated: int = 0
    """Of groups, by rank, that were computed before the training step."""
    num_deltas: int = 0
    """Of chunks of weights, by rank, that told what changed."""

    def __post_init__(self) -> None:
        self.rng = random.Random(f"times {self.schedule.seed}")
        self._calls: Counter[tuple[str, str]] = Counter()
        self._processes: dict[str, Process] = {}
        self.objects = FakeObjects()
        self.meeting = Meeting(self.schedule.num_learners)

    def now_s(self) -> float:
        """Virtual, as Unix time."""
        return time.time()

    def config(self) -> RunConfig:
        """Of the run."""
        return config_of(self.schedule, self.prompts_per_step)

    # How long everything takes.

    async def sampling(self, _name: str) -> None:
        """Of one group, by this sampler."""
        await asyncio.sleep(self.rng.uniform(0.5, 4.0))

    async def scoring(self) -> None:
        """Of one group."""
        await asyncio.sleep(self.rng.uniform(0.1, 1.0))

    async def learning(self, share: float) -> None:
        """Of this share of a step."""
        await asyncio.sleep(2.0 * share)

    # What `Fleet` asks of a launcher.

    def start(self, name: str) -> Process:
        role = name.partition("-")[0]
        workers: dict[str, Callable[[], object]] = {
            "sampler": lambda: VirtualSampler(name, self),
            "reward": lambda: VirtualReward(name, self),
            "learner": lambda: VirtualLearner(name, self),
        }
        process = Process(name, workers[role](), start_s=self.rng.uniform(1, 10), interfere=self._interfere)
        self._processes[name] = process
        return process

    def start_together(self, role: Role[Any, Any]) -> list[Process]:
        self.meeting = Meeting(self.schedule.num_learners)
        return [self.start(f"{role.name}-{i}") for i in range(self.schedule.num_learners)]

    def start_deadline_s(self, _name: str) -> float:
        return 60.0

    async def stacks(self, name: str) -> str:
        return f"the stacks of {name}"

    def fleet(self) -> Fleet:
        def actors(role: str, count: int) -> tuple[Actor[Any], ...]:
            return tuple(Actor(name=f"{role}-{i}", handle=self.start(f"{role}-{i}")) for i in range(count))

        return Fleet(
            samplers=actors("sampler", self.schedule.num_samplers),
            learners=actors("learner", self.schedule.num_learners),
            rewards=actors("reward", self.schedule.num_rewards),
            placement_group=None,
            launcher=self,
            objects=self.objects,
        )

    # Faults.

    def _interfere(self, actor: str, method: str) -> tuple[str, float] | None:
        self._calls[actor, method] += 1
        for fault in self.schedule.faults:
            if (fault.actor, fault.method, fault.nth) == (actor, method, self._calls[actor, method]):
                self.fired.append(fault)
                return fault.kind, fault.duration_s
        return None

    def start_clocks(self) -> None:
        """Faults that come at a time."""
        for fault in self.schedule.faults:
            if fault.at_s is not None:
                asyncio.get_running_loop().call_later(fault.at_s, self._strike, fault)

    def _strike(self, fault: Fault) -> None:
        self.fired.append(fault)
        process = self._processes[fault.actor]
        if fault.kind == "kill":
            process.kill()
        else:
            process.hang(fault.duration_s)


def config_of(schedule: Schedule, prompts_per_step: int = PROMPTS_PER_STEP) -> RunConfig:
    return RunConfig(
        task=ReasoningGymTask(generator="chain_sum"),
        steps=schedule.steps,
        max_policy_lag=schedule.max_policy_lag,
        deterministic=schedule.deterministic,
        rollout=RolloutConfig(group_size=2, prompts_per_step=prompts_per_step, dtype="float32", group_deadline_s=40.0),
        learner=LearnerConfig(dtype="float32", step_deadline_s=40.0, streaming=schedule.streaming),
        eval=EvalConfig(at_start=False, at_end=False),
        checkpoint=CheckpointConfig(every=2, deadline_s=40.0),
        recovery=RecoveryConfig(max_restarts=schedule.max_restarts, probe_every_s=5.0, probe_deadline_s=10.0),
        weight_sync=SyncConfig(deadline_s=40.0),
    )
