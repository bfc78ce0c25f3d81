"""Configuration of what is optimised: advantages, aggregation, surrogate, corrections, regularisers.

Each part is one choice in which papers differ; `docs/algorithms/` has the equations, and what each preset chooses.
Which parts do not go together is said here, with the reason, before anything is started.
"""

from typing import Annotated, Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from learner.surrogate_config import IMPORT_PATH, Gmpo, OwnSurrogate, PpoClip, SurrogateConfig
from rollout.config import Config


class GroupAdvantage(Config):
    """Rewards against those of their own group: GRPO, Dr. GRPO, RLOO, OPO, MaxRL, as baseline and scale say."""

    kind: Literal["group"] = "group"
    baseline: Literal["mean", "leave_one_out", "length_weighted", "none"] = "mean"
    """What is taken off: the group's mean; the mean of the others (RLOO); the mean by length (OPO); nothing. A group of
    equal rewards has advantages of 0 in every case."""
    scale: Literal["group_std", "batch_std", "group_mean", "none"] = "group_std"
    """What it is divided by: the standard deviation of the group (GRPO) or of all rewards of the batch (ScaleRL), the
    group's mean (MaxRL; rewards must not be negative), nothing (Dr. GRPO, RLOO, OPO)."""
    std: Literal["sample", "population"] = "sample"
    """Divisor n - 1 or n."""
    eps: float = Field(default=0.0, ge=0)
    """Added to what it is divided by. Groups of equal rewards have advantages of 0 with or without."""


class ReinforcePlusPlusAdvantage(Config):
    """REINFORCE++ (arXiv 2501.03262): normalised over all trained tokens of the batch."""

    kind: Literal["reinforce_plus_plus"] = "reinforce_plus_plus"
    baseline: Literal["none", "group_mean"] = "none"
    """Nothing, or the group's mean (REINFORCE++-baseline), before the batch's mean and deviation are."""
    eps: float = Field(default=1e-8, ge=0)
    """Added to the standard deviation."""


class GdpoAdvantage(Config):
    """GDPO (arXiv 2601.05242): each component of the reward is normalised in its group, then their weighted sum over
    the batch. With several rewards none drowns another by its spread."""

    kind: Literal["gdpo"] = "gdpo"
    eps: float = Field(default=1e-4, ge=0)
    """Added to each standard deviation (sample's)."""


class PassAtKAdvantage(Config):
    """Pass@k training (arXiv 2508.10751): the reward of a set of k completions is its best one's; a completion has the
    mean over the sets that it is in."""

    kind: Literal["pass_at_k"] = "pass_at_k"
    k: int = Field(default=4, ge=1)
    """Completions of a set; fewer than the group has. 1 is GRPO with the population's standard deviation."""


class ProcessAdvantage(Config):
    """Process supervision (DeepSeekMath, section 4.1.3): all step rewards of the group are normalised together, and a
    token has the sum over the steps that end at it or after it. `reward.steps` says what scores the steps."""

    kind: Literal["process"] = "process"
    std: Literal["sample", "population"] = "sample"
    """Divisor n - 1 or n."""
    eps: float = Field(default=0.0, ge=0)
    """Added to the standard deviation."""


class OwnAdvantage(Config):
    """An estimator of one's own; `learner.algorithm.advantages.Estimator` says what it is called with."""

    kind: Literal["own"] = "own"
    function: str = Field(pattern=IMPORT_PATH)
    """Import path `module:function`."""
    params: dict[str, Any] = Field(default_factory=dict)
    """Keyword arguments of the function."""


AdvantageConfig = Annotated[
    GroupAdvantage | ReinforcePlusPlusAdvantage | GdpoAdvantage | PassAtKAdvantage | ProcessAdvantage | OwnAdvantage,
    Field(discriminator="kind"),
]


class AggregationConfig(Config):
    """How the values of tokens become one loss. The denominators are those of the whole optimizer step, so that its
    split into micro-batches and ranks changes nothing."""

    kind: Literal["sequence_mean", "token_mean", "token_sum", "sequence_sum", "prompt_mean"] = "sequence_mean"
    """Mean over completions of their token means (GRPO); mean over all tokens (DAPO); sum of tokens over completions
    times `max_tokens` (Dr. GRPO); mean over completions of their token sums; mean over prompts of the token means of
    their groups (ScaleRL)."""
    max_tokens: int | None = Field(default=None, ge=1)
    """The constant of `token_sum`; null takes `rollout.sampling.max_tokens`."""
    count: Literal["trained", "kept"] = "trained"
    """What a token that a mask leaves out is: a 0 in the surrogate's sum, as in the papers, or no token at all, for
    surrogate, KL, entropy and denominators alike."""


