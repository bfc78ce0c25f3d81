"""What a token costs on its way, stage by stage, in bytes and nanoseconds of processor time.

    python -m tests.benchmarks.data_path 16 16 1024     # prompts, completions, tokens

Dimensions: P prompts, G completions of each, T tokens of a completion.
"""

import io
import pickle
import sys
import time
import tracemalloc
from collections.abc import Callable
from typing import TypeVar

import numpy as np

from cluster.record.group_table import OpenGroup, tables_of, write_tables
from learner.algorithm.assignment import assign
from learner.algorithm.batching import collate, tokens_of
from learner.algorithm.plan import plan_step
from learner.types import CompletionKey, ComputedTokens, StepPlan, TokenValues, TrainBatch
from rollout.engines.outputs import to_completion
from rollout.engines.protocol import EngineOutput
from rollout.types import FinishReason, Prompt, RolloutGroup, facts_of
from tests.cluster.examples import ok, scored_of
from tests.learner.samples import settings_of

T = TypeVar("T")


def clock(call: Callable[[], T], times: int = 3) -> tuple[float, T]:
    """(least processor seconds of some tries, result)"""
    least = float("inf")
    for _ in range(times):
        started = time.process_time()
        result = call()
        least = min(least, time.process_time() - started)
    return least, result


def prompt(index: int) -> Prompt:
    return Prompt(
        uid=f"{index:016x}",
        epoch=0,
        index=index,
        token_ids=tuple(range(1, 65)),
        text="q" * 200,
        question="q",
        ground_truth="3",
        task="t",
    )


def sent(record: T) -> T:
    """Over one hop, as Ray sends it: arrays out of band, written to shared memory once and read there."""
    buffers: list[pickle.PickleBuffer] = []
    data = pickle.dumps(record, protocol=5, buffer_callback=buffers.append)
    shared = [bytes(buffer.raw()) for buffer in buffers]
    return pickle.loads(data, buffers=shared)  # type: ignore[no-any-return]


Raw = list[list[tuple[list[int], list[float]]]]
"""[P][G] token ids and log-probabilities as vLLM gives them: lists of Python numbers."""


def build(raw: Raw) -> list[RolloutGroup]:
    """From what an engine gives to groups."""
    groups = []
    for index, samples in enumerate(raw):
        completions = []
        for number, (ids, logprobs) in enumerate(samples):
            output = EngineOutput(
                request_id="r",
                token_ids=np.array(ids, np.int32),
                logprobs=np.array(logprobs, np.float32),
                text="",
                finish_reason=FinishReason.STOP,
                versions=((0, 0, len(ids)),),
            )
            completions.append(to_completion(output, number, 0))
        groups.append(
            RolloutGroup(
                prompt=prompt(index),
                completions=tuple(completions),
                attempt=1,
                worker="sampler-0",
                started_s=1.0,
                finished_s=2.0,
            )
        )
    return groups


def learn(seconds: dict[str, float], batch: TrainBatch) -> tuple[StepPlan, dict[CompletionKey, TokenValues]]:
    """What the learner does with a batch, but for the arithmetic."""
    groups = {scored.group_id: scored.group.payload for scored in batch.groups}
    seconds["plan"], plan = clock(lambda: plan_step(batch, settings_of()))

    def assign_and_collate() -> None:
        (parts,) = assign(plan.sequences, num_ranks=1, micro_batch_tokens=16_384)
        for part in parts:
            collate(part, tokens_of(part, groups))

    seconds["assign, collate"], _ = clock(assign_and_collate)
    lengths = tuple(sequence.num_completion_tokens for sequence in plan.sequences)
    values_N = np.random.default_rng(1).normal(-1, 0.5, sum(lengths)).astype(np.float32)
    computed = ComputedTokens(
        keys=tuple(sequence.key for sequence in plan.sequences),
        lengths=lengths,
        policy_logprobs_N=values_N,
        ref_logprobs_N=values_N[:0],
        entropies_N=values_N,
    )
    seconds["outputs, hop"], values = clock(lambda: sent(computed).by_completion())
    return plan, values


def measure(num_prompts: int, group_size: int, length: int) -> None:
    """Runs and prints."""
    rng = np.random.default_rng(0)
    total = num_prompts * group_size * length
    raw = [
        [(rng.integers(0, 50_000, length).tolist(), rng.normal(-1, 0.5, length).tolist()) for _ in range(group_size)]
        for _ in range(num_prompts)
    ]
    seconds: dict[str, float] = {}
    seconds["build"], groups = clock(lambda: build(raw))
    seconds["facts"], _ = clock(lambda: [facts_of(group) for group in groups])
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    arrived = [sent(group) for group in groups]
    memory = (tracemalloc.get_traced_memory()[0] - before) / total
    tracemalloc.stop()
    seconds["hop"], _ = clock(lambda: [sent(group) for group in groups])
    rewards = [[ok(float((i + j) % 2)) for j in range(group_size)] for i in range(num_prompts)]
    scored = [scored_of(group, rewards[i]) for i, group in enumerate(arrived)]
    plan, values = learn(seconds, TrainBatch(step=0, policy_version=0, groups=tuple(scored)))
    opened = [OpenGroup(scored=s, group=g) for s, g in zip(scored, arrived, strict=True)]

    def parquet() -> int:
        file = io.BytesIO()
        write_tables(file, tables_of(0, opened, plan.advantages, values))
        return file.tell()

    seconds["Parquet"], size = clock(parquet)
    print(
        f"P={num_prompts} G={group_size} T={length}: bytes a token {memory:.1f} in memory, {size / total:.1f} on disk"
    )
    print("; ".join(f"{stage} {spent / total * 1e9:.1f}" for stage, spent in seconds.items()), "ns a token")


if __name__ == "__main__":
    measure(*(int(word) for word in sys.argv[1:4]))
