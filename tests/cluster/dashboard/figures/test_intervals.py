import math
import random

import pytest

from cluster.dashboard.figures.intervals import fall, mean_difference, noise, share_difference, usual_jump, wilson


def test_wilson_intervals() -> None:
    assert wilson(0.5, 100) == pytest.approx((0.4038, 0.5962), abs=1e-4)
    assert wilson(0.0, 10) == pytest.approx((0.0, 0.2775), abs=1e-4)
    assert wilson(1.0, 10) == pytest.approx((0.7225, 1.0), abs=1e-4)


def test_the_difference_of_two_shares_is_that_of_the_literature() -> None:
    # Newcombe (1998), table II, example (a): 56/70 less 48/80 is 0.2, method 10 gives 0.0524 to 0.3339.
    moved = share_difference(48 / 80, 56 / 70, 80, 70)
    assert moved.value == pytest.approx(0.2)
    assert (moved.low, moved.high) == pytest.approx((0.0524, 0.3339), abs=2e-4)
    assert moved.is_rise
    assert not moved.is_fall
    back = share_difference(56 / 70, 48 / 80, 70, 80)
    assert (back.low, back.high) == pytest.approx((-0.3339, -0.0524), abs=2e-4)
    assert back.is_fall
    same = share_difference(0.5, 0.5, 100)
    assert not same.is_rise
    assert not same.is_fall


def test_noise_is_what_is_left_without_the_trend() -> None:
    assert noise([0.0, 1.0] * 10) == pytest.approx(math.sqrt(0.5))
    assert noise([0.1 * i for i in range(20)]) == pytest.approx(0.1 / math.sqrt(2))
    assert (noise([]), noise([3.0])) == (0.0, 0.0)
    rng = random.Random(0)
    assert noise([rng.gauss(i / 1000, 0.2) for i in range(5000)]) == pytest.approx(0.2, rel=0.03)


def test_the_usual_jump_is_that_of_most() -> None:
    assert usual_jump([0.5, 0.6, 0.5, 0.6, 0.9, 0.8]) == pytest.approx(0.1 * 1.4826 / math.sqrt(2))
    assert (usual_jump([]), usual_jump([1.0])) == (0.0, 0.0)


def test_the_interval_of_a_difference_of_means_holds_the_truth_in_95_of_100() -> None:
    rng, held = random.Random(1), 0
    for _ in range(1000):
        moved = mean_difference([rng.gauss(0.4 if i < 10 else 0.5, 0.1) for i in range(30)], 10)
        held += moved.low <= 0.1 <= moved.high
    assert 920 <= held <= 980


def test_a_fall_says_from_where_to_where_since_when() -> None:
    found = fall([0.2, 0.4, *[0.7, 0.7, 0.9, 0.9] * 5, 0.3, 0.35, 0.3, 0.35], 0.0)
    assert found is not None
    assert found.index == 22
    assert (found.before, found.now) == pytest.approx((0.8, 0.325))
    # Jumps up to the last three: 0.2, 0.3, nine of 0.2, and 0.6 from 0.9 to 0.3; ten are none.
    assert found.sd == pytest.approx(math.sqrt((10 * 0.2**2 + 0.3**2 + 0.6**2) / 22 / 2))


def test_noise_alone_is_hardly_ever_a_fall() -> None:
    rng = random.Random(2)
    values = [rng.gauss(0.5, 0.1) for _ in range(4000)]
    assert [end for end in range(30, len(values)) if fall(values[max(0, end - 200) : end], 0.0)] == []
