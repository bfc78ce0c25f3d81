"""Requests and tokens of a minute, and the waits between attempts, by a clock that the test turns."""

import random

import pytest

from rollout.endpoint.budget import LONGEST_WAIT_S, Backoff, Budget, seconds_of


def test_requests_of_a_sliding_minute() -> None:
    budget = Budget(requests_per_minute=2, window_s=60)
    assert budget.wait_s(0.0, 0) == 0
    budget.spend(0.0, 0)
    budget.spend(10.0, 0)
    assert budget.wait_s(20.0, 0) == 40  # until the first is a minute old
    assert budget.wait_s(60.0, 0) == 0
    budget.spend(60.0, 0)
    assert budget.wait_s(60.0, 0) == 10
    assert budget.wait_s(1000.0, 0) == 0


def test_tokens_count_as_estimated_until_they_are_known() -> None:
    budget = Budget(tokens_per_minute=100, window_s=60)
    first = budget.spend(0.0, 80)
    budget.spend(5.0, 20)
    assert budget.wait_s(10.0, 10) == 50  # the first has to go
    assert budget.wait_s(10.0, 90) == 55  # the second as well
    budget.settle(first, 30)
    assert budget.wait_s(10.0, 50) == 0
    assert budget.wait_s(10.0, 51) == 50
    assert budget.why_never(100) is None
    assert budget.why_never(101) == "it takes about 101 tokens, and tokens_per_minute is 100"


def test_a_pause_holds_all() -> None:
    budget = Budget()
    budget.hold(30.0)
    budget.hold(20.0)  # a shorter one takes nothing back
    assert budget.wait_s(10.0, 1_000_000) == 20
    assert budget.wait_s(30.0, 0) == 0
    assert budget.why_never(10**9) is None


@pytest.mark.parametrize("seed", range(5))
def test_no_minute_has_more_than_the_limits(seed: int) -> None:
    chance = random.Random(seed)
    budget, now_s, sent = Budget(requests_per_minute=5, tokens_per_minute=300, window_s=60), 0.0, []
    for _ in range(200):
        tokens = chance.randint(1, 200)
        wait_s = budget.wait_s(now_s, tokens)
        while wait_s > 0:
            now_s += wait_s
            wait_s = budget.wait_s(now_s, tokens)
        budget.spend(now_s, tokens)
        sent.append((now_s, tokens))
        now_s += chance.choice((0.0, 0.5, 20.0))
    for start, _ in sent:
        within = [tokens for at, tokens in sent if start <= at < start + 60]
        assert len(within) <= 5
        assert sum(within) <= 300


def test_waits_double_are_shortened_by_chance_and_end() -> None:
    backoff = Backoff(random.Random(1), max_attempts=12, first_s=1.0)
    waits = [backoff.after_attempt(None) for _ in range(12)]
    assert waits[-1] is None
    for number, wait_s in enumerate(waits[:-1]):
        longest_s = min(LONGEST_WAIT_S, 2.0**number)
        assert wait_s is not None
        assert longest_s / 2 <= wait_s <= longest_s
    again = Backoff(random.Random(1), max_attempts=12, first_s=1.0)
    assert [again.after_attempt(None) for _ in range(12)] == waits
    other = Backoff(random.Random(2), first_s=1.0)
    assert [other.after_attempt(None) for _ in range(11)] != waits[:-1]
    assert all(other.after_attempt(None) is not None for _ in range(2000))


def test_what_a_server_asks_for_is_the_least() -> None:
    backoff = Backoff(random.Random(1), first_s=0.5)
    for _ in range(5):
        wait_s = backoff.after_attempt(7.0)
        assert wait_s is not None
        assert 7.0 < wait_s <= 7.5


@pytest.mark.parametrize(
    ("header", "seconds"),
    [("3", 3.0), ("0.5", 0.5), (None, None), ("", None), ("-1", None), ("inf", None), ("nan", None), ("Wed, 21", None)],
)
def test_retry_after(header: str | None, seconds: float | None) -> None:
    assert seconds_of(header) == seconds