class TruncateWeight(Config):
    """Importance weight p(proximal) / p(sampler), cut to bounds (TIS): of each token, or of a whole completion."""

    kind: Literal["truncate"] = "truncate"
    level: Literal["token", "sequence"] = "token"
    """Of a token, or the product over the trained tokens of a completion."""
    max: float | None = Field(default=2.0, gt=0)
    """Highest weight; null has no bound (decoupled PPO)."""
    min: float = Field(default=0.0, ge=0)
    """Lowest weight."""


class RatioMask(Config):
    """Leaves out what is too far from the sampler: where p(proximal) / p(sampler) is outside the bounds."""

    kind: Literal["ratio_mask"] = "ratio_mask"
    level: Literal["token", "sequence", "geometric"] = "token"
    """Of a token (IcePop leaves such tokens out); of a completion, as product or geometric mean of its tokens: then the
    completion is left out."""
    min: float = Field(default=0.5, ge=0)
    """Lowest ratio that is kept."""
    max: float = Field(default=2.0, gt=0)
    """Highest ratio that is kept."""


class OffPolicySequenceMask(Config):
    """Leaves out completions of negative advantage that the policy moved away from (DeepSeek-V3.2, arXiv
    2512.02556): the policy as it is at each update, or, with `count: kept`, before the first of a step."""

    kind: Literal["off_policy_sequence"] = "off_policy_sequence"
    threshold: float = Field(default=0.5, gt=0)
    """Highest mean over the tokens of log p(sampler) - log p(policy), nats."""


class TopEntropyMask(Config):
    """Keeps the tokens at which the policy is least certain (arXiv 2506.01939)."""

    kind: Literal["top_entropy"] = "top_entropy"
    share: float = Field(default=0.2, gt=0, lt=1)
    """Share of the trained tokens of the batch that is kept."""


CorrectionConfig = Annotated[
    TruncateWeight | RatioMask | OffPolicySequenceMask | TopEntropyMask, Field(discriminator="kind")
]


class KlConfig(Config):
    """KL(policy || reference)."""

    coef: float = Field(default=0.04, ge=0)
    """Beta; 0 loads no reference, unless `measure` asks for it."""
    measure: bool = False
    """Load the reference and report the KL where `coef` is 0 as well."""
    estimator: Literal["k1", "k2", "k3", "exact"] = "k3"
    """Of each token from its log-probabilities, d = log p(policy) - log p(reference): d, d^2 / 2, exp(-d) - 1 + d; or
    exactly, over the whole vocabulary."""
    place: Literal["loss", "reward"] = "loss"
    """Taken off the objective, with a gradient of its own, or off the reward, as a number."""
    unbiased: bool = False
    """Multiply k3 by the surrogate's ratio (DeepSeek-V3.2), so that its gradient is that of KL(policy || reference) for
    tokens that the proximal policy drew."""


class EntropyConfig(Config):
    """Entropy bonus."""

    coef: float = Field(default=0.0, ge=0)
    """Weight of the mean entropy in the objective; 0 has none. Where it adapts, its value at the first step."""
    target: float | None = Field(default=None, gt=0)
    """Entropy (nats) below which the bonus acts, and grows; null keeps `coef` fixed (Skywork-OR1, arXiv 2505.22312)."""
    step: float = Field(default=0.005, gt=0)
    """What the coefficient grows or falls by after each optimizer step."""
    max_coef: float = Field(default=1.0, gt=0)
    """Its highest value."""

    @property
    def is_on(self) -> bool:
        """Whether the entropy has a gradient."""
        return self.coef > 0 or self.target is not None


class ReferenceConfig(Config):
    """What the KL term compares with."""

    update: Literal["never", "copy", "average"] = "never"
    """`never`: the starting weights, also of a run that was resumed. `copy`: every `every` training steps the policy's
    weights (iterative GRPO). `average`: at these steps `decay` times the reference and the rest the policy."""
    every: int = Field(default=100, ge=1)
    """Training steps that changed the weights, from one update of the reference to the next."""
    decay: float = Field(default=0.9, ge=0, lt=1)
    """Share of the old reference in `average`."""


