"""Tiny models with random weights, of the families that vLLM and transformers share, in the layouts that files have."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

SMALL: dict[str, Any] = {
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    # Heads of 32: vLLM's attention on CPUs has none that are smaller.
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "max_position_embeddings": 256,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """An architecture, small."""

    name: str
    """Of transformers' classes: `{name}Config` and `{name}ForCausalLM`."""
    fields: Mapping[str, Any] = field(default_factory=dict)
    """Of the configuration, beside those of `SMALL`."""


def _family(name: str, **fields: Any) -> Family:
    return Family(name=name, fields=fields)


FAMILIES: dict[str, Family] = {
    "Llama": _family("Llama"),
    "Mistral": _family("Mistral", sliding_window=None),
    "Mistral, window of 8": _family("Mistral", sliding_window=8),
    "Qwen2": _family("Qwen2"),
    "Qwen2, window in some layers": _family("Qwen2", use_sliding_window=True, max_window_layers=1, sliding_window=8),
    "Qwen3": _family("Qwen3", head_dim=32),
    "Gemma": _family("Gemma", head_dim=32),
    "Gemma2": _family("Gemma2", head_dim=32, query_pre_attn_scalar=32, sliding_window=8, attn_logit_softcapping=2.0),
    "Gemma3": _family("Gemma3Text", head_dim=32, query_pre_attn_scalar=32, sliding_window=8),
    "Phi": _family("Phi"),
    "Phi3": _family("Phi3", pad_token_id=0, sliding_window=None),
    "GPT2": _family("GPT2", n_positions=256),
    "GPTNeoX": _family("GPTNeoX", num_key_value_heads=2),
    "GPTJ": _family("GPTJ", n_embd=64, n_layer=2, n_head=2, n_positions=256, rotary_dim=16),
    "GPTBigCode": _family("GPTBigCode", n_positions=256),
    "OPT": _family("OPT", ffn_dim=128, word_embed_proj_dim=64),
    "Bloom": _family("Bloom"),
    "Falcon": _family("Falcon", new_decoder_architecture=True, num_kv_heads=1),
    "Falcon, ALiBi": _family("Falcon", alibi=True, multi_query=False, bias=True, new_decoder_architecture=False),
    "Mpt": _family("Mpt", d_model=64, n_heads=2, n_layers=2, max_seq_len=256),
    "Olmo": _family("Olmo"),
    "Olmo2": _family("Olmo2"),
    "Olmo3": _family("Olmo3", sliding_window=8),
    "Granite": _family("Granite", logits_scaling=4.0, residual_multiplier=0.5, embedding_multiplier=3.0),
    "StableLm": _family("StableLm"),
    "SmolLM3": _family("SmolLM3", pad_token_id=0),
    "Starcoder2": _family("Starcoder2"),
    "Glm": _family("Glm", head_dim=32, pad_token_id=0),
    "Glm4": _family("Glm4", head_dim=32, pad_token_id=0),
    "Exaone4": _family("Exaone4", sliding_window=8),
    "Nemotron": _family("Nemotron", head_dim=32),
    "Cohere": _family("Cohere", logit_scale=0.25),
    "Cohere2": _family("Cohere2", head_dim=32, logit_scale=0.25, sliding_window=8),
    "Persimmon": _family("Persimmon", num_key_value_heads=2),
    "Arcee": _family("Arcee"),
    "SeedOss": _family("SeedOss", head_dim=32),
    "Ernie4_5": _family("Ernie4_5", head_dim=32),
    "HunYuanDenseV1": _family("HunYuanDenseV1", head_dim=32),
    "Apertus": _family("Apertus"),
    "Mamba": _family("Mamba", state_size=8),
    "Mamba2": _family("Mamba2", head_dim=32, num_heads=4, n_groups=1, state_size=16, expand=2),
    "Lfm2": _family("Lfm2", layer_types=["conv", "full_attention"]),
    "FalconH1": _family("FalconH1", head_dim=32, mamba_d_ssm=64, mamba_n_heads=2, mamba_d_head=32, mamba_d_state=16),
    "Mixtral": _family("Mixtral", num_local_experts=2),
    "Qwen3Moe": _family("Qwen3Moe", head_dim=32, num_experts=2, num_experts_per_tok=1, moe_intermediate_size=64),
    "Olmoe": _family("Olmoe", num_experts=2, num_experts_per_tok=1),
}


def make_model(directory: Path, family: Family, *, shard_size: str = "1GB", **fields: Any) -> Path:
    """The model as its own library saves it, with a tokenizer of characters. Every weight is random, biases and norms
    included: where they are as they are born, one that is left out is not seen."""
    import torch
    import transformers

    from learner.model.tiny import _make_tokenizer

    tokenizer = _make_tokenizer()
    config = getattr(transformers, f"{family.name}Config")(
        **{
            **SMALL,
            "vocab_size": len(tokenizer),
            "eos_token_id": tokenizer.eos_token_id,
            "pad_token_id": tokenizer.pad_token_id,
            "bos_token_id": None,
            **family.fields,
            **fields,
        }
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = transformers.AutoModelForCausalLM.from_config(config).float()
        with torch.no_grad():
            for key, parameter in model.named_parameters():
                if parameter.ndim > 1 and "conv" not in key and "A_log" not in key:
                    parameter.normal_(std=1.5 * parameter.shape[-1] ** -0.5)
                else:
                    parameter.add_(torch.randn_like(parameter), alpha=0.1)
    model.save_pretrained(directory, max_shard_size=shard_size)
    tokenizer.save_pretrained(directory)
    return directory


def _with_head(directory: Path, family: Family) -> Path:
    """Tied, with the output matrix in the file once more, as some tools save it."""
    from safetensors.torch import load_file, save_file

    made = make_model(directory, family, tie_word_embeddings=True)
    weights = load_file(made / "model.safetensors")
    (embeddings,) = (value for name, value in weights.items() if name.endswith(("embed_tokens.weight", "wte.weight")))
    save_file({**weights, "lm_head.weight": embeddings.clone()}, made / "model.safetensors", {"format": "pt"})
    return made


def _sharded(directory: Path, family: Family) -> Path:
    made = make_model(directory, family, shard_size="100KB")
    assert len(list(made.glob("model-*.safetensors"))) > 2
    return made


def _torch_file(directory: Path, family: Family) -> Path:
    """As before safetensors."""
    import torch
    from safetensors.torch import load_file

    made = make_model(directory, family)
    torch.save(load_file(made / "model.safetensors"), made / "pytorch_model.bin")
    (made / "model.safetensors").unlink()
    return made


def _in_bf16(directory: Path, family: Family) -> Path:
    import torch
    from safetensors.torch import load_file, save_file

    made = make_model(directory, family)
    weights = {name: value.to(torch.bfloat16) for name, value in load_file(made / "model.safetensors").items()}
    save_file(weights, made / "model.safetensors", {"format": "pt"})
    config = json.loads((made / "config.json").read_text())
    (made / "config.json").write_text(json.dumps({**config, "dtype": "bfloat16"}))
    return made


LAYOUTS: dict[str, Callable[[Path, Family], Path]] = {
    "tied": lambda directory, family: make_model(directory, family, tie_word_embeddings=True),
    "untied": lambda directory, family: make_model(directory, family, tie_word_embeddings=False),
    "tied, with the head in the file": _with_head,
    "sharded": _sharded,
    "pytorch_model.bin": _torch_file,
    "in bf16": _in_bf16,
}
"""How the same weights may lie in files."""
