"""Packed rows against every sequence by itself, on models of several kinds."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from learner.algorithm.batching import collate, tokens_of
from learner.algorithm.plan import plan_step
from learner.model.policy import LogprobModel, build_policy
from tests.learner.model.test_policy import SMALL
from tests.learner.samples import groups_of, settings_of, train_batch

KINDS: dict[str, dict[str, Any]] = {
    "LlamaConfig": {},
    "Qwen2Config": {},
    "Qwen3Config": {"head_dim": 16},
    "MistralConfig": {"sliding_window": 4, "head_dim": 16},
    "Gemma2Config": {
        "head_dim": 16,
        "query_pre_attn_scalar": 16,
        "attn_logit_softcapping": 2.0,
        "sliding_window": 4,
        "num_hidden_layers": 2,
    },
    "Gemma3TextConfig": {"head_dim": 16, "query_pre_attn_scalar": 16, "sliding_window": 4, "num_hidden_layers": 6},
    "Qwen2Config, window": {
        "use_sliding_window": True,
        "max_window_layers": 1,
        "sliding_window": 4,
        "num_hidden_layers": 2,
    },
    "Olmo3Config": {"sliding_window": 4, "num_hidden_layers": 4},
    "Cohere2Config": {"sliding_window": 4, "num_hidden_layers": 4, "head_dim": 16},
    "Exaone4Config": {"sliding_window": 4, "num_hidden_layers": 4, "sliding_window_pattern": 4},
    "Phi3Config": {"sliding_window": 4},
    "Starcoder2Config": {"sliding_window": 4},
    "NemotronConfig": {},
    "GPT2Config": {"n_embd": 32, "n_head": 2, "n_layer": 2, "n_positions": 64},
}
PADDED = {"NemotronConfig"}
"""Whose attention is told nothing."""


def model_of(kind: str, folder: Path, **how: Any) -> LogprobModel:
    import transformers

    torch.manual_seed(0)
    config = getattr(transformers, kind.partition(",")[0])(**{**SMALL, **KINDS[kind]})
    model = transformers.AutoModelForCausalLM.from_config(config)
    for parameter in model.parameters():  # attention that matters: the usual start hardly looks anywhere
        parameter.data.normal_(0, 0.3) if parameter.dim() > 1 else None
    model.save_pretrained(folder)
    return build_policy(str(folder), gradient_checkpointing=False, **{"dtype": "float32", **how})


def computed(model: LogprobModel, *, packed: bool, whole_tokens: int = 384) -> tuple[Tensor, Tensor, Tensor]:
    """Log-probabilities, entropies and the gradient of a weighted sum of the first."""
    batch = train_batch(0)
    sequences = plan_step(batch, settings_of()).computed
    micro_batch = collate(sequences, tokens_of(sequences, groups_of(batch)), packed=packed)
    if micro_batch.packing is not None:
        cut = replace(micro_batch.packing, whole_tokens=whole_tokens)
        micro_batch = replace(micro_batch, packing=cut)
    model.zero_grad()
    logprobs_N, entropy_N = model(micro_batch.inputs, micro_batch.targets_N, 0.7)
    (logprobs_N * micro_batch.token_weights_N * micro_batch.advantages_N).sum().backward()
    gradients = [parameter.grad.flatten() for parameter in model.parameters() if parameter.grad is not None]
    return logprobs_N.detach(), entropy_N.detach(), torch.cat(gradients)


@pytest.mark.parametrize("kind", KINDS)
def test_a_packed_row_is_what_its_sequences_are_alone(tmp_path: Path, kind: str) -> None:
    model = model_of(kind, tmp_path / "model")
    assert model.can_pack == (kind not in PADDED)
    if not model.can_pack:
        return
    alone = computed(model, packed=False)
    for whole_tokens in (384, 1):
        for found, wanted in zip(computed(model, packed=True, whole_tokens=whole_tokens), alone, strict=True):
            torch.testing.assert_close(found, wanted, rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize(("dtype", "atol"), [("float32", 2e-5), ("bfloat16", 0.1)])
@pytest.mark.parametrize("gradient_checkpointing", [False, True])
def test_a_packed_row_in_other_ways_of_computing(
    tmp_path: Path, dtype: str, atol: float, gradient_checkpointing: bool
) -> None:
    model = model_of("Qwen3Config", tmp_path / "model", dtype=dtype)
    assert model.can_pack
    alone = computed(model, packed=False)
    if gradient_checkpointing:
        model.policy.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    for found, wanted in zip(computed(model, packed=True), alone, strict=True):
        torch.testing.assert_close(found, wanted, rtol=0, atol=atol)


def test_a_model_whose_attention_is_told_nothing_is_computed_padded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from transformers.models.llama.modeling_llama import LlamaDecoderLayer

    def deaf(self: Any, *args: Any, **kwargs: Any) -> Any:
        kwargs.pop("shoal_packing", None)
        return forward(self, *args, **kwargs)

    forward = LlamaDecoderLayer.forward
    monkeypatch.setattr(LlamaDecoderLayer, "forward", deaf)
    assert not model_of("LlamaConfig", tmp_path / "model").can_pack


@pytest.mark.parametrize(
    "fields",
    [
        {"rope_parameters": {"rope_type": "dynamic", "rope_theta": 10000.0, "factor": 2.0}},
        {"attention_chunk_size": 16},
        {"layer_types": ["chunked_attention"]},
    ],
)
def test_what_depends_on_the_length_of_a_row_is_computed_padded(fields: dict[str, Any]) -> None:
    from transformers import LlamaConfig, LlamaForCausalLM

    from learner.model.attention import attention_for

    config = LlamaConfig(**SMALL)
    for name, value in fields.items():
        setattr(config, name, value)
    attention = attention_for(LlamaForCausalLM, config, slow_kernel=False)
    plain = LlamaForCausalLM._from_config(LlamaConfig(**SMALL), attn_implementation=attention)
    assert LogprobModel(plain, dtype=torch.float32).can_pack
    plain.config = config
    config._attn_implementation = attention
    assert not LogprobModel(plain, dtype=torch.float32).can_pack
