"""Scored groups, step outputs and timings -> named scalars. Pure functions.

Names are `stage/what`. Every value is computed from all completions of a step at once, so nothing is a mean of means.
A value that does not exist (the mean of nothing) is left out instead of being 0.

Dimensions: G completions in a group, k samples drawn for a question.
"""

import math
from collections import Counter
from collections.abc import Hashable, Iterable, Sequence

from cluster.record.episode_metrics import episode_metrics
from cluster.record.judge_metrics import cost_metrics
from cluster.types import GroupCounts, StepTimings
from learner.types import StepOutput
from reward.types import RewardOutcome, ScoredGroup
from rollout.episode_types import EpisodeSummary
from rollout.prompts.stream import StreamFacts
from rollout.types import FinishReason


def step_metrics(
    groups: Sequence[ScoredGroup],
    output: StepOutput,
    *,
    timings: StepTimings,
    counts: GroupCounts,
    policy_version: int,
    stream: StreamFacts | None = None,
) -> dict[str, float]:
    """Everything about one training step; `policy_version` is that of the weights that the step started from, `stream`
    what the prompts come from, where there is one."""
    parts = (
        reward_metrics(groups),
        rollout_metrics(groups),
        episode_metrics(episodes_of(groups)),
        {} if stream is None else prompt_metrics(groups, stream),
        lag_metrics(groups, policy_version),
        train_metrics(output),
        count_metrics(counts),
        time_metrics(groups, output, timings),
    )
    merged: dict[str, float] = {}
    for part in parts:
        twice = merged.keys() & part.keys()
        assert not twice, f"two stages give the metric {sorted(twice)}"
        merged |= part
    return merged


def reward_metrics(groups: Sequence[ScoredGroup]) -> dict[str, float]:
    """Rewards over all scored completions; a failed reward is counted by its outcome and enters no mean."""
    results = [result for scored in groups for result in scored.rewards]
    rewards = [result.reward for result in results if result.reward is not None]
    metrics = _distribution("reward", rewards)
    accuracy = _mean(float(result.correct) for result in results if result.correct is not None)
    if accuracy is not None:
        metrics["reward/accuracy"] = accuracy
    outcomes = Counter(result.outcome for result in results)
    for outcome in RewardOutcome:
        metrics[f"reward/outcome_{outcome}"] = float(outcomes[outcome])
    for name in sorted({name for result in results for name in result.components}):
        values = [result.components[name] for result in results if name in result.components]
        metrics[f"reward/component_{name}"] = math.fsum(values) / len(values)
    metrics |= _signal_metrics(groups)
    if results:
        metrics["reward/score_s_max"] = max(result.duration_s for result in results)
    return metrics


def rollout_metrics(groups: Sequence[ScoredGroup]) -> dict[str, float]:
    """Lengths and endings of the completions. What the world of an episode said was not sampled, and is no part of a
    length."""
    facts = [scored.group.facts for scored in groups]
    lengths = [length for of in facts for length in of.num_sampled_tokens_G]
    if not lengths:
        return {"rollout/completions": 0.0}
    ends = [reason for of in facts for reason in of.finish_reasons_G]
    ended = [length for length, reason in zip(lengths, ends, strict=True) if reason is FinishReason.STOP]
    reasons = Counter(ends)
    metrics = {
        "rollout/completions": float(len(lengths)),
        "rollout/completion_tokens": float(sum(lengths)),
        "rollout/completion_tokens_mean": sum(lengths) / len(lengths),
        "rollout/completion_tokens_max": float(max(lengths)),
        "rollout/prompt_tokens_mean": sum(len(s.group.prompt.token_ids) for s in groups) / len(groups),
        "rollout/truncated_fraction": reasons[FinishReason.LENGTH] / len(lengths),
        "rollout/aborted_fraction": sum(not reason.is_trainable for reason in ends) / len(lengths),
        "rollout/nonfinite_logprobs": float(sum(of.num_nonfinite_logprobs for of in facts)),
        "rollout/retried_groups": float(sum(of.attempt > 1 for of in facts)),
    }
    repetitions = [value for of in facts for value in of.repetition_G]
    if repetitions:
        metrics["rollout/repetition"] = math.fsum(repetitions) / len(repetitions)
    if ended:  # truncated completions hide how long whole ones are
        metrics["rollout/ended_tokens_mean"] = sum(ended) / len(ended)
    num_trainable = sum(number for of in facts for number in of.num_trainable_tokens_G)
    if num_trainable:  # E[-log p(token)] under the sampler estimates the entropy of its distribution
        metrics["rollout/sampled_entropy"] = math.fsum(of.surprisal_sum for of in facts) / num_trainable
    return metrics


