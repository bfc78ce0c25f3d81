"""Every estimator of advantages by hand; process supervision has a file of its own."""

import itertools
import math
import statistics

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from learner.algorithm.advantages import estimator_of, group_advantages, std
from learner.objective import (
    AdvantageConfig,
    GdpoAdvantage,
    GroupAdvantage,
    PassAtKAdvantage,
    ReinforcePlusPlusAdvantage,
)
from learner.types import GroupRewards
from reward.types import all_rewards_equal
from rollout.errors import LearnerError


def test_worked_example_uses_the_sample_standard_deviation() -> None:
    # mean 0.5; squared deviations 8 * 0.25 = 2; std = sqrt(2 / 7) = 0.534522; 0.5 / 0.534522 = 0.935414
    advantages = group_advantages([1, 0, 0, 1, 1, 0, 1, 0], [True] * 8)
    expected = [0.935414, -0.935414, -0.935414, 0.935414, 0.935414, -0.935414, 0.935414, -0.935414]
    assert advantages == pytest.approx(expected, abs=1e-6)


def test_scaled_advantages_have_mean_0_and_std_1() -> None:
    advantages = [a for a in group_advantages([0.3, 1.1, -2.0, 0.4], [True] * 4) if a is not None]
    assert math.fsum(advantages) == pytest.approx(0.0, abs=1e-15)
    assert statistics.stdev(advantages) == pytest.approx(1.0, rel=1e-15)


def test_without_std_rewards_are_only_centred() -> None:
    # a deviation of 2, which nothing is divided by
    assert group_advantages([4.0, 0.0, 2.0], [True] * 3, use_std=False) == (2.0, -2.0, 0.0)


@pytest.mark.parametrize("rewards", [[0.1] * 7, [0.0] * 4, [0.1 + 0.2, 0.3], [-1e9] * 3])
def test_equal_rewards_give_exactly_zero(rewards: list[float]) -> None:
    # sum([0.1] * 7) / 7 is not 0.1 in floating point; neither is 0.1 + 0.2 equal to 0.3.
    assert group_advantages(rewards, [True] * len(rewards)) == (0.0,) * len(rewards)


@settings(max_examples=300, deadline=None)
@given(
    rewards=st.lists(st.floats(-1e300, 1e300), min_size=2, max_size=8)
    | st.lists(st.sampled_from([0.0, 0.1 + 0.2, 0.3, 1.0, 1.0 + 1e-12, 1.0 + 2e-12, 5e-324]), min_size=2, max_size=8),
    use_std=st.booleans(),
)
def test_all_advantages_are_zero_exactly_where_all_rewards_are_equal(rewards: list[float], use_std: bool) -> None:
    advantages = group_advantages(rewards, [True] * len(rewards), use_std=use_std)
    assert all(advantage == 0.0 for advantage in advantages) == all_rewards_equal(rewards)


def test_tiny_and_huge_rewards_are_scaled_like_all_others() -> None:
    usual = group_advantages([0.0, 0.25, 1.0], [True] * 3)
    for exponent in (-1018, -700, 700, 1000):
        scaled = [math.ldexp(reward, exponent) for reward in (0.0, 0.25, 1.0)]
        assert group_advantages(scaled, [True] * 3) == pytest.approx(usual, rel=1e-4)


def test_a_small_but_real_difference_counts_in_full() -> None:
    # mean 1 + 5e-7; deviations -+5e-7; sample std 7.07e-7
    low, high = group_advantages([1.0, 1.000001], [True, True])
    assert (low, high) == pytest.approx((-0.70710678, 0.70710678), rel=1e-6)


def test_unscored_completions_change_nothing_and_have_no_advantage() -> None:
    with_gaps = group_advantages([1.0, math.nan, 0.0, 0.0], [True, False, True, True])
    without = group_advantages([1.0, 0.0, 0.0], [True] * 3)
    assert with_gaps == (without[0], None, without[1], without[2])
    assert without[0] == pytest.approx(2 / 3 / math.sqrt(1 / 3))


def test_a_group_without_two_scores_is_refused() -> None:
    with pytest.raises(ValueError, match="got 1 of 3"):
        group_advantages([1.0, 0.0, 0.0], [True, False, False])


