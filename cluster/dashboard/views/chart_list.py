"""The charts of the overview: what each shows, what it means and when to worry. Definitions, as data.

Most are `always` there, empty at first, so that the page of a run that is just starting does not move when the first
step comes; the others only where there is more than 0 to show.
"""

from collections.abc import Callable

from cluster.dashboard.figures import thresholds
from cluster.dashboard.figures.derived import REJECTED_IN_STEP
from cluster.dashboard.figures.thresholds import RunFacts, Threshold
from cluster.dashboard.views.charts import ChartSpec, SeriesSpec
from cluster.dashboard.views.episode_charts import EPISODES


def _line(name: str, label: str, *, greatest: bool = False) -> SeriesSpec:
    return SeriesSpec(name=name, label=label, greatest=greatest)


def _fixed(threshold: Threshold) -> Callable[[RunFacts], Threshold]:
    return lambda _: threshold


LEARNING = (
    ChartSpec(
        id="reward",
        group="Learning",
        title="Reward",
        help="Mean over all scored completions of a step; the band is one standard deviation. It should rise, with a "
        "band that is not zero: where all rewards are equal nothing is learned. Worry when it is flat for 50 steps "
        "while the KL rises, or falls by more than three of its own deviations.",
        series=(
            _line("reward/mean", "mean"),
            SeriesSpec(name="reward/low", label="mean - std", role="low"),
            SeriesSpec(name="reward/high", label="mean + std", role="high"),
        ),
    ),
    ChartSpec(
        id="accuracy",
        group="Learning",
        title="Accuracy while training",
        help="Share of the sampled completions that are right, at the training temperature and on training prompts. "
        "The held-out accuracy tells whether it carries over; a gap that widens is memorisation or a reward that is "
        "being gamed.",
        series=(_line("reward/accuracy", "right"),),
    ),
    ChartSpec(
        id="components",
        group="Learning",
        title="Reward components",
        help="Mean of each reward function, before its weight. A cheap component (format, length) that rises while "
        "the accuracy does not is what the policy is really learning.",
        series=(_line("reward/component_*", ""),),
        always=False,
        at_least=2,
    ),
    ChartSpec(
        id="signal",
        group="Learning",
        title="Groups without a difference",
        help="Groups whose rewards are all equal have advantage 0 and teach nothing. All right: the prompts are too "
        "easy; all wrong: too hard, or the grader is broken. Worry above half for ten steps; above 80 % the batch is "
        "mostly wasted: use dynamic sampling, a larger group, other prompts.",
        series=(
            _line("reward/equal_groups_fraction", "equal rewards"),
            _line("reward/all_right_share", "all right"),
            _line("reward/all_wrong_share", "all wrong"),
        ),
        threshold=_fixed(thresholds.EQUAL_GROUPS),
    ),
    ChartSpec(
        id="length",
        group="Learning",
        title="Length of completions",
        help="Sampled tokens. Truncated completions hide how long whole ones are, so those that ended by themselves "
        "have a line of their own. Worry when it grows by 30 % in 20 steps and the reward does not.",
        series=(
            _line("rollout/completion_tokens_mean", "mean"),
            _line("rollout/ended_tokens_mean", "mean of those that ended"),
            _line("rollout/completion_tokens_max", "longest"),
        ),
    ),
)

