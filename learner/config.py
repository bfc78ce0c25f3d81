"""Configuration of the learner: the paper's symbols, their ranges and units."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from learner.objective import (
    GdpoAdvantage,
    GroupAdvantage,
    ObjectiveConfig,
    OwnAdvantage,
    ReinforcePlusPlusAdvantage,
)
from learner.teacher import TeacherConfig
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
    teacher: TeacherConfig | None = None
    """Distillation from a teacher; null learns from the rewards alone."""
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
    diagnostics: Literal["computed", "all"] = "computed"
    """What the token means of a step (`train/entropy`, `train/kl_rollout`, ...) are over: the tokens that the update
    computes, or all trained tokens. `all` takes a forward pass for each completion whose advantage is exactly zero, and
    changes no weight; an objective that computes these anyway (KL, entropy) is over all in either case."""
    num_ranks: int = Field(default=1, ge=1)
    """Data-parallel ranks, one Ray actor each."""
    zero_stage: Literal[0, 1, 2, 3] = 0
    """What DeepSpeed shards over ranks: 1 optimizer state, 2 also gradients, 3 also weights."""
    dtype: Literal["auto", "float32", "bfloat16"] = "float32"
    """Precision of forward and backward; `auto` as in `rollout.dtype`. Weights and optimizer state are kept in fp32 in
    either case."""
    gradient_checkpointing: bool = False
    """Recompute activations in the backward pass: less memory, about a third more time."""
    micro_batch_tokens: int = Field(default=4096, ge=16)
    """Tokens in one forward and backward pass: padding counts, and a prompt that completions share counts once."""
    packing: bool | None = None
    """Compute sequences in one row without padding, and the prompt of a group once. Null: on CPUs; on GPUs, where it
    was not measured, sequences are padded. A model that cannot be told where a token may look (`docs/models.md`), or
    whose teacher cannot, is computed padded all the same."""
    streaming: bool = False
    """Compute the gradient of a group as soon as it is scored, while others are sampled; the optimizer step waits for
    all of them, so nothing is off-policy for it. The same update but for the order of sums. Worth it where sampler and
    learner share no cores, and the longest completions of a step hold it up; a part of few groups has smaller passes
    than a whole batch. For one optimizer step a batch, objectives of which nothing depends on the whole batch, and runs
    that are not `deterministic`."""
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

    @model_validator(mode="after")
    def _check_parts(self) -> Self:
        for problem in self._problems():
            raise ValueError(problem)
        return self

    @property
    def num_updates(self) -> int:
        """Optimizer steps for each batch."""
        return self.updates_per_batch * self.mini_batches

    @property
    def computes_all(self) -> bool:
        """Whether a completion with an advantage of 0 has a gradient, or changes another's."""
        return self.teacher is not None or self.objective.computes_all

    @property
    def compares_distributions(self) -> bool:
        """Whether the policy is compared over the whole vocabulary, with a reference or a teacher."""
        kl = self.objective.kl
        return (kl.coef > 0 and kl.estimator == "exact") or (self.teacher is not None and self.teacher.is_exact)

    @property
    def needs_values_before(self) -> bool:
        """As `ObjectiveConfig.needs_values_before`; what a teacher's advantages are against are the weights before the
        step."""
        is_taught = self.teacher is not None and not self.teacher.is_exact
        return self.objective.needs_values_before(self.num_updates) or (is_taught and self.num_updates > 1)

    def _problems(self) -> list[str]:
        """Sentences on what does not go together."""
        teacher, surrogate = self.teacher, self.objective.surrogate
        found = self._of_streaming() if self.streaming else []
        moves = any(correction.kind == "truncate" for correction in self.objective.corrections)
        if self.objective.proximal == "interpolated" and moves and self.num_updates > 1:
            found.append(
                "objective.proximal is `interpolated`, which follows the policy from update to update, and corrections "
                f"has truncate, whose weights are of the policy before the {self.num_updates} updates of a batch; set "
                "proximal to `recomputed`, or updates_per_batch and mini_batches to 1"
            )
        if teacher is None:
            return found
        if self.objective.has_ratio_of_completions and not teacher.is_exact:
            found.append(
                f"teacher.kind is `sampled`, an advantage of each token, and objective.surrogate {surrogate.kind} has "
                "one ratio for a completion, so that every token would be moved by the advantages of all; set "
                "surrogate.kind to `ppo_clip` and its level to `token`, or teacher.kind to `reverse`"
            )
        if not teacher.is_exact and any(c.kind == "off_policy_sequence" for c in self.objective.corrections):
            found.append(
                "objective.corrections has off_policy_sequence, which asks for the sign of a completion's advantage, "
                "and teacher.kind is `sampled`, an advantage of each token; leave the correction out"
            )
        if teacher.alone and self.objective.rewards_hold_kl:
            found.append(
                "teacher.alone is true, so that nothing is learnt from rewards, and objective.kl.place is `reward`; "
                "set kl.place to `loss`, or teacher.alone to false"
            )
        if teacher.is_exact and teacher.is_policy and self.num_updates > 1:
            found.append(
                f"teacher.kind is `{teacher.kind}` with policy_with, and a batch has {self.num_updates} optimizer "
                "steps: the teacher is the weights before the first, which are gone after it; set updates_per_batch "
                "and mini_batches to 1, teacher.weights to `start`, or teacher.kind to `sampled`"
            )
        return found

    def _of_streaming(self) -> list[str]:
        """Sentences on what cannot be computed group by group."""
        advantage, found = self.objective.advantage, []
        if self.num_updates > 1:
            found.append(
                f"streaming is true, and a batch has {self.num_updates} optimizer steps: the first gradients would be "
                "of weights that a step has moved; set updates_per_batch and mini_batches to 1"
            )
        is_of_batch = isinstance(advantage, GroupAdvantage) and advantage.scale == "batch_std"
        if is_of_batch or isinstance(advantage, (ReinforcePlusPlusAdvantage, GdpoAdvantage, OwnAdvantage)):
            kind = "group with scale `batch_std`" if is_of_batch else advantage.kind
            found.append(
                f"streaming is true, and objective.advantage {kind} has advantages that depend on the whole batch; "
                "set streaming to false, or take an advantage of each group alone"
            )
        if self.needs_values_before:
            found.append(
                "streaming is true, and the objective has something that depends on the whole batch (top_entropy, "
                "aggregation.count `kept`, or the KL in the reward); set streaming to false, or leave it out"
            )
        return found
