"""What each metric of a run is: its unit, what it is over, and how it is reduced. Imports nothing heavy.

`cluster/record/metrics.py` computes them, in the order of this list; `learner/metrics.py` has those of the learner,
`episode_metrics.py` those of episodes.
Charts, tables and the documentation take units and labels from here.
"""

from dataclasses import replace

from cluster.record.episode_metrics import EPISODE_METRICS
from cluster.record.judge_metrics import COST_METRICS, JUDGE_METRICS
from learner.metrics import LEARNER_METRICS, Metric

REWARD_METRICS = (
    Metric(name="reward/mean", label="Reward", over="scored completions", reduce="mean", better="up"),
    Metric(
        name="reward/std",
        label="Deviation of the reward",
        over="scored completions",
        reduce="std",
        help="Of the population.",
    ),
    Metric(name="reward/min", label="Smallest reward", over="scored completions", reduce="min"),
    Metric(name="reward/max", label="Largest reward", over="scored completions", reduce="max"),
    Metric(
        name="reward/accuracy",
        label="Accuracy on training prompts",
        unit="share",
        over="judged completions",
        reduce="mean",
        better="up",
    ),
    Metric(
        name="reward/outcome_*",
        label="Outcome of scoring:",
        unit="completions",
        over="step",
        reduce="sum",
        help="`ok`, or why there is no reward.",
    ),
    Metric(
        name="reward/component_*",
        label="Component",
        over="completions that have it",
        reduce="mean",
        help="A reward function before its weight.",
    ),
    Metric(
        name="reward/equal_groups_fraction",
        label="Groups with equal rewards",
        unit="share",
        over="groups with a score",
        reduce="mean",
        better="down",
    ),
    Metric(name="reward/all_right_groups", label="Groups all right", unit="groups", over="step", reduce="sum"),
    Metric(name="reward/all_wrong_groups", label="Groups all wrong", unit="groups", over="step", reduce="sum"),
    Metric(
        name="reward/score_s_max",
        label="Slowest completion to score",
        unit="s",
        over="completions",
        reduce="max",
        better="down",
    ),
)
ROLLOUT_METRICS = (
    Metric(name="rollout/completions", label="Completions", unit="completions", over="step", reduce="sum"),
    Metric(name="rollout/completion_tokens", label="Sampled tokens", unit="tokens", over="step", reduce="sum"),
    Metric(
        name="rollout/completion_tokens_mean",
        label="Length of a completion",
        unit="tokens",
        over="completions",
        reduce="mean",
        help="What was sampled; of an episode without what the world said.",
    ),
    Metric(
        name="rollout/completion_tokens_max",
        label="Longest completion",
        unit="tokens",
        over="completions",
        reduce="max",
    ),
    Metric(name="rollout/prompt_tokens_mean", label="Length of a prompt", unit="tokens", over="groups", reduce="mean"),
    Metric(
        name="rollout/truncated_fraction",
        label="Truncated completions",
        unit="share",
        over="completions",
        reduce="mean",
        better="down",
    ),
    Metric(
        name="rollout/aborted_fraction",
        label="Aborted completions",
        unit="share",
        over="completions",
        reduce="mean",
        better="down",
    ),
    Metric(
        name="rollout/nonfinite_logprobs",
        label="Masked tokens",
        unit="tokens",
        over="step",
        reduce="sum",
        better="down",
        help="Tokens whose log-probability is not finite: they are not trained on.",
    ),
    Metric(
        name="rollout/retried_groups",
        label="Groups sampled again",
        unit="groups",
        over="step",
        reduce="sum",
        better="down",
    ),
    Metric(
        name="rollout/repetition",
        label="Repetition",
        unit="share",
        over="completions",
        reduce="mean",
        better="down",
        help="The share of the 4-grams of sampled tokens of a completion that occurred before in it.",
    ),
    Metric(
        name="rollout/ended_tokens_mean",
        label="Length of a completion that ended",
        unit="tokens",
        over="completions that ended by themselves",
        reduce="mean",
    ),
    Metric(
        name="rollout/sampled_entropy",
        label="Entropy of the sampler",
        unit="nats",
        over="sampled tokens",
        reduce="mean",
        help="Estimated: the mean of -log p of what was sampled.",
    ),
)
PROMPT_METRICS = (
    Metric(
        name="prompts/share_*",
        label="Share of the prompts:",
        unit="share",
        over="groups",
        reduce="mean",
        help="Of each task, in a run of several.",
    ),
    Metric(
        name="prompts/accuracy_*",
        label="Accuracy on training prompts:",
        unit="share",
        over="judged completions of the task",
        reduce="mean",
        better="up",
    ),
    Metric(
        name="prompts/reward_*",
        label="Reward:",
        over="scored completions of the task",
        reduce="mean",
        better="up",
    ),
    Metric(
        name="prompts/known",
        label="Prompts with a pass rate",
        unit="prompts",
        over="run",
        reduce="last",
        help="Only with a curriculum.",
    ),
    Metric(
        name="prompts/pass_rate_mean",
        label="Pass rate of the curriculum",
        unit="share",
        over="prompts with a pass rate",
        reduce="mean",
        better="up",
        help="Of each prompt a running mean of the share of its completions that were right.",
    ),
    Metric(
        name="prompts/chance_mean",
        label="Chance of being asked in a pass",
        unit="share",
        over="prompts with a pass rate",
        reduce="mean",
        help="The part of a pass over them that the curriculum asks.",
    ),
)
LAG_METRICS = (
    Metric(
        name="lag/mean",
        label="Versions between sampling and training",
        unit="versions",
        over="groups, each by its oldest token",
        reduce="mean",
    ),
    Metric(name="lag/max", label="Largest lag", unit="versions", over="groups, each by its oldest token", reduce="max"),
    Metric(
        name="lag/mixed_completions",
        label="Completions of more than one version",
        unit="completions",
        over="step",
        reduce="sum",
    ),
)
TRAIN_METRICS = (
    *LEARNER_METRICS,
    Metric(
        name="train/skipped",
        label="Skipped",
        over="step",
        reduce="last",
        better="down",
        help="1 where no update was applied.",
    ),
    Metric(name="train/bad_steps_in_a_row", label="Bad steps in a row", unit="steps", over="run", reduce="last"),
    Metric(name="train/policy_version", label="Version of the weights", over="run", reduce="last"),
)
COUNT_METRICS = (
    Metric(name="groups/dispatched", label="Dispatched groups", unit="groups", over="run so far", reduce="sum"),
    Metric(name="groups/trained", label="Trained groups", unit="groups", over="run so far", reduce="sum"),
    Metric(name="groups/in_flight", label="Groups in flight", unit="groups", over="run", reduce="last"),
    Metric(name="groups/rejected", label="Rejected groups", unit="groups", over="run so far", reduce="sum"),
    Metric(
        name="groups/late_results",
        label="Late results",
        unit="groups",
        over="run so far",
        reduce="sum",
        help="Refused, since their attempt had been given up.",
    ),
    Metric(
        name="groups/unaccounted",
        label="Unaccounted groups",
        unit="groups",
        over="run",
        reduce="last",
        better="down",
        help="0 unless a group was lost or used twice.",
    ),
    Metric(name="groups/rejected_*", label="Rejected:", unit="groups", over="run so far", reduce="sum"),
)
TIME_METRICS = (
    Metric(name="time/step_s", label="Duration of a step", unit="s", over="step", reduce="sum", better="down"),
    Metric(
        name="time/generate_s",
        label="Sampling",
        unit="s",
        over="step",
        reduce="sum",
        help="From the first group sent to a sampler until the last of the batch came back.",
    ),
    Metric(name="time/score_s", label="Scoring", unit="s", over="groups", reduce="sum"),
    Metric(name="time/train_s", label="Training", unit="s", over="step", reduce="sum"),
    Metric(
        name="time/streamed_s",
        label="Training beside sampling",
        unit="s",
        over="step",
        reduce="sum",
        help="The part of `time/train_s` in which groups of the step were still sampled; with `learner.streaming`.",
    ),
    Metric(name="time/sync_s", label="Weight sync", unit="s", over="step", reduce="sum"),
    Metric(
        name="time/wait_s",
        label="Waiting for a batch",
        unit="s",
        over="step",
        reduce="sum",
        help="By the learner.",
    ),
    Metric(name="time/ended_s", label="End of the step", unit="Unix time", over="step", reduce="last"),
    Metric(
        name="rollout/tokens_per_s",
        label="Sampled tokens per second",
        unit="tokens/s",
        over="time of sampling",
        reduce="rate",
        better="up",
    ),
    Metric(
        name="train/tokens_per_s",
        label="Trained tokens per second",
        unit="tokens/s",
        over="time of training",
        reduce="rate",
        better="up",
        help="Each completion with its prompt, also where a prompt is computed once for several.",
    ),
)
STEP_METRICS = (
    *REWARD_METRICS,
    *JUDGE_METRICS,
    *ROLLOUT_METRICS,
    *EPISODE_METRICS,
    *PROMPT_METRICS,
    *LAG_METRICS,
    *TRAIN_METRICS,
    *COUNT_METRICS,
    *TIME_METRICS,
)
"""A line of metrics.jsonl."""

