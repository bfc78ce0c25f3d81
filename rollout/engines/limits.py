"""What the engine cannot do with a model, told from its configuration before anything starts.

vLLM says these things too, from within a process that took half a minute to start, about keys that are not Shoal's. It
is not asked here: importing it takes as long as some runs take. `tests/models/test_limits.py` compares with it.
"""

from pathlib import Path
from typing import Any

from rollout.errors import ModelError

CPU_HEAD_SIZES = (32, 64, 80, 96, 112, 128, 160, 192, 224, 256, 512)
"""Values of an attention head for which vLLM's attention on CPUs is compiled."""
LENGTH_KEYS = (
    "max_position_embeddings",
    "n_positions",
    "max_seq_len",
    "seq_length",
    "max_target_positions",
    "max_sequence_length",
    "max_seq_length",
    "seq_len",
)
"""Keys of a config.json under which the longest text stands, in tokens; the smallest counts."""
LENGTH_IS_SCALED = ("su", "longrope", "llama3", "yarn", "deepseek_yarn", "deepseek_llama_scaling", "default")
"""Kinds of rotary scaling for which that length is the scaled one already, or that scale nothing."""
COMPUTED_OTHERWISE = {
    "bloom": "whose GELU vLLM computes exactly, though the model has an approximation of it",
    "apertus": "whose activations vLLM computes in bfloat16 whatever the precision",
}
"""Families that are not the same in vLLM to more digits than bf16 has."""
GONE = {"mpt": "0.29"}
"""Families that vLLM no longer has, and since which version."""
ATTENTION_LAYERS = ("full_attention", "sliding_attention", "chunked_attention", "attention")
"""Kinds of layers that hold no state besides keys and values."""


def check_engine_limits(
    config: Any, model_dir: str | Path, *, max_context_tokens: int, on_gpu: bool, is_exact: bool = False
) -> None:
    """`config` is the model's, as transformers reads it. `is_exact` says that engine and learner are to agree as two do
    that compute in fp32. Errors: `ModelError` for what no engine here can sample from.

    What follows from sizes that the configuration does not name is left to the engine.
    """
    text = config.get_text_config()
    _check_length(config, text, model_dir, max_context_tokens)
    _check_windows(text, model_dir)
    if text.model_type in GONE:
        raise ModelError(
            f"{model_dir} is of the family {text.model_type}, which vLLM has not had since {GONE[text.model_type]}; "
            "take another model"
        )
    if is_exact and text.model_type in COMPUTED_OTHERWISE:
        raise ModelError(
            f"{model_dir} is of the family {text.model_type}, {COMPUTED_OTHERWISE[text.model_type]}: that is up to "
            "1e-2 nats, more than engine and learner may differ in float32; set rollout.dtype or learner.dtype to "
            "bfloat16, or both of weight_sync.canary_max_error and canary_mean_error"
        )
    if not on_gpu:
        _check_layers_on_cpu(text, model_dir)
        _check_heads_on_cpu(text, model_dir)


def longest_context(config: Any) -> tuple[float, str]:
    """(tokens, key) that a model reads at most; infinite where its configuration has no such key."""
    text = config.get_text_config()
    lengths = [(length, key) for key in LENGTH_KEYS if isinstance(length := getattr(text, key, None), int)]
    own = getattr(text, "model_max_length", None)
    tokens, key = (own, "model_max_length") if own else min(lengths, default=(float("inf"), ""))
    return tokens * _length_factor(config, text), key


def _length_factor(config: Any, text: Any) -> float:
    if "gemma3" in config.model_type:  # its length is the scaled one, for every kind of scaling
        return 1.0
    rope = getattr(text, "rope_parameters", None) or {}
    factor = 1.0
    # Either the parameters of all layers, or those of each kind of layer.
    for parameters in (rope, *(value for value in rope.values() if isinstance(value, dict))):
        kind = parameters.get("rope_type")
        if kind is not None and kind not in LENGTH_IS_SCALED:
            factor = parameters.get("factor") or factor
    return factor


def _check_length(config: Any, text: Any, model_dir: str | Path, max_context_tokens: int) -> None:
    tokens, key = longest_context(config)
    if max_context_tokens > tokens and max_context_tokens > (getattr(text, "model_max_length", None) or 0):
        raise ModelError(
            f"model.max_context_tokens is {max_context_tokens}, and {model_dir} reads {tokens:g} tokens at most "
            f"({key} in its config.json); lower model.max_context_tokens, or take another model"
        )


def _check_windows(text: Any, model_dir: str | Path) -> None:
    """vLLM's Qwen2 has one kind of attention for all layers."""
    if text.model_type not in ("qwen2", "qwen2_moe") or not getattr(text, "use_sliding_window", False):
        return
    first, num_layers = getattr(text, "max_window_layers", 0), text.num_hidden_layers
    if first != num_layers:
        raise ModelError(
            f"{model_dir} has a sliding window in some of its layers (use_sliding_window, with max_window_layers "
            f"{first} of {num_layers}), which vLLM cannot do for {text.model_type}; set use_sliding_window to false in "
            "its config.json if the run's contexts fit into the window, or take another model"
        )


def _check_layers_on_cpu(text: Any, model_dir: str | Path) -> None:
    kinds = {str(kind) for kind in getattr(text, "layer_types", None) or ()}
    kinds |= {str(kind) for kind in getattr(text, "layers_block_type", None) or ()}
    states = sorted(kinds.difference(ATTENTION_LAYERS))
    if states:
        raise ModelError(
            f"{model_dir} has layers that carry a state from token to token ({', '.join(states)}), which vLLM samples "
            "from with prompts computed in pieces alone, and on CPUs Shoal has them computed whole; use GPUs "
            "(rollout.gpus_per_engine), or a model of attention layers"
        )


def _check_heads_on_cpu(text: Any, model_dir: str | Path) -> None:
    if getattr(text, "kv_lora_rank", None):  # latent attention: the engine's heads are of another size
        return
    size = getattr(text, "head_dim", None)
    heads, hidden = getattr(text, "num_attention_heads", None), getattr(text, "hidden_size", None)
    if size is None and isinstance(heads, int) and isinstance(hidden, int) and heads > 0:
        size = hidden // heads
    if isinstance(size, int) and size not in CPU_HEAD_SIZES:
        raise ModelError(
            f"{model_dir} has attention heads of {size} values, and vLLM's attention on CPUs has heads of "
            f"{', '.join(map(str, CPU_HEAD_SIZES))}; use GPUs (rollout.gpus_per_engine), or another model"
        )