def test_a_scored_reward_that_is_not_finite_is_refused() -> None:
    with pytest.raises(ValueError, match="finite"):
        group_advantages([1.0, math.nan], [True, True])


def group(
    rewards: list[float | None],
    lengths: list[int] | None = None,
    components: list[dict[str, float]] | None = None,
    name: str = "g",
) -> GroupRewards:
    return GroupRewards(
        group_id=name,
        rewards_G=tuple(rewards),
        num_tokens_G=tuple(lengths or [1] * len(rewards)),
        components_G=tuple(components or ()),
    )


def advantages(config: AdvantageConfig, *groups: GroupRewards, **weights: float) -> list[list[float | None]]:
    return [list(of) for of in estimator_of(config, weights)(groups)]


def check(config: AdvantageConfig, groups: list[GroupRewards], expected: list[list[float | None]]) -> None:
    for found, of in zip(advantages(config, *groups), expected, strict=True):
        assert [a is None for a in found] == [a is None for a in of]
        assert [a for a in found if a is not None] == pytest.approx([a for a in of if a is not None], abs=1e-6)


RAGGED = [group([3.0, 1.0, 2.0], name="a"), group([0.0, None, 4.0, 0.0, 0.0], name="b")]
"""Means 2 and 1. Squared deviations (1, 1, 0) and (1, 9, 1, 1). The second completion of b was not scored."""


@pytest.mark.parametrize(
    ("fields", "a", "b"),
    [
        # sample: sqrt(2 / 2) = 1; sqrt(12 / 3) = 2
        ({}, [1, -1, 0], [-0.5, None, 1.5, -0.5, -0.5]),
        # population: sqrt(2 / 3) = 0.816497; sqrt(12 / 4) = 1.732051
        ({"std": "population"}, [1.224745, -1.224745, 0], [-0.577350, None, 1.732051, -0.577350, -0.577350]),
        # eps 1: divided by 2 and 3
        ({"eps": 1.0}, [0.5, -0.5, 0], [-1 / 3, None, 1, -1 / 3, -1 / 3]),
        # batch of 3, 1, 2, 0, 4, 0, 0: mean 10 / 7, squares 30 - 100 / 7 = 15.714286; / 6 = 2.619048, root 1.618347
        ({"scale": "batch_std"}, [0.617914, -0.617914, 0], [-0.617914, None, 1.853743, -0.617914, -0.617914]),
        # the same / 7: root 1.498298; plus eps 0.501702 = 2
        (
            {"scale": "batch_std", "std": "population", "eps": 0.5017020},
            [0.5, -0.5, 0],
            [-0.5, None, 1.5, -0.5, -0.5],
        ),
        # MaxRL: centred over the mean
        ({"scale": "group_mean"}, [0.5, -0.5, 0], [-1, None, 3, -1, -1]),
        ({"scale": "group_mean", "eps": 2.0}, [0.25, -0.25, 0], [-1 / 3, None, 1, -1 / 3, -1 / 3]),
        # Dr. GRPO
        ({"scale": "none"}, [1, -1, 0], [-1, None, 3, -1, -1]),
        ({"scale": "none", "eps": 7.0}, [1, -1, 0], [-1, None, 3, -1, -1]),
        # RLOO: the means of the others are 1.5, 2.5, 2 and 4/3, 0, 4/3, 4/3
        (
            {"baseline": "leave_one_out", "scale": "none"},
            [1.5, -1.5, 0],
            [-4 / 3, None, 4, -4 / 3, -4 / 3],
        ),
        ({"baseline": "leave_one_out"}, [1.5, -1.5, 0], [-2 / 3, None, 2, -2 / 3, -2 / 3]),
        ({"baseline": "none", "scale": "none"}, [3, 1, 2], [0, None, 4, 0, 0]),
        ({"baseline": "none"}, [3, 1, 2], [0, None, 2, 0, 0]),
    ],
)
def test_a_group_estimator_by_hand(fields: dict[str, object], a: list[float | None], b: list[float | None]) -> None:
    check(GroupAdvantage.model_validate(fields), RAGGED, [a, b])


