"""Scored groups -> what each rank computes in a training step. Pure, and from facts alone: no token is looked at.

    TrainBatch --plan_step--> StepPlan --shares--> RankShare of each rank

Layout: sequences of similar length together, padded on the right (`batching`).
"""

from collections.abc import Sequence
from heapq import heapify, heapreplace

from learner.algorithm.advantages import group_advantages
from learner.config import GRPOConfig
from learner.types import CompletionKey, RankShare, StepPlan, TrainBatch, TrainSequence
from reward.types import ScoredGroup


def plan_step(batch: TrainBatch, grpo: GRPOConfig) -> StepPlan:
    """Advantages, weights and the sequences to compute.

    Trained on: completions that were scored, were not given up, and have a token with `loss_mask`. Of these, one whose
    advantage is exactly zero has no gradient when there is no KL term: it is counted in the denominator and not
    computed.
    """
    advantages: dict[CompletionKey, float | None] = {}
    trained: list[tuple[ScoredGroup, int, float]] = []
    for group in batch.groups:
        facts = group.group.facts
        for i, advantage in enumerate(_advantages_of(group, grpo)):
            assert (group.group_id, i) not in advantages, "a group came twice in one batch"
            advantages[group.group_id, i] = advantage
            is_trainable = facts.finish_reasons_G[i].is_trainable and facts.num_trainable_tokens_G[i] > 0
            if advantage is not None and is_trainable:
                trained.append((group, i, advantage))
    return StepPlan(
        sequences=tuple(
            _sequence(group, i, advantage, num_completions=len(trained))
            for group, i, advantage in trained
            if advantage != 0.0 or grpo.kl_coef > 0
        ),
        advantages=advantages,
        num_completions=len(trained),
        num_trained_tokens=sum(group.group.facts.num_trainable_tokens_G[i] for group, i, _ in trained),
    )


def shares(batch: TrainBatch, plan: StepPlan, *, num_ranks: int, micro_batch_tokens: int) -> tuple[RankShare, ...]:
    """[rank] the plan, dealt out."""
    dealt = assign(plan.sequences, num_ranks=num_ranks, micro_batch_tokens=micro_batch_tokens)
    return tuple(
        RankShare(
            step=batch.step,
            policy_version=batch.policy_version,
            micro_batches=micro_batches,
            num_completions=plan.num_completions,
            num_trained_tokens=plan.num_trained_tokens,
            num_sequences=len(plan.sequences),
            num_sequence_tokens=sum(sequence.num_tokens for sequence in plan.sequences),
            padding_fraction=padding_fraction(dealt),
        )
        for micro_batches in dealt
    )


def assign(
    sequences: Sequence[TrainSequence], *, num_ranks: int, micro_batch_tokens: int
) -> tuple[tuple[tuple[TrainSequence, ...], ...], ...]:
    """[rank][micro-batch][sequence].

    Longest first, each to the rank with the fewest tokens so far (the lowest such rank): the loads then differ by
    at most one sequence. Every rank has the same number of micro-batches, since ZeRO communicates in each backward
    pass; the ones added for that are empty.
    """
    lengths = [sequence.num_tokens for sequence in sequences]
    by_length = sorted(range(len(sequences)), key=lambda i: (-lengths[i], i))
    dealt: list[list[int]] = [[] for _ in range(num_ranks)]
    loads = [(0, rank) for rank in range(num_ranks)]
    heapify(loads)
    for i in by_length:
        load, rank = loads[0]
        dealt[rank].append(i)
        heapreplace(loads, (load + lengths[i], rank))
    cuts = [_cut([lengths[i] for i in share], micro_batch_tokens) for share in dealt]
    num_micro_batches = max(1, *(len(cut) for cut in cuts))
    return tuple(
        tuple(tuple(sequences[share[j]] for j in part) for part in cut) + ((),) * (num_micro_batches - len(cut))
        for share, cut in zip(dealt, cuts, strict=True)
    )


def completion_token_weight(num_trained_tokens: int, num_completions: int) -> float:
    """Weight of each trained token of one completion: 1 / (L_i * N).

    N (`num_completions`) counts the completions of the *whole* optimizer step with at least one trained token, over
    all groups, ranks and micro-batches.
    """
    assert num_trained_tokens > 0, "a completion without trained tokens has no weight"
    assert num_completions > 0
    return 1.0 / (num_trained_tokens * num_completions)


def padding_fraction(dealt: Sequence[Sequence[Sequence[TrainSequence]]]) -> float:
    """Computed positions that hold no token, over all ranks."""
    lengths = [[sequence.num_tokens for sequence in part] for share in dealt for part in share if part]
    computed = sum(max(part) * len(part) for part in lengths)
    return 1.0 - sum(map(sum, lengths)) / computed if computed else 0.0


def _advantages_of(group: ScoredGroup, grpo: GRPOConfig) -> tuple[float | None, ...]:
    compared = group.compared_rewards
    rewards_G = [0.0 if reward is None else reward for reward in compared]
    return group_advantages(rewards_G, [reward is not None for reward in compared], use_std=grpo.advantage_std)


def _sequence(group: ScoredGroup, sample_index: int, advantage: float, *, num_completions: int) -> TrainSequence:
    facts, num_prompt_tokens = group.group.facts, len(group.group.prompt.token_ids)
    assert num_prompt_tokens, f"group {group.group_id} has an empty prompt"
    return TrainSequence(
        group_id=group.group_id,
        sample_index=sample_index,
        num_prompt_tokens=num_prompt_tokens,
        num_completion_tokens=facts.num_tokens_G[sample_index],
        advantage=advantage,
        token_weight=completion_token_weight(facts.num_trainable_tokens_G[sample_index], num_completions),
    )


def _cut(lengths: Sequence[int], micro_batch_tokens: int) -> list[range]:
    """Cuts falling lengths into runs of at most `micro_batch_tokens` with padding; a longer sequence stands alone."""
    runs: list[range] = []
    start = 0
    for end in range(1, len(lengths) + 1):
        is_full = end == len(lengths) or lengths[start] * (end + 1 - start) > micro_batch_tokens
        if is_full:
            runs.append(range(start, end))
            start = end
    return runs
