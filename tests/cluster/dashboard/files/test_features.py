"""Numbers of many completions at once, against loops over one."""

import math

import numpy as np
import pytest

from cluster.dashboard.files.features import Lists, gaps, mean_entropy, repetition


def lists(*values: list[float]) -> Lists:
    flat = [value for inner in values for value in inner]
    return Lists(np.array(flat, dtype=np.float32), np.array([len(inner) for inner in values], dtype=np.int64))


def test_gap_and_k3() -> None:
    # d = learner - sampler: [0.5, -0.25] and, of the second, nothing from the learner.
    sampler = lists([-1.0, -0.5], [-1.0], [], [-2.0, math.nan])
    learner = lists([-0.5, -0.75], [], [], [-3.0, -1.0])
    largest, k3 = gaps(sampler, learner)
    assert largest == pytest.approx([0.5, math.nan, math.nan, 1.0], nan_ok=True)
    first = ((math.exp(0.5) - 1.5) + (math.exp(-0.25) - 0.75)) / 2
    assert k3 == pytest.approx([first, math.nan, math.nan, math.exp(-1)], nan_ok=True)


def test_a_huge_gap_stays_finite() -> None:
    largest, k3 = gaps(lists([-1e30]), lists([0.0]))
    assert largest[0] == pytest.approx(1e30)
    assert math.isfinite(k3[0])


def test_k3_of_a_large_gap_is_that_of_the_loss() -> None:
    # r - 1 - d, with r cut off at a log-ratio of 20 and d as it is: what `train/kl_rollout` is the mean of.
    _, k3 = gaps(lists([-30.0], [0.0]), lists([0.0], [-50.0]))
    assert k3 == pytest.approx([math.exp(20) - 1 - 30, math.exp(-20) - 1 + 50])


def test_entropy_is_the_recorded_one_where_there_is_one() -> None:
    entropies = lists([1.0, 3.0], [], [])
    sampled = lists([-9.0, -9.0], [-0.5, -1.5], [])
    assert mean_entropy(entropies, sampled) == pytest.approx([2.0, 1.0, math.nan], nan_ok=True)


def test_repetition_counts_4_grams_within_a_completion() -> None:
    # 1 2 1 2 1 2 1 2: five 4-grams, two of them distinct. The second begins as the first does, but is another one.
    tokens = Lists(np.array([1, 2, 1, 2, 1, 2, 1, 2, 1, 2, 1, 2, 5, 7, 7, 7]), np.array([8, 5, 3]))
    assert repetition(tokens) == pytest.approx([3 / 5, 0.0, 0.0])
    assert repetition(Lists(np.zeros(0, np.int32), np.array([0, 0]))) == pytest.approx([0, 0])


def test_repetition_against_a_loop() -> None:
    rng = np.random.default_rng(0)
    values = [rng.integers(0, 4, rng.integers(0, 60)).tolist() for _ in range(200)]
    wanted = []
    for one in values:
        grams = [tuple(one[i : i + 4]) for i in range(len(one) - 3)]
        wanted.append(1 - len(set(grams)) / len(grams) if grams else 0.0)
    flat = np.array([token for one in values for token in one], dtype=np.int32)
    assert repetition(Lists(flat, np.array([len(one) for one in values]))) == pytest.approx(wanted)
