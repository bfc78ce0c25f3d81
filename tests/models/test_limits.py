"""What is said of a model before anything starts is what the engine would say."""

from pathlib import Path
from typing import Any

import pytest
import transformers

from rollout.engines.limits import ATTENTION_LAYERS, check_engine_limits, longest_context
from rollout.errors import ModelError
from tests.models.families import FAMILIES, SMALL

HERE = Path("model")


def config_of(family: str, **fields: Any) -> Any:
    found = FAMILIES[family]
    return getattr(transformers, f"{found.name}Config")(**{**SMALL, **found.fields, **fields})


def check(config: Any, *, tokens: int = 128, on_gpu: bool = False, is_exact: bool = False) -> None:
    check_engine_limits(config, HERE, max_context_tokens=tokens, on_gpu=on_gpu, is_exact=is_exact)


@pytest.mark.parametrize("family", ["Llama", "Qwen3", "Gemma2", "Gemma3", "GPT2", "Bloom", "Falcon", "Cohere2", "OPT"])
def test_models_that_train_pass(family: str) -> None:
    check(config_of(family))
    check(config_of(family), on_gpu=True)


@pytest.mark.parametrize(
    ("family", "fields", "tokens", "key"),
    [
        ("Llama", {}, 256, "max_position_embeddings"),
        ("GPT2", {"max_position_embeddings": 100}, 100, "max_position_embeddings"),
        ("Llama", {"rope_parameters": {"rope_type": "linear", "factor": 4.0, "rope_theta": 1e4}}, 1024, "max_position"),
        ("Llama", {"rope_parameters": {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 1e4}}, 512, "max_position"),
        ("Qwen2", {"rope_parameters": {"rope_type": "yarn", "factor": 4.0, "rope_theta": 1e4}}, 256, "max_position"),
        ("Bloom", {"seq_length": 77}, 77, "seq_length"),
    ],
)
def test_contexts_longer_than_the_models_are_refused(
    family: str, fields: dict[str, Any], tokens: int, key: str
) -> None:
    others = {"max_position_embeddings": None} if family == "Bloom" else {}
    config = config_of(family, **fields, **others)
    assert longest_context(config)[0] == tokens
    check(config, tokens=tokens)
    with pytest.raises(ModelError, match=rf"max_context_tokens is {tokens + 1}, and model reads {tokens} tokens"):
        check(config, tokens=tokens + 1)
    assert longest_context(config)[1].startswith(key)


def test_a_model_that_names_no_length_has_none() -> None:
    check(config_of("Bloom", max_position_embeddings=None), tokens=10**6)


@pytest.mark.parametrize(("hidden", "heads", "size"), [(64, 4, 16), (80, 2, 40), (96, 2, 48)])
def test_heads_that_the_cpu_has_no_attention_for_are_refused_there(hidden: int, heads: int, size: int) -> None:
    config = config_of("Llama", hidden_size=hidden, num_attention_heads=heads)
    with pytest.raises(ModelError, match=f"attention heads of {size} values, .* 32, 64, 80"):
        check(config)
    check(config, on_gpu=True)


@pytest.mark.parametrize(("family", "named"), [("Mamba", "linear_attention"), ("Lfm2", "conv"), ("FalconH1", "hybrid")])
def test_layers_with_a_state_are_refused_on_cpus(family: str, named: str) -> None:
    with pytest.raises(ModelError, match=rf"carry a state from token to token \({named}\)"):
        check(config_of(family))
    check(config_of(family), on_gpu=True)


def test_a_window_in_some_layers_of_qwen2_is_refused_everywhere() -> None:
    for on_gpu in (False, True):
        with pytest.raises(ModelError, match=r"sliding window in some of its layers .* max_window_layers 1 of 2"):
            check(config_of("Qwen2, window in some layers"), on_gpu=on_gpu)
    check(config_of("Qwen2", use_sliding_window=True, max_window_layers=2))
    check(config_of("Qwen2", use_sliding_window=False, max_window_layers=1))


@pytest.mark.parametrize(("family", "why"), [("Bloom", "GELU"), ("Apertus", "activations")])
def test_families_that_differ_in_more_digits_than_bf16_has_are_refused_in_fp32_alone(family: str, why: str) -> None:
    with pytest.raises(ModelError, match=f"is of the family {family.lower()}, whose {why}"):
        check(config_of(family), is_exact=True)
    check(config_of(family))


def test_a_family_that_vllm_no_longer_has_is_refused() -> None:
    with pytest.raises(ModelError, match=r"model is of the family mpt, which vLLM has not had since 0\.29"):
        check(config_of("Mpt"), on_gpu=True)


def test_the_kinds_of_attention_layers_are_transformers_own() -> None:
    kinds = {kind for family in ("Qwen3", "Gemma3", "Cohere2", "Olmo3") for kind in config_of(family).layer_types}
    assert kinds <= set(ATTENTION_LAYERS)
