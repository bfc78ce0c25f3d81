"""Held-out evaluation: pass@1, pass@k and maj@k on the same questions each time."""

import asyncio
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

from cluster.actors import Fleet
from cluster.config import EvalConfig
from cluster.deadlines import finish_all
from cluster.group_pipeline import RewardRouter, now_s, submit_to, wait_group
from cluster.metrics import evaluation_metrics, maj_at_k
from reward.math_normalization import normalize_answer
from reward.types import ScoredGroup
from rollout.types import Prompt, SampleRequest


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """A finished evaluation."""

    groups: tuple[ScoredGroup, ...]
    """One for each question."""
    metrics: dict[str, float]
    """`eval/pass_at_1`, `eval/pass_at_k`, `eval/maj_at_k`, and the sampling settings they were made with."""
    duration_s: float

    @property
    def accuracy(self) -> float | None:
        """pass@1; None when nothing could be scored."""
        return self.metrics.get("eval/pass_at_1")


async def evaluate(config: EvalConfig, prompts: Sequence[Prompt], fleet: Fleet, router: RewardRouter) -> Evaluation:
    """Samples `num_samples` completions for each prompt and scores them. Seeds depend on the question alone, so two
    evaluations differ by their weights and by nothing else.

    Errors: `StageTimeoutError` past `deadline_s`, which holds for the evaluation as a whole.
    """
    started_s = now_s()
    requests = [
        SampleRequest(prompt=prompt, attempt=1, group_size=config.num_samples, purpose="eval") for prompt in prompts
    ]
    dealt = await submit_to(fleet.samplers, requests, config.sampling)

    async def follow(index: int) -> ScoredGroup:
        sampler, request = dealt[index]
        return await router.score(await wait_group(sampler, request, config.deadline_s))

    groups = await finish_all(
        [asyncio.ensure_future(follow(i)) for i in range(len(dealt))],
        deadline_s=config.deadline_s,
        stage="eval",
        actors=[sampler.name for sampler, _ in dealt],
        item="an evaluation",
    )
    return Evaluation(groups=tuple(groups), metrics=metrics_of(config, groups), duration_s=now_s() - started_s)


def metrics_of(config: EvalConfig, groups: Sequence[ScoredGroup]) -> dict[str, float]:
    """The metrics of `cluster.metrics`, maj@k, and the settings."""
    metrics = evaluation_metrics(groups)
    # As in the other metrics: what could not be scored is not wrong, so it has no vote.
    ballots = [_ballot(scored) for scored in groups if scored.num_scored]
    votes = [maj_at_k([answer for answer, _ in ballot], [right for _, right in ballot]) for ballot in ballots]
    if votes:
        metrics[f"eval/maj_at_{config.num_samples}"] = sum(votes) / len(votes)
    return metrics | {
        "eval/temperature": config.sampling.temperature,
        "eval/top_p": config.sampling.top_p,
        "eval/top_k": float(config.sampling.top_k),
        "eval/max_tokens": float(config.sampling.max_tokens),
        "eval/num_samples": float(config.num_samples),
    }


def _ballot(scored: ScoredGroup) -> list[tuple[Hashable | None, bool]]:
    """What each scored completion votes for (its final answer, or its whole text where none can be found), and whether
    it is right."""
    ballot: list[tuple[Hashable | None, bool]] = []
    for completion, result in zip(scored.group.completions, scored.rewards, strict=True):
        if result.correct is not None:
            found = result.answer
            answer = normalize_answer(found) if found is not None else completion.text.strip() or None
            ballot.append((answer, result.correct))
    return ballot
