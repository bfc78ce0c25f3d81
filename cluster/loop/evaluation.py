"""Held-out evaluation: pass@1, pass@k and maj@k on the same questions each time."""

import asyncio
import itertools
from collections.abc import Hashable, Sequence

from cluster.config import EvalConfig
from cluster.fleet.actors import Fleet, SamplerActor
from cluster.fleet.deadlines import RECOVERABLE, finish
from cluster.fleet.recovery import Recovery
from cluster.groups.reward_router import RewardRouter
from cluster.groups.sampling import deal, submit, wait_group
from cluster.record.metrics import evaluation_metrics, maj_at_k
from cluster.types import Evaluation, now_s
from reward.math.normalization import normalize_answer
from reward.types import ScoredGroup
from rollout.types import Prompt, SampleRequest

_numbers = itertools.count(1)
"""Of the evaluations of this process, and so of a run: a sampler may still have leases of one that was given up."""


async def evaluate(
    config: EvalConfig,
    prompts: Sequence[Prompt],
    fleet: Fleet,
    router: RewardRouter,
    recovery: Recovery | None = None,
) -> Evaluation:
    """Samples `num_samples` completions for each prompt and scores them. Seeds depend on the question alone, so two
    evaluations differ by their weights and by nothing else. Questions whose sampler fails are sampled again; without a
    `recovery` (an evaluation alone) that is an error.

    Errors: `StageTimeoutError` past `deadline_s`, which holds for the evaluation as a whole.
    """
    started_s, evaluation = now_s(), next(_numbers)

    async def sample(number: int, sampler: SamplerActor, share: Sequence[Prompt]) -> dict[str, ScoredGroup]:
        """Group id -> scored group of those that this sampler answered."""
        incarnation = sampler.incarnation
        requests = [
            SampleRequest(
                prompt=prompt, attempt=number, group_size=config.num_samples, purpose="eval", evaluation=evaluation
            )
            for prompt in share
        ]
        scored: dict[str, ScoredGroup] = {}

        async def follow(request: SampleRequest) -> None:
            group = await wait_group(sampler, request, config.deadline_s)
            scored[group.group_id] = await router.score(group)

        try:
            await submit(sampler, requests, config.sampling)
            follows = [asyncio.ensure_future(follow(request)) for request in requests]
            try:
                await asyncio.gather(*follows)
            finally:
                for task in follows:
                    task.cancel()
        except RECOVERABLE as error:
            if recovery is None or getattr(error, "actor", sampler.name) != sampler.name:
                raise  # an evaluation alone, or a reward worker that its router has given up
            recovery.failed(sampler, incarnation, error)
        return scored

    async def sample_all() -> list[ScoredGroup]:
        done: dict[str, ScoredGroup] = {}
        number = 0
        while missing := [prompt for prompt in prompts if prompt.group_id not in done]:
            number += 1
            samplers = fleet.samplers if recovery is None else await recovery.usable(fleet.samplers)
            for part in await asyncio.gather(*(sample(number, *share) for share in deal(samplers, missing))):
                done |= part
        return [done[prompt.group_id] for prompt in prompts]

    groups = await finish(
        sample_all(), deadline_s=config.deadline_s, stage="eval", actor="the samplers", item="an evaluation"
    )
    return Evaluation(groups=tuple(groups), metrics=metrics_of(config, groups), duration_s=now_s() - started_s)


def metrics_of(config: EvalConfig, groups: Sequence[ScoredGroup]) -> dict[str, float]:
    """The metrics of `cluster.record.metrics`, maj@k, and the settings."""
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
