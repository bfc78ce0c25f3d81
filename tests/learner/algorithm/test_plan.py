import random
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from learner.algorithm.assignment import assign
from learner.algorithm.plan import PlanSettings, num_padding, plan_step, shares
from learner.config import LearnerConfig
from learner.types import TrainBatch, TrainSequence
from reward.types import RewardOutcome, RewardResult, ScoredGroup, StepReward
from rollout.types import FinishReason, read_only
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


def test_a_longer_prompt_of_the_teacher_counts_for_the_budget_and_the_ranks() -> None:
    plain = [sequence(n, i) for i, n in enumerate((10, 8, 6, 4))]
    # The third is the longest for its teacher: 29 with the prompt that the teacher reads, where the policy reads 6.
    shown = [replace(s, num_teacher_prompt_tokens=n) for s, n in zip(plain, (0, 9, 28, 12), strict=True)]
    longest = [s.num_longest_tokens for s in shown]
    assert longest[0] == 10
    assert max(longest) == longest[2] > 20
    for num_ranks in (1, 2):
        shares = assign(shown, num_ranks=num_ranks, micro_batch_tokens=40)
        parts = [part for share in shares for part in share if part]
        assert all(max(s.num_longest_tokens for s in part) * len(part) <= 40 for part in parts)
        assert parts[0][0].sample_index == 2, "the longest goes first"
    by_policy = assign(plain, num_ranks=1, micro_batch_tokens=40)
    assert [[s.sample_index for s in part] for part in by_policy[0]] == [[0, 1, 2, 3]]


@pytest.mark.parametrize("num_ranks", [1, 2, 3])
def test_a_micro_batch_has_one_teacher_and_the_nth_of_every_rank_the_same(num_ranks: int) -> None:
    batch = train_batch(0)
    names = ["b", "a", "b"]
    groups = []
    for scored, name in zip(batch.groups, names, strict=True):
        group = scored.group.payload
        groups.append(scored_of(replace(group, prompt=replace(group.prompt, teacher=name)), scored.rewards))
    batch = replace(batch, groups=tuple(groups))
    settings = settings_of(kl={"coef": 0.1})
    settings = replace(settings, learner=settings.learner.model_copy(update={"micro_batch_tokens": 32}))
    plan = plan_step(batch, settings)
    dealt = shares(batch, plan, settings, num_ranks=num_ranks)
    orders = []
    for share in dealt:
        of_parts = [{sequence.teacher for sequence in part} for part in share.mini_batches[0]]
        assert all(len(of_part) <= 1 for of_part in of_parts)
        orders.append(of_parts)
    for of_ranks in zip(*orders, strict=True):  # as many on every rank, and no two teachers at once
        assert len(set().union(*of_ranks)) == 1
    assert sorted(s.key for share in dealt for s in share.sequences) == sorted(s.key for s in plan.sequences)
    first = orders[0]
    assert first.index({"a"}) < first.index({"b"})


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
    assert num_padding([[[sequence(10), sequence(6)]], [[sequence(4)], []]]) == 4
    assert num_padding([[[]]]) == 0


def settings_with(learner: Mapping[str, object], **others: Any) -> PlanSettings:
    return PlanSettings(learner=LearnerConfig.model_validate(learner), max_tokens=12, **others)


def test_a_batch_is_dealt_into_mini_batches_that_hold_every_completion_once() -> None:
    batch = train_batch(0)
    learner = {"mini_batches": 3, "updates_per_batch": 2}
    plan = plan_step(batch, settings_with(learner, seed=5))
    whole = plan_step(batch, WITH_KL)
    # 11 completions in parts of 4, 4 and 3
    assert [len(part) for part in plan.mini_batches] == [4, 4, 3]
    assert sorted(s.key for s in plan.sequences) == sorted(s.key for s in whole.sequences)
    # places over all parts, in each in the batch's order
    assert [s.index for s in plan.sequences] == list(range(11))
    places = {s.key: i for i, s in enumerate(whole.sequences)}
    for part in plan.mini_batches:
        assert [places[s.key] for s in part] == sorted(places[s.key] for s in part)
    # each part is an optimizer step of its own: its weights add up to one
    groups = groups_of(batch)
    for part in plan.mini_batches:
        masks = [groups[s.group_id].completions[s.sample_index].loss_mask for s in part]
        assert sum(s.token_weight * sum(m) for s, m in zip(part, masks, strict=True)) == pytest.approx(1.0)
    assert plan.num_completions == whole.num_completions == 11
    assert plan.num_trained_tokens == whole.num_trained_tokens


