"""Families and layouts, each through all that a step asks of a model: checked before the start, loaded by a real engine
and a real learner rank, synced, sampled from, trained on, synced again, with the canary after each sync.

`make test-models` runs it and prints the table.
"""

import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cluster.commands.model_check import check_model
from cluster.config import RunConfig
from cluster.weights.canary import (
    canary_errors,
    fp32_limits,
    long_limits,
    longest_text,
    rounding_limits,
    stale_share,
)
from learner.config import LearnerConfig
from learner.types import TrainBatch
from reward.types import RewardOutcome, RewardResult
from rollout.config import ModelConfig, ReasoningGymTask, RolloutConfig
from rollout.errors import ModelError
from rollout.types import Completion, Prompt, RolloutGroup, VersionSpan
from tests.learner.samples import scored_of
from tests.models.conftest import Table
from tests.models.families import FAMILIES, LAYOUTS, make_model
from tests.models.hosts import EngineHost, Host, LearnerHost

pytestmark = [pytest.mark.models, pytest.mark.slow, pytest.mark.integration]

DTYPES = ("float32", "bfloat16")
STATES = "carry a state from token to token"
EXPERTS = "a mixture of experts"
REFUSED: dict[str, str] = {
    "Qwen2, window in some layers": "sliding window in some of its layers",
    "Mpt": "which vLLM has not had since",
    "Mamba": STATES,
    "Mamba2": STATES,
    "Lfm2": STATES,
    "FalconH1": STATES,
    "Mixtral": EXPERTS,
    "Qwen3Moe": EXPERTS,
    "Olmoe": EXPERTS,
    "Bloom, float32": "GELU",
    "Apertus, float32": "computes in bfloat16 whatever the precision",
}
"""Family, or family and precision -> what is said before anything starts. All others train."""
LAYOUT_FAMILIES = ("Llama", "Qwen2", "GPT2")
CONTEXT_TOKENS = 128
"""As the engine's host has it."""
NUM_CANARY, CANARY_TOKENS = 4, 60
PROMPT_TOKENS, GROUP_SIZE, COMPLETION_TOKENS = 12, 4, 24
LEARNING_RATE = 3e-3


@dataclass(frozen=True, slots=True, kw_only=True)
class Hosts:
    engine: Host
    learner: Host


@pytest.fixture(scope="module")
def hosts() -> Iterator[Hosts]:
    made = Hosts(engine=Host(EngineHost), learner=Host(LearnerHost))
    yield made
    made.engine.close()
    made.learner.close()


def run_config(model_dir: Path, dtype: Any) -> RunConfig:
    return RunConfig(
        task=ReasoningGymTask(generator="chain_sum"),
        model=ModelConfig(path=str(model_dir), max_context_tokens=CONTEXT_TOKENS),
        rollout=RolloutConfig(dtype=dtype),
        learner=LearnerConfig(dtype=dtype),
    )


def fixed_prompts() -> list[list[int]]:
    draw = random.Random(1)
    return [[draw.randrange(3, 80) for _ in range(CANARY_TOKENS)] for _ in range(NUM_CANARY)]


def batch_of(prompts: list[list[int]], outputs: list[Any]) -> TrainBatch:
    """What was sampled, the completions of a group rewarded with 0 and 1 by turns."""
    groups = []
    for index, token_ids in enumerate(prompts):
        completions = tuple(
            Completion(
                sample_index=i,
                token_ids=output.token_ids,
                logprobs=output.logprobs,
                loss_mask=np.ones(len(output.token_ids), np.bool_),
                text=output.text,
                finish_reason=output.finish_reason,
                version_spans=(VersionSpan(policy_version=0, start=0, end=len(output.token_ids)),),
            )
            for i, output in enumerate(outputs[index * GROUP_SIZE : (index + 1) * GROUP_SIZE])
        )
        prompt = Prompt(
            uid=f"{index:016x}",
            epoch=0,
            index=index,
            token_ids=tuple(token_ids),
            text="",
            question="",
            ground_truth=None,
            task="toy",
        )
        group = RolloutGroup(
            prompt=prompt, completions=completions, attempt=1, worker="sampler-0", started_s=0.0, finished_s=1.0
        )
        rewards = [RewardResult(outcome=RewardOutcome.OK, reward=float(i % 2)) for i in range(GROUP_SIZE)]
        groups.append(scored_of(group, rewards))
    return TrainBatch(step=0, policy_version=0, groups=tuple(groups))


