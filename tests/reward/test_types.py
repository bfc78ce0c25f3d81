"""When the rewards of a group are all equal: one rule, for training, dynamic sampling, metrics and the dashboard."""

import math
from dataclasses import replace

import pytest

from reward.types import ROUNDING_SPREAD, GroupScores, RewardOutcome, RewardResult, ScoredGroup, all_rewards_equal
from rollout.types import FinishReason, SampledGroup, facts_of
from tests.reward.samples import group


@pytest.mark.parametrize(
    ("rewards", "expected"),
    [
        ([], True),
        ([0.5], True),
        ([0.0, -0.0], True),
        ([0.1 + 0.2, 0.3], True),
        ([0.0, 2.3e-308], False),
        ([0.0, 5e-324], True),
        ([1.0, 0.0], False),
        ([-1.0, 1.0], False),
    ],
)
def test_rounding_is_no_difference_and_everything_else_is(rewards: list[float], expected: bool) -> None:
    assert all_rewards_equal(rewards) == expected


@pytest.mark.parametrize("largest", [1.0, -1.0, 3e7, 1e-9])
def test_the_border_is_a_share_of_the_largest_reward(largest: float) -> None:
    # 2**-40 of the largest is 9.1e-13 of it, just inside; 2**-39 is 1.8e-12, outside. Both differences are exact.
    assert 2**-40 < ROUNDING_SPREAD < 2**-39
    assert all_rewards_equal([largest, largest - math.ldexp(largest, -40), largest])
    assert not all_rewards_equal([largest, largest - math.ldexp(largest, -39), largest])


def ok(reward: float) -> RewardResult:
    return RewardResult(outcome=RewardOutcome.OK, reward=reward)


def test_only_completions_that_were_scored_and_not_given_up_are_compared() -> None:
    ends = (FinishReason.STOP, FinishReason.LENGTH, FinishReason.ERROR, FinishReason.ABORT, FinishReason.STOP)
    sampled = group(["text"] * len(ends))
    completions = tuple(replace(c, finish_reason=end) for c, end in zip(sampled.completions, ends, strict=True))
    failed = RewardResult(outcome=RewardOutcome.TIMEOUT, reward=None)
    facts = facts_of(replace(sampled, completions=completions))
    scores = GroupScores(
        rewards=(ok(1.0), ok(1.0), ok(0.0), ok(0.0), failed), worker="reward-0", started_s=1.0, finished_s=2.0
    )
    scored = ScoredGroup(group=SampledGroup(prompt=sampled.prompt, facts=facts, payload=None), scores=scores)
    assert scored.compared_rewards == (1.0, 1.0, None, None, None)
    assert scored.all_rewards_equal
    assert scored.num_scored == 4
    other = replace(scored, scores=replace(scores, rewards=(ok(0.0), *scored.rewards[1:])))
    assert not other.all_rewards_equal
