"""The tokens that are trained on are those that were sampled, whatever their text says.

A thousand scripted completions go from an engine to the tensors of the learner, into the recorded rollouts, and back to
the batch of a learner that is restarted. Most of them are made so that their text, tokenised again, gives other tokens.

Dimensions: B sequences of a micro-batch, T token positions, N completion tokens.
"""

import asyncio
import importlib
import pickle
import random
from collections import Counter
from dataclasses import dataclass, replace
from itertools import pairwise
from math import inf, isfinite, nan
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cluster.config import RunConfig
from cluster.record.run_directory import RunDirectory
from learner.algorithm.assignment import assign
from learner.algorithm.batching import MicroBatch, collate, tokens_of
from learner.algorithm.plan import plan_step
from learner.types import TrainBatch
from reward.config import RewardConfig, RewardFunctionConfig
from reward.types import ScoredGroup
from reward.worker import RewardWorker
from rollout.config import ReasoningGymTask, SamplingConfig
from rollout.engines.protocol import EngineOutput, SampleSpec
from rollout.types import FinishReason, Prompt, RolloutGroup, SampleRequest
from rollout.worker import RolloutWorker
from tests.cluster.examples import opened, sampled_of
from tests.learner.samples import settings_of
from tests.rollout.byte_tokenizer import byte_tokenizer
from tests.rollout.fake_engine import FakeEngine

