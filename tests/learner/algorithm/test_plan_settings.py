"""What of a plan follows from settings: its layout, mini-batches of prompts, a teacher alone, lengths."""

import random
from dataclasses import replace

import pytest

from learner.algorithm.assignment import assign
from learner.algorithm.plan import plan_step, shares
from rollout.types import FinishReason
from tests.learner.algorithm.test_plan import NO_KL, batch_of, settings_with
from tests.learner.samples import scored_group, scored_of, settings_of, train_batch


def test_a_packed_share_says_so_and_has_no_padding() -> None:
    batch = train_batch(0)
    settings = replace(settings_with({"micro_batch_tokens": 60}), packed=True)
    for num_ranks in (1, 2):
        dealt = shares(batch, plan_step(batch, settings), settings, num_ranks=num_ranks)
        assert all(share.packed and share.num_padding == 0 for share in dealt)
        assert not any(share.packed for share in shares(batch, plan_step(batch, settings), NO_KL, num_ranks=num_ranks))
    # Whole groups, as the layout wants it: the prompt of one that fits stands in one micro-batch.
    plan = plan_step(batch, settings)
    expected = assign(plan.sequences, num_ranks=1, micro_batch_tokens=60, packed=True)
    assert expected != assign(plan.sequences, num_ranks=1, micro_batch_tokens=60)
    assert shares(batch, plan, settings, num_ranks=1)[0].mini_batches == expected


def test_a_mini_batch_whose_completions_all_have_a_gradient_has_no_pass_without_one() -> None:
    settings = settings_with({"diagnostics": "all"})
    batch = batch_of(scored_group(0, [1.0, 0.0], rng=random.Random(0)))
    (share,) = shares(batch, plan_step(batch, settings), settings, num_ranks=1)
    assert share.without_gradient == ((),)


def test_a_prompt_stays_in_one_mini_batch_where_the_loss_is_a_mean_over_prompts() -> None:
    batch = train_batch(0, num_groups=4)
    for kind, are_whole in (("prompt_mean", True), ("sequence_mean", False)):
        objective = {"aggregation": {"kind": kind}}
        plan = plan_step(batch, settings_with({"mini_batches": 2, "objective": objective}))
        of_parts = [{sequence.group_id for sequence in part} for part in plan.mini_batches]
        assert len(of_parts) == 2
        assert of_parts[0].isdisjoint(of_parts[1]) == are_whole
        assert of_parts[0] | of_parts[1] == {group.group_id for group in batch.groups}


def test_a_single_prompt_is_a_single_mini_batch() -> None:
    batch = batch_of(scored_group(0, [1.0, 0.0], rng=random.Random(0)))
    settings = settings_with({"mini_batches": 2, "objective": {"aggregation": {"kind": "prompt_mean"}}})
    assert [len(part) for part in plan_step(batch, settings).mini_batches] == [2]


def test_what_a_teacher_alone_judges_has_no_advantages() -> None:
    batch = batch_of(scored_group(0, [1.0, 0.0, None], rng=random.Random(0)))
    group_id = batch.groups[0].group_id
    plan = plan_step(batch, settings_with({"teacher": {"path": "a", "alone": True}}))
    assert plan.advantages == {(group_id, 0): 0.0, (group_id, 1): 0.0, (group_id, 2): None}


def test_a_completion_that_is_not_trained_on_has_no_tokens_for_the_estimator() -> None:
    group = scored_group(0, [1.0, 0.0, 1.0], rng=random.Random(0), lengths=[3, 4, 5])
    whole = group.group.payload
    completions = (replace(whole.completions[0], finish_reason=FinishReason.LENGTH), *whole.completions[1:])
    batch = batch_of(scored_of(replace(whole, completions=completions), group.rewards))
    by_length = {"kind": "group", "baseline": "length_weighted", "scale": "none"}
    for masked, baseline in ((False, 8 / 12), (True, 5 / 9)):
        plan = plan_step(batch, settings_of(advantage=by_length, mask_truncated=masked))
        assert list(plan.advantages.values()) == pytest.approx([1 - baseline, -baseline, 1 - baseline])