def test_a_baseline_by_length() -> None:
    # (1 * 1 + 2 * 4 + 3 * 0) / (1 + 2 + 3) = 1.5; an unscored completion of 100 tokens has no part in it
    config = GroupAdvantage(baseline="length_weighted", scale="none")
    check(config, [group([1.0, None, 4.0, 0.0], [1, 100, 2, 3])], [[-0.5, None, 2.5, -1.5]])
    # nobody has a token: nothing to weigh by
    check(config, [group([1.0, 0.0], [0, 0])], [[1.0, 0.0]])


def test_a_negative_reward_has_no_advantage_over_the_mean() -> None:
    config = GroupAdvantage(scale="group_mean")
    check(config, [group([0.0, 1.0])], [[-1, 1]])
    with pytest.raises(LearnerError) as raised:
        advantages(config, group([-0.5, 1.0], name="x"))
    assert str(raised.value) == (
        "group x has a reward of -0.5, and advantages are divided by the group's mean "
        "(learner.objective.advantage.scale is `group_mean`), which is of use for rewards of at least 0 alone"
    )


def test_reinforce_plus_plus_normalises_over_tokens() -> None:
    # values 1 (1 token), 0 (3 tokens), 1 (4 tokens): mean 5 / 8, variance 5 / 8 * 3 / 8, root 0.484123
    # (1 - 0.625) / 0.484123 = 0.774597; -0.625 / 0.484123 = -1.290994
    groups = [group([1.0, 0.0], [1, 3]), group([1.0, None], [4, 9])]
    check(ReinforcePlusPlusAdvantage(eps=0), groups, [[0.774597, -1.290994], [0.774597, None]])
    # + eps 0.015877 = 0.5
    check(ReinforcePlusPlusAdvantage(eps=0.015877), groups, [[0.75, -1.25], [0.75, None]])


def test_reinforce_plus_plus_with_a_group_baseline() -> None:
    # centred 0.5 (1 token), -0.5 (3 tokens), and 0 (4 tokens of equal rewards): mean -1 / 8;
    # squares 0.25 * 4 / 8 - 1 / 64 = 0.109375, root 0.330719; 0.625 / root = 1.889822; -0.375 / root = -1.133893
    groups = [group([1.0, 0.0], [1, 3]), group([5.0, 5.0], [2, 2])]
    check(ReinforcePlusPlusAdvantage(baseline="group_mean", eps=0), groups, [[1.889822, -1.133893], [0, 0]])
    assert advantages(ReinforcePlusPlusAdvantage(baseline="group_mean"), *groups)[1] == [0.0, 0.0]


def test_reinforce_plus_plus_where_nothing_with_tokens_differs() -> None:
    assert advantages(ReinforcePlusPlusAdvantage(), group([0.1] * 3), group([0.1])) == [[0.0] * 3, [0.0]]
    assert advantages(ReinforcePlusPlusAdvantage(eps=0), group([1.0, 0.0, 1.0], [2, 0, 1])) == [[0.0] * 3]
    assert advantages(ReinforcePlusPlusAdvantage(), group([1.0, 0.0], [0, 0])) == [[0.0, 0.0]]
    assert advantages(ReinforcePlusPlusAdvantage(), group([None, None])) == [[None, None]]


def test_gdpo_normalises_each_component() -> None:
    # right: (1, 0, 0, 1), std sqrt(4 * 0.25 / 3) = 0.577350: z +-0.866025. short: (0, 0, 4, 0), std 2:
    # z -0.5, -0.5, 1.5, -0.5. Sums with weights 1 and 2: -0.133975, -1.866025, 2.133975, -0.133975.
    # Their mean is 0; squares 0.017949 * 2 + 3.482051 + 4.553848 = 8.071797, / 3, root 1.640305.
    of = [{"right": right, "short": short} for right, short in ((1.0, 0.0), (0.0, 0.0), (0.0, 4.0), (1.0, 0.0))]
    (found,) = advantages(GdpoAdvantage(eps=0), group([1.0, 0.0, 8.0, 1.0], components=of), right=1, short=2)
    assert found == pytest.approx([-0.081677, -1.137609, 1.300963, -0.081677], abs=1e-6)


