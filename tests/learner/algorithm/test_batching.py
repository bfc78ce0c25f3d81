import random
from dataclasses import replace

import pytest
import torch

from learner.algorithm.batching import TrainSequence, assign, collate, plan_step
from learner.config import GRPOConfig
from learner.types import TrainBatch
from reward.types import ScoredGroup
from rollout.types import FinishReason
from tests.learner.samples import scored_group, train_batch

NO_KL = GRPOConfig(kl_coef=0.0)


def sequence(length: int, index: int = 0) -> TrainSequence:
    return TrainSequence(
        group_id="g",
        sample_index=index,
        token_ids=tuple(range(1, length + 1)),
        num_prompt_tokens=1,
        rollout_logprobs=(-1.0,) * (length - 1),
        loss_mask=(True,) * (length - 1),
        advantage=1.0,
        token_weight=1.0,
    )


def batch_of(*groups: ScoredGroup) -> TrainBatch:
    return TrainBatch(step=0, policy_version=0, groups=groups)


def test_token_weights_of_a_step_add_up_to_one():
    plan = plan_step(train_batch(0), GRPOConfig())
    weights = [s.token_weight * sum(s.loss_mask) for s in plan.sequences]
    # 12 completions, one of them not scored
    assert plan.num_completions == len(plan.sequences) == 11
    assert weights == pytest.approx([1 / 11] * 11)


def test_unscored_completions_are_answered_for_and_not_trained_on():
    plan = plan_step(train_batch(0), GRPOConfig())
    unscored = [(group_id, i) for group_id, i, advantage in plan.advantages if advantage is None]
    assert len(plan.advantages) == 12
    assert unscored == [("000001-0000000000000001", 1)]
    assert ("000001-0000000000000001", 1) not in {(s.group_id, s.sample_index) for s in plan.sequences}


def test_zero_advantages_are_counted_but_computed_only_for_a_kl_term():
    rng = random.Random(0)
    groups = (scored_group(0, [1.0, 0.0], rng=rng), scored_group(1, [0.1] * 3, rng=rng))
    without_kl = plan_step(batch_of(*groups), NO_KL)
    with_kl = plan_step(batch_of(*groups), GRPOConfig(kl_coef=0.04))
    assert without_kl.num_completions == with_kl.num_completions == 5
    assert len(without_kl.sequences) == 2
    assert len(with_kl.sequences) == 5
    assert without_kl.sequences[0].token_weight == with_kl.sequences[0].token_weight


@pytest.mark.parametrize("reason", FinishReason)
def test_a_completion_that_was_given_up_is_not_trained_on(reason: FinishReason) -> None:
    group = scored_group(0, [1.0, 0.0, 1.0], rng=random.Random(0))
    completions = (replace(group.group.completions[0], finish_reason=reason), *group.group.completions[1:])
    plan = plan_step(batch_of(replace(group, group=replace(group.group, completions=completions))), NO_KL)
    trained = [0, 1, 2] if reason in (FinishReason.STOP, FinishReason.LENGTH) else [1, 2]
    assert [sequence.sample_index for sequence in plan.sequences] == trained
    assert plan.num_completions == len(trained)


@pytest.mark.parametrize("num_ranks", [1, 2, 3, 4])
@pytest.mark.parametrize("seed", range(5))
def test_every_sequence_goes_to_one_rank_and_no_micro_batch_is_over_the_budget(num_ranks, seed):
    rng = random.Random(seed)
    sequences = [sequence(rng.randrange(2, 60), i) for i in range(rng.randrange(1, 40))]
    shares = assign(sequences, num_ranks=num_ranks, micro_batch_tokens=64)
    assert len({len(share) for share in shares}) == 1
    placed = sorted(s.sample_index for share in shares for part in share for s in part)
    assert placed == list(range(len(sequences)))
    for share in shares:
        for part in share:
            assert max((len(s.token_ids) for s in part), default=0) * len(part) <= 64
    loads = [sum(len(s.token_ids) for part in share for s in part) for share in shares]
    assert max(loads) - min(loads) <= max(len(s.token_ids) for s in sequences)
    assert shares == assign(sequences, num_ranks=num_ranks, micro_batch_tokens=64)


def test_similar_lengths_stand_together():
    shares = assign([sequence(n) for n in (10, 3, 9, 4)], num_ranks=1, micro_batch_tokens=20)
    assert [[len(s.token_ids) for s in part] for part in shares[0]] == [[10, 9], [4, 3]]


def test_a_sequence_longer_than_the_budget_stands_alone():
    shares = assign([sequence(50), sequence(5), sequence(5)], num_ranks=1, micro_batch_tokens=20)
    assert [[len(s.token_ids) for s in part] for part in shares[0]] == [[50], [5, 5]]


def test_a_rank_without_work_has_an_empty_micro_batch():
    shares = assign([sequence(5)], num_ranks=2, micro_batch_tokens=20)
    assert [len(share) for share in shares] == [1, 1]
    assert shares[1] == ((),)
    empty = collate(())
    assert empty.num_tokens == 0
    assert not empty.mask_N.any()
    assert empty.token_weights_N.sum() == 0


def test_collate_lays_tokens_end_to_end():
    first = TrainSequence(
        group_id="a",
        sample_index=0,
        token_ids=(5, 6, 7, 8),
        num_prompt_tokens=2,
        rollout_logprobs=(-0.5, -0.25),
        loss_mask=(False, True),
        advantage=2.0,
        token_weight=0.5,
    )
    second = TrainSequence(
        group_id="b",
        sample_index=1,
        token_ids=(3, 4),
        num_prompt_tokens=1,
        rollout_logprobs=(-1.0,),
        loss_mask=(True,),
        advantage=-1.0,
        token_weight=0.25,
    )
    micro_batch = collate((first, second))
    assert micro_batch.input_ids_BT.tolist() == [[5, 6, 7, 8], [3, 4, 0, 0]]
    # 7 and 8 are predicted at positions 1 and 2 of row 0, 4 at position 0 of row 1: 1 * 4 + 0
    assert micro_batch.positions_N.tolist() == [1, 2, 4]
    assert micro_batch.targets_N.tolist() == [7, 8, 4]
    assert micro_batch.rollout_logprobs_N.tolist() == [-0.5, -0.25, -1.0]
    assert micro_batch.advantages_N.tolist() == [2.0, 2.0, -1.0]
    assert micro_batch.token_weights_N.tolist() == [0.0, 0.5, 0.25]
    assert micro_batch.mask_N.tolist() == [False, True, True]
    assert micro_batch.num_tokens == 6
    assert micro_batch.input_ids_BT.dtype is torch.int64
