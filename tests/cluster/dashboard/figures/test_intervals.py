import math
import random

import mpmath
import pytest

from cluster.dashboard.figures.intervals import (
    column_difference,
    fall,
    mean_difference,
    noise,
    noise_freedom,
    share_difference,
    student,
    usual_jump,
    wilson,
)


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


@pytest.mark.parametrize("freedom", [1, 2, 2.91, 3, 7.5625, 10, 19.56, 30, 120, 5000])
def test_student_is_within_its_quantile_in_95_of_100(freedom: float) -> None:
    """By the incomplete beta function, which has nothing to do with how the quantile is found."""
    bound = student(freedom)
    outside = mpmath.betainc(freedom / 2, 0.5, 0, freedom / (freedom + bound**2), regularized=True)
    assert float(outside) == pytest.approx(0.05, abs=2e-8)


def test_students_quantiles_are_those_of_tables() -> None:
    assert [round(student(freedom), 3) for freedom in (1, 5, 10, 30)] == [12.706, 2.571, 2.228, 2.042]
    assert student(1e5) == pytest.approx(1.96, abs=1e-4)
    assert student(0) == math.inf


def test_how_sure_the_noise_is() -> None:
    """A mean of nu squares of normal values has the variance 2 / nu."""
    rng = random.Random(3)
    squares = [noise([rng.gauss(0, 1) for _ in range(12)]) ** 2 for _ in range(20_000)]
    mean = math.fsum(squares) / len(squares)
    variance = math.fsum((square - mean) ** 2 for square in squares) / len(squares)
    assert mean == pytest.approx(1, rel=0.02)
    assert 2 / variance == pytest.approx(noise_freedom(12), rel=0.04)
    assert (noise_freedom(2), noise_freedom(1)) == (1.0, 0.0)


@pytest.mark.parametrize(("num_steps", "count"), [(12, 4), (15, 5), (20, 6), (30, 10), (60, 10)])
def test_the_interval_of_a_difference_of_means_holds_the_truth_in_95_of_100(num_steps: int, count: int) -> None:
    """With the quantile of the normal distribution it is 91.7 of 12 steps, 93.6 of 30."""
    rng, held, rounds = random.Random(1), 0, 5000
    for _ in range(rounds):
        values = [rng.gauss(0.4 if i < num_steps - count else 0.5, 0.1) for i in range(count, num_steps)]
        moved = mean_difference([*(rng.gauss(0.4, 0.1) for _ in range(count)), *values], count)
        held += moved.low <= 0.1 <= moved.high
    assert 0.943 <= held / rounds <= 0.965


@pytest.mark.parametrize(("lengths", "sds"), [((10, 10), (0.1, 0.1)), ((5, 10), (0.1, 0.4)), ((6, 6), (0.4, 0.1))])
def test_the_interval_of_two_runs_holds_the_truth_in_95_of_100(
    lengths: tuple[int, int], sds: tuple[float, float]
) -> None:
    rng, held, rounds = random.Random(4), 0, 4000
    for _ in range(rounds):
        before, after = ([rng.gauss(0.5, sd) for _ in range(length)] for length, sd in zip(lengths, sds, strict=True))
        moved = column_difference(before, after)
        held += moved.low <= 0 <= moved.high
    assert 0.94 <= held / rounds <= 0.97


def test_the_interval_of_two_runs_in_figures() -> None:
    # Jumps of 0.2 at every step: noise of 0.1414, mean 0.5 and 0.8, five steps each; freedom 2 * 2.909.
    moved = column_difference([0.4, 0.6, 0.4, 0.6, 0.5], [0.7, 0.9, 0.7, 0.9, 0.8])
    noise_square = (3 * 0.2**2 + 0.1**2) / 4 / 2
    half = student(2 * 32 / 11) * math.sqrt(2 * noise_square / 5)
    assert (moved.before, moved.after) == pytest.approx((0.5, 0.8))
    assert (moved.low, moved.high) == pytest.approx((0.3 - half, 0.3 + half), abs=1e-3)
    still = column_difference([0.5] * 5, [0.5] * 5)
    assert (still.low, still.high) == (0.0, 0.0)


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
