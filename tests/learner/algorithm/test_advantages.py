import math
import statistics

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from learner.algorithm.advantages import group_advantages
from reward.types import all_rewards_equal


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
    assert group_advantages([2.0, 0.0, 1.0], [True] * 3, use_std=False) == (1.0, -1.0, 0.0)


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