STABILITY = (
    ChartSpec(
        id="entropy",
        group="Stability",
        title="Entropy",
        help="Mean over tokens of the policy's uncertainty. It falls as the policy learns; the bands are relative to "
        "the first step, because what is low depends on the model. Below 0.3 of it exploration ends, below 0.1 it has "
        "collapsed (unless the task is solved); above 2 times it the policy drifts to noise. Estimated while sampling: "
        "the mean of -log p of all sampled tokens, which the bands go by. Without a KL term the learner's line is over "
        "groups whose rewards differ, and moves as prompts are solved; with one the two should lie on one another.",
        series=(_line("train/entropy", "learner"), _line("rollout/sampled_entropy", "estimated while sampling")),
        threshold=thresholds.entropy,
    ),
    ChartSpec(
        id="grad_norm",
        group="Stability",
        title="Gradient norm",
        help="Before clipping. Spikes precede divergence; the bands are 3 and 10 times the run's own median.",
        series=(_line("train/grad_norm", "norm", greatest=True),),
        threshold=thresholds.grad_norm,
    ),
    ChartSpec(
        id="clip",
        group="Stability",
        title="Clipped tokens",
        help="Tokens whose ratio is held at a bound: of negative advantage below, of positive above. With the clip of "
        "GRPO they give no gradient, are near 0 on-policy with one update, and up to 5 % with more; above 10 % the "
        "steps are too large: lower the learning rate, the updates per batch, or the lag. Ratios of whole completions "
        "(GSPO) and other surrogates have bounds of their own, so that much more may be usual.",
        series=(
            _line("train/clip_fraction", "clipped"),
            _line("train/clip_fraction_low", "below"),
            _line("train/clip_fraction_high", "above"),
        ),
        threshold=thresholds.clip_fraction,
    ),
    ChartSpec(
        id="kl_ref",
        group="Stability",
        title="KL to the reference",
        help="How far the policy has moved from the reference, by the run's estimator (learner.objective.kl), mean "
        "over tokens; only with a KL coefficient. What is much depends on the task. Worry when it rises while the "
        "reward is flat, or worse, falls.",
        series=(_line("train/kl_ref", "KL"),),
        always=False,
    ),
    ChartSpec(
        id="teacher_kl",
        group="Stability",
        title="Divergence from the teacher",
        help="How far the policy is from its teacher, of the kind that learner.teacher names, mean over tokens; only "
        "with a teacher. It should fall; where it stays, the teacher knows what no prompt tells.",
        series=(_line("train/teacher_kl", "divergence"),),
        always=False,
    ),
    ChartSpec(
        id="entropy_coef",
        group="Stability",
        title="Entropy coefficient",
        help="Weight of the entropy bonus in the objective. Where it adapts, it grows while the entropy is below its "
        "target; at its highest value (entropy.max_coef) it can do no more.",
        series=(_line("train/entropy_coef", "coefficient"),),
        always=False,
    ),
    ChartSpec(
        id="truncated",
        group="Stability",
        title="Truncated completions",
        help="Completions that reached the token limit, and those that the engine gave up. Above 5 % the reward of "
        "long answers is that of a torn-off text; above 15 % training is known to go wrong: raise max_tokens.",
        series=(_line("rollout/truncated_fraction", "truncated"), _line("rollout/aborted_fraction", "aborted")),
        threshold=_fixed(thresholds.TRUNCATED),
    ),
    ChartSpec(
        id="failures",
        group="Stability",
        title="Rewards that failed",
        help="Completions that could not be scored: the reward function raised, took too long or gave no finite "
        "number. They enter no mean and no advantage. Above 1 % look at their details; above 5 % the grader is broken.",
        series=(_line("reward/failed_share", "failed"),),
        threshold=_fixed(thresholds.FAILED_REWARDS),
    ),
    ChartSpec(
        id="skipped",
        group="Stability",
        title="Skipped steps and masked tokens",
        help="A step whose loss or gradient is not finite leaves the weights as they were; too many in a row end the "
        "run. Tokens whose log-probability is not finite are masked. Both should be 0.",
        series=(
            _line("train/skipped", "skipped", greatest=True),
            _line("train/bad_steps_in_a_row", "bad steps in a row", greatest=True),
            _line("rollout/nonfinite_logprobs", "masked tokens", greatest=True),
        ),
        threshold=_fixed(Threshold(watch_above=0.5)),
    ),
    ChartSpec(
        id="schedule",
        group="Stability",
        title="Learning rate",
        help="As the schedule sets it.",
        series=(_line("train/lr", "learning rate"),),
    ),
)

