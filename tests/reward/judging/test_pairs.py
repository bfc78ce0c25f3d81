"""Who meets whom, and what the share of wins says."""

import random
from collections import Counter
from itertools import combinations

import pytest

from reward.judging.pairs import outcome_of, pairs_of, win_rates


@pytest.mark.parametrize(("num", "opponents"), [(4, 2), (5, 2), (6, 4), (8, 2), (8, 6), (16, 4)])
def test_each_meets_as_many_others(num: int, opponents: int) -> None:
    pairs = pairs_of(num, opponents, random.Random(1))
    assert len(set(pairs)) == len(pairs) == num * opponents // 2
    assert set(Counter(place for pair in pairs for place in pair).values()) == {opponents}
    assert all(first < second for first, second in pairs)
    assert pairs_of(num, opponents, random.Random(1)) == pairs
    if opponents < num - 2:
        assert any(pairs_of(num, opponents, random.Random(seed)) != pairs for seed in range(2, 8))


@pytest.mark.parametrize(("num", "opponents"), [(2, None), (2, 2), (3, 2), (3, 8), (5, 4), (5, None)])
def test_all_meet_all_where_there_are_no_more(num: int, opponents: int | None) -> None:
    assert pairs_of(num, opponents, random.Random(1)) == list(combinations(range(num), 2))


def test_two_orders_that_disagree_are_a_draw() -> None:
    assert [outcome_of(*both) for both in ((1, 1), (0, 0), (0.5, 0.5), (1, 0), (0, 1), (1, 0.5), (0.5, 0))] == [
        1, 0, 0.5, 0.5, 0.5, 0.5, 0.5,
    ]  # fmt: skip


def test_rates_are_of_the_comparisons_that_there_are() -> None:
    assert win_rates(4, {(0, 1): 1.0, (0, 2): 0.5, (1, 2): 0.0}) == [(0.75, 2), (0.0, 2), (0.75, 2), (None, 0)]


@pytest.mark.parametrize("seed", range(10))
def test_where_all_meet_all_the_order_is_that_of_bradley_and_terry(seed: int) -> None:
    """Their strengths by Hunter's iterations (2004, The Annals of Statistics 32, equation 3), a draw counting half."""
    chance, num = random.Random(seed), 7
    # Nobody wins all or loses all, as then there is no finite estimate.
    outcomes = {pair: chance.choice((0.25, 0.5, 0.75, 0.9)) for pair in combinations(range(num), 2)}
    strengths = [1.0] * num
    wins = [rate * (num - 1) for rate, _ in win_rates(num, outcomes) if rate is not None]
    for _ in range(2000):
        strengths = [wins[i] / sum(1 / (strengths[i] + strengths[j]) for j in range(num) if j != i) for i in range(num)]
    for i, j in combinations(range(num), 2):
        if abs(wins[i] - wins[j]) > 1e-9:
            assert (wins[i] > wins[j]) == (strengths[i] > strengths[j])
        else:
            assert strengths[i] == pytest.approx(strengths[j], rel=1e-6)