EVALUATION_METRICS = (
    Metric(name="eval/questions", label="Questions", over="evaluation", reduce="sum"),
    Metric(
        name="eval/unscored_questions",
        label="Questions without a score",
        over="evaluation",
        reduce="sum",
        better="down",
        help="Left out of every mean.",
    ),
    Metric(
        name="eval/failed_rewards",
        label="Failed rewards",
        unit="completions",
        over="evaluation",
        reduce="sum",
        better="down",
    ),
    Metric(
        name="eval/pass_at_*",
        label="Held-out pass@",
        unit="share",
        over="scored questions",
        reduce="mean",
        better="up",
        help="The unbiased estimate for k samples.",
    ),
    Metric(
        name="eval/maj_at_*",
        label="Held-out maj@",
        unit="share",
        over="scored questions",
        reduce="mean",
        better="up",
        help="Whether the most frequent answer of k samples is right.",
    ),
    Metric(name="eval/reward_mean", label="Held-out reward", over="scored completions", reduce="mean", better="up"),
    *(
        replace(metric, name=metric.name.replace("rollout/", "eval/"), over=metric.over.replace("step", "evaluation"))
        for metric in ROLLOUT_METRICS
    ),
    *(
        replace(
            metric,
            name=metric.name.replace("episode/", "eval/episode_"),
            over=metric.over.replace("step", "evaluation"),
        )
        for metric in EPISODE_METRICS
    ),
    *(
        replace(
            metric, name=metric.name.replace("judge/", "eval/judge_"), over=metric.over.replace("step", "evaluation")
        )
        for metric in COST_METRICS
    ),
    Metric(name="eval/temperature", label="Temperature", over="evaluation", reduce="last"),
    Metric(name="eval/top_p", label="Top-p", over="evaluation", reduce="last"),
    Metric(name="eval/top_k", label="Top-k", over="evaluation", reduce="last"),
    Metric(name="eval/max_tokens", label="Token limit", unit="tokens", over="evaluation", reduce="last"),
    Metric(name="eval/num_samples", label="Samples for a question", over="evaluation", reduce="last"),
    Metric(name="eval/policy_version", label="Version of the weights", over="evaluation", reduce="last"),
)
"""A line of evaluations.jsonl."""

_BY_NAME = {metric.name: metric for metric in (*STEP_METRICS, *EVALUATION_METRICS)}
_FAMILIES = tuple(metric for metric in _BY_NAME.values() if metric.name.endswith("*"))


def of_one_task(name: str, task: str) -> str:
    """The name of a metric of an evaluation where it is of one task alone: eval/pass_at_1 -> eval/sums/pass_at_1."""
    return name.replace("eval/", f"eval/{task}/", 1)


def metric_of(name: str) -> Metric | None:
    """What is declared of a recorded name; of a member of a family, or of one task, with the whole name and label. None
    for a name that nothing declares, as a run of another version may have."""
    if name in _BY_NAME:
        return _BY_NAME[name]
    if name.startswith("eval/") and name.count("/") == 2:
        _, task, what = name.split("/")
        of_all = metric_of(f"eval/{what}")
        return None if of_all is None else replace(of_all, name=name, label=f"{of_all.label}, {task}")
    for family in _FAMILIES:
        prefix = family.name.removesuffix("*")
        rest = name.removeprefix(prefix)
        if name.startswith(prefix) and rest:
            between = "" if family.label.endswith("@") else " "
            return replace(family, name=name, label=f"{family.label}{between}{rest.replace('_', ' ')}")
    return None