def test_mini_batches_are_shuffled_by_seed_and_step() -> None:
    learner = {"mini_batches": 3, "updates_per_batch": 4}

    def dealt(seed: int, step: int) -> tuple[object, object]:
        plan = plan_step(replace(train_batch(0), step=step), settings_with(learner, seed=seed))
        return [[s.key for s in part] for part in plan.mini_batches], plan.order

    assert dealt(0, 0) == dealt(0, 0)
    first = dealt(0, 0)
    for other in (dealt(1, 0), dealt(0, 1)):
        assert first[0] != other[0]
        assert first[1] != other[1]
    order = first[1]
    assert isinstance(order, tuple)
    # the batch is gone through four times, each time every part once, and not always in the same order
    rounds = [order[i : i + 3] for i in range(0, 12, 3)]
    assert len(order) == 12
    assert all(sorted(one) == [0, 1, 2] for one in rounds)
    assert len(set(rounds)) > 1


def test_one_mini_batch_is_the_batch_in_its_order() -> None:
    plan = plan_step(train_batch(0), settings_with({"updates_per_batch": 3}))
    assert plan.order == (0, 0, 0)
    assert [s.key for s in plan.sequences] == sorted(s.key for s in plan.sequences)
    assert [s.index for s in plan.sequences] == list(range(11))


def test_completions_that_were_cut_are_compared_and_not_trained_on_where_that_is_asked_for() -> None:
    group = scored_group(0, [1.0, 0.0, 1.0], rng=random.Random(0))
    whole = group.group.payload
    completions = (replace(whole.completions[0], finish_reason=FinishReason.LENGTH), *whole.completions[1:])
    batch = batch_of(scored_of(replace(whole, completions=completions), group.rewards))
    kept = plan_step(batch, NO_KL)
    without = plan_step(batch, settings_of(kl={"coef": 0.0}, mask_truncated=True))
    assert [s.sample_index for s in kept.sequences] == [0, 1, 2]
    assert [s.sample_index for s in without.sequences] == [1, 2]
    assert without.num_completions == 2
    assert without.advantages == kept.advantages


def test_a_completion_without_a_trained_token_counts_nowhere() -> None:
    group = scored_group(0, [1.0, 0.0], rng=random.Random(0), lengths=[3, 2])
    whole = group.group.payload
    nothing = replace(whole.completions[0], loss_mask=read_only((False,) * 3, np.bool_))
    plan = plan_step(
        batch_of(scored_of(replace(whole, completions=(nothing, whole.completions[1])), group.rewards)), NO_KL
    )
    assert [s.sample_index for s in plan.sequences] == [1]
    assert (plan.num_completions, plan.num_trained_tokens) == (1, 2)


def steps_of(*steps: tuple[int, float]) -> RewardResult:
    return RewardResult(
        outcome=RewardOutcome.OK,
        reward=1.0,
        steps=tuple(StepReward(end=end, reward=reward) for end, reward in steps),
    )


def test_process_supervision_is_planned_with_its_spans() -> None:
    # step rewards 1, 0 | 0 | none: mean 1/3, std 0.577350: 1.154701, -0.577350 | -0.577350. The first completion's sum
    # is 0.577350; a sum of 0 with spans that are not is computed all the same.
    group = scored_group(0, [0.0] * 3, rng=random.Random(0), lengths=[4, 3, 2])
    scored = scored_of(group.group.payload, [steps_of((1, 1.0), (4, 0.0)), steps_of((3, 0.0)), steps_of()])
    plan = plan_step(batch_of(scored), settings_of(advantage={"kind": "process"}, kl={"coef": 0.0}))
    first, second = plan.sequences
    assert (first.advantage, second.advantage) == pytest.approx((0.577350, -0.577350), abs=1e-6)
    assert [(s.end, round(s.advantage, 6)) for s in first.advantage_spans] == [(1, 0.57735), (4, -0.57735)]
    assert plan.advantages[group.group_id, 2] == 0.0
    assert plan.num_completions == 3
    # steps of 1 and 0, 0 and 1: both sums are 0, and the spans are not
    group = scored_group(0, [0.0] * 2, rng=random.Random(0), lengths=[4, 4])
    scored = scored_of(group.group.payload, [steps_of((1, 1.0), (4, 0.0)), steps_of((1, 0.0), (4, 1.0))])
    plan = plan_step(batch_of(scored), settings_of(advantage={"kind": "process"}, kl={"coef": 0.0}))
    assert set(plan.advantages.values()) == {0.0}
    assert len(plan.sequences) == 2