def episodes_of(groups: Sequence[ScoredGroup]) -> list[tuple[EpisodeSummary, int]]:
    """The episodes among the completions, and the tokens of each, those of its world included."""
    facts = [scored.group.facts for scored in groups]
    return [
        (episode, num_tokens)
        for of in facts
        for episode, num_tokens in zip(of.episodes_G, of.num_tokens_G if of.episodes_G else (), strict=True)
        if episode is not None
    ]


def prompt_metrics(groups: Sequence[ScoredGroup], stream: StreamFacts) -> dict[str, float]:
    """The tasks of a run of several, and what the curriculum knows."""
    metrics: dict[str, float] = {}
    for task in stream.tasks if len(stream.tasks) > 1 else ():
        of_task = [scored for scored in groups if scored.group.prompt.task == task]
        results = [result for scored in of_task for result in scored.rewards]
        metrics[f"prompts/share_{task}"] = len(of_task) / len(groups)
        accuracy = _mean(float(result.correct) for result in results if result.correct is not None)
        reward = _mean(result.reward for result in results if result.reward is not None)
        found = {f"prompts/accuracy_{task}": accuracy, f"prompts/reward_{task}": reward}
        metrics |= {name: value for name, value in found.items() if value is not None}
    if stream.pass_rate_mean is not None and stream.chance_mean is not None:
        metrics["prompts/known"] = float(stream.num_known)
        metrics["prompts/pass_rate_mean"] = stream.pass_rate_mean
        metrics["prompts/chance_mean"] = stream.chance_mean
    return metrics


def lag_metrics(groups: Sequence[ScoredGroup], policy_version: int) -> dict[str, float]:
    """Versions between sampling and training: of each group by its oldest token."""
    lags = [policy_version - scored.group.facts.min_policy_version for scored in groups]
    if not lags:
        return {}
    mixed = sum(
        first != last
        for scored in groups
        for first, last in zip(scored.group.facts.min_versions_G, scored.group.facts.max_versions_G, strict=True)
    )
    return {"lag/mean": sum(lags) / len(lags), "lag/max": float(max(lags)), "lag/mixed_completions": float(mixed)}


def train_metrics(output: StepOutput) -> dict[str, float]:
    """What the learner reports, a name without a stage placed under `train/`."""
    metrics = {name if "/" in name else f"train/{name}": float(value) for name, value in output.metrics.items()}
    metrics["train/skipped"] = float(output.skipped)
    metrics["train/bad_steps_in_a_row"] = float(output.bad_steps_in_a_row)
    metrics["train/policy_version"] = float(output.policy_version)
    return metrics


def count_metrics(counts: GroupCounts) -> dict[str, float]:
    """Groups of the run so far; `groups/unaccounted` is 0 unless a group was lost or used twice."""
    rejected = sum(counts.rejected.values())
    metrics = {
        "groups/dispatched": float(counts.dispatched),
        "groups/trained": float(counts.trained),
        "groups/in_flight": float(counts.in_flight),
        "groups/rejected": float(rejected),
        "groups/late_results": float(counts.late_results),
        "groups/unaccounted": float(counts.dispatched - counts.trained - counts.in_flight - rejected),
    }
    return metrics | {f"groups/rejected_{reason}": float(number) for reason, number in counts.rejected.items()}


def time_metrics(groups: Sequence[ScoredGroup], output: StepOutput, timings: StepTimings) -> dict[str, float]:
    """Seconds of the stages, and tokens per second: of the sampler those that it sampled, of the learner those that it
    computed, prompts included."""
    metrics = {
        "time/step_s": timings.step_s,
        "time/generate_s": timings.generate_s,
        "time/score_s": timings.score_s,
        "time/train_s": timings.train_s,
        "time/sync_s": timings.sync_s,
        "time/wait_s": timings.wait_s,
    }
    if timings.streamed_s is not None:
        metrics["time/streamed_s"] = timings.streamed_s
    if timings.ended_s is not None:
        metrics["time/ended_s"] = timings.ended_s
    sampled = sum(scored.group.facts.num_sampled_tokens for scored in groups)
    if timings.generate_s > 0:
        metrics["rollout/tokens_per_s"] = sampled / timings.generate_s
    if timings.train_s > 0 and "train/sequence_tokens" in output.metrics:
        metrics["train/tokens_per_s"] = output.metrics["train/sequence_tokens"] / timings.train_s
    return metrics


