"""What a metric is, and the metrics that the learner computes. No torch here: readers of a run import it."""

from dataclasses import dataclass
from typing import Literal

MAX_LOG_RATIO = 20.0
"""The loss holds a log-ratio within +-20 before exp: e^20 = 4.9e8 is far outside every clip and still finite when
squared in fp32, where e^89 is infinite. Beyond it the gradient is zero."""
Reduce = Literal["mean", "std", "min", "max", "sum", "rate", "last"]
"""How many values become one: `rate` is a sum divided by seconds, `last` what was so at the end of the step."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Metric:
    """One named scalar of a step or an evaluation.

    Example:
        Metric(name="train/entropy", label="Entropy", unit="nats", over="computed tokens", reduce="mean")
    """

    name: str
    """`stage/what`. One that ends in `*` is a family: the rest is the name of a component, a reason, a k."""
    label: str
    """What a person reads; of a family, what stands before the rest."""
    unit: str = ""
    """Empty for a bare number; `share` is 0 to 1, to be read in percent."""
    over: str
    """What it is taken over, all of it at once: nothing is a mean of means."""
    reduce: Reduce
    scale: Literal["linear", "log"] = "linear"
    """How an axis shows it."""
    better: Literal["up", "down"] | None = None
    """Which direction is good, where one is."""
    help: str = ""
    """What the other fields do not say."""


LEARNER_METRICS = (
    Metric(
        name="train/loss",
        label="Loss",
        over="completions with a trained token",
        reduce="mean",
        help="What `learner.objective` says, negated; of several updates of a step their mean.",
    ),
    Metric(
        name="train/grad_norm",
        label="Gradient norm",
        over="updates of the step",
        reduce="mean",
        scale="log",
        help="Before clipping.",
    ),
    Metric(name="train/lr", label="Learning rate", over="step", reduce="last", help="Of the step's last update."),
    Metric(
        name="train/ratio_mean",
        label="Mean ratio",
        over="computed tokens",
        reduce="mean",
        help="p(learner) / p(sampler).",
    ),
    Metric(
        name="train/clip_fraction",
        label="Clipped tokens",
        unit="share",
        over="computed tokens",
        reduce="mean",
        help="Tokens whose ratio is held at a bound, so that they give no gradient.",
    ),
    Metric(
        name="train/clip_fraction_low",
        label="Clipped tokens, lower bound",
        unit="share",
        over="computed tokens",
        reduce="mean",
        help="Tokens of negative advantage whose ratio is below.",
    ),
    Metric(
        name="train/clip_fraction_high",
        label="Clipped tokens, upper bound",
        unit="share",
        over="computed tokens",
        reduce="mean",
        help="Tokens of positive advantage whose ratio is above; also those that a dual clip or a delta holds.",
    ),
    Metric(
        name="train/ratio_std",
        label="Spread of the ratio",
        over="computed tokens",
        reduce="std",
        help="Standard deviation of p(learner) / p(sampler).",
    ),
    Metric(
        name="train/effective_sample_size",
        label="Effective sample size",
        unit="share",
        over="computed tokens",
        reduce="mean",
        better="up",
        help="(sum r)^2 / (n sum r^2) with r = p(learner) / p(sampler): what is left of the tokens as evidence on the "
        "policy.",
    ),
    Metric(
        name="train/correction_weight",
        label="Weight of the corrections",
        over="computed tokens",
        reduce="mean",
        help="What `learner.objective.corrections` multiply the surrogate by; only with corrections.",
    ),
    Metric(
        name="train/masked_fraction",
        label="Masked tokens",
        unit="share",
        over="computed tokens",
        reduce="mean",
        help="What the masks among `learner.objective.corrections` leave out; only with masks. Where only what is kept "
        "counts, the other figures are over the tokens that are kept.",
    ),
    Metric(
        name="train/entropy_coef",
        label="Entropy coefficient",
        over="step",
        reduce="last",
        help="Of the step's last update; only with an entropy bonus.",
    ),
    Metric(
        name="train/kl_ref",
        label="KL to the reference",
        unit="nats",
        over="computed tokens",
        reduce="mean",
        help="By `learner.objective.kl.estimator`; only with a reference.",
    ),
    Metric(
        name="train/teacher_kl",
        label="Divergence from the teacher",
        unit="nats",
        over="computed tokens",
        reduce="mean",
        better="down",
        help="Of `learner.teacher.kind`: exact, or log p(policy) - log p(teacher) of the sampled tokens, an estimate "
        "of KL(policy || teacher); only with a teacher.",
    ),
    Metric(
        name="train/kl_rollout",
        label="Sampler-learner gap (k3)",
        unit="nats",
        over="computed tokens",
        reduce="mean",
        scale="log",
        better="down",
        help="r - 1 - log r with r = p(learner) / p(sampler).",
    ),
    Metric(name="train/entropy", label="Entropy", unit="nats", over="computed tokens", reduce="mean"),
    Metric(
        name="train/max_abs_log_ratio",
        label="Largest gap of a token",
        unit="nats",
        over="computed tokens",
        reduce="max",
        scale="log",
        better="down",
        help="|log p(learner) - log p(sampler)|, before the loss clamps it.",
    ),
    Metric(
        name="train/tokens",
        label="Trained tokens",
        unit="tokens",
        over="step",
        reduce="sum",
        help="Those in the loss's denominator, with the completions whose advantage is exactly zero.",
    ),
    Metric(
        name="train/computed_tokens",
        label="Computed tokens",
        unit="tokens",
        over="step",
        reduce="sum",
        help="Trained tokens that the learner computed. Without a KL term a completion whose advantage is exactly zero "
        "has no gradient and is not computed, so that what is over these tokens moves as prompts are solved; with "
        "`learner.diagnostics` at `all` it is computed, and `rollout/sampled_entropy` is over all in either case.",
    ),
    Metric(
        name="train/sequence_tokens",
        label="Tokens of the completions computed, with their prompts",
        unit="tokens",
        over="step",
        reduce="sum",
        help="Of computed completions, prompts included, padding not.",
    ),
    Metric(name="train/num_sequences", label="Computed completions", unit="completions", over="step", reduce="sum"),
    Metric(
        name="train/padding_fraction",
        label="Padding",
        unit="share",
        over="computed positions of all ranks",
        reduce="mean",
        better="down",
    ),
    Metric(
        name="train/seconds",
        label="Training, by the learner's clock",
        unit="s",
        over="step",
        reduce="sum",
        help="Of rank 0; `time/train_s` has the way there and back as well.",
    ),
)
"""What `learner/worker.py` puts into `StepOutput.metrics`."""
