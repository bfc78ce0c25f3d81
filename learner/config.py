"""Configuration of the learner: the paper's symbols, their ranges and units."""

from typing import Annotated, Literal

from pydantic import Field

from learner.objective import ObjectiveConfig
from rollout.config import Config

DecayRate = Annotated[float, Field(ge=0, lt=1)]
"""Share of a running mean that stays at each step."""


class ScheduleConfig(Config):
    """Learning rate over optimizer steps."""

    kind: Literal["constant", "linear", "cosine"] = "constant"
    """Shape after the warm-up: constant, or down to `min_lr_ratio` at the last step."""
    warmup_steps: int = Field(default=0, ge=0)
    """Steps over which the rate rises linearly from 0."""
    min_lr_ratio: float = Field(default=0.0, ge=0, le=1)
    """Last rate over highest rate, for linear and cosine."""


class LearnerConfig(Config):
    """Training: one Ray actor for each rank, DeepSpeed between them."""

    objective: ObjectiveConfig = ObjectiveConfig()
    lr: float = Field(default=1e-6, gt=0)
    """Highest learning rate."""
    schedule: ScheduleConfig = ScheduleConfig()
    betas: tuple[DecayRate, DecayRate] = (0.9, 0.999)
    """AdamW's decay rates, of the mean gradient and of its square."""
    eps: float = Field(default=1e-8, gt=0)
    """AdamW's epsilon, added to the root of the second moment."""
    weight_decay: float = Field(default=0.0, ge=0)
    """AdamW's: each step takes this share, times the learning rate, off every weight."""
    max_grad_norm: float = Field(default=1.0, ge=0)
    """Gradients are scaled down to this norm; 0 turns clipping off."""
    updates_per_batch: int = Field(default=1, ge=1)
    """Times that each batch is gone through (mu of the paper); above 1 the clip has work to do."""
    mini_batches: int = Field(default=1, ge=1)
    """Parts of a batch, drawn at random, each with an optimizer step of its own."""
    num_ranks: int = Field(default=1, ge=1)
    """Data-parallel ranks, one Ray actor each."""
    zero_stage: Literal[0, 1, 2, 3] = 0
    """What DeepSpeed shards over ranks: 1 optimizer state, 2 also gradients, 3 also weights."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Precision of forward and backward. Weights and optimizer state are kept in fp32 in either case."""
    gradient_checkpointing: bool = False
    """Recompute activations in the backward pass: less memory, about a third more time."""
    micro_batch_tokens: int = Field(default=4096, ge=16)
    """Tokens, padding included, in one forward and backward pass."""
    max_bad_steps: int = Field(default=3, ge=1)
    """Steps in a row with a non-finite loss or gradient after which the run ends."""
    threads: int = Field(default=0, ge=0)
    """Threads of a rank on a CPU; 0 shares the node's cores among its ranks."""
    cpus_per_rank: float = Field(default=1.0, gt=0)
    """What a rank's actor asks of Ray."""
    gpus_per_rank: float = Field(default=0.0, ge=0)
    """What a rank's actor asks of Ray."""
    step_deadline_s: float = Field(default=1800.0, gt=0)
    """After a step that takes longer all ranks are restarted, and train it again."""
    start_deadline_s: float = Field(default=600.0, gt=0)
    """Time for the ranks to load model and optimizer."""
