import pytest

from cluster.errors import RewardFailureError
from cluster.groups.reward_health import RewardHealth
from reward.types import RewardOutcome, ScoredGroup
from tests.cluster.examples import failed, ok, scored


def health(**fractions: float) -> RewardHealth:
    given = {"warn_fraction": 0.01, "max_fraction": 0.5, **fractions}
    return RewardHealth(prompts_per_step=2, **given)


def group(num_failed: int, of: int = 10, outcome: RewardOutcome = RewardOutcome.TIMEOUT) -> ScoredGroup:
    return scored(0, [failed(outcome)] * num_failed + [ok(1.0)] * (of - num_failed))


def windows(rewards: RewardHealth, *num_failed: int) -> list[str | None]:
    """Of each window of two groups, `num_failed` of its 20 rewards failed: all of them in the second group at first."""
    said = []
    for number in num_failed:
        second = min(10, number)
        assert rewards.note(group(number - second)) is None
        said.append(rewards.note(group(second)))
    return said


def test_a_warning_comes_once_for_each_streak_and_has_the_numbers() -> None:
    said = windows(health(), 0, 1, 5, 0, 2)
    assert [sentence is not None for sentence in said] == [False, True, False, False, True]
    assert said[1] == "1 of the 20 rewards of the last 2 groups failed (1 timeout), the last one with: took too long"


def test_the_threshold_itself_is_in_order() -> None:
    assert windows(health(warn_fraction=0.1), 2, 3)[0] is None
    assert windows(health(warn_fraction=0.1), 3)[0] is not None
    assert len(windows(health(), 10, 10, 10)) == 3


def test_more_than_half_in_two_steps_in_a_row_ends_the_run() -> None:
    rewards = health()
    windows(rewards, 11, 0, 11)
    with pytest.raises(
        RewardFailureError,
        match=r"^11 of the 20 rewards of the last 2 groups failed \(11 timeout\), the last one with: took too long; "
        r"that is the second time in a row that more than 50% do \(reward.max_failure_fraction\)",
    ):
        windows(rewards, 11)


def test_a_fraction_of_one_never_ends_the_run() -> None:
    assert len(windows(health(max_fraction=1.0), 20, 20, 20, 20)) == 4