def test_gdpo_adds_its_epsilon_to_every_deviation() -> None:
    # z = +-0.5 / (0.707107 + 0.292893) = +-0.5; batch std of +-0.5 is 0.707107 again: +-0.5
    of = [{"right": 1.0}, {"right": 0.0}]
    (found,) = advantages(GdpoAdvantage(eps=0.2928932), group([1.0, 0.0], components=of), right=1)
    assert found == pytest.approx([0.5, -0.5], abs=1e-6)


def test_gdpo_over_a_batch_of_groups_with_components_of_their_own() -> None:
    # a: `right` +-0.707107. b: `right` scores one of its rows only, so `short` alone: 1 + 3 + 5, deviations -2, 0, 2,
    # std 2: -1, 0, 1. Batch 0.707107, -0.707107, -1, 0, 1: squares 3, / 4, root 0.866025
    a = group([1.0, 0.0, None], components=[{"right": 1.0}, {"right": 0.0}, {}], name="a")
    b = group([1.0, 3.0, 5.0], components=[{"short": 1.0}, {"short": 3.0, "right": 1.0}, {"short": 5.0}], name="b")
    of_a, of_b = advantages(GdpoAdvantage(eps=0), a, b, right=1, short=1)
    assert of_a[:2] == pytest.approx([0.816497, -0.816497], abs=1e-6)
    assert of_a[2] is None
    assert of_b == pytest.approx([-1.154701, 0, 1.154701], abs=1e-6)
    # a component of weight 0 is none, and without one there is nothing
    assert advantages(GdpoAdvantage(), a, right=0) == [[0.0, 0.0, None]]


def test_gdpo_of_components_that_cancel_is_exactly_zero() -> None:
    # 0.1 z + 0.2 z - 0.3 z, which is 0 but for rounding, beside a group in which somebody stands out
    assert math.fsum([0.1, 0.2, -0.3]) != 0.0
    of = [{"x": v, "y": v, "z": v} for v in (0.1, 0.7, 0.3)]
    other = [{"x": v} for v in (0.1, 0.2, 0.4)]
    groups = [group([0.0] * 3, components=of), group([0.1, 0.2, 0.4], components=other)]
    found = advantages(GdpoAdvantage(eps=0), *groups, x=0.1, y=0.2, z=-0.3)
    assert found[0] == [0.0, 0.0, 0.0]
    assert all(found[1])


def brute_force(rewards: list[float], k: int) -> list[float]:
    """By going through all sets of k completions."""
    sets = list(itertools.combinations(range(len(rewards)), k))
    best = [max(rewards[i] for i in one) for one in sets]
    mean, deviation = statistics.fmean(best), statistics.pstdev(best)
    if deviation < 1e-9:
        return [0.0] * len(rewards)
    of = [statistics.fmean(b for one, b in zip(sets, best, strict=True) if i in one) for i in range(len(rewards))]
    return [(own - mean) / deviation for own in of]


def test_pass_at_k_by_hand() -> None:
    # rewards 1, 0, 0, 0, sets of 2: 3 of the 6 have the 1. Mean 1/2, deviation 1/2. The first is in sets of mean 1: +1.
    # Another is in one set of three with the first: mean 1/3: (1/3 - 1/2) / (1/2) = -1/3.
    check(PassAtKAdvantage(k=2), [group([1.0, 0.0, None, 0.0, 0.0])], [[1, -1 / 3, None, -1 / 3, -1 / 3]])
    # k = 1: mean 1/4, population deviation sqrt(3) / 4
    check(PassAtKAdvantage(k=1), [group([1.0, 0.0, 0.0, 0.0])], [[1.732051, -0.577350, -0.577350, -0.577350]])


@pytest.mark.parametrize("k", [1, 2, 3, 4, 5])
@pytest.mark.parametrize(
    "rewards",
    [
        [1.0, 0.0, 0.0, 1.0, 0.0, 0.0],
        [0.3, -1.0, 2.5, 0.3, 7.0, 0.0],
        [2.0, 2.0, 2.0, 2.0, 2.0, -5.0],
        [1.0] * 5 + [2.0],
    ],
)
def test_pass_at_k_is_that_of_all_sets(rewards: list[float], k: int) -> None:
    check(PassAtKAdvantage(k=k), [group(list(rewards))], [list(brute_force(rewards, k))])


