import random
from dataclasses import replace

import pytest

from learner.algorithm.plan import assign, padding_fraction, plan_step, shares
from learner.types import TrainBatch, TrainSequence
from reward.types import ScoredGroup
from rollout.types import FinishReason
from tests.learner.samples import groups_of, scored_group, scored_of, settings_of, train_batch

NO_KL, WITH_KL = settings_of(kl={"coef": 0.0}), settings_of()


def sequence(length: int, index: int = 0) -> TrainSequence:
    return TrainSequence(
        group_id="g",
        sample_index=index,
        num_prompt_tokens=1,
        num_completion_tokens=length - 1,
        advantage=1.0,
        token_weight=1.0,
    )


def batch_of(*groups: ScoredGroup) -> TrainBatch:
    return TrainBatch(step=0, policy_version=0, groups=groups)


def test_token_weights_of_a_step_add_up_to_one() -> None:
    batch = train_batch(0)
    plan, groups = plan_step(batch, WITH_KL), groups_of(batch)
    masks = [groups[s.group_id].completions[s.sample_index].loss_mask for s in plan.sequences]
    weights = [s.token_weight * sum(mask) for s, mask in zip(plan.sequences, masks, strict=True)]
    # 12 completions, one of them not scored
    assert plan.num_completions == len(plan.sequences) == 11
    assert weights == pytest.approx([1 / 11] * 11)


def test_unscored_completions_are_answered_for_and_not_trained_on() -> None:
    plan = plan_step(train_batch(0), WITH_KL)
    unscored = [key for key, advantage in plan.advantages.items() if advantage is None]
    assert len(plan.advantages) == 12
    assert unscored == [("000001-0000000000000001", 1)]
    assert ("000001-0000000000000001", 1) not in {s.key for s in plan.sequences}


def test_zero_advantages_are_counted_but_computed_only_for_a_kl_term() -> None:
    rng = random.Random(0)
    groups = (scored_group(0, [1.0, 0.0], rng=rng), scored_group(1, [0.1] * 3, rng=rng))
    without_kl = plan_step(batch_of(*groups), NO_KL)
    with_kl = plan_step(batch_of(*groups), WITH_KL)
    assert without_kl.num_completions == with_kl.num_completions == 5
    assert len(without_kl.sequences) == 2
    assert len(with_kl.sequences) == 5
    assert without_kl.sequences[0].token_weight == with_kl.sequences[0].token_weight


@pytest.mark.parametrize("reason", FinishReason)
def test_a_completion_that_was_given_up_is_not_trained_on(reason: FinishReason) -> None:
    group = scored_group(0, [1.0, 0.0, 1.0], rng=random.Random(0))
    whole = group.group.payload
    completions = (replace(whole.completions[0], finish_reason=reason), *whole.completions[1:])
    plan = plan_step(batch_of(scored_of(replace(whole, completions=completions), group.rewards)), NO_KL)
    trained = [0, 1, 2] if reason in (FinishReason.STOP, FinishReason.LENGTH) else [1, 2]
    assert [sequence.sample_index for sequence in plan.sequences] == trained
    assert plan.num_completions == len(trained)


@pytest.mark.parametrize("num_ranks", [1, 2, 3, 4])
@pytest.mark.parametrize("seed", range(5))
def test_every_sequence_goes_to_one_rank_and_no_micro_batch_is_over_the_budget(num_ranks: int, seed: int) -> None:
    rng = random.Random(seed)
    sequences = [sequence(rng.randrange(2, 60), i) for i in range(rng.randrange(1, 40))]
    shares = assign(sequences, num_ranks=num_ranks, micro_batch_tokens=64)
    assert len({len(share) for share in shares}) == 1
    placed = sorted(s.sample_index for share in shares for part in share for s in part)
    assert placed == list(range(len(sequences)))
    for share in shares:
        for part in share:
            assert max((s.num_tokens for s in part), default=0) * len(part) <= 64
    loads = [sum(s.num_tokens for part in share for s in part) for share in shares]
    assert max(loads) - min(loads) <= max(s.num_tokens for s in sequences)
    assert shares == assign(sequences, num_ranks=num_ranks, micro_batch_tokens=64)


def test_similar_lengths_stand_together() -> None:
    shares = assign([sequence(n) for n in (10, 3, 9, 4)], num_ranks=1, micro_batch_tokens=20)
    assert [[s.num_tokens for s in part] for part in shares[0]] == [[10, 9], [4, 3]]


def test_a_sequence_longer_than_the_budget_stands_alone() -> None:
    shares = assign([sequence(50), sequence(5), sequence(5)], num_ranks=1, micro_batch_tokens=20)
    assert [[s.num_tokens for s in part] for part in shares[0]] == [[50], [5, 5]]


def test_a_rank_without_work_has_an_empty_micro_batch() -> None:
    shares = assign([sequence(5)], num_ranks=2, micro_batch_tokens=20)
    assert [len(share) for share in shares] == [1, 1]
    assert shares[1] == ((),)


@pytest.mark.parametrize("num_ranks", [1, 2, 5])
def test_a_share_names_the_groups_that_its_rank_needs_and_no_others(num_ranks: int) -> None:
    batch = train_batch(0)
    settings = replace(NO_KL, learner=NO_KL.learner.model_copy(update={"micro_batch_tokens": 16}))
    plan = plan_step(batch, settings)
    dealt = shares(batch, plan, settings, num_ranks=num_ranks)
    assert {s.key for share in dealt for s in share.sequences} == {s.key for s in plan.sequences}
    for share in dealt:
        assert set(share.group_ids) == {s.group_id for s in share.sequences}
        assert (share.step, share.policy_version, share.num_completions) == (0, 0, plan.num_completions)
        assert share.num_sequences == len(plan.sequences)
        assert share.num_sequence_tokens == sum(s.num_tokens for s in plan.sequences)


def test_what_is_trained_and_what_is_computed_are_counted_apart() -> None:
    """A prompt that is solved has nothing to compute; its tokens are in the denominator all the same."""
    rng = random.Random(0)
    batch = batch_of(
        scored_group(0, [1.0, 0.0], rng=rng, lengths=[3, 4]), scored_group(1, [1.0] * 3, rng=rng, lengths=[5, 6, 7])
    )
    without_kl, with_kl = plan_step(batch, NO_KL), plan_step(batch, WITH_KL)
    assert without_kl.num_trained_tokens == with_kl.num_trained_tokens == 3 + 4 + 5 + 6 + 7
    assert sum(s.num_completion_tokens for s in without_kl.sequences) == 3 + 4
    assert sum(s.num_completion_tokens for s in with_kl.sequences) == 25


def test_padding_is_what_no_token_stands_at() -> None:
    assert padding_fraction([[[sequence(10), sequence(6)]], [[sequence(4)], []]]) == pytest.approx(4 / 24)
    assert padding_fraction([[[]]]) == 0.0
