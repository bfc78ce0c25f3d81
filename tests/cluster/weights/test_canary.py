"""What the canary tells apart: rounding, another function, and weights that an engine kept."""

from math import inf, nan

import numpy as np
import pytest

from cluster.weights.canary import (
    FP32_MAX,
    FP32_MEAN,
    LEAST_MAX,
    LEAST_MEAN,
    LONGEST_TOKENS,
    ROUNDING_FACTOR_MAX,
    ROUNDING_FACTOR_MEAN,
    Limits,
    canary_errors,
    fp32_limits,
    longest_text,
    rounding_limits,
    stale_share,
)

NUM_TOKENS = 200


def draws(seed: int, scale: float, size: int = NUM_TOKENS) -> np.ndarray:
    return np.random.default_rng(seed).normal(scale=scale, size=size)


def test_errors_are_those_of_every_token() -> None:
    learner = [np.array([-1.0, -2.0], np.float32), np.array([-3.0], np.float32)]
    sampler = [np.array([-1.5, -2.0], np.float32), np.array([-2.75], np.float32)]
    assert canary_errors(learner, sampler).tolist() == [-0.5, 0.0, 0.25]
    with pytest.raises(ValueError, match=r"have \[1\] and \[2, 1\] log-probabilities"):
        canary_errors(learner[1:], sampler)


def test_limits_hold_for_both_signs_and_nothing_that_is_no_number() -> None:
    limits = Limits(largest=0.5, mean=0.2)
    assert limits.allow(np.array([0.5, -0.1, 0.0]))
    for wrong in ([-0.51, 0.0, 0.0], [0.3, -0.3, 0.3], [0.0, nan, 0.0], [0.0, -inf, 0.0]):
        assert not limits.allow(np.array(wrong)), wrong


def test_where_limits_come_from() -> None:
    assert fp32_limits(None, None) == Limits(largest=FP32_MAX, mean=FP32_MEAN)
    assert fp32_limits(0.5, None) == Limits(largest=0.5, mean=FP32_MEAN)
    rounding = [np.array([0.25, -0.5], np.float32), np.array([0.0], np.float32)]
    found = rounding_limits(rounding, None, None)
    assert found.largest == pytest.approx(ROUNDING_FACTOR_MAX * 0.5 + LEAST_MAX)
    assert found.mean == pytest.approx(ROUNDING_FACTOR_MEAN * 0.25 + LEAST_MEAN)
    assert rounding_limits(rounding, 1.0, 2.0) == Limits(largest=1.0, mean=2.0)


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("change", [0.0, 1e-4, 0.01, 0.02, 0.1, 1.0])
def test_rounding_alone_is_never_called_stale(seed: int, change: float) -> None:
    """Errors of engine and learner, each rounded anew at every sync; the learner's are in the change as well."""
    noise = 0.02
    ours_before, ours_now = draws(seed, noise), draws(100 + seed, noise)
    true_change = draws(200 + seed, change)
    errors_N = draws(300 + seed, noise) - ours_now
    moved_N = true_change + ours_now - ours_before
    assert stale_share(errors_N, moved_N, noise=noise * 2**0.5) == 0.0


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("kept", [0.3, 0.6, 1.0])
def test_an_engine_that_kept_a_part_is_seen_though_its_errors_are_small(seed: int, kept: float) -> None:
    noise, change = 0.02, 0.15
    moved_N = draws(seed, change)
    errors_N = draws(100 + seed, noise) - kept * moved_N
    assert np.abs(errors_N).mean() < 0.15, "the constant that such a difference once had to reach"
    assert stale_share(errors_N, moved_N, noise=noise) == pytest.approx(kept, abs=0.05)


def test_what_did_not_move_shows_nothing() -> None:
    assert stale_share(draws(0, 0.02), np.zeros(NUM_TOKENS), noise=0.02) == 0.0
    assert stale_share(np.zeros(NUM_TOKENS), np.zeros(NUM_TOKENS), noise=0.0) == 0.0


def test_the_longest_text_is_made_of_the_prompts_tokens_and_the_same_each_time() -> None:
    text = longest_text([[3, 5, 5], [9]], 100)
    assert len(text) == 99, "an engine wants room for one token more"
    assert set(text) == {3, 5, 9}
    assert longest_text([[9], [5, 3]], 100) == text
    assert len(longest_text([[9], [5, 3]], 10**6)) == LONGEST_TOKENS
    assert longest_text([[4, 4]], 100) == [], "a text of one token shows nothing"


def test_what_the_learners_own_bf16_does_wrong_has_a_ceiling() -> None:
    leak = [np.full(100, 0.5, np.float32)]
    assert rounding_limits(leak, None, None).largest == pytest.approx(4.0, abs=0.01)
    capped = rounding_limits(leak, None, None, has_ceiling=True)
    assert (capped.largest, capped.mean) == (2.0, 0.3)
    assert rounding_limits(leak, 9.0, 9.0, has_ceiling=True) == rounding_limits(leak, 9.0, 9.0)
    assert not rounding_limits([np.full(3, np.nan)], None, None, has_ceiling=True).allow(np.zeros(3))