def sync(hosts: Hosts, dtype: str) -> tuple[np.ndarray, np.ndarray]:
    """Errors [N] of the canary after a sync, within their limits, and what the learner computes."""
    manifest, chunks, digest = hosts.learner.call("weights")
    assert hosts.engine.call("load", manifest, chunks, digest) == digest
    fixed = fixed_prompts()
    by_learner = hosts.learner.call("score_tokens", fixed)
    assert_longest_text(hosts, dtype)
    errors_N = canary_errors(by_learner, hosts.engine.call("prompt_logprobs", fixed))
    limits = fp32_limits(None, None)
    if dtype != "float32":
        limits = rounding_limits(hosts.learner.call("rounding_errors", fixed), None, None)
    assert limits.allow(errors_N), (np.abs(errors_N).max(), np.abs(errors_N).mean(), limits)
    return errors_N, np.concatenate(by_learner).astype(np.float64)


def assert_longest_text(hosts: Hosts, dtype: str) -> None:
    text = [longest_text(fixed_prompts(), CONTEXT_TOKENS)]
    limits = long_limits(fp32_limits(None, None))
    if dtype != "float32":
        limits = rounding_limits(hosts.learner.call("rounding_errors", text), None, None)
    errors_N = canary_errors(hosts.learner.call("score_tokens", text), hosts.engine.call("prompt_logprobs", text))
    assert limits.allow(errors_N), (np.abs(errors_N).max(), np.abs(errors_N).mean(), limits)


def train_one_step(hosts: Hosts, model_dir: Path, dtype: str) -> str:
    """The canary's numbers of both syncs, as a cell of the table."""
    hosts.learner.call("start", str(model_dir), dtype, dtype, LEARNING_RATE)
    hosts.engine.call("start", str(model_dir), dtype)
    first_N, before_N = sync(hosts, dtype)
    prompts = [token_ids[:PROMPT_TOKENS] for token_ids in fixed_prompts()[:2]]
    outputs = hosts.engine.call("sample", prompts, GROUP_SIZE, COMPLETION_TOKENS)
    step, _ = hosts.learner.call("train", batch_of(prompts, outputs))
    assert (step.policy_version, step.skipped) == (1, False)
    # What was sampled token by token is what the learner computes at once.
    assert step.metrics["train/max_abs_log_ratio"] < (1e-4 if dtype == "float32" else 1.0)
    second_N, after_N = sync(hosts, dtype)
    moved_N = after_N - before_N
    assert np.abs(moved_N).mean() > 1e-3, "a step that changes nothing shows nothing"
    noise = float(np.sqrt(np.mean(first_N**2)))
    assert stale_share(second_N, moved_N, noise=noise) == 0.0
    both_N = np.abs(np.concatenate([first_N, second_N]))
    return f"trains, canary {both_N.max():.1e} / {both_N.mean():.1e}"


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", FAMILIES)
def test_family(name: str, dtype: str, hosts: Hosts, tmp_path: Path, table: Table) -> None:
    model_dir = make_model(tmp_path / "model", FAMILIES[name])
    said = REFUSED.get(name) or REFUSED.get(f"{name}, {dtype}")
    if said is not None:
        with pytest.raises(ModelError) as error:
            check_model(run_config(model_dir, dtype), model_dir)
        assert said in str(error.value)
        table.add(name, "as saved", dtype, "refused: " + str(error.value).replace(str(model_dir), "MODEL"))
        return
    assert check_model(run_config(model_dir, dtype), model_dir) > 80
    table.add(name, "as saved", dtype, train_one_step(hosts, model_dir, dtype))


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name", LAYOUT_FAMILIES)
def test_layout(name: str, layout: str, hosts: Hosts, tmp_path: Path, table: Table) -> None:
    model_dir = LAYOUTS[layout](tmp_path / "model", FAMILIES[name])
    assert check_model(run_config(model_dir, "float32"), model_dir) > 80
    table.add(name, layout, "float32", train_one_step(hosts, model_dir, "float32"))
