"""How a batch is cut into mini-batches, and what is planned for completions without a gradient."""

import random
from collections import Counter
from dataclasses import replace
from typing import Any

import pytest

from learner.algorithm.plan import PlanSettings, plan_step, shares
from learner.config import LearnerConfig
from learner.types import TrainBatch
from tests.learner.samples import scored_group, train_batch


def settings_of(*, seed: int = 0, **learner: Any) -> PlanSettings:
    return PlanSettings(learner=LearnerConfig.model_validate(learner), max_tokens=12, seed=seed)


@pytest.mark.parametrize("num_parts", [1, 2, 3, 4, 11, 20])
def test_mini_batches_hold_every_completion_once_and_differ_by_at_most_one(num_parts: int) -> None:
    """11 completions are trained on; of more parts than that none is empty."""
    plan = plan_step(train_batch(0), settings_of(mini_batches=num_parts))
    sizes = [len(part) for part in plan.mini_batches]
    assert len(sizes) == min(num_parts, 11)
    assert sum(sizes) == 11
    assert max(sizes) - min(sizes) <= 1
    assert [sequence.index for sequence in plan.sequences] == list(range(11))
    whole = plan_step(train_batch(0), settings_of())
    assert sorted(sequence.key for sequence in plan.sequences) == sorted(s.key for s in whole.sequences)


def test_each_pass_takes_all_mini_batches_in_an_order_of_its_own() -> None:
    plan = plan_step(train_batch(0), settings_of(mini_batches=4, updates_per_batch=3))
    passes = [plan.order[i : i + 4] for i in (0, 4, 8)]
    assert all(sorted(of) == [0, 1, 2, 3] for of in passes)
    assert len(set(passes)) > 1


def test_mini_batches_follow_from_seed_and_step_alone() -> None:
    def drawn(step: int, seed: int) -> Any:
        batch = replace(train_batch(0), step=step)
        plan = plan_step(batch, settings_of(seed=seed, mini_batches=3, updates_per_batch=4))
        return [[sequence.key for sequence in part] for part in plan.mini_batches], plan.order

    assert drawn(5, 1) == drawn(5, 1)
    parts, orders = zip(*(drawn(step, seed) for step in range(4) for seed in range(4)), strict=True)
    assert Counter(map(str, parts)).most_common(1)[0][1] == 1
    assert len(set(orders)) > 12


def test_one_mini_batch_is_in_the_order_of_the_batch() -> None:
    plan = plan_step(train_batch(0), settings_of())
    assert [s.key for s in plan.sequences] == sorted(s.key for s in plan.sequences)
    assert plan.order == (0,)


def test_weights_of_each_mini_batch_have_its_own_denominator() -> None:
    batch = train_batch(0)
    plan = plan_step(batch, settings_of(mini_batches=2, objective={"aggregation": {"kind": "token_mean"}}))
    trained = {(g.group_id, i): n for g in batch.groups for i, n in enumerate(g.group.facts.num_trainable_tokens_G)}
    for part in plan.mini_batches:
        assert sum(sequence.token_weight * trained[sequence.key] for sequence in part) == pytest.approx(1.0)


def solved_and_open() -> TrainBatch:
    rng = random.Random(0)
    groups = (scored_group(0, [1.0, 0.0], rng=rng), scored_group(1, [1.0] * 3, rng=rng))
    return TrainBatch(step=0, policy_version=0, groups=groups)


@pytest.mark.parametrize("num_ranks", [1, 2, 3])
@pytest.mark.parametrize("mini_batches", [1, 2, 5])
def test_completions_without_a_gradient_are_dealt_for_the_figures_alone(num_ranks: int, mini_batches: int) -> None:
    fields: dict[str, Any] = {
        "objective": {"kl": {"coef": 0.0}},
        "mini_batches": mini_batches,
        "micro_batch_tokens": 16,
    }
    batch = solved_and_open()
    few, every = settings_of(**fields), settings_of(**fields, diagnostics="all")
    plan, over_all = plan_step(batch, few), plan_step(batch, every)
    assert over_all.mini_batches == plan.mini_batches
    assert not plan.without_gradient
    assert {s.group_id for part in over_all.without_gradient for s in part} == {batch.groups[1].group_id}
    assert len(over_all.computed) == 5
    dealt = shares(batch, over_all, every, num_ranks=num_ranks)
    assert sorted(s.key for share in dealt for s in share.sequences) == sorted(s.key for s in over_all.computed)
    shapes = {tuple(len(part) for part in share.without_gradient) for share in dealt}
    assert len(shapes) == 1, "ranks meet in the passes of ZeRO-3"
    assert len(dealt[0].without_gradient) == len(over_all.mini_batches)
    assert all(share.num_sequences == 5 for share in dealt)
    assert dealt[0].num_sequence_tokens == sum(s.num_tokens for s in over_all.computed)


def test_an_objective_that_computes_all_has_nothing_more_to_look_at() -> None:
    plan = plan_step(solved_and_open(), settings_of(diagnostics="all"))
    assert plan.without_gradient == ((),)
    assert len(plan.sequences) == 5