NUM_GROUPS, GROUP_SIZE = 125, 8
NUM_RANKS, MICRO_BATCH_TOKENS = 3, 256
STEP, VERSION = 6, 5
MERGES = [("t", "h"), ("th", "e"), ("i", "n"), ("a", "n"), ("an", "d"), ("e", "r"), ("Ã", "©"), ("1", "2")]
"""As a byte-level tokenizer writes bytes: the one before the last is é."""
WORDS = [
    "the",
    "thin",
    "and",
    "other",
    "12",
    "312",
    "café",
    "señor",
    "naïve",
    "€5",
    "数学",
    "答案是",
    "😀",
    "👩‍🔬",
    "\n",
    " ",
]
SPELLED = ["<|end|>", "<|assistant|>", "<|bos|>"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampled:
    """What the engine says of one completion."""

    kind: str
    token_ids: tuple[int, ...]
    logprobs: tuple[float, ...]
    """float32, as engines compute; some are not finite."""


class ScriptedEngine(FakeEngine):
    """Answers each request with what `script` has under the prompt's last token and the sample's place in its group."""

    def __init__(self, script: dict[tuple[int, int], Sampled], tokenizer: Any) -> None:
        super().__init__()
        self._script = script
        self._tokenizer = tokenizer

    def _output(self, spec: SampleSpec) -> EngineOutput:
        sampled = self._script[spec.token_ids[-1], int(spec.request_id.rpartition("|")[2])]
        length = len(sampled.token_ids)
        return EngineOutput(
            request_id=spec.request_id,
            token_ids=np.array(sampled.token_ids, np.int32),
            logprobs=np.array(sampled.logprobs, np.float32),
            text=self._tokenizer.decode(sampled.token_ids, skip_special_tokens=True),
            finish_reason=FinishReason.STOP if length % 2 else FinishReason.LENGTH,
            versions=((VERSION - 1, 0, length // 2), (VERSION, length // 2, length)),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Trained:
    """What the learner's model and loss are given of one completion."""

    prompt_ids: tuple[int, ...]
    token_ids: tuple[int, ...]
    logprobs: tuple[float, ...]
    mask: tuple[bool, ...]
    advantages: tuple[float, ...]


def text_of(rng: random.Random) -> str:
    return "".join(rng.choice(WORDS) for _ in range(rng.randint(1, 8)))


def token_ids_of(kind: str, tokenizer: Any, rng: random.Random) -> list[int]:
    """Completions of five kinds; only the first is what the tokenizer itself would make of the text."""
    text = text_of(rng)
    if kind == "encoded":
        return list(tokenizer.encode(text, add_special_tokens=False))
    if kind == "cut in a character":
        whole = tokenizer.encode(text, add_special_tokens=False)
        character = tokenizer.encode(rng.choice("€数😀"), add_special_tokens=False)
        return [*whole, *character[: rng.randint(1, len(character) - 1)], *rng.choice(([], whole))]
    if kind == "other tokens of the same text":
        return [byte_token(tokenizer, byte) for byte in (text + rng.choice(["the", "and", "12"])).encode()]
    if kind == "special token spelled out":
        return [byte_token(tokenizer, byte) for byte in (text + rng.choice(SPELLED) + text).encode()]
    assert kind == "any tokens", kind  # special ones among them
    return [rng.randrange(len(tokenizer)) for _ in range(rng.randint(1, 30))]


KINDS = ("encoded", "cut in a character", "other tokens of the same text", "special token spelled out", "any tokens")


def byte_token(tokenizer: Any, byte: int) -> int:
    # By its whole name: once transformers has loaded it, a function of the same name stands in the package.
    letters: Any = importlib.import_module("transformers.convert_slow_tokenizer")
    return int(tokenizer.convert_tokens_to_ids(letters.bytes_to_unicode()[byte]))


def logprob_of(rng: random.Random) -> float:
    if rng.random() < 0.03:
        return rng.choice((nan, -inf, inf))
    return float(np.float32(-rng.random() * 10 ** rng.randint(-30, 2)))


def write_script(tokenizer: Any) -> dict[tuple[int, int], Sampled]:
    rng = random.Random(20260101)
    script = {}
    for place in range(NUM_GROUPS * GROUP_SIZE):
        kind = KINDS[place % len(KINDS)]
        ids = token_ids_of(kind, tokenizer, rng)
        # The first token is always trained on, or there would be completions that no model is given.
        logprobs = (-0.5, *(logprob_of(rng) for _ in ids[1:]))
        script[divmod(place, GROUP_SIZE)] = Sampled(kind=kind, token_ids=tuple(ids), logprobs=logprobs)
    return script


def prompt_of(index: int, tokenizer: Any) -> Prompt:
    """Its last token names it."""
    text = f"question {index} "
    return Prompt(
        uid=f"{index:016x}",
        epoch=0,
        index=index,
        token_ids=(*tokenizer.encode(text), index),
        text=text,
        question=text,
        ground_truth=None,
        task="t",
    )


async def sample(script: dict[tuple[int, int], Sampled], tokenizer: Any) -> list[RolloutGroup]:
    worker = RolloutWorker(lambda: ScriptedEngine(script, tokenizer), name="sampler-0", run_seed=5)
    requests = [
        SampleRequest(prompt=prompt_of(index, tokenizer), attempt=1, group_size=GROUP_SIZE)
        for index in range(NUM_GROUPS)
    ]
    try:
        async with asyncio.timeout(60):
            await worker.ready()
            await worker.serve(0)
            await worker.submit(requests, SamplingConfig())
            return [(await worker.wait_group(request.key))[1] for request in requests]
    finally:
        await worker.close()


def score(groups: list[RolloutGroup]) -> list[ScoredGroup]:
    function = RewardFunctionConfig(function="tests.reward.misbehaving:length_of_text")
    worker = RewardWorker(RewardConfig(functions=(function,)), "reward-0")
    try:
        return [ScoredGroup(group=sampled_of(group), scores=worker.score(group)) for group in groups]
    finally:
        worker.close()


def sent(record: Any) -> Any:
    """As it arrives in another process: arrays out of band, as views of what cannot be written to."""
    buffers: list[pickle.PickleBuffer] = []
    data = pickle.dumps(record, protocol=5, buffer_callback=buffers.append)
    return pickle.loads(data, buffers=[bytes(buffer) for buffer in buffers])


def trained_on(batch: TrainBatch) -> dict[tuple[str, int], Trained]:
    """(group id, sample) -> what stands in the tensors of its micro-batch, on whichever rank."""
    plan = plan_step(batch, settings_of())
    groups = {scored.group_id: scored.group.payload for scored in batch.groups}
    shares = assign(plan.sequences, num_ranks=NUM_RANKS, micro_batch_tokens=MICRO_BATCH_TOKENS)
    found: dict[tuple[str, int], Trained] = {}
    for micro_batch in [collate(part, tokens_of(part, groups)) for share in shares for part in share if part]:
        for key, trained in read_back(micro_batch).items():
            assert key not in found, f"{key} is trained on twice"
            found[key] = trained
    return found


def read_back(micro_batch: MicroBatch) -> dict[tuple[str, int], Trained]:
    flat_ids = micro_batch.input_ids_BT.flatten().tolist()
    width = micro_batch.input_ids_BT.shape[1]
    positions, targets = micro_batch.positions_N.tolist(), micro_batch.targets_N.tolist()
    # Each token is predicted where the one before it stands, and is the one that stands behind.
    assert [flat_ids[position + 1] for position in positions] == targets
    rows = [position // width for position in positions]
    found = {}
    for row, sequence in enumerate(micro_batch.sequences):
        places = [n for n, of_row in enumerate(rows) if of_row == row]
        assert all(b == a + 1 for a, b in pairwise(positions[n] for n in places))
        num_prompt = positions[places[0]] - row * width + 1
        length = num_prompt + len(places)
        assert set(flat_ids[row * width + length : (row + 1) * width]) <= {0}, "padding"
        found[sequence.group_id, sequence.sample_index] = Trained(
            prompt_ids=tuple(flat_ids[row * width : row * width + num_prompt]),
            token_ids=tuple(targets[n] for n in places),
            logprobs=tuple(micro_batch.rollout_logprobs_N[n].item() for n in places),
            mask=tuple(bool(micro_batch.mask_N[n]) for n in places),
            advantages=tuple(micro_batch.advantages_N[n].item() for n in places),
        )
    return found


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return byte_tokenizer(merges=MERGES)


@pytest.fixture(scope="module")
def script(tokenizer: Any) -> dict[tuple[int, int], Sampled]:
    return write_script(tokenizer)


def test_the_text_of_most_of_them_is_not_what_was_sampled(
    script: dict[tuple[int, int], Sampled], tokenizer: Any
) -> None:
    drifted = Counter(
        sampled.kind
        for sampled in script.values()
        # Special tokens kept: without them still more would be lost.
        if tuple(tokenizer.encode(tokenizer.decode(sampled.token_ids), add_special_tokens=False)) != sampled.token_ids
    )
    assert len(script) == 1000
    assert drifted["encoded"] == 0
    assert [drifted[kind] for kind in KINDS[1:4]] == [200, 200, 200]
    assert drifted["any tokens"] > 150


def test_what_is_trained_on_is_what_was_sampled_and_again_after_a_restart(
    script: dict[tuple[int, int], Sampled], tokenizer: Any, tmp_path: Path
) -> None:
    groups = [sent(group) for group in asyncio.run(sample(script, tokenizer))]
    batch = TrainBatch(step=STEP, policy_version=VERSION, groups=tuple(sent(scored) for scored in score(groups)))
    trained = trained_on(sent(batch))
    assert len(trained) == len(script)
    for (index, sample_index), sampled in script.items():
        prompt = prompt_of(index, tokenizer)
        got = trained[prompt.group_id, sample_index]
        assert (got.prompt_ids, got.token_ids) == (prompt.token_ids, sampled.token_ids), sampled.kind
        assert got.mask == tuple(isfinite(x) for x in sampled.logprobs)
        assert got.logprobs == tuple(x if isfinite(x) else 0.0 for x in sampled.logprobs)

    run = RunDirectory.create(tmp_path / "run", RunConfig(task=ReasoningGymTask(generator="chain_sum")))
    run.write_rollouts(STEP, [opened(scored) for scored in batch.groups])
    again = run.read_batch(STEP)
    assert [of.group.completions for of in again] == [
        # How many log-probabilities were not finite is in the metrics; a table has the mask.
        tuple(replace(completion, num_nonfinite_logprobs=0) for completion in scored.group.payload.completions)
        for scored in batch.groups
    ]
    groups_again = tuple(of.scored for of in again)
    assert trained_on(TrainBatch(step=STEP, policy_version=VERSION, groups=groups_again)) == trained
    # The test of the test: rewards differ, and some log-probabilities are not finite.
    assert sum(set(t.advantages) != {0.0} for t in trained.values()) > 900
    assert sum(not all(t.mask) for t in trained.values()) > 100