OFF_POLICY = (
    ChartSpec(
        id="gap",
        group="Off-policy",
        title="Gap between sampler and learner (k3)",
        help="How differently sampler and learner see the same tokens: mean of r - 1 - log r, r = p(learner) / "
        "p(sampler). With the same weights on both sides only rounding is left: 1e-8 in fp32, around 1e-3 in bf16; "
        "the bands take precision and lag of this run into account. A jump right after a sync means that the new "
        "weights did not arrive; slow growth means staleness or precision.",
        series=(_line("train/kl_rollout", "k3"),),
        threshold=thresholds.gap,
    ),
    ChartSpec(
        id="largest_gap",
        group="Off-policy",
        title="Largest gap of a token",
        help="Largest |log p(learner) - log p(sampler)| of a step. A token above 1 is seen three times as likely by "
        "one side; above 5 again and again on one sampler, that sampler is broken.",
        series=(_line("train/max_abs_log_ratio", "largest |log ratio|"),),
        threshold=thresholds.largest_gap,
    ),
    ChartSpec(
        id="ratio",
        group="Off-policy",
        title="Mean ratio",
        help="Mean of p(learner) / p(sampler) over the trained tokens. Exactly 1 on-policy in exact arithmetic; a mean "
        "that drifts off 1 biases every gradient.",
        series=(_line("train/ratio_mean", "mean ratio"),),
        threshold=thresholds.ratio,
    ),
    ChartSpec(
        id="ratio_std",
        group="Off-policy",
        title="Spread of the ratio",
        help="Standard deviation of p(learner) / p(sampler) over the trained tokens. The mean may be 1 while single "
        "tokens weigh ten times as much as others; this rises first.",
        series=(_line("train/ratio_std", "standard deviation"),),
        always=False,
    ),
    ChartSpec(
        id="effective_sample_size",
        group="Off-policy",
        title="Effective sample size",
        help="Which share of the tokens is left as evidence on the policy that learns, as others drew them: 100 % "
        "where sampler and learner agree. A fall means that a few tokens decide the step.",
        series=(_line("train/effective_sample_size", "of the tokens"),),
        always=False,
    ),
    ChartSpec(
        id="masked",
        group="Off-policy",
        title="Tokens that masks leave out",
        help="What the masks among learner.objective.corrections keep out of the surrogate. Only with masks; where it "
        "grows, the sampler's weights are too old, or their precision is another.",
        series=(_line("train/masked_fraction", "left out"),),
        always=False,
    ),
    ChartSpec(
        id="correction_weight",
        group="Off-policy",
        title="Weight of the corrections",
        help="Mean of what learner.objective.corrections multiply the surrogate by: near 1 where sampler and learner "
        "agree. Only with corrections.",
        series=(_line("train/correction_weight", "mean weight"),),
        always=False,
    ),
    ChartSpec(
        id="lag",
        group="Off-policy",
        title="Policy lag",
        help="Versions between the oldest token of a group and the step that trains on it; bounded by max_policy_lag. "
        "0 is on-policy.",
        series=(_line("lag/mean", "mean"), _line("lag/max", "largest")),
        threshold=thresholds.lag,
    ),
    ChartSpec(
        id="mixed",
        group="Off-policy",
        title="Completions of more than one version",
        help="Completions during which the weights changed. Only where sampling goes on across a sync.",
        series=(_line("lag/mixed_share", "mixed"),),
        always=False,
    ),
)

SYSTEM = (
    ChartSpec(
        id="step_time",
        group="System",
        title="Where a step's time goes",
        help="Seen by the learner: it waits for a batch, trains, hands over the weights; evaluations and checkpoints "
        "are the rest. With sampling ahead, sampling shows only as waiting where it is too slow.",
        series=(
            SeriesSpec(name="time/wait_s", label="wait for a batch", role="stack"),
            SeriesSpec(name="time/train_s", label="train", role="stack"),
            SeriesSpec(name="time/sync_s", label="sync weights", role="stack"),
            SeriesSpec(name="time/other_s", label="other", role="stack"),
        ),
    ),
    ChartSpec(
        id="stages",
        group="System",
        title="Sampling and scoring",
        help="Sampling: from the first group sent to a sampler until the last of the batch came back. Scoring: the sum "
        "over groups, which workers share. These overlap with training where sampling runs ahead.",
        series=(
            _line("time/generate_s", "sample"),
            _line("time/score_s", "score"),
            _line("reward/score_s_max", "slowest completion"),
        ),
    ),
    ChartSpec(
        id="bottleneck",
        group="System",
        title="Waiting and sync",
        help="Of a step's time. Waiting above 30 % names the sampler as the bottleneck: more samplers, or a lag of 1. "
        "The bands are those of waiting; sync should stay below 10 %.",
        series=(_line("time/wait_share", "wait for a batch"), _line("time/sync_share", "sync weights")),
        threshold=_fixed(thresholds.WAIT_SHARE),
    ),
    ChartSpec(
        id="throughput",
        group="System",
        title="Throughput",
        help="Sampled tokens per second of sampling, tokens per second of training (prompts included), and sampled "
        "tokens per second of the whole run, which is what counts.",
        series=(
            _line("rollout/tokens_per_s", "while sampling"),
            _line("train/tokens_per_s", "while training"),
            _line("rollout/end_to_end_tokens_per_s", "end to end"),
        ),
    ),
    ChartSpec(
        id="groups",
        group="System",
        title="Rejected groups, by step",
        help="Groups that were sampled during a step and not trained on, by reason; and those whose prompt was sent "
        "out again after a failure.",
        series=(_line(f"{REJECTED_IN_STEP}*", ""), _line("rollout/retried_groups", "retried")),
    ),
    ChartSpec(
        id="in_flight",
        group="System",
        title="Groups in flight",
        help="Dispatched and neither trained nor rejected at the end of a step: what sampling is ahead. `Unaccounted` "
        "is 0 unless a group was lost or used twice.",
        series=(_line("groups/in_flight", "in flight"), _line("groups/unaccounted", "unaccounted", greatest=True)),
    ),
)

CHARTS = (*LEARNING, *EPISODES, *STABILITY, *OFF_POLICY, *SYSTEM)
