import math
import statistics

import pytest

from learner.algorithm.advantages import group_advantages


def test_worked_example_uses_the_sample_standard_deviation():
    # mean 0.5; squared deviations 8 * 0.25 = 2; std = sqrt(2 / 7) = 0.534522; 0.5 / 0.534522 = 0.935414
    advantages = group_advantages([1, 0, 0, 1, 1, 0, 1, 0], [True] * 8)
    expected = [0.935414, -0.935414, -0.935414, 0.935414, 0.935414, -0.935414, 0.935414, -0.935414]
    assert advantages == pytest.approx(expected, abs=1e-6)


def test_scaled_advantages_have_mean_0_and_std_1():
    advantages = [a for a in group_advantages([0.3, 1.1, -2.0, 0.4], [True] * 4) if a is not None]
    assert math.fsum(advantages) == pytest.approx(0.0, abs=1e-15)
    assert statistics.stdev(advantages) == pytest.approx(1.0, rel=1e-15)


def test_without_std_rewards_are_only_centred():
    assert group_advantages([2.0, 0.0, 1.0], [True] * 3, use_std=False) == (1.0, -1.0, 0.0)


@pytest.mark.parametrize("rewards", [[0.1] * 7, [0.0] * 4, [0.1 + 0.2, 0.3], [-1e9] * 3])
def test_equal_rewards_give_exactly_zero(rewards):
    # sum([0.1] * 7) / 7 is not 0.1 in floating point; neither is 0.1 + 0.2 equal to 0.3.
    assert group_advantages(rewards, [True] * len(rewards)) == (0.0,) * len(rewards)


def test_a_small_but_real_difference_counts_in_full():
    # mean 1 + 5e-7; deviations -+5e-7; sample std 7.07e-7
    low, high = group_advantages([1.0, 1.000001], [True, True])
    assert (low, high) == pytest.approx((-0.70710678, 0.70710678), rel=1e-6)


def test_unscored_completions_change_nothing_and_have_no_advantage():
    with_gaps = group_advantages([1.0, math.nan, 0.0, 0.0], [True, False, True, True])
    without = group_advantages([1.0, 0.0, 0.0], [True] * 3)
    assert with_gaps == (without[0], None, without[1], without[2])
    assert without[0] == pytest.approx(2 / 3 / math.sqrt(1 / 3))


def test_a_group_without_two_scores_is_refused():
    with pytest.raises(ValueError, match="got 1 of 3"):
        group_advantages([1.0, 0.0, 0.0], [True, False, False])


def test_a_scored_reward_that_is_not_finite_is_refused():
    with pytest.raises(ValueError, match="finite"):
        group_advantages([1.0, math.nan], [True, True])