def test_pass_at_k_of_a_group_that_is_one_set_or_less_is_zero() -> None:
    for k in (2, 3):
        assert advantages(PassAtKAdvantage(k=k), group([1.0, 0.0])) == [[0.0, 0.0]]
    # the two best are equal, so that every set of three of four has a best one
    assert advantages(PassAtKAdvantage(k=3), group([1.0, 0.0, 1.0, 0.5])) == [[0.0] * 4]


@pytest.mark.parametrize("size", [1e-200, 1e200])
def test_tiny_and_huge_rewards_are_like_all_others_for_every_estimator(size: float) -> None:
    configs = (
        PassAtKAdvantage(k=2),
        ReinforcePlusPlusAdvantage(eps=0),
        ReinforcePlusPlusAdvantage(eps=0, baseline="group_mean"),
        GroupAdvantage(scale="batch_std"),
        GroupAdvantage(scale="group_mean"),
    )
    for config in configs:
        usual, scaled = (advantages(config, group([f, 0.0, 2 * f, 0.0], [1, 2, 3, 4])) for f in (1.0, size))
        assert scaled[0] == pytest.approx(usual[0], rel=1e-9)


EVERY = [
    *(
        GroupAdvantage.model_validate({"baseline": baseline, "scale": scale, "eps": eps})
        for baseline in ("mean", "leave_one_out", "length_weighted", "none")
        for scale in ("group_std", "batch_std", "group_mean", "none")
        for eps in (0.0, 1e-4)
    ),
    ReinforcePlusPlusAdvantage(baseline="group_mean"),
    GdpoAdvantage(eps=0),
    PassAtKAdvantage(k=2),
]


@pytest.mark.parametrize("config", EVERY)
@pytest.mark.parametrize("equal", [[0.1] * 7, [0.1 + 0.2, 0.3, 0.3], [1e12, 1e12 + 0.001, None]])
def test_a_group_of_equal_rewards_is_exactly_zero_beside_one_that_is_not(
    config: AdvantageConfig, equal: list[float | None]
) -> None:
    groups = [
        group(list(of), [3 + i for i in range(len(of))], [{"all": reward or 0.0} for reward in of], name=name)
        for name, of in (("differs", [1.0, 0.0, 0.0, 1.0, 0.25]), ("equal", equal))
    ]
    differs, found = advantages(config, *groups, all=1.0)
    assert any(differs)
    assert found == [None if reward is None else 0.0 for reward in equal]


def test_a_mask_of_another_length_is_refused() -> None:
    with pytest.raises(ValueError, match="one mask entry for each reward is needed, got 2 and 1"):
        group_advantages([1.0, 0.0], [True])


@pytest.mark.parametrize(("divisor", "expected"), [("sample", 2.0), ("population", math.sqrt(3.0))])
def test_the_standard_deviation_by_hand(divisor: str, expected: float) -> None:
    # mean 1; squares 1 + 9 + 1 + 1 = 12, over 3 or 4
    assert std([0.0, 4.0, 0.0, 0.0], divisor) == pytest.approx(expected, rel=1e-15)
    assert std([3.0], divisor) == std([], divisor) == std([3.0, 3.0], divisor) == 0.0


@pytest.mark.parametrize(
    ("config", "wrong"),
    [
        (ReinforcePlusPlusAdvantage(), group([1.0, 0.0], [3])),
        (GroupAdvantage(baseline="length_weighted"), group([1.0, 0.0], [3, 1, 2])),
        (GdpoAdvantage(), group([1.0, 0.0], components=[{"all": 1.0}])),
    ],
)
def test_a_group_whose_parts_have_other_lengths_is_refused(config: AdvantageConfig, wrong: GroupRewards) -> None:
    with pytest.raises(ValueError, match="zip"):
        advantages(config, wrong, all=1.0)