def test_components_of_the_reward_and_their_weights_reach_the_estimator() -> None:
    # y of weight 2 decides: z of x are +-0.707107, of y -+0.707107; sums -+0.707107
    group = scored_group(0, [0.0] * 2, rng=random.Random(0))
    results = [
        RewardResult(outcome=RewardOutcome.OK, reward=0.0, components={"x": x, "y": y}) for x, y in ((1, 0), (0, 1))
    ]
    batch = batch_of(scored_of(group.group.payload, results))
    settings = settings_with(
        {"objective": {"advantage": {"kind": "gdpo", "eps": 0}}}, component_weights={"x": 1, "y": 2}
    )
    assert list(plan_step(batch, settings).advantages.values()) == pytest.approx([-0.707107, 0.707107], abs=1e-6)
    assert list(plan_step(batch, replace(settings, component_weights=None)).advantages.values()) == [0.0, 0.0]


def test_lengths_reach_the_estimator_and_the_constant_the_weights() -> None:
    # (1 * 3 + 0 * 1) / 4 = 0.75 over trained tokens
    batch = batch_of(scored_group(0, [1.0, 0.0], rng=random.Random(0), lengths=[3, 1]))
    advantage = {"kind": "group", "baseline": "length_weighted", "scale": "none"}
    plan = plan_step(batch, settings_of(advantage=advantage, aggregation={"kind": "token_sum"}))
    assert list(plan.advantages.values()) == [0.25, -0.75]
    assert [s.token_weight for s in plan.sequences] == pytest.approx([1 / 24, 1 / 24])  # 2 completions of at most 12


def test_a_group_that_came_twice_and_one_without_a_comparison_are_refused() -> None:
    group = scored_group(0, [1.0, 0.0], rng=random.Random(0))
    with pytest.raises(AssertionError, match=r"^a group came twice in one batch"):
        plan_step(batch_of(group, group), NO_KL)
    with pytest.raises(ValueError, match="a group needs two scored completions to compare, got 1 of 2"):
        plan_step(batch_of(scored_group(0, [1.0, None], rng=random.Random(0))), NO_KL)


def test_ranks_are_told_of_the_whole_step_only_where_they_need_it() -> None:
    batch = train_batch(0)
    for settings in (NO_KL, WITH_KL):
        plan = plan_step(batch, settings)
        assert plan.rewards == ()
        assert {share.whole for share in shares(batch, plan, settings, num_ranks=2)} == {None}
    settings = replace(settings_of(kl={"place": "reward"}, advantage={"kind": "group", "scale": "none"}), seed=3)
    plan = plan_step(batch, settings)
    assert [group.rewards_G for group in plan.rewards] == [group.compared_rewards for group in batch.groups]
    dealt = shares(batch, plan, settings, num_ranks=2)
    facts = {group.group_id: group.group.facts for group in batch.groups}
    for share in dealt:
        assert share.whole is not None
        assert share.whole.mini_batches == plan.mini_batches
        assert share.whole.rewards == plan.rewards
        expected = [facts[s.group_id].num_trainable_tokens_G[s.sample_index] for s in plan.sequences]
        assert list(share.whole.num_trained_S) == expected
        assert (share.max_tokens, share.order, share.num_trained_tokens) == (12, (0,), plan.num_trained_tokens)
    masks = settings_of(kl={"coef": 0.0}, corrections=[{"kind": "ratio_mask"}], aggregation={"count": "kept"})
    plan = plan_step(batch, masks)
    assert plan.rewards == ()
    assert shares(batch, plan, masks, num_ranks=1)[0].whole is not None


def test_the_padding_of_a_share_is_that_of_all_ranks_and_mini_batches() -> None:
    batch = train_batch(0)
    settings = settings_with({"mini_batches": 2, "micro_batch_tokens": 40})
    plan = plan_step(batch, settings)
    dealt = shares(batch, plan, settings, num_ranks=2)
    parts = [part for share in dealt for of in share.mini_batches for part in of if part]
    computed = sum(max(s.num_tokens for s in part) * len(part) for part in parts)
    tokens = sum(s.num_tokens for s in plan.sequences)
    for share in dealt:
        assert share.num_padding == computed - tokens
        assert len(share.mini_batches) == 2


def test_the_longest_go_first_to_the_rank_with_the_fewest_tokens() -> None:
    # 9 to rank 0, 7 to rank 1, 6 to rank 1 (7 < 9), 5 to rank 0 (9 < 13), 5 to rank 1 (13 < 14)
    dealt = assign([sequence(n, i) for i, n in enumerate((5, 9, 6, 7, 5))], num_ranks=2, micro_batch_tokens=100)
    assert [[s.sample_index for part in share for s in part] for share in dealt] == [[1, 0], [3, 2, 4]]


def test_a_budget_that_is_met_exactly_is_kept() -> None:
    shares_of = assign([sequence(10), sequence(10), sequence(10)], num_ranks=1, micro_batch_tokens=20)
    assert [len(part) for part in shares_of[0]] == [2, 1]
