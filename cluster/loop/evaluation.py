"""Held-out evaluation: pass@1, pass@k and maj@k on the same questions each time."""

import asyncio
import itertools
from collections.abc import Sequence
from contextlib import suppress

from cluster.config import EvalConfig
from cluster.errors import GroupsLostError, ObjectLostError
from cluster.fleet.actors import Fleet, SamplerActor
from cluster.fleet.deadlines import RECOVERABLE, finish
from cluster.fleet.objects import open_groups
from cluster.fleet.recovery import Recovery
from cluster.groups.reward_router import RewardRouter
from cluster.groups.sampling import deal, submit, wait_group
from cluster.record.metric_list import of_one_task
from cluster.record.metrics import evaluation_metrics, maj_at_k
from cluster.types import Evaluation, now_s
from reward.types import ScoredGroup
from rollout.types import Prompt, RolloutGroup, SampleRequest

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
    started_s = now_s()
    questions = _Questions(config, router, recovery, next(_numbers))
    groups, completions = await finish(
        questions.answered(prompts, fleet),
        deadline_s=config.deadline_s,
        stage="eval",
        actor="the samplers",
        item="an evaluation",
    )
    return Evaluation(
        groups=tuple(groups),
        completions=tuple(completions),
        metrics=metrics_of(config, groups),
        duration_s=now_s() - started_s,
    )


class _Questions:
    """The questions of one evaluation, on their way."""

    def __init__(self, config: EvalConfig, router: RewardRouter, recovery: Recovery | None, number: int) -> None:
        self._config = config
        self._router = router
        self._recovery = recovery
        self._number = number
        self._attempt = 0

    async def answered(self, prompts: Sequence[Prompt], fleet: Fleet) -> tuple[list[ScoredGroup], list[RolloutGroup]]:
        """Scores and completions of every question: who fails is asked again."""
        done: dict[str, ScoredGroup] = {}
        while True:
            while missing := [prompt for prompt in prompts if prompt.group_id not in done]:
                self._attempt += 1
                recovery = self._recovery
                samplers = fleet.samplers if recovery is None else await recovery.usable(fleet.samplers)
                for part in await asyncio.gather(*(self._ask(*share) for share in deal(samplers, missing))):
                    done |= part
            groups = [done[prompt.group_id] for prompt in prompts]
            try:
                return groups, await open_groups(fleet.objects, [scored.group for scored in groups])
            except GroupsLostError as error:
                done = {group_id: scored for group_id, scored in done.items() if group_id not in error.group_ids}

    async def _ask(self, sampler: SamplerActor, share: Sequence[Prompt]) -> dict[str, ScoredGroup]:
        """Group id -> scored group of those that this sampler answered."""
        incarnation, config = sampler.incarnation, self._config
        requests = [
            SampleRequest(
                prompt=prompt,
                attempt=self._attempt,
                group_size=config.num_samples,
                purpose="eval",
                evaluation=self._number,
            )
            for prompt in share
        ]
        scored: dict[str, ScoredGroup] = {}

        async def follow(request: SampleRequest) -> None:
            group = await wait_group(sampler, request, config.deadline_s)
            with suppress(ObjectLostError):  # then it is missing, and asked for again
                scored[group.group_id] = await self._router.score(group, with_steps=False)

        try:
            await submit(sampler, requests, config.sampling)
            follows = [asyncio.ensure_future(follow(request)) for request in requests]
            try:
                await asyncio.gather(*follows)
            finally:
                for task in follows:
                    task.cancel()
        except RECOVERABLE as error:
            if self._recovery is None or getattr(error, "actor", sampler.name) != sampler.name:
                raise  # an evaluation alone, or a reward worker that its router has given up
            self._recovery.failed(sampler, incarnation, error)
        return scored


def metrics_of(config: EvalConfig, groups: Sequence[ScoredGroup]) -> dict[str, float]:
    """The metrics of `cluster.record.metrics`, maj@k, and the settings. Where there are questions of several tasks, all
    of them once more for each task, as `eval/NAME/pass_at_1`."""
    metrics = _answers(config, groups)
    tasks = dict.fromkeys(scored.group.prompt.task for scored in groups)
    for task in tasks if len(tasks) > 1 else ():
        of_task = _answers(config, [scored for scored in groups if scored.group.prompt.task == task])
        metrics |= {of_one_task(name, task): value for name, value in of_task.items()}
    return metrics | {
        "eval/temperature": config.sampling.temperature,
        "eval/top_p": config.sampling.top_p,
        "eval/top_k": float(config.sampling.top_k),
        "eval/max_tokens": float(config.sampling.max_tokens),
        "eval/num_samples": float(config.num_samples),
    }


def _answers(config: EvalConfig, groups: Sequence[ScoredGroup]) -> dict[str, float]:
    metrics = evaluation_metrics(groups)
    # As in the other metrics: what could not be scored is not wrong, so it has no vote.
    ballots = [[(r.vote, r.correct) for r in scored.rewards if r.correct is not None] for scored in groups]
    votes = [maj_at_k([vote for vote, _ in ballot], [right for _, right in ballot]) for ballot in ballots if ballot]
    if votes:
        metrics[f"eval/maj_at_{config.num_samples}"] = sum(votes) / len(votes)
    return metrics
