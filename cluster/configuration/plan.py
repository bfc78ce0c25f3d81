"""What a run would start and need, without starting it: pure arithmetic on the configuration.

Memory is an estimate: libraries, allocator slack and, on a CPU, packed copies of weights come on top. Parameters are
counted from the model's shape; where that is not known on this machine, what depends on it is None.
"""

from dataclasses import dataclass

from cluster.config import RunConfig
from cluster.configuration.model_shapes import ModelShape, model_shape
from rollout.config import EnvironmentTask, SamplingConfig, tasks_of

MIB = 2**20
_BYTES = {"float32": 4, "bfloat16": 2}
_FP32 = 4
_KEPT = "weights of the last sync, to tell what changed, in main memory"
_ACTIVATION_BYTES_PER_HIDDEN = 34
"""Bytes that a layer keeps for its backward pass, for each token and hidden unit, in 16 bits and without attention
scores, which the fused kernels do not keep (Korthikanti et al. 2022, arXiv 2205.05198, equation 1)."""

_LOGITS_CHUNK_ELEMENTS = 2**24
"""CHUNK_ELEMENTS of learner/model/logprobs.py, which cannot be imported here without torch."""

_DIVERGENCE_CHUNK_ELEMENTS = 2**23
"""CHUNK_ELEMENTS of learner/model/divergences.py."""

_REDUCE_BUCKET_ELEMENTS = 50_000_000
"""BUCKET_ELEMENTS of learner/backend/deepspeed_config.py."""
_STAGE3_LIVE_ELEMENTS = 10**9
"""DeepSpeed's `stage3_max_live_parameters`: as many weights are whole at once, from forward to backward pass."""
_CHECKPOINT_VALUES = {0: 4, 1: 5, 2: 5, 3: 4}
"""fp32 values of a parameter in a checkpoint, by ZeRO stage: the weights for `export`, two moments, and DeepSpeed's own
weights; stages 1 and 2 write those twice, as the model's and as the optimizer's. A reference that moves is one more."""


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
        """What all processes together ask of Ray."""
        return sum(process.count * process.cpus for process in self.processes)

    @property
    def gpus(self) -> float:
        """What all processes together ask of Ray."""
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
        checkpoint_bytes=_checkpoint_bytes(config, shape),
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
    if learner.teacher is not None and learner.teacher.base_url is not None:
        processes.append(ProcessPlan(role="teacher (asks a server)", count=1, cpus=0, gpus=0, threads=1))
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
        *([MemoryPlan(role="sampler", what=_KEPT, num_bytes=weights)] if config.weight_sync.delta else []),
    ]


def _learner_memory(config: RunConfig, shape: ModelShape | None) -> list[MemoryPlan]:
    """ZeRO (Rajbhandari et al. 2020, arXiv 1910.02054): stage 1 shards the optimizer's state over ranks, 2 also the
    gradients, 3 also the weights. The reference is no part of that: each rank has it whole."""
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
    if learner.zero_stage >= 1:
        parts.append(("copy of the weights that the optimizer changes", shared(_FP32, 1)))
        parts.append(("gradients on their way between ranks", _REDUCE_BUCKET_ELEMENTS * _FP32))
    if learner.zero_stage == 3:
        parts.append(("weights gathered for a pass", None if n is None else min(n, _STAGE3_LIVE_ELEMENTS) * _FP32))
    if learner.dtype != "float32":
        parts.append((f"weights cast to {learner.dtype}", _cast_bytes(config, shape) if shape else None))
    if learner.objective.needs_reference:
        parts.append(("reference in float32", None if n is None else n * _FP32))
    for name, path in (learner.teacher.models if learner.teacher is not None else {}).items():
        teacher = model_shape(path)
        what = f"teacher {name} in float32" if name else "teacher in float32"
        parts.append((what, teacher.num_parameters * _FP32 if teacher else None))
    if learner.teacher is not None and learner.teacher.is_start:
        parts.append(("teacher, the weights of the start, in float32", None if n is None else n * _FP32))
    if config.weight_sync.delta:
        parts.append((f"{_KEPT}, of rank 0 alone", None if n is None else n * _BYTES[config.rollout.dtype]))
    parts.append(("activations of a micro-batch", _activation_bytes(config, shape)))
    parts.append(("logits of a chunk and their gradient", 2 * _LOGITS_CHUNK_ELEMENTS * _FP32))
    if learner.compares_distributions:
        parts.append(("logits of a chunk of two models that are compared", 6 * _DIVERGENCE_CHUNK_ELEMENTS * _FP32))
    return [MemoryPlan(role="learner", what=what, num_bytes=num_bytes) for what, num_bytes in parts]


def _cast_bytes(config: RunConfig, shape: ModelShape) -> int:
    """Casts that stand until the backward pass has used them: all of them, or those of the one layer that is being
    recomputed. Under ZeRO-3 DeepSpeed's linear layers keep none."""
    if config.learner.zero_stage == 3:
        return 0
    casts = shape.num_parameters * _BYTES[config.learner.dtype]
    return casts // shape.num_hidden_layers if config.learner.gradient_checkpointing else casts


def _checkpoint_bytes(config: RunConfig, shape: ModelShape | None) -> int | None:
    if shape is None:
        return None
    moves_reference = config.learner.objective.reference.update != "never"
    num_values = _CHECKPOINT_VALUES[config.learner.zero_stage] + moves_reference
    one = num_values * _FP32 * shape.num_parameters
    return (config.checkpoint.keep + 1) * one


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
        completion_tokens=completions * _sampled_tokens(config, config.rollout.sampling),
        learner_tokens=learner_tokens,
        min_micro_batches=-(-per_rank // capacity),
        eval_completions=eval_completions,
        eval_tokens=eval_completions * _sampled_tokens(config, config.eval.sampling),
    )


def _sampled_tokens(config: RunConfig, sampling: SamplingConfig) -> int:
    """Of one completion, at most. What a class has as limits of its own is not known without importing it."""
    most = [sampling.max_tokens]
    for task in tasks_of(config.task):
        if isinstance(task, EnvironmentTask):
            limits = task.limits
            of_replies = limits.turns * limits.turn_tokens if limits.turns and limits.turn_tokens else None
            bounds = (config.model.max_context_tokens, limits.episode_tokens, of_replies)
            most.append(min(bound for bound in bounds if bound is not None))
    return max(most)