def evaluation_metrics(groups: Sequence[ScoredGroup]) -> dict[str, float]:
    """`eval/pass_at_1` to `eval/pass_at_k` for powers of 2 and k itself, means over the questions.

    A completion that could not be scored does not count as wrong; a question with none that was scored is left out
    and counted in `eval/unscored_questions`.
    """
    scored = [[r.correct for r in group.rewards if r.correct is not None] for group in groups]
    answered = [flags for flags in scored if flags]
    metrics = {
        "eval/questions": float(len(groups)),
        "eval/unscored_questions": float(len(scored) - len(answered)),
        "eval/failed_rewards": float(sum(r.outcome is not RewardOutcome.OK for g in groups for r in g.rewards)),
        **cost_metrics(groups, "eval/judge_"),
    }
    if not answered:
        return metrics
    largest = min(len(flags) for flags in answered)
    ks = sorted({2**i for i in range(largest.bit_length()) if 2**i <= largest} | {largest})
    for k in ks:
        values = [pass_at_k(len(flags), sum(flags), k) for flags in answered]
        metrics[f"eval/pass_at_{k}"] = math.fsum(values) / len(values)
    reward = _mean(r.reward for group in groups for r in group.rewards if r.reward is not None)
    if reward is not None:
        metrics["eval/reward_mean"] = reward
    sampled = {name.replace("rollout/", "eval/"): value for name, value in rollout_metrics(groups).items()}
    played = {
        name.replace("episode/", "eval/episode_"): value for name, value in episode_metrics(episodes_of(groups)).items()
    }
    return metrics | sampled | played


def pass_at_k(n: int, c: int, k: int) -> float:
    """Unbiased estimate of the chance that one of k samples is right, from n samples of which c are.

    1 - C(n - c, k) / C(n, k) (Chen et al. 2021, arXiv 2107.03374, equation 1).
    """
    if not 1 <= k <= n or not 0 <= c <= n:
        raise ValueError(f"pass@k needs 1 <= k <= n and 0 <= c <= n, got n = {n}, c = {c}, k = {k}")
    return 1.0 - math.comb(n - c, k) / math.comb(n, k)


def maj_at_k(answers: Sequence[Hashable | None], correct: Sequence[bool]) -> float:
    """Whether the most frequent of k answers is right; None is a sample without an answer, which has no vote.

    Of answers that are equally frequent each is taken with equal chance, so the result may be a fraction: it must not
    depend on the order of the samples. 0 when no sample has an answer.
    """
    if len(answers) != len(correct):
        raise ValueError(f"maj@k needs as many answers as judgements, got {len(answers)} and {len(correct)}")
    votes = Counter(answer for answer in answers if answer is not None)
    if not votes:
        return 0.0
    most = max(votes.values())
    winners = [answer for answer, count in votes.items() if count == most]
    right = {answer for answer, flag in zip(answers, correct, strict=True) if flag}
    return sum(answer in right for answer in winners) / len(winners)


def _signal_metrics(groups: Sequence[ScoredGroup]) -> dict[str, float]:
    """Share of groups whose rewards are all equal: these have advantage 0 and teach nothing."""
    compared = [scored for scored in groups if any(reward is not None for reward in scored.compared_rewards)]
    if not compared:
        return {}
    flags = [[r.correct for r in scored.rewards if r.correct is not None] for scored in groups]
    return {
        "reward/equal_groups_fraction": sum(scored.all_rewards_equal for scored in compared) / len(compared),
        "reward/all_right_groups": float(sum(bool(f) and all(f) for f in flags)),
        "reward/all_wrong_groups": float(sum(bool(f) and not any(f) for f in flags)),
    }


def _distribution(stage: str, values: Sequence[float]) -> dict[str, float]:
    """Mean, standard deviation (of the population), least and greatest."""
    if not values:
        return {}
    mean = math.fsum(values) / len(values)
    variance = math.fsum((value - mean) ** 2 for value in values) / len(values)
    return {
        f"{stage}/mean": mean,
        f"{stage}/std": math.sqrt(variance),
        f"{stage}/min": min(values),
        f"{stage}/max": max(values),
    }


def _mean(values: Iterable[float]) -> float | None:
    listed = list(values)
    return math.fsum(listed) / len(listed) if listed else None
