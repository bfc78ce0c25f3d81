"""Scored groups -> what each rank computes in a training step. Pure, and from facts alone: no token is looked at.

    TrainBatch --plan_step--> StepPlan --shares--> RankShare of each rank

Layout: groups in one row with their prompt once, or sequences of similar length padded on the right (`batching`).
"""

import random
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

from learner.algorithm.advantages import check_comparable, estimator_of
from learner.algorithm.aggregation import denominator_of, token_weights
from learner.algorithm.assignment import Dealt, assign
from learner.algorithm.process import process_advantages
from learner.config import LearnerConfig
from learner.objective import ObjectiveConfig, ProcessAdvantage
from learner.types import (
    AdvantageSpan,
    CompletionKey,
    GroupAdvantages,
    GroupRewards,
    RankShare,
    StepPlan,
    TrainBatch,
    TrainSequence,
    WholeStep,
)
from reward.types import ScoredGroup
from rollout.types import FinishReason


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanSettings:
    """What a plan depends on beside the batch; the same for a whole run."""

    learner: LearnerConfig
    max_tokens: int
    """Longest completion that is sampled."""
    seed: int = 0
    """Of the run: shuffles mini-batches."""
    component_weights: Mapping[str, float] | None = None
    """Weight of each component of the reward."""
    packed: bool = False
    """Whether sequences share rows, and a prompt: what the model allows and the configuration wants."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Trained:
    """A completion that is trained on."""

    group: ScoredGroup
    sample_index: int
    advantage: float
    spans: tuple[AdvantageSpan, ...]

    @property
    def num_trained_tokens(self) -> int:
        return self.group.group.facts.num_trainable_tokens_G[self.sample_index]


def plan_step(batch: TrainBatch, settings: PlanSettings) -> StepPlan:
    """Advantages, weights and the sequences to compute.

    Trained on: completions that were scored, were not given up, and have a token with `loss_mask`. Of these, one whose
    advantage is exactly zero has no gradient unless the objective says so: it is counted in the denominators, and
    computed only where the diagnostics are to be over all.

    Errors: `ValueError` for a group with fewer than two scored completions; `LearnerError` for rewards that the
    estimator has no advantages for.
    """
    objective = settings.learner.objective
    rewards = [_rewards_of(group, objective) for group in batch.groups]
    assert len({group.group_id for group in rewards}) == len(rewards), "a group came twice in one batch"
    for group in rewards:
        check_comparable(group)
    advantages, spans = _advantages(batch, rewards, settings)
    trained = [
        _Trained(group=group, sample_index=i, advantage=advantage, spans=spans.get((group.group_id, i), ()))
        for group, of in zip(batch.groups, advantages, strict=True)
        for i, advantage in enumerate(of)
        if advantage is not None and _is_trained(group, i, objective)
    ]
    parts = _mini_batches(trained, settings, batch.step)
    split = [_sequences(part, settings) for part in parts]
    is_over_all = settings.learner.diagnostics == "all"
    return StepPlan(
        mini_batches=_numbered([with_gradient for with_gradient, _ in split]),
        without_gradient=tuple(tuple(rest) for _, rest in split) if is_over_all else (),
        order=_order(len(parts), settings, batch.step),
        denominator=denominator_of(
            [one.num_trained_tokens for one in trained], [one.group.group_id for one in trained], objective.aggregation
        )
        if settings.learner.streaming
        else 1,
        advantages={
            (group.group_id, i): advantage
            for group, of in zip(rewards, advantages, strict=True)
            for i, advantage in enumerate(of)
        },
        num_completions=len(trained),
        num_trained_tokens=sum(one.num_trained_tokens for one in trained),
        rewards=tuple(rewards) if objective.rewards_hold_kl else (),
    )


def shares(
    batch: TrainBatch, plan: StepPlan, settings: PlanSettings, *, num_ranks: int, accumulated: Collection[str] = ()
) -> tuple[RankShare, ...]:
    """[rank] the plan, dealt out. `accumulated`: ids of groups whose gradients the ranks have added up already; what
    is dealt out is the rest."""
    config = settings.learner

    def rest(parts: Sequence[Sequence[TrainSequence]]) -> list[list[TrainSequence]]:
        return [[sequence for sequence in part if sequence.group_id not in accumulated] for part in parts]

    dealt = [_dealt(part, settings, num_ranks) for part in rest(plan.mini_batches)]
    if plan.sequences and all(sequence.group_id in accumulated for sequence in plan.sequences):
        dealt = [((),) * num_ranks]  # a gradient is there, so no pass is needed for there to be one
    # A mini-batch without any has no pass on any rank.
    forward_only = [
        _dealt(part, settings, num_ranks) if part else ((),) * num_ranks for part in rest(plan.without_gradient)
    ]
    computed = plan.computed
    whole = _whole(batch, plan) if config.objective.needs_whole_step else None
    of_ranks = [of_rank for part in (*dealt, *forward_only) for of_rank in part]
    return tuple(
        RankShare(
            step=batch.step,
            policy_version=batch.policy_version,
            mini_batches=tuple(part[rank] for part in dealt),
            order=plan.order,
            denominator=plan.denominator,
            num_completions=plan.num_completions,
            num_trained_tokens=plan.num_trained_tokens,
            num_sequences=len(computed),
            num_sequence_tokens=sum(sequence.num_tokens for sequence in computed),
            num_padding=0 if settings.packed else num_padding(of_ranks),
            packed=settings.packed,
            max_tokens=settings.max_tokens,
            without_gradient=tuple(part[rank] for part in forward_only),
            whole=whole,
        )
        for rank in range(num_ranks)
    )


def _dealt(part: Sequence[TrainSequence], settings: PlanSettings, num_ranks: int) -> Dealt:
    """[rank][micro-batch][sequence] of a mini-batch. A micro-batch has one teacher, the n-th of every rank the same."""
    of_teachers: dict[str, list[TrainSequence]] = {}
    for sequence in part:
        of_teachers.setdefault(sequence.teacher, []).append(sequence)
    assigned = [
        assign(
            of_one,
            num_ranks=num_ranks,
            micro_batch_tokens=settings.learner.micro_batch_tokens,
            packed=settings.packed,
        )
        for _, of_one in sorted(of_teachers.items())
    ]
    if not assigned:
        return (((),),) * num_ranks
    return tuple(tuple(micro for of_one in assigned for micro in of_one[rank]) for rank in range(num_ranks))


def num_padding(dealt: Sequence[Sequence[Sequence[TrainSequence]]]) -> int:
    """Computed positions that hold no token, over all ranks, where each sequence has a row."""
    lengths = [[sequence.num_tokens for sequence in part] for share in dealt for part in share if part]
    return sum(max(part) * len(part) - sum(part) for part in lengths)


def _rewards_of(group: ScoredGroup, objective: ObjectiveConfig) -> GroupRewards:
    counts = enumerate(group.group.facts.num_trainable_tokens_G)
    return GroupRewards(
        group_id=group.group_id,
        rewards_G=group.compared_rewards,
        num_tokens_G=tuple(n if _is_trained(group, i, objective) else 0 for i, n in counts),
        components_G=tuple(result.components for result in group.rewards),
    )


def _advantages(
    batch: TrainBatch, rewards: Sequence[GroupRewards], settings: PlanSettings
) -> tuple[Sequence[GroupAdvantages], Mapping[CompletionKey, tuple[AdvantageSpan, ...]]]:
    """Of each completion, and the spans of those whose advantage is not the same everywhere."""
    config, teacher = settings.learner.objective.advantage, settings.learner.teacher
    if teacher is not None and teacher.alone:
        return [group.filled([0.0] * len(group.scored)) for group in rewards], {}
    if isinstance(config, ProcessAdvantage):
        return process_advantages(batch.groups, config)
    weights = settings.component_weights or {}
    return estimator_of(config, weights)(rewards), {}


def _is_trained(group: ScoredGroup, index: int, objective: ObjectiveConfig) -> bool:
    facts = group.group.facts
    reason = facts.finish_reasons_G[index]
    is_cut_off = objective.mask_truncated and reason is FinishReason.LENGTH
    return reason.is_trainable and not is_cut_off and facts.num_trainable_tokens_G[index] > 0


def _mini_batches(trained: list[_Trained], settings: PlanSettings, step: int) -> list[list[_Trained]]:
    """The completions of a step in parts of equal size, to one completion; at random, the same for the same seed. Of
    fewer completions than parts each is one: there is no update on nothing."""
    num_parts = settings.learner.mini_batches
    if num_parts == 1:
        return [trained]
    # Completions one by one; where a loss is a mean over prompts, a prompt's stay together: of one that is torn apart
    # each part would weigh as much as a whole one.
    of_prompts = settings.learner.objective.aggregation.kind == "prompt_mean"
    if of_prompts:
        whole: dict[str, list[_Trained]] = {}
        for one in trained:
            whole.setdefault(one.group.group_id, []).append(one)
        units = list(whole.values())
    else:
        units = [[one] for one in trained]
    places = list(range(len(units)))
    random.Random(f"mini-batches {settings.seed} {step}").shuffle(places)
    num_parts = max(1, min(num_parts, len(units)))
    return [[one for i in sorted(places[part::num_parts]) for one in units[i]] for part in range(num_parts)]


def _order(num_parts: int, settings: PlanSettings, step: int) -> tuple[int, ...]:
    """The mini-batches, in another order each time that the batch is gone through."""
    rng = random.Random(f"order {settings.seed} {step}")
    order: list[int] = []
    for _ in range(settings.learner.updates_per_batch):
        parts = list(range(num_parts))
        rng.shuffle(parts)
        order.extend(parts)
    return tuple(order)


def _sequences(part: Sequence[_Trained], settings: PlanSettings) -> tuple[list[TrainSequence], list[TrainSequence]]:
    """Of one mini-batch, whose completions all count in its denominators: those with a gradient, and the others."""
    objective = settings.learner.objective
    weights = token_weights(
        [one.num_trained_tokens for one in part],
        [one.group.group_id for one in part],
        objective.aggregation,
        max_tokens=settings.max_tokens,
        denominator=1 if settings.learner.streaming else None,
    )
    with_gradient: list[TrainSequence] = []
    without: list[TrainSequence] = []
    for one, weight in zip(part, weights, strict=True):
        counts = one.advantage != 0.0 or any(span.advantage for span in one.spans) or settings.learner.computes_all
        (with_gradient if counts else without).append(_sequence(one, weight))
    return with_gradient, without


def _sequence(one: _Trained, token_weight: float) -> TrainSequence:
    facts, prompt = one.group.group.facts, one.group.group.prompt
    num_prompt_tokens = len(prompt.token_ids)
    assert num_prompt_tokens, f"group {one.group.group_id} has an empty prompt"
    return TrainSequence(
        group_id=one.group.group_id,
        sample_index=one.sample_index,
        num_prompt_tokens=num_prompt_tokens,
        num_completion_tokens=facts.num_tokens_G[one.sample_index],
        advantage=one.advantage,
        token_weight=token_weight,
        advantage_spans=one.spans,
        num_teacher_prompt_tokens=len(prompt.teacher_token_ids),
        teacher=prompt.teacher,
    )


def _numbered(parts: Sequence[Sequence[TrainSequence]]) -> tuple[tuple[TrainSequence, ...], ...]:
    """With their places in the step."""
    numbered, start = [], 0
    for part in parts:
        numbered.append(tuple(replace(sequence, index=i) for i, sequence in enumerate(part, start)))
        start += len(part)
    return tuple(numbered)


def _whole(batch: TrainBatch, plan: StepPlan) -> WholeStep:
    facts = {group.group_id: group.group.facts for group in batch.groups}
    return WholeStep(
        mini_batches=plan.mini_batches,
        rewards=plan.rewards,
        num_trained_S=tuple(facts[s.group_id].num_trainable_tokens_G[s.sample_index] for s in plan.sequences),
    )