class ObjectiveConfig(Config):
    """What a step optimises. The defaults are GRPO (DeepSeekMath, arXiv 2402.03300, section 4.1)."""

    advantage: AdvantageConfig = GroupAdvantage()
    """Rewards to advantages."""
    aggregation: AggregationConfig = AggregationConfig()
    surrogate: SurrogateConfig = PpoClip()
    """Advantages and ratios to the objective of each token."""
    proximal: Literal["sampler", "recomputed", "interpolated"] = "sampler"
    """What the surrogate's ratio is against: the probability that the sampler gave; the learner's own before the step's
    first update; between the two by the completion's lag (A-3PO, arXiv 2512.06547). For the last two the gap to the
    sampler is left to `corrections`."""
    corrections: tuple[CorrectionConfig, ...] = ()
    """Weights and masks for the gap between sampler and learner, all of them applied. Where a completion has one ratio,
    a weight or mask of a token scales its share of the completion's value; its log-probability stays in the ratio."""
    mask_truncated: bool = False
    """Do not train on completions that were cut at their greatest length; their rewards count in the group all the same
    (overlong filtering, DAPO, section 3.4)."""
    kl: KlConfig = KlConfig()
    entropy: EntropyConfig = EntropyConfig()
    reference: ReferenceConfig = ReferenceConfig()

    @field_validator("corrections")
    @classmethod
    def _check_bounds(cls, corrections: tuple[Any, ...]) -> tuple[Any, ...]:
        for correction in corrections:
            low, high = getattr(correction, "min", None), getattr(correction, "max", None)
            if low is not None and high is not None and low >= high:
                raise ValueError(f"{correction.kind}: min is {low:g} and max is {high:g}; min must be below max")
        return corrections

    @model_validator(mode="after")
    def _check_parts(self) -> Self:
        for problem in [*self._problems(), *self._of_tokens_and_completions(), *self._of_corrections()]:
            raise ValueError(problem)
        return self

    @property
    def has_masks(self) -> bool:
        """Whether a correction may leave tokens out."""
        return any(correction.kind != "truncate" for correction in self.corrections)

    @property
    def needs_reference(self) -> bool:
        """Whether a reference is loaded."""
        return self.kl.coef > 0 or self.kl.measure

    @property
    def computes_all(self) -> bool:
        """Whether a completion with an advantage of 0 has a gradient, or changes another's."""
        return (
            self.kl.coef > 0
            or self.entropy.is_on
            or isinstance(self.surrogate, OwnSurrogate)  # it may have a gradient where the advantage is 0
            or (self.has_masks and (self.aggregation.count == "kept" or self._has("top_entropy")))
        )

    @property
    def rewards_hold_kl(self) -> bool:
        """Whether the KL is taken off the rewards: then advantages are made after it is computed, on the ranks."""
        return self.kl.coef > 0 and self.kl.place == "reward"

    @property
    def needs_whole_step(self) -> bool:
        """Whether a rank needs to know of the sequences of the others."""
        return self.rewards_hold_kl or (self.has_masks and self.aggregation.count == "kept")

    def needs_values_before(self, num_updates: int) -> bool:
        """Whether the policy's values are computed before the first of `num_updates` optimizer steps, in a pass of
        their own: they are those of the first pass where a step has one update, unless something of the whole batch
        depends on them."""
        of_the_batch = self.needs_whole_step or self._has("top_entropy")
        return of_the_batch or (num_updates > 1 and (self.proximal == "recomputed" or bool(self.corrections)))

    @property
    def top_entropy_share(self) -> float | None:
        """Share of the tokens that `top_entropy` keeps; None without it."""
        return next((one.share for one in self.corrections if isinstance(one, TopEntropyMask)), None)

    def _has(self, kind: str) -> bool:
        return any(correction.kind == kind for correction in self.corrections)

    def _problems(self) -> list[str]:
        """Sentences on parts that do not go together."""
        surrogate, kl, advantage = self.surrogate, self.kl, self.advantage
        found: list[str] = []
        if self.proximal == "sampler" and self._has("truncate"):
            found.append(
                "corrections has `truncate`, and proximal is `sampler`: the surrogate's ratio is against the sampler "
                "already, so that the gap would count twice; set proximal to `recomputed`"
            )
        if isinstance(surrogate, Gmpo) and self.aggregation.kind != "sequence_mean":
            found.append(
                f"surrogate gmpo has one value for a completion, and aggregation {self.aggregation.kind} counts it "
                "once for each token, which no paper does; set aggregation.kind to `sequence_mean`"
            )
        if kl.unbiased and (kl.estimator != "k3" or kl.place != "loss"):
            found.append("kl.unbiased is about k3 in the loss; leave it out, or set kl.estimator to `k3`")
        if self.rewards_hold_kl and kl.estimator == "exact":
            found.append(
                "kl.estimator is `exact` and kl.place is `reward`, which has one number for the sampled token; set "
                "kl.estimator to `k1`, or kl.place to `loss`"
            )
        if self.rewards_hold_kl and self.mask_truncated:
            found.append(
                "mask_truncated leaves completions out whose rewards count in their group, and kl.place is `reward`, "
                "for which their KL is needed; set kl.place to `loss`, or mask_truncated to false"
            )
        if kl.coef > 0 and kl.place == "loss" and kl.estimator == "k1":
            found.append(
                "kl.estimator `k1` in the loss has an expected gradient of 0: it would do nothing but noise; set "
                "kl.place to `reward`, or kl.estimator to `k2` or `k3`"
            )
        if self.rewards_hold_kl and isinstance(advantage, (ProcessAdvantage, GdpoAdvantage)):
            found.append(
                f"advantage {advantage.kind} has rewards of several parts, and kl.place is `reward`: to which "
                "part the KL belongs is not defined; set kl.place to `loss`"
            )
        if self.rewards_hold_kl and isinstance(advantage, ReinforcePlusPlusAdvantage) and advantage.baseline != "none":
            found.append(
                "advantage reinforce_plus_plus with a group baseline has its KL in the loss (k2 in the paper), and "
                "kl.place is `reward`; set kl.place to `loss` and kl.estimator to `k2`"
            )
        if self.reference.update != "never" and not self.needs_reference:
            found.append("reference.update has nothing to update: kl.coef is 0, so there is no reference")
        if self.entropy.target is not None and self.entropy.coef > self.entropy.max_coef:
            found.append(f"entropy.coef is {self.entropy.coef:g}, above max_coef = {self.entropy.max_coef:g}")
        return found

    @property
    def has_ratio_of_completions(self) -> bool:
        """Whether all tokens of a completion are moved by one ratio."""
        surrogate = self.surrogate
        is_clip = isinstance(surrogate, PpoClip) and surrogate.level in ("sequence", "product")
        return isinstance(surrogate, Gmpo) or is_clip

    def _of_tokens_and_completions(self) -> list[str]:
        """Sentences on what is of each token beside what is of a whole completion or group."""
        advantage, found = self.advantage, []
        varies = isinstance(advantage, ProcessAdvantage) or (
            isinstance(advantage, ReinforcePlusPlusAdvantage) and self.rewards_hold_kl
        )
        if varies and self.has_ratio_of_completions:
            found.append(
                f"advantage {advantage.kind} differs from token to token, and surrogate {self.surrogate.kind} has one "
                "ratio for a completion, so that every token would be moved by the advantages of all; take ppo_clip "
                "with the level `token` or `sequence_token`"
            )
        if varies and self._has("off_policy_sequence"):
            found.append(
                f"corrections has off_policy_sequence, which asks for the sign of a completion's advantage, and "
                f"advantage {advantage.kind} has one for each token; leave the correction out"
            )
        is_scaled = isinstance(advantage, GroupAdvantage) and advantage.scale in ("group_std", "group_mean")
        if self.rewards_hold_kl and (is_scaled or isinstance(advantage, PassAtKAdvantage)):
            found.append(
                "kl.place is `reward`, and advantages are divided by what their group's rewards spread or hold: where "
                "rewards are equal that is the KL alone, whatever its weight; set advantage.scale to `none` or "
                "`batch_std`, or kl.place to `loss`"
            )
        if self.aggregation.max_tokens is not None and self.aggregation.kind != "token_sum":
            found.append(f"aggregation.max_tokens is the constant of token_sum, and kind is {self.aggregation.kind}")
        return found

    def _of_corrections(self) -> list[str]:
        """Sentences on corrections that would not do what they say."""
        found = []
        if self.proximal == "interpolated" and self._has("ratio_mask"):
            found.append(
                "corrections has ratio_mask, and proximal is `interpolated`, which is the sampler's own where the lag "
                "is 1 or less: nothing would be masked there; set proximal to `recomputed` or `sampler`"
            )
        if self.aggregation.count == "kept" and not self.has_masks:
            found.append("aggregation.count is `kept`, and no correction leaves tokens out; leave it at `trained`")
        if self.aggregation.count == "kept" and self.entropy.target is not None:
            found.append(
                "entropy.target is compared with the entropy of all trained tokens, and aggregation.count is `kept`; "
                "set count to `trained`, or leave the target out"
            )
        if sum(correction.kind == "top_entropy" for correction in self.corrections) > 1:
            found.append("corrections has top_entropy twice; the lower share alone does the same")
        return found
