"""Process supervision by hand (DeepSeekMath, section 4.1.3)."""

import random

import numpy as np
import pytest

from learner.algorithm.plan import plan_step
from learner.algorithm.process import process_advantages
from learner.objective import ProcessAdvantage
from learner.types import AdvantageSpan, TrainBatch
from reward.types import RewardOutcome, RewardResult, ScoredGroup, StepReward
from tests.learner.samples import collated, scored_group, scored_of, settings_of

Steps = list[tuple[int, float]]
"""(end, reward) of each step."""


def group_of(*completions: Steps | None, lengths: list[int]) -> ScoredGroup:
    """Completions with these steps; None for one that was not scored."""
    group = scored_group(0, [0.0] * len(completions), rng=random.Random(0), lengths=lengths).group.payload
    results = [
        RewardResult(outcome=RewardOutcome.ERROR, reward=None)
        if steps is None
        else RewardResult(
            outcome=RewardOutcome.OK,
            reward=sum(reward for _, reward in steps),
            steps=tuple(StepReward(end=end, reward=reward) for end, reward in steps),
        )
        for steps in completions
    ]
    return scored_of(group, results)


def spans(*parts: tuple[int, float]) -> tuple[AdvantageSpan, ...]:
    return tuple(AdvantageSpan(end=end, advantage=advantage) for end, advantage in parts)


def approx(found: tuple[AdvantageSpan, ...]) -> list[tuple[int, float]]:
    return [(span.end, pytest.approx(span.advantage, abs=1e-9)) for span in found]  # type: ignore[misc]


def test_a_token_has_the_steps_that_end_at_it_or_after_it() -> None:
    # step rewards of the group 1, 0, 3 | 0: mean 1, squares 0 + 1 + 4 + 1 = 6, / 3 = 2, std 1.414214.
    # normalised 0, -0.707107, 1.414214 | -0.707107. Sums from the end: 1.414214 - 0.707107 + 0, then without the first.
    group = group_of([(2, 1.0), (3, 0.0), (7, 3.0)], [(4, 0.0)], lengths=[9, 4])
    ((first, second),), found = process_advantages([group], ProcessAdvantage())
    root = 2**0.5
    assert (first, second) == pytest.approx((root / 2, -root / 2))
    # tokens 1 and 2 have all three steps, token 3 the last two, 4 to 7 the last, 8 and 9 none
    assert approx(found[group.group_id, 0]) == [(2, root / 2), (3, root / 2), (7, root), (9, 0.0)]
    assert approx(found[group.group_id, 1]) == [(4, -root / 2)]


def test_divisor_and_epsilon() -> None:
    # population: sqrt(6 / 4) = 1.224745; + eps 0.775255 = 2
    group = group_of([(2, 1.0), (3, 0.0), (7, 3.0)], [(4, 0.0)], lengths=[7, 4])
    config = ProcessAdvantage(std="population", eps=0.7752551)
    _, found = process_advantages([group], config)
    (first, second, third), (only,) = found[group.group_id, 0], found[group.group_id, 1]
    assert [first.advantage, second.advantage, third.advantage] == pytest.approx([0.5, 0.5, 1.0], abs=1e-6)
    assert only.advantage == pytest.approx(-0.5, abs=1e-6)
    assert third.end == 7


def test_what_was_not_scored_has_no_part_and_what_has_no_step_has_zeros() -> None:
    # rewards 1 and 0 alone: mean 0.5, std 0.707107
    group = group_of([(2, 1.0), (5, 0.0)], None, [], lengths=[5, 6, 3])
    ((first, second, third),), found = process_advantages([group], ProcessAdvantage())
    assert first == pytest.approx(0.0)
    assert (second, third) == (None, 0.0)
    assert set(found) == {(group.group_id, 0), (group.group_id, 2)}
    root = 2**0.5
    assert approx(found[group.group_id, 0]) == [(2, 0.0), (5, -root / 2)]
    assert found[group.group_id, 2] == spans((3, 0.0))


def test_equal_steps_are_exactly_zero() -> None:
    group = group_of([(2, 0.1), (3, 0.1 + 0.2 - 0.2)], [(4, 0.1)], lengths=[3, 4])
    (of_group,), found = process_advantages([group], ProcessAdvantage())
    assert of_group == (0.0, 0.0)
    assert found[group.group_id, 0] == spans((2, 0.0), (3, 0.0))
    assert found[group.group_id, 1] == spans((4, 0.0))


def test_groups_are_normalised_apart() -> None:
    first = group_of([(1, 1.0)], [(1, 0.0)], lengths=[1, 1])
    second = group_of([(1, 100.0)], [(1, 0.0)], lengths=[1, 1])
    of_groups, _ = process_advantages([first, second], ProcessAdvantage())
    for of in of_groups:
        assert of == pytest.approx((2**-0.5, -(2**-0.5)))
    assert process_advantages([group_of([], [], lengths=[1, 2])], ProcessAdvantage())[0] == [(0.0, 0.0)]


def test_each_token_has_its_advantage_in_the_batch() -> None:
    """Against the sum as the paper writes it: for each token the steps whose end is at the token or behind it."""
    rng = random.Random(3)
    lengths = [rng.randint(1, 9) for _ in range(6)]
    ends_G = [sorted(rng.choices(range(1, length + 1), k=rng.randint(0, 4))) for length in lengths]
    steps_G: list[Steps] = [[(end, rng.uniform(-1, 1)) for end in ends] for ends in ends_G]
    group = group_of(*steps_G, lengths=lengths)
    batch = TrainBatch(step=0, policy_version=0, groups=(group,))
    plan = plan_step(batch, settings_of(advantage={"kind": "process"}, kl={"coef": 0.0}))
    rewards = np.array([reward for steps in steps_G for _, reward in steps])
    wanted = [
        sum((reward - rewards.mean()) / rewards.std(ddof=1) for end, reward in steps_G[one.sample_index] if end >= t)
        for one in plan.sequences
        for t in range(1, lengths[one.sample_index] + 1)
    ]
    np.testing.assert_allclose(collated(batch, plan.sequences).advantages_N.numpy(), wanted, atol=1e-6)
    # Who has no step has no gradient, and counts all the same.
    assert plan.num_completions == 6
    assert {one.sample_index for one in plan.sequences} == {i for i, steps in enumerate(steps_G) if steps}
